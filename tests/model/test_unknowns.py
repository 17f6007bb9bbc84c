"""One record for estimates, gradients, steps, draws: its algebra, its rows, and what its
declarations say.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from _device import DeviceArray, device_backend

from ptychon import PtychonError
from ptychon.model.unknowns import Unknowns, declared
from ptychon.testing import scene

X = scene(2, 2, 3).x


def test_every_field_declares_its_shape_and_whose_it_is():
    assert [f.name for f in fields(Unknowns)] == list(declared())
    for name, of in declared().items():
        assert of.per_frame == (of.letters[0] == "N"), name
    assert X.sizes() == {
        "S": 2,
        "H": 20,
        "W": 19,
        "K": 2,
        "P": 8,
        "Q": 7,
        "N": 6,
        "M": 3,
        "R": 8,
        "C": 7,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weights": np.zeros((6, 2))},
            "weights has M = 2, but variations has M = 3; make them agree",
        ),
        (
            {"log_scale": np.zeros(5)},
            "weights has N = 6|log_scale has N = 5, but positions has N = 6",
        ),
        ({"positions": np.zeros((6, 3))}, r"positions has shape \(6, 3\); it must be \(N, 2\)"),
        ({"object": np.zeros((20, 19))}, r"object has shape \(20, 19\); it must be \(S, H, W\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, message):
    with pytest.raises(PtychonError, match=message):
        replace(X, **change).sizes()


def test_algebra_is_that_of_one_long_real_vector():
    d = scene(2, 2, 3, seed=1).x
    assert X.vector().size == 2 * (X.object.size + X.probe.size + X.variations.size) + sum(
        getattr(X, n).size for n in ("positions", "log_scale", "weights", "background")
    )
    assert np.allclose(X.axpy(-0.3, d).vector(), X.vector() - 0.3 * d.vector())
    assert np.allclose(X.times(2.5).vector(), 2.5 * X.vector())
    assert float(X.dot(d)) == pytest.approx(X.vector() @ d.vector())
    assert float(X.norm()) == pytest.approx(np.linalg.norm(X.vector()))
    assert np.array_equal(X.from_vector(X.vector()).vector(), X.vector())


def test_what_is_not_there_does_not_move():
    step = X.only(["probe", "weights"]).times(0.5)
    assert step.names == ("probe", "weights")
    moved = X.axpy(1.0, step)
    assert np.allclose(moved.probe, 1.5 * X.probe)
    assert moved.object is X.object
    assert float(step.dot(X.only(["object"]))) == 0
    assert np.allclose(step.axpy(2.0, X.only(["object"])).object, 2 * X.object)
    assert np.allclose(X.times(Unknowns(probe=np.array(2.0))).probe, 2 * X.probe)


@pytest.mark.parametrize("precision", ["single", "double"])
def test_precision_stays(precision):
    x = X.astype(precision)
    assert x.precision == precision
    assert x.positions.dtype == np.float64
    assert x.dot(x).dtype == np.float64
    for other in (
        x.axpy(np.float64(0.1), x),
        x.times(np.float64(3.0)),
        x.zeros(),
        x.from_vector(x.vector()),
        x.copy(),
    ):
        assert [a.dtype for _, a in other.each()] == [a.dtype for _, a in x.each()]


def test_zeros_are_of_the_unknowns_asked_for_and_nothing_else():
    zeros = replace(X, object=np.full_like(X.object, np.nan)).zeros(["object", "positions"])
    assert zeros.names == ("object", "positions")
    assert not zeros.vector().any()
    with pytest.raises(
        PtychonError, match="no unknown 'tilt' in this estimate, which has object, probe"
    ):
        X.zeros(["tilt"])


def test_rows_of_some_frames():
    x, frames = X.copy(), np.array([4, 1])
    part = x.select(frames)
    assert np.array_equal(part.positions, X.positions[[4, 1]])
    assert part.weights.shape == (2, 3)
    assert part.object is x.object
    x.put(frames, part.times(2.0))
    assert np.allclose(x.log_scale[frames], 2 * X.log_scale[frames])
    assert np.array_equal(x.log_scale[[0, 2, 3, 5]], X.log_scale[[0, 2, 3, 5]])
    assert np.array_equal(x.object, X.object)


def test_there_and_back():
    backend = device_backend()
    moved = X.to(backend)
    assert all(isinstance(a, DeviceArray) for _, a in moved.each())
    assert np.array_equal(moved.on_host(backend).vector(), X.vector())
    with pytest.raises(TypeError, match="host"):
        _ = moved.object + X.object
