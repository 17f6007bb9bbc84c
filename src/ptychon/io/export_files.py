"""How each kind of file is written: MATLAB, NumPy, tables and TIFF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.lazy import blocks
from ..data.result import Result
from ..types import PtychonError
from ..units import pretty
from .frames import write_npy
from .hdf5 import PathLike, write_aside

_LARGEST_MAT = 2**32 - 2**20
_LARGEST_TIFF = 2**32 - 2**25
#: Types of pixels that ImageJ has.
_IMAGEJ = ("u1", "u2", "f4")


def matlab(value: Any) -> Any:
    """An array with its axes in the order of MATLAB: rows, columns, then frames or modes."""
    array = np.asarray(value)
    return (
        np.moveaxis(array, 0, -1)
        if array.ndim == 3
        else array.astype(np.uint8)
        if array.dtype.kind == "b"
        else array
    )


def write_mat(path: PathLike, values: Mapping[str, Any], largest: Any = None) -> None:
    import scipy.io

    if largest is not None and math.prod(largest.shape) * largest.dtype.itemsize > _LARGEST_MAT:
        raise PtychonError(
            f"{path}: a .mat file holds at most 4 GB a variable; crop, bin or write .cxi instead"
        )
    with write_aside(path) as aside, aside.open("wb") as stream:
        scipy.io.savemat(stream, dict(values), do_compression=True)


def write_stack(path: PathLike, frames: Any) -> None:
    with write_aside(path) as aside, aside.open("wb") as stream:
        write_npy(stream, frames)


def write_table(path: Path, data: Dataset) -> None:
    unit = "px" if data.pixel_size is None else "m"
    with write_aside(path) as aside:
        np.savetxt(
            aside,
            data.positions,
            fmt="%.17g",
            delimiter=",",
            header=f"row [{unit}],column [{unit}]",
        )


def write_tiff(
    path: PathLike, frames: Any, pixel_size: tuple[float, float] | None = None, **metadata: Any
) -> None:
    """A stack of pages, written in blocks.

    Parameters
    ----------
    path : path of the file to write
    frames : (N, P, Q) array, perhaps lazy
    pixel_size : (dy, dx) in m, optional
        Becomes the resolution of the pages.
    **metadata
        Text kept in the description.

    Raises
    ------
    PtychonError
        If the file cannot be written, or tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError:
        raise PtychonError(f"{path}: to write TIFF files install 'pip install tifffile'") from None
    dtype = np.dtype(frames.dtype)
    dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype
    shape = tuple(frames.shape)
    large = math.prod(shape) * dtype.itemsize > _LARGEST_TIFF

    def pages() -> Any:
        for part in blocks(frames):
            yield from np.asarray(frames[part], dtype)

    imagej = dtype.str[1:] in _IMAGEJ and not large
    said: dict[str, Any] = {"axes": "QYX"}
    how: dict[str, Any] = {}
    if imagej:
        said = {"axes": "ZYX"}
    if pixel_size is not None:
        scales = ((1e-6, "um"), (1e-9, "nm"), (1e-12, "pm"))
        scale, unit = next((s for s in scales if max(pixel_size) > s[0] / 10), scales[-1])
        if imagej:
            # pixels a unit, and the name of the unit, are what ImageJ reads
            how["resolution"] = (scale / pixel_size[1], scale / pixel_size[0])
            said["unit"] = unit
        elif max(each := (1e-2 / pixel_size[1], 1e-2 / pixel_size[0])) < 2**31:
            how["resolution"], how["resolutionunit"] = each, "CENTIMETER"
    with write_aside(path) as aside, aside.open("wb") as stream:
        tifffile.imwrite(
            stream,
            pages(),
            shape=shape,
            dtype=dtype,
            bigtiff=large,
            imagej=imagej,
            photometric="minisblack",
            metadata={**said, **metadata},
            **how,
        )


def write_pictures(path: PathLike, result: Result) -> list[str]:
    """Amplitude and phase of the object, and its standard deviation where there is one, float32
    pages; of several slices the amplitudes first, from where the light comes.
    """
    layers = result.object[None] if result.object.ndim == 2 else result.object
    at = [""]
    if result.slices is not None:
        at = [f", z = {pretty(z, 'length')}" for z in result.slices.depths]
    pages = [np.abs(layer) for layer in layers] + [np.angle(layer) for layer in layers]
    names = [f"amplitude{z}" for z in at] + [f"phase (rad){z}" for z in at]
    if result.object_std is not None:
        pages, names = [*pages, result.object_std], [*names, "standard deviation"]
    write_tiff(path, np.array(pages, np.float32), result.pixel_size, Labels=names)
    return ["probe, positions, history, settings and provenance"]
