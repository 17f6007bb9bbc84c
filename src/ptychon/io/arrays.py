"""Plain arrays under plain names: NumPy archives (.npz), stacks (.npy) and any HDF5 file.

What is recognised by name, in the order tried (case is ignored, groups of an HDF5 file do not matter):

    frames       patterns, dp, data, diffraction, intensities, frames; else the only 3-D or 4-D stack of real numbers
    positions    positions_px, positions_m, positions (N, 2): row, column of the probe on the object
    mask         mask, nonzero where a pixel is valid
    background   background_counts, a number or a frame: counts a pixel still in the frames; read_noise, counts
    probe        probe, (P, Q) or (modes, P, Q) complex
    numbers      pixel_size, wavelength, voltage_kV, scan_step_A, ...: see `NUMBERS`; SI unless a unit follows the name

Numbers may be arrays of one element or HDF5 attributes. A 4-D stack [slow, fast, row, column] is a raster; where no
positions are listed they are computed from step and rotation (`ptychon.io.found.raster_positions`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..data.lazy import Frames
from ..types import FloatArray, PtychonError
from ..units import UNITS, Dimension, parse, wavelength_of_electrons, wavelength_of_photons
from .found import Found
from .frames import Hdf5Frames, NpzFrames, npz_headers, read_npz
from .hdf5 import PathLike, check_size, opened
from .tables import positions_from

#: Mean counts a pixel that are still in the frames. What others call "background" may have been subtracted.
BACKGROUND = "background_counts"
PATTERNS = ("patterns", "dp", "data", "diffraction", "intensities", "frames")
POSITIONS = ("positions_px", "positions_m", "positions")
#: What is looked for -> names it goes by, and its dimension.
NUMBERS: dict[str, tuple[tuple[str, ...], Dimension]] = {
    "pixel_size": (("pixel_size", "object_pixel_size", "real_space_pixel", "real_space_pixel_size"), "length"),
    "detector_pixel_size": (("detector_pixel_size", "detector_pixel"), "length"),
    "detector_pixel_angle": (("detector_pixel", "detector_pixel_angle"), "angle"),
    "wavelength": (("wavelength",), "length"),
    "energy": (("energy", "photon_energy"), "energy"),
    "voltage": (("voltage", "acceleration_voltage", "accelerating_voltage", "beam_voltage"), "voltage"),
    "distance": (("distance", "detector_distance"), "length"),
    "focus_distance": (("focus_distance",), "length"),
    "semi_angle": (("semi_angle", "semiangle", "convergence_semiangle", "convergence_semi_angle"), "angle"),
    "defocus": (("defocus", "c1", "c10"), "length"),
    "step": (("scan_step", "step", "scan_step_size", "step_size"), "length"),
    "rotation": (("scan_rotation", "rotation", "rotation_angle"), "angle"),
}
_LARGEST_TABLE = 10**8


@dataclass
class Box:
    """Named arrays in a file, whatever kind of file it is."""

    path: PathLike
    arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
    read: Callable[[str], Any]
    frames: Callable[[str], Frames]
    #: name -> (value, where it stood)
    numbers: dict[str, tuple[Any, str]] = field(default_factory=dict)

    def find(self, names: tuple[str, ...], ndims: tuple[int, ...], kinds: str) -> str | None:
        """The first array with one of these names, dimensions and kinds of dtype."""
        for name in names:
            for key, (shape, dtype) in self.arrays.items():
                if _last(key) == name and len(shape) in ndims and dtype.kind in kinds:
                    return key
        return None

    def table(self, key: str) -> Any:
        """A small array, whole."""
        if math.prod(self.arrays[key][0]) > _LARGEST_TABLE:
            raise PtychonError(f"{key} of {self.path} has shape {self.arrays[key][0]}: too large for what its name says")
        return self.read(key)


def _last(key: str) -> str:
    return key.rsplit("/", 1)[-1].lower()


def read_archive(path: PathLike, given: Mapping[str, Any]) -> Found:
    """What a NumPy archive (.npz) says; `given` may name the members with ``data_path`` and ``positions_path``.

    Raises
    ------
    PtychonError
        If the archive is damaged, holds pickled objects or no frames.
    """
    headers = npz_headers(path)
    box = Box(path, headers, lambda key: read_npz(path, key), lambda key: NpzFrames(path, key))
    for key, (shape, dtype) in headers.items():
        if math.prod(shape) <= 2 and dtype.kind in "buifUS":
            box.numbers[_last(key)] = (read_npz(path, key), key)
    return understand(box, "NumPy archive", given)


def read_stack(path: PathLike, given: Mapping[str, Any]) -> Found:
    """Frames of an .npy file; positions and scale come from the caller."""
    try:
        stack = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError) as error:
        raise PtychonError(f"{path} is truncated, damaged or holds pickled objects; save a plain array") from error
    if not isinstance(stack, np.ndarray) or stack.ndim not in (3, 4):
        raise PtychonError(f"{path} has shape {np.shape(stack)}; a scan is (frames, rows, columns)")
    found = Found("NumPy array")
    found.add("patterns", stack.reshape(-1, *stack.shape[-2:]), "the array")
    if stack.ndim == 4:
        found.add("scan_shape", stack.shape[:2], "the shape of the array")
    add_positions(found, given)
    return found


def read_hdf5(path: PathLike, given: Mapping[str, Any]) -> Found:
    """What an HDF5 file of no particular format says; ``data_path`` and ``positions_path`` in `given` name datasets.

    Raises
    ------
    PtychonError
        If the file is damaged, a named dataset does not exist, or it cannot be told which dataset holds the frames.
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

        box = Box(path, arrays, read, lambda key: Hdf5Frames(path, key))
        for node in owners:
            for name in node.attrs:
                if _quantity(name) is not None:  # others may be of types that cannot be read
                    box.numbers.setdefault(name.lower(), (node.attrs[name], f"attribute {name} of {node.name}"))
        for key, (shape, dtype) in arrays.items():
            if math.prod(shape) <= 2 and dtype.kind in "uifOS" and _quantity(_last(key)) is not None:
                value = file[key][()]
                box.numbers.setdefault(_last(key), (value.decode() if isinstance(value, bytes) else value, key))
    return understand(box, "HDF5", given)


