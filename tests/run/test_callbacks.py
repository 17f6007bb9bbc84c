"""Progress, stop rules, Ctrl-C."""

from __future__ import annotations

import io
import os
import signal
from types import SimpleNamespace

import pytest

from ptychon import PtychonError
from ptychon.run.observers import Interrupt, ProgressBar, StopWhen


def at(done, error, planned=40, seconds=None):
    return SimpleNamespace(
        passes=done,
        planned=planned,
        error=error,
        seconds=float(done) if seconds is None else seconds,
        extra={},
    )


def test_lines_about_every_tenth():
    stream = io.StringIO()
    bar = ProgressBar("rpie", stream=stream, lines=True)
    for done in range(1, 41):
        bar(at(done, 1 / done if done % 2 else float("nan")))
    bar.close()
    lines = stream.getvalue().splitlines()
    assert 10 <= len(lines) <= 11
    assert lines[0] == "rpie pass 1/40  R 1.0000  0:39 left"
    assert lines[-1].startswith("rpie pass 40/40  R 0.0256")  # the last that was measured


def test_silent_where_there_is_no_terminal():
    stream = io.StringIO()
    ProgressBar(stream=stream)(at(1, 0.5))
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    bar = ProgressBar("ep", stream=stream)
    for done in range(11, 21):  # going on from an earlier run
        bar(at(done, 0.1, planned=20, seconds=done - 10.0))
    bar.close()
    bar.close()
    assert "20/20" in stream.getvalue()
    assert "R 0.1000" in stream.getvalue()


def test_stop_rules():
    rule = StopWhen(change=0.01, passes=3)
    errors = [1.0, 0.5, float("nan"), 0.3, 0.2, 0.199, 0.1989, 0.1988]
    assert [rule(at(i + 1, e)) for i, e in enumerate(errors)].index(True) == 7
    assert StopWhen(error=0.2)(at(1, 0.2))
    assert not StopWhen(error=0.2)(at(1, float("nan")))
    for wrong in ({}, {"change": 0}, {"error": -1}, {"change": 0.1, "passes": 0}):
        with pytest.raises(PtychonError):
            StopWhen(**wrong)


def test_a_restart_forgets():
    rule = StopWhen(change=0.01, passes=2)
    assert not any(rule(at(i + 1, 0.1)) for i in range(2))
    assert not any(rule(at(i + 1, 0.1)) for i in range(2))


def test_ctrl_c_ends_the_run_politely(capsys):
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        assert not interrupt(at(1, 0.1))
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt(at(2, 0.1))
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert "finishing this pass" in capsys.readouterr().err
