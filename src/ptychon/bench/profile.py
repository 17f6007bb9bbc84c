"""What the scripts in profiling/ share: one engine on the default problem, timed or profiled."""

from __future__ import annotations

import cProfile
import io
import pstats
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ..backends import Backend, get_backend
from ..engines import Context, Engine, registry
from ..engines.ptycho_ep import PtychoEP
from ..io.hdf5 import check_writable
from ..metrics.residual import residual
from ..run.compile import warm_up
from ..run.iterate import iterate
from ..run.progress import Progress
from . import cases
from .clock import timed
from .run import fallback
from .shell import main as run_command

F = TypeVar("F", bound=Callable[..., Any])
#: Pass in which --use_prior brings in the sparse prior: from a constant object it would freeze the
#: run at once.
PRIOR_START = 10


def main(engine: str, arguments: Sequence[str] | None = None) -> int:
    """Exit code of the profiling script of one engine: 0, or 2 for bad options."""
    return run_command(command(engine), Path(sys.argv[0]).name or f"profile_{engine}.py", arguments)


def command(engine: str) -> click.Command:
    """The command line of the script of `engine`."""

    def script(**options: Any) -> None:
        profile(engine, **options)

    script.__doc__ = (
        f"Time {_title(engine)} on a simulated scan, compilation apart, or profile it with "
        "--profile."
    )
    for option in reversed(_EP_OPTIONS if _believes(engine) else ()):
        script = option(script)
    for option in reversed(_OPTIONS):
        script = option(script)
    return click.command(
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
    )(script)


def _title(engine: str) -> str:
    """What it is called: its title up to the colon."""
    return str(registry[engine].title.partition(":")[0])


def _believes(engine: str) -> bool:
    """Whether it is Ptycho-EP, which has a prior and a noise variance."""
    return issubclass(registry[engine], PtychoEP)


_COUNT = click.IntRange(min=1)
_OPTIONS: list[Callable[[F], F]] = [
    click.option(
        "--backend", type=click.Choice(["numpy", "cupy"]), default="numpy", show_default=True
    ),
    click.option(
        "--threads", type=_COUNT, help="Of the numpy backend.  [default: the number of cores]"
    ),
    click.option(
        "--niter", type=_COUNT, default=50, show_default=True, help="Passes over the data."
    ),
    click.option(
        "--num_points",
        type=click.IntRange(min=2),
        default=200,
        show_default=True,
        help="Positions on the spiral.",
    ),
    click.option(
        "--use_noise",
        is_flag=True,
        help="Gaussian amplitude noise, variance 1e-3 of the mean squared amplitude.",
    ),
    click.option(
        "--profile", "use_profiler", is_flag=True, help="Print cProfile's table instead of timing."
    ),
    click.option(
        "--profile_output", type=click.Path(dir_okay=False), help="Write that table to a file."
    ),
    click.option(
        "--sort",
        type=click.Choice(["tottime", "cumulative", "ncalls"]),
        default="tottime",
        show_default=True,
    ),
    click.option("--limit", type=_COUNT, default=20, show_default=True, help="Lines of the table."),
]
_EP_OPTIONS: list[Callable[[F], F]] = [
    click.option(
        "--n_probe_update",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Learn the probe by this many EM updates a pass; 0 takes it as known.",
    ),
    click.option(
        "--use_prior", is_flag=True, help="A sparse object, and the sparse prior from pass 10 on."
    ),
]


