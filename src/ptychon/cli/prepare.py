"""Options that say how frames are prepared; they are among those of
`ptychon.cli.options.data_options`.
"""

from __future__ import annotations

from typing import Any

import click

#: Names of the option and what it is; names are those of `ptychon.data.prepare.Preparation`.
PREPARE: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("--frames",),
        {"metavar": "A:B:STEP", "help": "Use only these frames: 0:500, or ::4 for every fourth."},
    ),
    (
        ("--drop-columns",),
        {
            "type": int,
            "metavar": "N",
            "help": "Leave out the last N frames of each row; -N: the first.",
        },
    ),
    (
        ("--crop",),
        {
            "metavar": "ROWSxCOLUMNS",
            "help": "Keep so many pixels of the detector, around --centre.",
        },
    ),
    (
        ("--centre",),
        {
            "metavar": "auto|ROW,COLUMN",
            "help": "State the centre of the pattern; auto: its centre of mass.",
        },
    ),
    (
        ("--bin",),
        {"type": int, "metavar": "N", "help": "Sum N x N pixels of the detector into one."},
    ),
    (
        ("--mask",),
        {"metavar": "FILE", "help": "Leave out pixels: npy, npz, TIFF, PNG, HDF5 (FILE:DATASET)."},
    ),
    (
        ("--mask-ones",),
        {"type": click.Choice(["valid", "bad"]), "help": "State what ones in the mask mean."},
    ),
    (
        ("--pedestal", "--dark", "dark"),
        {
            "metavar": "FILE|NUMBER",
            "help": "Subtract the dark level: a number, or a frame (FILE or FILE:DATASET).",
        },
    ),
    (("--flat",), {"metavar": "FILE", "help": "Divide by this frame."}),
    (
        ("--background",),
        {
            "metavar": "FILE|NUMBER",
            "help": "State the mean background counts per pixel, after dark, flat and gain.",
        },
    ),
    (
        ("--read-noise",),
        {
            "type": float,
            "metavar": "COUNTS",
            "help": "State the read noise (rms) of the detector, after the gain.",
        },
    ),
    (
        ("--blur",),
        {
            "type": float,
            "metavar": "PIXELS",
            "help": "State the point spread of the detector (standard deviation).",
        },
    ),
    (
        ("--pad",),
        {
            "type": int,
            "metavar": "PIXELS",
            "help": "Add so many unknown pixels at each side, for a finer pixel of the object.",
        },
    ),
    (
        ("--upsample",),
        {
            "type": int,
            "metavar": "N",
            "help": "Compute the wave at N x N points per detector pixel, for large probes.",
        },
    ),
    (
        ("--gain",),
        {
            "type": float,
            "help": "Divide by the detector units per photon or electron, which gives counts.",
        },
    ),
    (
        ("--bad-pixels",),
        {
            "is_flag": True,
            "default": None,
            "help": "Find hot, dead and saturated pixels and mask them.",
        },
    ),
    (("--saturation",), {"type": float, "help": "Mask pixels that reach this value."}),
    (
        ("--scan-rotation",),
        {"metavar": "ANGLE", "help": "Rotate the positions, for example 12deg."},
    ),
    (
        ("--scan-sign",),
        {"metavar": "++|+-|-+|--", "help": "Set the signs of rows and columns of the positions."},
    ),
)
