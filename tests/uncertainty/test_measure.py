"""Values with error bars: they hold their share, know what errors have in common, and foretell the
resolution.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from ptychon import PtychonError, PtychonWarning, Result, reconstruct
from ptychon.__main__ import main
from ptychon.io import load_result, save_result
from ptychon.metrics.frc import crossing, frc
from ptychon.metrics.residual import phase_align
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.uncertainty.measure import (
    CONFIDENCE,
    compare_regions,
    draws_of,
    factor,
    pixels,
    profile,
    region_of,
    spread,
)
from ptychon.uncertainty.resolution import resolution


@cache
def _object(size: int) -> np.ndarray:
    return phantoms.complex_object(
        phantoms.texture((size, size), 1),
        phantoms.cell((size, size), 2),
        amplitude_range=(0.4, 1.0),
    )


def known(
    draws: int = 400, length: float = 3.0, size: int = 48, seed: int = 0, **more
) -> tuple[Result, np.ndarray]:
    """A result whose error has the stated standard deviation 0.1 and a known correlation, and one
    truth that it allows.
    """
    rng = np.random.default_rng(seed)
    f2 = np.fft.fftfreq(size)[:, None] ** 2 + np.fft.fftfreq(size)[None] ** 2
    blur = np.exp(-2 * (np.pi * length) ** 2 * f2)
    blur /= np.sqrt((blur**2).mean())
    white = (
        rng.standard_normal((draws + 1, size, size))
        + 1j * rng.standard_normal((draws + 1, size, size))
    ) / np.sqrt(2)
    errors = 0.1 * np.fft.ifft2(blur * np.fft.fft2(white))
    O = _object(size)
    whole = {
        "object": O.astype(np.complex64),
        "probe": np.ones((1, size, size), np.complex64),
        "errors": np.ones(1, np.float32),
        "final_error": 0.1,
        "positions": np.array([[size // 2, size // 2]] * 2, float),
        "engine": "joint",
        "passes": 1,
        "object_std": np.full((size, size), 0.1, np.float32),
        "draws": errors[1:].astype(np.complex64),
        "options": {"prior": "spectral"},
    } | more
    return Result(**whole), O + errors[0]


@pytest.fixture(scope="module")
def found():
    """A simulated scan at few counts, its joint posterior and the truth laid on it."""
    n, L = 24, 80
    truth = phantoms.complex_object(
        phantoms.texture((L, L), 1), phantoms.cell((L, L), 2), amplitude_range=(0.4, 1.0)
    )
    positions = scan.fit(scan.fermat_spiral(400, 3.5), (L, L), (n, n))
    beam = probes.defocused_aperture((n, n), 0.3 * n, 8.0)
    s = simulate(truth, beam, positions, noise="poisson", mean_counts=1.5e3, pixel_size=2e-8)
    start = reconstruct(s.dataset, "pie", passes=30, probe=s.probe, backend="numpy")
    result = reconstruct(
        s.dataset, "joint", passes=32, burn_in=20, draws=12, start=start, backend="numpy"
    )
    return result, phase_align(s.object, result.object, result.illuminated)


def test_a_linear_value_has_the_spread_of_its_draws_and_bars_hold_their_share():
    """Means of 9 x 9 correlated pixels over many truths: 68.3 % within the bar of only 8 draws."""
    hits, whole = [], []
    for seed in range(150):
        result, truth = known(draws=8, size=32, seed=seed)
        made = spread(result, lambda O: O[8:17, 8:17].real.mean())
        hits.append(abs(truth[8:17, 8:17].real.mean() - made.value) < made.bar)
        whole.append(made.std**2)
    assert np.mean(hits) == pytest.approx(CONFIDENCE, abs=3.5 * np.sqrt(0.683 * 0.317 / 150))
    # the mean of 81 pixels is far less sure than 81 independent errors would make it
    assert np.sqrt(np.mean(whole)) > 4 * 0.1 / np.sqrt(2 * 81)
    assert factor(8) > 1.05
    assert factor(100000) == pytest.approx(1.0, abs=2e-3)


def test_correlated_errors_cancel_in_differences_and_not_in_means():
    result, _ = known()
    near = compare_regions(result, (20.0, 20.0, 2.0), (20.0, 23.0, 2.0))
    far = compare_regions(result, (12.0, 12.0, 2.0), (35.0, 35.0, 2.0))
    assert near.phase.std < 0.8 * far.phase.std
    with pytest.warns(PtychonWarning, match="independent"):
        alone = compare_regions(replace(result, draws=None), (12.0, 12.0, 2.0), (35.0, 35.0, 2.0))
    assert not alone.phase.correlated
    assert alone.phase.std < 0.5 * far.phase.std  # what adding pixel variances would have given


def test_phases_are_compared_around_the_circle():
    result, _ = known(draws=200)
    turned = result.object.copy()
    turned[:24] *= np.exp(1j * 3.1)
    turned[24:] *= np.exp(-1j * 3.1)
    made = compare_regions(replace(result, object=turned), (10.0, 24.0, 4.0), (38.0, 24.0, 4.0))
    plain = compare_regions(result, (10.0, 24.0, 4.0), (38.0, 24.0, 4.0))
    assert made.phase.std < 0.3
    assert np.angle(np.exp(1j * (made.phase.value - plain.phase.value - 6.2))) == pytest.approx(
        0, abs=1e-5
    )


def test_profiles_are_between_pixels_and_in_metres():
    result, _ = known(pixel_size=(2e-8, 1e-8), origin=(-4.8e-7, -2.4e-7))
    made = profile(result, (10.0, 10.0), (10.0, 30.0))
    assert len(made.points) == 21
    assert made.distance[-1] == pytest.approx(2e-7)
    np.testing.assert_allclose(made.amplitude.value, np.abs(result.object[10, 10:31]), rtol=1e-4)
    assert np.median(made.amplitude.std) == pytest.approx(0.1 / np.sqrt(2), rel=0.15)
    assert profile(result, (10.0, 10.0), (20.5, 30.25), points=5).points[2] == pytest.approx(
        [15.25, 20.125]
    )
    assert pixels(result, -4.8e-7, 0.0) == pytest.approx((0.0, 24.0))


def test_of_a_reconstruction_the_bars_of_lines_and_regions_are_true(found):
    result, truth = found
    stated = draws_of(result)
    exact = replace(result, object=truth.astype(np.complex64))
    one = stated[0][:1], True
    rng, hits, lines = np.random.default_rng(3), [], []
    for _ in range(60):
        a, b = rng.uniform(24, 56, (2, 2))
        pair = (*a, rng.uniform(2, 5)), (*b, rng.uniform(2, 5))
        mine, true = (
            compare_regions(result, *pair, draws=stated),
            compare_regions(exact, *pair, draws=one),
        )
        hits.append(
            abs(np.angle(np.exp(1j * (mine.phase.value - true.phase.value)))) < mine.phase.bar
        )
        hits.append(abs(mine.ratio.value - true.ratio.value) < mine.ratio.bar)
        mine, true = profile(result, a, b, draws=stated), profile(exact, a, b, draws=one)
        lines += list(np.abs(mine.amplitude.value - true.amplitude.value) < mine.amplitude.bar)
    assert 0.5 < np.mean(hits) < 0.9
    assert 0.58 < np.mean(lines) < 0.8


def test_the_resolution_that_is_foretold_is_that_against_the_truth(found):
    result, truth = found
    made = resolution(result)
    true = frc(result.object, truth, result.pixel_size, result.illuminated)
    assert np.abs(made.correlation.value - true.correlation)[2:].max() < 0.12
    assert made.unit == "m"
    for period, interval, level in (
        (made.half, made.half_interval, 0.5),
        (made.one_bit, made.one_bit_interval, 0.5**0.5),
    ):
        actual = 1 / crossing(true.frequency, true.correlation, np.full(len(true.frequency), level))
        assert period == pytest.approx(actual, rel=0.15)
        assert interval[0] <= period <= interval[1]
    assert made.half < made.one_bit
    assert not made.nyquist_limited


def test_the_resolution_of_noise_in_full_takes_it_off():
    """No learned prior: what is beyond the signal is noise, however strong it is in the object."""
    rng, size = np.random.default_rng(0), 64
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    signal = (
        np.fft.ifft2(
            np.exp(-((f / 0.12) ** 2))
            * np.fft.fft2(rng.standard_normal((size, size, 2)).view(complex)[..., 0])
        )
        * 8
    )
    noise = 0.5 * rng.standard_normal((size, size, 2)).view(complex)[..., 0]
    result, _ = known(
        size=size,
        engine="ep",
        object=(signal + noise).astype(np.complex64),
        draws=2,
        options={},
        object_std=np.full((size, size), 0.5 * np.sqrt(2), np.float32),
    )
    result = replace(result, draws=None)
    with pytest.warns(PtychonWarning):
        made = resolution(result)
    true = frc(result.object, signal, None, result.illuminated)
    assert made.half == pytest.approx(
        1 / crossing(true.frequency, true.correlation, np.full(len(true.frequency), 0.5)), rel=0.15
    )


def test_what_is_refused():
    result, _ = known(draws=4)
    with pytest.raises(PtychonError, match="has no error bars"):
        draws_of(replace(result, draws=None, object_std=None))
    with pytest.raises(PtychonError, match="complex"):
        spread(result, lambda O: O.mean())
    with pytest.raises(PtychonError, match="not finite"):
        spread(result, lambda O: 1.0 if O is result.object else np.inf)
    with pytest.raises(PtychonError, match="leaves the object of 48x48"):
        profile(result, (1.0, 1.0), (60.0, 2.0))
    with pytest.raises(PtychonError, match="needs a length"):
        profile(result, (1.0, 1.0), (1.0, 1.0))
    with pytest.raises(PtychonError, match="leaves the object"):
        region_of(result, (2.0, 10.0, 4.0))
    with pytest.raises(PtychonError, match="no pixel"):
        region_of(result, (10.5, 10.5, 0.2))
    with pytest.raises(PtychonError, match="give \\(H, W\\) bool"):
        region_of(result, np.zeros((3, 3), bool))
    with pytest.raises(PtychonError, match="no pixel size"):
        pixels(result, 1e-6, 1e-6)


def test_the_command(found, tmp_path, capsys):
    result, _ = found
    save_result(tmp_path / "r.h5", result)
    assert np.array_equal(load_result(tmp_path / "r.h5").draws, result.draws)

    def run(*arguments):
        assert main(["measure", str(tmp_path / "r.h5"), *map(str, arguments)]) == 0
        return capsys.readouterr().out

    out = run(
        "--line", "30,30,30,50", "-o", tmp_path / "line.csv", "--picture", tmp_path / "line.png"
    )
    assert out.count("±") == 2 * 21
    rows = list(csv.DictReader((tmp_path / "line.csv").open()))
    expected = profile(result, (30.0, 30.0), (30.0, 50.0))
    assert float(rows[7]["amplitude_bar"]) == pytest.approx(expected.amplitude.bar[7], rel=1e-6)
    assert float(rows[-1]["distance_m"]) == pytest.approx(4e-7)
    found_json = json.loads(
        run(
            "--regions",
            "40,30,4",
            "0nm,0.2um,80nm",
            "--json",
            "--picture",
            tmp_path / "regions.png",
        )
    )
    (y, x), pair = pixels(result, 0.0, 2e-7), found_json["columns"]
    same = compare_regions(result, (40.0, 30.0, 4.0), (y, x, 4.0))
    assert pair["value"][0] == pytest.approx(float(same.phase.value))
    assert pair["bar"][1] == pytest.approx(float(same.ratio.bar))
    assert "global phase" in found_json["given"][1]
    assert "12 draws" in found_json["given"][0]
    out = run("--resolution", "-o", tmp_path / "rings.json", "--picture", tmp_path / "rings.png")
    assert "one bit" in out
    assert json.loads((tmp_path / "rings.json").read_text())["half"] == pytest.approx(
        resolution(result).half
    )
    for name in ("line", "regions", "rings"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10000
    assert not run("--resolution", "-q")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "choose what to measure"),
        (["--resolution", "--line", "1,1,2,2"], "choose what to measure"),
        (["--line", "1,2,3"], "3 numbers; 4 are needed"),
        (["--line", "1,2,3,4parsec"], "not a unit of length"),
        (["--line", "1,2,300,4"], "leaves the object"),
        (["--regions", "10,10", "12,12,3"], "give y,x,radius"),
        (["--resolution", "--samples", "4"], "--samples belongs to --line"),
        (["--resolution", "-o", "table.xls"], "must be named .csv or .json"),
        (["--resolution", "--picture", "nowhere/x.png"], "nowhere"),
    ],
)
def test_the_command_refuses_in_one_sentence(arguments, said, tmp_path, capsys):
    save_result(tmp_path / "r.h5", known(draws=2)[0])
    assert main(["measure", str(tmp_path / "r.h5"), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
