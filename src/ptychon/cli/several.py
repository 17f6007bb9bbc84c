"""``ptychon reconstruct A B --share probe``: scans that share object or probe, one result each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..types import PtychonError

if TYPE_CHECKING:
    from ..request.settings import Settings
    from .run import Voice


def several(
    settings: list[Settings], share: str, voice: Voice, default: str, *, force: bool
) -> int:
    """Reconstruct scans together and write a result and a picture for each; the exit code.

    Parameters
    ----------
    settings : list of Settings
        One a scan, alike but for its input.
    share : {"probe", "object", "both"}
    voice : Voice
    default : str
        Name of a result, with {stem} for that of its scan.
    force : bool
        Write over results that exist.
    """
    from ..backends import get_backend
    from ..inspect.affine import asked
    from ..io import save_result
    from ..io.places import stem_of
    from ..request.settings import input_hash, open_data, request_for
    from ..run.compile import on_stderr
    from ..run.observers import Interrupt, ProgressBar
    from ..run.reconstruct import reconstruct
    from .run import Places, drawn, show_summary, summary, with_origin

    first = settings[0]
    for name, given in (
        ("--output", first.output),
        ("--picture", first.picture),
        ("--error-bars", first.error_bars),
        ("--report", first.report or None),
        ("--checkpoint-every", first.checkpoint_every),
        ("--start", first.start),
        ("--probe", first.probe),
        ("--slices", first.slices),
        ("--orient auto", "" if first.orient == "auto" else None),
        ("--affine search", "" if asked(first.affine) else None),
    ):
        if given is not None:
            raise PtychonError(
                f"{name} is for one scan, and {len(settings)} are given: leave it out; results are "
                "named after their scans, and ptychon error_bars and ptychon report take each of "
                "them"
            )
    places = [
        Places.of(one, default.format(stem=stem_of(one.input), engine=one.engine), force=force)
        for one in settings
    ]
    if len({place.result for place in places}) < len(places):
        raise PtychonError(
            f"scans of one name, {places[0].result}, would have one result: rename one of them"
        )
    backend = get_backend(first.backend)
    data = [open_data(one) for one in settings]
    bar = [] if voice.quiet else [ProgressBar(first.engine, lines=voice.verbose)]
    with Interrupt() as interrupt:
        results = reconstruct(
            data,
            first.way(),
            share=share,
            backend=backend,
            callbacks=[*bar, interrupt],
            modes=first.modes,
            seed=first.seed,
            subpixel=first.subpixel,
            say=None if voice.quiet else on_stderr,
            progress=False,
        )
    told: list[dict[str, Any]] = []
    for one, scan, place, result in zip(settings, data, places, results, strict=True):
        sha256 = input_hash(one.input)
        known = {} if sha256 is None else {"input_sha256": sha256}
        whole = with_origin(result, one, request_for(one), scan, known)
        save_result(place.result, whole)
        numbers = summary(whole, place, drawn(whole, place))
        told.append(numbers | {"bars": None, "stopped": interrupt.pressed, "shared": share})
    if voice.as_json:
        click.echo(json.dumps(told))
    elif not voice.quiet:
        for one, numbers in zip(settings, told, strict=True):
            click.echo(f"{Path(one.input).name}, {share if share != 'both' else 'all'} shared")
            show_summary(numbers)
    return 130 if interrupt.pressed else 0


__all__ = ["several"]
