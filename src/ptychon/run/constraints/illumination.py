"""Constraints on the probe: where it is, which angles it comes from, how its modes are stated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from ...engines import Context, State
from ...model.problem import Problem
from ...types import BoolArray, PtychonError
from ..modes import orthogonal
from .record import Constraint, check_number, check_one, illuminate

#: Side of the squares over which |P| is averaged before it is compared, pixels.
SQUARE = 5


@dataclass(frozen=True)
class Support(Constraint):
    """No probe outside a region; the power that is cut off is not given back.

    A soft edge lies outside the region, whose inside stays as it is.

    Parameters
    ----------
    radius : float, optional
        Of a circle about the centre of the window, pixels.
    fraction : float in (0, 1), optional
        Instead of it: where |P|, of all modes and averaged over 5 x 5 pixels, is more than so much
        of its largest, and two pixels around.
    soft : float
        Pixels over which the probe falls to 0 outside, as a cosine. With 0 nothing changes the
        second time.
    """

    radius: float | None = None
    fraction: float | None = None
    soft: float = 0.0

    def __post_init__(self) -> None:
        check_one({"radius": self.radius, "fraction": self.fraction})
        if self.radius is not None:
            check_number("radius", self.radius, 0, 1e6, open_low=True)
        if self.fraction is not None:
            check_number("fraction", self.fraction, 0, 0.999, open_low=True)
        check_number("soft", self.soft, 0, 1e6)

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        p, q = state.probe.shape[-2:]
        if self.radius is not None:
            y, x = np.ogrid[:p, :q]
            far = np.hypot(y - p // 2, x - q // 2) - self.radius
        else:
            far = scipy.ndimage.distance_transform_edt(~self._region(state, ctx))
        window = np.where(far <= 0, 1.0, 0.0)
        if self.soft:
            window = 0.5 + 0.5 * np.cos(np.pi * np.clip(far / (self.soft + 1), 0, 1))
        window = ctx.backend.asarray(window.astype(np.float32))
        illuminate(state, lambda P: P * window)

    def _region(self, state: State, ctx: Context) -> BoolArray:
        probe = np.asarray(ctx.backend.to_host(state.probe))
        size = np.sqrt((np.abs(probe) ** 2).sum(axis=0, dtype=float))
        mean = scipy.ndimage.uniform_filter(size, SQUARE, mode="constant")
        # what was averaged inside stays, so that the region is the same the next time
        return np.asarray(
            scipy.ndimage.binary_dilation(
                mean >= self.fraction * mean.max(), np.ones((SQUARE, SQUARE))
            )
        )


@dataclass(frozen=True)
class Aperture(Constraint):
    """No light in the probe from beyond an aperture about the axis.

    Parameters
    ----------
    mrad : float, optional
        Its half-angle: the convergence semi-angle of electrons, and 1 to 3 % more.
    fraction : float in (0, 1], optional
        Instead of it: its radius as a share of the largest spatial frequency, which in the far
        field lies at the nearest edge of the detector.
    edge : float
        Width of a super-Gaussian edge exp(-x^4) outside, as a share of the radius. With 0 nothing
        changes the second time.
    """

    mrad: float | None = None
    fraction: float | None = None
    edge: float = 0.0

    def __post_init__(self) -> None:
        check_one({"mrad": self.mrad, "fraction": self.fraction})
        if self.mrad is not None:
            check_number("mrad", self.mrad, 0, 1000, open_low=True)
        if self.fraction is not None:
            check_number("fraction", self.fraction, 0, 1, open_low=True)
        check_number("edge", self.edge, 0, 10)

    def check(self, problem: Problem) -> None:
        if self.mrad is None:
            return
        missing = [n for n in ("wavelength", "pixel_size") if getattr(problem, n) is None]
        if missing:
            raise PtychonError(
                f"an aperture of {self.mrad:g} mrad needs the {' and the '.join(missing)} of the "
                "scan: state them, or give its radius as a fraction of the detector"
            )
        assert problem.wavelength is not None
        assert problem.pixel_size is not None
        largest = 1e3 * problem.wavelength / 2 / max(problem.pixel_size)
        if self.mrad > largest:
            raise PtychonError(
                f"an aperture of {self.mrad:g} mrad lies beyond the edge of the detector, at "
                f"{largest:.4g} mrad; leave it out, or give less"
            )

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        shape = state.probe.shape[-2:]
        dy, dx = problem.pixel_size or (1.0, 1.0)
        q = np.hypot(np.fft.fftfreq(shape[0], dy)[:, None], np.fft.fftfreq(shape[1], dx))
        if self.mrad is not None:
            assert problem.wavelength is not None
            radius = 1e-3 * self.mrad / problem.wavelength
        else:
            assert self.fraction is not None
            radius = self.fraction * 0.5 / max(dy, dx)
        far = q / radius - 1
        window = np.where(far <= 1e-6, 1.0, 0.0)
        if self.edge:
            window = np.exp(-((far.clip(0, None) / self.edge) ** 4))
        window = ctx.backend.asarray(window.astype(np.float32))
        fft2, ifft2 = ctx.backend.fft2, ctx.backend.ifft2
        illuminate(state, lambda P: ifft2(fft2(P) * window).astype("complex64"))


@dataclass(frozen=True)
class OrthogonalModes(Constraint):
    """The probe's modes are orthogonal, the strongest first; no intensity changes."""

    def apply(self, state: State, problem: Problem, ctx: Context) -> None:
        if getattr(state, "variations", None) is None:  # which belong to the first mode as it is
            state.probe = ctx.backend.asarray(orthogonal(ctx.backend.to_host(state.probe)))


__all__ = ["Aperture", "OrthogonalModes", "Support"]
