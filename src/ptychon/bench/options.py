"""What each option of a reconstruction costs: a pass with it over a pass without, in one run.

One simulated scan, far field, on positions between pixels. A repeat is one stretch of passes of
each option, so that whatever else the machine does falls on all alike; the ratio is that of
processor times within a repeat, the median over repeats. What is refined is refined after every
pass, and constraints hold after every pass, so that a run which asks for them less often pays
less. A step of `ml` is one of `PRODUCTS` products, whatever their residual: options make its
linear systems harder as well, which is not in these ratios.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..backends import get_backend
from ..data.dataset import Dataset
from ..data.slices import Slices
from ..engines import After, Context, nearest, registry
from ..model.problem import Problem
from ..run.compile import warm_up
from ..run.guess import initial_object, mean_power, scaled_probe
from ..run.iterate import iterate
from ..run.modes import started
from ..run.recipe import Stage
from ..run.stages import Ready
from ..simulation import phantoms, probes, scan
from ..simulation.simulate import simulate
from ..types import ComplexArray, PtychonError
from .clock import machine

#: Engines whose options are timed, with what makes all their passes cost the same.
PRODUCTS = 10
ENGINES: dict[str, dict[str, Any]] = {
    "rpie": {},
    "mpie": {},
    "dm": {"power_bound": 0.0},
    "lsqml": {},
    "ml": {"iterations": PRODUCTS, "tolerance": 1e-9},
}
#: Passes of the stages: only limits and steps that fall towards the end of a run see it.
PLANNED = 1000
#: Of the slices, in pixels squared: wavelength times gap over the pixel squared.
SPACING = 5.0


@dataclass(frozen=True, kw_only=True)
class Option:
    """What is asked for beyond object and probe.

    Attributes
    ----------
    modes, slices : int
    update : sequence of str
        Unknowns, by names of fields of `Unknowns`.
    data : mapping
        What the data state: blur, upsample.
    constraints : tuple of str
    whole : bool
        Positions on whole pixels.
    """

    modes: int = 1
    slices: int = 1
    update: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    constraints: tuple[str, ...] = ()
    whole: bool = False


PLAIN = "one mode, no options"
OPTIONS: dict[str, Option] = {
    PLAIN: Option(),
    "positions on whole pixels": Option(whole=True),
    "2 modes": Option(modes=2),
    "3 modes": Option(modes=3),
    "5 modes": Option(modes=5),
    "positions": Option(update=("positions",)),
    "doses": Option(update=("log_scale",)),
    "background": Option(update=("background",)),
    "positions, doses, background": Option(update=("positions", "log_scale", "background")),
    "a probe that varies (1)": Option(update=("variations",)),
    "blur of the detector, 1 px": Option(data={"blur": 1.0}),
    "upsample 2": Option(data={"upsample": 2}),
    "2 slices": Option(slices=2),
    "5 slices": Option(slices=5),
    "constraint support": Option(constraints=("support:radius=14",)),
    "constraint centre": Option(constraints=("centre",)),
    "constraint phase": Option(constraints=("phase:lo=-3,hi=3",)),
    "constraint smooth": Option(constraints=("smooth:0.05",)),
    "constraint tv": Option(constraints=("tv:weight=1e-3",)),
}


@dataclass(frozen=True)
class Scene:
    """The scan that is timed: its data, and the probe (P, Q) that everyone starts from."""

    data: Dataset
    probe: ComplexArray

    @classmethod
    def made(cls, side: int = 11, frame: int = 64, step: float = 6.0, counts: float = 1e5) -> Scene:
        """A raster of `side` x `side` positions with jitter, Poisson counts."""
        positions = scan.raster(side, step, jitter=1.5, whole=False, seed=0)
        size = 2 * (-(-int(np.abs(positions).max() * 2 + frame + 8) // 2))
        picture, phase = phantoms.texture((size, size), 0), phantoms.texture((size, size), 1)
        truth = phantoms.complex_object(picture, phase, amplitude_range=(0.6, 1.0))
        probe, first = (
            probes.defocused_aperture((frame, frame), radius * frame, curve * frame)
            for radius, curve in ((0.16, 0.75), (0.15, 0.7))
        )
        made = simulate(truth, probe, positions, noise="poisson", mean_counts=counts, seed=0)
        return cls(made.dataset, first)

    def problem(self, option: Option) -> tuple[Problem, ComplexArray, ComplexArray]:
        """The problem of an option, and the first object (S, H, W) or (H, W) and probe (K, P, Q)
        for it.
        """
        data = replace(self.data, **option.data)
        if option.whole:
            data = replace(data, positions=np.rint(data.positions))
        problem = Problem.from_dataset(data)
        modes = started(self.probe[None], option.modes)
        if problem.frame_shape != self.probe.shape:
            # what is measured is every n-th pixel of a finer detector: its window is larger
            pad = [(n - m) // 2 for n, m in zip(problem.frame_shape, self.probe.shape, strict=True)]
            modes = np.pad(modes, [(0, 0), *((p, p) for p in pad)])
        power = mean_power(problem)
        start = scaled_probe(modes, power)
        found = initial_object(problem, start, power)
        if option.slices > 1:
            gaps = (SPACING,) * (option.slices - 1)
            problem = replace(problem, slices=Slices(gaps, 1.0, (1.0, 1.0)))
            found = np.stack([found ** (1 / option.slices)] * option.slices)
        return problem, found, start


class _Timed:
    """Passes of one option, as a run makes them; `cpu` collects processor seconds of a stretch."""

    def __init__(self, scene: Scene, engine: str, option: Option, ctx: Context) -> None:
        problem, found, start = scene.problem(option)
        stage = Stage(
            engine,
            PLANNED,
            ENGINES[engine],
            update={name: After(0) for name in option.update},
            constraints=option.constraints,  # type: ignore[arg-type]
        )
        ready = Ready.of(stage, problem, 0)
        turns = stage.turns(ready.engine, 0)
        warm_up(problem, ready.engine, ctx, len(start), ready.schedule)
        self.problem, self.ctx, self.constraints = problem, ctx, stage.constraints
        self.cpu: list[float] = []
        self.steps = iterate(
            problem,
            ready.engine,
            found,
            start,
            ctx=ctx,
            schedule=ready.schedule,
            planned=PLANNED,
            turns=turns,
        )

    def run(self, passes: int) -> None:
        begin = time.process_time()
        for _ in range(passes):
            progress = next(self.steps)
            for constraint in self.constraints:
                constraint.apply(progress.state, self.problem, self.ctx)
        self.cpu.append((time.process_time() - begin) / passes)


def costs(
    engines: Sequence[str] = (),
    repeats: int = 7,
    threads: int = 1,
    *,
    passes: int = 5,
    scene: Scene | None = None,
    options: Mapping[str, Option] = OPTIONS,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Time the options of some engines.

    Parameters
    ----------
    engines : sequence of str
        Of `ENGINES`; all if there are none.
    repeats : int
        Stretches of each option.
    threads : int
    passes : int
        Of a stretch: a multiple of 5, as some work is done in one of five turns; one of `ml`.
    scene : Scene, optional
        Default `Scene.made`.
    options : mapping of str to Option
        `PLAIN` among them.
    say : callable
        Told what is being done.

    Returns
    -------
    dict
        Ready for JSON. `engines[engine][option]`: `ms` of a pass (median), `ratio` to a plain pass,
        both in processor time; None where the engine has no such option.

    Raises
    ------
    PtychonError
        Unknown engines, numbers that are not positive.
    """
    if repeats < 1 or passes < 1:
        raise PtychonError(f"repeats is {repeats} and passes {passes}; both must be at least 1")
    for name in engines:
        if name not in ENGINES:
            raise PtychonError(
                f"the options of engine {name!r} are not timed; {nearest(name, ENGINES)}"
            )
    scene = scene or Scene.made()
    ctx = Context(get_backend("numpy", threads=threads))
    rows = {}
    for engine in tuple(engines) or tuple(ENGINES):
        say(f"options of {engine}")
        rows[engine] = _of_engine(engine, scene, options, ctx, repeats, passes)
    return {
        "about": f"{len(scene.data)} positions of {scene.probe.shape[0]}x{scene.probe.shape[1]} px",
        "machine": machine(),
        "threads": threads,
        "repeats": repeats,
        "passes": passes,
        "engines": rows,
    }


