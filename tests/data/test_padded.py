"""Frames with pixels of unknown value around them, frames on a finer grid, and their files."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from _scenes import close_frames
from ptychon import Dataset, Problem, PtychonError, load, reconstruct
from ptychon.backends import get_backend
from ptychon.data.preparation import Preparation
from ptychon.data.prepare import prepare
from ptychon.io.cxi_write import write_dataset
from ptychon.metrics.alignment import align
from ptychon.metrics.residual import illuminated
from ptychon.model.spread import binning
from ptychon.run.first_probe import find_probe, lattice

SIDE = 48


@cache
def scene():
    """36 frames of 48 x 48, 1e6 counts each, steps of 3 px, a phase object."""
    return close_frames(SIDE, (7, 8), 1e6)


def low(field, cut):
    """Without frequencies above `cut` along either axis, cycles a pixel."""
    y, x = (abs(np.fft.fftfreq(n)) <= cut for n in field.shape)
    return np.fft.ifft2(np.fft.fft2(field) * np.outer(y, x))


def test_angles_beyond_the_detector_are_found_where_frames_overlap():
    """The inner 32 of 48 pixels, padded: the object on the pixels of 48, nearer than the truth
    without what those angles show (measured 4.0 and 9.9 %; with all 48 pixels 0.6 %).
    """
    made = scene()
    part = prepare(made.dataset, Preparation(crop=(32, 32), pad=8))
    assert part.frame_shape == (48, 48)
    assert part.mask.sum() == 32 * 32
    problem = Problem.from_dataset(part, object_shape=made.object.shape)
    found = reconstruct(
        problem, "rpie", passes=30, probe=made.probe, backend="numpy", say=None, judge=False
    )
    lit = illuminated(Problem.from_dataset(made.dataset), made.probe, 0.3)

    def error(field):
        return 10 ** (-align(field, made.object, region=lit, subpixel=True).error_db / 20)

    assert error(found.object) < 0.6 * error(low(made.object, 1 / 3))
    assert error(low(found.object, 1 / 3)) > 2 * error(found.object)


@pytest.mark.parametrize("shape", [(8, 11), (7, 12)])
def test_padding_keeps_the_middle_and_the_scale(shape):
    rng = np.random.default_rng(0)
    probe = np.zeros(shape, complex)
    probe[shape[0] // 2, shape[1] // 2] = 1
    data = Dataset(
        patterns=rng.poisson(9, (3, *shape)),
        positions=rng.uniform(0, 5, (3, 2)) * 1e-6,
        detector_pixel_size=1e-5,
        wavelength=1e-10,
        distance=1.0,
        background=rng.random(shape),
        probe=probe,
    )
    wide = prepare(data, Preparation(pad=3))
    assert wide.frame_shape == (shape[0] + 6, shape[1] + 6)
    inside = tuple(
        slice(n // 2 - m // 2, n // 2 - m // 2 + m)
        for n, m in zip(wide.frame_shape, shape, strict=True)
    )
    np.testing.assert_array_equal(wide.patterns[:][:, *inside], data.patterns[:])
    np.testing.assert_array_equal(wide.background[inside], data.background)
    assert wide.mask[inside].all()
    assert wide.mask.sum() == np.prod(shape)
    # the window covers the same part of the object, with more pixels
    np.testing.assert_allclose(
        np.array(wide.pixel_size) * wide.frame_shape, np.array(data.pixel_size) * shape
    )
    assert replace(wide, pixel_size=None).pixel_size == pytest.approx(wide.pixel_size)
    assert np.linalg.norm(wide.probe) == pytest.approx(1)
    assert np.unravel_index(abs(wide.probe[0]).argmax(), wide.frame_shape) == tuple(
        n // 2 for n in wide.frame_shape
    )
    free = replace(data, detector_pixel_size=None, pixel_size=None, wavelength=None, distance=None)
    moved = prepare(free, Preparation(pad=3)).positions / data.positions
    np.testing.assert_allclose(moved[0], np.array(wide.frame_shape) / shape)


def test_a_near_field_is_not_padded():
    near = Dataset(
        patterns=np.ones((2, 8, 8)),
        positions=np.zeros((2, 2)),
        geometry="near",
        pixel_size=1e-7,
        wavelength=1e-10,
        distance=1e-3,
    )
    with pytest.raises(PtychonError, match="pad 2 makes object pixels of far-field frames finer"):
        prepare(near, Preparation(pad=2))
    with pytest.raises(PtychonError, match="pad is -1"):
        Preparation(pad=-1)


def finer(radius=7.0):
    """Frames of 24 x 24 that are sums of 2 x 2 of those of the scene."""
    wave = np.fft.ifftshift(scene().dataset.patterns.astype(float), axes=(1, 2))
    patterns = np.fft.fftshift(binning((SIDE, SIDE), 2).forward(wave), axes=(1, 2))
    plain = replace(
        scene().dataset, patterns=patterns.astype(np.float32), probe=None, object_shape=None
    )
    return prepare(plain, Preparation(upsample=2, blur=0.4))


def test_files_of_ours_keep_blur_and_grid(tmp_path):
    data = finer()
    write_dataset(tmp_path / "scan.cxi", data)
    again = load(tmp_path / "scan.cxi")
    assert (again.blur, again.upsample) == (0.4, 2)
    np.testing.assert_array_equal(again.mask, data.mask)
    one, other = (Problem.from_dataset(d).spread for d in (data, again))
    np.testing.assert_array_equal(one.rows, other.rows)
    write_dataset(tmp_path / "plain.cxi", scene().dataset)
    assert (load(tmp_path / "plain.cxi").blur, load(tmp_path / "plain.cxi").upsample) == (None, 1)


def test_the_first_probe_on_a_finer_grid_is_no_lattice():
    """Most of its light lies in the middle of the window, as that of the true probe does; the mean
    frame with points between its pixels gives as many copies as there are.
    """
    problem = Problem.from_dataset(finer())
    assert lattice(problem) == 2
    assert lattice(Problem.from_dataset(scene().dataset)) == 1
    found = find_probe(problem, get_backend("numpy", threads=1))
    assert found.shape == (1, SIDE, SIDE)
    light = abs(found[0]) ** 2
    assert light[12:36, 12:36].sum() == pytest.approx(light.sum())
    assert light.sum() == pytest.approx(
        float((problem.amplitude**2).sum() / len(problem)), rel=0.01
    )
    true = abs(scene().probe.reshape(SIDE, SIDE))
    alike = (true * abs(found[0])).sum() / np.linalg.norm(true) / np.linalg.norm(found[0])
    assert alike > 0.8
