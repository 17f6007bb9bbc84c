"""Reconstructions as plain NumPy archives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..data.result import Result
from ..types import PtychonError
from .frames import npz_headers, read_npz
from .hdf5 import PathLike


def is_result(headers: Any) -> bool:
    """Whether an archive with these headers holds a complex object and a probe, and no frames."""
    complexes = [name in headers and headers[name][1].kind == "c" for name in ("object", "probe")]
    return all(complexes) and not any(
        name in headers for name in ("patterns", "dp", "data", "frames")
    )


def read_result(path: PathLike) -> Result:
    """Object, probe, positions and scale from an archive.

    Raises
    ------
    PtychonError
        If it is damaged.
    """
    headers = npz_headers(path)
    values = {name: read_npz(path, name) for name in headers if name in _NAMES}
    obj, probe = values["object"], values["probe"]
    if obj.ndim != 2 or probe.ndim not in (2, 3):
        raise PtychonError(
            f"{path}: object and probe have shapes {obj.shape} and {probe.shape}; need (H, W), "
            "(K, P, Q)"
        )
    errors = values.get("errors", np.zeros(0))
    if (
        any(
            v.dtype.kind not in "uif"
            for n, v in values.items()
            if n not in ("object", "probe", "engine")
        )
        or errors.ndim != 1
    ):
        raise PtychonError(f"{path}: positions, pixel_size, origin and errors must be real numbers")
    size, origin = values.get("pixel_size"), values.get("origin", np.zeros(2))
    if origin.size != 2 or (size is not None and size.size not in (1, 2)):
        raise PtychonError(f"{path}: pixel_size and origin must be two numbers, rows and columns")
    scale = (
        None if size is None else tuple(float(v) for v in np.broadcast_to(size.reshape(-1), (2,)))
    )
    return Result(
        object=obj.astype(np.complex64),
        probe=probe.astype(np.complex64).reshape(-1, *probe.shape[-2:]),
        errors=errors.astype(np.float32),
        final_error=math.nan,
        origin=(float(origin.flat[0]), float(origin.flat[1])),
        positions=values.get("positions_px", np.zeros((0, 2))).astype(np.float64),
        engine=str(values.get("engine", "")),
        passes=len(errors),
        object_std=values.get("object_std"),
        pixel_size=None if scale is None else (scale[0], scale[1]),
        settings={"format": "NumPy archive"},
    )


_NAMES = (
    "object",
    "probe",
    "object_std",
    "positions_px",
    "pixel_size",
    "origin",
    "errors",
    "engine",
)
