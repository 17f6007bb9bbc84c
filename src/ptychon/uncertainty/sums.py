"""How samples become error bars."""

from __future__ import annotations

import math
from typing import Any, TypedDict

import numpy as np

from ..engines.joint_posterior import SMOOTH
from ..metrics.ambiguities import Gauge
from ..model.pulls import Together
from ..model.unknowns import Unknowns
from ..types import COMPLEX, REAL, BoolArray, ComplexArray, FloatArray
from .amplitude import bars
from .conditions import conditions, of_priors
from .posterior import Posterior, in_bars


class Sums:
    """Running sums over samples of the error of an object.

    Parameters
    ----------
    gauge : Gauge
        What is removed from each sample.
    mean : (H, W) complex array
        About which errors are split into amplitude and phase.
    keep : bool
        Whether to keep the aligned samples.
    """

    def __init__(self, gauge: Gauge, mean: ComplexArray, keep: bool = False) -> None:
        self.gauge, self.mean, self.keep = gauge, np.asarray(mean, np.complex128), keep
        size = np.abs(self.mean)
        self.way = np.where(size > 0, self.mean / np.where(size > 0, size, 1), 1)
        self.along, self.across = np.zeros(size.shape), np.zeros(size.shape)
        self.first, self.second = np.zeros(size.shape), np.zeros(size.shape)
        self.probe: FloatArray | None = None
        self.varied: FloatArray | None = None
        #: Of a distance that is free, in units of the one that is stated.
        self.longer: float | None = None
        self.longer_std: float | None = None
        #: Of a read noise that is learned, counts.
        self.read_noise: float | None = None
        self.read_noise_std: float | None = None
        self.frames = Unknowns()
        #: The same of unknowns of single frames, and what these may do in common, (N, m) each.
        self.known_frames, self.shared = Unknowns(), Unknowns()
        self.dark: list[FloatArray] = []
        #: Whether somebody has ended it early.
        self.stopped = False
        #: Variance of each real part that is known without samples.
        self.known: Any = 0.0
        #: Variance (H, W) up to a smooth factor, where pixels are held together by their prior.
        self.shape: FloatArray | None = None
        #: Over how many pixels that factor is smooth.
        self.near = SMOOTH
        #: Samples of the error, kept where the spectrum of the prior was learned.
        self.errors: list[ComplexArray] = []
        #: A draw of all that is free.
        self.whole: Unknowns | None = None
        self.count = 0
        self.kept: list[ComplexArray] = []

    def add(
        self,
        error: ComplexArray,
        rest: ComplexArray | None = None,
        probe: ComplexArray | None = None,
        varied: ComplexArray | None = None,
    ) -> None:
        """One sample: its error (H, W); the part of it that `known` does not account for; and those
        of the probe and of its variations.
        """
        aligned, c = self.gauge.remove(np.asarray(error, np.complex128))
        along, across = _squares(aligned * self.way.conj())
        if rest is not None:
            # rest^2 instead of error^2, for all but what the alignment has changed
            for total, part, whole in zip(
                (along, across),
                _squares(rest * self.way.conj()),
                _squares(error * self.way.conj()),
                strict=True,
            ):
                total += part - whole
        both = along + across
        self.along += along
        self.across += across
        self.first += both
        self.second += both**2
        self.count += 1
        if probe is not None:
            bent = self.gauge.remove_from_probe(np.asarray(probe, np.complex128), c)
            self.probe = np.abs(bent) ** 2 + (0 if self.probe is None else self.probe)
        if varied is not None:
            bent = self.gauge.remove_from_variations(np.asarray(varied, np.complex128), c)
            self.varied = np.abs(bent) ** 2 + (0 if self.varied is None else self.varied)
        if self.shape is not None:
            self.errors.append(aligned.astype(COMPLEX))
        if self.keep:
            self.kept.append((self.mean + aligned).astype(COMPLEX))

    def add_frames(self, rest: Unknowns) -> None:
        """Of the unknowns of single frames, the part of a sample that `known_frames` does not
        account for.
        """
        self.frames = self.frames.axpy(1, self._off(rest).map(np.square))

    def _off(self, error: Unknowns) -> Unknowns:
        """Less what they may do in common."""
        parts = dict(self.shared.each())

        def one(name: str, array: FloatArray) -> FloatArray:
            wide = array.astype(np.float64)
            return np.asarray(wide - parts[name] @ (np.linalg.pinv(parts[name]) @ wide))

        return Unknowns(**{name: one(name, array) for name, array in error.each()})

    def frame_stds(self) -> FrameBars:
        """Standard deviations of those: of G^-1 g_j, which frames have for themselves, and of the
        rest.
        """
        std, parts = {}, dict(self.shared.each())
        for name, known in self.known_frames.each():
            K = known.astype(np.float64).reshape(len(known), -1)
            B = parts[name]
            inverse = np.linalg.pinv(B)
            # diagonal of (1 - B B+) K (1 - B B+)^T
            share = (B * inverse.T).sum(axis=1)[:, None]
            moved = np.einsum(
                "nm,mlc,nl->nc", B, np.einsum("mk,kc,lk->mlc", inverse, K, inverse), B
            )
            total = K - 2 * share * K + moved
            drawn = getattr(self.frames, name).reshape(K.shape) / max(self.count, 1)
            std[name] = np.sqrt(total + drawn).reshape(known.shape).astype(REAL)
        return FrameBars(
            positions_std=std.get("positions"),
            log_scale_std=std.get("log_scale"),
            weights_std=std.get("weights"),
        )

    def add_background(self, error: Any) -> None:
        """The error of a background, in its unknowns."""
        if error is not None:
            self.dark.append(np.asarray(error, np.float64))

    def _background(self, point: Any) -> BackgroundBars:
        """A free background and its error bar."""
        if not self.dark:
            return BackgroundBars(background=None, background_std=None)
        near, read = point.problem.near_field, point.noise.read_noise
        move = point.backend.asarray
        images = [point.backend.to_host(point.H.image(move(d.astype(REAL)))) for d in self.dark]
        square = np.mean(np.square(images, dtype=np.float64), axis=0)
        both = np.asarray(point.at_x.background)[0] - read**2, np.sqrt(square)
        mean, std = (a if near else np.fft.fftshift(a) for a in both)
        return BackgroundBars(background=mean.astype(REAL), background_std=std.astype(REAL))

    def _distance(self, problem: Any) -> DistanceBars:
        """A free distance and its error bar."""
        found = DistanceBars(longer=self.longer, longer_std=self.longer_std)
        if self.longer is None or self.longer_std is None or problem.path is None:
            return found
        found["path"] = self.longer * problem.path
        found["path_std"] = self.longer_std * abs(problem.path)
        return found

    def variances(self) -> tuple[FloatArray, FloatArray, float]:
        """Variance along and across the mean, each (H, W), and the relative error of their root sum
        from sampling.
        """
        n, inside = self.count, self.gauge.region
        if self.shape is not None:
            sizes = self.along + self.across
            both = self.shape * smooth_quotient(sizes / n, self.shape, inside, self.near)
            share = np.clip(smooth_quotient(self.along, sizes, inside, self.near), 0.01, 0.99)
            return both * share, both * (1 - share), (8 * math.pi * self.near**2 * n) ** -0.5
        along, across = self.along / n + self.known, self.across / n + self.known
        floor = 1e-3 * (along + across).clip(1e-30)  # sampling may leave one of them below zero
        along, across = np.maximum(along, floor), np.maximum(across, floor)
        scatter = np.maximum(self.second / n - (self.first / n) ** 2, 0) / max(n - 1, 1)
        relative = np.sqrt(scatter) / (2 * (along + across))
        return along, across, float(np.median(relative[inside]))

    def posterior(
        self,
        *,
        point: Any,
        given: ComplexArray,
        prior_variance: float,
        pilot: Any,
        unsolved: float,
        learned: bool,
        priors: Together,
        gains: tuple[Any, ...] = (),
        remains: tuple[float, ...] = (),
    ) -> Posterior:
        """The posterior of Laplace's approximation."""
        along, across, monte_carlo = self.variances()
        # the result that was given may lie anywhere along what cannot be told: only the rest of its
        # distance counts
        offset, _ = self.gauge.remove(given - self.mean)
        noise, made = point.at_x, bars(along, across, self.mean)
        assumed, whose = of_priors(priors, prior_variance, self.errors)
        read = self.read_noise is not None
        return Posterior(
            method="laplace",
            object=self.mean.astype(COMPLEX),
            probe=np.asarray(point.backend.to_host(point.x.probe), COMPLEX),
            **made,
            **self.frame_stds(),
            **self._background(point),
            offset=offset.astype(COMPLEX),
            distance=in_bars(offset, made["object_std"], self.gauge.region),
            region=self.gauge.region,
            samples=self.count,
            monte_carlo=monte_carlo,
            conditional=conditions(point, self.gauge, whose, learned, read),
            assumed=assumed,
            probe_std=None if self.probe is None else np.sqrt(self.probe / self.count).astype(REAL),
            variations_std=(
                None if self.varied is None else np.sqrt(self.varied / self.count).astype(REAL)
            ),
            **self._distance(point.problem),
            read_noise=self.read_noise,
            read_noise_std=self.read_noise_std,
            chi2=pilot.misfit / max(pilot.expected, 1e-30),
            chi2_error=math.sqrt(2 / max(pilot.measured - pilot.parameters, 1.0)),
            noise_variance=noise.amplitude_variance,
            parameters=pilot.parameters,
            prior_variance=prior_variance,
            unsolved=unsolved,
            draws=np.array(self.kept) if self.keep else None,
            stopped=self.stopped,
            sample=self.whole,
            remains=remains,
            gains=tuple(gain.sentence() for gain in gains),
            proposed=tuple(gain.name for gain in gains if gain.proposed),
            field_priors=priors,
        )


def smooth_quotient(
    above: FloatArray, below: FloatArray, inside: BoolArray, near: float = SMOOTH
) -> FloatArray:
    """Quotient of two positive fields (H, W), each smoothed over some pixels of a region; that of
    their means far from it.
    """
    from scipy.ndimage import gaussian_filter

    a, b = (gaussian_filter(inside * part, near, mode="constant") for part in (above, below))
    near = b > 1e-6 * b.max()
    far = above[inside].sum() / below[inside].sum()
    return np.asarray(np.where(near, a / np.where(near, b, 1), far))


class BackgroundBars(TypedDict):
    """The fields of a posterior about a free background."""

    background: FloatArray | None
    background_std: FloatArray | None


class DistanceBars(TypedDict, total=False):
    """The fields of a posterior about a free distance."""

    longer: float | None
    longer_std: float | None
    path: float | None
    path_std: float | None


class FrameBars(TypedDict):
    """The fields of a posterior that are error bars of frames."""

    positions_std: FloatArray | None
    log_scale_std: FloatArray | None
    weights_std: FloatArray | None


def _squares(error: ComplexArray) -> list[FloatArray]:
    return [error.real**2, error.imag**2]
