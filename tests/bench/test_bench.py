"""The textbook code against the engines it is compared with, and what the benchmark says of tiny
problems.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ptychon.backends import get_backend
from ptychon.bench import cases, clock, textbook, textbook_runs
from ptychon.bench.command import command, table
from ptychon.bench.run import compare, fallback, neighbour
from ptychon.bench.shell import main
from ptychon.engines import Context
from ptychon.kernels import reference
from ptychon.model.problem import Problem
from ptychon.run.iterate import iterate
from ptychon.types import PtychonError

TINY = {"size": 40, "frame": 16, "points": 9, "step": 3.0}


@pytest.fixture(scope="module")
def tiny() -> cases.Case:
    return cases.spiral(**TINY, noise=True)


def near_start(case: cases.Case, engine: Any) -> tuple[np.ndarray, np.ndarray]:
    """The engine's own start, a few per cent away from constant so that nothing cancels by
    symmetry.
    """
    rng = np.random.default_rng(3)
    object, probe = case.start(engine)
    wobble = [
        1 + 0.05 * (rng.standard_normal(a.shape) + 1j * rng.standard_normal(a.shape))
        for a in (object, probe)
    ]
    return (object * wobble[0]).astype(np.complex64), (probe * wobble[1]).astype(np.complex64)


@pytest.mark.parametrize("backend", ["numpy", "reference"])
@pytest.mark.parametrize(
    ("name", "modes"),
    [*((name, 1) for name in cases.ENGINES), *((name, 3) for name in cases.ITERATIVE)],
)
def test_textbook_does_what_the_engine_does(name: str, modes: int, backend: str) -> None:
    case = cases.spiral(**TINY, noise=True, modes=modes)
    engine = cases.engine_named(name)
    object, probe = near_start(case, engine)
    book = textbook_runs.start(engine, case.problem, object, probe)
    ctx = Context(get_backend(backend))
    steps = iterate(case.problem, engine, object, probe, ctx=ctx)
    for _ in range(2):
        book.sweep()
        state = next(steps).state
    estimate = engine.estimate(state, ctx)
    assert estimate.object.dtype == book.object.dtype == np.complex64
    np.testing.assert_allclose(
        book.object, estimate.object, atol=2e-5 * np.abs(estimate.object).max()
    )
    np.testing.assert_allclose(
        np.atleast_3d(book.probe.T).T, estimate.probe, atol=2e-5 * np.abs(estimate.probe).max()
    )


@pytest.mark.parametrize("name", cases.ENGINES)
def test_textbook_misfit_is_that_of_the_engine(name: str, tiny: cases.Case) -> None:
    engine = cases.engine_named(name)
    start = near_start(tiny, engine)
    misfit = textbook_runs.start(engine, tiny.problem, *start).sweep()
    R = next(iterate(tiny.problem, engine, *start, ctx=Context(get_backend("numpy")))).error
    power = float((tiny.problem.amplitude.astype(float) ** 2).sum())
    assert np.sqrt(misfit / power) == pytest.approx(R, rel=1e-5)


def test_textbook_says_what_it_cannot_do(tiny: cases.Case) -> None:
    masked = replace(tiny.problem, mask=np.arange(256).reshape(1, 16, 16) > 3)
    pie = cases.engine_named("pie")
    for engine, problem in (
        (pie, masked),
        (pie, replace(tiny.problem, shifts=np.array([[0.25, 0]], np.float32))),
        (cases.engine_named("dm", beta=0.5), tiny.problem),
        (cases.engine_named("ep", prior="sparse"), tiny.problem),
        (cases.engine_named("ep"), replace(tiny.problem, noise_variance=None)),
    ):
        with pytest.raises(PtychonError, match="textbook"):
            textbook_runs.start(engine, problem, *tiny.start(engine))


def test_default_case_is_the_published_scan() -> None:
    case = cases.make("default")
    i = np.arange(200)
    spiral = 5 * np.sqrt(i) * np.array([np.sin(2.399967 * i), np.cos(2.399967 * i)])
    np.testing.assert_array_equal(case.problem.corners, (256 + spiral).astype(int).T - 64)
    assert case.problem.object_shape == (512, 512)
    assert case.problem.amplitude.shape == (200, 128, 128)
    assert not case.problem.counting
    assert not case.problem.subpixel


def test_noise_has_the_stated_variance_and_is_clipped() -> None:
    clean, noisy = (cases.spiral(**TINY, noise=noise).problem for noise in (False, True))
    power = float(np.mean(clean.amplitude.astype(float) ** 2))
    assert noisy.noise_variance == pytest.approx(cases.NOISE * power, rel=1e-4)
    added = (noisy.amplitude - clean.amplitude)[clean.amplitude > 5 * np.sqrt(noisy.noise_variance)]
    assert added.std() == pytest.approx(np.sqrt(noisy.noise_variance), rel=0.1)
    assert noisy.amplitude.min() == 0


@pytest.mark.parametrize("name", ["default", "large", "many", "modes"])
def test_named_cases_are_small_on_request(name: str) -> None:
    case = cases.make(name, points=4)
    assert len(case.problem) == 4
    assert len(case.probe) == (3 if name == "modes" else 1)
    for engine in case.engines:
        object, probe = case.start(cases.engine_named(engine))
        assert object.shape == case.problem.object_shape
        assert probe.shape == case.probe.shape


def test_names_and_numbers_that_make_no_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PTYCHON_TEST_DATA", raising=False)
    with pytest.raises(PtychonError, match="did you mean 'default'"):
        cases.make("defualt")
    with pytest.raises(PtychonError, match="at least 2"):
        cases.make("default", points=1)
    with pytest.raises(PtychonError, match="outside the object"):
        cases.make("default", points=1500)
    with pytest.raises(PtychonError, match="PTYCHON_TEST_DATA"):
        cases.make("star")
    with pytest.raises(PtychonError, match="probe modes"):
        cases.spiral(**TINY, modes=5)


def test_star_comes_from_the_measured_folder(measured: Any) -> None:
    whole, fine = (cases.make(name, points=6) for name in ("star", "star-subpixel"))
    assert not whole.problem.subpixel
    assert fine.problem.subpixel
    assert fine.probe.shape == (1, 128, 128)


def test_compare_reports_every_number(tiny: cases.Case) -> None:
    report = compare(tiny, ("pie", "dm", "ep+em"), repeats=2, threads=2, passes=1, busy=True)
    json.loads(json.dumps(report, allow_nan=False))
    assert report["threads"] == 2
    assert report["machine"]["cores"]
    for row in report["engines"].values():
        assert len(row["all_us"]) == 2
        assert (
            min(
                row[key]
                for key in (
                    "us",
                    "textbook_us",
                    "ratio",
                    "fft_us",
                    "fft_share",
                    "busy_us",
                    "slowdown",
                )
            )
            > 0
        )
        # psi or phi at least, for the engines that keep them
        assert row["passes"] == 5
        assert row["peak_bytes"] > 0
    assert report["engines"]["dm"]["bytes_per_position"] > 8 * 16 * 16
    text = table(report)
    assert text.splitlines()[0].startswith("spiral: 9 positions of 16x16")
    assert [line.split()[0] for line in text.splitlines()[4:7]] == ["pie", "dm", "ep+em"]


def test_compare_refuses_reference_kernels_unless_asked(tiny: cases.Case) -> None:
    engine = cases.engine_named("pie")
    assert fallback(engine, tiny.problem, get_backend("numpy")) == []
    assert "gather" in fallback(engine, tiny.problem, get_backend("reference"))
    with pytest.raises(PtychonError, match="reference kernels"):
        compare(tiny, ("pie",), backend="reference")
    report = compare(
        tiny, ("pie",), 1, backend="reference", passes=1, allow_reference=True, with_textbook=False
    )
    assert report["engines"]["pie"]["us"] > 0
    assert "ratio" not in report["engines"]["pie"]


def test_compare_without_a_textbook_says_why(tiny: cases.Case) -> None:
    problem: Problem = replace(tiny.problem, shifts=np.array([[0.25, 0]], np.float32))
    report = compare(replace(tiny, problem=problem), ("rpie",), 1, passes=1)
    assert "ratio" not in report["engines"]["rpie"]
    assert "no ratio: the textbook code knows whole-pixel" in table(report)


def test_compare_names_what_it_does_not_know(tiny: cases.Case) -> None:
    with pytest.raises(PtychonError, match="did you mean 'rpie'"):
        compare(tiny, ("rpei",))
    with pytest.raises(PtychonError, match="cannot do case"):
        compare(cases.spiral(**TINY, modes=2), ("ep",))
    with pytest.raises(PtychonError, match="at least 1"):
        compare(tiny, repeats=0)


def test_neighbour_is_gone_after_the_block() -> None:
    with neighbour() as process:
        assert process.poll() is None
    assert process.poll() is not None


def test_gpu_time_is_that_of_events_in_the_stream() -> None:
    log: list[str] = []

    class Event:
        def record(self) -> None:
            log.append("record")

        def synchronize(self) -> None:
            log.append("wait")

    cuda = SimpleNamespace(Event=Event, get_elapsed_time=lambda a, b: 1500.0)
    backend: Any = SimpleNamespace(
        name="cupy", xp=SimpleNamespace(cuda=cuda), synchronise=lambda: log.append("drain")
    )
    assert clock.timed(backend, lambda: log.append("work") or 7) == (7, 1.5)
    assert log == ["drain", "record", "work", "record", "wait"]


def test_command_writes_table_and_json(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    options = ["--points", "4", "--repeats", "1", "--passes", "1", "-e", "pie", "-o", str(file)]
    assert main(command, "bench", ["many", *options]) == 0
    (report,) = json.loads(file.read_text())
    assert report["case"]["name"] == "many"
    assert list(report["engines"]) == ["pie"]
    assert "2 FFTs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "unknown case 'nothing'"),
        (["--points", "4", "-e", "apie"], "did you mean 'pie'"),
        (["--repeats", "0"], "--repeats"),
        (["--backend", "cuda"], "unknown backend 'cuda'"),
        (["--points", "4", "-o", "/nowhere/x.json"], "/nowhere/x.json"),
    ],
)
def test_bad_options_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command, "bench", arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ptychon.bench", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "star-subpixel" in done.stdout


@pytest.mark.parametrize("scale", [1.0, 3e3, 1e5])
def test_textbook_output_function_for_bright_pixels(scale):
    """The concentration of a bright pixel exceeds what float32 polynomials take: beyond, both
    follow the reference.
    """
    rng = np.random.default_rng(0)
    wave = (
        scale * (rng.standard_normal((1, 16, 16)) + 1j * rng.standard_normal((1, 16, 16)))
    ).astype(np.complex64)
    y, v0, v = (
        scale * rng.random((1, 16, 16), np.float32) * 2,
        np.full(1, 0.05, np.float32),
        np.float32(0.01),
    )
    mean, variance, _ = reference.rician(wave, v0, y, np.ones((1, 16, 16), bool), v)
    found, average = textbook.rician(wave[0].copy(), v0[0], y[0], v)
    assert np.allclose(found, mean[0], rtol=1e-5)
    assert average == pytest.approx(float(variance[0]), rel=1e-5)
