"""The FFT inside compiled sweeps: against float64 on every kind of side, and on other processors' vectors."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from ptychon.kernels import _numba_fft
from ptychon.kernels._numba import fft

SHAPES = [(16, 16), (32, 64), (64, 32), (128, 128), (256, 16), (16, 512), (1024, 16), (8, 8), (24, 16), (15, 64), (16, 2048)]


def waves(shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((2, *shape)) + 1j * rng.standard_normal((2, *shape))).astype(np.complex64)


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_float64(shape, forward):
    """Orthonormal, over the last two axes, to float32's rounding, into another array and in place."""
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
    """delta at (3, 5) of 16 x 32 has the transform exp(-2 pi i (3 u/16 + 5 v/32))/sqrt(512), sign and order included."""
    a = np.zeros((1, 16, 32), np.complex64)
    a[0, 3, 5] = 1
    fft(a, a, True)
    u, v = np.ogrid[:16, :32]
    assert np.allclose(a[0], np.exp(-2j * np.pi * (3 * u / 16 + 5 * v / 32)) / np.sqrt(512), atol=1e-7)


def test_which_sides_are_transformed_in_vectors():
    """Powers of two from 16 to 1024, where the processor has 256-bit vectors; others are left alone."""
    for n in (16, 64, 1024):
        a = waves((n, 16))
        assert _numba_fft.fft2_small(a, a, True, 0, a.shape[1]) == _numba_fft.WIDE
    for shape in ((8, 16), (16, 8), (2048, 16), (48, 16), (16, 100)):
        a = waves(shape)
        kept = a.copy()
        assert not _numba_fft.fft2_small(a, a, True, 0, a.shape[1])
        assert np.array_equal(a, kept)


SCRIPT = """
import numpy as np
from ptychon.kernels import _numba_fft as f
rng = np.random.default_rng(0)
worst = 0.0
for shape in ((64, 128), (16, 32)):
    a = (rng.standard_normal((1, *shape)) + 1j * rng.standard_normal((1, *shape))).astype(np.complex64)
    exact = np.fft.fft2(a.astype(complex), norm="ortho")
    if f.fft2_small(a, a, True, 0, a.shape[1]):
        worst = max(worst, float(np.linalg.norm(a - exact) / np.linalg.norm(exact)))
print(f.LANES, f.WIDE, worst)
"""


@pytest.mark.skipif(not _numba_fft.WIDE, reason="this processor has no 256-bit vectors")
@pytest.mark.parametrize(("features", "lanes", "wide"), [("+sse2,+avx,+avx2,+fma", 8, True), ("+sse2", 8, False)])
def test_on_a_smaller_processor(features, lanes, wide):
    """Numba told of fewer features: eight lanes, as exact; or none, and the transform is left to pocketfft."""
    env = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True, timeout=300)
    found = done.stdout.split()
    assert (int(found[0]), found[1]) == (lanes, str(wide))
    assert (0 < float(found[2]) < 3e-7) == wide
