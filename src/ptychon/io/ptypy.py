"""ptypy: prepared data (.ptyd), and reconstructions (.ptyr) read and written.

Every node of these files carries an attribute ``type``; None is stored as zeros(1), and a pickle is
never loaded. Storages place pixel k at r = (k - _center) _psize, rows first.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.lazy import Stacked
from ..data.result import Result
from ..types import PtychonError
from ..units import ELEMENTARY_CHARGE, energy_of_photons, wavelength_of_photons
from . import left_out, own_attributes
from .found import Found
from .frames import Hdf5Frames
from .hdf5 import PathLike, create, opened
from .nodes import dataset, group, pair, plain, scalar, table, text
from .records import check_size, put_array
from .saved import stated

_KEV = 1e3 * ELEMENTARY_CHARGE
#: Shorter waves (m) belong to electrons, and an energy of photons would be read as another.
_SHORTEST_PHOTON = 1e-11


def is_data(file: Any) -> bool:
    """Whether an open HDF5 file is a .ptyd."""
    return group(file, "chunks") is not None and group(file, "meta") is not None


def is_result(file: Any) -> bool:
    """Whether an open HDF5 file is a .ptyr."""
    content = group(file, "content")
    return group(content, "probe") is not None and group(content, "obj") is not None


def _there(parent: Any, name: str) -> bool:
    """Whether a value is stored, and is not None."""
    node = parent.get(name) if parent is not None else None
    if node is None:
        return False
    kind = plain(node.attrs.get("type", ""))
    if kind in ("pickle", "record_array"):
        raise PtychonError(
            f"{node.name} is a pickle, which is never loaded; save it from ptypy as a plain value"
        )
    return kind != "None"


def read(path: PathLike, given: Any = None) -> Found:
    """What a .ptyd says. Chunks in other files (.part000 and so on) are followed.

    Raises
    ------
    PtychonError
        If a chunk is missing, damaged or a pickle.
    """
    found = Found("ptypy data")
    with opened(path) as file:
        meta, chunks = file["meta"], file["chunks"]
        stacks, places, masks = [], [], []
        for name in sorted(chunks, key=lambda key: (len(key), key)):
            try:
                chunk = chunks[name]
            except (KeyError, OSError):
                raise PtychonError(
                    f"chunk {name} of {path} is in another file that is not there; copy it beside"
                ) from None
            data, positions = dataset(chunk, "data"), dataset(chunk, "positions")
            if (
                data is None
                or positions is None
                or not (_there(chunk, "data") and _there(chunk, "positions"))
            ):
                continue
            if data.dtype.kind not in "uifb" or len(data.shape) != 3:
                raise PtychonError(
                    f"{data.name} of {path} has shape {data.shape} and type {data.dtype}: not "
                    "frames"
                )
            stacks.append(Hdf5Frames(path, f"chunks/{name}/data"))
            places.append(np.asarray(table(positions, "uif"), np.float64))
            if places[-1].shape != (data.shape[0], 2):
                raise PtychonError(
                    f"{positions.name} of {path} has shape {positions.shape} for "
                    f"{data.shape[0]} frames"
                )
            weights = dataset(chunk, "weights")
            usable = (
                weights is not None
                and _there(chunk, "weights")
                and weights.shape[-2:] == data.shape[-2:]
            )
            masks.append(_weights(weights, data.shape) if usable else None)
        if not stacks:
            raise PtychonError(
                f"{path} is a .ptyd without frames: was the data preparation finished?"
            )
        found.add(
            "patterns",
            stacks[0] if len(stacks) == 1 else Stacked(stacks),
            f"chunks ({len(stacks)})",
        )
        found.add("positions", np.concatenate(places), "chunks/*/positions")
        found.unit = "m"
        _add_mask(found, masks, [len(stack) for stack in stacks])
        try:
            energy = scalar(meta, "energy") if _there(meta, "energy") else None
            if energy is not None:
                found.add("wavelength", wavelength_of_photons(energy * _KEV), "meta/energy (keV)")
        except PtychonError as error:
            found.problems["wavelength"] = str(error)
        distance = scalar(meta, "distance") if _there(meta, "distance") else None
        found.add("distance", distance, "meta/distance")
        found.add(
            "detector_pixel_size",
            pair(meta, "psize") if _there(meta, "psize") else None,
            "meta/psize",
        )
        near = "near" in text(meta, "propagation")
        found.add("geometry", "near" if near else "far", "meta/propagation")
    return found


def _weights(node: Any, shape: tuple[int, ...]) -> Any:
    """Valid pixels of a chunk, (P, Q) if they are the same in all frames."""
    check_size(node)
    first = np.asarray(node[0] if len(node.shape) == 3 else node[()]) > 0
    if len(node.shape) == 2:
        return first
    if math.prod(shape) > 2**31:
        raise PtychonError(
            f"{node.name} has shape {shape}: masks of that size do not fit into memory"
        )
    step = max(1, 2**24 // math.prod(shape[1:]))
    if all(((np.asarray(node[k : k + step]) > 0) == first).all() for k in range(0, shape[0], step)):
        return first
    return np.asarray(node[()]) > 0


def _add_mask(found: Found, masks: list[Any], lengths: list[int]) -> None:
    known = [mask for mask in masks if mask is not None]
    if not known:
        return
    if len(known) == len(masks) and all(m.ndim == 2 and np.array_equal(m, known[0]) for m in known):
        found.add("mask", known[0], "chunks/*/weights (> 0 is valid)")
        return
    shape = found.fields["patterns"].shape[1:]
    parts = [
        np.broadcast_to(True if mask is None else mask, (n, *shape))
        for mask, n in zip(masks, lengths, strict=True)
    ]
    found.add("mask", np.concatenate(parts), "chunks/*/weights (> 0 is valid)")


def read_result(path: PathLike) -> Result:
    """Object, probe and positions of a .ptyr.

    Raises
    ------
    PtychonError
        If it is damaged, or holds no object and probe.
    """
    with opened(path) as file:
        content = file["content"]
        obj, others = _storage(content["obj"], path)
        probe, _ = _storage(content["probe"], path)
        if obj is None or probe is None:
            raise PtychonError(
                f"{path} holds no object or no probe: its storages have no complex data"
            )
        settings: dict[str, Any] = {"format": "ptypy"}
        objects, modes = table(obj["data"], "c"), table(probe["data"], "c")
        lost = [f"storages {', '.join(others)}"] * bool(others) + [
            f"{len(objects) - 1} more object modes"
        ] * (len(objects) > 1)
        if lost:
            settings["left_out"] = lost
        size, centre = (
            pair(obj, "_psize"),
            table(obj["_center"]) if "_center" in obj else np.zeros(2),
        )
        name = obj.name.rsplit("/", 1)[-1]
        moved = dataset(group(content, "positions"), name) or dataset(
            group(content, "positions"), *group_names(content)
        )
        positions = np.zeros((0, 2))
        if moved is not None and size is not None and moved.shape[-1:] == (2,):
            positions = np.asarray(table(moved, "uif"), np.float64) / np.array(size) + centre
        energy = scalar(obj, "_energy")
        if energy:
            settings["wavelength"] = wavelength_of_photons(energy * _KEV)
        runs = group(content, "runtime/iter_info")
        steps = [runs[k] for k in sorted(runs)] if runs is not None else []
        errors = [table(step["error"]) for step in steps if dataset(step, "error") is not None]
        engine = text(steps[-1], "engine") if steps else ""
        history = {}
        if errors and all(e.shape == (3,) for e in errors):
            columns = np.array(errors, np.float32).T
            history = dict(
                zip(("ptypy_fourier", "ptypy_photon", "ptypy_exit"), columns, strict=True)
            )
    origin = (
        (0.0, 0.0) if size is None else (-float(centre[0]) * size[0], -float(centre[1]) * size[1])
    )
    return Result(
        object=np.asarray(objects[0], np.complex64),
        probe=np.asarray(modes, np.complex64).reshape(-1, *modes.shape[-2:]),
        errors=np.full(len(errors), np.nan, np.float32),
        final_error=math.nan,
        positions=positions,
        origin=origin,
        pixel_size=size,
        engine=engine or "ptypy",
        backend="ptypy",
        passes=len(errors),
        history=history,
        settings=settings,
    )


def group_names(content: Any) -> list[str]:
    """Names of the lists of refined positions."""
    return list(group(content, "positions") or ())


def _storage(parent: Any, path: PathLike) -> tuple[Any, list[str]]:
    """The first storage (modes, ny, nx) and the names of the others."""
    names = [
        name
        for name in parent
        if (node := dataset(parent[name], "data")) is not None and node.dtype.kind == "c"
    ]
    if not names:
        return None, []
    shape = parent[names[0]]["data"].shape
    if len(shape) != 3:
        raise PtychonError(
            f"{names[0]} of {path} has shape {shape}; a storage is (modes, rows, columns)"
        )
    return parent[names[0]], names[1:]


def write_result(path: PathLike, result: Result) -> list[str]:
    """Write a .ptyr that ptypy and its tools open; returns what it has no room for."""
    scale = result.pixel_size or (1.0, 1.0)
    centre = -np.array(result.origin) / scale
    wavelength = stated(result, "wavelength")
    now = time.asctime()
    with create(path) as file:
        file.attrs.update(h5rw_version="0.1", ctime=now, mtime=now)
        header = _map(file, "header", "dict")
        _text(header, "kind", "minimal")
        _text(header, "description", "Ptypy .h5 compatible storage format")
        content = _map(file, "content", "param")
        places = {
            "obj": (result.projection[None], centre),
            "probe": (result.probe, np.array(result.probe.shape[1:]) // 2),
        }
        for kind, (data, middle) in places.items():
            storage = _map(_map(content, kind, "dict"), "SMFG00", "ordered_dict")
            _array(storage, "data", np.asarray(data, np.complex64))
            _array(storage, "_psize", np.array(scale))
            _array(storage, "_center", np.asarray(middle, float))
            _array(storage, "_origin", -np.asarray(middle) * np.array(scale))
            _array(storage, "shape", np.array(data.shape), "arraytuple")
            _array(storage, "layermap", np.arange(len(data)), "arraylist")
            _text(storage, "ID", "SMFG00")
            _array(storage, "fill_value", np.asarray(1.0 if kind == "obj" else 0.0), "scalar")
            for name, value in (("nlayers", len(data)), ("padding", 0), ("numID", 1)):
                _array(storage, name, np.asarray(value), "scalar")
            for name in ("distributed", "padonly", "DataTooSmall"):
                _array(storage, name, np.asarray(False), "scalar")
            if wavelength:
                _array(
                    storage,
                    "_energy",
                    np.asarray(energy_of_photons(float(wavelength)) / _KEV),
                    "scalar",
                )
        _array(
            _map(content, "positions", "dict"), "SMFG00", result.positions * scale + result.origin
        )
        pars = _map(content, "pars", "param")
        _text(pars, "run", str(result.settings.get("name") or "ptychon"))
        runs = _map(_map(content, "runtime", "param"), "iter_info", "list")
        for k, error in enumerate(result.errors):
            run = _map(runs, f"{k:05d}", "dict")
            _array(run, "iteration", np.asarray(k + 1), "scalar")
            _array(run, "iterations", np.asarray(k + 1), "scalar")
            _text(run, "engine", result.engine)
            _array(run, "error", np.array([error, 0, 0], float))
    lost = ["settings and provenance"]
    if result.slices is not None:
        lost.append(f"the {len(result.slices)} slices (their product is written)")
    if result.object_std is not None:
        lost.append("object_std")
    if result.pixel_size is None:
        lost.append("that the scale is unknown (1 px is written as 1 m)")
    return lost


def write_data(path: PathLike, data: Dataset) -> list[str]:
    """Write a .ptyd of one chunk that ptypy opens; returns what it has no room for.

    Parameters
    ----------
    path : path of the file to write
    data : Dataset
        With a pixel size, since positions are in m. Its frames may be on disk.

    Raises
    ------
    PtychonError
        If the scale is not known, or the file cannot be written.
    """
    if data.pixel_size is None:
        raise PtychonError(
            f"{path}: a .ptyd states positions in m, and the pixel size of the object is not "
            "known; give --pixel-size, or write .cxi"
        )
    n, (p, q) = len(data), data.frame_shape
    wave = data.wavelength
    photons = wave is not None and wave > _SHORTEST_PHOTON
    numbers = {
        "energy": energy_of_photons(wave) / _KEV if wave is not None and photons else None,
        "distance": data.distance,
        "psize": None if data.detector_pixel_size is None else np.array(data.detector_pixel_size),
        "center": np.array([p // 2, q // 2], float),
        "shape": np.array([p, q]),
        "num_frames": np.asarray(n),
    }
    now = time.asctime()
    with create(path) as file:
        file.attrs.update(h5rw_version="0.1", ctime=now, mtime=now)
        meta = _map(file, "meta", "param")
        for name, value in numbers.items():
            if value is None:
                _array(meta, name, np.zeros(1), "None")
            else:
                value = np.asarray(value)
                _array(meta, name, value, "array" if value.ndim else "scalar")
        _text(meta, "propagation", "nearfield" if data.geometry == "near" else "farfield")
        _text(meta, "label", data.name)
        _map(file, "info", "param")
        chunk = _map(_map(file, "chunks", "dict"), "0", "dict")
        put_array(chunk, "data", data.patterns).attrs["type"] = "array"
        _array(chunk, "positions", np.asarray(data.positions, float))
        _array(chunk, "indices", np.arange(n), "arraylist")
        if data.mask is None:
            _array(chunk, "weights", np.zeros(1), "None")
        else:
            # a stack of weights, as ptypy has it: those of one mask are a stack of one frame
            mask = np.broadcast_to(data.mask, (n, p, q))
            put_array(chunk, "weights", mask, np.float32).attrs["type"] = "array"
        kept = {"patterns", "positions", "mask", "distance", "detector_pixel_size", "geometry"}
        kept = own_attributes.keep(file.attrs, data, kept | ({"wavelength"} if photons else set()))
    return left_out.of_scan(data, kept)


def _map(parent: Any, name: str, kind: str) -> Any:
    node = parent.create_group(name)
    node.attrs["type"] = kind
    return node


def _text(parent: Any, name: str, value: str) -> None:
    parent[name] = value
    parent[name].attrs["type"] = "string"


def _array(parent: Any, name: str, value: Any, kind: str = "array") -> None:
    parent[name] = value
    parent[name].attrs["type"] = kind
