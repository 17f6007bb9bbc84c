"""Which method of error bars fits a result, why, and how long it takes.

| what there is | method | because |
|---|---|---|
| positions, doses, a varying probe, background, distance free | laplace | only it holds them |
| few counts, several modes learned, on a small scan | sampling, local prior | no Gaussian there |
| several modes | laplace | Ptycho-EP, where joint begins, knows one |
| few measurements on a small scan | sampling | one optimum is not the posterior there |
| few counts, probe learned, on a small scan | sampling, local prior | it is no Gaussian there |
| few counts, probe known, and time for it | joint | its prior is learned from the data |
| few counts, the optimum wanted | laplace, local prior | as good bars, a better object |
| anything else | laplace | |

Numbers that tell these apart were measured (docs/uncertainty.md): where there are more than about
100 counts a pixel a white prior does no harm, with fewer its bars are too wide; below 4 numbers
measured for each that is unknown bars of one optimum are too small, and so they are where few
counts come together with a learned probe, with several modes up to about 200.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..backends import Backend
from ..engines import moves_probe
from ..engines.base import OPTION_OF
from ..metrics.residual import illuminated, illumination
from ..model.noise import noise_of
from ..model.problem import Problem
from .clock import longest
from .counts import DIM_MODES, dim, mean_counts
from .free import FREE, READ_NOISE, USUAL, free_in, possible
from .methods import Laplace
from .optimum import Work
from .prior import LOCAL, WHITE
from .sampling import PASSES, SLOWER

if TYPE_CHECKING:
    from ..data.result import Result

#: Measured numbers for each unknown one below which one optimum is not the posterior.
FEW_MEASURED = 4.0
#: Measured numbers up to which chains are affordable.
SMALL = 200_000
#: Frames of which a product is timed, and how often, the fastest counting; products that a system
#: takes (5 to 40 were measured, and as long again beside them), systems of the way to the optimum,
#: and of draws where their number is not given.
TIMED, TRIALS, PRODUCTS, WAY, DRAWS = 16, 3, 25, 11, 16
#: Times that of `laplace`: with a learned prior 3 to 8 were measured on scans of 24 x 24, 1.5 to
#: 2 times that with local variances; the joint
#: posterior with its twin is a guess.
LONGER = {"laplace": 1.0, LOCAL: 6.0, "joint": 3.0}
#: Times that of one mode where several are learned: systems take twice the products, and there are
#: more of them (2.8 and 3.6 on scans of 24 x 24, 3.5 on 20 frames of 256 x 256).
SEVERAL = 3.5
#: A pass of a chain over a product (0.9 to 1.4 for its gradient, as much again for its prior and
#: its momenta), with local variances too (1.4 to 6, the most for pieces), and chains.
GRADIENT, GRADIENT_LOCAL, CHAINS = 2.5, 3.5, 2
#: Seconds that nobody minds.
PATIENCE = 180.0


@dataclass(frozen=True)
class Choice:
    """A method, why it was chosen, what is free with it, the seconds it takes, and the prior of
    `laplace`.

    `seconds` is None where it was not asked for or cannot be told.
    """

    method: str
    why: str
    update: tuple[str, ...]
    seconds: float | None = None
    prior: str = WHITE

    def sentence(self) -> str:
        """For people."""
        return f"error bars by {self.method}: {self.why}{about(self.seconds)}"


def about(seconds: float | None) -> str:
    """A time to come, for a sentence."""
    if seconds is None:
        return ""
    return f"; about {seconds:.0f} s" if seconds < 100 else f"; about {seconds / 60:.0f} min"


def learned_by(found: Result, counts: bool = False) -> tuple[str, ...]:
    """All unknowns that the run of a result has moved; a background only of `counts`, beside which
    bars can have one.
    """
    free = set(USUAL if moves_probe(found) else USUAL[:1])
    if found.positions_given is not None:
        free.add("positions")
    if found.log_scale is not None:
        free.add("log_scale")
    if found.weights is not None:
        free |= {"weights", "variations"} if "probe" in free else {"weights"}
    if found.distance is not None:
        free.add("distance")
    if found.background is not None and counts:
        free.add("background")
    return tuple(name for name in FREE if name in free)


def choose(
    problem: Problem,
    found: Result,
    *,
    update: Mapping[str, bool] | Collection[str] = (),
    having: Collection[str] = ("laplace", "joint", "bootstrap", "sampling"),
    backend: Backend | None = None,
    draws: int | None = None,
    refine: bool = False,
    twin: bool | None = None,
    limit: float | None = None,
) -> Choice:
    """The method for a result.

    Parameters
    ----------
    problem : Problem
        On the host.
    found : Result
    update : mapping of str to bool, or collection of str, optional
        What is said of what is free; default all that the run has learned.
    having : collection of str
        Methods that have the options which were given.
    backend : Backend, optional
        On which the time is estimated; default no estimate.
    draws : int, optional
        As asked for.
    refine : bool
        Whether the optimum is wanted, not the object of the result.
    twin : bool, optional
        Whether the bars are checked on simulated data; default as the method has it.
    limit : float, optional
        Seconds that it may take.
    """
    free = wanted(found, update, noise_of(problem).kind == "poisson")
    seconds = chains = plain = None
    if backend is not None:
        product, rate = products_seconds(problem, found, free, backend), max(1, backend.threads)
        seconds = product * PRODUCTS
        seconds *= WAY / 2 + (WAY / 2 + (draws or DRAWS)) / rate
        if "probe" in free and len(found.probe) > 1:
            seconds *= SEVERAL
        both = product * CHAINS / min(rate, CHAINS)
        plain = both * GRADIENT * PASSES
        # they begin at the optimum that goes with their prior
        chains = both * GRADIENT_LOCAL * SLOWER + seconds * LONGER[LOCAL]
    name, why = _chosen(problem, found, free, seconds, chains)
    if name not in having and len(having):
        name = "laplace" if "laplace" in having else next(iter(having))
        why = "the options that are given belong to it"
    prior = WHITE
    if refine and name == "laplace" and dim(problem) and set(free) <= set(USUAL):
        prior, why = LOCAL, f"{why}; at few counts the prior of an optimum is learned"
    if name == "sampling":
        prior = LOCAL if dim(problem) or len(found.probe) > 1 else WHITE
        seconds = chains if prior == LOCAL else plain
        if seconds is not None:
            seconds *= 3 if twin else 1
        return Choice(name, why, free, seconds, prior)
    longer = LOCAL if prior == LOCAL else name
    if seconds is not None:
        seconds = seconds * LONGER[longer] if longer in LONGER else None
    if seconds is not None and name == "laplace":
        checked = Laplace(twin=twin, limit=limit).checks(problem)
        # the run and its bars once more, and where the probe is learned from another start too
        seconds += (seconds + found.seconds) * checked * (2 if "probe" in free else 1)
    return Choice(name, why, free, seconds, prior)


def wanted(
    found: Result, update: Mapping[str, bool] | Collection[str], counts: bool = False
) -> tuple[str, ...]:
    """What is free: all that the run has learned, but for what is said."""
    known = learned_by(found, counts)
    if not isinstance(update, Mapping):
        return tuple(update) or known
    learned = {OPTION_OF.get(name, name): True for name in known if name != "object"}
    if update.get("probe", True) is False:
        learned.pop("variations", None)  # free with the probe alone
    return free_in(found, learned | dict(update))


def _chosen(
    problem: Problem,
    found: Result,
    free: tuple[str, ...],
    seconds: float | None,
    chains: float | None = None,
) -> tuple[str, str]:
    """The method, and why; seconds are those of `laplace` and of chains."""
    more = [OPTION_OF.get(name, name) for name in free if name not in USUAL]
    if more:
        one = len(more) == 1 and more[0] in ("dose", "background", "distance", READ_NOISE)
        are = "is" if one else "are"
        return "laplace", f"{', '.join(more)} {are} free, whose error only it holds"
    measured = float(problem.amplitude.size)
    short = measured < SMALL and (chains is None or chains < PATIENCE)
    if len(found.probe) > 1:
        several = f"the probe has {len(found.probe)} modes"
        if short and "probe" in free and dim(problem, DIM_MODES):
            few = f"{mean_counts(problem):.2g} counts a pixel are few"
            return "sampling", f"{few}, and {several}, with which the posterior is no Gaussian then"
        return "laplace", f"{several}, and joint begins with one"
    lit = float(illuminated(problem, found.probe).sum())
    if measured < FEW_MEASURED * 2 * lit and measured < SMALL:
        why = f"{measured / (2 * lit):.1f} measured numbers for each unknown are few: one optimum "
        return "sampling", why + "is not the whole posterior"
    if dim(problem) and "probe" not in free:
        if seconds is None or seconds * LONGER["joint"] < PATIENCE:
            few = f"{mean_counts(problem):.2g} counts a pixel are few"
            return "joint", f"{few}: its prior is learned"
        return "laplace", "joint would take too long; at few counts these bars are too wide"
    if dim(problem) and short:
        few = f"{mean_counts(problem):.2g} counts a pixel are few"
        return "sampling", f"{few}, and with a learned probe the posterior is no Gaussian then"
    if dim(problem):
        return "laplace", (
            "the probe was learned; at few counts these bars are too wide, those of joint may be "
            "too small; --method sampling --prior local assumes no Gaussian"
            + ("" if chains is None else f", {longest(chains)}")
        )
    which = "learned" if "probe" in free else "known"
    return "laplace", f"the data are bright enough for it, with the probe {which}"


def products_seconds(
    problem: Problem, found: Result, free: tuple[str, ...], backend: Backend
) -> float:
    """Seconds of one product with the curvature, on one thread, from that of a few frames."""
    possible(problem, free)
    few = problem.select(slice(0, TIMED))
    object, probe = found.object, found.probe
    lit, touched = illuminated(few, probe), illumination(few, probe) > 0
    S = float(np.mean(np.abs(object[lit]) ** 2)) or 1.0
    held = tuple(name for name in free if name not in ("background", READ_NOISE))
    work = Work(few.to(backend), backend, held, S, lit, touched)
    point = work.at(work.start(object, probe), noise_of(few))
    change = point.H.noise(work.generator(0))
    change = change.only(point.H.zeros().names)
    best = np.inf
    for _ in range(1 + TRIALS):  # the first may compile
        began = time.perf_counter()
        point.H(change)
        best = min(best, time.perf_counter() - began)
    return float(best) * len(problem) / len(few)
