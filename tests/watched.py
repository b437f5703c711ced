"""Commands in new processes under Python's audit hook, which only records forbidden actions.

The hook records actions of Python. Canaries record actions of C libraries (GDAL, FFmpeg, OpenCV,
the runtimes of exported files): files that inotify watches, and a port with a listener.
"""

import ctypes
import io
import os
import resource
import signal
import socket
import struct
import sys
import sysconfig
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.paths import ROOT

SECONDS = 20
MEMORY = 2**31  # bytes in addition to those of the parent process
TOKEN = "hostile_code"  # in all hostile code of the tests

_READABLE = (
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    *(sys.prefix, f"{sys.base_prefix}/lib"),
    *(str(ROOT / name) for name in ("hrseg", "configs", "tests", "hrseg.egg-info")),
    *("/proc", "/sys", "/dev", "/lib", "/usr/lib", "/usr/share/zoneinfo", "/etc/localtime"),
    *("/etc/ld.so.cache", "/usr/share/locale", "/etc/os-release", "/usr/lib/os-release"),
)
_NEVER = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.", "pty."),
    *("pickle.find_class", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser."),
)
_WRITES = (
    "os.remove os.rename os.rmdir os.mkdir os.link os.symlink os.truncate os.chmod os.chown "
    "os.utime os.setxattr shutil.rmtree shutil.move shutil.copyfile shutil.make_archive"
).split()
_LISTS = ("os.listdir", "os.scandir", "glob.glob", "os.walk")
_Path = str | bytes | os.PathLike


@dataclass
class Record:
    exit_code: int  # 1 for an uncaught exception; negative: the number of a signal
    output: bytes  # stdout and stderr, also of C libraries
    events: list[str]  # forbidden actions, a line each


def watch(call, readable, writable, environment=None):
    """Run `call`, which returns an exit code, in a forked process under the audit hook.

    The process may read the folders `readable`, and read and write the folders `writable`. The
    first of `writable` contains its temporary files.
    """
    deadline, timeout = time.monotonic() + SECONDS, []
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as events:
        child = os.fork()
        if child == 0:
            hook = _Hook(events.fileno(), readable, writable)
            variables = {"TMPDIR": str(writable[0]), **(environment or {})}
            _child(call, output.fileno(), hook, variables)
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline and not timeout:
                os.kill(child, signal.SIGKILL)
                timeout = [f"the process took more than {SECONDS} s"]
            time.sleep(0.005)
        output.seek(0)
        events.seek(0)
        lines = events.read().decode().split("\0")[:-1]
        return Record(os.waitstatus_to_exitcode(ended[1]), output.read(), lines + timeout)


def _child(call, output, hook, environment):
    code = 1
    try:
        for name, number in (("stdout", 1), ("stderr", 2)):
            os.dup2(output, number)
            raw = os.fdopen(number, "wb", 0, closefd=False)
            setattr(sys, name, io.TextIOWrapper(raw, "utf-8", write_through=True))
        os.environ.update(environment)
        tempfile.tempdir = environment["TMPDIR"]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.dont_write_bytecode = True
        limit = psutil.Process().memory_info().vms + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        sys.addaudithook(hook)
        code = int(call() or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


class _Hook:
    def __init__(self, file, readable, writable):
        self.writable = tuple(map(os.path.realpath, writable))
        self.readable = tuple(map(os.path.realpath, readable)) + self.writable + _READABLE
        self.file, self.busy = file, False

    def __call__(self, event, arguments):
        if self.busy:
            return
        self.busy = True
        try:
            if fault := self.fault(event, arguments):
                os.write(self.file, fault.encode("utf-8", "backslashreplace") + b"\0")
        finally:
            self.busy = False

    def fault(self, event, arguments):
        network = event.startswith("socket.") and event != "socket.gethostname"
        if event.startswith(_NEVER) or network:
            return f"{event} {arguments}"[:300]
        if event in ("exec", "compile"):
            # The text, names and constants of the code.
            parts = arguments[:1]
            if event == "exec":
                parts = [*arguments[0].co_consts, *arguments[0].co_names]
            hostile = any(TOKEN in str(part) for part in parts)
            return f"{event} of hostile code" if hostile else None
        if event == "ctypes.dlopen":
            name = str(arguments[0] or "")
            foreign = os.path.isabs(name) and not _within(name, _READABLE)
            return f"{event} {name}" if foreign else None
        if event == "open":
            path, mode, flags = arguments
            marks = set(mode or "") & set("wax+")
            writes = marks or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            event = f"open for {'writing' if writes else 'reading'}"
            allowed, paths = self._may_write if writes else self._may_read, [path]
        elif event in _WRITES:
            first = event in ("os.symlink", "shutil.copyfile")
            allowed, paths = self._may_write, arguments[first:2]
        elif event in _LISTS:
            allowed, paths = self._may_read, arguments[:1]
        else:
            return None
        forbidden = [path for path in paths if isinstance(path, _Path) and not allowed(path)]
        return f"{event} {forbidden[0]!r}" if forbidden else None

    def _may_write(self, path):
        return _within(path, (*self.writable, "/dev/null"))

    def _may_read(self, path):
        # The search for a readable file may read its parent folders.
        parent = f"{_real(path).rstrip('/')}/"
        return _within(path, self.readable) or any(p.startswith(parent) for p in self.readable)


def _real(path):
    with suppress(ValueError):  # NUL in a path
        return os.path.realpath(os.fsdecode(path))
    return os.fsdecode(path)


def _within(path, folders):
    return f"{_real(path)}/".startswith(tuple(f"{folder}/" for folder in folders))


class Canaries:
    """Files that must not be opened, and a port on 127.0.0.1 without permitted connections."""

    SECRET = "canary-7c9e6679-of-the-host"

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "secret.txt").write_text(f"{self.SECRET}\n")
        (folder / "victim.txt").write_text("untouched")
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]

    def arm(self):
        opened, modified, moved = 0x20, 0x2, 0xC0 | 0x100 | 0x200
        libc = ctypes.CDLL(None, use_errno=True)
        self.inotify = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        libc.inotify_add_watch(self.inotify, os.fsencode(self.folder), opened | modified | moved)

    def touched(self):
        events = set()
        with suppress(BlockingIOError):
            while True:
                data, start = os.read(self.inotify, 65536), 0
                while start < len(data):
                    _, mask, _, length = struct.unpack_from("iIII", data, start)
                    name = data[start + 16 : start + 16 + length].rstrip(b"\0").decode()
                    if not mask & 0x40000000 or mask & 0x2C2:
                        events.add(f"canary {name or 'folder'} was touched ({mask:#x})")
                    start += 16 + length
        with suppress(BlockingIOError):
            while True:
                events.add(f"connection from {self.listener.accept()[1]}")
        return sorted(events)
