"""What an error bar is, what it is conditional on, and how samples become one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np

from ..metrics.ambiguities import Gauge
from ..model.unknowns import Unknowns
from ..types import COMPLEX, REAL, BoolArray, ComplexArray, FloatArray


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """Error bars of an object.

    Attributes
    ----------
    method : str
        "laplace", "bootstrap", "joint" or "sampling".
    object : (H, W) complex64
        The optimum of the posterior (laplace), its mean (joint, sampling), or the object of the
        result.
    probe : (K, P, Q) complex64
    object_std : (H, W) float32
        sqrt(E|O - mean|^2) of the complex value.
    amplitude_std : (H, W) float32
        Of |O|: the part of the error along the mean.
    phase_std : (H, W) float32
        Of the phase, rad: the part across the mean, over |mean|; at most pi/sqrt(3), that of a
        phase nothing is known of.
    offset : (H, W) complex64
        The object that was given less `object`, aligned: how far the engine was from the optimum.
    probe_std : (K, P, Q) float32 or None
        Where the probe was learned.
    positions_std : (N, 2) float32 or None
        Of the positions (y, x), object pixels, where they were free, less the mean of their errors.
    log_scale_std : (N,) float32 or None
        Of the logarithm of the doses (of the amplitude), where they were free, likewise.
    distance : float
        Root mean square of |offset|/object_std over the region, in bars of the optimum: 0 for an
        engine that found it.
    region : (H, W) bool
        Where errors are compared after alignment.
    samples : int
    monte_carlo : float
        Relative standard error of `object_std` from the number of samples, median over the region.
    chi2 : float or None
        Misfit over what the noise model expects of it; 1 where model and solution are right.
    chi2_error : float or None
        Its standard deviation from chance alone: sqrt(2/(measurements - parameters)).
    noise_variance : float or None
        Of the amplitude, where that is the noise model.
    parameters : float
        Real numbers the data determine.
    prior_variance : float or None
        S of the prior of the object.
    conditional : tuple of str
        What the bars take for granted.
    unsolved : float
        Largest residual of the linear systems.
    draws : (samples, H, W) complex64 or None
    agreement : float or None
        R^ of the chains (method "sampling"): up to 1.05 they agree.
    """

    method: str
    object: ComplexArray
    probe: ComplexArray
    object_std: FloatArray
    amplitude_std: FloatArray
    phase_std: FloatArray
    offset: ComplexArray
    distance: float
    region: BoolArray
    samples: int
    monte_carlo: float
    conditional: tuple[str, ...]
    probe_std: FloatArray | None = None
    positions_std: FloatArray | None = None
    log_scale_std: FloatArray | None = None
    chi2: float | None = None
    chi2_error: float | None = None
    noise_variance: float | None = None
    parameters: float = math.nan
    prior_variance: float | None = None
    unsolved: float = 0.0
    draws: ComplexArray | None = None
    agreement: float | None = None

    @property
    def total_std(self) -> FloatArray:
        """Error bar of the object that was given: sqrt(object_std^2 + |offset|^2),
        (H, W) float32.
        """
        return np.asarray(np.hypot(self.object_std, np.abs(self.offset)), REAL)

    def about(self, object: ComplexArray, probe: ComplexArray) -> Posterior:
        """The same of the object and the probe that were given: bars that hold their distance from
        the optimum as well.
        """
        size = np.abs(object)
        turned = self.offset * np.where(size > 0, object.conj() / np.where(size > 0, size, 1), 1)
        both, along = (a.astype(np.float64) ** 2 for a in (self.object_std, self.amplitude_std))
        across = np.maximum(both - along, 0) + turned.imag**2
        return replace(
            self, object=object, probe=probe, **bars(along + turned.real**2, across, object)
        )

    def decibel(self) -> float:
        """10 log10(sum |O|^2/sum object_std^2) over the region: the error in dB that the bars
        foretell.
        """
        power = float(np.sum(np.abs(self.object[self.region]).astype(np.float64) ** 2))
        return 10 * math.log10(
            power / float(np.sum(self.object_std[self.region].astype(np.float64) ** 2))
        )


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
        self.frames = Unknowns()
        #: The same of unknowns of single frames.
        self.known_frames = Unknowns()
        #: Variance of each real part that is known without samples.
        self.known: Any = 0.0
        self.count = 0
        self.kept: list[ComplexArray] = []

    def add(
        self,
        error: ComplexArray,
        rest: ComplexArray | None = None,
        probe: ComplexArray | None = None,
    ) -> None:
        """One sample: its error (H, W); the part of it that `known` does not account for; and that
        of the probe.
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
        if self.keep:
            self.kept.append((self.mean + aligned).astype(COMPLEX))

    def add_frames(self, error: Unknowns, rest: Unknowns) -> None:
        """Errors of unknowns of single frames, less their mean over frames: object and probe make
        up for it. `rest` is as in `add`.
        """

        def square(u: Unknowns) -> Unknowns:
            return u.map(lambda array: np.asarray(array, np.float64) ** 2)

        aligned = error.map(lambda array: array - array.mean(axis=0))
        total = square(aligned).axpy(1, square(rest)).axpy(-1, square(error))
        self.frames = self.frames.axpy(1, total)

    def frame_stds(self) -> FrameBars:
        """Standard deviations of those."""
        variance = self.frames.times(1 / max(self.count, 1)).axpy(1, self.known_frames)
        std = {
            name: np.sqrt(np.maximum(array, 1e-3 * getattr(self.known_frames, name))).astype(REAL)
            for name, array in variance.each()
        }
        return FrameBars(positions_std=std.get("positions"), log_scale_std=std.get("log_scale"))

    def variances(self) -> tuple[FloatArray, FloatArray, float]:
        """Variance along and across the mean, each (H, W), and the relative error of their root sum
        from sampling.
        """
        n, inside = self.count, self.gauge.region
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
    ) -> Posterior:
        """The posterior of Laplace's approximation."""
        along, across, monte_carlo = self.variances()
        # the result that was given may lie anywhere along what cannot be told: only the rest of its
        # distance counts
        offset, _ = self.gauge.remove(given - self.mean)
        noise, made = point.noise, bars(along, across, self.mean)
        return Posterior(
            method="laplace",
            object=self.mean.astype(COMPLEX),
            probe=np.asarray(point.backend.to_host(point.x.probe), COMPLEX),
            **made,
            **self.frame_stds(),
            offset=offset.astype(COMPLEX),
            distance=in_bars(offset, made["object_std"], self.gauge.region),
            region=self.gauge.region,
            samples=self.count,
            monte_carlo=monte_carlo,
            conditional=conditions(point, self.gauge, prior_variance, learned),
            probe_std=None if self.probe is None else np.sqrt(self.probe / self.count).astype(REAL),
            chi2=pilot.misfit / max(pilot.expected, 1e-30),
            chi2_error=math.sqrt(2 / max(pilot.measured - pilot.parameters, 1.0)),
            noise_variance=noise.amplitude_variance,
            parameters=pilot.parameters,
            prior_variance=prior_variance,
            unsolved=unsolved,
            draws=np.array(self.kept) if self.keep else None,
        )


