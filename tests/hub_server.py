"""Local server with the HTTP calls of the Hugging Face Hub, for tests of the real client.

It knows one branch, main, and its current commit. Files of `.safetensors` and `.pth` are LFS
files; others are regular git files. The Xet transfer is missing: the client needs
HF_HUB_DISABLE_XET=1 for uploads, because an installed hf-xet has no LFS fallback. Downloads use
Xet only if the server sends X-Xet-Hash.
"""

import base64
import hashlib
import json
import re
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import yaml

LARGE = (".safetensors", ".pth")
INVALID_TOKEN = "Invalid credentials in Authorization header"


def object_id(path: str, content: bytes) -> str:
    """Return the ETag of a file: sha256 of LFS files, git's blob sha1 of regular files."""
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubServer:
    """The server; it runs from construction until `close`, or until the end of a with-block.

    Attributes:
        url: value for HF_ENDPOINT.
        repos: content by repository and path. Any path name is served, also `../name`.
        tokens: required token by repository or user, for reading and writing.
        gated: repositories that report a missing token as gated, not as unknown.
        corrupted: (repository, path) of files served with wrong bytes under the right ETag.
        break_after: bytes after which the next download is closed, once.
        requests: (method, path) of all requests.
        uploads: content of LFS uploads by sha256.
        resumed: first byte of each download with a Range header.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.tokens: dict[str, str] = {}
        self.gated: set[str] = set()
        self.corrupted: set[tuple[str, str]] = set()
        self.break_after: int | None = None
        self.requests: list[tuple[str, str]] = []
        self.uploads: dict[str, bytes] = {}
        self.resumed: list[int] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server. Later connections are refused, as without a network."""
        self._server.shutdown()
        self._server.server_close()

    def corrupt(self, repository: str, path: str) -> None:
        """Serve wrong bytes of a file under the right ETag and size."""
        self.corrupted.add((repository, path))

    def commit_of(self, repository: str) -> str:
        """Return the current commit of a repository, a sha1 of its content."""
        rows = (f"{p} {hashlib.sha256(c).hexdigest()}" for p, c in self.repos[repository].items())
        return hashlib.sha1("\n".join(sorted(rows)).encode()).hexdigest()

    def required_token(self, repository: str) -> str | None:
        """Return the token of a repository or of its user; None if no token is required."""
        return self.tokens.get(repository) or self.tokens.get(repository.partition("/")[0])


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    # HTTP/1.0, the default, has a connection per request: none outlives `close`.

    def log_message(self, *_: object) -> None:
        pass

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        self.extra: dict[str, str] = {}
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        model = r"/api/models/([^/]+/[^/]+)"
        for pattern, answer in (
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
            (model + r"/preupload/main", self._preupload),
            (model + r"/commit/main", self._commit),
            (model + r"/tree/([^/]+)", self._tree),
            (model + r"(?:/revision/(.+))?", self._info),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._lfs_batch),
            (r"/lfs/verify", self._lfs_verify),
            (r"/lfs/(\w+)", self._lfs_upload),
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", self._validate),
            (r"/api/whoami-v2", self._whoami),
        ):
            if match := re.fullmatch(pattern, path):
                answer(body, *match.groups())
                return
        self._send(404, b"no such call")

    do_HEAD = do_GET = do_POST = do_PUT = _route

    def _send(self, status: int, body: bytes = b"", sent: int | None = None) -> None:
        """Send `self.extra` and a body; `sent` limits it to fewer bytes than Content-Length."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **self.extra}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])

    def _json(self, content: Any, status: int = 200) -> None:
        self.extra["Content-Type"] = "application/json"
        self._send(status, json.dumps(content).encode())

    def _error(self, status: int, text: str, kind: str = "Code") -> None:
        """Send an error with the header from which the client selects its exception."""
        self.extra[f"X-Error-{kind}"] = text
        self._send(status)

    def _refused(self, repository: str, revision: str | None = None) -> bool:
        """Send an error if the repository or revision is missing or private; return whether.

        An invalid token gets a message without an error code, as the client's hf_raise_for_status
        expects. Over https the client also takes a 401 without a code as RepoNotFound.
        """
        required = self.hub.required_token(repository)
        if repository not in self.hub.repos:
            self._error(404, "RepoNotFound")
        elif required and not self.token:
            self._error(401, "GatedRepo" if repository in self.hub.gated else "RepoNotFound")
        elif required and self.token != required:
            self._error(401, INVALID_TOKEN, "Message")
        elif revision not in (None, "main", self.hub.commit_of(repository)):
            self._error(404, "RevisionNotFound")
        else:
            return False
        return True

    def _resolve(self, _: bytes, repository: str, revision: str, path: str) -> None:
        if self._refused(repository, revision):
            return
        self.extra["X-Repo-Commit"] = self.hub.commit_of(repository)
        content = self.hub.repos[repository].get(path)
        if content is None:
            self._error(404, "EntryNotFound")
            return
        etag = f'"{object_id(path, content)}"'
        self.extra["ETag"] = etag
        if path.endswith(LARGE):
            self.extra |= {"X-Linked-Etag": etag, "X-Linked-Size": str(len(content))}
        if (repository, path) in self.hub.corrupted:
            content = content[:-1] + bytes([content[-1] ^ 1])
        limit = None
        if self.command == "GET":
            limit, self.hub.break_after = self.hub.break_after, None
        if start := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
            first = int(start[1])
            self.hub.resumed.append(first)
            self.extra["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self._send(206, content[first:], limit)
        else:
            self._send(200, content, limit)

    def _files(self, repository: str) -> list[dict[str, Any]]:
        """Return all files of a repository, with the keys of the tree and of model_info."""
        entries = []
        for path, content in self.hub.repos[repository].items():
            oid, size = object_id(path, content), len(content)
            entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": oid}
            if path.endswith(LARGE):
                entry["lfs"] = {"oid": oid, "sha256": oid, "size": size, "pointerSize": 130}
            entries.append({**entry, "rfilename": path, "blobId": oid})
        return entries

    def _tree(self, _: bytes, repository: str, revision: str) -> None:
        if not self._refused(repository, revision):
            self._json(self._files(repository))

    def _info(self, _: bytes, repository: str, revision: str | None) -> None:
        if not self._refused(repository, revision):
            private = self.hub.required_token(repository) is not None
            facts = {"id": repository, "sha": self.hub.commit_of(repository), "private": private}
            self._json({**facts, "siblings": self._files(repository)})

    def _whoami(self, _: bytes) -> None:
        owners = [name for name, token in self.hub.tokens.items() if token == self.token]
        if owners:
            self._json({"type": "user", "name": owners[0].partition("/")[0], "orgs": []})
        else:
            self._error(401, INVALID_TOKEN, "Message")

    def _create(self, body: bytes) -> None:
        content = json.loads(body)
        repository = f"{content.get('organization') or 'me'}/{content['name']}"
        if self.token != (self.hub.required_token(repository) or self.token):
            self._error(401, INVALID_TOKEN, "Message")
            return
        exists = repository in self.hub.repos
        self.hub.repos.setdefault(repository, {})
        if content.get("visibility") == "private" and self.token and not exists:
            self.hub.tokens[repository] = self.token
        self._json({"url": f"{self.hub.url}/{repository}"}, 409 if exists else 200)

    def _validate(self, body: bytes) -> None:
        front = re.match(r"---\n(.*?)\n---", json.loads(body)["content"], re.DOTALL)
        try:
            metadata = yaml.safe_load(front[1]) if front else None
        except yaml.YAMLError as error:
            self._json({"errors": [{"message": str(error)}], "warnings": []}, 400)
            return
        warnings = [] if metadata else [{"message": "empty or missing yaml metadata in repo card"}]
        self._json({"errors": [], "warnings": warnings})

    def _preupload(self, body: bytes, repository: str) -> None:
        if not self._refused(repository):
            oids = {entry["path"]: entry["oid"] for entry in self._files(repository)}
            files = json.loads(body)["files"]
            for file in files:
                mode = "lfs" if file["path"].endswith(LARGE) else "regular"
                file |= {"uploadMode": mode, "shouldIgnore": False, "oid": oids.get(file["path"])}
            self._json({"files": files})

    def _lfs_batch(self, body: bytes, repository: str) -> None:
        if self._refused(repository):
            return
        objects = json.loads(body)["objects"]
        for entry in objects:  # an object without actions is already on the server
            if entry["oid"] not in self.hub.uploads:
                upload, verify = f"{self.hub.url}/lfs/{entry['oid']}", f"{self.hub.url}/lfs/verify"
                entry["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
        self._json({"transfer": "basic", "objects": objects})

    def _lfs_upload(self, body: bytes, oid: str) -> None:
        correct = hashlib.sha256(body).hexdigest() == oid
        if correct:
            self.hub.uploads[oid] = body
        self._send(200 if correct else 400)

    def _lfs_verify(self, body: bytes) -> None:
        entry = json.loads(body)
        content = self.hub.uploads.get(entry["oid"])
        self._send(200 if content is not None and len(content) == entry["size"] else 404)

    def _commit(self, body: bytes, repository: str) -> None:
        if self._refused(repository):
            return
        files = dict(self.hub.repos[repository])  # replaced at once: a download sees one commit
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.hub.repos[repository] = files
        commit = self.hub.commit_of(repository)
        url = f"{self.hub.url}/{repository}/commit/{commit}"
        self._json({"commitUrl": url, "commitOid": commit, "pullRequestUrl": None})
