"""Engines: one algorithm family a file, found by name."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from ..model.unknowns import Unknowns
from ..types import PtychonError, PtychonWarning
from .base import OPTION_OF, Context, Engine, Estimate, Report, State
from .difference_map import RAAR, DifferenceMap
from .joint_posterior import Joint
from .lsqml import LSQML
from .ml import ML
from .mpie import MPIE
from .pie import EPIE, PIE, RPIE
from .ptycho_ep import PtychoEP
from .update import After, Update

if TYPE_CHECKING:
    from ..data.result import Result
    from ..model.problem import Problem

__all__ = [
    "EPIE",
    "LSQML",
    "ML",
    "MPIE",
    "PIE",
    "RAAR",
    "RPIE",
    "After",
    "Context",
    "DifferenceMap",
    "Engine",
    "Estimate",
    "Joint",
    "PtychoEP",
    "Registry",
    "Report",
    "State",
    "Update",
    "able",
    "check_copes",
    "check_engine",
    "make",
    "moves_probe",
    "options",
    "registry",
    "split",
    "updated",
]

#: Entry point by which a package offers engines of its own: its names are those of the engines.
GROUP = "ptychon.engines"
#: Names of what an engine may move.
UNKNOWNS = tuple(f.name for f in fields(Unknowns))


class Registry(Mapping[str, Any]):
    """Engine classes by name: our own, those of other packages (entry points "ptychon.engines"),
    and those that were added.
    """

    def __init__(self, *own: Any) -> None:
        self._own: dict[str, Any] = {cls.name: cls for cls in own}
        self._others: dict[str, Any] | None = None

    def add(self, cls: Any) -> Any:
        """Make an engine known by its name, in this process; returns it, so that it may decorate
        the class.

        Raises
        ------
        PtychonError
            If it lacks what an engine must have, or another one has the name.
        """
        check_engine(cls)
        if self._all().get(cls.name, cls) is not cls:
            raise PtychonError(
                f"there is an engine {cls.name!r} already; give {cls.__name__} another name"
            )
        self._own[cls.name] = cls
        return cls

    def _all(self) -> dict[str, Any]:
        if self._others is None:
            self._others = {}
            for point in entry_points(group=GROUP):
                try:
                    cls = point.load()
                    check_engine(cls)
                    if point.name != cls.name or point.name in self._own:
                        taken = (
                            "is taken"
                            if point.name in self._own
                            else f"is not its own, {cls.name!r}"
                        )
                        raise PtychonError(f"the name {point.name!r} {taken}")
                except Exception as error:
                    warnings.warn(
                        f"engine {point.name!r} of {point.value} is left out: {error}",
                        PtychonWarning,
                        stacklevel=2,
                    )
                else:
                    self._others[point.name] = cls
        return {**self._own, **self._others}

    def __getitem__(self, name: str) -> Any:
        return self._own[name] if name in self._own else self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def able(feature: str) -> str:
    """Names of the engines that cope with a feature (see `Engine.copes`), for a sentence."""
    return ", ".join(name for name, cls in registry.items() if feature in cls.copes)


def check_copes(engine: Engine, problem: Problem) -> None:
    """Refuse a problem that the engine would get wrong, naming the engines that can.

    Raises
    ------
    PtychonError
        Near-field frames, masked pixels or several slices, where the engine does not cope with
        them.
    """
    for feature, there, what in (
        ("near field", problem.near_field, "near-field frames"),
        ("masks", not bool(problem.mask.all()), "masked pixels"),
        ("slices", problem.slices is not None, "an object of several slices"),
        ("spread", problem.spread is not None, "pixels that share light (--blur, --upsample)"),
    ):
        if there and feature not in engine.copes:
            raise PtychonError(
                f"engine {engine.name!r} does not take {what}; these do: {able(feature)}"
            )


def check_engine(cls: Any) -> None:
    """Refuse what is no engine, and say why.

    Raises
    ------
    PtychonError
        Not a subclass of `Engine`, not a frozen dataclass, no name, a declaration of the wrong
        kind.
    """
    name = getattr(cls, "__name__", repr(cls))
    if not (isinstance(cls, type) and issubclass(cls, Engine)):
        raise PtychonError(f"{name} is not a subclass of ptychon.engines.Engine")
    params: Any = getattr(cls, "__dataclass_params__", None)
    if params is None or not params.frozen:
        raise PtychonError(
            f"{name} is not a frozen dataclass; write @dataclass(frozen=True, kw_only=True) "
            "above it"
        )
    own = getattr(cls, "name", None)
    if not isinstance(own, str) or not own.isidentifier():
        raise PtychonError(
            f"{name} has no name; declare one, such as name: ClassVar[str] = {name.lower()!r}"
        )
    # a subclass that forgot its own would be found under that of its parent
    if "name" not in vars(cls):
        raise PtychonError(f"{name} has the name of its parent, {own!r}; declare its own")


registry = Registry(PIE, EPIE, RPIE, MPIE, DifferenceMap, RAAR, LSQML, PtychoEP, Joint, ML)


def make(name: str, **values: Any) -> Engine:
    """An engine by name with some of its options set; scalars of NumPy are numbers too.

    Raises
    ------
    PtychonError
        Unknown engine or option, with the nearest valid name; an option out of range.
    """
    if name not in registry:
        raise PtychonError(f"unknown engine {name!r}; {nearest(name, registry)}")
    cls = registry[name]
    known = options(cls)
    values = {key: plain(value) for key, value in values.items()}
    for key, value in values.items():
        if key not in known:
            raise PtychonError(f"engine {name!r} has no option {key!r}; {nearest(key, known)}")
        if value is not None or key not in optional(cls):
            _check_type(key, value, known[key], kinds(cls)[key])
    engine: Engine = cls(**values)
    return engine


def updated(engine: Engine, update: Update) -> Engine:
    """The engine, moving the unknowns that are named when it is said. Those that only may change
    between its passes are the matter of the run (see `split`).

    Raises
    ------
    PtychonError
        For something that is no unknown, or one that this engine cannot move so, with the engines
        that can.
    """
    update = split(engine, update)[0]
    for name in update:
        if name in engine.moves:
            continue
        if name not in UNKNOWNS:
            known = [OPTION_OF.get(n, n) for n in UNKNOWNS]
            raise PtychonError(f"there is no unknown {name!r}; {nearest(name, known)}")
        free = ", ".join(
            other for other, cls in registry.items() if name in cls.moves | cls.follows
        )
        able_to = f"these do: {free}" if free else "no engine does yet"
        raise PtychonError(f"engine {engine.name!r} does not move {name!r}; {able_to}")
    for name, when in update.items():
        if when is False and not _holds(engine, name):
            others = ", ".join(other for other, cls in registry.items() if _holds(cls(), name))
            able_to = f"these can hold it: {others}" if others else "no engine holds it"
            raise PtychonError(f"engine {engine.name!r} always moves {name!r}; {able_to}")
    return engine.updating(update)


def split(engine: Engine, update: Update) -> tuple[Update, Update]:
    """What an engine is to move itself, and what is refined between its passes, by the names of
    fields of `Unknowns`.
    """
    names = {option: name for name, option in OPTION_OF.items()}
    update = {names.get(name, name): when for name, when in update.items()}
    between = engine.follows - engine.moves
    own = {name: when for name, when in update.items() if name not in between}
    return own, {name: when for name, when in update.items() if name in between}


def _holds(engine: Engine, name: str) -> bool:
    """Whether it can leave an unknown as it is."""
    try:
        return name not in engine.moves or bool(engine.timed(name, False))
    except PtychonError:
        return False


def plain(value: Any) -> Any:
    """A scalar of NumPy or CuPy, or an array of no dimensions, as the number of Python that it is;
    anything else as it is.
    """
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def options(cls: Any) -> dict[str, Any]:
    """Option names of an engine class and their defaults."""
    return {f.name: None if f.default is MISSING else f.default for f in fields(cls)}


def optional(cls: Any) -> frozenset[str]:
    """Names of the options that may be None."""
    return frozenset(f.name for f in fields(cls) if str(f.type).endswith("| None"))


def kinds(cls: Any) -> dict[str, type]:
    """Option names of an engine class and their types; of those that are None by default, what else
    they may be.
    """
    by_name = {"bool": bool, "int": int, "float": float, "str": str}
    return {
        f.name: by_name.get(str(f.type).removesuffix(" | None"), type(None))
        if default is None
        else type(default)
        for f, default in zip(fields(cls), options(cls).values(), strict=True)
    }


def nearest(name: str, known: Any) -> str:
    """'did you mean ...?' and the list of what is known."""
    close = difflib.get_close_matches(name, list(known), 1, 0.5)
    hint = f"did you mean {close[0]!r}? Known are" if close else "known are"
    return f"{hint} {', '.join(known)}"


def _check_type(key: str, value: Any, default: Any, kind: type) -> None:
    ok = (
        kind is type(None)
        or (default is None and value is None)
        or (kind is bool and isinstance(value, bool))
        or (kind is int and isinstance(value, int) and not isinstance(value, bool))
        or (kind is float and isinstance(value, (int, float)) and not isinstance(value, bool))
        or (kind is str and isinstance(value, str))
    )
    if not ok:
        raise PtychonError(
            f"option {key!r} is {value!r}; it must be of type {kind.__name__}"
            + (", or None" if default is None else f", like its default {default!r}")
        )


def moves_probe(result: Result) -> bool:
    """Whether the engine of a result learned the probe."""
    return make(result.engine, **result.options).moves_probe
