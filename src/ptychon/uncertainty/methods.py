"""Methods that give a result its error bars, as records: what each can be told, and how it runs.

Each is a frozen record with `run(problem, result, free_probe, backend, tell, place)`, listed in
`registry`; commands and settings take their names, options and defaults from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ..backends import get_backend
from ..engines import moves_probe, nearest
from ..model.problem import Problem
from ..types import PtychonError

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.result import Result
    from .posterior import Posterior


class Method(Protocol):
    """What every method has."""

    name: ClassVar[str]

    def run(
        self,
        problem: Problem,
        found: Result,
        free_probe: bool,
        backend: Any,
        tell: Any,
        place: Path,
    ) -> tuple[Result, Posterior]: ...


@dataclass(frozen=True, kw_only=True)
class Laplace:
    """A Gaussian about the solution, by sampling (`laplace`).

    Parameters
    ----------
    samples : int
        Posterior samples.
    refine : bool
        Write the optimum of the posterior instead of the object as it was.
    update : tuple of str
        What is free: "object", and any of "probe", "positions" and "log_scale" (doses); empty for
        object and, if it was learned, probe.
    noise_variance : float, optional
        Variance of the amplitude; default what the data say, or learned.
    background : float, optional
        Mean background counts per pixel, if not stored with the scan.
    seed : int
    """

    name: ClassVar[str] = "laplace"
    samples: int = 32
    refine: bool = False
    update: tuple[str, ...] = ()
    noise_variance: float | None = None
    background: float | None = None
    seed: int = 0

    def run(
        self,
        problem: Problem,
        found: Result,
        free_probe: bool,
        backend: Any,
        tell: Any,
        place: Path,
    ) -> tuple[Result, Posterior]:
        """The result, refined if that was asked for, and its posterior."""
        from .laplace import laplace

        posterior = laplace(
            problem,
            found.object,
            found.probe,
            free_probe=free_probe,
            update=self.update or None,
            samples=self.samples,
            noise_variance=self.noise_variance,
            background=self.background,
            object_variance=assumed_variance(found),
            backend=backend,
            seed=self.seed,
            tell=tell,
        )
        if not self.refine:
            return found, posterior.about(found.object, found.probe)
        from ..metrics.residual import residual

        return replace(
            found, final_error=residual(problem, posterior.object, posterior.probe)
        ), posterior


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Simulate from the result and reconstruct again, many times (`bootstrap`).

    Parameters
    ----------
    replicates : int
        Reconstructions.
    from_beginning : bool
        Start replicates where the result started.
    epochs : int, optional
        Passes of a replicate; default as in the result.
    noise_variance, background : float, optional
    seed : int
    """

    name: ClassVar[str] = "bootstrap"
    replicates: int = 20
    from_beginning: bool = False
    epochs: int | None = None
    noise_variance: float | None = None
    background: float | None = None
    seed: int = 0

    def run(
        self,
        problem: Problem,
        found: Result,
        free_probe: bool,
        backend: Any,
        tell: Any,
        place: Path,
    ) -> tuple[Result, Posterior]:
        """The result and its posterior; replicates are kept beside `place` until all are there.

        Raises
        ------
        PtychonError
            If the probe is to be held where the engine moved it, or the other way round.
        """
        from .bootstrap import bootstrap

        if free_probe != moves_probe(found):
            raise PtychonError(
                f"the bootstrap runs engine {found.engine!r} again as it was; it cannot hold or "
                "free the probe"
            )
        store = place.with_suffix(".replicates.npz")
        done = bootstrap(
            problem,
            found,
            start="beginning" if self.from_beginning else "solution",
            store=store,
            replicates=self.replicates,
            epochs=self.epochs,
            noise_variance=self.noise_variance,
            background=self.background,
            backend=backend,
            seed=self.seed,
            tell=tell,
        )
        store.unlink(missing_ok=True)
        return found, done.about(found.object, found.probe)


