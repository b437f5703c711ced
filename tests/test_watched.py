"""The watch sees what it is made for."""

import ctypes
import os
import pickle
import socket
import subprocess

import pytest

from tests.watched import MEMORY, TOKEN, Canaries, watch


@pytest.fixture
def top(tmp_path):
    for name in ("given", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "given/a.txt").write_text("a")
    return tmp_path


@pytest.fixture(autouse=True)
def canaries(top):
    canaries = Canaries(top / "outside")
    canaries.arm()
    return canaries


def seen(call, top):
    return watch(lambda: call(top), [top / "given"], [top / "out"])


def harmless(top):
    (top / "out/b.txt").write_text((top / "given/a.txt").read_text())
    os.replace(top / "out/b.txt", top / "out/c.txt")
    print("done")
    import colorsys  # noqa: F401

    return 3


def test_harmless_work_leaves_no_event_and_memory_is_limited(top, canaries):
    found = seen(harmless, top)
    assert (found.exit_code, found.output, found.events) == (3, b"done\n", [])
    assert not canaries.touched()
    assert b"MemoryError" in seen(lambda top: len(bytes(2 * MEMORY)), top).output


HARM = {
    "open for reading": lambda top: (top / "outside/secret.txt").read_text(),
    "open for writing": lambda top: (top / "out/../outside/new.txt").write_text("x"),
    "os.rename": lambda top: os.replace(top / "given/a.txt", top / "outside/a.txt"),
    "subprocess.Popen": lambda top: subprocess.run(["true"], check=False),
    "socket.": lambda top: socket.create_connection(("127.0.0.1", 9)),
    "pickle.find_class": lambda top: pickle.loads(b"cos\nsystem\n."),
    "compile": lambda top: compile(f"{TOKEN} = 1", "x", "exec"),
    "ctypes.dlopen": lambda top: ctypes.CDLL(str(top / "given/a.so")),
}


@pytest.mark.parametrize("event", HARM)
def test_harm_is_recorded(event, top):
    found = seen(HARM[event], top)
    assert any(line.startswith(event) for line in found.events), found


def test_canaries_show_what_c_does(top, canaries):
    libc, secret = ctypes.CDLL(None), os.fsencode(top / "outside/secret.txt")
    assert not seen(lambda top: libc.close(libc.open(secret, os.O_RDONLY)), top).events
    assert any("secret.txt was touched" in line for line in canaries.touched())
    with socket.create_connection(("127.0.0.1", canaries.port)):
        assert "connection" in canaries.touched()[0]
