"""The parametric bootstrap: simulate data from the result, reconstruct them in the same way, and
see how far they scatter.

The slow referee of the other methods (Efron & Tibshirani, An Introduction to the Bootstrap (1993),
chapter 6): it knows nothing of curvatures and takes the engine as it is, with its early stopping,
its regularisation and its noise. What it does not see is what the result itself has lost: it asks
how well the *result* can be found again, and a smooth result is easier to find than a rough truth.
A replicate starts from the solution (faster, and only about this optimum) or where the result
itself did.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import Backend, get_backend
from ..data.result import Result
from ..engines import Engine, make
from ..io.hdf5 import PathLike, write_aside
from ..metrics.alignment import align, phase_align
from ..metrics.ambiguities import free_shift
from ..metrics.residual import illuminated, variance_left
from ..model.noise import Noise, noise_of, told
from ..model.problem import Problem
from ..model.simulated import model_of
from ..run.progress import Tell, silent
from ..run.recipe import Recipe
from ..run.reconstruct import reconstruct
from ..types import COMPLEX, BoolArray, ComplexArray, PtychonError
from .amplitude import bars
from .posterior import Posterior, in_bars

#: Frames simulated at a time.
BLOCK = 64
#: Largest translation (px) between a replicate and the result.
MAX_SHIFT = 4


def bootstrap(
    problem: Problem,
    result: Result,
    *,
    replicates: int = 20,
    start: str = "solution",
    probe: ComplexArray | None = None,
    passes: int | None = None,
    noise_variance: float | None = None,
    background: Any = None,
    region: BoolArray | None = None,
    backend: str | Backend = "auto",
    seed: int = 0,
    store: PathLike | None = None,
    keep: bool = False,
    tell: Tell = silent,
) -> Posterior:
    """Error bars of a result from reconstructions of data simulated from it.

    Parameters
    ----------
    problem : Problem
        On the host; the data of the result, of which grid, mask and kind of noise are used.
    result : Result
    replicates : int
    start : {"solution", "beginning"}
        Where a replicate starts: from the result, or as the result itself did (then give its first
        `probe`).
    probe : (K, P, Q) complex array, optional
        First probe of a replicate from the beginning; default from its frames. A known probe is
        that of the result.
    passes : int, optional
        Passes of a replicate; default those of the result.
    noise_variance : float, optional
        Of Gaussian amplitude noise; default what the problem says (Poisson noise for counts), else
        that of the misfit.
    background : float or (P, Q) array, optional
        Counts a pixel besides the wave's, where the problem does not state them itself.
    region : (H, W) bool array, optional
        Where replicates are aligned; default the illuminated pixels.
    backend : str or Backend
    seed : int
    store : path, optional
        File (.npz) that keeps the replicates made so far; a later call with the same arguments goes
        on from them.
    keep : bool
        Keep the replicates, aligned, in `Posterior.draws`.
    tell : callable
        Called with what is being done, how much of it is done, and of how much.

    Returns
    -------
    Posterior
        `object_std` is the standard deviation of the replicates about their mean, and `offset` the
        distance of that mean from the result: the bias that can be seen.

    Raises
    ------
    PtychonError
        Fewer than two replicates, an unknown start, a stored file of another bootstrap.
    """
    if replicates < 2:
        raise PtychonError(
            f"{replicates} replicates give no standard deviation; at least 2 are needed"
        )
    if start not in ("solution", "beginning"):
        raise PtychonError(
            f"start is {start!r}; a replicate starts from the 'solution' or from the 'beginning'"
        )
    chosen = get_backend(backend)
    engine = make(result.engine, **result.options)
    lit = illuminated(problem, result.probe) if region is None else region
    problem = told(problem, background, variance=noise_variance)
    model = _noise(problem, result, noise_variance, lit, chosen)
    recipe = Recipe.of(result)
    recipe = recipe.scaled(passes) if passes else recipe
    run: dict[str, Any] = {
        "backend": chosen,
        "judge": False,
        "seed": int(result.settings.get("seed") or 0),
    }
    if start == "solution":
        recipe = recipe.without_guess()
        run |= {"object": result.object, "probe": result.probe}
    else:
        first = (
            {"probe": probe, "modes": len(result.probe)}
            if engine.moves_probe
            else {"probe": result.probe}
        )
        run |= first
    mark = _fingerprint(problem, result, start, probe, recipe.passes, seed, model)
    done = _stored(store, mark)[:replicates]
    for number in range(len(done), replicates):
        tell("replicate", number, replicates)
        again = reconstruct(
            simulated(problem, result, model, chosen, np.random.default_rng([seed, number])),
            recipe,
            **run,
        )
        done.append(
            _laid_on(again.object, result.object, lit, engine.moves_probe, problem.near_field)
        )
        if store is not None:
            with write_aside(store) as aside, aside.open("wb") as stream:
                np.savez(stream, objects=np.array(done), mark=np.array(mark))
    tell("replicate", replicates, replicates)
    return _posterior(np.array(done), result, lit, engine, model, start, keep)


def _noise(
    problem: Problem, result: Result, variance: float | None, lit: BoolArray, backend: Backend
) -> Noise:
    """What is given or stated; else what the result has learned for each frame, or its misfit."""
    model = noise_of(problem, "auto", variance)
    if model.kind == "amplitude" and not variance and result.noise_variances is not None:
        return model.fitted(result.noise_variances)
    if not model.learned:
        return model
    taken = 2 * float(lit.sum())
    return model.fitted(variance_left(problem, result.object, result.probe, backend, taken))


def simulated(
    problem: Problem, result: Result, noise: Noise, backend: Backend, rng: np.random.Generator
) -> Problem:
    """The same problem with data that the result would give with this noise."""
    if noise.kind == "amplitude":
        problem = problem.subtracted()
    amplitude = np.empty_like(problem.amplitude)
    counts = None if problem.counts is None else np.empty_like(amplitude)
    for first in range(0, len(problem), BLOCK):
        b = slice(first, min(first + BLOCK, len(problem)))
        m = model_of(problem, result.object, result.probe, b, backend)
        pattern = noise.at(b).draw(rng, m**2)
        if counts is None:
            amplitude[b] = np.where(problem.mask_of(b), np.sqrt(pattern), 0)
        else:
            amplitude[b], counts[b] = problem.counted(pattern, b)
    return replace(problem, amplitude=amplitude, counts=counts)


def _laid_on(
    object: ComplexArray, truth: ComplexArray, lit: BoolArray, free_probe: bool, near_field: bool
) -> ComplexArray:
    if not free_probe:
        return phase_align(object, truth, lit).astype(COMPLEX)
    most = free_shift(near_field, free_probe, MAX_SHIFT)
    laid = align(object, truth, region=lit, max_shift=most, subpixel=True)
    return laid.estimate.astype(COMPLEX)


def _fingerprint(
    problem: Problem, result: Result, start: str, probe: Any, passes: int, seed: int, noise: Noise
) -> str:
    """Of all that the replicates depend on."""
    digest = hashlib.sha256(
        repr(
            (start, passes, seed, asdict(noise), result.engine, sorted(result.options.items()))
        ).encode()
    )
    scan = problem.corners, problem.shifts, problem.shift_index, problem.mask
    arrays = (result.object, result.probe, *scan, noise.background, noise.variance)
    for array in arrays if probe is None else (*arrays, probe):
        digest.update(np.ascontiguousarray(np.asarray(array)).tobytes())
    return digest.hexdigest()


def _stored(store: PathLike | None, mark: str) -> list[ComplexArray]:
    if store is None or not Path(store).is_file():
        return []
    try:
        with np.load(store, allow_pickle=False) as file:
            found, objects = str(file["mark"]), file["objects"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise PtychonError(
            f"{store} holds no replicates of a bootstrap ({error}); give another name, or delete it"
        ) from None
    if found != mark:
        raise PtychonError(
            f"the replicates in {store} are of another result, seed or setting; give another "
            "name, or delete it"
        )
    return list(objects)


def _posterior(
    draws: ComplexArray,
    result: Result,
    lit: BoolArray,
    engine: Engine,
    noise: Noise,
    start: str,
    keep: bool,
) -> Posterior:
    n, centre = len(draws), draws.mean(axis=0, dtype=np.complex128)
    size = np.abs(result.object)
    way = np.where(size > 0, result.object / np.where(size > 0, size, 1), 1)
    scatter = (draws - centre) * way.conj()
    along, across = (
        np.maximum((part**2).sum(axis=0) / (n - 1), 1e-30) for part in (scatter.real, scatter.imag)
    )
    removed = (
        "a factor, a phase ramp and a translation" if engine.moves_probe else "the global phase"
    )
    offset, made = result.object - centre, bars(along, across, result.object)
    return Posterior(
        method="bootstrap",
        object=result.object,
        probe=result.probe,
        **made,
        offset=offset.astype(COMPLEX),
        distance=in_bars(offset, made["object_std"], lit),
        region=lit,
        samples=n,
        monte_carlo=1 / (2 * np.sqrt(n - 1)),
        conditional=(
            noise.describe(),
            f"engine {result.engine} again, replicates starting from the {start}",
            "the probe was learned again" if engine.moves_probe else "the probe is known exactly",
            "the positions are known exactly",
            f"after alignment on the lit pixels: {removed}",
            "the bias of the result itself is not seen, only that of finding it again",
        ),
        noise_variance=noise.amplitude_variance,
        draws=draws if keep else None,
    )
