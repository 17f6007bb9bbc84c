"""The FFT inside compiled sweeps: against float64 on every kind of side, and on other processors'
vectors.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from ptychon.kernels.cpu import fft as _numba_fft
from ptychon.kernels.cpu import rows
from ptychon.kernels.cpu.fft import NONE
from ptychon.kernels.cpu.modulus import modulus_return


@rows.jit
def fft(a, out, forward):
    """That of compiled code."""
    rows.fft(a, out, forward)


@rows.jit
def in_vectors(a):
    """Forward, in place, where our own code knows the sides."""
    return _numba_fft.fft2_small(a, a, True, 0, a.shape[1], NONE, NONE)


SHAPES = [
    (16, 16),
    (32, 64),
    (64, 32),
    (128, 128),
    (256, 16),
    (16, 512),
    (1024, 16),
    (8, 8),
    (24, 16),
    (15, 64),
    (16, 2048),
]


def waves(shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((2, *shape)) + 1j * rng.standard_normal((2, *shape))).astype(
        np.complex64
    )


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_float64(shape, forward):
    """Orthonormal, over the last two axes, to float32's rounding, into another array
    and in place.
    """
    a = waves(shape)
    kept, out = a.copy(), np.empty_like(a)
    fft(a, out, forward)
    assert np.array_equal(a, kept)
    exact = (np.fft.fft2 if forward else np.fft.ifft2)(a.astype(complex), norm="ortho")
    assert np.linalg.norm(out - exact) < 3e-7 * np.linalg.norm(exact)
    assert np.abs(out - exact).max() < 3e-6 * np.abs(exact).max()
    fft(a, a, forward)
    assert np.allclose(a, out, rtol=0, atol=1e-6 * np.abs(out).max())


def test_a_single_point_becomes_a_plane_wave():
    """delta at (3, 5) of 16 x 32 has the transform exp(-2 pi i (3 u/16 + 5 v/32))/sqrt(512), sign
    and order included.
    """
    a = np.zeros((1, 16, 32), np.complex64)
    a[0, 3, 5] = 1
    fft(a, a, True)
    u, v = np.ogrid[:16, :32]
    assert np.allclose(
        a[0], np.exp(-2j * np.pi * (3 * u / 16 + 5 * v / 32)) / np.sqrt(512), atol=1e-7
    )


def test_which_sides_are_transformed_in_vectors():
    """Powers of two from 16 to 1024, where the processor has 256-bit vectors; others are left
    alone.
    """
    for n in (16, 64, 1024):
        a = waves((n, 16))
        assert in_vectors(a) == _numba_fft.WIDE
    for shape in ((8, 16), (16, 8), (2048, 16), (48, 16), (16, 100)):
        a = waves(shape)
        kept = a.copy()
        assert not in_vectors(a)
        assert np.array_equal(a, kept)


SCRIPT = """
import numpy as np
from ptychon.kernels.cpu import fft as f
from ptychon.kernels.cpu.modulus import modulus_return
from ptychon.kernels.cpu.rows import jit

def constrain(wave, y, valid, transfer, near, top, bottom, bound, later):
    return modulus_return(wave, y, valid, transfer, near, top, bottom, bound, later)

@jit
def in_vectors(a):
    return f.fft2_small(a, a, True, 0, a.shape[1], f.NONE, f.NONE)

rng = np.random.default_rng(0)
worst = 0.0
for shape in ((64, 128), (16, 32)):
    a = rng.standard_normal((1, *shape)) + 1j * rng.standard_normal((1, *shape))
    a = a.astype(np.complex64)
    exact = np.fft.fft2(a.astype(complex), norm="ortho")
    if in_vectors(a):
        worst = max(worst, float(np.linalg.norm(a - exact) / np.linalg.norm(exact)))
        y, z = np.full(shape, 2, np.float32), np.fft.fft2(a.astype(complex)[0], norm="ortho")
        back = np.fft.ifft2((2 / np.abs(z) - 1) * z, norm="ortho")
        none = np.zeros((1, 1), np.complex64)
        jit(constrain)(a, y, y > 0, none, False, 0, len(y), -1.0, f.NONE)
        worst = max(worst, float(np.linalg.norm(a[0] - back) / np.linalg.norm(back)))
