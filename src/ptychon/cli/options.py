"""What the commands share: quantities with units as options, and options of engines as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..request.options import RUN_OPTIONS, typed
from ..types import PtychonError
from ..units import Dimension, parse, parse_pair, parse_shape
from . import complete
from .prepare import PREPARE

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:  # generic to type checkers only in older versions
    _ParamType = click.ParamType


class Quantity(_ParamType):
    """A number with a unit, ``3.65mm``; plain numbers are SI. With `pair`, two of them with a
    comma.
    """

    def __init__(self, dimension: Dimension, pair: bool = False) -> None:
        self.dimension: Dimension = dimension
        self.pair = pair
        self.name = dimension

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """SI, or a usage error."""
        if not isinstance(value, str):
            return value
        try:
            return parse_pair(value, self.dimension) if self.pair else parse(value, self.dimension)
        except PtychonError as error:
            self.fail(str(error), param, ctx)


class Shape(_ParamType):
    """``40x60``: rows x columns."""

    name = "rows x columns"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """(rows, columns), or a usage error."""
        if not isinstance(value, str):
            return value
        try:
            return parse_shape(value, "it")
        except PtychonError as error:
            self.fail(str(error), param, ctx)


#: What a file does not say of a scan; names are those of `ptychon.load`.
_DATA: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("--near-field/--far-field", "near"),
        {
            "default": None,
            "help": "State the geometry; default what the file says, else far field.",
        },
    ),
    (("--wavelength",), {"type": Quantity("length"), "help": "State the wavelength."}),
    (
        ("--energy",),
        {"type": Quantity("energy"), "help": "State the photon energy instead of the wavelength."},
    ),
    (
        ("--voltage",),
        {
            "type": Quantity("voltage"),
            "help": "State the acceleration voltage of the electrons instead of the wavelength.",
        },
    ),
    (
        ("--distance",),
        {"type": Quantity("length"), "help": "State the distance from sample to detector."},
    ),
    (
        ("--focus-distance",),
        {
            "type": Quantity("length"),
            "help": "State the distance from focus to sample (near field, cone beam).",
        },
    ),
    (
        ("--detector-pixel-size",),
        {
            "type": Quantity("length", pair=True),
            "help": "State the pixel size of the detector; or Y,X.",
        },
    ),
    (
        ("--pixel-size",),
        {
            "type": Quantity("length", pair=True),
            "help": "State the pixel size of the object, before crop and bin.",
        },
    ),
    (
        ("--scan-shape",),
        {
            "type": Shape(),
            "metavar": "SLOWxFAST",
            "help": "Make a raster of so many positions, where the file lists none.",
        },
    ),
    (
        ("--step",),
        {
            "type": Quantity("length", pair=True),
            "help": "State the step of that raster; or SLOW,FAST.",
        },
    ),
    (
        ("--rotation",),
        {"type": Quantity("angle"), "help": "State the angle of that raster against the detector."},
    ),
    (
        ("--semi-angle",),
        {
            "type": Quantity("angle"),
            "help": "State the convergence semi-angle of an electron probe, for the first guess.",
        },
    ),
    (
        ("--defocus",),
        {
            "type": Quantity("length"),
            "help": "State the defocus of that probe; positive is underfocus (C1 = -defocus).",
        },
    ),
    (
        ("--data-path",),
        {"metavar": "NAME", "help": "Name the dataset in the file that holds the frames."},
    ),
    (
        ("--positions-path",),
        {
            "metavar": "NAME",
            "help": "Name the dataset or file with the positions; or FILE:Y,X, its columns.",
        },
    ),
    (
        ("--position-units",),
        {"metavar": "UNIT", "help": "State the unit of the positions: px, m, mm, um or nm."},
    ),
    (
        ("--amplitudes/--intensities", "amplitudes"),
        {
            "default": None,
            "help": "State whether the frames are square roots of counts (amplitudes).",
        },
    ),
    *PREPARE,
)


def at_least(least: int) -> Callable[[click.Context, click.Parameter, int | None], int | None]:
    """Callback of an option whose number must not be smaller."""

    def checked(context: click.Context, option: click.Parameter, value: int | None) -> int | None:
        if value is not None and value < least:
            raise PtychonError(
                f"{max(option.opts, key=len)} is {value}; it must be at least {least}"
            )
        return value

    return checked


#: The same in every command that has them.
BACKEND = click.option(
    "--backend",
    default="auto",
    show_default=True,
    shell_complete=complete.of(complete.backends),
    help="auto, numpy, cupy (GPU) or reference.",
)
BACKGROUND = click.option(
    "--background",
    metavar="FILE|NUMBER",
    help="Mean background counts per pixel (FILE or FILE:DATASET), if not stored with the scan.",
)


def passes_option(help: str, default: int | None = None) -> Callable[[Any], Any]:
    """``-n/--passes``: passes over the data, and nothing else."""
    return click.option(
        "-n",
        "--passes",
        "passes",
        type=int,
        default=default,
        show_default=default is not None,
        callback=at_least(1),
        help=help,
    )


def seed_option(of: str) -> Callable[[Any], Any]:
    """``--seed``, with what it is for."""
    return click.option(
        "--seed", type=int, default=0, show_default=True, callback=at_least(0), help=of
    )


def output_options(
    quiet: str = "Print nothing, no progress either.", numbers: str = "Print the numbers as JSON."
) -> Callable[[Any], Any]:
    """``--quiet`` and ``--json``, with their help."""

    def added(command: Any) -> Any:
        command = click.option("--json", "as_json", is_flag=True, help=numbers)(command)
        return click.option("-q", "--quiet", is_flag=True, help=quiet)(command)

    return added


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that supply what a file does not say; `given_data` takes them out again."""
    for names, more in reversed(_DATA):
        command = click.option(*names, **more)(command)
    return command


def given_data(parameters: dict[str, Any]) -> dict[str, Any]:
    """Takes the values of `data_options` out of a command's parameters: those given, as
    `ptychon.load` wants them.
    """
    names = [names[-1].lstrip("-").replace("-", "_") for names, _ in _DATA]
    given = {name: parameters.pop(name) for name in names if name in parameters}
    near = given.pop("near", None)
    if near is not None:
        given["geometry"] = "near" if near else "far"
    return {name: value for name, value in given.items() if value is not None}


def engine_options(engine: str, settings: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``--set name=value`` texts as typed options of the engine and of the run.

    Raises
    ------
    PtychonError
        Unknown engine or option (with the nearest name), a value of the wrong type, a name set
        twice.
    """
    from ..engines import kinds, make, nearest, options, registry

    if engine not in registry:
        raise PtychonError(f"unknown engine {engine!r}; {nearest(engine, registry)}")
    known = options(registry[engine])
    chosen: dict[str, Any] = {}
    run: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        name = name.replace("-", "_")
        if not (name and equals):
            raise PtychonError(
                f"--set {setting!r} is not of the form name=value, for example --set "
                "object_step=0.8"
            )
        if name in chosen or name in run:
            raise PtychonError(f"--set {name} is given twice; give it once")
        if name in known:
            chosen[name] = typed(name, text, kinds(registry[engine])[name], known[name])
        elif name in RUN_OPTIONS:
            kind, default, _ = RUN_OPTIONS[name]
            run[name] = typed(name, text, kind, default)
        else:
            raise PtychonError(
                f"engine {engine!r} has no option {name!r}; {nearest(name, [*known, *RUN_OPTIONS])}"
            )
    make(engine, **chosen)  # ranges are checked now, before any data are read
    return chosen, run
