r"""What the light cannot tell of depth, taken out of slices between passes.

Of a grating of k cycles a pixel, light whose directions are as many as the lens lets through tells
depths only below about k times the angle: the rest is a missing cone (`docs/slices.md`). The filter

    O(z, y, x) -> F^-1[ W F O ],   W = 1 - (2/pi) arctan( (beta |kz|/sqrt(k^2 + 1e-3))^2 )

with k in cycles a pixel and kz in cycles a slice leaves what does not change from slice to slice,
and takes the more of the rest the coarser it is; with it go the constants of single slices, which
no frame tells. It is that of PtychoShelves (Wakonig et al., J. Appl. Cryst. 53, 574 (2020)), with
which Chen et al., Science 372, 826 (2021) reconstructed, but for two things: it acts on the
transmission itself, whose phase need not be unwrapped, and the stack goes on mirrored above and
below, where a plain FFT would take the last slice for a neighbour of the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...engines import Context, State
from ...kernels.reference import namespace
from ...metrics.depth import middle, strengths
from ...model.problem import Problem
from ...model.slices import transfer
from ...types import Array, PtychonError
from .record import LIT, Constraint, check_number, illuminate, light_on

__all__ = ["Depth", "DepthCentre", "even"]

#: Frequency, squared, below which all of an object is coarse.
COARSE = 1e-3


@dataclass(frozen=True)
class Depth(Constraint):
    """Slices lose what differs from slice to slice faster than the light can tell.

    Parameters
    ----------
    beta : float
        1 is usual, 0.1 to 0.5 for thick specimens.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        check_number("beta", self.beta, 0, 100, open_low=True)

    def check(self, problem: Problem) -> None:
        _check_thick(problem, "depth")

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        state.object = self.filter(state.object)

    def filter(self, object: Array) -> Array:
        """Slices (S, H, W) after the filter."""
        xp = namespace(object)
        stack = even(object)
        stack = xp.concatenate([stack, stack[::-1]])
        kz, ky, kx = (xp.fft.fftfreq(n) for n in stack.shape)
        k2 = ky[:, None] ** 2 + kx**2
        ratio = (self.beta * kz)[:, None, None] ** 2 / (k2 + COARSE)
        keep = (1 - xp.arctan(ratio) / (xp.pi / 2)).astype("float32")
        found = xp.fft.ifftn(xp.fft.fftn(stack) * keep)[: len(object)]
        return xp.ascontiguousarray(found.astype(object.dtype))


@dataclass(frozen=True)
class DepthCentre(Constraint):
    r"""The middle of the structure goes to the middle of the slices, by whole slices, and the focus
    of the probe with it. Far field only, slices at equal distances.

    With all slices a gap deeper, an empty one above them and a probe that is as it was when it
    comes to the next, P <- G^* P, no frame changes:

        (O_1, ..., O_S),  P   ->   (1, O_1, ..., O_S-1 O_S),  G^* P

    but for what the last slice had, which goes to the one above it. The middle is that of
    `metrics.depth.middle`.
    """

    def check(self, problem: Problem) -> None:
        _check_thick(problem, "depth_centre")
        assert problem.slices is not None
        if problem.near_field:
            raise PtychonError(
                "depth_centre is for the far field: a near-field detector tells how far away a "
                "slice is; leave it out"
            )
        if np.ptp(problem.slices.gaps) > 1e-6 * max(problem.slices.gaps):
            raise PtychonError(
                "depth_centre moves the structure by whole slices, and these lie at different "
                "distances; leave it out, or give one spacing (--slice-spacing)"
            )

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        self.check(problem)
        assert problem.slices is not None
        light = np.asarray(ctx.backend.to_host(light_on(state, problem, ctx)))
        size = strengths(np.asarray(ctx.backend.to_host(state.object)), light > LIT * light.max())
        places = np.arange(len(size), dtype=np.float64)
        move = round(float(places.mean()) - middle(size, places)) if size.any() else 0
        if move:
            _sink(state, move, transfer(problem.slices, problem.frame_shape)[0], ctx)


def _sink(state: State, move: int, G: Any, ctx: Context) -> None:
    """All slices `move` places deeper (up, where it is negative), the probe's focus with them."""
    xp, wave = ctx.backend.xp, ctx.backend.asarray(np.ascontiguousarray(G))
    wave = wave.conj() ** move if move > 0 else wave ** (-move)
    fft2, ifft2 = ctx.backend.fft2, ctx.backend.ifft2
    illuminate(state, lambda P: ifft2(fft2(P) * wave).astype("complex64"))
    stack = state.object if move > 0 else state.object[::-1]
    kept = len(stack) - abs(move)
    found = xp.concatenate([xp.ones_like(stack[: abs(move)]), stack[:kept]])
    found[-1] *= stack[kept:].prod(axis=0)
    state.object = xp.ascontiguousarray(found if move > 0 else found[::-1])


def _check_thick(problem: Problem, name: str) -> None:
    if problem.slices is None:
        raise PtychonError(
            f"the constraint {name!r} is there for several slices, and the object has one; give "
            "slices (--slices), or leave it out"
        )


def even(object: Array) -> Array:
    """The same slices with their mean phases alike: only the sum of these is in the data."""
    xp = namespace(object)
    mean = object.sum(axis=(1, 2), dtype="complex128")
    phase = mean / xp.maximum(abs(mean), 1e-30)
    total = xp.exp(1j * xp.angle(phase.prod()) / len(object))
    return object * (total * phase.conj()).astype(object.dtype)[:, None, None]
