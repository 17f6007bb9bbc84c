"""Results on the grid of other data: another part, crop or binning of a scan, another unit of its
counts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from _problems import make_case
from ptychon import Dataset, PtychonError, Result, reconstruct
from ptychon.data.preparation import Preparation
from ptychon.data.prepare import prepare
from ptychon.io import save_result, write_result
from ptychon.io.probe import read_probe
from ptychon.model.problem import Problem
from ptychon.run.placing import fitted_probe, placed, probe_for, rescaling

N, PIXEL = 32, 20e-9


def smooth(shape):
    y, x = np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij")
    return (
        (0.8 + 0.1 * np.sin(y / 7) * np.cos(x / 9)) * np.exp(0.6j * np.sin(x / 8 + y / 11))
    ).astype(np.complex64)


def beam(n=N, radius=4.0):
    y = np.arange(n) - n // 2
    r2 = y[:, None] ** 2 + y[None] ** 2
    probe = np.exp(-r2 / radius**2 + 0.02j * r2)
    return (100 * probe / np.linalg.norm(probe))[None].astype(np.complex64)


def frames(positions, obj, probe, corner):
    """Intensities of windows whose centre is at pixel `corner` + position of the object; zero
    frequency in the middle.
    """
    out = []
    for y, x in positions:
        a, b = int(y + corner[0]) - N // 2, int(x + corner[1]) - N // 2
        wave = np.fft.fft2(probe[0] * obj[a : a + N, b : b + N], norm="ortho")
        out.append(np.abs(np.fft.fftshift(wave)) ** 2)
    return np.array(out, np.float32)


@pytest.fixture(scope="module")
def truth():
    grid = np.stack(
        np.meshgrid(np.arange(0, 30, 5.0), np.arange(0, 40, 5.0), indexing="ij"), -1
    ).reshape(-1, 2)
    obj = smooth((30 + N, 40 + N))
    return grid, obj, beam(), frames(grid, obj, beam(), (N // 2, N // 2))


def data(truth, some=slice(None), scale=PIXEL, **more):
    grid, _, _, patterns = truth
    step = 1 if scale is None else scale
    return Dataset(
        patterns=patterns[some],
        positions=grid[some] * step,
        pixel_size=scale,
        counting=False,
        **more,
    )


def result(truth, some=slice(None), scale=PIXEL):
    """The truth as a result on the grid of some of the frames."""
    _, obj, probe, _ = truth
    problem = Problem.from_dataset(data(truth, some, scale))
    low = np.rint(np.array(problem.origin) / (1 if scale is None else scale)).astype(int) + N // 2
    part = obj[low[0] : low[0] + problem.object_shape[0], low[1] : low[1] + problem.object_shape[1]]
    return Result(
        object=part,
        probe=probe,
        errors=np.array([0.1], np.float32),
        final_error=0.1,
        engine="rpie",
        passes=1,
        positions=problem.corners + N // 2.0,
        corners=problem.corners,
        origin=problem.origin,
        pixel_size=problem.pixel_size,
    )


def first_residual(dataset, start, **options):
    """R of the first pass of PIE, taken before anything has been learned in steps of nothing."""
    still = {"backend": "reference", "judge": False, "say": None, "object_step": 1e-6}
    found = reconstruct(dataset, "pie", passes=1, start=start, **still, **options)
    return float(found.errors[-1])


def test_the_same_grid_is_left_as_it_is(truth):
    start = result(truth)
    found = placed(start, Problem.from_dataset(data(truth)))
    assert found.object is start.object
    assert found.probe is start.probe
    assert found.said == ""


@pytest.mark.parametrize("scale", [PIXEL, None])
def test_another_part_of_the_scan_by_its_origin(truth, scale):
    """Frames of rows 0 to 15 px, then those of 10 to 25: grids of one shape, ten pixels apart."""
    grid = truth[0]
    one, two = grid[:, 0] <= 15, grid[:, 0] >= 10
    start, then = result(truth, one, scale), data(truth, two, scale)
    problem = Problem.from_dataset(then)
    assert problem.object_shape == start.object.shape
    found = placed(start, problem)
    truly = result(truth, two, scale).object
    np.testing.assert_array_equal(found.object[8:20, 20:50], truly[8:20, 20:50])
    assert "moved by -10, 0 px" in found.said.replace("-0", "0")
    assert 0.3 < found.covered < 0.8
    everything = data(truth, slice(None), scale)
    assert first_residual(everything, result(truth, slice(None), scale)) < 1e-3
    # the frames whose light the earlier result knows are explained by it
    known = grid[:, 0] <= 10
    assert first_residual(data(truth, known & two, scale), start) < 0.05


@pytest.mark.parametrize(
    "how", [{"crop": (24, 24)}, {"crop": (48, 48)}, {"bin": 2}, {"crop": (24, 24), "bin": 2}]
)
def test_another_crop_or_binning_of_the_detector(truth, how):
    """The model of the truth explains frames that are cut, padded and binned: better by far than
    without an object.
    """
    then = prepare(data(truth), Preparation(**how))
    assert then.frame_shape != (N, N)
    start = result(truth)
    blank = replace(start, object=np.full_like(start.object, np.abs(start.object).mean()))
    ours, without = first_residual(then, start), first_residual(then, blank)
    assert ours < 0.12
    assert ours < 0.5 * without
    if "bin" not in how:  # and back
        problem = Problem.from_dataset(then)
        there = placed(start, problem)
        back = placed(
            replace(
                start,
                object=there.object,
                probe=there.probe,
                origin=problem.origin,
                pixel_size=problem.pixel_size,
                corners=problem.corners,
                positions=problem.corners + np.array(problem.frame_shape) // 2.0,
            ),
            Problem.from_dataset(data(truth)),
        )
        assert np.abs(back.object - start.object)[20:40, 20:50].max() < 0.05


@pytest.mark.parametrize("subpixel", [False, True])
@pytest.mark.parametrize("near", [False, True])
def test_a_start_in_the_unit_of_the_data_is_left_alone(near, subpixel):
    """Frames at four fractions of a pixel: each is propagated once, not once for every fraction."""
    case = make_case(near=near, subpixel=subpixel)
    object, probe = case.true_object.astype(np.complex64), case.true_probe.astype(np.complex64)
    assert rescaling(case.problem, object, probe) == 1
    assert rescaling(case.problem, object, 3 * probe) == pytest.approx(1 / 3, rel=0.02)


@pytest.mark.parametrize("weaker", [1 / 1.4, 1.4])
def test_the_mean_of_a_posterior_is_no_other_unit(truth, weaker):
    """At few counts it is weaker than what was measured; a known probe must then stay as it is."""
    start, problem = result(truth), Problem.from_dataset(data(truth))
    assert rescaling(problem, weaker * start.object, start.probe) == 1


def test_counts_in_another_unit(truth):
    start, then = result(truth), data(truth)
    problem = Problem.from_dataset(then)
    assert rescaling(problem, start.object, start.probe) == 1
    scaled = replace(then, patterns=then.patterns * 1e-3)
    assert rescaling(Problem.from_dataset(scaled), start.object, start.probe) == pytest.approx(
        np.sqrt(1e-3), rel=1e-4
    )
    assert first_residual(scaled, start) < 1e-3
    # a probe that is known is not changed: the object is
    kept = reconstruct(
        scaled,
        "pie",
        passes=1,
        start=start,
        probe=start.probe,
        backend="reference",
        judge=False,
        say=None,
    )
    np.testing.assert_array_equal(kept.probe, start.probe)
    assert kept.final_error < 1e-3


def test_what_cannot_be_placed(truth):
    """One sentence each, with both numbers."""
    far = replace(result(truth), origin=(1e-3, 1e-3))
    with pytest.raises(
        PtychonError, match=r"lies elsewhere: rows 1000 to 1001 um .* these data rows -0\.32 to"
    ):
        placed(far, Problem.from_dataset(data(truth)))
    unknown = Problem.from_dataset(prepare(data(truth, scale=None), Preparation(crop=(24, 24))))
    with pytest.raises(
        PtychonError,
        match=r"probe of 32 x 32 px and these frames are 24 x 24, and neither pixel size",
    ):
        placed(result(truth, scale=None), unknown)
    some = truth[0][:, 0] <= 15
    with pytest.raises(
        PtychonError,
        match=r"object of 62 x 72 px .* only one pixel size is known: give --pixel-size",
    ):
        placed(
            replace(result(truth), object=smooth((62, 72))),
            Problem.from_dataset(data(truth, some, None)),
        )


def test_a_package_that_forgets_the_origin_is_placed_by_its_positions(truth):
    """Same frames, other coordinates: the positions lie on each other."""
    lost = replace(result(truth), origin=(7.0, 7.0), settings={"format": "PtyLab"})
    found = placed(lost, Problem.from_dataset(data(truth)))
    np.testing.assert_array_equal(found.object, lost.object)


def test_probes_on_other_windows():
    """Cropping the detector is cutting the spectrum; a smaller window of the same pixels is a cut
    of the probe.
    """
    probe = beam()
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe[0]), norm="ortho"))[4:28, 4:28]
    exact = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(spectrum), norm="ortho"))
    np.testing.assert_allclose(
        fitted_probe(probe, np.full(2, 32 / 24), (24, 24))[0], exact, atol=1e-4
    )
    np.testing.assert_array_equal(
        fitted_probe(probe, np.ones(2), (16, 20))[0], probe[0, 8:24, 6:26]
    )
    wide = fitted_probe(probe, np.ones(2), (48, 48))
    np.testing.assert_array_equal(wide[0, 8:40, 8:40], probe[0])
    assert np.abs(wide).sum() == pytest.approx(np.abs(probe).sum())
    finer = fitted_probe(beam(radius=5.0), np.full(2, 0.8), (36, 36))
    assert float((np.abs(finer) ** 2).sum()) == pytest.approx(1e4, rel=0.01)
    assert abs(finer[0, 18, 18]) == pytest.approx(0.8 * abs(beam(radius=5.0)[0, 16, 16]), rel=0.01)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("r.h5", None),
        ("r.ptyr", None),
        ("r.hdf5", None),
        ("p.h5", "ptychodus"),
        ("p.npz", "ptychodus"),
        ("r.mat", None),
        ("r.npz", None),
    ],
)
def test_one_reader_for_probes(truth, tmp_path, name, format):
    """Whatever a run can start from can also give its probe."""
    start = replace(result(truth), settings={"scan": {"wavelength": 1e-10, "distance": 1.0}})
    path = tmp_path / name
    save_result(path, start) if name == "r.h5" else write_result(
        path, start, **({} if format is None else {"format": format})
    )
    probe, _ = read_probe(path)
    np.testing.assert_allclose(probe, start.probe, atol=1e-4)
    assert probe_for(data(truth), path).shape == (1, N, N)


def test_probes_that_are_not_there(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.ones(3), b=np.ones(3))
    np.save(tmp_path / "flat.npy", np.ones(5))
    for name, words in (
        ("two.npz", "no array called probe; it has a, b"),
        ("flat.npy", r"shape \(5,\)"),
        ("no.h5", "no.h5"),
    ):
        with pytest.raises(PtychonError, match=words):
            read_probe(tmp_path / name)