def profile(
    engine: str,
    *,
    backend: str,
    threads: int | None,
    niter: int,
    num_points: int,
    use_noise: bool,
    use_profiler: bool,
    profile_output: str | None,
    sort: str,
    limit: int,
    n_probe_update: int = 0,
    use_prior: bool = False,
) -> None:
    """Reconstruct the default problem and print how long it took, or where the time went.

    Parameters
    ----------
    engine : {"pie", "epie", "rpie", "dm", "ep"}
    backend : {"numpy", "cupy"}
    threads : int or None
        None is the number of cores.
    niter, num_points : int
    use_noise : bool
    use_profiler : bool
    profile_output : str or None
        File for the profiler's table; None is the screen.
    sort : str
        Column of that table.
    limit : int
        Its lines.
    n_probe_update : int
    use_prior : bool
        Of expectation propagation.
    """
    if profile_output is not None:
        if not use_profiler:
            raise click.UsageError(
                "--profile_output names the file for the table of --profile: give both or neither"
            )
        check_writable(profile_output)
    if threads is not None and backend != "numpy":
        raise click.UsageError(f"--threads belongs to the numpy backend, not to {backend}")
    chosen = get_backend(backend, **({} if threads is None else {"threads": threads}))
    case = cases.spiral(points=num_points, noise=use_noise, sparse=use_prior)
    settings: dict[str, Any] = {}
    if _believes(engine):
        settings = {"probe_updates": n_probe_update}
        if use_prior:
            settings |= {
                "prior": "sparse",
                "sparse_density": case.sparse_density,
                "prior_start": PRIOR_START,
            }
    method = cases.engine_named(engine, **settings)
    ctx = Context(chosen)
    local = case.problem.to(chosen)
    compiling = warm_up(case.problem, method, ctx, len(case.probe))
    object, probe = case.start(method)
    first = chosen.asarray(object), chosen.asarray(probe)
    state, setup = timed(chosen, lambda: method.init(local, *first, ctx))

    def loop() -> Progress:
        steps = iterate(local, method, object, probe, ctx=ctx, resume=state, planned=niter)
        last: Progress = deque((next(steps) for _ in range(niter)), maxlen=1)[0]
        return last

    profiler = cProfile.Profile()
    if use_profiler:
        progress = profiler.runcall(loop)
    else:
        begin = time.process_time()
        progress, seconds = timed(chosen, loop)
        busy = time.process_time() - begin
    _head(engine, settings, chosen, case, niter)
    _slow(method, case, ctx)
    click.echo(f"compilation     {compiling:9.3f} s, not counted")
    if use_profiler:
        _table(profiler, profile_output, sort, limit)
    else:
        each = seconds / niter / num_points
        click.echo(f"first state     {setup:9.3f} s, not counted")
        click.echo(
            f"reconstruction  {seconds:9.3f} s, {1e6 * each:.1f} us a position and iteration"
        )
        if backend == "numpy":
            # on a machine that others use too, this says more of the code
            click.echo(f"processor time  {busy:9.3f} s, summed over threads")
    estimate = method.estimate(progress.state, ctx)
    final = residual(
        case.problem, chosen.to_host(estimate.object), chosen.to_host(estimate.probe), chosen
    )
    click.echo(f"R               {final:9.3g} of the final object and probe")
    skipped = progress.extra.get("skipped", 0.0)
    if skipped:
        click.echo(
            f"skipped         {skipped:9.0%} of the frames in the last pass, which costs less "
            "than visiting them"
        )


def _head(
    engine: str, settings: dict[str, Any], backend: Backend, case: cases.Case, niter: int
) -> None:
    words = [
        _title(engine),
        *(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in settings.items()),
    ]
    threads = f"{backend.threads} thread{'s' if backend.threads > 1 else ''}"
    where = threads if backend.name == "numpy" else str(backend.facts.get("device", ""))
    click.echo(f"{' '.join(words)}, backend {backend.name} ({where}), {niter} iterations")
    click.echo(case.about)
    if _believes(engine) and not case.noisy:
        told = case.problem.noise_variance
        click.echo(
            f"EP is told a noise variance of {told:.3g}, {cases.STATED:g} of the mean squared "
            "amplitude"
        )


def _slow(engine: Engine, case: cases.Case, ctx: Context) -> None:
    """Say so where no fused sweep runs."""
    names = fallback(engine, case.problem, ctx.backend)
    if names:
        click.echo(f"reference kernels in use: {', '.join(names)}")


def _table(profiler: cProfile.Profile, output: str | None, sort: str, limit: int) -> None:
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).strip_dirs().sort_stats(sort).print_stats(limit)
    if output is None:
        click.echo(text.getvalue().strip())
    else:
        Path(output).write_text(text.getvalue())
        click.echo(f"profile         {output}")
