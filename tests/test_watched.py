"""Audit hook and canaries: they record the actions of Python and of C libraries."""

import ctypes
import os
import pickle
import socket
import subprocess

import pytest

from tests.watched import TOKEN, Canaries, watch


@pytest.fixture
def canaries(tmp_path):
    (tmp_path / "own").mkdir()
    canaries = Canaries(tmp_path / "outside")
    canaries.arm()
    return canaries


HARM = {
    "open for reading": lambda folder: (folder / "outside/secret.txt").read_text(),
    "open for writing": lambda folder: (folder / "own/../outside/new.txt").write_text("x"),
    "os.rename": lambda folder: os.replace(folder / "own/a.txt", folder / "outside/a.txt"),
    "subprocess.Popen": lambda folder: subprocess.run(["true"], check=False),
    "socket.": lambda folder: socket.create_connection(("127.0.0.1", 9)),
    "pickle.find_class": lambda folder: pickle.loads(b"cos\nsystem\n."),
    "compile": lambda folder: compile(f"{TOKEN} = 1", "x", "exec"),
    "ctypes.dlopen": lambda folder: ctypes.CDLL(str(folder / "own/a.so")),
}


@pytest.mark.parametrize("event", HARM)
def test_harm_is_recorded(event, canaries, tmp_path):
    record = watch(lambda: HARM[event](tmp_path), [], [tmp_path / "own"])
    assert any(line.startswith(event) for line in record.events), record


def test_canaries_record_actions_of_c_libraries(canaries):
    libc, secret = ctypes.CDLL(None), os.fsencode(canaries.folder / "secret.txt")
    libc.close(libc.open(secret, os.O_RDONLY))
    assert any("secret.txt was touched" in line for line in canaries.touched())
    with socket.create_connection(("127.0.0.1", canaries.port)):
        assert "connection" in canaries.touched()[0]
