"""PtyLab: preprocessed data (.hdf5) and reconstructions, read and written.

Positions ``encoder`` are row, column of the probe in m from the middle of the object, pixel [H//2,
W//2].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.lazy import Derived
from ..data.result import Result
from ..types import PtychonError
from . import left_out, own_attributes
from .found import Found
from .frames import Hdf5Frames
from .hdf5 import PathLike, create, opened
from .nodes import dataset, pair, scalar, table
from .records import put_array
from .saved import stated


def is_data(file: Any) -> bool:
    """Whether an open HDF5 file holds a ptychogram."""
    return dataset(file, "ptychogram") is not None


def is_result(file: Any) -> bool:
    """Whether an open HDF5 file is a reconstruction by PtyLab: object and probe of
    six dimensions.
    """
    nodes = [dataset(file, name) for name in ("object", "probe")]
    return "dxp" in file and all(
        node is not None and node.dtype.kind == "c" and len(node.shape) == 6 for node in nodes
    )


def reorient(orientation: int, block: Any, first: int = 0) -> Any:
    """Frames in one of the eight orientations of ptypy: 4 transposes, then 2 flips the rows and 1
    the columns.
    """
    block = np.swapaxes(block, -1, -2) if orientation & 4 else block
    block = block[..., ::-1, :] if orientation & 2 else block
    return block[..., ::-1] if orientation & 1 else block


def read(path: PathLike, given: Mapping[str, Any] | None = None) -> Found:
    """What a PtyLab data file says.

    Raises
    ------
    PtychonError
        If it is damaged or its shapes disagree.
    """
    found = Found("PtyLab data")
    with opened(path) as file:
        node = dataset(file, "ptychogram")
        if len(node.shape) != 3 or node.dtype.kind not in "uifb":
            raise PtychonError(
                f"ptychogram of {path} has shape {node.shape} and type {node.dtype}: not frames"
            )
        frames: Any = Hdf5Frames(path, "ptychogram")
        turn = scalar(file, "orientation")
        if turn and turn in range(8):
            shape = frames.shape[:0:-1] if int(turn) & 4 else frames.shape[1:]
            frames = Derived(frames, partial(reorient, int(turn)), shape, frames.dtype)
            found.where["orientation"] = (
                f"{int(turn)} (bits: 4 transpose, 2 flip rows, 1 flip columns), applied"
            )
        found.add("patterns", frames, "ptychogram")
        encoder = dataset(file, "encoder")
        if encoder is not None:
            places = np.asarray(table(encoder, "uif"), np.float64)
            where = "encoder"
            if places.ndim == 2 and places.shape[0] < places.shape[1]:
                places, where = places.T - places.T.mean(axis=0), "encoder, transposed and centred"
            if places.shape != (len(frames), 2):
                raise PtychonError(
                    f"encoder of {path} has shape {encoder.shape} for {len(frames)} frames"
                )
            found.add("positions", places, where)
            found.unit = "m"
        for ours, theirs in (("wavelength", "wavelength"), ("distance", "zo")):
            found.add(ours, scalar(file, theirs), theirs)
        found.add("detector_pixel_size", pair(file, "dxd"), "dxd")
        spectrum = dataset(file, "spectralDensity")
        if spectrum is not None and spectrum.size > 1:
            found.where["spectralDensity"] = (
                f"{spectrum.size} wavelengths; only `wavelength` is used"
            )
        if scalar(file, "theta"):
            found.where["theta"] = (
                f"tilt of {scalar(file, 'theta'):g}: the tilted geometry is not modelled"
            )
    return found


def read_result(path: PathLike) -> Result:
    """Object, probe and positions of a reconstruction by PtyLab."""
    with opened(path) as file:
        objects, probes = table(file["object"], "c"), table(file["probe"], "c")
        size = pair(file, "dxp")
        encoder, history = dataset(file, "encoder_corrected"), dataset(file, "error")
        positions = np.zeros((0, 2))
        middle = np.array(objects.shape[-2:]) // 2
        if encoder is not None and size is not None and encoder.shape[-1:] == (2,):
            positions = np.asarray(table(encoder, "uif"), np.float64) / np.array(size) + middle
        errors = (
            np.zeros(0, np.float32)
            if history is None
            else np.asarray(table(history, "uif"), np.float32).reshape(-1)
        )
        settings: dict[str, Any] = {"format": "PtyLab", "wavelength": scalar(file, "wavelength")}
        settings["distance"] = scalar(file, "zo")
    left = math.prod(objects.shape[:-2]) - 1
    if left:
        settings["left_out"] = [f"{left} more object modes, slices or wavelengths"]
    origin = (
        (0.0, 0.0) if size is None else (-float(middle[0]) * size[0], -float(middle[1]) * size[1])
    )
    return Result(
        object=np.asarray(objects.reshape(-1, *objects.shape[-2:])[0], np.complex64),
        probe=np.asarray(probes[0, 0].reshape(-1, *probes.shape[-2:]), np.complex64),
        errors=np.full(len(errors), np.nan, np.float32),
        final_error=math.nan,
        positions=positions,
        origin=origin,
        pixel_size=size,
        engine="PtyLab",
        backend="PtyLab",
        passes=len(errors),
        history={"ptylab_error": errors},
        settings={k: v for k, v in settings.items() if v is not None},
    )


def write_data(path: PathLike, data: Dataset) -> list[str]:
    """Write a data set for PtyLab; returns what the format has no room for.

    Raises
    ------
    PtychonError
        If something is missing or impossible that PtyLab needs: square frames and pixels,
        wavelength, distance.
    """
    needed = {
        "wavelength": data.wavelength,
        "distance": data.distance,
        "detector pixel size": data.detector_pixel_size,
    }
    missing = [name for name, value in needed.items() if value is None]
    if missing or data.pixel_size is None:
        raise PtychonError(
            f"PtyLab needs {', '.join(missing) or 'the pixel size'}: give it with its flag"
        )
    dy, dx = np.broadcast_to(np.asarray(data.detector_pixel_size, float), (2,))
    p, q = data.frame_shape
    if p != q or not math.isclose(dy, dx, rel_tol=1e-6):
        raise PtychonError(
            f"PtyLab needs square frames and pixels, not {p}x{q} of {dy:g} x {dx:g} m; crop "
            "with --crop"
        )
    middle = (data.positions.max(axis=0) + data.positions.min(axis=0)) / 2
    with create(path) as file:
        put_array(file, "ptychogram", data.patterns)
        file["encoder"] = data.positions - middle
        file["wavelength"], file["zo"], file["dxd"] = data.wavelength, data.distance, float(dx)
        file["orientation"] = 0
        kept = {"patterns", "positions", "wavelength", "distance", "detector_pixel_size"}
        kept = own_attributes.keep(file.attrs, data, kept)
    lost = left_out.of_scan(data, kept)
    if np.any(middle):
        lost.append("the origin of the positions (PtyLab wants them centred)")
    return lost


def write_result(path: PathLike, result: Result) -> list[str]:
    """Write a reconstruction as PtyLab saves its own; returns what the format has no room for."""
    if result.pixel_size is None:
        raise PtychonError(
            "PtyLab needs the pixel size of the object, which this result does not know: give "
            "--pixel-size"
        )
    dy, dx = result.pixel_size
    if not math.isclose(dy, dx, rel_tol=1e-6):
        raise PtychonError(f"PtyLab needs square pixels, not {dy:g} x {dx:g} m")
    with create(path) as file:
        for name, array in (
            ("object", slices(result.object)[None, None, None]),
            ("probe", result.probe[None, None, :, None]),
        ):
            put_array(file, name, np.asarray(array, np.complex64))
            put_array(file, f"I {name}", np.abs(array).astype(np.float32))
        file["error"] = np.asarray(result.errors, np.float32)
        file["dxp"] = np.float32(dx)
        file["wavelength"] = np.float32(stated(result, "wavelength") or 0)
        file["zo"] = np.float32(stated(result, "distance") or 0)
        file["purityProbe"], file["purityObject"] = np.float32(purity(result.probe)), np.float32(1)
        if result.slices is not None:
            file["dz"] = np.float32(result.slices.gaps[0])
        middle = np.array(result.object.shape[-2:]) // 2
        file["encoder_corrected"] = (result.positions - middle) * np.array(result.pixel_size)
    lost = ["settings and provenance", "the origin of the positions"]
    return lost + ["object_std"] * (result.object_std is not None)


def slices(object: Any) -> Any:
    """An object with its axis of slices."""
    return object if object.ndim == 3 else object[None]


def purity(probe: Any) -> float:
    """sqrt(sum p_k^2)/sum p_k of the powers p_k of the modes; 1 for a coherent probe."""
    power = np.linalg.svd(probe.reshape(len(probe), -1), compute_uv=False) ** 2
    return float(np.sqrt((power**2).sum()) / power.sum())
