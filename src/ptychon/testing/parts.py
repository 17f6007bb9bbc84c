"""Tests that a part of the forward model inherits: its adjoint is the adjoint of its tangent, and
its tangent the derivative.

    Re <w, T d> = <T* w, d>                                          to 1e-12 in double precision,
                                                                     1e-5 in single
    T d = (8 (f(x + h d) - f(x - h d)) - f(x + 2h d) + f(x - 2h d))/12h

A new part needs no more than this, in a test module that pytest collects:

    class TestMyDetector(DetectorTests):
        def part(self, scene):
            return MyDetector(propagator=scene.model.detector.propagator)

It is put in place of the model's own in every scene of `scenes`: one and three slices, one and two
modes, with and without variations of the probe, near and far field, positions on and between
pixels, frames that are not square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from ..backends import get_backend
from ..backends.base import Backend
from ..model.forward import PARTS, Model
from ..model.unknowns import KINDS, Unknowns
from ..model.view import View
from ..types import Array
from .scenes import Scene, scenes

#: Largest relative error of an adjoint.
ADJOINT = {"double": 1e-12, "single": 1e-5}
#: Largest relative error of a tangent; the difference quotient itself is right to about 1e-11.
TANGENT = {"double": 1e-9, "single": 1e-5}
#: Step of the difference quotient, in units of the unknowns.
STEP = 2.5e-4
#: Norm that is nothing: what does not depend on an unknown must have a derivative of 0, exactly.
TINY = 1e-300


@dataclass(frozen=True)
class Step:
    """A stretch of the model with the signatures of a `Part`; `before(view)` is the wave that it
    meets, None at the start.
    """

    name: str
    owns: frozenset[str]
    before: Callable[[View], Any]
    forward: Callable[[View, Any], Array]
    tangent: Callable[[View, Unknowns, Any], Array]
    adjoint: Callable[[View, Array, Unknowns], Any]


def adjoint_error(
    step: Step, view: View, d: Unknowns, change: Any, rng: np.random.Generator
) -> float:
    """Relative error of Re <w, T (d, change)> = <T* w, (d, change)>, at a view that `step.forward`
    has been through.

    w is half random and half along T d, so that the product is no small difference of large
    numbers.
    """
    host, move = view.backend.to_host, view.backend.asarray
    moved = host(step.tangent(view, d, change))
    w = rng.standard_normal(moved.shape)
    if np.iscomplexobj(moved):
        w = w + 1j * rng.standard_normal(moved.shape)
    size = max(float(np.linalg.norm(moved)), TINY)
    w = (moved / size + w / np.linalg.norm(w)).astype(moved.dtype)
    out = view.x.only(d.names).zeros()
    back = step.adjoint(view, move(w), out)
    total = float(out.dot(d)) + (0.0 if change is None else _inner(host(back), host(change)))
    return abs(total - _inner(w, moved)) / max(abs(_inner(w, moved)), TINY)


def derivative(forward: Callable[[float], Array], step: float = STEP) -> Array:
    """Of `forward(t)` at t = 0, by a central difference of fourth order."""
    slope = 8 * (forward(step) - forward(-step)) - (forward(2 * step) - forward(-2 * step))
    return slope / (12 * step)


def distance(a: Array, b: Array) -> float:
    """||a - b||/||b||; where b is 0, 0 only if a is."""
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), TINY))


@dataclass(frozen=True)
class Trial:
    """A step on one backend in one precision, at a view that it has been through."""

    name: str
    precision: str
    step: Step
    view: View

    def there(self, d: Unknowns, change: Any) -> tuple[Unknowns, Any]:
        """A direction on that backend in that precision."""
        move = self.view.backend.asarray
        if change is not None:
            change = move(change.astype(KINDS["complex"][self.precision]))
        return d.astype(self.precision).to(self.view.backend), change


class PartTests:
    """Base of the tests of a part: say which `place` of the model it takes, and make
    it in `part`.
    """

    place: str = ""

    def part(self, scene: Scene) -> Any:
        """The part to test, in double precision on the host, for a scene."""
        return getattr(scene.model, self.place)

    def scenes(self) -> Iterator[Scene]:
        """Where to test."""
        return scenes()

    def backends(self) -> tuple[Backend, ...]:
        """On what to test."""
        return get_backend("reference"), get_backend("numpy", threads=1)

    def steps(self, model: Model) -> list[Step]:
        """What has a tangent and an adjoint."""
        part = getattr(model, self.place)
        return [
            Step(
                self.place,
                part.owns,
                _before(model, self.place),
                part.forward,
                part.tangent,
                part.adjoint,
            )
        ]

    def cases(self) -> Iterator[tuple[Scene, Step]]:
        """Each step of each scene, with the part in it."""
        for plain in self.scenes():
            scene = replace(
                plain,
                model=replace(
                    plain.model, **({self.place: self.part(plain)} if self.place else {})
                ),
            )
            for step in self.steps(scene.model):
                yield scene, step

    def directions(self, scene: Scene, step: Step) -> Iterator[tuple[Unknowns, Any]]:
        """Changes of each unknown, of all of them, and of the wave before."""
        own = tuple(n for n in scene.x.names if n in step.owns)
        wave = step.before(scene.model.placed(scene.x, scene.frames))
        for names in [
            *((n,) for n in own),
            *([own] if len(own) > 1 else []),
            *([] if wave is None else [()]),
        ]:
            yield scene.direction(names), None if wave is None else scene.normal(wave.shape)

    def trials(self, scene: Scene, step: Step) -> list[Trial]:
        """The same step on each backend in each precision."""
        found = []
        for backend, precision in product(self.backends(), ADJOINT):
            model, x = scene.model.to(backend), scene.x.astype(precision).to(backend)
            here = next(s for s in self.steps(model) if s.name == step.name)
            view = model.placed(x, scene.frames)
            here.forward(view, here.before(view))
            found.append(
                Trial(
                    f"{scene.name} {backend.name} {precision}: {step.name}", precision, here, view
                )
            )
        return found

    def test_adjoint(self) -> None:
        """Re <w, T d> = <T* w, d>."""
        for scene, step in self.cases():
            trials = self.trials(scene, step)
            for d, change in self.directions(scene, step):
                for trial in trials:
                    error = adjoint_error(
                        trial.step, trial.view, *trial.there(d, change), scene.rng
                    )
                    assert error < ADJOINT[trial.precision], (
                        f"{trial.name} by {d.names}: adjoint off by {error:.1e}"
                    )

    def test_tangent(self) -> None:
        """T d is the derivative, taken in double precision on the host."""
        for scene, step in self.cases():
            trials, wave = (
                self.trials(scene, step),
                step.before(scene.model.placed(scene.x, scene.frames)),
            )
            for d, change in self.directions(scene, step):
                truth = derivative(partial(_moved, scene, step, d, wave, change))
                for trial in trials:
                    moved = trial.step.tangent(trial.view, *trial.there(d, change))
                    error = distance(trial.view.backend.to_host(moved), truth)
                    assert error < TANGENT[trial.precision], (
                        f"{trial.name} by {d.names}: tangent off by {error:.1e}"
                    )


class IlluminationTests(PartTests):
    """For a part that makes the wave on the first slice."""

    place = "illumination"

    def scenes(self) -> Iterator[Scene]:
        return (
            scene for scene in scenes() if len(scene.x.object) == 1 or scene.x.positions is None
        )


class SpecimenTests(PartTests):
    """For a part that takes that wave through the object."""

    place = "specimen"


class DetectorTests(PartTests):
    """For a part that takes the exit wave to what is counted: its waves, and its intensities."""

    place = "detector"

    def scenes(self) -> Iterator[Scene]:
        return (
            scene for scene in scenes() if len(scene.x.object) == 1 or scene.x.positions is None
        )

    def steps(self, model: Model) -> list[Step]:
        part, waves = model.detector, super().steps(model)[0]

        def at_detector(view: View) -> Any:
            return waves.forward(view, waves.before(view))

        def read(view: View, wave: Any) -> Array:
            view.waves = wave
            return part.intensity(view)

        owns = frozenset({"background"})
        return [
            waves,
            Step(
                "intensity", owns, at_detector, read, part.intensity_tangent, part.intensity_adjoint
            ),
        ]


class ModelTests(PartTests):
    """For all parts together, in waves and in intensities; override `model` to test another
    composition.
    """

    def model(self, scene: Scene) -> Model:
        """The model to test in a scene."""
        return scene.model

    def scenes(self) -> Iterator[Scene]:
        for scene in scenes():
            yield replace(scene, model=self.model(scene))

    def steps(self, model: Model) -> list[Step]:
        owns = frozenset[str]().union(*(part.owns for part in model.parts))

        def waves(view: View, wave: Any) -> Array:
            for part in model.parts:
                wave = part.forward(view, wave)
            return wave

        def intensity(view: View, wave: Any) -> Array:
            waves(view, wave)
            return model.intensity(view)

        def tangent(view: View, d: Unknowns, change: Any) -> Array:
            return model.tangent(view, d)

        def intensity_tangent(view: View, d: Unknowns, change: Any) -> Array:
            return model.intensity_tangent(view, d)

        return [
            Step("model", owns - {"background"}, _nothing, waves, tangent, model.adjoint),
            Step(
                "intensity", owns, _nothing, intensity, intensity_tangent, model.intensity_adjoint
            ),
        ]


def _before(model: Model, place: str) -> Callable[[View], Any]:
    def wave(view: View) -> Any:
        made = None
        for part in model.parts[: PARTS.index(place)]:
            made = part.forward(view, made)
        return made

    return wave


def _nothing(view: View) -> None:
    return None


def _moved(scene: Scene, step: Step, d: Unknowns, wave: Any, change: Any, t: float) -> Array:
    """What the step gives with the unknowns moved by t d and the wave before by t change."""
    view = scene.model.placed(scene.x.axpy(t, d), scene.frames)
    return np.array(step.forward(view, None if wave is None else wave + t * change))


def _inner(a: Array, b: Array) -> float:
    """Re <a, b>, summed in double precision."""
    return float(np.vdot(np.asarray(a).astype(complex), np.asarray(b).astype(complex)).real)
