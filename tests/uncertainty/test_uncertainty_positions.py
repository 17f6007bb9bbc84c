"""Error bars with positions and doses free: against a dense inverse, whose derivatives are
difference quotients of intensities that are written out here.
"""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from _problems import distance
from ptychon import PtychonError
from ptychon.backends import get_backend
from ptychon.metrics.ambiguities import POSITIONS, gauge_of, unseen
from ptychon.model.frames import rows
from ptychon.model.noise import Noise
from ptychon.model.problem import Problem
from ptychon.model.unknowns import Unknowns
from ptychon.uncertainty import laplace
from ptychon.uncertainty.curvature import Curvature
from ptychon.uncertainty.methods import Laplace
from ptychon.uncertainty.optimum import DOSE_SPREAD, POSITION_SPREAD

#: Six frames of 8 x 8.
SIDE = 8
ALL = ("object", "probe", "positions", "log_scale")


def frames_of(object, probe, positions, log_scale, corners):
    """Counts that are expected in the far field."""
    q = np.fft.fftfreq(SIDE)
    found = []
    for s, a, (y, x) in zip(positions, log_scale, corners, strict=True):
        f = s - np.array([y, x]) - SIDE // 2
        ramp = np.exp(-2j * np.pi * (q[:, None] * f[0] + q[None] * f[1]))
        P = np.exp(a) * np.fft.ifft2(np.fft.fft2(probe) * ramp)
        wave = np.fft.fft2(P * object[y : y + SIDE, x : x + SIDE], norm="ortho")
        found.append((np.abs(wave) ** 2).sum(axis=0))
    return np.array(found)


@functools.cache
def scene():
    """A problem whose data are what is expected, and the truth."""
    rng = np.random.default_rng(3)
    r = np.arange(SIDE) - SIDE // 2
    probe = np.exp(-(r[:, None] ** 2 + r[None] ** 2) / 8) * np.exp(0.05j * r[None] ** 2)
    probe = (40 * probe / np.linalg.norm(probe))[None]
    y, x = (a.ravel() for a in np.meshgrid([0, 3], [0, 3, 6], indexing="ij"))
    corners = np.stack([y, x], axis=1)
    positions = corners + SIDE // 2 + rng.uniform(-0.4, 0.4, (6, 2)).astype(np.float32)
    shape = SIDE + 4, SIDE + 7
    object = (1 + 0.3 * rng.standard_normal(shape)) * np.exp(0.5j * rng.standard_normal(shape))
    log_scale = np.zeros(6)
    return object, probe, positions, log_scale, corners


