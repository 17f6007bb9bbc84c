"""Progress, stop rules, Ctrl-C."""

from __future__ import annotations

import io
import os
import signal
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from ptychon import Dataset, PtychonError, PtychonWarning, reconstruct
from ptychon.run.meter import Meter
from ptychon.run.observers import Interrupt, ProgressBar, StopWhen


def scan(side=3, size=8):
    """A few frames of a flat object, and the probe."""
    y, x = np.mgrid[:size, :size] - size // 2
    probe = (30 * np.exp(-(y**2 + x**2) / 6)).astype(np.complex64)
    frame = np.abs(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe), norm="ortho"))) ** 2
    places = 2.0 * np.stack(np.mgrid[:side, :side], -1).reshape(-1, 2)
    counts = np.random.default_rng(0).poisson(np.broadcast_to(frame, (side**2, size, size)))
    return Dataset(patterns=counts, positions=places), probe


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


def test_passes_of_the_first_guess_are_shown_and_not_counted():
    data, probe = scan()
    stream = io.StringIO()
    bar = ProgressBar("ep", stream=stream, lines=True)
    reconstruct(data, "ep", passes=3, probe=probe, callbacks=[bar], backend="numpy", say=None)
    bar.close()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("first guess, dm pass 1  R ")
    assert [line.split("  ")[0] for line in lines[-3:]] == [f"ep pass {i}/3" for i in (1, 2, 3)]


def test_passes_of_an_earlier_run_are_not_counted():
    """--epochs 300 --start of 40 passes: 1/300 to 300/300, not 41/340."""
    stream = io.StringIO()
    bar = ProgressBar("rpie", stream=stream, lines=True, earlier=40)
    for done in range(41, 341):
        bar(at(done, 0.1, planned=340, seconds=done - 40.0))
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("rpie pass 1/300")
    assert lines[0].endswith("4:59 left")
    assert lines[-1].startswith("rpie pass 300/300")


def test_a_log_file_gets_a_sign_of_life(monkeypatch):
    """Half a minute without a word, then a line every half minute."""
    now = [0.0]
    monkeypatch.setattr("ptychon.run.meter.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    meter = Meter("sampling", stream=stream)
    for done in range(1, 101):
        now[0] = done
        meter(done, 100)
    meter.close()
    assert stream.getvalue().splitlines() == [f"sampling {n}/100" for n in (30, 60, 90)]


def test_a_run_from_python_shows_its_passes_unasked(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    data, probe = scan()
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    how = {"passes": 3, "probe": probe, "backend": "reference"}
    result = reconstruct(data, "rpie", **how)
    assert "rpie pass" in stream.getvalue()
    assert "3/3" in stream.getvalue()
    later = reconstruct(data, "rpie", start=result, **how)
    assert later.passes == 6
    assert "6/6" not in stream.getvalue()
    assert stream.getvalue().count("3/3") >= 2
    stream.truncate(0)
    reconstruct(data, "rpie", progress=False, **how)
    reconstruct(data, "rpie", judge=False, **how)
    assert "pass" not in stream.getvalue()


def test_pie_with_a_probe_that_nobody_gave_is_warned_of():
    data, probe = scan()
    how = {"passes": 1, "backend": "reference", "say": None}
    with pytest.warns(PtychonWarning, match="keeps the probe as it is, and none was given"):
        reconstruct(data, "pie", **how)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        reconstruct(data, "pie", probe=probe, **how)
    assert not any("none was given" in str(w.message) for w in said)


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
