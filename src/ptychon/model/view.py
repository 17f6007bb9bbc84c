"""What a batch of frames sees at one estimate, and what every part of the model can do with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from ..backends.base import Backend
from ..kernels import reference
from ..types import Array, IntArray
from .unknowns import Unknowns


@dataclass
class View:
    """A batch of B frames: where they look, and the waves on their way. Each part writes here what
    its derivatives need.

    Attributes
    ----------
    x : Unknowns
        The estimate that was looked at.
    frames : slice or (B,) int, on the host
        Which frames; none twice.
    corners : (B, 2) int, on the host
    backend : Backend
    ramps : (B, P) and (B, Q) complex, or None
        exp(-2 pi i q f) along y and x, f being the fraction of a pixel between a window and its
        probe; None for whole pixels.
    incident : S arrays (B, K, P, Q) complex
        The wave that meets each slice; the first is the illumination.
    windows : S arrays (B, P, Q) complex
        What each slice shows of itself.
    exit : (B, K, P, Q) complex
        Behind the last slice.
    waves : (B, K, P, Q) complex
        At the detector.
    """

    x: Unknowns
    frames: Any
    corners: IntArray
    backend: Backend
    ramps: tuple[Array, Array] | None = None
    incident: list[Array] = field(default_factory=list)
    windows: list[Array] = field(default_factory=list)
    exit: Array = None
    waves: Array = None

    @property
    def kernels(self) -> Any:
        """Those of the backend, which are made for single precision; the reference in double
        precision.
        """
        return self.backend.kernels if self.x.precision == "single" else reference

    @property
    def shape(self) -> tuple[int, int]:
        """(P, Q)."""
        p, q = self.x.probe.shape[-2:]
        return int(p), int(q)

    def slices_back(self) -> range:
        """Numbers of the slices, the last first."""
        return range(len(self.windows) - 1, -1, -1)


class Part(Protocol):
    """A part of the model. It is right if Re <w, T d> = <T* w, d> and T is the derivative of
    `forward`: see `ptychon.testing`.

    `wave` is what the part before hands over, (B, K, P, Q); None for the first. `owns` names the
    unknowns the part has derivatives for.
    """

    owns: ClassVar[frozenset[str]]

    def to(self, backend: Any) -> Any:
        """The same on a backend's device."""
        ...

    def forward(self, view: View, wave: Array) -> Array:
        """The wave this part hands on."""
        ...

    def tangent(self, view: View, d: Unknowns, change: Array) -> Array:
        """T (d, change): how that wave changes with the unknowns and with the wave before; 0 stands
        for no change.
        """
        ...

    def adjoint(self, view: View, change: Array, out: Unknowns) -> Array:
        """out += T* change for the unknowns that `out` has; returns what goes to the
        part before.
        """
        ...


def frequencies(n: int, xp: Any) -> Array:
    """Cycles a pixel of an FFT of n, float64, zero first."""
    return xp.fft.fftfreq(n)
