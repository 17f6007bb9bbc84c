"""Slices kept in the middle of a stack: no frame changes, and the depth of a structure is that of
the truth though the probe began with a wrong focus.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychon import PtychonError, reconstruct
from ptychon.backends import get_backend
from ptychon.data.slices import Slices
from ptychon.engines import Context, State
from ptychon.metrics.depth import levelled, middle, strengths
from ptychon.metrics.residual import illuminated, residual
from ptychon.model.problem import Problem
from ptychon.run.constraints import DepthCentre
from ptychon.simulation import probes
from ptychon.simulation.scan import raster
from ptychon.simulation.simulate import simulate

CTX = Context(get_backend("numpy", threads=1))
PIXEL, WAVE, GAP = 1e-8, 1e-10, 2e-5  # 20 squares of the pixel


def beam(defocus):
    """An aperture defocused by so many squares of the pixel: wavelength x distance."""
    return probes.defocused_aperture((28, 28), 6, defocus)


def scene(structure, count=5, **more):
    """Frames of a stack of which the slices named have structure, and its problem."""
    rng = np.random.default_rng(0)
    places = raster(5, 4, jitter=1.0, seed=0, whole=False)
    size = 28 + 2 * int(np.ceil(np.abs(places).max() + 1))
    f2 = np.add.outer(np.fft.fftfreq(size) ** 2, np.fft.fftfreq(size) ** 2)
    truth = np.ones((count, size, size), complex)
    for s in structure:
        rough = np.fft.fft2(rng.standard_normal((size, size))) * np.exp(-f2 / (2 * 0.12**2))
        field = np.fft.ifft2(rough).real
        truth[s] = np.exp(0.3j * field / field.std())
    made = simulate(
        truth,
        beam(10),
        places,
        noise="poisson",
        mean_counts=1e6,
        seed=1,
        pixel_size=PIXEL,
        wavelength=WAVE,
        spacing=GAP,
        **more,
    )
    return made, replace(Problem.from_dataset(made.dataset), slices=made.slices)


@pytest.mark.parametrize("structure", [(0, 1), (3, 4), (4,)])
@pytest.mark.parametrize("tilt", [None, (2e-3, -1e-3)])
def test_no_frame_changes_where_what_goes_out_is_empty(structure, tilt):
    made, problem = scene(structure, tilt=tilt)
    constraint = DepthCentre()
    constraint.check(problem)
    state = State(made.object.copy(), made.probe.copy())
    constraint.apply(state, problem, CTX)
    lit = illuminated(problem, made.probe)
    where = middle(strengths(state.object, lit), np.arange(5))
    assert abs(where - 2) <= 0.51
    assert abs(middle(strengths(made.object, lit), np.arange(5)) - 2) > 1
    assert np.linalg.norm(state.probe - made.probe) > 0.1 * np.linalg.norm(made.probe)
    before, after = (
        residual(problem, *pair)
        for pair in ((made.object, made.probe), (state.object, state.probe))
    )
    assert after == pytest.approx(before, rel=1e-4)
    again = State(state.object.copy(), state.probe.copy())
    constraint.apply(again, problem, CTX)
    np.testing.assert_array_equal(again.object, state.object)
    np.testing.assert_array_equal(again.probe, state.probe)


def test_a_stack_whose_probe_began_out_of_focus_is_found_where_it_is():
    """By two gaps: alone the slices are hardly what they are, and R stays larger."""
    made, problem = scene((1, 2, 3))
    how = {"passes": 24, "judge": False, "progress": False, "say": None, "probe": beam(-30)}
    lit = illuminated(problem, made.probe)
    free, held = (
        reconstruct(problem, "rpie", object_reg=0.1, constraints=constraints, **how)
        for constraints in ((), ("depth_centre:after=4,every=4,before=20",))
    )
    away = [abs(middle(strengths(r.object, lit), np.arange(5)) - 2) for r in (free, held)]
    assert away[1] < away[0]
    assert held.final_error < 0.92 * free.final_error
    like = [
        np.mean([correlation(r.object[k], made.object[k], lit) for k in (1, 2, 3)])
        for r in (free, held)
    ]
    assert like[1] > like[0] + 0.15


def correlation(a, b, lit):
    a, b = (np.angle(levelled(layer, lit))[lit] for layer in (a, b))
    return float(np.corrcoef(a, b)[0, 1])


def test_it_is_refused_where_depth_is_no_freedom():
    _, problem = scene((1,), count=3)
    near = replace(problem, propagator=replace_near(problem))
    uneven = Slices((GAP, 2 * GAP), WAVE, (PIXEL, PIXEL))
    for wrong, why in (
        (replace(problem, slices=None), "'depth_centre' is there for several slices"),
        (replace(problem, slices=uneven), "lie at different distances"),
        (near, "a near-field detector tells"),
    ):
        with pytest.raises(PtychonError, match=why):
            DepthCentre().check(wrong)


def replace_near(problem):
    from ptychon.model.propagators import NearField, angular_spectrum

    return NearField(angular_spectrum(problem.frame_shape, (PIXEL, PIXEL), WAVE, 1e-4))
