"""``ptychon resume``: from where a run was stopped to its result."""

from __future__ import annotations

from typing import Any

import click

from .options import passes_option
from .run_options import run_options
from .startup import import_for_run


@click.command(
    epilog="""\b
Examples
  ptychon resume scan_rpie.checkpoint.h5
  ptychon resume scan_rpie.checkpoint.h5 --passes 200 -o longer.h5
"""
)
@click.argument("checkpoint", type=click.Path())
@passes_option("Total number of passes, including those done; default as planned.")
@run_options
def resume(
    checkpoint: str,
    passes: int | None,
    force: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    backend: str | None,
    **stated: Any,
) -> int:
    """Continue from a CHECKPOINT, bit for bit as if the run had not been stopped.

    The data must be unchanged, and in their old place or beside the checkpoint.
    """
    import_for_run()
    from ..request.inputs import request_of
    from ..request.settings import validated
    from ..run.checkpoint import load_checkpoint
    from .going_on import passes_left, unchanged_input
    from .places import Places, Voice
    from .run import execute

    found = load_checkpoint(checkpoint)
    kept = found.settings
    voice = Voice(quiet=quiet, verbose=verbose, as_json=as_json)
    if "several" in kept:
        from .several import resumed

        stated |= {"passes": passes, "backend": backend}
        return resumed(found, checkpoint, voice, stated)
    values = request_of(kept, checkpoint)
    sha256 = kept.get("input_sha256")
    source = unchanged_input(values, checkpoint, sha256)
    values |= {"input": str(source), "output": kept.get("result"), "picture": kept.get("picture")}
    if stated["output"] is not None:
        values["picture"] = None
    values |= {name: value for name, value in stated.items() if value is not None}
    values |= passes_left(values, found, checkpoint, passes)
    settings = validated(values, checkpoint)
    # the result that the stopped run has left is its own
    places = Places.of(settings, "", force=force or stated["output"] is None)
    voice.say(f"going on after pass {len(found.errors)} of {settings.passes}")
    given = {} if sha256 is None else {"input_sha256": sha256}
    return execute(
        settings,
        places,
        voice,
        backend=backend or str(kept.get("backend", "auto")),
        given=given,
        resume=found,
    )
