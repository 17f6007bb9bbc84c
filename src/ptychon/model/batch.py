"""A thin object on a scan whose positions stay, for a batch of frames: the steps of the forward
model that most engines, checks and simulations take one by one.

    P_jk   = S_j P_k                  `probe`: moved by the fraction of a pixel of frame j
    psi_jk = P_jk O_j                 `exit_wave`, O_j = `window` j of the object
    z_jk   = D_j psi_jk               `onward`, to the detector: far or near field

and back, c = D_j* w being what a change w of z asks of the exit wave:

    c      = D_j* w                   `back`
    object   sum_k P_jk* c_k          `to_object`, which `add` puts where window j lies
    probe    sum_j S_j* ( O_j* c )    `to_wave`, which `unshifted` moves back and sums

It is `Model` for one slice whose probe has a fixed shift at each frame; with several slices, `view`
is what the steps of a `Specimen` take. The products are those of
`specimen`, the way to the detector is that of `propagators`, shifts and windows are kernels, which
backends have fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..kernels.reference import shift_ramps
from ..types import COMPLEX, Array, IntArray
from .problem import Problem
from .specimen import Specimen, exit_wave, to_object, to_wave
from .spread import fitted
from .unknowns import Unknowns
from .view import View

__all__ = ["Batch", "Shifts", "exit_wave", "followed", "shifted_probes", "to_object", "to_wave"]


@dataclass(frozen=True)
class Batch:
    """B frames of a scan.

    Attributes
    ----------
    problem : Problem
        On the backend's device.
    backend : Backend
    corners : (B, 2) int, on the host
    index : (B,) int, on the host, or None
        Which of the distinct shifts each frame has.
    """

    problem: Problem
    backend: Any
    corners: IntArray
    index: IntArray | None

    @classmethod
    def of(cls, problem: Problem, backend: Any, frames: Any) -> Batch:
        """Some frames: a slice, or an array of indices."""
        return cls(problem, backend, problem.corners[frames], problem.shift_index[frames])

    @classmethod
    def nowhere(cls, problem: Problem, backend: Any, shift: int | None = None) -> Batch:
        """One frame that has no window: of a distinct shift, or of a probe that no fraction has
        moved.
        """
        index = None if shift is None else np.array([shift])
        return cls(problem, backend, problem.corners[:0], index)

    def probe(self, probe: Array) -> Array:
        """S_j P, (B, K, P, Q)."""
        return self.backend.kernels.shift(probe, self.problem.shifts[self.index])

    def view(self, object: Array, probe: Array, frames: Any) -> View:
        """What a `Specimen` takes of these frames, for an object (S, H, W)."""
        return View(Unknowns(object=object, probe=probe), frames, self.corners, self.backend)

    def window(self, field: Array) -> Array:
        """What each frame sees of a field (H, W), (B, P, Q)."""
        return self.backend.kernels.gather(field, self.corners, self.problem.frame_shape)

    def onward(self, psi: Array) -> Array:
        """Detector waves of exit waves, both (B, K, P, Q), or (B, P, Q) for one mode."""
        return self.problem.propagator.forward(psi, self.index, self.backend)

    def exits(self, object: Array, probes: Array) -> Array:
        """Exit waves of an object (H, W), or (S, H, W) with slices, and probes, (B, K, P, Q)
        both.
        """
        if self.problem.slices is None:
            return exit_wave(probes, self.window(object))
        walk = Specimen.of(self.problem).to(self.backend)
        return walk.forward(self.view(object, probes[0], slice(None)), probes)

    def waves(self, object: Array, probe: Array) -> Array:
        """Detector waves of an object and a probe (K, P, Q), (B, K, P, Q)."""
        return self.onward(self.exits(object, self.probe(probe)))

    def projected(self, wave: Array, amplitude: Array, mask: Array) -> tuple[Array, Array]:
        """Detector waves that have the modulus which was measured, and their squared misfit before;
        where pixels share light, a step towards it (`spread.fitted`).
        """
        spread = self.problem.spread
        if spread is None:
            return self.backend.kernels.modulus_projection(wave, amplitude, mask)  # type: ignore[no-any-return]
        return fitted(wave, spread, amplitude, mask, self.backend.xp)

    def back(self, wave: Array) -> Array:
        """D* of detector waves, the inverse of `onward` too."""
        return self.problem.propagator.backward(wave, self.index, self.backend)

    def add(self, field: Array, parts: Array) -> None:
        """Add (B, P, Q) to a field (H, W) where the windows lie, in place: the adjoint of
        `window`.
        """
        self.backend.kernels.scatter_add(field, self.corners, parts)

    def unshifted(self, change: Array) -> Array:
        """Sum over the frames of S_j* change, (K, P, Q): the adjoint of `probe`."""
        return self.backend.kernels.shift(change, self.problem.shifts[self.index], -1).sum(axis=0)


def shifted_probes(
    probe: Array, problem: Problem, kernels: Any, which: slice = slice(None)
) -> Array:
    """The probe at each distinct shift of a scan, or at some of them, (U, K, P, Q), for those that
    keep them.
    """
    return kernels.shift(probe, problem.shifts[which])


def followed(parts: Array, before: IntArray, after: IntArray, xp: Any) -> Array:
    """What stood still on the object in windows (B, ..., P, Q) whose corners (B, 2), on the host,
    were others before; what leaves a window on one side enters it on the other.
    """
    moved = (after != before).any(axis=1).nonzero()[0].tolist()
    parts = parts.copy() if moved else parts
    for j in moved:
        y, x = (after[j] - before[j]).tolist()
        parts[j] = xp.roll(parts[j], (-y, -x), axis=(-2, -1))
    return parts


class Shifts:
    """`shifted_probes` with its ramps kept, and its adjoint, for those who ask thousands of
    times.
    """

    def __init__(self, problem: Problem, backend: Any) -> None:
        self.problem, self.backend = problem, backend

    @cached_property
    def ramps(self) -> Array | None:
        """In Fourier space, (U, 1, P, Q); None where all positions are whole pixels."""
        problem = self.problem
        if not problem.subpixel:
            return None
        ramps = shift_ramps(problem.shifts, problem.frame_shape)[:, None]
        return self.backend.asarray(ramps.astype(COMPLEX))

    def forward(self, probe: Array) -> Array:
        """(K, P, Q) to (U, K, P, Q)."""
        if self.ramps is None:
            return self.backend.xp.ascontiguousarray(probe[None])
        spectra = self.backend.fft2(probe)[None] * self.ramps
        return self.backend.ifft2(spectra).astype(COMPLEX, copy=False)

    def adjoint(self, changes: Array) -> Array:
        """(U, K, P, Q) to (K, P, Q)."""
        if self.ramps is None:
            return changes.sum(axis=0)
        spectrum = (self.backend.fft2(changes) * self.ramps.conj()).sum(axis=0)
        return self.backend.ifft2(spectrum)
