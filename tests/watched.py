"""A command in a process of its own, under Python's audit hook: what it did is told, not stopped.

The hook sees what Python does. What C libraries do (GDAL, FFmpeg, OpenCV, the runtimes of exported
files) shows in canaries: files beside the stranger's that inotify watches, and a port that listens.
"""

import ctypes
import io
import os
import resource
import select
import signal
import socket
import struct
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.paths import ROOT as _HOUSE

SECONDS = 20
MEMORY = 2**31  # bytes more than the process that it is forked from
TOKEN = "hostile_code"  # whatever holds it is a stranger's

_READABLE = (
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    sys.prefix,
    sys.base_prefix + "/lib/python",
    *(str(_HOUSE / name) for name in ("hrseg", "configs", "tests", "hrseg.egg-info")),
    *("/proc", "/sys", "/dev", "/lib", "/usr/lib", "/usr/share/zoneinfo", "/etc/localtime"),
    *("/etc/ld.so.cache", "/usr/share/locale", "/etc/os-release", "/usr/lib/os-release"),
)
_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.", "pty.")
_NETWORK = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.")
_QUIET = ("socket.gethostname",)  # of itself: asks nobody
_WRITES = (
    "os.remove os.rename os.rmdir os.mkdir os.link os.symlink os.truncate os.chmod os.chown "
    "os.utime os.setxattr shutil.rmtree shutil.move shutil.copyfile shutil.make_archive"
).split()
_LISTS = ("os.listdir", "os.scandir", "glob.glob", "os.walk")


@dataclass
class Seen:
    """What a command did.

    Attributes:
        exit_code: 1 for an exception that nothing caught, minus the signal that ended it.
        output: stdout and stderr, of C libraries too, as bytes.
        events: what it must not have done, a line each.
        seconds: how long it took.
    """

    exit_code: int
    output: bytes
    events: list[str] = field(default_factory=list)
    seconds: float = 0.0


