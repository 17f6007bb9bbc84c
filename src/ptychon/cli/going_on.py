"""What a stopped run is asked for when it goes on: its data where they are now, passes in all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..request.inputs import find_input
from ..run.checkpoint import Checkpoint
from ..types import PtychonError


def unchanged_input(values: dict[str, Any], path: str, sha256: str | None) -> Path:
    """The data of a request, found again.

    Parameters
    ----------
    values : dict
        The request.
    path : str
        Of the checkpoint.
    sha256 : str, optional
        Of the data when the run began.

    Raises
    ------
    PtychonError
        If they are not there, or changed.
    """
    source, state = find_input(values, path, sha256)
    if state == "changed":
        raise PtychonError(
            f"{source} has changed since {path} was written: the run cannot go on; start it again"
        )
    return source


def passes_left(
    values: dict[str, Any], checkpoint: Checkpoint, path: str, passes: int | None
) -> dict[str, Any]:
    """Passes in all, and the recipe that reaches them.

    Parameters
    ----------
    values : dict
        The request of the stopped run.
    checkpoint : Checkpoint
    path : str
        Of it.
    passes : int, optional
        In all, those of a run that this one started from included; default as planned.

    Raises
    ------
    PtychonError
        If they are done already.
    """
    # passes are counted from the beginning of this run; an earlier one that it started from is not
    # repeated
    done = len(checkpoint.errors)
    total = values["passes"] if passes is None else passes - (checkpoint.passes - done)
    left = {"passes": total}
    if values.get("recipe"):
        from ..run.recipe import Recipe

        recipe = Recipe.read(checkpoint.recipe)
        left["recipe"] = recipe.reaching(total, checkpoint.stage, checkpoint.done).stored()
    if total <= done:
        raise PtychonError(
            f"{path} has done {checkpoint.passes} passes already; give a larger number with "
            "--passes"
        )
    return left
