"""Models with every part in them, that parts of the model are tried on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from ..backends import get_backend
from ..model.detector import Detector
from ..model.forward import Model
from ..model.propagators import FarField, NearField
from ..model.specimen import Specimen
from ..model.unknowns import Unknowns, declared
from ..types import Array, FloatArray

#: Pixels of a frame and of the object: neither square, one odd.
FRAME, OBJECT = (8, 7), (20, 19)


@dataclass(frozen=True)
class Scene:
    """A small model and an estimate of everything in it, double precision, on the host; random, but
    always the same.
    """

    name: str
    model: Model
    x: Unknowns
    frames: Any
    rng: np.random.Generator

    def normal(self, shape: Any, kind: str = "complex") -> Array:
        """Random numbers, complex or real."""
        real = self.rng.standard_normal(shape)
        return real + 1j * self.rng.standard_normal(shape) if kind == "complex" else real

    def direction(self, names: Any) -> Unknowns:
        """A random change of the unknowns named."""
        there = dict(self.x.each())
        return Unknowns(**{n: self.normal(there[n].shape, declared()[n].kind) for n in names})


def scene(
    slices: int = 1,
    modes: int = 1,
    variations: int = 0,
    *,
    near: bool = False,
    between: bool = True,
    seed: int = 0,
) -> Scene:
    """Six frames, of which three are looked at in another order; with variations come dose and
    background.
    """
    name = (
        f"slices={slices} modes={modes} variations={variations} {'near' if near else 'far'} "
        f"between={between}"
    )
    rng = np.random.default_rng([seed, slices, modes, variations, near, between])
    (p, q), n = FRAME, 6
    f2 = np.fft.fftfreq(p)[:, None] ** 2 + np.fft.fftfreq(q)[None] ** 2
    gaps = (
        np.stack([np.exp(-3j * np.pi * (s + 1) * f2) for s in range(slices - 1)])
        if slices > 1
        else ()
    )
    corners = np.stack(
        [rng.integers(0, h - w + 1, n) for h, w in zip(OBJECT, FRAME, strict=True)], 1
    ).astype(np.int32)
    detector = Detector(near_field(-6 * np.pi * f2) if near else FarField())
    model = Model(
        corners=corners,
        backend=get_backend("reference"),
        specimen=Specimen(gaps),
        detector=detector,
    )
    made = Scene(name, model, Unknowns(), np.array([1, 4, 2]), rng)
    x = Unknowns(object=made.normal((slices, *OBJECT)), probe=made.normal((modes, p, q)))
    if between:
        x.positions = corners + np.array([p // 2, q // 2]) + rng.uniform(-0.7, 0.7, (n, 2))
    if variations:
        x.variations, x.weights = (
            made.normal((variations, p, q)),
            made.normal((n, variations), "real"),
        )
        x.log_scale, x.background = 0.2 * made.normal(n, "real"), rng.uniform(0.5, 2, (p, q))
        x.distance = np.array([0.07]) if near else None
    return replace(made, x=x)


def near_field(phase: FloatArray) -> NearField:
    """Free space of such a phase, (P, Q), in double precision."""
    return replace(NearField.through(phase), free=np.exp(1j * phase))


def scenes() -> Iterator[Scene]:
    """Those that every part is tried in."""
    for slices, modes, variations, near in product((1, 3), (1, 2), (0, 2), (False, True)):
        yield scene(slices, modes, variations, near=near)
    for near in (False, True):
        yield scene(3, 2, 2, near=near, between=False)