def watch(
    call: Callable[[], int | None],
    readable: Sequence[Path],
    writable: Sequence[Path],
    environment: dict[str, str] | None = None,
    network: bool = False,
) -> Seen:
    """Run a call in a forked process under the audit hook.

    Args:
        call: returns the exit code.
        readable: folders that it may read.
        writable: folders that it may write, and read; temporary files go to the first.
        environment: variables that are set for it.
        network: whether sockets are no event.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as events:
        child = os.fork()
        if child == 0:
            _child(call, said.fileno(), events.fileno(), readable, writable, environment, network)
        status = _wait(child, began + SECONDS)
        said.seek(0)
        events.seek(0)
        lines = [line.decode() for line in events.read().split(b"\0") if line]
        seen = Seen(os.waitstatus_to_exitcode(status), said.read(), lines)
    seen.seconds = time.monotonic() - began
    if seen.seconds >= SECONDS:
        seen.events.append(f"it took more than {SECONDS} s")
    return seen


def _wait(child: int, deadline: float) -> int:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(0.005)


def _child(call, said, events, readable, writable, environment, network):
    code = 70
    try:
        os.dup2(said, 1)
        os.dup2(said, 2)
        for name, number in (("stdout", 1), ("stderr", 2)):
            stream = io.TextIOWrapper(os.fdopen(number, "wb", 0, closefd=False), "utf-8",
                                      write_through=True)  # fmt: skip
            setattr(sys, name, stream)
        os.environ.update({"TMPDIR": str(writable[0]), **(environment or {})})
        tempfile.tempdir = str(writable[0])
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.dont_write_bytecode = True
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = taken + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        sys.addaudithook(_Hook(events, readable, writable, network))
        code = int(call() or 0)
    except BaseException:
        code = 1
        traceback.print_exc()
    finally:
        os._exit(code)


class _Hook:
    """Writes down what must not be done."""

    def __init__(self, events: int, readable: Sequence[Path], writable: Sequence[Path],
                 network: bool) -> None:  # fmt: skip
        self.writable = tuple(map(os.path.realpath, writable))
        self.readable = tuple(map(os.path.realpath, readable)) + self.writable + _READABLE
        self.events, self.network, self.busy = events, network, False

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.busy:
            return
        self.busy = True
        try:
            if fault := self.fault(event, arguments):
                os.write(self.events, fault.encode("utf-8", "backslashreplace") + b"\0")
        finally:
            self.busy = False

    def fault(self, event: str, arguments: tuple) -> str | None:
        if event.startswith(_STARTS) or event == "pickle.find_class":
            return f"{event} {arguments}"[:300]
        if event.startswith(_NETWORK) and event not in _QUIET:
            return None if self.network else f"{event} {arguments}"[:300]
        if event in ("exec", "compile"):
            return self._code(event, arguments)
        if event == "ctypes.dlopen":
            name = arguments[0]
            foreign = name and os.path.isabs(str(name)) and not _within(str(name), _READABLE)
            return f"{event} {name}" if foreign else None
        if event == "open":
            return self._open(*arguments)
        if event in _WRITES:
            paths = [path for path in arguments[:2] if isinstance(path, str | bytes | os.PathLike)]
            if event in ("os.symlink", "shutil.copyfile"):
                paths = paths[1:]
            wrong = [path for path in paths if not self._may_write(path)]
            return f"{event} {wrong[0]!r}" if wrong else None
        if event in _LISTS and isinstance(arguments[0], str | bytes | os.PathLike):
            return None if self._may_read(arguments[0]) else f"{event} {arguments[0]!r}"
        return None

    def _code(self, event: str, arguments: tuple) -> str | None:
        if event == "compile":
            source, name = arguments
            if isinstance(source, bytes):
                source = source.decode("utf-8", "replace")
            if TOKEN in str(source or ""):
                return f"compile of a stranger's text as {name!r}"
        else:
            code = arguments[0]
            name = code.co_filename
            if any(TOKEN in str(part) for part in (*code.co_consts, *code.co_names)):
                return f"exec of a stranger's code, {name!r}"
        name = os.fsdecode(name) if isinstance(name, bytes) else str(name)
        if name.startswith("<") or not os.path.isabs(name) or _within(name, _READABLE):
            return None
        return f"{event} of {name}"

    def _open(self, path: object, mode: object, flags: object) -> str | None:
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
            return None if self._may_write(path) else f"open for writing {path!r}"
        return None if self._may_read(path) else f"open for reading {path!r}"

    def _may_write(self, path: object) -> bool:
        real = _real(path)
        return real == "/dev/null" or _within(real, self.writable)

    def _may_read(self, path: object) -> bool:
        real = _real(path)
        # To look for a file on the way to it is not to read it.
        above = any(given.startswith(f"{real.rstrip('/')}/") for given in self.readable)
        return _within(real, self.readable) or above or self._may_write(path)


def _real(path: object) -> str:
    try:
        return os.path.realpath(os.fsdecode(path))
    except ValueError:  # a NUL in it
        return os.fsdecode(path)


def _within(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") or (
        folder.endswith("python") and path.startswith(folder)) for folder in folders)  # fmt: skip


class Canaries:
    """Files that nobody has to open, and a port that nobody has to call.

    Attributes:
        folder: theirs: secret.txt, secret.png, and what a test puts there before `arm`.
        port: of 127.0.0.1.
    """

    SECRET = "canary-7c9e6679-of-the-host"

    def __init__(self, folder: Path) -> None:
        """Make them."""
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "secret.txt").write_text(f"{self.SECRET}\n")
        (folder / "victim.txt").write_text("untouched")
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(16)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.inotify = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)

    def arm(self) -> None:
        """Watch from now on."""
        opened, modified, moved = 0x20, 0x2, 0xC0 | 0x100 | 0x200
        self.libc.inotify_add_watch(
            self.inotify, os.fsencode(self.folder), opened | modified | moved
        )

    def touched(self) -> list[str]:
        """Return what came since the last call, a line each."""
        found = []
        while select.select([self.inotify], [], [], 0)[0]:
            data, at = os.read(self.inotify, 65536), 0
            while at < len(data):
                _, mask, _, length = struct.unpack_from("iIII", data, at)
                name = data[at + 16 : at + 16 + length].rstrip(b"\0").decode(errors="replace")
                if not mask & 0x40000000 or mask & 0x2C2:
                    found.append(f"canary {name or 'folder'} was touched ({mask:#x})")
                at += 16 + length
        try:
            while True:
                found.append(f"a connection came from {self.listener.accept()[1]}")
        except BlockingIOError:
            pass
        return sorted(set(found))

    def close(self) -> None:
        """Stop watching."""
        os.close(self.inotify)
        self.listener.close()
