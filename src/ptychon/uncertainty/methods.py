"""Methods that give a result its error bars, as records: their options, and how each runs.

Each is a frozen record with `run(problem, result, backend, tell, place)`, listed in
`registry`; commands and settings take their names, options and defaults from here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from ..backends import get_backend
from ..data.slices import HALVES, must_be_thin
from ..engines import Engine, nearest
from ..engines import registry as registry_of_engines
from ..model.found import on_grid
from ..model.problem import Problem
from ..types import PtychonError
from .background import FORMS, SMOOTH
from .free import FREE, USUAL, free_in, free_of

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.result import Result
    from .posterior import Posterior


@dataclass(frozen=True, kw_only=True)
class Method:
    """What the methods have in common; an option out of range is refused when one is made.

    Parameters
    ----------
    noise_variance : float, optional
        Variance of the amplitude noise; default what the data say, or learned.
    background : float or (P, Q) array, optional
        Mean background counts per pixel, if the data do not state it; in the order of
        `Problem.amplitude`.
    seed : int
        Seed of the random numbers.
    update : tuple of str
        Unknowns that are free: "object", and any of those that the method can free; empty for
        object and, if it was learned, probe.
    """

    name: ClassVar[str] = ""
    #: Least values of options that count something.
    least: ClassVar[Mapping[str, int]] = {}
    #: Unknowns that it can free.
    able: ClassVar[tuple[str, ...]] = USUAL

    noise_variance: float | None = None
    background: Any = None
    seed: int = 0
    update: tuple[str, ...] = ()

    @property
    def keeps_object(self) -> bool:
        """Whether the bars are those of the object that was given."""
        return False

    def __post_init__(self) -> None:
        for option, least in {"seed": 0, **self.least}.items():
            value = getattr(self, option)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise PtychonError(f"{option} is {value!r}; it must be a whole number")
            if value < least:
                raise PtychonError(
                    f"{option} is {value}; method {self.name!r} of error bars needs at least "
                    f"{least}"
                )
        variance = self.noise_variance
        if variance is not None and not 0 < variance < math.inf:
            raise PtychonError(f"noise_variance is {variance}; it must be positive, or None")
        if self.update:
            free_of(self.update, self.able, f"method {self.name!r} of error bars")

    def free(self, found: Result) -> tuple[str, ...]:
        """The unknowns that are free, of a result."""
        return free_of(self.update, self.able) if self.update else free_in(found, {})

    def to_optimum(self) -> Method:
        """The same, with bars of what it finds itself, not of the object that was given."""
        return self

    def run(
        self, problem: Problem, found: Result, backend: Any, tell: Any, place: Path
    ) -> tuple[Result, Posterior]:
        """A result and its posterior, about the optimum where the object of the result stays."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Laplace(Method):
    """A Gaussian about the solution, by sampling (`laplace`).

    Parameters
    ----------
    draws : int, optional
        Number of posterior draws; default as many as it takes to know the bars to 3 %, 8 to 32.
    refine : bool
        Take the optimum of the posterior instead of the object as it was.
    background_form : {"smooth", "level", "pixels"}
        What a free background may be: smooth on the detector, the same in all pixels, or anything.
    propose : bool
        Say by how much the likelihood would rise with positions, doses or background free.
    limit : float, optional
        Seconds after which it ends with the draws that there are then, 4 at least.
    """

    name: ClassVar[str] = "laplace"
    able: ClassVar[tuple[str, ...]] = FREE
    least: ClassVar[Mapping[str, int]] = {"draws": 2}
    draws: int | None = None
    refine: bool = False
    background_form: str = SMOOTH
    propose: bool = True
    limit: float | None = None

    @property
    def keeps_object(self) -> bool:
        """Whether the bars are those of the object that was given."""
        return not self.refine

    def to_optimum(self) -> Laplace:
        """The same, with the optimum for an object."""
        return replace(self, refine=True, propose=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.background_form not in FORMS:
            raise PtychonError(
                f"background_form is {self.background_form!r}; choose one of {', '.join(FORMS)}"
            )
        if self.limit is not None and not 0 < self.limit < math.inf:
            raise PtychonError(f"limit is {self.limit}; it must be a time in seconds, above 0")

    def run(
        self, problem: Problem, found: Result, backend: Any, tell: Any, place: Path
    ) -> tuple[Result, Posterior]:
        """The result, refined if that was asked for, and its posterior."""
        from .laplace import laplace

        posterior = laplace(
            problem,
            found.object,
            found.probe,
            update=self.free(found),
            draws=self.draws,
            noise_variance=self.noise_variance,
            background=self.background,
            background_form=self.background_form,
            object_variance=assumed_variance(found),
            backend=backend,
            seed=self.seed,
            keep=True,
            propose=self.propose,
            limit=self.limit,
            tell=tell,
        ).with_errors()
        if not self.refine:
            return found, posterior
        from ..metrics.residual import residual

        return replace(
            found, final_error=residual(problem, posterior.object, posterior.probe)
        ), posterior


@dataclass(frozen=True, kw_only=True)
class Bootstrap(Method):
    """Simulate from the result and reconstruct again, many times (`bootstrap`).

    Parameters
    ----------
    replicates : int
        Number of simulated and reconstructed data sets.
    from_beginning : bool
        Start each replicate where the result was started, not from the result.
    passes : int, optional
        Passes of each replicate; default as in the result.
    """

    name: ClassVar[str] = "bootstrap"
    least: ClassVar[Mapping[str, int]] = {"replicates": 2, "passes": 1}
    replicates: int = 20
    from_beginning: bool = False
    passes: int | None = None

    @property
    def keeps_object(self) -> bool:
        """Yes."""
        return True

    def run(
        self, problem: Problem, found: Result, backend: Any, tell: Any, place: Path
    ) -> tuple[Result, Posterior]:
        """The result and its posterior; replicates are kept beside `place` until all are there.

        Raises
        ------
        PtychonError
            If the probe is to be held where the engine moved it, or the other way round.
        """
        from .bootstrap import bootstrap

        if self.free(found) != free_in(found, {}):
            raise PtychonError(
                f"the bootstrap runs engine {found.engine!r} again as it was; it cannot hold or "
                "free the probe: leave out update (--update)"
            )
        store = place.with_suffix(".replicates.npz")
        done = bootstrap(
            problem,
            found,
            start="beginning" if self.from_beginning else "solution",
            store=store,
            replicates=self.replicates,
            passes=self.passes,
            noise_variance=self.noise_variance,
            background=self.background,
            backend=backend,
            seed=self.seed,
            tell=tell,
        )
        store.unlink(missing_ok=True)
        return found, done


@dataclass(frozen=True, kw_only=True)
class Joint(Method):
    """Ptycho-EP, then the joint posterior of object and probe with a learned prior, checked on
    simulated data (`joint`).

    Parameters
    ----------
    draws : int
        Number of posterior draws.
    twin : bool
        Check and correct the error bars on simulated data.
    passes : int, optional
        Passes of Ptycho-EP; default 60.
    """

    name: ClassVar[str] = "joint"
    least: ClassVar[Mapping[str, int]] = {"draws": 1, "passes": 1}
    draws: int = 8
    twin: bool = True
    passes: int | None = None

    def run(
        self, problem: Problem, found: Result, backend: Any, tell: Any, place: Path
    ) -> tuple[Result, Posterior]:
        """A new result, with an object of its own, and its posterior."""
        from ..model.noise import told
        from .joint import EP_PASSES, joint

        problem = told(problem, self.background, variance=self.noise_variance)
        whole, posterior, _ = joint(
            problem,
            found,
            update=self.free(found),
            ep_passes=self.passes or EP_PASSES,
            check=self.twin,
            draws=self.draws,
            noise_variance=self.noise_variance,
            backend=backend,
            seed=self.seed,
            tell=tell,
        )
        return whole, posterior


@dataclass(frozen=True, kw_only=True)
class Sampling(Method):
    """Markov chains through the posterior (`sample`).

    Parameters
    ----------
    draws : int
        Number of posterior draws to store.
    passes : int, optional
        Passes of each chain; default 8000.
    """

    name: ClassVar[str] = "sampling"
    least: ClassVar[Mapping[str, int]] = {"draws": 1, "passes": 1}
    draws: int = 8
    passes: int | None = None

    def run(
        self, problem: Problem, found: Result, backend: Any, tell: Any, place: Path
    ) -> tuple[Result, Posterior]:
        """The result with the R of the posterior mean, and its posterior."""
        from ..metrics.residual import residual
        from .sampling import sample

        passes: dict[str, Any] = {} if self.passes is None else {"passes": self.passes}
        done = sample(
            problem,
            found.object,
            found.probe,
            update=self.free(found),
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


#: The name that stands for the method that fits.
AUTO = "auto"

registry: Mapping[str, type[Method]] = {
    cls.name: cls for cls in (Laplace, Joint, Bootstrap, Sampling)
}


def make_method(name: str, **options: Any) -> Method:
    """A method by name.

    Raises
    ------
    PtychonError
        Unknown method, with the nearest name; an option that it does not have, with the methods
        that have it or the nearest name; an option out of range.
    """
    if name not in registry:
        known = AUTO, *registry
        raise PtychonError(f"unknown method of error bars {name!r}; {nearest(name, known)}")
    cls = registry[name]
    known = _options(cls)
    for option in options:
        if option not in known:
            having = [each for each, other in registry.items() if option in _options(other)]
            remedy = f"it belongs to {', '.join(having)}" if having else nearest(option, known)
            raise PtychonError(f"method {name!r} of error bars has no option {option!r}; {remedy}")
    return cls(**options)


def _options(cls: type[Method]) -> list[str]:
    return [f.name for f in fields(cls)]


def method_for(
    problem: Problem,
    found: Result,
    name: str = AUTO,
    *,
    update: Mapping[str, bool] | Collection[str] = (),
    backend: Any = None,
    **options: Any,
) -> tuple[Method, str]:
    """A method by name, or the one that fits a result, and then a sentence that says why.

    Parameters
    ----------
    problem : Problem
        On the host.
    found : Result
    name : str
        "auto", or one of `registry`.
    update : mapping of str to bool, or collection of str, optional
        What is free or is not; default what the run has learned.
    backend : Backend, optional
        On which the time is estimated.
    **options
        Of the method.

    Raises
    ------
    PtychonError
        See `make_method`.
    """
    if name != AUTO:
        free = tuple(update)
        if isinstance(update, Mapping):
            free = free_in(found, update) if update else ()
        return make_method(name, update=free, **options), ""
    having = [each for each, cls in registry.items() if set(options) <= set(_options(cls))]
    if not having:
        known = {option for cls in registry.values() for option in _options(cls)}
        for option in options:
            if option not in known:
                raise PtychonError(
                    f"no method of error bars has an option {option!r}; {nearest(option, known)}"
                )
        raise PtychonError(
            f"no method of error bars has all of the options {', '.join(options)}; name one with "
            "method (--method) and leave out those of others"
        )
    from .choose import choose

    draws = options.get("draws")
    choice = choose(problem, found, update=update, having=having, backend=backend, draws=draws)
    free = choice.update if choice.method == "laplace" or update else ()
    return make_method(choice.method, update=free, **options), choice.sentence()


def with_bars(
    problem: Problem,
    found: Result,
    method: Method,
    backend: Any,
    tell: Any,
    place: Path,
    name: str = "",
    halves: str = "",
) -> tuple[Result, Posterior]:
    """A result with the error bars of a method, and what is known of them.

    Parameters
    ----------
    problem : Problem
        Its data.
    found : Result
    method : Method
    backend : str or Backend
    tell : callable
        Told of the progress: what, done, total.
    place : Path
        Where the result goes: the bootstrap keeps what it has beside it.
    name : str
        Of the file that the result was in, if it was in one.
    halves : {"", "positions", "counts"}
        Widen the bars, by octaves of periods, by what two halves of the data disagree by.
    """
    must_be_thin(found, "there are error bars for", HALVES)
    engine = registry_of_engines.get(found.engine)
    if engine is not None and engine.model is not Engine.model:
        raise PtychonError(
            f"engine {found.engine!r} has a forward model of its own, which the error bars do not "
            "know; reconstruct with an engine of the usual model, ml say"
        )
    whole, posterior = method.run(problem, found, backend, tell, place)
    refine = bool(getattr(method, "refine", False))
    how: dict[str, Any] = {"method": method.name, "update": list(method.free(found))}
    how |= {"refine": refine, "of": name}
    if halves:
        from .discrepancy import halves_disagree, widened

        test, _ = halves_disagree(
            problem,
            found,
            method,
            halves,
            seed=method.seed,
            backend=backend,
            tell=tell,
            place=place,
        )
        posterior = replace(widened(posterior, test), halves=test)
        how |= {"halves": halves, "seed": method.seed, "widened": list(posterior.widened)}
    if method.keeps_object:
        posterior = posterior.about(found.object, found.probe)
    # a run of its own knows nothing of the file that the scan is in
    settings = dict(found.settings) | dict(whole.settings) | {"error_bars": how}
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
    method: str = AUTO,
    *,
    update: Mapping[str, bool] | Collection[str] = (),
    halves: str = "",
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
    method : {"auto", "laplace", "bootstrap", "joint", "sampling"}
        "auto" takes what fits the result (see `choose`); which and why is in the settings of the
        result, `settings["error_bars"]`.
    update : mapping of str to bool, or collection of str, optional
        What is free beside what the run has learned, or is not: ``{"positions": True}`` or
        ``{"probe": False}``; or all that is free, ``("object", "probe")``. The error of a free
        probe is part of the object's. "positions", "dose", "weights" and "background" are for
        method "laplace".
    halves : {"", "positions", "counts"}
        Reconstruct two halves of the data as well, and widen the bars, by octaves of periods, by
        what they disagree by (see `discrepancy`): for measured data, whose model is never quite
        right. It takes as long again.
    backend : str or Backend
    tell : callable, optional
        Called with the progress: what, done, total.
    **options
        Options of the method: fields of `Laplace`, `Joint`, `Bootstrap` or `Sampling`.

    Returns
    -------
    Result
        With `object_std`, (H, W) float32, the standard deviation of the complex value, and `draws`
        where the method stores posterior draws.

    Raises
    ------
    PtychonError
        Unknown method or option, with the nearest name; data that the result is not of.
    """
    must_be_thin(result, "there are error bars for", HALVES)
    problem = data
    if not isinstance(data, Problem):
        problem = on_grid(data, result)
    assert isinstance(problem, Problem)
    if problem.field_shape != result.object.shape or len(problem) != len(result.positions):
        raise PtychonError(
            f"the data give {len(problem)} frames on an object of {problem.object_shape}; the "
            "result has "
            f"{len(result.positions)} on {result.object.shape}: give the data that it was made from"
        )
    place = get_backend(backend)
    chosen, why = method_for(
        problem, result, method, update=update, backend=place if tell else None, **options
    )
    say = tell or _silent
    if why:
        say(why, 0, 1)
    with TemporaryDirectory() as folder:
        whole, posterior = with_bars(
            problem, result, chosen, place, say, Path(folder) / "result.h5", halves=halves
        )
    if why:
        how = dict(whole.settings["error_bars"]) | {"why": why}
        whole = replace(whole, settings=dict(whole.settings) | {"error_bars": how})
    return replace(
        whole,
        object=posterior.object,
        probe=posterior.probe,
        object_std=posterior.object_std,
        draws=posterior.draws,
    )


def _silent(what: str, done: int, total: int) -> None:
    return None