@dataclass(frozen=True, kw_only=True)
class Joint:
    """Ptycho-EP and the joint posterior from there on, with a learned prior and a check on
    simulated data (`joint`).

    Parameters
    ----------
    draws : int
        Posterior samples to store.
    twin : bool
        Whether to check and correct the bars on simulated data.
    epochs : int, optional
        Passes of Ptycho-EP.
    noise_variance : float, optional
    seed : int
    """

    name: ClassVar[str] = "ep"
    draws: int = 8
    twin: bool = True
    epochs: int | None = None
    noise_variance: float | None = None
    seed: int = 0

    def run(
        self,
        problem: Problem,
        found: Result,
        free_probe: bool,
        backend: Any,
        tell: Any,
        place: Path,
    ) -> tuple[Result, Posterior]:
        """A new result, with an object of its own, and its posterior."""
        from .joint import SWEEPS, joint

        whole, posterior, _ = joint(
            problem,
            found,
            free_probe=free_probe,
            sweeps=self.epochs or SWEEPS,
            check=self.twin,
            draws=self.draws,
            noise_variance=self.noise_variance,
            backend=backend,
            seed=self.seed,
            tell=tell,
        )
        return whole, posterior


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Markov chains through the posterior (`sample`).

    Parameters
    ----------
    draws : int
        Posterior samples to store.
    epochs : int, optional
        Passes of a chain.
    noise_variance, background : float, optional
    seed : int
    """

    name: ClassVar[str] = "sample"
    draws: int = 8
    epochs: int | None = None
    noise_variance: float | None = None
    background: float | None = None
    seed: int = 0

    def run(
        self,
        problem: Problem,
        found: Result,
        free_probe: bool,
        backend: Any,
        tell: Any,
        place: Path,
    ) -> tuple[Result, Posterior]:
        """The result with the R of the posterior mean, and its posterior."""
        from ..metrics.residual import residual
        from .sampling import sample

        passes: dict[str, Any] = {} if self.epochs is None else {"passes": self.epochs}
        done = sample(
            problem,
            found.object,
            found.probe,
            free_probe=free_probe,
            draws=self.draws,
            noise_variance=self.noise_variance,
            background=self.background,
            object_variance=assumed_variance(found),
            backend=backend,
            seed=self.seed,
            tell=tell,
            **passes,
        )
        return replace(found, final_error=residual(problem, done.object, done.probe)), done


registry: Mapping[str, Any] = {cls.name: cls for cls in (Laplace, Bootstrap, Joint, Sampling)}


def make_method(name: str, **options: Any) -> Method:
    """A method by name. Options that it does not have are left out: a command has those of all
    methods.

    Raises
    ------
    PtychonError
        Unknown method, with the nearest name.
    """
    if name not in registry:
        raise PtychonError(f"unknown method of error bars {name!r}; {nearest(name, registry)}")
    cls = registry[name]
    known = {f.name for f in fields(cls)}
    method: Method = cls(**{key: value for key, value in options.items() if key in known})
    return method


def with_bars(
    problem: Problem,
    found: Result,
    method: Method,
    free_probe: bool,
    backend: Any,
    tell: Any,
    place: Path,
    name: str = "",
) -> tuple[Result, Posterior]:
    """A result with the error bars of a method, and what is known of them.

    Parameters
    ----------
    problem : Problem
        Its data.
    found : Result
    method : Method
    free_probe : bool
        Whether the probe was learned.
    backend : str or Backend
    tell : callable
        Told of the progress: what, done, total.
    place : Path
        Where the result goes: the bootstrap keeps what it has beside it.
    name : str
        Of the file that the result was in, if it was in one.
    """
    whole, posterior = method.run(problem, found, free_probe, backend, tell, place)
    refine = bool(getattr(method, "refine", False))
    how = {"method": method.name, "free_probe": free_probe, "refine": refine, "of": name}
    # a run of its own knows nothing of the file that the scan is in
    settings = dict(found.settings) | dict(whole.settings) | {"uncertainty": how}
    provenance = dict(found.provenance) | dict(whole.provenance)
    return replace(whole, settings=settings, provenance=provenance), posterior


def assumed_variance(result: Result) -> float | None:
    """The variance of the object that the engine assumed, if it did."""
    options = result.options
    given = options.get("object_variance") if options.get("prior") == "gaussian" else None
    return float(given) if given else None


def error_bars(
    data: Dataset | Problem,
    result: Result,
    method: str = "laplace",
    *,
    free_probe: bool | None = None,
    backend: Any = "auto",
    tell: Any = None,
    **options: Any,
) -> Result:
    """Give a result its error bars.

    Parameters
    ----------
    data : Dataset or Problem
        What the result was made from.
    result : Result
    method : {"laplace", "bootstrap", "ep", "sample"}
    free_probe : bool, optional
        Whether the probe was learned, so that its error is part of the object's; default what the
        engine did.
    backend : str or Backend
    tell : callable, optional
        Told of the progress: what, done, total.
    **options
        Of the method: fields of `Laplace`, `Bootstrap`, `Joint` or `Sampling`.

    Returns
    -------
    Result
        With `object_std`, (H, W) float32, the standard deviation of the complex value.

    Raises
    ------
    PtychonError
        Unknown method or option, with the nearest name; data that the result is not of.
    """
    chosen = make_method(method, **options)
    known = [f.name for f in fields(registry[method])]
    for name in options:
        if name not in known:
            raise PtychonError(
                f"method {method!r} of error bars has no option {name!r}; {nearest(name, known)}"
            )
    problem = data
    if not isinstance(data, Problem):
        problem = Problem.from_dataset(data, subpixel=bool(result.settings.get("subpixel", True)))
    assert isinstance(problem, Problem)
    if problem.object_shape != result.object.shape or len(problem) != len(result.positions):
        raise PtychonError(
            f"the data give {len(problem)} frames on an object of {problem.object_shape}; the "
            "result has "
            f"{len(result.positions)} on {result.object.shape}: give the data that it was made from"
        )
    free = moves_probe(result) if free_probe is None else free_probe
    with TemporaryDirectory() as folder:
        whole, posterior = with_bars(
            problem,
            result,
            chosen,
            free,
            get_backend(backend),
            tell or _silent,
            Path(folder) / "result.h5",
        )
    return replace(whole, object=posterior.object, object_std=posterior.object_std)


def _silent(what: str, done: int, total: int) -> None:
    return None
