"""Files of electron microscopy, written: HyperSpy (.hspy, .zspy) through RosettaSciIO, and EMD 1.0
as py4DSTEM has it.

A scan whose positions make a raster becomes a stack (rows, columns, P, Q) with its steps; another
stays (N, P, Q). HyperSpy's files keep everything else of it beside, under ``ptychon`` in the
original metadata, so that `ptychon.load` gives it back.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.lazy import Frames
from ..data.result import Result
from ..types import PtychonError
from ..units import voltage_of_electrons
from . import left_out, own_attributes
from .entries import BACKGROUND
from .found import Found
from .hdf5 import PathLike, create, write_aside
from .pairing import raster_of

#: Longest wave (m) of electrons that a microscope accelerates.
_ELECTRONS = 1.3e-11
#: Largest deviation of a position from a raster, in steps.
_EVEN = 0.2


def raster(data: Dataset) -> tuple[tuple[int, int], tuple[float, float]] | None:
    """(rows, columns) and (step of rows, of columns) in m or px where positions make a raster of
    rows along x; else None.
    """
    shape = raster_of(data.positions)
    if shape is None:
        return None
    places = np.asarray(data.positions, float).reshape(*shape, 2)
    rows, columns = places[:, :, 0].mean(axis=1), places[:, :, 1].mean(axis=0)
    dy = float(np.diff(rows).mean()) if len(rows) > 1 else 0.0
    dx = float(np.diff(columns).mean())
    if not (dy > 0 and dx > 0):
        return None
    even = rows[0] + dy * np.arange(shape[0]), columns[0] + dx * np.arange(shape[1])
    off = np.abs(places - np.stack(np.meshgrid(*even, indexing="ij"), -1)).max(axis=(0, 1))
    return (shape, (dy, dx)) if (off < _EVEN * np.array([dy, dx])).all() else None


def write_hyperspy(path: PathLike, data: Dataset, beside: Mapping[str, Any]) -> list[str]:
    """Write a scan as .hspy or .zspy; returns what it has no room for.

    Parameters
    ----------
    path : path of the file to write
    data : Dataset
    beside : mapping
        What is kept in the original metadata.

    Raises
    ------
    PtychonError
        If RosettaSciIO is not installed, or the file cannot be written.
    """
    _writer(path)  # before anything is computed
    grid = raster(data)
    unit, factor = ("px", 1.0) if data.pixel_size is None else ("nm", 1e9)
    if grid is None:
        scan = [("frame", len(data), 1.0, 0.0, "")]
    else:
        (rows, columns), (dy, dx) = grid
        top, left = data.positions[0] * factor
        scan = [("y", rows, dy * factor, top, unit), ("x", columns, dx * factor, left, unit)]
    p, q = data.frame_shape
    if data.geometry == "far" and isinstance(data.pixel_size, tuple):
        steps, name = [1e-9 / (n * s) for n, s in zip((p, q), data.pixel_size, strict=True)], "1/nm"
    else:
        steps, name = [1.0, 1.0], "px"
    detector = [
        (axis, n, step, -step * (n // 2), name)
        for axis, n, step in zip(("ky", "kx"), (p, q), steps, strict=True)
    ]
    frames = _frames(data, None if grid is None else grid[0])
    instrument = {}
    if data.wavelength is not None and data.wavelength < _ELECTRONS:
        voltage = voltage_of_electrons(data.wavelength)
        instrument = {"Acquisition_instrument": {"TEM": {"beam_energy": voltage / 1e3}}}
    _write(path, frames, _axes(scan, True) + _axes(detector, False), data.name, instrument, beside)
    return ["notes"] * bool(data.notes)


def write_hyperspy_result(path: PathLike, result: Result) -> list[str]:
    """Write the object of a reconstruction as .hspy or .zspy, its standard deviation beside it;
    returns what it has no room for.

    Raises
    ------
    PtychonError
        If RosettaSciIO is not installed, or the file cannot be written.
    """
    size, unit = (result.pixel_size, "nm") if result.pixel_size else ((1.0, 1.0), "px")
    factor = 1e9 if unit == "nm" else 1.0
    axes = [
        (axis, n, s * factor, o * factor, unit)
        for axis, n, s, o in zip(
            "yx", result.object.shape[-2:], size or (1.0, 1.0), result.origin, strict=True
        )
    ]
    if result.slices is not None:
        gap = result.slices.gaps[0]
        axes.insert(0, ("z", len(result.slices), gap * 1e9, 0.0, "nm"))
    beside = {"probe": result.probe, "engine": result.engine}
    if result.object_std is not None:
        beside["object_std"] = result.object_std
    name = str(result.settings.get("name") or "ptychographic reconstruction")
    _write(path, result.object, _axes(axes, False), name, {}, beside)
    return ["positions, history, settings and provenance"]


def taken_back(found: Found, beside: Mapping[str, Any]) -> Found:
    """What `write_hyperspy` has kept beside the frames."""
    known = [f.name for f in fields(Dataset)]
    for key, value in beside.items():
        name, place = key, f"original_metadata/ptychon/{key}"
        if key.startswith("positions_"):
            name, found.unit = "positions", key.removeprefix("positions_")
        name = "background" if key == BACKGROUND else name
        if key.endswith("_units") or name not in known:
            continue
        if name in ("geometry", "counting"):
            value = bool(value) if name == "counting" else str(value)
        array = np.asarray(value)
        if name == "mask":
            array = array.astype(bool)
        if name == "object_shape":
            value = tuple(int(n) for n in array)
        found.add(name, value if array.ndim == 0 or name == "object_shape" else array, place)
    return found


def _writer(path: PathLike) -> Any:
    kind = Path(path).suffix.lower().lstrip(".")
    try:
        return import_module(f"rsciio.{kind}").file_writer
    except ImportError as error:
        raise PtychonError(
            f"{path} is written through RosettaSciIO, and a package is missing ({error}): install "
            "it with 'pip install ptychon[em]'"
        ) from None


def _axes(axes: list[tuple[str, int, float, float, str]], navigate: bool) -> list[dict[str, Any]]:
    return [
        {
            "_type": "UniformDataAxis",
            "name": name,
            "size": int(size),
            "scale": float(scale),
            "offset": float(offset),
            "units": unit,
            "navigate": navigate,
            "is_binned": False,
        }
        for name, size, scale, offset, unit in axes
    ]


def _frames(data: Dataset, grid: tuple[int, int] | None) -> Any:
    """The stack, (rows, columns, P, Q) where there is a grid; a lazy one where it is on disk."""
    frames: Any = data.patterns
    if isinstance(frames, Frames):
        import dask.array

        chunk = grid[1] if grid is not None else max(1, 2**26 // (4 * math.prod(data.frame_shape)))
        frames = dask.array.from_array(frames, chunks=(chunk, *data.frame_shape))
    return frames if grid is None else frames.reshape(*grid, *data.frame_shape)


def _write(
    path: PathLike,
    array: Any,
    axes: list[dict[str, Any]],
    title: str,
    instrument: Mapping[str, Any],
    beside: Mapping[str, Any],
) -> None:
    from .. import __version__

    write = _writer(path)
    signal = {
        "data": array,
        "axes": [{**axis, "index_in_array": i} for i, axis in enumerate(axes)],
        "metadata": {"General": {"title": title}, "Signal": {"signal_type": ""}, **instrument},
        "original_metadata": {"ptychon": {k: _stored(v) for k, v in beside.items()}},
        "package": "ptychon",
        "package_version": __version__,
        "package_info": {"package": "ptychon", "package_version": __version__},
        "attributes": {"_lazy": False, "ragged": False},
        "learning_results": {},
        "models": {},
        "tmp_parameters": {},
    }
    if Path(path).suffix.lower() == ".hspy":
        with write_aside(path) as aside:
            # the writer knows the format by the suffix
            named = aside.with_name(f"{aside.name}.hspy")
            try:
                write(str(named), signal, show_progressbar=False)
                os.replace(named, aside)
            finally:
                named.unlink(missing_ok=True)
        return
    _write_folder(Path(path), lambda place: write(str(place), signal, show_progressbar=False))


def _stored(value: Any) -> Any:
    """A plain value where an array has no axes; its kinds of arrays have no truth values."""
    array = np.asarray(value)
    if array.ndim == 0:
        return array.item()
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _write_folder(target: Path, write: Any) -> None:
    """A folder that appears when it is complete."""
    aside = target.with_name(f".{target.stem[:100]}.{secrets.token_hex(4)}.part.zspy")
    try:
        write(aside)
        old = None
        if target.exists():
            old = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.old")
            os.replace(target, old)
        os.replace(aside, target)
        if old is not None:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    except OSError as error:
        raise PtychonError(f"cannot write {target}: {error.strerror or error}") from error
    except AttributeError as error:  # RosettaSciIO knows the stores of zarr 2
        raise PtychonError(
            f"cannot write {target}: the zarr that is installed is not one that RosettaSciIO knows "
            f"({error}); install it with 'pip install ptychon[em]', or write .hspy"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_emd(path: PathLike, data: Dataset) -> list[str]:
    """Write a raster scan as the DataCube of an EMD 1.0 file, which py4DSTEM opens; returns what it
    has no room for.

    Raises
    ------
    PtychonError
        If the positions are no raster, or the file cannot be written.
    """
    grid = raster(data)
    if grid is None:
        raise PtychonError(
            f"{path}: a DataCube is a raster of rows and columns, and these positions are none; "
            "write .cxi or .hspy instead"
        )
    (rows, columns), (dy, dx) = grid
    p, q = data.frame_shape
    known = data.pixel_size is not None
    far = data.geometry == "far" and known
    pixel = data.pixel_size if isinstance(data.pixel_size, tuple) else (1.0, 1.0)
    step_q = 1e-10 / (p * pixel[0]) if far else 1.0
    scale = 1e10 if known else 1.0
    calibration: dict[str, Any] = {
        "R_pixel_size": dy * scale,
        "R_pixel_units": "A" if known else "pixels",
        "Q_pixel_size": step_q,
        "Q_pixel_units": "A^-1" if far else "pixels",
        "QR_rotation": 0.0,
        "QR_rotation_degrees": 0.0,
        "QR_flip": False,
    }
    lost = []
    if data.wavelength is not None and data.wavelength < _ELECTRONS:
        calibration["voltage"] = voltage_of_electrons(data.wavelength)
    elif data.wavelength is not None:
        lost.append("wavelength")
    if not math.isclose(dx, dy, rel_tol=1e-3):
        lost.append(f"that columns are {dx / dy:.4g} times as far apart as rows")
    with create(path) as file:
        root = _root(file)
        cube = _node(root, "datacube", "array", "DataCube")
        # as h5py takes it: a stack on disk is copied row by row
        stack = cube.create_dataset(
            "data", (rows, columns, p, q), data.patterns.dtype, chunks=(1, columns, p, q)
        )
        for row in range(rows):
            stack[row] = np.asarray(data.patterns[row * columns : (row + 1) * columns])
        stack.attrs["units"] = "counts" if data.counting else "intensity"
        r, k = calibration["R_pixel_units"], calibration["Q_pixel_units"]
        steps = ((dy * scale, "Rx", r), (dx * scale, "Ry", r), (step_q, "Qx", k), (step_q, "Qy", k))
        _dimensions(cube, steps)
        bundle = root.create_group("metadatabundle")
        bundle.attrs["emd_group_type"] = "metadatabundle"
        group = _node(bundle, "calibration", "metadata", "Calibration")
        for name, value in calibration.items():
            _item(group, name, value)
        kept = {"patterns", "positions", "geometry", "wavelength"}
        kept = own_attributes.keep(file.attrs, data, kept | ({"pixel_size"} if far else set()))
    return lost + left_out.of_scan(data, kept)


def write_emd_result(path: PathLike, result: Result) -> list[str]:
    """Write object, probe and standard deviation as arrays of an EMD 1.0 file; returns what it has
    no room for.
    """
    known = result.pixel_size is not None
    steps = [s * (1e10 if known else 1.0) for s in result.pixel_size or (1.0, 1.0)]
    unit = "A" if known else "pixels"
    arrays = {"object": result.object, "object_std": result.object_std, "probe": result.probe}
    with create(path) as file:
        root = _root(file)
        for name, array in arrays.items():
            if array is None:
                continue
            node = _node(root, name, "array", "Array")
            node["data"] = array
            node["data"].attrs["units"] = ""
            own = [(s, n, unit) for s, n in zip(steps, ("x", "y"), strict=True)]
            first = (1.0, "mode", "")
            if name == "object" and result.slices is not None:
                first = (result.slices.gaps[0] * 1e10, "z", "A")
            _dimensions(node, [first, *own] if array.ndim == 3 else own)
    return ["positions, history, settings and provenance"]


def _root(file: Any) -> Any:
    from .. import __version__

    file.attrs.update(
        emd_group_type="file",
        version_major=1,
        version_minor=0,
        authoring_program=f"ptychon {__version__}",
    )
    return _node(file, "ptychon_root", "root", "Root")


def _node(parent: Any, name: str, kind: str, python_class: str) -> Any:
    node = parent.create_group(name)
    node.attrs["emd_group_type"], node.attrs["python_class"] = kind, python_class
    return node


def _dimensions(node: Any, steps: Any) -> None:
    for n, (step, name, unit) in enumerate(steps):
        dim = node.create_dataset(f"dim{n}", data=np.array([0.0, step]))
        dim.attrs["name"], dim.attrs["units"] = name, unit


def _item(group: Any, name: str, value: Any) -> None:
    kind = {bool: "bool", str: "string"}.get(type(value), "number")
    item = group.create_dataset(name, data=value.encode() if isinstance(value, str) else value)
    item.attrs["type"] = kind.encode()
