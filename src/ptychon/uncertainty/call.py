"""One call for error bars: the method that fits, or the one that is named, and bars widened by what
halves of the data disagree by.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..backends import get_backend
from ..data.slices import HALVES, must_be_thin
from ..engines import Engine, nearest
from ..engines import registry as registry_of_engines
from ..model.found import on_grid
from ..model.problem import Problem
from ..types import PtychonError
from .free import free_in
from .method import Method
from .methods import AUTO, Sampling, make_method, options_of, registry
from .prior import WHITE

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.result import Result
    from .posterior import Posterior


def method_for(
    problem: Problem,
    found: Result,
    name: str = AUTO,
    *,
    update: Mapping[str, bool] | Collection[str] = (),
    backend: Any = None,
    halves: str = "",
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
    halves : {"", "positions", "counts"}
        Whether halves of the data get bars too: chains for each of them are not chosen.
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
    having = [each for each, cls in registry.items() if set(options) <= set(options_of(cls))]
    if not having:
        known = {option for cls in registry.values() for option in options_of(cls)}
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

    if halves and len(having) > 1:
        having = [each for each in having if each != Sampling.name]
    said = ("draws", "refine", "twin", "limit")
    wanted: dict[str, Any] = {n: options[n] for n in said if n in options}
    choice = choose(problem, found, update=update, having=having, backend=backend, **wanted)
    free = choice.update if choice.method == "laplace" or update else ()
    if choice.prior != WHITE:
        options = {"prior": choice.prior} | options
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
    if halves and getattr(method, "twin", None) and method.checks(problem):
        raise PtychonError(
            "halves of the data and a twin both correct the bars: leave out halves (--halves) or "
            "twin (--twin)"
        )
    checks = not halves and method.checks(problem)
    # all halves of one split together have as many frames as the whole, and so has a twin
    own = method.within(1 / 2) if halves or checks else method
    whole, posterior = own.run(problem, found, backend, tell, place)
    refine = bool(getattr(method, "refine", False))
    how: dict[str, Any] = {"method": method.name, "update": list(method.free(found))}
    how |= {"refine": refine, "of": name}
    prior = getattr(method, "prior", WHITE)
    if prior != WHITE:
        how["prior"] = prior
    if halves:
        from .discrepancy import SPLITS, halves_disagree
        from .widening import widened

        test = halves_disagree(
            problem,
            found,
            method.within(1 / (4 * SPLITS[0])),
            halves,
            seed=method.seed,
            numbers=() if getattr(method, "limit", None) is None else range(SPLITS[0]),
            backend=backend,
            tell=tell,
            place=place,
        )
        posterior = replace(widened(posterior, test), halves=test)
        how |= {"halves": halves, "seed": method.seed, "widened": list(posterior.widened)}
        how |= {"splits": test.splits}
    if method.keeps_object:
        posterior = posterior.about(found.object, found.probe)
    if checks and not posterior.stopped:
        posterior = _checked(problem, found, own, posterior, backend, tell, place)
    if posterior.verdict:
        how |= {"verdict": posterior.verdict, "reason": posterior.reason}
    # a run of its own knows nothing of the file that the scan is in
    settings = dict(found.settings) | dict(whole.settings) | {"error_bars": how}
    provenance = dict(found.provenance) | dict(whole.provenance)
    return replace(whole, settings=settings, provenance=provenance), posterior


def _checked(
    problem: Problem,
    found: Result,
    method: Method,
    posterior: Posterior,
    backend: Any,
    tell: Any,
    place: Path,
) -> Posterior:
    """Bars corrected by a twin; as they are, which is said, where there can be none or somebody
    stops it.
    """
    from .checked import check

    try:
        return posterior.checked(
            check(problem, found, method, posterior, backend=backend, tell=tell, place=place)
        )
    except KeyboardInterrupt:
        why = "it was stopped"
    except PtychonError as error:
        why = str(error)
    return replace(posterior, conditional=(*posterior.conditional, f"not checked on a twin: {why}"))


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
        probe is part of the object's. "positions", "dose", "variations", "weights", "background",
        "distance" and "read_noise" are for method "laplace".
    halves : {"", "positions", "counts"}
        Reconstruct two halves of the data as well, and widen the bars, by octaves of periods, by
        what they disagree by (see `discrepancy`): for measured data, whose model is never quite
        right. It takes 2 to 4 times as long again.
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
        *(problem, result, method),
        update=update,
        backend=place if tell else None,
        halves=halves,
        **options,
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