def problem_of(parts):
    object, _, positions, _, corners = parts
    intensity = frames_of(*parts)
    return Problem(
        amplitude=np.sqrt(intensity).astype(np.float32),
        mask=np.ones((1, SIDE, SIDE), bool),
        corners=corners.astype(np.int32),
        shifts=(positions - corners - SIDE // 2).astype(np.float32),
        shift_index=np.arange(len(corners), dtype=np.int32),
        object_shape=object.shape,
        counting=True,
    )


def dense(update):
    """The whole normal matrix in the order of `Unknowns.vector`, with laplace's priors, and the
    record whose vector it acts on.
    """
    object, probe, positions, log_scale, corners = scene()
    x = Unknowns(object=object[None], probe=probe, positions=positions, log_scale=log_scale)
    free = x.only(update)

    def light(v):
        y = x.zeros().axpy(1, x).axpy(1, free.from_vector(v))
        return frames_of(y.object[0], y.probe, y.positions, y.log_scale, corners).ravel()

    n, h = free.vector().size, 1e-5
    J = np.stack([(light(h * u) - light(-h * u)) / (2 * h) for u in np.eye(n)], axis=1)
    region = lit()
    weight = {
        "object": 2 / float(np.mean(np.abs(object[region]) ** 2)),
        "probe": 2 / float((np.abs(probe) ** 2).max()),
        "positions": POSITION_SPREAD**-2,
        "log_scale": DOSE_SPREAD**-2,
    }
    prior = np.concatenate([np.full(x.only([name]).vector().size, weight[name]) for name in update])
    return J.T @ (J / light(np.zeros(n))[:, None]) + np.diag(prior), free


def lit():
    """Where errors are compared: the inner pixels."""
    region = np.zeros(scene()[0].shape, bool)
    region[3:-3, 3:-3] = True
    return region


@functools.cache
def aligned_bars(update):
    """Standard deviations of object (complex), positions and doses from the dense inverse, after
    alignment on the region.
    """
    H, free = dense(update)
    object, probe, *_ = scene()
    C, n = np.linalg.inv(H), 2 * object.size
    moves = "positions" in update, "log_scale" in update
    whole = np.ones(object.shape, bool)
    gauge = gauge_of(problem_of(scene()), object, probe, "probe" in update, lit(), whole, *moves)
    G = np.stack([np.stack([g.real, g.imag], -1).ravel() for g in gauge.object], axis=1)
    seen = np.repeat(lit().ravel(), 2)[:, None] * G
    M = np.eye(n) - G @ np.linalg.pinv(G.T @ seen, rcond=1e-10) @ seen.T
    variance = np.einsum("ij,jk,ik->i", M, C[:n, :n], M).reshape(-1, 2).sum(axis=1)
    bars = {"object": np.sqrt(variance).reshape(object.shape)}
    first = free.only([u for u in update if u in ("object", "probe")]).vector().size
    for name, width in (("positions", 2), ("log_scale", 1)):
        if name in update:
            size = 6 * width
            part = C[first : first + size, first : first + size].reshape(6, width, 6, width)
            off = np.eye(6) - 1 / 6
            bars[name] = np.sqrt(np.einsum("ij,jaka,ik->ia", off, part, off))
            first += size
    return bars


def point_of(update, backend, spread=None, doses=False):
    """The curvature at the truth, in single precision; with doses where they are free, or asked
    for.
    """
    object, probe, positions, log_scale, _ = scene()
    problem, chosen = problem_of(scene()), get_backend(backend)
    x = Unknowns(object=object[None], probe=probe).astype("single")
    if doses or set(update) - {"object", "probe"}:
        x = x.axpy(1, Unknowns(positions=positions, log_scale=log_scale.astype(np.float32)))
    S, ridge = np.mean(np.abs(object[lit()]) ** 2), (np.abs(probe) ** 2).max()
    prior = Unknowns(
        object=np.float32(2 / S),
        probe=np.float32(2 / ridge),
        positions=np.float64(POSITION_SPREAD**-2),
        log_scale=np.float32(DOSE_SPREAD**-2),
    )
    return Curvature(problem, x, Noise("poisson"), chosen, update, prior.only(update), spread)


@pytest.mark.parametrize("backend", ["numpy", "reference"])
def test_solved_it_gives_the_dense_inverse(backend):
    """The columns of positions and doses, to 1e-3 of each, in single precision."""
    H, free = dense(ALL)
    C, point = np.linalg.inv(H), point_of(ALL, backend)
    for i in range(len(H) - 18, len(H), 4):
        unit = free.from_vector(np.eye(len(H))[i]).astype("single")
        found = point.solved(unit, 1e-4, 2000)
        assert found.residual <= 1e-4
        vector = found.x.only(ALL).vector()
        assert distance(vector, C[:, i]) < 1e-3
        assert vector[i] == pytest.approx(C[i, i], rel=1e-3)
        # what is known without a solution, and the part that the object has a share in
        known = point.H.variances().only(ALL[2:]).vector()[i - len(H)]
        rest = found.rest.only(ALL[2:]).vector()[i - len(H)]
        assert known + rest == pytest.approx(C[i, i], rel=1e-3)


@pytest.mark.parametrize("update", [("object", "positions"), ("object", "positions", "log_scale")])
def test_bars_are_those_of_the_dense_inverse(update):
    """Of `laplace` itself, after alignment; 100 samples know a mean over the pixels to 1 %, one
    over 12 positions to 3 %.
    """
    object, probe, *_ = scene()
    found = laplace(
        problem_of(scene()),
        object,
        probe,
        update=update,
        draws=100,
        refine=0,
        averaged=False,
        region=lit(),
        tolerance=1e-3,
        iterations=1000,
        backend="reference",
    )
    expected = aligned_bars(update)
    ratio = (found.object_std / expected["object"])[lit()]
    assert ratio.mean() == pytest.approx(1, abs=0.03)
    assert (found.positions_std / expected["positions"]).mean() == pytest.approx(1, abs=0.08)
    assert ("probe" in update) is (found.probe_std is not None)
    assert any("positions (within" in each for each in found.conditional)
    if "log_scale" in update:
        doses = found.log_scale_std / expected["log_scale"][:, 0]
        assert doses.mean() == pytest.approx(1, abs=0.12)
        assert any("doses (within" in each for each in found.conditional)
    else:
        assert found.log_scale_std is None


def test_what_else_is_free_widens_the_bars():
    """Measured on this small scan: a free probe widens the bars of positions by 75 %, free
    positions those of the object by 6 %. One position by its linear system, the object by the
    dense matrix.
    """
    unit, stds = np.zeros((6, 2)), {}
    unit[2, 0] = 1
    for update in (("object", "positions"), ("object", "probe", "positions")):
        point = point_of(update, "reference")
        v = point.x.zeros(update)
        v.positions[:] = unit - unit.mean(axis=0)
        x = point.solved(v, 1e-4, 2000).x
        stds[update] = float(v.dot(x)) ** 0.5
        assert stds[update] == pytest.approx(aligned_bars(update)["positions"][2, 0], rel=2e-3)
    known, free = stds.values()
    assert free > 1.2 * known
    both, fixed = (
        aligned_bars(names)["object"][lit()]
        for names in (("object", "probe", "positions"), ("object", "probe"))
    )
    assert 1.03 < np.mean(both / fixed) < 1.1


def test_uncertain_waves_have_information_across_them_too():
    """Averaged over an uncertain wave: with nothing eliminated, and frames that each have a dose of
    1, the product is the one of object and probe alone; and what a change takes of the information
    is its quadratic form, whoever has a part in it.
    """
    spread, rng = np.linspace(1, 30, 6).astype(np.float32), np.random.default_rng(1)
    thin = point_of(ALL[:2], "numpy", spread)
    whole = point_of(ALL[:2], "numpy", spread, doses=True)
    assert type(thin.H) is not type(whole.H)
    d = whole.H.zeros().map(
        lambda a: (rng.standard_normal(a.shape) + 1j * rng.standard_normal(a.shape)).astype(a.dtype)
    )
    one, other = whole.H(d), thin.H(d)
    assert distance(one.object, other.object) < 1e-5
    assert distance(one.probe, other.probe) < 1e-5
    assert distance(whole.diagonal.object, thin.diagonal.object) < 1e-5
    free = point_of(ALL, "numpy", spread)
    found = free.solved(free.H.noise(rng), 1e-5, 2000)
    taken = sum(float(free.change(b, found.x)[1].sum()) for b in free.blocks())
    prior = float(found.x.dot(found.x.times(free.prior)))
    # x* (normal matrix of all) x, from the Schur complement and G
    shared = float(found.x.dot(free.H(found.x.only(ALL[:2]))))
    alone = rows(found.x.only(ALL[2:]).axpy(-1, found.rest), ALL[2:], slice(None), np)
    upper = np.linalg.inv(free.H.lower_inverse).swapaxes(1, 2)
    frames = ((upper @ alone[..., None]) ** 2).sum()
    assert taken + prior == pytest.approx(shared + frames, rel=1e-3)


def test_moving_all_positions_is_not_seen_where_object_or_probe_follow():
    """The names are those of the directions; in the near field a probe alone cannot follow."""
    assert unseen(False, False, True) == ("global phase", *POSITIONS)
    assert unseen(True, False, False, True) == ("global phase", "all doses")
    assert "translation along y" in unseen(False, True, True)
    assert "translation along y" not in unseen(True, True, True)


def test_only_known_unknowns_can_be_free():
    object, probe, *_ = scene()
    for update, words in (
        (("probe",), "the unknowns to update are probe; the object must be among them"),
        (("object", "slices"), "there is no unknown 'slices'"),
    ):
        with pytest.raises(PtychonError, match=words):
            laplace(problem_of(scene()), object, probe, update=update)


def test_the_method_passes_on_what_is_free():
    object, probe, *_ = scene()
    found = SimpleNamespace(object=object, probe=probe, options={})
    method = Laplace(draws=2, update=("object", "log_scale"))
    backend = get_backend("reference")
    _, bars = method.run(problem_of(scene()), found, backend, lambda *_: None, Path())
    assert bars.log_scale_std.shape == (6,)
    assert bars.positions_std is None
    assert bars.probe_std is None