def _of_engine(
    engine: str,
    scene: Scene,
    options: Mapping[str, Option],
    ctx: Context,
    repeats: int,
    passes: int,
) -> dict[str, Any]:
    # a step that solves for the positions of frames too takes as long as many passes
    passes = 1 if "positions" in registry[engine].moves else passes
    timed: dict[str, _Timed] = {}
    for name, option in options.items():
        try:
            timed[name] = _Timed(scene, engine, option, ctx)
        except PtychonError:
            continue
    for one in timed.values():
        one.run(passes)
        one.cpu.clear()
    for _ in range(repeats):
        for one in timed.values():
            one.run(passes)
    plain = np.array(timed[PLAIN].cpu)
    found: dict[str, Any] = dict.fromkeys(options)
    for name, one in timed.items():
        cpu = np.array(one.cpu)
        ratio = float(np.median(cpu / np.maximum(plain, 1e-9)))
        found[name] = {"ms": 1e3 * float(np.median(cpu)), "ratio": ratio}
    return found


def table(report: Mapping[str, Any]) -> str:
    """A report of `costs` as a Markdown table: ratios, and milliseconds of a plain pass."""
    host, engines = report["machine"], report["engines"]
    count = report["threads"]
    lines = [
        f"{report['about']}; {host['processor']}, {count} thread{'s' if count > 1 else ''}, load "
        f"{host['load'] or '?'}; medians of {report['repeats']} repeats, processor time of a pass "
        "over that of a plain one",
        "",
        "| option | " + " | ".join(engines) + " |",
        "|---" * (len(engines) + 1) + "|",
    ]
    for option in next(iter(engines.values())):
        cells = []
        for rows in engines.values():
            row = rows[option]
            if row is None:
                cells.append("-")
            elif option == PLAIN:
                cells.append(f"1 ({row['ms']:.3g} ms)")
            else:
                cells.append(f"{row['ratio']:.2f}")
        lines.append(f"| {option} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])
