"""The specimen: slices with free space between.

    e_s = psi_s O_s,   psi_{s+1} = F^-1[ G_s F e_s ],   the exit wave is e_S

G_s is the transfer function of the gap below slice s. One slice is the product of a thin object.
The way back is the adjoint of that, without a division: to O_s goes sum_k psi_sk* c, on goes
G_{s-1}^H [ O_s* c ].

Reference: Maiden, Humphry & Rodenburg, J. Opt. Soc. Am. A 29, 1606 (2012).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..types import Array, PtychonError
from .propagators import through
from .slices import transfer
from .unknowns import Unknowns
from .view import View

if TYPE_CHECKING:
    from .problem import Problem


def exit_wave(wave: Array, window: Array) -> Array:
    """psi O for waves (B, K, P, Q), or (B, P, Q) for one mode, and windows (B, P, Q)."""
    return wave * _modes(window, wave)


def to_object(wave: Array, change: Array) -> Array:
    """sum_k psi_k* c_k: what a change of the exit wave asks of the window, (B, P, Q)."""
    product = wave.conj() * change
    return product.sum(axis=1) if product.ndim == 4 else product


def light_up(total: Array, power: Array, corners: Array, kernels: Any) -> None:
    """total (H, W) += light (B, P, Q) that falls on the windows at those corners."""
    kernels.scatter_add(total, corners, power)


def to_wave(window: Array, change: Array) -> Array:
    """O* c: what it asks of the wave, shaped as the change."""
    return _modes(window.conj(), change) * change


def _modes(window: Array, wave: Array) -> Array:
    """A window beside waves with or without an axis of modes."""
    return window[:, None] if wave.ndim == 4 else window


@dataclass(frozen=True)
class Specimen:
    """Slices, multiplied with the wave one after the other.

    Attributes
    ----------
    gaps : (S-1, P, Q) complex
        Transfer function of the free space below each slice but the last, zero frequency at [0, 0]
        (`angular_spectrum`).
    """

    gaps: Array = ()

    owns: ClassVar[frozenset[str]] = frozenset({"object"})

    @classmethod
    def of(cls, problem: Problem) -> Specimen:
        """That of a problem."""
        slices = problem.slices
        thin = slices is None or not slices.gaps
        return cls() if thin else cls(transfer(slices, problem.frame_shape))

    def to(self, backend: Any) -> Specimen:
        """The same on a backend's device."""
        return replace(self, gaps=backend.asarray(self.gaps)) if len(self.gaps) else self

    def forward(self, view: View, wave: Array) -> Array:
        """The exit wave, (B, K, P, Q)."""
        slices = len(view.x.object)
        if len(self.gaps) != slices - 1:
            gaps = len(self.gaps)
            raise PtychonError(
                f"the object has {slices} slices, but the specimen {gaps} gaps between them; "
                f"give {slices - 1}"
            )
        if slices > 1 and tuple(self.gaps.shape[1:]) != view.shape:
            raise PtychonError(
                f"a gap is {tuple(self.gaps.shape[1:])} pixels, but a frame {view.shape}; make "
                "them equal"
            )
        view.incident, view.windows = [], []
        for s in range(slices):
            view.incident.append(wave)
            view.windows.append(self._window(view, view.x.object[s]))
            wave = self.down(view, s, exit_wave(wave, view.windows[s]))
        view.exit = wave
        return wave

    def tangent(self, view: View, d: Unknowns, change: Array) -> Array:
        """How the exit wave changes with the slices and with the incident wave."""
        parts = None if d.object is None else [self._window(view, layer) for layer in d.object]
        return self.walk(view, parts, change)

    def walk(self, view: View, parts: list[Array] | None, change: Array = None) -> Array:
        """The same for changes of what each slice shows in its window, S arrays (B, P, Q); None is
        no change.
        """
        for s, (psi, O) in enumerate(zip(view.incident, view.windows, strict=True)):
            change = None if change is None else exit_wave(change, O)
            if parts is not None:
                own = exit_wave(psi, parts[s])
                change = own if change is None else change + own
            change = self.down(view, s, change)
        return change

    def adjoint(self, view: View, change: Array, out: Unknowns) -> Array:
        """out.object += what the exit wave's change asks of each slice; returns what it asks of the
        incident wave.
        """
        for s in view.slices_back():
            to_object, to_wave = self.pull(view, s, change)
            if out.object is not None:
                view.kernels.scatter_add(out.object[s], view.corners, to_object)
            change = self.up(view, s, to_wave)
        return change

    # ------------------------------------------------------------ one step of the walk

    def down(self, view: View, s: int, wave: Array) -> Array:
        """Through the gap below slice s; nothing below the last."""
        return self._through(view, self.gaps[s], wave) if s < len(view.x.object) - 1 else wave

    def pull(self, view: View, s: int, change: Array) -> tuple[Array, Array]:
        """What a change (B, K, P, Q) behind slice s asks of the slice, (B, P, Q), and of the wave
        on it, (B, K, P, Q).
        """
        return to_object(view.incident[s], change), to_wave(view.windows[s], change)

    def up(self, view: View, s: int, change: Array) -> Array:
        """From the front of slice s back through the gap above it; nothing above the first."""
        return self._through(view, self.gaps[s - 1].conj(), change) if s > 0 else change

    def _through(self, view: View, transfer: Array, wave: Array) -> Array:
        return through(transfer.astype(wave.dtype, copy=False), wave, view.backend)

    def _window(self, view: View, layer: Array) -> Array:
        return view.kernels.gather(layer, view.corners, view.shape)
