"""``ptychon reconstruct A B --share probe``: scans that share object or probe, one result each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..types import PtychonError

if TYPE_CHECKING:
    from ..request.settings import Settings
    from ..run.checkpoint import Checkpoint
    from .places import Places, Voice


def several(
    settings: Sequence[Settings],
    share: str,
    voice: Voice,
    places: Sequence[Places],
    *,
    shift: Any = None,
    backend: str = "auto",
    hashes: Sequence[str | None],
    resume: Checkpoint | None = None,
) -> int:
    """Reconstruct scans together and write a result and a picture for each, and a report of all of
    them where it is asked for; the exit code.

    Parameters
    ----------
    settings : sequence of Settings
        One a scan, alike but for its input and the result that it starts from.
    share : {"probe", "object", "both"}
    voice : Voice
    places : sequence of Places
        Of each scan. The checkpoint is that of the first.
    shift : "search", or (S - 1, 2) floats, optional
        As `reconstruct` takes it.
    backend : str
    hashes : sequence of str or None
        SHA-256 of each input, if it is known.
    resume : Checkpoint, optional
    """
    from ..backends import get_backend
    from ..io import load_result, save_result
    from ..request.inputs import open_data, request_for
    from ..run.checkpoint import Checkpointer
    from ..run.compile import on_stderr
    from ..run.observers import Interrupt, ProgressBar
    from ..run.placing import probe_for
    from ..run.reconstruct import reconstruct
    from .run import drawn, with_origin
    from .summary import show_summary, summary

    first = settings[0]
    chosen = get_backend(backend)
    data = [open_data(one) for one in settings]
    start = [load_result(one.start) for one in settings if one.start is not None] or None
    earlier = 0 if start is None else start[0].passes
    if resume is not None:
        earlier = resume.passes - len(resume.errors)
    shares = {"share": share, "shift": shift, "hashes": list(hashes)}
    kept = {
        "request": request_for(first),
        "backend": chosen.name,
        "several": shares
        | {
            "requests": [request_for(one) for one in settings],
            "results": [str(place.result.resolve()) for place in places],
        },
    }
    bar = [ProgressBar(first.engine, lines=voice.verbose, earlier=earlier)]
    with Interrupt() as interrupt:
        keeper = Checkpointer(
            places[0].checkpoint,
            first.checkpoint_every,
            due=lambda: interrupt.pressed,
            settings=kept,
            resumed=resume,
        )
        results = reconstruct(
            data,
            first.way(),
            share=share,
            shift=shift,
            backend=chosen,
            callbacks=[*([] if voice.quiet else bar), interrupt, keeper],
            probe=None if first.probe is None else probe_for(data[0], first.probe),
            start=start,
            modes=first.modes,
            slices=first.slices,
            spacing=first.slice_spacing,
            tilt=first.tilt,
            seed=first.seed,
            subpixel=first.subpixel,
            resume=resume,
            say=None if voice.quiet else on_stderr,
            progress=False,
        )
    told: list[dict[str, Any]] = []
    for one, scan, place, result, sha in zip(settings, data, places, results, hashes, strict=True):
        known = {} if sha is None else {"input_sha256": sha}
        whole = with_origin(result, one, request_for(one), scan, known)
        save_result(place.result, whole)
        numbers = summary(whole, place, drawn(whole, place))
        more = {"bars": None, "stopped": interrupt.pressed, "shared": share, "checkpoint": None}
        told.append(numbers | more)
    if keeper.written is not None:
        told[0]["checkpoint"] = str(places[0].checkpoint)
    if first.report and not interrupt.pressed:
        from ..reports.write import write_report

        page = write_report([place.result for place in places], backend=chosen, say=voice.say).page
        told[0]["report"] = str(page)
    if voice.as_json:
        click.echo(json.dumps(told))
    elif not voice.quiet:
        for one, numbers in zip(settings, told, strict=True):
            click.echo(f"{Path(one.input).name}, {share if share != 'both' else 'all'} shared")
            show_summary(numbers)
    if interrupt.pressed:
        done = f"stopped after pass {len(keeper.rows)} of {first.passes}"
        click.echo(f"ptychon: {done}; go on with: ptychon resume {places[0].checkpoint}", err=True)
    return 130 if interrupt.pressed else 0


def refuse(settings: Sequence[Settings]) -> None:
    """Refuse what is for one scan.

    Raises
    ------
    PtychonError
    """
    from ..inspect.affine import asked

    first = settings[0]
    each = "leave it out; ptychon error_bars takes the result of each scan"
    for name, given in (
        ("--output", first.output),
        ("--picture", first.picture),
        ("--error-bars", first.error_bars),
        ("--orient auto", "" if first.orient == "auto" else None),
        ("--affine search", "" if asked(first.affine) else None),
    ):
        if given is not None:
            raise PtychonError(f"{name} is for one scan, and {len(settings)} are given: {each}")


def begun(
    settings: Sequence[Settings],
    share: str,
    voice: Voice,
    default: str,
    *,
    shift: str | None,
    force: bool,
) -> int:
    """A run of several scans from the command line; the exit code.

    Parameters
    ----------
    settings, share, voice
        As `several` takes them.
    default : str
        Name of a result, with {stem} for that of its scan.
    shift : str, optional
        "search", or "DY,DX" for each scan but the first, with ; between them.
    force : bool
        Write over results that exist.
    """
    from ..io.places import stem_of
    from ..request.inputs import input_hash
    from .places import Places

    refuse(settings)
    places = [
        Places.of(one, default.format(stem=stem_of(one.input), engine=one.engine), force=force)
        for one in settings
    ]
    if len({place.result for place in places}) < len(places):
        raise PtychonError(
            f"scans of one name, {places[0].result}, would have one result: rename one of them"
        )
    hashes = [input_hash(one.input) for one in settings]
    moves = None if shift is None else _moves(shift)
    backend = settings[0].backend
    return several(settings, share, voice, places, shift=moves, backend=backend, hashes=hashes)


def resumed(checkpoint: Checkpoint, path: str, voice: Voice, given: dict[str, Any]) -> int:
    """Go on with several scans from a checkpoint; the exit code.

    Parameters
    ----------
    checkpoint : Checkpoint
    path : str
        Of it.
    voice : Voice
    given : dict
        What is said now: passes, in all, backend and so on.
    """
    from ..request.settings import validated
    from .going_on import passes_left, unchanged_input
    from .places import Places

    kept = dict(checkpoint.settings["several"])
    passes = given.pop("passes")
    backend = given.pop("backend") or str(checkpoint.settings.get("backend", "auto"))
    settings, places, hashes = [], [], list(kept["hashes"])
    for request, result, sha in zip(kept["requests"], kept["results"], hashes, strict=True):
        values = dict(request)
        source = unchanged_input(values, path, sha)
        values |= {"input": str(source), "output": None, "picture": None}
        values |= {name: value for name, value in given.items() if value is not None}
        values |= passes_left(values, checkpoint, path, passes)
        one = validated(values, path)
        settings.append(one)
        # the results that the stopped run has left are its own
        own = one.model_copy(update={"output": result})
        places.append(Places.of(own, "", force=True))
    refuse(settings)
    voice.say(f"going on after pass {len(checkpoint.errors)} of {settings[0].passes}")
    return several(
        settings,
        str(kept["share"]),
        voice,
        places,
        shift=kept["shift"],
        backend=backend,
        hashes=hashes,
        resume=checkpoint,
    )


def _moves(text: str) -> str | list[list[float]]:
    """What --shift says: "search", or lengths."""
    from ..units import parse

    if text == "search":
        return text
    pairs = [pair.split(",") for pair in text.split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise PtychonError(
            f"--shift is {text!r}; give search, or dy,dx of each scan but the first with ; between "
            "them, such as 2um,-0.5um"
        )
    return [[parse(part, "length", "--shift") for part in pair] for pair in pairs]


__all__ = ["begun", "refuse", "resumed", "several"]
