"""EMD 1.0, the files of py4DSTEM: the first DataCube (Ry, Rx, Qy, Qx) and its calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data.lazy import Derived, transposed
from ..types import PtychonError
from ..units import parse
from .found import Found
from .frames import Hdf5Frames
from .hdf5 import PathLike, opened
from .nodes import dataset, group, plain, scalar, text

_DEEPEST = 8


def recognise(file: Any) -> bool:
    """Whether an open HDF5 file is EMD 1.0."""
    return plain(file.attrs.get("emd_group_type", "")) == "file"


def _cubes(node: Any, depth: int = 0) -> list[Any]:
    """Groups with a 4-D dataset ``data``."""
    data = dataset(node, "data")
    if data is not None and len(data.shape) == 4:
        return [node]
    if depth > _DEEPEST:
        return []
    inner = [group(node, name) for name in node]
    return [cube for child in inner if child is not None for cube in _cubes(child, depth + 1)]


def read(path: PathLike, given: Mapping[str, Any]) -> Found:
    """What an EMD 1.0 file says. Voltage and convergence angle are rarely there.

    Raises
    ------
    PtychonError
        If it holds no DataCube.
    """
    found = Found("EMD 1.0")
    with opened(path) as file:
        cubes = _cubes(file)
        if not cubes:
            raise PtychonError(f"{path} is an EMD file without a DataCube, that is a 4-D stack of frames")
        cube = next((c for c in cubes if plain(c.attrs.get("python_class", "")) == "DataCube"), cubes[0])
        data = cube["data"]
        if data.dtype.kind not in "uifb":
            raise PtychonError(f"{data.name} of {path} holds values of type {data.dtype}, not intensities")
        where = data.name if len(cubes) == 1 else f"{data.name} (the first of {len(cubes)})"
        frames: Any = Hdf5Frames(path, data.name)
        calibration = _calibration(file, cube)
        if _flag(calibration, "QR_flip"):
            frames = Derived(frames, transposed, (frames.shape[2], frames.shape[1]), frames.dtype)
            where += ", transposed because of QR_flip"
        if calibration is not None and dataset(calibration, "QR_flip") is not None:
            found.where["orientation"] = "QR_flip"
        found.add("patterns", frames, where)
        found.add("scan_shape", tuple(data.shape[:2]), data.name)
        if calibration is not None:
            _scan(calibration, found)
            _detector(calibration, found, frames.shape[1:])
        else:
            found.where["calibration"] = "there is none: everything is in pixels"
    return found


def _calibration(file: Any, cube: Any) -> Any:
    root = file.get("/".join(cube.name.split("/")[:2]))
    for start in (root, cube, file):
        found = group(start, "metadatabundle/calibration") if start is not None else None
        if found is not None:
            return found
    return None


def _flag(calibration: Any, name: str) -> bool:
    node = dataset(calibration, name)
    return bool(node is not None and node.size == 1 and node.dtype.kind in "biu" and np.asarray(node[()]).reshape(-1)[0])


def _unit(calibration: Any, name: str) -> str:
    return (text(calibration, name) or plain(calibration.attrs.get(name, ""))).strip()


def _scan(calibration: Any, found: Found) -> None:
    step, unit = scalar(calibration, "R_pixel_size"), _unit(calibration, "R_pixel_units")
    if step is not None and unit and unit != "pixels":
        try:
            found.add("step", parse(f"{step!r}{unit}", "length", "R_pixel_size"), "R_pixel_size")
        except PtychonError as error:
            found.problems["step"] = str(error)
    angle = scalar(calibration, "QR_rotation")
    if angle is None and (degrees := scalar(calibration, "QR_rotation_degrees")) is not None:
        angle = float(np.deg2rad(degrees))
    if angle is not None and abs(angle) <= 2 * np.pi:
        found.add("rotation", angle, "QR_rotation (of the scan against the detector; try the other sign too)")
    for name in ("voltage", "accelerating_voltage", "beam_energy"):
        value = scalar(calibration, name)
        if value is not None and value > 0:
            found.add("voltage", value if value > 1e4 else value * 1e3, f"{name}{'' if value > 1e4 else ', taken to be kV'}")
    angle = scalar(calibration, "convergence_semiangle_mrad")
    if angle is not None and angle > 0:
        found.add("semi_angle", angle * 1e-3, "convergence_semiangle_mrad")


def _detector(calibration: Any, found: Found, shape: tuple[int, int]) -> None:
    size, unit = scalar(calibration, "Q_pixel_size"), _unit(calibration, "Q_pixel_units")
    if size is None or not size > 0:
        return
    if unit in ("A^-1", "1/A", "Å^-1", "1/Å"):
        scale = 1e-10 / size
        found.add("pixel_size", (scale / shape[0], scale / shape[1]), f"Q_pixel_size ({unit})")
    elif unit in ("nm^-1", "1/nm"):
        scale = 1e-9 / size
        found.add("pixel_size", (scale / shape[0], scale / shape[1]), f"Q_pixel_size ({unit})")
    elif unit == "mrad":
        found.add("detector_pixel_angle", size * 1e-3, "Q_pixel_size (mrad)")
