"""Plain arrays under plain names: NumPy archives (.npz), stacks (.npy) and any HDF5 file.

What is recognised by name, in the order tried (case is ignored, groups of an HDF5 file do not
matter):

    frames       patterns, dp, data, diffraction, intensities, frames; else the only 3-D or 4-D
                 stack of real numbers
    positions    positions_px, positions_m, positions_um, positions (N, 2): row, column of the probe
                 on the object; or two
                 lists whose names say which is which (y_um and x_um)
    mask         mask, nonzero where a pixel is valid; bad_pixels, pixel_mask, valid and the like,
                 as their names say
    background   background_counts, a number or a frame: counts a pixel still in the frames;
                 read_noise, counts
    probe        probe, (P, Q) or (modes, P, Q) complex
    numbers      pixel_size, wavelength, voltage_kV, scan_step_A, ...: see `NUMBERS`

The unit is the HDF5 attribute ``units`` of an array, or follows its name (``distance_mm``), or is
the text of another one (``distance_units``); where none is stated, numbers are guessed to be in SI.
Numbers may be arrays of one element or HDF5 attributes. A 4-D stack [slow, fast, row, column] is a
raster; where no positions are listed they are computed from step and rotation
(`ptychon.io.assemble.raster_positions`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ..data.lazy import Frames
from ..types import NO_ARRAY, PtychonError
from . import listing
from .box import Box, last_name
from .entries import UNIT_NAME, quantity_of, understand
from .found import Found
from .frames import Hdf5Frames, NpzFrames, npz_headers, read_npz
from .hdf5 import PathLike, opened
from .links import broken, missing_target
from .nodes import units
from .order import ArrayLast, Hdf5Last, frames_last, without_ones
from .positions import add_positions, points_of
from .records import check_size


def read_archive(path: PathLike, given: Mapping[str, Any]) -> Found:
    """What a NumPy archive (.npz) says; `given` may name the members with ``data_path`` and
    ``positions_path``.

    Raises
    ------
    PtychonError
        If the archive is damaged, holds pickled objects or no frames.
    """
    headers = npz_headers(path)

    def last(key: str) -> Frames:
        return ArrayLast(
            partial(read_npz, path, key),
            without_ones(headers[key][0]),
            headers[key][1],
            f"{key} of {path}",
        )

    box = Box(
        path, headers, lambda key: read_npz(path, key), lambda key: NpzFrames(path, key), last=last
    )
    for key, (shape, dtype) in headers.items():
        if math.prod(shape) <= 2 and dtype.kind in "buifUS":
            box.numbers[last_name(key)] = (read_npz(path, key), key)
    return understand(box, "NumPy archive", given)


def read_stack(path: PathLike, given: Mapping[str, Any]) -> Found:
    """Frames of an .npy file; positions and scale come from the caller."""
    try:
        stack = np.load(path, mmap_mode="r", allow_pickle=False)
    except (*NO_ARRAY, MemoryError) as error:
        raise PtychonError(
            f"{path} is truncated, damaged or holds pickled objects; save a plain array"
        ) from error
    shape = without_ones(np.shape(stack))
    if (
        not isinstance(stack, np.ndarray)
        or len(shape) not in (3, 4)
        or stack.dtype.kind not in "uifb"
    ):
        kind = "" if np.size(stack) == 0 else f" and type {stack.dtype}"
        raise PtychonError(
            f"{path} has shape {np.shape(stack)}{kind}; a scan is (frames, rows, "
            f"columns){listing.alone(shape)}"
        )
    found = Found("NumPy array")
    box = Box(path, {}, np.load, np.load)
    why = frames_last(shape, points_of(box, given), given.get("scan_shape"))
    stack = stack.reshape(shape)
    if why:
        stack = np.moveaxis(stack, (0, 1), (-2, -1))
        shape = stack.shape
        stack = ArrayLast(
            partial(np.load, path), (*shape[-2:], *shape[:-2]), stack.dtype, str(path)
        )
    else:
        stack = stack.reshape(-1, *shape[-2:])
    found.add("patterns", stack, f"the array ({why})" if why else "the array")
    if len(shape) == 4:
        found.add("scan_shape", tuple(shape[:2]), "the shape of the array")
    add_positions(found, given)
    return found


def read_hdf5(path: PathLike, given: Mapping[str, Any]) -> Found:
    """What an HDF5 file of no particular format says; ``data_path`` and ``positions_path`` in
    `given` name datasets.

    Raises
    ------
    PtychonError
        If the file is damaged, a named dataset does not exist, or it cannot be told which dataset
        holds the frames.
    """
    box = hdf5_box(path, given)
    stacks = any(len(shape) in (3, 4) for shape, _ in box.arrays.values())
    if not stacks or given.get("data_path"):
        with opened(path) as file:
            gone = broken(file, path)
        wanted = str(given.get("data_path") or "").strip("/")
        lost = [link for link in gone if not wanted or link[0].strip("/") == wanted]
        if lost and (wanted not in box.arrays):
            raise missing_target(lost, path)
    return understand(box, "HDF5", given)


def hdf5_box(path: PathLike, given: Mapping[str, Any]) -> Box:
    """The arrays, numbers and units of an HDF5 file; ``data_path`` and ``positions_path`` may be
    behind links.
    """
    with opened(path) as file:
        arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        owners = [file]

        def visit(name: str, node: Any) -> None:
            owners.append(node)
            if hasattr(node, "dtype") and node.shape is not None:
                arrays[name] = (tuple(node.shape), node.dtype)

        file.visititems(visit)
        for key in (given.get("data_path"), given.get("positions_path")):  # perhaps behind a link
            node = file.get(key) if key else None
            if key and node is not None and hasattr(node, "dtype"):
                arrays[key] = (tuple(node.shape), node.dtype)

        def read(key: str) -> Any:
            with opened(path) as again:
                check_size(again[key])
                return again[key][()]

        box = Box(
            path,
            arrays,
            read,
            lambda key: Hdf5Frames(path, key),
            last=lambda key: Hdf5Last(path, key),
        )
        for node in owners:
            for name in node.attrs:
                if quantity_of(name) is not None or UNIT_NAME.fullmatch(
                    name
                ):  # others may be of types that cannot be read
                    box.numbers.setdefault(
                        name.lower(), (node.attrs[name], f"attribute {name} of {node.name}")
                    )
        for key, (shape, dtype) in arrays.items():
            name = last_name(key)
            if (
                math.prod(shape) <= 2
                and dtype.kind in "uifOS"
                and (quantity_of(name) is not None or UNIT_NAME.fullmatch(name))
            ):
                value = file[key][()]
                box.numbers.setdefault(
                    name, (value.decode() if isinstance(value, bytes) else value, key)
                )
            if dtype.kind in "uif":
                box.units[key] = units(file[key])
    return box
