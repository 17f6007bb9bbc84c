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

from ...engines import Context, State
from ...kernels.reference import namespace
from ...model.problem import Problem
from ...types import Array, PtychonError
from .record import Constraint, check_number

__all__ = ["Depth", "even"]

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
        if problem.slices is None:
            raise PtychonError(
                "the constraint 'depth' is there for several slices, and the object has one; give "
                "slices (--slices), or leave it out"
            )

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


def even(object: Array) -> Array:
    """The same slices with their mean phases alike: only the sum of these is in the data."""
    xp = namespace(object)
    mean = object.sum(axis=(1, 2), dtype="complex128")
    phase = mean / xp.maximum(abs(mean), 1e-30)
    total = xp.exp(1j * xp.angle(phase.prod()) / len(object))
    return object * (total * phase.conj()).astype(object.dtype)[:, None, None]
