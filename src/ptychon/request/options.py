"""Options as text: those of a run beside the engine's own, and values of the right type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..types import PtychonError

if TYPE_CHECKING:
    from ..engines import Update
    from ..run.recipe import Stage

    _ParamType = click.ParamType[Any]

#: Options of a run that --set takes beside those of the engine: kind, default, meaning.
RUN_OPTIONS: dict[str, tuple[type, Any, str]] = {
    "schedule": (
        str,
        None,
        "sequential, wavefronts, colours, minibatch, parallel, compact or sparse; default what the "
        "engine asks for",
    ),
    "batch_size": (
        int,
        None,
        "frames of a batch of the schedules minibatch (default 16), compact and sparse (default a "
        "tenth of all, at most 64 or 32)",
    ),
    "shuffle": (
        bool,
        None,
        "visit frames in a new order every pass; default true for epie and rpie",
    ),
    "until": (
        str,
        None,
        "end before the last pass: still:1e-4 (the object changes by less for five passes; ep), "
        "settled:0.005 (R does) or below:0.1 (R is)",
    ),
}

_TRUE, _FALSE, _NONE = (
    ("true", "yes", "on", "1"),
    ("false", "no", "off", "0"),
    ("none", "null", "auto"),
)


def typed(name: str, text: str, kind: type, default: Any) -> Any:
    """The value of an option from its text: of type `kind`, or None where that is the default.

    Raises
    ------
    PtychonError
        If the text is not of that type.
    """
    lowered = text.lower()
    if default is None and lowered in _NONE:
        return None
    if kind is bool and lowered in (*_TRUE, *_FALSE):
        return lowered in _TRUE
    try:
        if kind is int:
            return int(text)
        if kind is float:
            return float(text)
    except ValueError:
        pass
    if kind is str:
        return text
    if kind is type(None):  # nothing is known of its type
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else _number_or_text(text)
    what = {bool: "true or false", int: "a whole number", float: "a number"}.get(
        kind, kind.__name__
    )
    like = ", or none" if default is None else f", like its default {default!r}"
    raise PtychonError(f"option {name} is {text!r}; it must be {what}{like}")


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def split_options(
    engine: str, values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Options of a known engine, options of the run, and all that is wrong with them."""
    from ..engines import kinds, make, nearest, optional, options, registry
    from ..run.schedule import KINDS
    from ..run.until import rule_of

    known = options(registry[engine])
    chosen: dict[str, Any] = {}
    run: dict[str, Any] = {}
    wrong: list[str] = []
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known and name not in RUN_OPTIONS:
            wrong.append(
                f"engine {engine!r} has no option {name!r}; {nearest(name, [*known, *RUN_OPTIONS])}"
            )
            continue
        kind, default = (
            (kinds(registry[engine])[name], known[name]) if name in known else RUN_OPTIONS[name][:2]
        )
        try:
            # numbers in YAML without a point before the exponent are text
            if isinstance(value, str):
                none = value.lower() in _NONE and name in optional(registry[engine])
                value = None if none else typed(name, value, kind, default)
            if name in known:
                make(engine, **{name: value})
                chosen[name] = value
                continue
            whole = kind is float and isinstance(value, int) and not isinstance(value, bool)
            if not (value is None and default is None) and not whole and type(value) is not kind:
                raise PtychonError(
                    f"option {name!r} is {value!r}; it must be of type {kind.__name__}"
                )
            if name == "schedule" and value is not None and value not in KINDS:
                raise PtychonError(f"schedule is {value!r}; choose one of {', '.join(KINDS)}")
            if name == "until" and value is not None:
                rule_of(value)
            if name == "batch_size" and value is not None and value < 1:
                raise PtychonError(f"batch size is {value}; it must be at least 1")
            run[name] = value
        except PtychonError as error:
            wrong.append(str(error))
    if not wrong:
        try:
            make(engine, **chosen)
        except PtychonError as error:
            wrong.append(str(error))
    return chosen, run, wrong


def stage_of(
    engine: str, passes: int, values: Mapping[str, Any], update: Update, seed: int
) -> Stage:
    """The one stage that an engine, its passes and options as --set takes them ask for.

    Raises
    ------
    PtychonError
        For an option that is unknown or out of range, or an unknown that the engine cannot move.
    """
    from ..engines import make
    from ..run.recipe import Stage
    from ..run.schedule import Schedule
    from ..run.until import rule_of

    chosen, run, wrong = split_options(engine, values)
    if wrong:
        raise PtychonError("; ".join(wrong))
    known = make(engine, **chosen)
    shuffle = run.get("shuffle")
    schedule = Schedule(
        kind=run.get("schedule") or known.schedule,
        size=run.get("batch_size"),
        shuffle=known.shuffle if shuffle is None else shuffle,
        seed=seed,
    )
    asked = {"schedule", "batch_size", "shuffle"} & set(run)
    until = run.get("until")
    return Stage(
        engine,
        passes,
        options=chosen,
        update=update,
        until=() if until is None else (rule_of(until),),
        schedule=schedule if asked else None,
    )
