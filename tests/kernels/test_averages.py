"""What counts say of uncertain waves: the kernel and its Numba version against the formulas of the
noise model, which take their special functions from SciPy.
"""

from __future__ import annotations

import numpy as np
import pytest

from ptychon.backends import get_backend
from ptychon.model.noise import Noise


@pytest.mark.parametrize("backend", ["reference", "numpy"])
@pytest.mark.parametrize("dark", [0.0, 1.5])
def test_averages_over_uncertain_waves_are_those_of_the_noise(backend, dark):
    """Of two modes from next to nothing to 1e4 counts, V from far less to far more than the light,
    masked pixels and a count below 0.
    """
    rng = np.random.default_rng(0)
    shape = (4, 2, 24, 32)
    wave = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    wave = (wave * np.exp(rng.uniform(-6, 4, (4, 1, 24, 32)))).astype(np.complex64)
    wave[0, :, 0, :5] = 0
    m = np.sqrt((abs(wave) ** 2).sum(axis=1))
    root = np.sqrt(rng.poisson(m**2 + dark)).astype(np.float32)
    root[1, 0, 0] = -0.5
    V = np.exp(rng.uniform(-3, 2, 4)).astype(np.float32)
    mask = rng.random((1, 24, 32)) > 0.1
    background = dark * rng.uniform(0.5, 1, (1, 24, 32)).astype(np.float32)
    noise = Noise("poisson", background=background if dark else 0.0)
    seen = background if dark else np.zeros((1, 1, 1), np.float32)
    kernel = get_backend(backend).kernels.uncertain_counts
    energy, pull, radial, across = kernel(wave, root, mask, V, seen)

    n = root.astype(float) * abs(root)
    constant = np.where(n != 0, n - n * np.log(np.maximum(n, 1e-20)), 0)
    expected = np.where(mask, noise.energy(m, root, V) + constant, 0).sum(axis=(1, 2))
    along, share = (np.where(mask, a, 0) for a in noise.averaged_information(m, V))
    assert energy == pytest.approx(expected, rel=1e-7)
    assert pull * m == pytest.approx(np.where(mask, noise.pull(m, root, V), 0), abs=3e-4)
    assert (radial * m) ** 2 == pytest.approx(np.where(m > 0, along - share, 0), abs=5e-6)
    assert across == pytest.approx(share, abs=1e-6)
