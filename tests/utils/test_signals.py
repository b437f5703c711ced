"""Signals to a command: one message, one exit code, and restored handlers."""

import os
import signal

import pytest

from hrseg import cli
from hrseg.commands import doctor
from hrseg.utils import signals as stop
from hrseg.utils.signals import Stopped, stoppable


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_stopped_command_prints_one_line(signum, code, monkeypatch, capsys):
    def command(arguments):
        os.kill(os.getpid(), signum)
        raise AssertionError("the command continued")

    monkeypatch.setattr(doctor, "run", command)
    before = [signal.getsignal(number) for number in stop.stop_signals()]
    assert cli.main(["doctor"]) == code
    assert capsys.readouterr().err == "hrseg: stopped\n"
    assert [signal.getsignal(number) for number in stop.stop_signals()] == before


def test_a_signal_ignored_by_nohup_stays_ignored(monkeypatch):
    monkeypatch.setattr(doctor, "run", lambda _: os.kill(os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert cli.main(["doctor"]) == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_output_stops_a_command_without_a_message(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "run", lambda _: stop.raise_stopped(stop.SIGPIPE))
    assert cli.main(["doctor"]) == 141
    assert capsys.readouterr().err == ""


def test_only_the_first_process_prints_the_message(monkeypatch, capsys):
    def command(arguments):
        raise Stopped(signal.SIGTERM, "stopped after step 3")

    monkeypatch.setattr(doctor, "run", command)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cli.main(["doctor"]) == 143
    assert capsys.readouterr().err == ""


def test_stopped_is_not_caught_as_an_exception():
    with pytest.raises(Stopped), stoppable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:  # as in the error handling of a library
            pytest.fail("Stopped was caught as an Exception")


def test_a_copy_of_a_signal_is_ignored_and_a_later_signal_ends_the_process(monkeypatch):
    ends, clock = [], 100.0
    monkeypatch.setattr(stop.os, "_exit", ends.append)
    monkeypatch.setattr(stop.time, "monotonic", lambda: clock)
    with stoppable():
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
        clock = 100.5
        os.kill(os.getpid(), signal.SIGTERM)
        assert ends == []
        clock = 102.0
        os.kill(os.getpid(), signal.SIGINT)
    assert ends == [130]
