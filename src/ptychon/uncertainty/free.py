"""What is free while error bars are computed: names of unknowns, as for a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ..engines import moves_probe, nearest
from ..engines.base import OPTION_OF
from ..types import PtychonError

if TYPE_CHECKING:
    from ..data.result import Result
    from ..model.problem import Problem

#: What may be free, and what every method can free.
FREE = (
    *("object", "probe", "positions", "log_scale"),
    *("variations", "weights", "background", "distance"),
)
USUAL = FREE[:2]

_NAMES = {option: name for name, option in OPTION_OF.items()}


def free_of(
    update: Collection[str], able: Collection[str] = USUAL, who: str = "it"
) -> tuple[str, ...]:
    """The unknowns that are free, in the order of `FREE`.

    Parameters
    ----------
    update : collection of str
        "object", and any of "probe", "positions", "dose" (or "log_scale"), "variations" and
        "weights" of a probe that varies, "background", and the "distance" of a near field.
    able : collection of str
        What can be free.
    who : str
        Whose limits these are, for a sentence.

    Raises
    ------
    PtychonError
        For something that is no unknown of a scan or cannot be free here; without the object.
    """
    names = [update] if isinstance(update, str) else list(update)
    wanted = [_NAMES.get(name, name) for name in names]
    for name in wanted:
        if name not in FREE:
            known = [OPTION_OF.get(n, n) for n in FREE]
            raise PtychonError(f"there is no unknown {name!r}; {nearest(name, known)}")
        if name not in able:
            can = " and ".join(able)
            raise PtychonError(
                f"{who} takes {OPTION_OF.get(name, name)} as known, it updates {can}; method "
                "'laplace' updates positions, dose, variations, weights, background and distance "
                "too"
            )
    if "object" not in wanted:
        raise PtychonError(
            f"the unknowns to update are {', '.join(names) or 'none'}; the object must be among "
            "them, such as object, probe"
        )
    return tuple(name for name in FREE if name in wanted)


def free_in(result: Result, update: Mapping[str, object]) -> tuple[str, ...]:
    """The unknowns that are free, from what a result updated and what is said beside.

    Parameters
    ----------
    result : Result
        Its object is free, and its probe where its engine has updated it.
    update : mapping of str to bool
        ``{"probe": False}`` or ``{"positions": True}``.

    Raises
    ------
    PtychonError
        For something that is no unknown, is neither True nor False, or an object that is held.
    """
    free = set(USUAL if moves_probe(result) else USUAL[:1])
    for given, when in update.items():
        name = _NAMES.get(given, given)
        if not isinstance(when, bool):
            raise PtychonError(
                f"update of {given} is {when}; error bars take yes or no, such as {given}:no"
            )
        free = free | {name} if when else free - {name}
    return free_of(free, FREE)


def possible(problem: Problem, free: tuple[str, ...]) -> None:
    """Refuse what these data cannot have free.

    Raises
    ------
    PtychonError
        For weights or variations of a probe that does not vary, variations of a probe that is
        held, or a distance that is none.
    """
    varying = [name for name in ("weights", "variations") if name in free]
    if varying and (problem.weights is None or problem.variations is None):
        what = " and ".join(varying)
        raise PtychonError(
            f"{what} can be free of a probe that varies, and this result has none; reconstruct "
            f"with engine ml and its option variations first, or leave {what} out of update"
        )
    if "variations" in free and "probe" not in free:
        raise PtychonError(
            "the variations of a probe are free together with it; free the probe too, or leave "
            "variations out of update"
        )
    if "distance" not in free:
        return
    if not problem.near_field:
        raise PtychonError(
            "a distance can be free in the near field; in the far field it is a scale of the scan, "
            "which free positions hold: free positions, and leave distance out of update"
        )
    if getattr(problem.propagator, "phase", None) is None:
        raise PtychonError(
            "this propagator does not say how its phase grows with the distance; make it with "
            "NearField.through, or leave distance out of update"
        )
