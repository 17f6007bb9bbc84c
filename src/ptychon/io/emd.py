"""EMD 1.0, the files of py4DSTEM: the first DataCube (Ry, Rx, Qy, Qx) and its calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data.lazy import Derived, transposed
from ..types import PtychonError
from ..units import factor_of, in_si, is_pixel, states_nothing
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
            raise PtychonError(
                f"{path} is an EMD file without a DataCube, that is a 4-D stack of frames"
            )
        cube = next(
            (c for c in cubes if plain(c.attrs.get("python_class", "")) == "DataCube"), cubes[0]
        )
        named = given.get("data_path")
        if named:  # the frames of another cube, or beside them
            cube = next(
                (c for c in cubes if c["data"].name.strip("/") == str(named).strip("/")), None
            )
            if cube is None:
                listed = ", ".join(c["data"].name for c in cubes)
                raise PtychonError(f"{path} has no DataCube at {named!r}; there are {listed}")
        data = cube["data"]
        if data.dtype.kind not in "uifb":
            raise PtychonError(
                f"{data.name} of {path} holds values of type {data.dtype}, not intensities"
            )
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
    return bool(
        node is not None
        and node.size == 1
        and node.dtype.kind in "biu"
        and np.asarray(node[()]).reshape(-1)[0]
    )


def _unit(calibration: Any, name: str) -> str:
    return (text(calibration, name) or plain(calibration.attrs.get(name, ""))).strip()


def _scan(calibration: Any, found: Found) -> None:
    step, unit = scalar(calibration, "R_pixel_size"), _unit(calibration, "R_pixel_units")
    if step is not None and unit and not is_pixel(unit):
        try:
            found.add("step", in_si(step, unit, "length", "R_pixel_size"), f"R_pixel_size ({unit})")
        except PtychonError as error:
            found.problems["step"] = str(error)
    turned, degrees = scalar(calibration, "QR_rotation"), scalar(calibration, "QR_rotation_degrees")
    if degrees is None and turned is not None:
        degrees = float(np.rad2deg(turned)) if abs(turned) <= 2 * np.pi else turned
    if degrees is not None:
        # real space is turned by it, counterclockwise, against diffraction space: (x, y) of the
        # scan, rows and columns, lie at (x cos + y sin, -x sin + y cos) on the detector, which is
        # `rotation` with the other sign
        where = f"QR_rotation of {degrees:.4g} deg (real against diffraction space)"
        found.add("rotation", -float(np.deg2rad(degrees)), where)
    for name in ("voltage", "accelerating_voltage", "beam_energy"):
        value = scalar(calibration, name)
        if value is not None and value > 0:
            found.add(
                "voltage",
                value if value > 1e4 else value * 1e3,
                f"{name}{'' if value > 1e4 else ', taken to be kV'}",
            )
    angle = scalar(calibration, "convergence_semiangle_mrad")
    if angle is not None and angle > 0:
        found.add("semi_angle", angle * 1e-3, "convergence_semiangle_mrad")


def _detector(calibration: Any, found: Found, shape: tuple[int, int]) -> None:
    size, unit = scalar(calibration, "Q_pixel_size"), _unit(calibration, "Q_pixel_units")
    if size is None or not size > 0:
        return
    if is_pixel(unit) or states_nothing(unit):
        return
    try:
        if factor_of(unit, "angle") is not None:
            found.add("detector_pixel_angle", in_si(size, unit, "angle"), f"Q_pixel_size ({unit})")
        else:
            scale = 1 / in_si(size, unit, "wavenumber", "Q_pixel_size")
            found.add("pixel_size", (scale / shape[0], scale / shape[1]), f"Q_pixel_size ({unit})")
    except PtychonError as error:
        found.problems["pixel_size"] = str(error)
