"""Methods that give a result its error bars, as records: their options, and how each runs.

Each is a frozen record with `run(problem, result, backend, tell, place)`, listed in
`registry`; commands and settings take their names, options and defaults from here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..engines import nearest
from ..model.noise import told
from ..model.problem import Problem
from ..types import PtychonError
from .background import FORMS, SMOOTH
from .counts import dim
from .free import FREE, free_in
from .method import Method, assumed_variance
from .prior import LEARNED, PRIORS, WHITE

if TYPE_CHECKING:
    from ..data.result import Result
    from .posterior import Posterior


#: Draws of each half of the data, from which powers of octaves are taken.
FEW = 4
#: Measured numbers, times modes, up to which bars are checked on simulated data where nothing is
#: said: the check takes longer than the run and its bars together, and small scans need it most.
QUICK = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Laplace(Method):
    """A Gaussian about the solution, by sampling (`laplace`).

    Parameters
    ----------
    draws : int, optional
        Number of posterior draws; default as many as it takes to know the bars to 3 %, 8 to 32.
    refine : bool
        Take the optimum of the posterior instead of the object as it was; where the probe was
        learned, the one that lies where the grid of the data is (see `centre`). Below 100 counts a
        pixel the way to that of a white prior then leads over that with learned spectra.
    prior : {"white", "learned", "local"}
        Of the object: the same in each pixel, with spectra that are learned (see `prior`), or also
        with variances that differ from place to place, for edges, where the evidence is for them
        (see `local`).
    background_form : {"smooth", "level", "pixels"}
        What a free background may be: smooth on the detector, the same in all pixels, or anything.
    propose : bool
        Say by how much the likelihood would rise with positions, doses or background free.
    limit : float, optional
        Seconds after which it ends with the draws that there are then, 4 at least.
    twin : bool, optional
        Check and correct the bars on simulated data (see `twin`), which takes longer than the run
        and its bars together; default where there are at most a million measured numbers, without
        a limit.
    """

    name: ClassVar[str] = "laplace"
    able: ClassVar[tuple[str, ...]] = FREE
    least: ClassVar[Mapping[str, int]] = {"draws": 2}
    draws: int | None = None
    refine: bool = False
    prior: str = WHITE
    background_form: str = SMOOTH
    propose: bool = True
    limit: float | None = None
    twin: bool | None = None

    @property
    def keeps_object(self) -> bool:
        """Whether the bars are those of the object that was given."""
        return not self.refine

    def checks(self, problem: Problem) -> bool:
        """If that was said, or quick."""
        if self.twin is None:
            return self.limit is None and problem.amplitude.size <= QUICK
        return self.twin

    def by_spectra(self, problem: Problem) -> bool:
        """Whether the way to an optimum with a white prior leads over that with learned spectra: at
        few counts noise that the run has fitted is an optimum of its own.
        """
        small = self.limit is None and problem.amplitude.size <= QUICK
        return self.prior == WHITE and small and dim(problem)

    def unchecked(self) -> Laplace:
        """The same without that, and without proposals."""
        return replace(self, twin=False, propose=False)

    def to_optimum(self) -> Laplace:
        """The same, with the optimum for an object, and no more draws than spectra need."""
        return replace(self, refine=True, propose=False, twin=False, draws=self.draws or FEW)

    def within(self, share: float) -> Laplace:
        """The same in a share of `limit`."""
        return self if self.limit is None else replace(self, limit=self.limit * share)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("background_form", FORMS), ("prior", PRIORS)):
            value = getattr(self, name)
            if value not in known:
                raise PtychonError(f"{name} is {value!r}; choose one of {', '.join(known)}")
        if self.limit is not None and not 0 < self.limit < math.inf:
            raise PtychonError(f"limit is {self.limit}; it must be a time in seconds, above 0")

    def run(
        self, problem: Problem, found: Result, backend: Any, tell: Any, place: Path
    ) -> tuple[Result, Posterior]:
        """The result, refined if that was asked for, and its posterior."""
        from .laplace import laplace

        free = self.free(found)
        start = self.at_grid(problem, found, backend, tell) if self.refine else found
        way: dict[str, Any] = {"update": free, "object_variance": assumed_variance(found)}
        way |= {"noise_variance": self.noise_variance, "background": self.background}
        way |= {"background_form": self.background_form, "backend": backend, "seed": self.seed}
        way |= {"limit": self.limit, "tell": tell}
        if self.refine and "probe" in free and self.by_spectra(problem):
            ahead = laplace(problem, start.object, start.probe, prior=LEARNED, draws=2, **way)
            start = replace(start, object=ahead.object, probe=ahead.probe)
        posterior = laplace(
            *(problem, start.object, start.probe),
            draws=self.draws,
            prior=self.prior,
            keep=True,
            propose=self.propose,
            **way,
        ).with_errors()
        if not self.refine:
            return found, posterior
        from ..metrics.residual import residual

        if posterior.longer is not None:
            problem = problem.with_distance(posterior.longer)
            found = replace(found, distance=posterior.longer)
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
        Passes of each chain; default 8000, with a learned prior 20 000.
    prior : {"white", "learned", "local"}
        Of the object, as that of `Laplace`, from whose optimum chains then begin.
    twin : bool
        Check and correct the bars on simulated data (see `twin`), which doubles the time.
    """

    name: ClassVar[str] = "sampling"
    least: ClassVar[Mapping[str, int]] = {"draws": 1, "passes": 1}
    draws: int = 8
    passes: int | None = None
    prior: str = WHITE
    twin: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior not in PRIORS:
            raise PtychonError(f"prior is {self.prior!r}; choose one of {', '.join(PRIORS)}")

    def checks(self, problem: Problem) -> bool:
        """If that was said."""
        return self.twin

    def unchecked(self) -> Sampling:
        """The same without that."""
        return replace(self, twin=False)

    def run(
        self, problem: Problem, found: Result, backend: Any, tell: Any, place: Path
    ) -> tuple[Result, Posterior]:
        """The result with the R of the posterior mean, and its posterior."""
        from ..metrics.residual import residual
        from .sampling import sample

        start = found if self.prior == WHITE else self.at_grid(problem, found, backend, tell)
        done = sample(
            problem,
            start.object,
            start.probe,
            update=self.free(found),
            draws=self.draws,
            passes=self.passes,
            prior=self.prior,
            noise_variance=self.noise_variance,
            background=self.background,
            object_variance=assumed_variance(found),
            backend=backend,
            seed=self.seed,
            tell=tell,
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
        raise PtychonError(
            f"unknown method of error bars {name!r}; {nearest(name, (AUTO, *registry))}"
        )
    cls = registry[name]
    known = options_of(cls)
    for option in options:
        if option not in known:
            having = [each for each, other in registry.items() if option in options_of(other)]
            remedy = f"it belongs to {', '.join(having)}" if having else nearest(option, known)
            raise PtychonError(f"method {name!r} of error bars has no option {option!r}; {remedy}")
    return cls(**options)


def options_of(cls: type[Method]) -> list[str]:
    return [f.name for f in fields(cls)]
