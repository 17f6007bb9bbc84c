"""What `reconstruct` and `resume` do once it is settled what is wanted: run, save, draw, tell."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..types import PtychonError, PtychonWarning
from .further import proposed
from .places import Places, Voice
from .results import Bar
from .startup import uncollected
from .summary import show_summary, summary

if TYPE_CHECKING:
    from ..backends.base import Backend
    from ..data.dataset import Dataset
    from ..data.result import Result
    from ..request.settings import Settings
    from ..run.checkpoint import Checkpoint, Checkpointer
    from ..run.observers import Interrupt


def execute(
    settings: Settings,
    places: Places,
    voice: Voice,
    *,
    backend: str,
    given: dict[str, Any],
    resume: Checkpoint | None = None,
    further: bool = False,
) -> int:
    """Run what the settings say; the exit code.

    Parameters
    ----------
    settings : Settings
        Its input must be where the data are now.
    places : Places
    voice : Voice
    backend : str
    given : dict
        SHA-256 of the input under "input_sha256", if it is known.
    resume : Checkpoint, optional
    further : bool
        Go on with the unknowns that the scan asks for, where some are missing.
    """
    from ..backends import get_backend
    from ..inspect.affine import asked
    from ..inspect.orientation import UNSTATED, stated_orientation
    from ..io import save_result
    from ..request.inputs import open_data

    chosen = get_backend(backend)
    data = open_data(settings)
    if "mask" in settings.data and (said := data.notes.get("given", {}).get("mask")):
        voice.say(f"mask: {said}")
    if voice.wants_details:
        _tell_sources(data)
    if settings.orient == "auto":
        settings, data = oriented(settings, data, chosen, voice)
    if asked(settings.affine):
        settings, data = scaled(settings, data, chosen, voice)
    unstated = (
        settings.orient is None
        and settings.start is None
        and resume is None
        and not stated_orientation(data)
    )
    result, keeper, interrupt = _run(settings, data, chosen, places, voice, given, resume)
    save_result(places.result, result)
    if further and not interrupt.pressed:
        drawn(result, places)
        found = proposed(settings, data, result, chosen, voice)
        if found is not None:
            again, tried = found
            if (blur := again.data.get("blur")) != settings.data.get("blur"):
                data = replace(data, blur=blur)
            try:
                result, keeper, interrupt = _run(again, data, chosen, places, voice, given)
            except PtychonError as error:  # too little memory, say: the first result stays
                voice.say(f"{error}; the result is that without them")
            else:
                settings = again
                result = replace(result, settings={**result.settings, "tried": tried})
                save_result(places.result, result)
    bars, halted = None, False
    left = (
        f"the result without them is in {places.result}; for bars: ptychon error_bars "
        f"{places.result} -m {settings.error_bars}"
    )
    if settings.error_bars is not None and not interrupt.pressed:
        try:
            result, bars = _with_bars(settings, places, voice, chosen, data, result)
        except KeyboardInterrupt:
            halted = True
        except PtychonError as error:
            drawn(result, places)
            raise PtychonError(f"error bars: {error}; {left}") from error
    pictured = drawn(result, places)
    numbers = summary(result, places, pictured) | {
        "stopped": interrupt.pressed or halted,
        "checkpoint": None,
        "bars": bars,
    }
    if keeper.written is not None:
        numbers["checkpoint"] = str(places.checkpoint)
    if settings.report and not numbers["stopped"]:
        from ..reports.write import write_report

        numbers["report"] = str(
            write_report(
                [places.result], half_scans=settings.half_scans, backend=chosen, say=voice.say
            ).page
        )
    if voice.as_json:
        click.echo(json.dumps(numbers))
    elif not voice.quiet:
        show_summary(numbers)
    if unstated:
        same = " with the same options" if settings.data else ""
        voice.say(
            f"ptychon: {UNSTATED}: try ptychon orient {settings.input}{same}, or say --orient as-is"
        )
    if interrupt.pressed:
        done = f"stopped after pass {len(keeper.rows)} of {settings.passes}"
        click.echo(f"ptychon: {done}; go on with: ptychon resume {places.checkpoint}", err=True)
    elif halted:
        click.echo(f"ptychon: stopped while computing error bars; {left}", err=True)
    return 130 if numbers["stopped"] else 0


def _run(
    settings: Settings,
    data: Dataset,
    backend: Backend,
    places: Places,
    voice: Voice,
    given: dict[str, Any],
    resume: Checkpoint | None = None,
) -> tuple[Result, Checkpointer, Interrupt]:
    """Reconstruct as the settings say, with checkpoints and Ctrl-C."""
    from ..io import load_result
    from ..request.inputs import request_for
    from ..run.checkpoint import Checkpointer
    from ..run.compile import on_stderr
    from ..run.observers import Interrupt, ProgressBar
    from ..run.placing import probe_for
    from ..run.reconstruct import reconstruct

    request = request_for(settings)
    kept = {
        "request": request,
        "backend": backend.name,
        "result": str(places.result.resolve()),
    } | given
    kept["picture"] = str(places.picture.resolve())
    start = None if settings.start is None else load_result(settings.start)
    # passes that were done before are not among those that were asked for
    earlier = start.passes if start is not None else 0
    if resume is not None:
        earlier = resume.passes - len(resume.errors)
    bar = [ProgressBar(settings.engine, lines=voice.verbose, earlier=earlier)]
    with Interrupt() as interrupt:
        keeper = Checkpointer(
            places.checkpoint,
            settings.checkpoint_every,
            due=lambda: interrupt.pressed,
            settings=kept,
            resumed=resume,
        )
        result = reconstruct(
            data,
            settings.way(),
            backend=backend,
            callbacks=[*([] if voice.quiet else bar), interrupt, keeper],
            probe=None if settings.probe is None else probe_for(data, settings.probe),
            modes=settings.modes,
            start=start,
            slices=settings.slices,
            spacing=settings.slice_spacing,
            tilt=settings.tilt,
            seed=settings.seed,
            subpixel=settings.subpixel,
            resume=resume,
            details=voice.say if backend.name == "cupy" or voice.wants_details else None,
            say=None if voice.quiet else on_stderr,
            progress=False,
        )
    return with_origin(result, settings, request, data, given), keeper, interrupt


def drawn(result: Result, places: Places) -> bool:
    """Draw the picture, and say if that fails: the result is written already, and the run does not
    end in an error.
    """
    try:
        with uncollected():
            from ..plots.result import picture

            picture(result, places.picture)
        return True
    except Exception as error:  # whatever a library that draws may raise
        again = (
            f"the result is in {places.result}; for pictures of it: ptychon report {places.result}"
        )
        warnings.warn(
            f"the picture could not be drawn ({error}); {again}", PtychonWarning, stacklevel=2
        )
        return False


def _with_bars(
    settings: Settings, places: Places, voice: Voice, backend: Any, data: Dataset, result: Result
) -> tuple[Result, dict[str, Any]]:
    """The result with error bars, in the place of the one without; and their table."""
    from ..model.found import on_grid
    from ..uncertainty.call import method_for, with_bars
    from ..uncertainty.saved import save_posterior
    from .error_bars import numbers_of

    problem = on_grid(data, result)
    options: dict[str, Any] = {"seed": settings.seed}
    if settings.error_bars_prior is not None:
        options["prior"] = settings.error_bars_prior
    method, why = method_for(problem, result, str(settings.error_bars), backend=backend, **options)
    said = why or f"error bars by {settings.error_bars}"
    voice.say(f"{said}; the result without them is in {places.result}")
    with Bar(voice.quiet or voice.as_json) as tell:
        whole, posterior = with_bars(
            problem, result, method, backend, tell, places.result, places.result.name
        )
    save_posterior(places.result, whole, posterior)
    return replace(whole, object=posterior.object, object_std=posterior.object_std), numbers_of(
        posterior, result
    )


def scaled(
    settings: Settings, data: Dataset, backend: Any, voice: Voice
) -> tuple[Settings, Dataset]:
    """Settings and data with the scale, rotation and shear of the scan that were found."""
    from ..inspect.affine import asked, search

    found = search(
        data,
        asked(settings.affine),
        backend=backend,
        say=(lambda text: voice.say(f"affine: {text}")) if voice.verbose else None,
    )
    voice.say(f"affine: {found.sentence()}")
    return settings.model_copy(update={"affine": str(found.affine)}), found.affine.apply(data)


def oriented(
    settings: Settings, data: Dataset, backend: Any, voice: Voice
) -> tuple[Settings, Dataset]:
    """Settings and data with the orientation that was found."""
    from ..inspect.orientation import find

    ranking = find(
        data,
        backend=backend,
        say=(lambda text: voice.say(f"orientation: {text}")) if voice.verbose else None,
    )
    best = ranking.best.orientation
    if not ranking.decided:
        raise PtychonError(
            f"--orient auto: the data cannot decide ({best} leads by {ranking.margin:.1f} "
            "standard errors only); look at "
            f"ptychon orient {settings.input} and choose one with --orient"
        )
    voice.say(
        f"orientation: {best}, {ranking.margin:.0f} standard errors before the next "
        f"({ranking.seconds:.0f} s)"
    )
    return settings.model_copy(update={"orient": str(best)}), best.apply(data)


def with_origin(
    result: Result,
    settings: Settings,
    request: dict[str, Any],
    data: Dataset,
    given: dict[str, Any],
) -> Result:
    """The result, with all that is needed to repeat it and to judge it: request, input and its
    hash, how it was read.
    """
    known = {
        name: getattr(data, name)
        for name in ("wavelength", "distance", "geometry", "detector_pixel_size")
    }
    known |= {"magnification": data.magnification, "counting": data.counting}
    more = {
        "input": Path(settings.input).name,
        "name": data.name,
        "notes": dict(data.notes),
        "request": request,
        "scan": known,
    }
    return replace(
        result, settings=dict(result.settings) | more, provenance=dict(result.provenance) | given
    )


def _tell_sources(data: Dataset) -> None:
    for title, key in (("file", "read"), ("given", "given")):
        entries = data.notes.get(key)
        if isinstance(entries, dict):
            for name, where in entries.items():
                click.echo(
                    f"{title}: {name} = {where}"
                    if key == "given"
                    else f"{title}: {name} from {where}",
                    err=True,
                )
