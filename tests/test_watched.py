"""The watch must see what it is there for: a harness that sees nothing proves nothing."""

import ctypes
import os
import pickle
import socket
import subprocess
import sys

import pytest

from tests.watched import MEMORY, TOKEN, Canaries, watch


@pytest.fixture
def place(tmp_path):
    for name in ("given", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "given/a.txt").write_text("a")
    canaries = Canaries(tmp_path / "outside")
    canaries.arm()
    yield tmp_path, canaries
    canaries.close()


def seen(call, place):
    return watch(call, [place[0] / "given"], [place[0] / "out"])


def test_harmless_work_leaves_no_event(place):
    def call():
        text = (place[0] / "given/a.txt").read_text()
        (place[0] / "out/b.txt").write_text(text)
        os.replace(place[0] / "out/b.txt", place[0] / "out/c.txt")
        print("done")
        import colorsys  # noqa: F401

        return 3

    found = seen(call, place)
    assert (found.exit_code, found.output, found.events) == (3, b"done\n", [])
    assert not place[1].touched()


HARM = {
    "open for reading": lambda top: (top / "outside/secret.txt").read_text(),
    "open for writing": lambda top: (top / "outside/new.txt").write_text("x"),
    "os.remove": lambda top: (top / "outside/victim.txt").unlink(),
    "os.rename": lambda top: os.replace(top / "given/a.txt", top / "outside/a.txt"),
    "os.mkdir": lambda top: (top / "outside/folder").mkdir(),
    "os.listdir": lambda top: os.listdir(top / "outside"),
    "os.system": lambda top: os.system("true"),
    "subprocess.Popen": lambda top: subprocess.run(["true"], check=False),
    "os.fork": lambda top: os.waitpid(os.fork() or os._exit(0), 0),
    "socket.": lambda top: socket.create_connection(("127.0.0.1", 9)),
    "pickle.find_class": lambda top: pickle.loads(b"cos\nsystem\n."),
    "compile": lambda top: compile(f"{TOKEN} = 1", "x", "exec"),
    "exec": lambda top: exec(compile(f"{TOKEN} = 1", "x", "exec")),
    "ctypes.dlopen": lambda top: ctypes.CDLL(str(top / "given/a.so")),
}


@pytest.mark.parametrize("event", HARM)
def test_harm_is_told(event, place):
    found = seen(lambda: HARM[event](place[0]), place)
    assert any(line.startswith(event) for line in found.events), found


def test_a_link_and_a_way_up_do_not_hide_where_a_path_leads(place):
    (place[0] / "out/link").symlink_to(place[0] / "outside")
    for path in (place[0] / "out/link/x.txt", place[0] / "out/../outside/x.txt"):
        assert seen(lambda path=path: path.write_text("x"), place).events


def test_what_c_does_shows_in_the_canaries(place):
    libc = ctypes.CDLL(None)
    secret = os.fsencode(place[0] / "outside/secret.txt")
    found = seen(lambda: libc.close(libc.open(secret, os.O_RDONLY)), place)
    assert not found.events
    assert any("secret.txt was touched" in line for line in place[1].touched())
    assert not place[1].touched()


def test_a_connection_shows_in_the_canaries(place):
    with socket.create_connection(("127.0.0.1", place[1].port)):
        assert any("connection" in line for line in place[1].touched())


def test_memory_without_end_is_not_had(place):
    assert b"MemoryError" in seen(lambda: len(bytes(2 * MEMORY)), place).output


def test_a_command_without_end_is_ended(place, monkeypatch):
    monkeypatch.setattr("tests.watched.SECONDS", 1)
    found = seen(lambda: sys.stdin and __import__("time").sleep(60), place)
    assert found.exit_code == -9 and "more than 1 s" in found.events[0]
