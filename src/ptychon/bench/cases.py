"""Named problems to time: each the same everywhere, from a seed.

default        200 positions of 128x128 on a Fermat spiral of step 5, object 512x512: the published
               profiling scan
large          1,000 positions of 256x256
many           2,500 positions of 64x64 on a raster
modes          the default with three probe modes (PIE, ePIE, rPIE and the difference map)
star           a measured Siemens star, 516 positions of 128x128 rounded to whole pixels (needs
               PTYCHON_TEST_DATA)
star-subpixel  the same with its fractions of a pixel
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..engines import Engine
from ..engines import make as make_engine
from ..model.problem import Problem
from ..run.guess import initial_object, mean_power, scaled_probe
from ..simulation import phantoms, probes, scan
from ..simulation.simulate import simulate
from ..types import COMPLEX, ComplexArray, FloatArray, PtychonError

#: Variance of the noise of a noisy case, and what expectation propagation is told for one without,
#: relative to the mean squared amplitude.
NOISE, STATED = 1e-3, 1e-3
#: Engines to time: name in the registry and options. Every pass is to cost the same: what moves the
#: probe does so from the first pass on, and the difference map does without its noise bound, which
#: spares frames that fit an inverse FFT.
ENGINES: dict[str, tuple[str, dict[str, Any]]] = {
    "pie": ("pie", {}),
    "epie": ("epie", {}),
    "rpie": ("rpie", {}),
    "dm": ("dm", {"power_bound": 0.0}),
    "ep": ("ep", {"probe_updates": 0}),
    "ep+em": ("ep", {"probe_updates": 1}),
}
ITERATIVE = ("pie", "epie", "rpie", "dm")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A problem and where its engines start.

    Attributes
    ----------
    name, about : str
    problem : Problem
        `noise_variance` is the variance that was added, or the small one that is stated without
        noise; None for counts.
    probe : (K, P, Q) complex64
        What engines with a known probe are given.
    first_probe : (K, P, Q) complex64
        Where the others start, scaled to the mean counts of a frame.
    engines : tuple of str
        Those the case is for.
    noisy : bool
        Whether noise was added, or is measured.
    sparse_density : float
        Share of the object that is not zero.
    """

    name: str
    about: str
    problem: Problem
    probe: ComplexArray
    first_probe: ComplexArray
    engines: tuple[str, ...] = tuple(ENGINES)
    noisy: bool = True
    sparse_density: float = 1.0

    def start(self, engine: Engine) -> tuple[ComplexArray, ComplexArray]:
        """First object (H, W), a constant, and first probe (K, P, Q) for an engine."""
        probe = self.first_probe if engine.moves_probe else self.probe
        return initial_object(self.problem, probe, mean_power(self.problem)), probe


def engine_named(name: str, **options: Any) -> Engine:
    """One of `ENGINES`, with more options if there are any."""
    registered, settings = ENGINES[name]
    engine = make_engine(registered, **(settings | options))
    return replace(engine, probe_start=0) if hasattr(engine, "probe_start") else engine


def spiral(
    *,
    name: str = "spiral",
    size: int = 512,
    frame: int = 128,
    points: int = 200,
    step: float = 5.0,
    modes: int = 1,
    noise: bool = False,
    sparse: bool = False,
    seed: int = 0,
) -> Case:
    """A Fermat spiral truncated to whole pixels over a textured object, behind a defocused
    aperture.

    Parameters
    ----------
    name : str
    size, frame : int
        Side of the object and of the frames, px.
    points : int
    step : float
        Point i lies at step sqrt(i) from the centre, px.
    modes : int
        Probe modes: the aperture, then the same odd in y, in x, in both.
    noise : bool
        Gaussian, its variance 1e-3 of the mean squared amplitude; noisy amplitudes are clipped at
        0.
    sparse : bool
        A few spots on nothing instead of the texture.
    seed : int

    Raises
    ------
    PtychonError
        Windows that do not fit on the object.
    """
    return _simulated(
        scan.fermat_spiral(points, step, whole=True), name, size, frame, modes, noise, sparse, seed
    )


def raster(
    *,
    name: str = "raster",
    size: int = 360,
    frame: int = 64,
    side: int = 50,
    step: int = 6,
    noise: bool = False,
    seed: int = 0,
) -> Case:
    """A raster of `side` x `side` positions with one pixel of jitter, otherwise as `spiral`."""
    return _simulated(
        scan.raster(side, step, jitter=1, seed=seed), name, size, frame, 1, noise, False, seed
    )