def _quantity(name: str) -> tuple[str, Dimension, str] | None:
    """(what, dimension, unit) of a name such as ``scan_step_A``; None if it is none of `NUMBERS`."""
    for what, (stems, dimension) in NUMBERS.items():
        for stem in stems:
            match = re.fullmatch(rf"{stem}(?:_(\w+))?", name, re.IGNORECASE)
            if match is None:
                continue
            unit = match.group(1) or ""
            folded = {known.lower(): known for known in reversed(UNITS[dimension])}
            known = unit if unit in UNITS[dimension] else folded.get(unit.lower(), "")
            if unit and not known:
                continue
            if what == "detector_pixel_angle" and not unit:
                continue  # without a unit it is a length
            return what, dimension, known
    return None


def understand(box: Box, kind: str, given: Mapping[str, Any]) -> Found:
    """What named arrays say, whatever kind of file they are in.

    Raises
    ------
    PtychonError
        If it cannot be told which array holds the frames.
    """
    found = Found(kind)
    key = _frames_key(box, given.get("data_path"))
    shape = box.arrays[key][0]
    found.add("patterns", box.frames(key), key)
    if len(shape) == 4:
        found.add("scan_shape", tuple(shape[:2]), f"the shape of {key}")
    add_positions(found, given, box)
    for name, (value, where) in box.numbers.items():
        _keep_number(found, name, value, where)
        _keep_word(found, name, value, where)
    mask = box.find(("mask",), (2, 3), "biu")
    if mask is not None:
        found.add("mask", np.asarray(box.table(mask)) != 0, f"{mask} (nonzero is valid)")
    background = box.find((BACKGROUND,), (2,), "uif")
    if background is not None and math.prod(box.arrays[background][0]) > 1:
        found.add("background", box.table(background), f"{background} (counts a pixel)")
    probe = box.find(("probe",), (2, 3), "cf")
    if probe is not None:
        if box.arrays[probe][0][-2:] == tuple(shape[-2:]):
            found.add("probe", box.table(probe), probe)
        else:
            found.where["probe"] = f"{probe} of shape {box.arrays[probe][0]} does not fit the frames: not used"
    return found