print(f.LANES, f.WIDE, worst)
"""


@pytest.mark.skipif(not _numba_fft.WIDE, reason="this processor has no 256-bit vectors")
@pytest.mark.parametrize(
    ("features", "lanes", "wide"), [("+sse2,+avx,+avx2,+fma", 8, True), ("+sse2", 8, False)]
)
def test_on_a_smaller_processor(features, lanes, wide):
    """Numba told of fewer features: eight lanes, as exact; or none, and the transform is left to
    pocketfft.
    """
    env = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    found = done.stdout.split()
    assert (int(found[0]), found[1]) == (lanes, str(wide))
    assert (0 < float(found[2]) < 1e-6) == wide


# -------------------------------------------------------- modulus constraint between two transforms

FAR = np.zeros((1, 1), np.complex64)


@rows.jit
def constrain(wave, y, valid, transfer, near, top, bottom, bound):
    """`modulus_return`, which only compiled code can call."""
    return modulus_return(wave, y, valid, transfer, near, top, bottom, bound, NONE)


def constrained(a, y, valid, transfer=FAR, near=False, top=0, bottom=None, bound=-1.0):
    """What is computed, and the same by NumPy in float64: change and misfit."""
    wave = a.copy()
    bottom = a.shape[1] if bottom is None else bottom
    misfit = constrain(wave, y, valid, transfer, near, top, bottom, bound)
    z = np.fft.fft2(a.astype(complex), norm="ortho")
    if near:
        z = np.fft.ifft2(np.fft.fft2(a.astype(complex)) * transfer)
    modulus = np.sqrt((np.abs(z) ** 2).sum(axis=0))
    change = z * np.where(valid & (modulus > 0), y / np.maximum(modulus, 1e-30) - 1, 0)
    back = (
        np.fft.ifft2(np.fft.fft2(change) * transfer.conj())
        if near
        else np.fft.ifft2(change, norm="ortho")
    )
    return wave, misfit, back, (valid * (y - modulus) ** 2).sum()


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("shape", [(16, 16), (32, 64), (128, 32), (256, 16), (24, 16), (20, 20)])
def test_modulus_against_float64(shape, near, modes):
    """Every kind of side, masked pixels left alone, one mode and two, far and near field."""
    rng = np.random.default_rng(3)
    a = waves(shape)[:modes]
    y, valid = rng.gamma(1, 2, shape).astype(np.float32), rng.random(shape) > 0.1
    y[0, :5] = 0
    transfer = np.exp(2j * np.pi * rng.random(shape)).astype(np.complex64) if near else FAR
    wave, misfit, back, expected = constrained(a, y, valid, transfer, near)
    assert np.linalg.norm(wave - back) < 1e-6 * np.linalg.norm(back)
    assert abs(misfit - expected) < 1e-5 * expected


@pytest.mark.parametrize("shape", [(64, 32), (24, 16)])
def test_modulus_of_a_partly_lit_window(shape):
    """Rows that are dark on the way in are not wanted on the way out; the others are as if all were
    computed.
    """
    a = waves(shape)[:1]
    a[:, :5], a[:, 17:] = 0, 0
    y, valid = np.ones(shape, np.float32), np.ones(shape, bool)
    wave, misfit, back, expected = constrained(a, y, valid, top=5, bottom=17)
    assert np.linalg.norm((wave - back)[:, 5:17]) < 1e-6 * np.linalg.norm(back[:, 5:17])
    assert abs(misfit - expected) < 1e-5 * expected


@pytest.mark.parametrize("shape", [(32, 16), (20, 16)])
def test_modulus_within_its_bound_is_not_transformed_back(shape):
    """The misfit is right on both sides of the bound, and only above it the change is
    in the wave.
    """
    a, y, valid = waves(shape)[:1], np.ones(shape, np.float32), np.ones(shape, bool)
    _, misfit, back, _ = constrained(a, y, valid)
    below, above = (constrained(a, y, valid, bound=misfit * f) for f in (1.01, 0.99))
    assert below[1] == above[1] == misfit
    assert np.linalg.norm(above[0] - back) < 1e-6 * np.linalg.norm(back)
    assert np.linalg.norm(below[0] - back) > 0.1 * np.linalg.norm(back)


def test_modulus_of_nothing():
    """A wave that vanishes has no direction: nothing comes back, and the misfit is all that was
    measured.
    """
    a, y = np.zeros((1, 32, 32), np.complex64), np.full((32, 32), 3, np.float32)
    wave, misfit, _, _ = constrained(a, y, np.ones((32, 32), bool))
    assert not wave.any()
    assert misfit == 9 * 32 * 32
