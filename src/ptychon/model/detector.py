"""The detector: how exit waves become expected intensities.

    z_jk = F psi_jk                                              far field
    z_jk = F^-1[ H(q) exp(2 pi i q.f_j) F psi_jk ]               near field
    lambda_j(q) = B[ sum_k |z_jk|^2 ](q) + b(q)                  B: point spread or sum of pixels,
                                                                 b: background

A window lies on whole pixels and its probe f_j off its middle, so the exit wave stands f_j too far
in it. In the far field that is a phase; a near-field image would move on the detector, and the ramp
moves it back.

A distance that is longer by e changes the near field by d z = F^-1[ i phi F z ] e, phi being the
phase of H.

With a change w of z: d lambda = B[ 2 Re sum_k z_k* w_k ] + d b, and back to the wave goes 2 z_k
B^T[.].
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ..kernels.reference import abs2, namespace
from ..types import Array, PtychonError
from .illumination import position_pull, slopes
from .propagators import FarField, Propagator, through
from .spread import Separable, Spread, binning, blur, hats
from .unknowns import Unknowns
from .view import View

__all__ = ["Detector", "Separable", "Spread", "binning", "blur", "hats"]


@dataclass(frozen=True)
class Detector:
    """Propagation, incoherent sum of the modes, point spread, background.

    Attributes
    ----------
    propagator : Propagator
        Far field, or near field, whose transfer function gets the ramp of each frame here.
    spread : Spread, optional
        None where a pixel counts the light that falls on it and no other.
    background : (R, C) float, optional
        Known counts that come from no wave; an unknown background (`Unknowns.background`) is added
        to it.
    mask : (1 or N, R, C) bool, optional
        True where a pixel is valid. The model says what every pixel expects; `valid` says which
        ones may be compared.
    between : Separable, optional
        How an unknown background follows from fewer numbers, (R, C) from (r, c), see `hats`; None
        where `Unknowns.background` has one for each pixel.
    """

    propagator: Propagator = field(default_factory=FarField)
    spread: Spread | None = None
    background: Array = None
    mask: Array = None
    between: Separable | None = None

    owns: ClassVar[frozenset[str]] = frozenset({"positions", "background", "distance"})

    def to(self, backend: Any) -> Detector:
        """The same on a backend's device."""
        move, propagator = backend.asarray, self.propagator.to(backend)
        spread = None if self.spread is None else self.spread.to(backend)
        background, mask = (None if a is None else move(a) for a in (self.background, self.mask))
        between = None if self.between is None else self.between.to(backend)
        return replace(
            self,
            propagator=propagator,
            spread=spread,
            background=background,
            mask=mask,
            between=between,
        )

    def valid(self, frames: Any) -> Array | bool:
        """Which pixels of some frames hold data: (1 or B, R, C) bool, or True for all."""
        if self.mask is None:
            return True
        return self.mask if len(self.mask) == 1 else self.mask[frames]

    # ------------------------------------------------------------ waves

    def forward(self, view: View, wave: Array) -> Array:
        """Waves at the detector, (B, K, P, Q)."""
        view.waves = self._onward(view, wave)
        return view.waves

    def tangent(self, view: View, d: Unknowns, change: Array) -> Array:
        """How they change with the exit wave and, in the near field, with the distance and with the
        positions: the image stays where it is.
        """
        total = self._onward(view, change)
        if d.distance is not None and self.propagator.free is not None:
            slope = (1j * self._phase(view) * d.distance).astype(total.dtype)
            total = total + view.backend.ifft2(slope * view.backend.fft2(view.waves))
        if d.positions is not None and self.propagator.free is not None:
            slope = slopes(view, d.positions[view.frames])
            total = total + view.backend.ifft2(slope * view.backend.fft2(view.waves))
        return total

    def adjoint(self, view: View, change: Array, out: Unknowns) -> Array:
        """What a change of the waves asks of the exit wave; adds what it asks of the positions and
        of the distance.
        """
        transfer, backend = self._transfer(view, change), view.backend
        if transfer is None:
            return backend.ifft2(change)
        spectrum = backend.fft2(change)
        if out.positions is not None:
            out.positions[view.frames] += position_pull(view, backend.fft2(view.waves), spectrum)
        if out.distance is not None:
            pull = (backend.fft2(view.waves).conj() * spectrum).imag.sum(axis=(0, 1))
            out.distance += (self._phase(view) * pull).sum(dtype="float64")
        return backend.ifft2(transfer.conj() * spectrum)

    def _onward(self, view: View, wave: Array) -> Array:
        return through(self._transfer(view, wave), wave, view.backend)

    def _transfer(self, view: View, wave: Array) -> Array | None:
        """H_f, (1 or B, 1, P, Q); None in the far field."""
        transfer = self.free(view.x)
        if transfer is None:
            return None
        transfer = transfer[None, None].astype(wave.dtype, copy=False)
        if view.ramps is None:
            return transfer
        y, x = view.ramps
        return transfer * y.conj()[:, None, :, None] * x.conj()[:, None, None, :]

    def free(self, x: Unknowns) -> Array | None:
        """H at the distance of an estimate, (P, Q); None in the far field."""
        free = self.propagator.free
        if free is None or x.distance is None:
            return free
        phase = getattr(self.propagator, "phase", None)
        if phase is None:
            raise PtychonError(
                "this propagator does not say how its phase grows with the distance; make it with "
                "NearField.through"
            )
        return free * namespace(phase).exp(1j * x.distance.astype("float64") * phase)

    def _phase(self, view: View) -> Array:
        """phi, (P, Q) float64."""
        return getattr(self.propagator, "phase")  # noqa: B009 - a propagator may have none

    # ------------------------------------------------------------ intensities

    def dark(self, background: Array) -> Array:
        """The counts of an unknown background, (R, C); None where there is none."""
        if background is None or self.between is None:
            return background
        return self.between.forward(background)

    def undark(self, image: Array) -> Array:
        """What a change (R, C) of these counts asks of the background."""
        return image if self.between is None else self.between.transpose(image)

    def dark_diagonal(self, weight: Array) -> Array:
        """The diagonal of the information (R, C) of these counts, by the background."""
        if self.between is None:
            return weight
        y, x = self.between.rows, self.between.columns
        return Separable(y**2, x**2).transpose(weight)

    def intensity(self, view: View) -> Array:
        """lambda, (B, R, C) real."""
        light = abs2(view.waves).sum(axis=1)
        if self.spread is not None:
            light = self.spread.forward(light)
        for background in (self.background, self.dark(view.x.background)):
            if background is not None:
                if tuple(background.shape) != tuple(light.shape[1:]):
                    frame = tuple(light.shape[1:])
                    raise PtychonError(
                        f"the background is {tuple(background.shape)} pixels, but a frame "
                        f"{frame}; make them equal"
                    )
                light = light + background.astype(light.dtype, copy=False)
        return light

    def intensity_tangent(self, view: View, d: Unknowns, change: Array) -> Array:
        """How lambda changes with the waves, by `change` (B, K, P, Q), and with the background."""
        light = 2 * (view.waves.conj() * change).real.sum(axis=1)
        if self.spread is not None:
            light = self.spread.forward(light)
        return light if d.background is None else light + self.dark(d.background)

    def intensity_adjoint(self, view: View, change: Array, out: Unknowns) -> Array:
        """What a change (B, R, C) of lambda asks of the waves, (B, K, P, Q); adds what it asks of
        the background.
        """
        if out.background is not None:
            out.background += self.undark(change.sum(axis=0))
        light = change if self.spread is None else self.spread.transpose(change)
        return 2 * view.waves * light[:, None]
