"""The forward model: what a detector should count, for any estimate of the unknowns. Everything
that needs it asks here.

For frame j, probe mode k, slice s, detector pixel q; f_j is the fraction of a pixel of position
s_j:

    psi_1jk  = exp(a_j) S_{f_j}( P_k + delta_k0 sum_l c_jl V_l )             illumination
    psi_s+1  = F^-1[ G_s F( psi_s O_s ) ],   exit wave psi_S O_S             specimen
    z_jk     = F[exit]   or   F^-1[ H exp(2 pi i q.f_j) F[exit] ]            detector: far field or
                                                                             near field
    lambda_j = B[ sum_k |z_jk|^2 ] + b                                       detector: counts that
                                                                             are expected

Each of the three parts has `forward`, `tangent` T and `adjoint` T*, and they chain here. For one
slice, how z changes with each unknown, and what a change w of z asks of it, c = D* w being w taken
back to the exit wave:

    object        T = D[ psi dO ]                                            sum_k psi* c
    probe         T = D[ (exp(a) S dP_k) O ]                                 exp(a) S^-1 (O* c)
    variation l   c_jl times that of mode 0                                  c_jl times that of mode
                                                                             0
    weight jl     T = D[ (exp(a) S V_l) O ], mode 0                          Re <T, w>
    log scale     T = z                                                      Re <z, w>
    position y    T = -D[ (d_y psi) O ], d_y = 2 pi i q_y in Fourier space   Re <T, w>
                  in the near field + F^-1[ 2 pi i q_y F z ]: the image stays where the detector is
    background    on lambda: d lambda = 2 Re sum_k z_k* w_k + db             sum_j
    distance      in the near field F^-1[ i phi F z ], phi the phase of H    Re <T, w>

References: Thibault & Menzel, Nature 494, 68 (2013) (modes); Odstrcil et al., Opt. Express 24, 8360
(2016) (a probe that varies); Maiden, Humphry & Rodenburg, J. Opt. Soc. Am. A 29, 1606 (2012)
(slices); Guizar-Sicairos & Fienup, Opt. Express 16, 7264 (2008) (positions).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..types import Array, IntArray, PtychonError
from .detector import Detector
from .grid import windows
from .illumination import Illumination, fractions, ramps
from .problem import Problem
from .specimen import Specimen
from .unknowns import Unknowns
from .view import Part, View

#: The parts, in the order of the light.
PARTS = ("illumination", "specimen", "detector")


@dataclass(frozen=True, kw_only=True)
class Model:
    """Three parts, and where the window of each frame lies.

    Attributes
    ----------
    corners : (N, 2) int, on the host
        Top-left object pixel of each window. They stay while positions move, until `follow` is
        asked.
    backend : Backend
    illumination, specimen, detector : Part
        On the backend's device.
    """

    corners: IntArray
    backend: Backend
    illumination: Any = field(default_factory=Illumination)
    specimen: Any = field(default_factory=Specimen)
    detector: Any = field(default_factory=Detector)

    @classmethod
    def of(cls, problem: Problem, backend: Backend, **parts: Any) -> Model:
        """The model of a problem: its windows, propagator, mask and background. `parts` replace
        those that it makes.
        """
        background = None if problem.background is None else problem.background[0]
        made = {
            "specimen": Specimen.of(problem),
            "detector": Detector(
                problem.propagator, problem.spread, background=background, mask=problem.mask
            ),
        }
        return cls(corners=problem.corners, backend=backend, **{**made, **parts}).to(backend)

    def to(self, backend: Backend) -> Model:
        """The same on another backend."""
        moved = (part.to(backend) for part in self.parts)
        return replace(self, backend=backend, **dict(zip(PARTS, moved, strict=True)))

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def parts(self) -> tuple[Part, ...]:
        """In the order of the light."""
        return self.illumination, self.specimen, self.detector

    def zeros(self, x: Unknowns, update: Collection[str]) -> Unknowns:
        """No change of the unknowns named, on the device: what `adjoint` adds to.

        Raises
        ------
        PtychonError
            If the estimate lacks one, or no part of this model has a derivative for it.
        """
        owned = frozenset[str]().union(*(part.owns for part in self.parts))
        for name in update:
            if name not in owned:
                raise PtychonError(
                    f"this model has no derivative for {name!r}; it has those of "
                    f"{', '.join(sorted(owned))}"
                )
        return x.zeros(update)

    def follow(self, x: Unknowns) -> Model:
        """The same model, with windows that follow positions which have left theirs, as far as the
        object goes; itself where none has. Reads positions."""
        if x.positions is None:
            return self
        shape = tuple(int(n) for n in x.probe.shape[-2:])
        whole = None if x.object is None else (int(x.object.shape[-2]), int(x.object.shape[-1]))
        corners = windows(
            self.backend.to_host(x.positions), (shape[0], shape[1]), self.corners, whole
        )
        return self if np.array_equal(corners, self.corners) else replace(self, corners=corners)

    # ------------------------------------------------------------ forward

    def view(self, x: Unknowns, frames: Any) -> View:
        """What some frames see: a slice or an array of distinct numbers. Everything else starts
        from it.

        Raises
        ------
        PtychonError
            If a window is not wholly on the object, or the estimate does not fit the model.
        """
        view = self.placed(x, frames)
        wave = self.specimen.forward(view, self.illumination.forward(view, None))
        self.detector.forward(view, wave)
        return view

    def placed(self, x: Unknowns, frames: Any) -> View:
        """A view with windows and ramps, before any wave."""
        rows = x.sizes().get("N", len(self))
        if rows != len(self):
            raise PtychonError(
                f"the estimate has rows for {rows} frames, but the model has {len(self)} "
                "windows; give as many"
            )
        if (x.variations is None) != (x.weights is None):
            raise PtychonError(
                "variations of the probe and weights go together; give both or neither"
            )
        view = View(x, frames, self.corners[frames], self.backend)
        if not isinstance(frames, slice) and len(np.unique(np.arange(len(self))[frames])) < len(
            view.corners
        ):
            raise PtychonError(
                "a batch has the same frame twice, whose changes would be lost; give each once"
            )
        low, high = (
            view.corners,
            view.corners + np.array(view.shape) - np.array(x.object.shape[-2:]),
        )
        if (low < 0).any() or (high > 0).any():
            bad = int(((low < 0) | (high > 0)).any(axis=1).argmax())
            first, last = (
                view.corners[bad].tolist(),
                (view.corners[bad] + np.array(view.shape)).tolist(),
            )
            raise PtychonError(
                f"the window of frame {np.arange(len(self))[frames][bad]} covers pixels {first} "
                f"to {last} of an object of "
                f"{tuple(x.object.shape[-2:])}; give it a larger object (object_shape)"
            )
        if x.positions is not None:
            fraction = fractions(x.positions[frames], view.corners, view.shape, self.backend.xp)
            view.ramps = ramps(fraction, view.shape, x.precision, self.backend.xp)
        return view

    def waves(self, view: View) -> Array:
        """z, (B, K, P, Q)."""
        return view.waves

    def intensity(self, view: View) -> Array:
        """lambda, (B, R, C)."""
        return self.detector.intensity(view)

    # ------------------------------------------------------------ tangent and adjoint

    def tangent(self, view: View, d: Unknowns) -> Array:
        """T d: how z changes, (B, K, P, Q)."""
        return self.detector.tangent(view, d, self.exit_tangent(view, d))

    def adjoint(self, view: View, waves: Array, out: Unknowns) -> None:
        """out += T* waves, for the unknowns that `out` has."""
        self.exit_adjoint(view, self.detector.adjoint(view, waves, out), out)

    def exit_tangent(self, view: View, d: Unknowns) -> Array:
        """How the exit wave changes, in its window."""
        return self.specimen.tangent(view, d, self.illumination.tangent(view, d, None))

    def exit_adjoint(self, view: View, change: Array, out: Unknowns) -> None:
        """out += what a change of the exit wave asks."""
        self.illumination.adjoint(view, self.specimen.adjoint(view, change, out), out)

    def intensity_tangent(self, view: View, d: Unknowns) -> Array:
        """How lambda changes, (B, R, C)."""
        return self.detector.intensity_tangent(view, d, self.tangent(view, d))

    def intensity_adjoint(self, view: View, change: Array, out: Unknowns) -> None:
        """out += what a change of lambda asks."""
        self.adjoint(view, self.detector.intensity_adjoint(view, change, out), out)

    # ------------------------------------------------------------ the walk back, one step at a time

    def pull(self, view: View, s: int, change: Array) -> tuple[Array, Array]:
        """What a change behind slice s asks of the slice, (B, P, Q), and of the wave that meets it,
        (B, K, P, Q).
        """
        return self.specimen.pull(view, s, change)  # type: ignore[no-any-return]

    def up(self, view: View, s: int, change: Array) -> Array:
        """That wave, carried through the gap above slice s."""
        return self.specimen.up(view, s, change)


def of_waves(light: Array, problem: Problem) -> Array:
    """What of lambda comes from the waves, (B, R, C): less the background that the problem states.
    Its root is what `Problem.amplitude` measures.
    """
    return light if problem.background is None else (light - problem.background).clip(0, None)


def unknowns_of(problem: Problem, object: Array, probe: Array) -> Unknowns:
    """An estimate from an object (H, W) or (S, H, W), a probe (K, P, Q), and what a problem has of
    each frame: positions, doses, and how the probe varies.
    """
    field = object[None] if object.ndim == 2 else object
    return Unknowns(
        object=field,
        probe=probe,
        positions=problem.positions,
        log_scale=problem.log_scale,
        variations=problem.variations,
        weights=problem.weights,
    )
