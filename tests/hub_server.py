"""Server on the loopback address with the calls of the Hugging Face Hub that its client needs.

`.safetensors` and `.pth` files are LFS files, others are regular files. There is no xet transfer,
so that the client needs HF_HUB_DISABLE_XET=1.
"""

import base64
import hashlib
import json
import re
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".pth")


class HubServer:
    """The server, from its construction until `close`.

    Attributes:
        url: address of the server.
        repos: content by repository and path; a test may fill it.
        tokens: required token by repository or user.
        corrupted: (repository, path) of the files served with wrong bytes.
        break_after: number of bytes after which the next download is interrupted, once.
        requests: (method, path) of all requests.
        resumed: offsets of resumed downloads.
    """

    def __init__(self):
        self.repos = defaultdict(dict)
        self.tokens, self.corrupted, self.break_after, self.requests = {}, set(), None, []
        self.uploads, self.resumed = {}, []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        """Stop the server and refuse all further connections."""
        self._server.shutdown()
        self._server.server_close()

    def corrupt(self, repository, path):
        self.corrupted.add((repository, path))

    def commit_of(self, repository):
        """Return the commit of a repository, a hash of its content."""
        rows = (f"{p} {hashlib.sha256(c).hexdigest()}" for p, c in self.repos[repository].items())
        return hashlib.sha1("\n".join(sorted(rows)).encode()).hexdigest()

    def allows(self, repository, authorization):
        token = self.tokens.get(repository) or self.tokens.get(repository.partition("/")[0])
        return token is None or authorization == f"Bearer {token}"


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    # HTTP/1.0, the default: a connection per request, so that `close` leaves no open connection.

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._route("HEAD")

    def do_GET(self):
        self._route("GET")

    def do_POST(self):
        self._route("POST")

    def do_PUT(self):
        self._route("PUT")

    def _route(self, method):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((method, path))
        body = self._body()
        for pattern, answer in (
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
            (r"/api/models/([^/]+/[^/]+)/preupload/[^/]+", self._preupload),
            (r"/api/models/([^/]+/[^/]+)/commit/[^/]+", self._commit),
            (r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", self._info),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._lfs_batch),
            (r"/lfs/(\w+)", self._lfs_upload),
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", self._validate),
        ):
            if match := re.fullmatch(pattern, path):
                answer(body, *match.groups())
                return
        self._send(404, b"no such call")

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, status, body=b"", **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, content):
        self._send(200, json.dumps(content).encode(), Content_Type="application/json")

    def _refused(self, repository):
        """Refuse a missing or private repository; return whether it was refused."""
        if repository not in self.hub.repos:
            self._send(404, X_Error_Code="RepoNotFound")
        elif not self.hub.allows(repository, self.headers.get("Authorization")):
            self._send(401, X_Error_Code="RepoNotFound")
        else:
            return False
        return True

    def _resolve(self, _, repository, revision, path):
        if self._refused(repository):
            return
        commit = self.hub.commit_of(repository)
        if revision not in ("main", commit):
            self._send(404, X_Error_Code="RevisionNotFound")
            return
        content = self.hub.repos[repository].get(path)
        if content is None:
            self._send(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        digest = hashlib.sha256 if path.endswith(LARGE) else hashlib.sha1
        etag = f'"{digest(content).hexdigest()}"'
        if (repository, path) in self.hub.corrupted:
            content = content[:-1] + bytes([content[-1] ^ 1])
        linked = {"X_Linked_Etag": etag, "X_Linked_Size": str(len(content))}
        headers = {"X_Repo_Commit": commit, "ETag": etag, "Accept_Ranges": "bytes", **linked}
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start and self.command == "GET":
            first, last = int(start[1]), len(content) - 1
            self.hub.resumed.append(first)
            headers["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
            self._send(206, content[first:], **headers)
        elif self.command == "GET" and self.hub.break_after is not None:
            count, self.hub.break_after = self.hub.break_after, None
            self._break_off(content, count, headers)
        else:
            self._send(200, content, **headers)

    def _break_off(self, content, count, headers):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content[:count])
        self.wfile.flush()

    def _info(self, _, repository):
        if not self._refused(repository):
            files = [{"rfilename": path} for path in self.hub.repos[repository]]
            commit = self.hub.commit_of(repository)
            self._json({"id": repository, "sha": commit, "siblings": files, "private": False})

    def _create(self, body):
        content = json.loads(body)
        repository = f"{content.get('organization', 'me')}/{content['name']}"
        if not self.hub.allows(repository, self.headers.get("Authorization")):
            self._send(401)
            return
        self.hub.repos.setdefault(repository, {})
        self._json({"url": f"{self.hub.url}/{repository}", "name": repository})

    def _validate(self, body):
        self._json({"errors": [], "warnings": []})

    def _preupload(self, body, repository):
        if not self._refused(repository):
            modes = {True: "lfs", False: "regular"}
            files = [
                {
                    "path": file["path"],
                    "uploadMode": modes[file["path"].endswith(LARGE)],
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._json({"files": files})

    def _lfs_batch(self, body, repository):
        upload = {"href": f"{self.hub.url}/lfs/"}
        objects = [
            {**o, "actions": {"upload": {"href": upload["href"] + o["oid"]}}}
            for o in json.loads(body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _lfs_upload(self, body, oid):
        self.hub.uploads[oid] = body
        self._send(200 if hashlib.sha256(body).hexdigest() == oid else 400)

    def _commit(self, body, repository):
        if self._refused(repository):
            return
        files = self.hub.repos[repository]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        commit = self.hub.commit_of(repository)
        url = f"{self.hub.url}/{repository}/commit/{commit}"
        self._json({"commitUrl": url, "commitOid": commit, "pullRequestUrl": None})