def in_bars(offset: ComplexArray, std: FloatArray, region: BoolArray) -> float:
    """Root mean square of |offset|/std over a region."""
    return float(np.sqrt(np.mean((np.abs(offset[region]) / np.maximum(std[region], 1e-30)) ** 2)))


class FrameBars(TypedDict):
    """The fields of a posterior that are error bars of frames."""

    positions_std: FloatArray | None
    log_scale_std: FloatArray | None


class Bars(TypedDict):
    """The three fields of a posterior that are error bars."""

    object_std: FloatArray
    amplitude_std: FloatArray
    phase_std: FloatArray


def bars(along: FloatArray, across: FloatArray, mean: ComplexArray) -> Bars:
    """object_std, amplitude_std and phase_std from the variances along and across the mean, (H, W)
    each.
    """
    phase = np.sqrt(across) / np.maximum(np.abs(mean), 1e-12)
    return Bars(
        object_std=np.sqrt(along + across).astype(REAL),
        amplitude_std=np.sqrt(along).astype(REAL),
        phase_std=np.minimum(phase, math.pi / math.sqrt(3)).astype(REAL),
    )


def conditions(point: Any, gauge: Gauge, prior_variance: float, learned: bool) -> tuple[str, ...]:
    """In words, what Laplace's bars take for granted."""
    noise = point.noise
    if noise.kind == "poisson":
        said = noise.describe()
    else:
        said = f"{noise.describe()} ({'learned from the misfit' if learned else 'given'})"
    probe = "the probe was learned with the object, prior CN(0, max |P|^2)"
    probe = probe if "probe" in point.update else "the probe is known exactly"
    spreads = {
        name: float(np.asarray(point.backend.to_host(array))) ** -0.5
        for name, array in point.prior.each()
    }
    positions = "the positions are known exactly"
    doses: tuple[str, ...] = ()
    if "positions" in spreads:
        positions = f"positions were free, to {spreads['positions']:.3g} px about those measured"
    if "log_scale" in spreads:
        doses = (f"doses were free, to {100 * spreads['log_scale']:.3g} % of the amplitude",)
    return (
        said,
        f"prior CN(0, {prior_variance:.4g}) on every pixel of the object",
        probe,
        positions,
        *doses,
        f"after alignment on the lit pixels: {', '.join(gauge.names)}",
        "the solution is near the truth (Gaussian approximation about one optimum)",
    )


def _squares(error: ComplexArray) -> list[FloatArray]:
    return [error.real**2, error.imag**2]
