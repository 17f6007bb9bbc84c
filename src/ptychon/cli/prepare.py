"""Options that say how frames are prepared; they are among those of `ptychon.cli.options.data_options`."""

from __future__ import annotations

from typing import Any

#: Names of the option and what it is; names are those of `ptychon.data.prepare.Preparation`.
PREPARE: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--frames",), {"metavar": "A:B:STEP", "help": "Only these frames: 0:500, or ::4 for every fourth."}),
    (("--crop",), {"metavar": "ROWSxCOLUMNS", "help": "Pixels of the detector to keep, around --centre."}),
    (("--centre",), {"metavar": "auto|ROW,COLUMN", "help": "Middle of the pattern; auto: its centre of mass."}),
    (("--bin",), {"type": int, "metavar": "N", "help": "Sum N x N pixels of the detector into one."}),
    (("--dark",), {"metavar": "FILE|NUMBER", "help": "Subtract this frame (FILE or FILE:DATASET), or number."}),
    (("--flat",), {"metavar": "FILE", "help": "Divide by this frame."}),
    (("--background",), {"metavar": "FILE|NUMBER", "help": "Mean counts a pixel, after dark, flat and gain, not of the wave."}),
    (("--read-noise",), {"type": float, "metavar": "COUNTS", "help": "Standard deviation that the electronics add."}),
    (("--gain",), {"type": float, "help": "Units of the detector per photon or electron."}),
    (("--bad-pixels",), {"is_flag": True, "default": None, "help": "Find hot, dead and saturated pixels and mask them."}),
    (("--saturation",), {"type": float, "help": "Mask pixels that reach this value."}),
    (("--scan-rotation",), {"metavar": "ANGLE", "help": "Turn the positions, for example 12deg."}),
    (("--scan-sign",), {"metavar": "++|+-|-+|--", "help": "Signs of rows and columns of the positions."}),
)
