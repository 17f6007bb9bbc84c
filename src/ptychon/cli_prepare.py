"""Options that say how frames are prepared; their values go to `ptychon.load`, which checks them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

#: Names of the option and what it is; names are those of `ptychon.prepare.Preparation`.
PREPARE: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--frames",), {"metavar": "A:B:STEP", "help": "Only these frames: 0:500, or ::4 for every fourth."}),
    (("--crop",), {"metavar": "ROWSxCOLUMNS", "help": "Pixels of the detector to keep, around --centre."}),
    (("--centre",), {"metavar": "auto|ROW,COLUMN", "help": "Middle of the pattern; auto: its centre of mass."}),
    (("--bin",), {"type": int, "metavar": "N", "help": "Sum N x N pixels of the detector into one."}),
    (("--dark",), {"metavar": "FILE|NUMBER", "help": "Subtract this frame (FILE or FILE:DATASET), or number."}),
    (("--flat",), {"metavar": "FILE", "help": "Divide by this frame."}),
    (("--background",), {"metavar": "FILE|NUMBER", "help": "Subtract after dark, flat and gain."}),
    (("--gain",), {"type": float, "help": "Units of the detector per photon or electron."}),
    (("--bad-pixels",), {"is_flag": True, "default": None, "help": "Find hot, dead and saturated pixels and mask them."}),
    (("--saturation",), {"type": float, "help": "Mask pixels that reach this value."}),
    (("--scan-rotation",), {"metavar": "ANGLE", "help": "Turn the positions, for example 12deg."}),
    (("--scan-sign",), {"metavar": "++|+-|-+|--", "help": "Signs of rows and columns of the positions."}),
)


def prepare_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that opens a scan; `given_preparation` takes them out again."""
    for names, more in reversed(PREPARE):
        command = click.option(*names, **more)(command)
    return command


def given_preparation(parameters: dict[str, Any]) -> dict[str, Any]:
    """Takes the values of `prepare_options` out of a command's parameters: those given, as `ptychon.load` wants them."""
    taken = {names[-1].lstrip("-").replace("-", "_"): None for names, _ in PREPARE}
    given = {name: parameters.pop(name) for name in taken if name in parameters}
    return {name: value for name, value in given.items() if value is not None}