def _frames_key(box: Box, name: str | None) -> str:
    stacks = [k for k, (s, d) in box.arrays.items() if len(s) in (3, 4) and d.kind in "uifb" and min(s[-2:]) >= 4]
    listed = ", ".join(f"{k} {box.arrays[k][0]}" for k in stacks[:8]) or "none"
    if name:
        key = next((k for k in box.arrays if k.strip("/") == name.strip("/")), None)
        if key is None:
            raise PtychonError(f"{box.path} has no dataset {name!r}; stacks of frames in it: {listed}")
        shape, dtype = box.arrays[key]
        if len(shape) not in (3, 4) or dtype.kind not in "uifb":
            raise PtychonError(
                f"{name} of {box.path} has shape {shape} and type {dtype}; frames are real numbers "
                f"(frames, rows, columns) or (slow, fast, rows, columns); stacks in the file: {listed}"
            )
        return key
    for known in PATTERNS:
        matching = [k for k in stacks if _last(k) == known]
        if len(matching) == 1:
            return matching[0]
    if len(stacks) == 1:
        return stacks[0]
    if not stacks:
        shapes = ", ".join(f"{k} {s}" for k, (s, _) in list(box.arrays.items())[:8]) or "nothing"
        raise PtychonError(f"{box.path} holds no stack of diffraction patterns (3-D or 4-D real numbers), but {shapes}")
    raise PtychonError(f"{box.path} holds several stacks: say which are the frames with --data-path; there are {listed}")


def add_positions(found: Found, given: Mapping[str, Any], box: Box | None = None) -> None:
    """Add the positions that ``positions_path`` names, a dataset or a file, or that `box` holds under a known name.

    Raises
    ------
    PtychonError
        If what is named does not exist, or holds no positions.
    """
    name = given.get("positions_path")
    unit: Literal["m", "px"] | None = None
    table: Any
    if name:
        key = next((k for k in box.arrays if k.strip("/") == name.strip("/")), None) if box is not None else None
        if box is not None and key is not None:
            table, where = box.table(key), key
        elif Path(name).is_file():
            table, unit, where = positions_from(name)
        else:
            tables = [k for k, (s, _) in box.arrays.items() if len(s) == 2] if box is not None else []
            raise PtychonError(
                f"{name!r} is neither a file nor a dataset of {box.path if box is not None else 'the stack'}"
                + (f"; tables in it: {', '.join(tables[:8])}" if tables else "")
            )
    else:
        key = box.find(POSITIONS, (2, 3), "uif") if box is not None else None
        if key is None or box is None:
            return
        table, where = box.table(key), key
    found.add("positions", _two_columns(np.asarray(table), where, len(found.fields["patterns"])), where)
    units: dict[str, Literal["m", "px"]] = {"positions_px": "px", "positions_m": "m"}
    found.unit = unit or units.get(_last(where))


def _two_columns(table: Any, name: str, frames: int) -> FloatArray:
    if table.dtype.kind not in "uif":
        raise PtychonError(f"{name} holds {table.dtype}; positions are real numbers, row and column")
    if table.ndim == 3 and table.shape[-1] == 2:
        table = table.reshape(-1, 2)
    if table.ndim == 2 and table.shape[0] == 2 and table.shape[1] == frames and frames != 2:
        table = table.T
    if table.ndim != 2 or table.shape[1] != 2:
        raise PtychonError(f"{name} has shape {table.shape}; positions are (frames, 2), row then column")
    return np.asarray(table, np.float64)


def _keep_word(found: Found, name: str, value: Any, where: str) -> None:
    """What our own archives say besides numbers with units."""
    array = np.asarray(value).reshape(-1)
    if name == "geometry" and str(array[0] if array.size else "") in ("far", "near"):
        found.add("geometry", str(array[0]), where)
    elif name == "counting" and array.size == 1 and array.dtype.kind in "biu":
        found.add("counting", bool(array[0]), where)
    elif name == "object_shape" and array.size == 2 and array.dtype.kind in "iu" and (array > 0).all():
        found.add("object_shape", (int(array[0]), int(array[1])), where)
    elif name in ("noise_variance", "read_noise", BACKGROUND) and array.size == 1 and array.dtype.kind in "uif":
        found.add("background" if name == BACKGROUND else name, float(array[0]), where)


def _keep_number(found: Found, name: str, value: Any, where: str) -> None:
    quantity = _quantity(name)
    if quantity is None:
        return
    what, dimension, unit = quantity
    try:
        parts = [value] if isinstance(value, str) else np.asarray(value).reshape(-1).tolist()
        numbers = [parse(v if isinstance(v, str) else f"{v!r}{unit}", dimension, where) for v in parts]
        if not numbers:
            return
        pair = what in ("pixel_size", "detector_pixel_size", "step") and len(numbers) == 2
        number: Any = (numbers[0], numbers[1]) if pair else numbers[0]
        if what == "energy":
            what, number = "wavelength", wavelength_of_photons(number)
        elif what == "voltage":
            wavelength_of_electrons(number)
        elif what == "defocus":
            # files state the coefficient C1 of the aberration, negative for underfocus
            number, where = -number, f"{where} = {number:g} m, read as C1 (negative: underfocus)"
    except PtychonError as error:
        found.problems[what] = str(error)
        return
    found.add(what, number, where)
