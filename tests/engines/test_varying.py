"""A probe that varies from frame to frame: found by `ml`, and kept in results."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from ptychon import Dataset, Problem, PtychonError, reconstruct
from ptychon.backends import get_backend
from ptychon.engines import ML, After, updated
from ptychon.engines.varying import settled
from ptychon.io.saved import load_result, save_result
from ptychon.metrics.alignment import align
from ptychon.metrics.moves import refined
from ptychon.metrics.residual import illuminated, residual
from ptychon.model.found import on_grid
from ptychon.run.checkpoint import Checkpointer, load_checkpoint
from ptychon.simulation import phantoms, probes, scan

SIDE = 32
FIRST = probes.defocused_aperture((SIDE, SIDE), radius=4.5, defocus=6.5)


@cache
def wandering(share: float):
    """49 frames, 1e5 counts each, under a beam whose tilt wanders: P + c_j V, V of the norm of P
    and c_j of this standard deviation. The frames are made in plain NumPy. Data, object and c.
    """
    rng = np.random.default_rng(1)
    places = scan.raster(7, step=3, jitter=1, whole=True, seed=1)
    corners = (places - places.min(axis=0)).astype(int) + 6
    size = corners.max() + SIDE + 6
    field = phantoms.complex_object(
        np.zeros((size, size)), phantoms.texture((size, size), 2), amplitude_range=(1, 1)
    )
    beam = probes.defocused_aperture((SIDE, SIDE), radius=4.5, defocus=5).astype(complex)
    beam *= np.sqrt(1e5) / np.linalg.norm(beam)
    tilt = 1j * (np.arange(SIDE) - SIDE // 2)[:, None] * beam
    tilt *= np.linalg.norm(beam) / np.linalg.norm(tilt)
    t = np.linspace(0, 1, len(corners))
    c = np.sin(8 * t) + 0.5 * rng.standard_normal(len(t))
    c = share * (c - c.mean()) / c.std()
    frames = [
        np.abs(np.fft.fft2((beam + w * tilt) * field[y : y + SIDE, x : x + SIDE], norm="ortho"))
        ** 2
        for (y, x), w in zip(corners, c, strict=True)
    ]
    counts = np.fft.fftshift(rng.poisson(frames), axes=(1, 2)).astype(np.float32)
    centres = corners + SIDE // 2 - size // 2.0
    return Dataset(patterns=counts, positions=centres, object_shape=(size, size)), field, c


def error(result, data, field):
    """Of the object, relative to its norm."""
    region = illuminated(Problem.from_dataset(data), result.probe, 0.3)
    return 10 ** (-align(result.object, field, region=region, subpixel=True).error_db / 20)


@cache
def found(share: float, count: int = 1):
    data = wandering(share)[0]
    first = reconstruct(data, "rpie", passes=40, probe=FIRST, backend="numpy", say=None)
    return reconstruct(
        data, "ml", passes=10, start=first, variations=count, backend="numpy", say=None
    )


@pytest.mark.parametrize(("share", "least"), [(0.05, 0.95), (0.1, 0.98), (0.2, 0.99)])
def test_weights_are_found(share, least):
    """Measured: correlations of 0.98, 0.997 and 0.9999; errors of the object of 2.0, 1.6 and 1.5 %
    where they are 6, 12 and 25 % without.
    """
    data, field, c = wandering(share)
    varied, plain = found(share), found(share, 0)
    assert abs(np.corrcoef(varied.weights[:, 0], c)[0, 1]) > least
    assert varied.weights.std() == pytest.approx(share, rel=0.15)
    assert error(varied, data, field) < 0.03
    assert error(plain, data, field) > 2 * error(varied, data, field)
    assert varied.final_error < plain.final_error
    (text,) = [text for name, text in refined(varied) if "varies" in name]
    assert float(text.split(" %")[0]) == pytest.approx(100 * share, rel=0.15)


def test_a_steady_probe_is_not_made_to_vary():
    """The object is as good as without (measured: 1.3 % either way)."""
    data, field, _ = wandering(0.0)
    varied, plain = found(0.0), found(0.0, 0)
    assert varied.weights.std() < 0.025
    assert error(varied, data, field) < 1.15 * error(plain, data, field)


def test_variations_are_orthogonal_and_change_no_frame():
    rng = np.random.default_rng(2)
    P, V = (
        (rng.standard_normal((k, 6, 7)) + 1j * rng.standard_normal((k, 6, 7))).astype(np.complex64)
        for k in (2, 3)
    )
    c = rng.standard_normal((20, 3)).astype(np.float32) + 0.5
    probe, variations, weights = settled(P, V, c, np)
    before = P[0] + np.einsum("jl,lpq->jpq", c, V)
    after = probe[0] + np.einsum("jl,lpq->jpq", weights, variations)
    np.testing.assert_allclose(after, before, atol=2e-5)
    np.testing.assert_array_equal(probe[1], P[1])
    flat = variations.reshape(3, -1).view(np.float32)
    norm = np.linalg.norm(probe[0])
    np.testing.assert_allclose(flat @ flat.T, norm**2 * np.eye(3), atol=1e-4 * norm**2)
    gram = weights.T @ weights
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-4 * gram.max())
    assert (np.diff(np.diag(gram)) < 0).all()
    np.testing.assert_allclose(weights.mean(axis=0), 0, atol=1e-6)


def test_two_variations_with_positions_and_doses():
    """All that a frame can have of its own at once: R never rises but for what priors that are
    learned do to it.
    """
    data = wandering(0.1)[0]
    first = reconstruct(data, "rpie", passes=40, probe=FIRST, backend="numpy", say=None)
    both = reconstruct(
        data,
        "ml",
        passes=6,
        start=first,
        variations=2,
        update={"positions": True, "dose": After(2), "variations": After(1)},
        likelihood="roots",
        backend="numpy",
        say=None,
    )
    assert both.weights.shape == (49, 2)
    assert both.weights[:, 0].std() >= both.weights[:, 1].std()
    assert np.isfinite(both.history["varies"][-6:]).all()
    assert (np.diff(both.errors[-6:]) <= 0.005 * both.final_error).all()
    assert both.final_error < 0.9 * first.final_error


def test_a_result_keeps_them(tmp_path):
    data = wandering(0.1)[0]
    result = found(0.1)
    save_result(tmp_path / "a.h5", result)
    again = load_result(tmp_path / "a.h5")
    np.testing.assert_array_equal(again.weights, result.weights)
    np.testing.assert_array_equal(again.variations, result.variations)
    problem = on_grid(data, again)
    left = residual(problem, again.object, again.probe, get_backend("numpy"))
    assert left == pytest.approx(result.final_error, rel=1e-5)
    more = reconstruct(data, "ml", passes=1, start=again, variations=1, backend="numpy", say=None)
    assert more.final_error <= 1.005 * result.final_error
    # engines that know of no variations do not take them
    other = reconstruct(data, "lsqml", passes=1, start=again, backend="numpy", say=None)
    assert other.weights is None


def test_a_run_goes_on_from_a_checkpoint(tmp_path):
    data = wandering(0.1)[0]
    options = {"variations": 1, "probe": FIRST, "backend": "numpy", "say": None}
    whole = reconstruct(data, "ml", passes=4, **options)
    keeper = Checkpointer(tmp_path / "c.h5", 2)
    reconstruct(data, "ml", passes=4, callbacks=[keeper, lambda p: p.passes == 2], **options)
    rest = reconstruct(data, "ml", passes=4, resume=load_checkpoint(tmp_path / "c.h5"), **options)
    np.testing.assert_array_equal(rest.weights, whole.weights)
    np.testing.assert_array_equal(rest.object, whole.object)


def test_update_switches_variations():
    assert updated(ML(), {"variations": True}).variations == 1
    assert updated(ML(variations=3), {"variations": After(4)}) == ML(
        variations=3, variations_start=4
    )
    assert updated(ML(variations=2), {"variations": False}).variations == 0
    with pytest.raises(PtychonError, match="after=3"):
        updated(ML(), {"variations": After(4, every=2)})
