"""What a run goes on with by itself: the unknowns that the scan asks for, where object and probe
alone do not explain it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..types import PtychonError

if TYPE_CHECKING:
    from ..backends.base import Backend
    from ..data.dataset import Dataset
    from ..data.result import Result
    from ..inspect.proposal import Proposal
    from ..request.settings import Settings

#: Misfit in units of the noise above which unknowns are missing: runs of faultless scans that have
#: not quite converged end at 1.2.
MISSING = 1.5
#: Seconds that a run may go on by itself; of a longer one only the command is told.
LONGEST = 1800.0


def proposed(
    settings: Settings, data: Dataset, result: Result, backend: Backend, voice: Any
) -> tuple[Settings, list[str]] | None:
    """The settings with the unknowns that the scan asks for, and what was tried, one sentence each;
    None where none are missing, nobody knows the noise, the result is wrong for another reason, or
    Ctrl-C was pressed.

    Parameters
    ----------
    settings : Settings
        Of the run.
    data : Dataset
    result : Result
        Of the run.
    backend : Backend
    voice : Voice
    """
    from ..inspect.proposal import propose
    from ..metrics.residual import misfit_over_noise
    from ..model.found import on_grid
    from ..run.doubts import all_doubts

    problem = on_grid(data, result)
    excess = misfit_over_noise(problem, result.object, result.probe, backend)
    if not (np.isfinite(excess) and excess > MISSING):
        return None
    if any(doubt.level == "bad" for doubt in all_doubts(result, problem)):
        return None
    voice.say(
        f"the misfit is {excess:.2g} times that of the noise; finding which unknowns are missing "
        "(Ctrl-C keeps the result so far, -e rpie leaves this out)"
    )
    try:
        found = propose(data, backend=backend, say=voice.say)
    except KeyboardInterrupt:
        voice.say("stopped; the result is that without them")
        return None
    except PtychonError as error:
        voice.say(str(error))
        return None
    if found.modes == len(result.probe) and not found.free and found.blur is None:
        voice.say("none of those that were tried foretells the data better")
        return None
    blur = "" if found.blur is None else f", blur: {found.blur:.2g}"
    seconds = _seconds(found, result)
    if seconds > LONGEST:
        voice.say(
            f"{found.recipe} with {found.modes} modes{blur} would take about "
            f"{seconds / 60:.0f} min; to run it: ptychon inspect {settings.input} "
            "--propose settings.yaml, and ptychon reconstruct settings.yaml"
        )
        return None
    voice.say(
        f"again with {found.recipe}, modes: {found.modes}{blur}; about "
        f"{max(seconds / 60, 1):.0f} min"
    )
    again = settings.model_copy(
        update={
            "recipe": found.recipe.stored(),
            "modes": found.modes,
            "passes": found.recipe.passes,
            **({} if found.blur is None else {"data": {**settings.data, "blur": found.blur}}),
        }
    )
    return again, found.lines()[:-1]


def _seconds(found: Proposal, result: Result) -> float:
    """What a proposal takes, by the time that the passes of a result took."""
    return found.cost * result.seconds / max(result.passes, 1)


__all__ = ["proposed"]