def _simulated(
    positions: FloatArray,
    name: str,
    size: int,
    frame: int,
    modes: int,
    noise: bool,
    sparse: bool,
    seed: int,
) -> Case:
    shape = (size, size)
    picture = phantoms.blobs(shape, seed) if sparse else phantoms.texture(shape, seed)
    truth = phantoms.complex_object(
        picture, phantoms.texture(shape, seed + 1), amplitude_range=(0.0 if sparse else 0.2, 1.0)
    )
    probe = _modes(probes.defocused_aperture((frame, frame), 0.16 * frame, 0.75 * frame), modes)
    first = _modes(probes.defocused_aperture((frame, frame), 0.15 * frame, 0.7 * frame), modes)
    options: dict[str, Any] = (
        {"noise": "gaussian", "snr_db": -10 * np.log10(NOISE)} if noise else {}
    )
    data = simulate(truth, probe, positions, seed=seed, **options).dataset
    if data.noise_variance is None:
        data = replace(
            data, noise_variance=STATED * float(np.mean(data.patterns, dtype=np.float64))
        )
    problem = Problem.from_dataset(data)
    n, (p, q), (h, w) = len(problem), problem.frame_shape, problem.object_shape
    added = (
        f"Gaussian noise of variance {data.noise_variance:.3g} ({NOISE:g} of the mean squared "
        "amplitude), clipped at zero"
    )
    return Case(
        name=name,
        about=f"{n} positions of {p}x{q} px on an object of {h}x{w} px, "
        + (added if noise else "no noise"),
        problem=problem,
        probe=probe,
        first_probe=scaled_probe(first, mean_power(problem)),
        engines=Case.engines if modes == 1 else ITERATIVE,
        noisy=noise,
        sparse_density=float((picture > 0).mean()) if sparse else 1.0,
    )


def _modes(probe: ComplexArray, count: int) -> ComplexArray:
    """The probe and, orthogonal to it, up to three weaker ones that are odd in y, in x, in both:
    (K, P, Q).
    """
    if not 1 <= count <= 4:
        raise PtychonError(f"{count} probe modes; 1 to 4 can be simulated")
    y, x = (np.linspace(-1, 1, n + 1)[:-1] for n in probe.shape)
    shapes = np.ones(probe.shape), 2 * y[:, None], 2 * x[None, :], 4 * y[:, None] * x[None, :]
    return np.stack([np.asarray(probe * s, COMPLEX) for s in shapes[:count]])


def star(*, name: str = "star", subpixel: bool = False, points: int | None = None) -> Case:
    """The measured star in the folder that PTYCHON_TEST_DATA names.

    Raises
    ------
    PtychonError
        If the variable is not set or the file is not there.
    """
    from ..io import load

    folder = os.environ.get("PTYCHON_TEST_DATA")
    if not folder:
        raise PtychonError(
            "the case 'star' needs measured data: set PTYCHON_TEST_DATA to the folder that "
            "holds them"
        )
    data = load(Path(folder) / "siemens_star_xray" / "siemens_star.npz")
    problem = Problem.from_dataset(data, subpixel=subpixel)
    if points is not None:
        problem = problem.select(slice(0, points))
    if data.probe is None:
        raise PtychonError(f"{data.name} holds no first probe")
    probe = scaled_probe(data.probe, mean_power(problem))
    fractions = "1/16 px" if subpixel else "rounded"
    about = (
        f"{len(problem)} measured frames of {probe.shape[1]}x{probe.shape[2]} px, positions "
        f"{fractions}"
    )
    return Case(name=name, about=about, problem=problem, probe=probe, first_probe=probe)


def _many(points: int | None, noise: bool) -> Case:
    side = 50 if points is None else int(np.sqrt(points))
    return raster(name="many", side=side, noise=noise)


_CASES: dict[str, Callable[[int | None, bool], Case]] = {
    "default": lambda points, noise: spiral(name="default", points=points or 200, noise=noise),
    "large": lambda points, noise: spiral(
        name="large", size=768, frame=256, points=points or 1000, step=8, noise=noise
    ),
    "many": _many,
    "modes": lambda points, noise: spiral(name="modes", points=points or 200, modes=3, noise=noise),
    "star": lambda points, noise: star(points=points),
    "star-subpixel": lambda points, noise: star(name="star-subpixel", subpixel=True, points=points),
}
#: Names that `make` knows.
NAMES = tuple(_CASES)


def make(name: str, *, points: int | None = None, noise: bool = False) -> Case:
    """A case by its name, one of `NAMES`.

    Parameters
    ----------
    name : str
    points : int, optional
        Fewer or more positions than it has by itself.
    noise : bool
        Add the Gaussian noise of `spiral` (measured data stay as they are).

    Raises
    ------
    PtychonError
        An unknown name, a number of points that is not positive or does not fit, missing data.
    """
    if name not in _CASES:
        near = difflib.get_close_matches(name, NAMES, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise PtychonError(f"unknown case {name!r}; {hint}Known: {', '.join(NAMES)}")
    if points is not None and points < 2:
        raise PtychonError(f"{points} positions; ptychography needs at least 2 overlapping ones")
    return _CASES[name](points, noise)
