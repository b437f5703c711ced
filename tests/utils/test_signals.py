"""Signals to a command: one word, one exit code, the handlers of before put back."""

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
        raise AssertionError("it went on")

    monkeypatch.setattr(doctor, "run", command)
    before = [signal.getsignal(number) for number in stop.stop_signals()]
    assert cli.main(["doctor"]) == code
    assert capsys.readouterr().err == "hrseg: stopped\n"
    assert [signal.getsignal(number) for number in stop.stop_signals()] == before


def test_what_nohup_has_switched_off_stays_off(monkeypatch):
    monkeypatch.setattr(doctor, "run", lambda _: os.kill(os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert cli.main(["doctor"]) == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_output_stops_a_training_and_a_short_command_prints_nothing(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "run", lambda _: stop.raise_stopped(stop.SIGPIPE))
    assert cli.main(["doctor"]) == 141
    assert capsys.readouterr().err == ""


def test_of_several_processes_one_speaks(monkeypatch, capsys):
    def command(arguments):
        raise Stopped(signal.SIGTERM, "stopped after step 3")

    monkeypatch.setattr(doctor, "run", command)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cli.main(["doctor"]) == 143
    assert capsys.readouterr().err == ""


def test_nothing_that_catches_faults_catches_it():
    with pytest.raises(Stopped), stoppable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:  # what a library does with a fault
            pytest.fail("it was taken for a fault")


def test_the_same_signal_passed_on_twice_counts_once_and_one_later_ends_the_process(monkeypatch):
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
