"""The steps of a batch are those of the model with one slice, and come in pairs of adjoints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from _problems import make_case
from ptychon.backends import get_backend
from ptychon.model.batch import Batch, Shifts, exit_wave, shifted_probes, to_object, to_wave
from ptychon.model.forward import Model, unknowns_of
from ptychon.model.unknowns import Unknowns

FRAMES = [0, 3, 5, 9]
BACKENDS = ("reference", "numpy")
KINDS = [(s, n, k) for s in (False, True) for n in (False, True) for k in (1, 2)]


def set_up(name, subpixel, near, modes):
    case, backend = make_case(subpixel=subpixel, near=near, modes=modes), get_backend(name)
    return case, backend, Batch.of(case.problem, backend, FRAMES), np.random.default_rng(5)


def white(rng, shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype("complex64")


def inner(a, b):
    """<a, b> in double precision."""
    return np.vdot(np.asarray(a, "complex128"), np.asarray(b, "complex128"))


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("subpixel", "near", "modes"), KINDS)
def test_a_batch_is_the_model_with_one_slice(name, subpixel, near, modes):
    case, backend, frames, rng = set_up(name, subpixel, near, modes)
    model, x = (Model.of(case.problem, backend), unknowns_of(case.problem, case.object, case.probe))
    view = model.view(x, np.array(FRAMES))
    P, O = frames.probe(case.probe), frames.window(case.object)
    change = white(rng, P.shape)
    pulled = model.pull(view, 0, change)
    out = model.zeros(x, ["object", "probe"])
    model.exit_adjoint(view, change, out)
    mine = Unknowns(
        object=np.zeros_like(x.object), probe=frames.unshifted(to_wave(O, change)).copy()
    )
    frames.add(mine.object[0], to_object(P, change))
    for found, expected in (
        (exit_wave(P, O), view.exit),
        (frames.waves(case.object, case.probe), view.waves),
        (frames.back(view.waves), view.exit),
        (to_object(P, change), pulled[0]),
        (to_wave(O, change), pulled[1]),
        (mine.object, out.object),
        (mine.probe, out.probe),
    ):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("subpixel", "near", "modes"), KINDS)
def test_steps_come_in_pairs(name, subpixel, near, modes):
    case, backend, frames, rng = set_up(name, subpixel, near, modes)
    shape = len(FRAMES), *case.probe.shape
    psi, change = white(rng, shape), white(rng, shape)
    P, O, dP, dO = (
        white(rng, s) for s in (shape, (shape[0], *shape[2:]), case.probe.shape, case.object.shape)
    )
    field = np.zeros_like(dO)
    frames.add(field, to_object(P, change))
    kept, many = Shifts(case.problem, backend), white(rng, (len(case.problem.shifts), *shape[1:]))
    for left, right in (
        (inner(frames.onward(psi), change), inner(psi, frames.back(change))),
        (inner(exit_wave(P, frames.window(dO)), change), inner(dO, field)),
        (inner(exit_wave(psi, O), change), inner(psi, to_wave(O, change))),
        (inner(frames.probe(dP), change), inner(dP, frames.unshifted(change))),
        (inner(kept.forward(dP), many), inner(dP, kept.adjoint(many))),
    ):
        assert abs(left - right) < 1e-5 * (1 + abs(left))


@pytest.mark.parametrize("near", [False, True])
def test_waves_without_an_axis_of_modes(near):
    case, _, frames, rng = set_up("reference", True, near, 1)
    P, O = frames.probe(case.probe), frames.window(case.object)
    change = white(rng, P.shape)
    psi = exit_wave(P[:, 0], O)
    np.testing.assert_array_equal(psi, exit_wave(P, O)[:, 0])
    np.testing.assert_array_equal(frames.onward(psi), frames.onward(psi[:, None])[:, 0])
    np.testing.assert_array_equal(to_object(P[:, 0], change[:, 0]), to_object(P, change))
    np.testing.assert_array_equal(to_wave(O, change[:, 0]), to_wave(O, change)[:, 0])


@pytest.mark.parametrize("near", [False, True])
def test_a_frame_without_a_window_has_the_shift_it_is_given(near):
    case, backend, _, _ = set_up("reference", True, near, 2)
    problem, flat = case.problem, np.ones_like(case.object)
    for u in range(len(problem.shifts)):
        j = int(np.flatnonzero(problem.shift_index == u)[0])
        expected = Batch.of(problem, backend, [j]).waves(flat, case.probe)
        probe = shifted_probes(case.probe, problem, backend.kernels, slice(u, u + 1))
        found = Batch.nowhere(problem, backend, u).onward(probe)
        np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


def test_a_frame_of_a_probe_that_stands_still_goes_through_free_space_alone():
    case, backend, _, rng = set_up("reference", True, True, 1)
    wave, free = white(rng, case.probe[None].shape), case.problem.propagator.free
    expected = np.fft.ifft2(np.conj(free) * np.fft.fft2(wave))
    still = Batch.nowhere(replace(case.problem), backend)
    np.testing.assert_allclose(still.back(wave), expected, atol=1e-5)
