"""Ptychodus and Pty-Chi: products (.h5 or flat .npz) and their diffraction files, joined on the
index of the frame.

A product states positions (x, y) in m of the probe, and places pixel k of the object at centre + (k
- W/2) pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.lazy import Selected
from ..data.result import Result
from ..types import ComplexArray, FloatArray, IntArray, PtychonError
from ..units import ELEMENTARY_CHARGE, wavelength_of_photons
from . import own_attributes
from .found import Found
from .frames import Hdf5Frames, NpzFrames, npz_headers, read_npz
from .hdf5 import PathLike, check_readable, opened
from .nodes import dataset, plain, table

MARK = "probe_position_indexes"
_NUMBERS = (
    "detector_object_distance_m",
    "photon_energy_eV",
    "probe_energy_eV",
    "probe_photon_count",
    "probe_photons_per_s",
    "exposure_time_s",
    "focus_object_distance_m",
    "far_field",
)
#: Attribute of a dataset in HDF5 -> name in the flat archive.
FLAT = {
    ("probe", "pixel_width_m"): "probe_pixel_width_m",
    ("probe", "pixel_height_m"): "probe_pixel_height_m",
    ("object", "pixel_width_m"): "object_pixel_width_m",
    ("object", "pixel_height_m"): "object_pixel_height_m",
    ("object", "center_x_m"): "object_center_x_m",
    ("object", "center_y_m"): "object_center_y_m",
}


@dataclass(frozen=True, kw_only=True)
class Product:
    """A product: where the probe was, and perhaps what was found.

    Attributes
    ----------
    indexes : (N,) int
        Of the frames.
    positions : (N, 2) float, m
        Row and column of the probe.
    probe : (K, P, Q) complex or None
    object : (L, H, W) complex or None
    numbers : dict of str to float
        In the units that their names state.
    losses : (passes,) float
    name : str
    """

    indexes: IntArray
    positions: FloatArray
    probe: ComplexArray | None
    object: ComplexArray | None
    numbers: dict[str, float]
    losses: FloatArray
    name: str

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """(dy, dx) of the object in m, None if it is not stated."""
        for kind in ("object", "probe"):
            size = tuple(
                self.numbers.get(f"{kind}_pixel_{side}_m", 0.0) for side in ("height", "width")
            )
            if min(size) > 0:
                return size[0], size[1]
        return None

    @property
    def wavelength(self) -> float | None:
        """In m, None if the energy is not stated."""
        energy = self.numbers.get(
            "photon_energy_eV", self.numbers.get("probe_energy_eV", 0.0)
        )  # the older name last
        return wavelength_of_photons(energy * ELEMENTARY_CHARGE) if energy > 0 else None

    @property
    def distance(self) -> float | None:
        """In m, None if it is not stated."""
        value = abs(self.numbers.get("detector_object_distance_m", 0.0))
        return value if value > 0 else None

    @property
    def near(self) -> bool:
        """Whether it says that this is near field."""
        return self.numbers.get("far_field", 1.0) == 0


def is_product(names: Any) -> bool:
    """Whether a file with these datasets (or an open HDF5 file) is a product."""
    return all(name in names for name in (MARK, "probe_position_x_m", "probe_position_y_m"))


def is_diffraction(names: Any) -> bool:
    """Whether a file with these datasets (or an open HDF5 file) is a diffraction file."""
    return (
        "patterns" in names
        and "indexes" in names
        and not any("position" in str(name).lower() for name in names)
    )


def is_product_file(path: PathLike) -> bool:
    """Whether a file of either kind is a product."""
    if Path(path).suffix.lower() == ".npz":
        return is_product(npz_headers(path))
    with opened(path) as file:
        return is_product(file)


def read_product(path: PathLike) -> Product:
    """A product, HDF5 or archive.

    Raises
    ------
    PtychonError
        If it is damaged or its parts do not fit together.
    """
    check_readable(path)
    arrays: dict[str, Any] = {}
    numbers: dict[str, float] = {}
    wanted = (
        MARK,
        "probe_position_x_m",
        "probe_position_y_m",
        "probe",
        "object",
        "loss_values",
        "costs",
    )
    if Path(path).suffix.lower() == ".npz":
        headers = npz_headers(path)
        arrays = {name: read_npz(path, name) for name in wanted if name in headers}
        for name in (*_NUMBERS, *FLAT.values()):
            if (
                name in headers
                and math.prod(headers[name][0]) == 1
                and headers[name][1].kind in "buif"
            ):
                numbers[name] = float(read_npz(path, name).reshape(-1)[0])
        named = (
            str(read_npz(path, "name"))
            if "name" in headers and headers["name"][1].kind == "U"
            else ""
        )
    else:
        with opened(path) as file:
            arrays = {name: table(file[name]) for name in wanted if dataset(file, name) is not None}
            pairs = [(file.attrs, name, name) for name in _NUMBERS]
            pairs += [
                (file[kind].attrs, name, flat)
                for (kind, name), flat in FLAT.items()
                if kind in arrays
            ]
            for attributes, name, flat in pairs:
                value = np.asarray(attributes.get(name, np.nan))
                if value.size == 1 and value.dtype.kind in "buif":
                    numbers[flat] = float(value.reshape(-1)[0])
            named = plain(file.attrs.get("name", ""))
    indexes, x, y = (np.asarray(arrays[name]).reshape(-1) for name in wanted[:3])
    if (
        not len(indexes) == len(x) == len(y)
        or indexes.dtype.kind not in "uif"
        or x.dtype.kind not in "uif"
    ):
        raise PtychonError(
            f"{path} has {len(indexes)} indexes, {len(x)} x and {len(y)} y of positions; they "
            "must agree"
        )
    images = {
        name: array
        for name, array in arrays.items()
        if name in ("probe", "object") and array.dtype.kind == "c"
    }
    for name, array in images.items():
        if array.ndim not in (2, 3, 4) or array.size == 0:
            raise PtychonError(
                f"{name} of {path} has shape {array.shape}; it must be (modes, rows, columns)"
            )
        images[name] = array.reshape(-1, *array.shape[-2:]) if array.ndim < 4 else array[0]
    losses = np.asarray(
        arrays.get("loss_values", arrays.get("costs", np.zeros(0))), np.float64
    ).reshape(-1)
    return Product(
        indexes=indexes.astype(np.int64),
        positions=np.column_stack([y, x]).astype(np.float64),
        losses=losses,
        name=named,
        probe=images.get("probe"),
        object=images.get("object"),
        numbers={name: value for name, value in numbers.items() if math.isfinite(value)},
    )


def read_diffraction(path: PathLike, given: Mapping[str, Any]) -> Found:
    """Frames of a diffraction file; the product that holds their positions is named by
    ``positions_path``.
    """
    product = given.get("positions_path")
    if product is None:
        raise PtychonError(
            f"{path} holds frames of Ptychodus without positions; name the product with "
            "--positions-path"
        )
    return join(str(product), path)


def read(path: PathLike, given: Mapping[str, Any]) -> Found:
    """A product as a scan: its frames are in another file, named by ``data_path``."""
    frames = given.get("data_path")
    if frames is None or not Path(frames).is_file():
        raise PtychonError(
            f"{path} is a product of Ptychodus: positions, probe and object, but no frames; "
            "name the file that holds "
            f"the frames with --data-path"
        )
    return join(path, frames)


def join(product_path: PathLike, frames_path: PathLike) -> Found:
    """Frames of one file with the positions of another, joined on the index.

    Raises
    ------
    PtychonError
        If they have no frame in common, or either is damaged.
    """
    product = read_product(product_path)
    frames, indexes, bad, own = _frames(frames_path)
    found = Found("Ptychodus")
    own_attributes.take(own, found)
    order = {int(index): k for k, index in enumerate(indexes)}
    both = [(order[int(i)], k) for k, i in enumerate(product.indexes) if int(i) in order]
    if len(both) < 2:
        raise PtychonError(
            f"{frames_path} and {product_path} have {len(both)} indexes in common; are they of "
            "one scan?"
        )
    which, rows = (np.array(column) for column in zip(*both, strict=True))
    whole = len(which) == len(frames) and np.array_equal(which, np.arange(len(frames)))
    found.add(
        "patterns",
        frames if whole else Selected(frames, which),
        f"{frames_path}, {len(which)} of {len(frames)} frames",
    )
    found.add("positions", product.positions[rows], f"{product_path} (joined on the index)")
    found.unit = "m"
    if bad is not None and bad.shape == frames.shape[1:]:
        found.add("mask", bad == 0, "bad_pixels")
    try:
        found.add("wavelength", product.wavelength, "photon_energy_eV")
    except PtychonError as error:
        found.problems["wavelength"] = str(error)
    found.add("distance", product.distance, "detector_object_distance_m")
    found.add("pixel_size", product.pixel_size, "pixel of the object in the product")
    if product.near:
        found.add("geometry", "near", "far_field")
        focus = abs(product.numbers.get("focus_object_distance_m", 0.0))
        found.add("focus_distance", focus if focus > 0 else None, "focus_object_distance_m")
    if (
        product.probe is not None
        and product.probe.shape[1:] == frames.shape[1:]
        and product.probe.any()
    ):
        found.add("probe", product.probe, "probe of the product")
    return found


def _frames(path: PathLike) -> tuple[Any, IntArray, Any, dict[str, Any]]:
    """Frames, their indexes, bad pixels, and what this package has written beside them."""
    check_readable(path)
    if Path(path).suffix.lower() == ".npz":
        headers = npz_headers(path)
        if "patterns" not in headers or len(headers["patterns"][0]) != 3:
            raise PtychonError(f"{path} holds no patterns (frames, rows, columns)")
        frames: Any = NpzFrames(path, "patterns")
        indexes = read_npz(path, "indexes") if "indexes" in headers else np.arange(len(frames))
        bad = read_npz(path, "bad_pixels") if "bad_pixels" in headers else None
        own = {name: read_npz(path, name) for name in own_attributes.NAMES if name in headers}
    else:
        with opened(path) as file:
            node = dataset(file, "patterns", "dp", "entry/data/data")
            if node is None or len(node.shape) != 3 or node.dtype.kind not in "uifb":
                raise PtychonError(f"{path} holds no patterns (frames, rows, columns)")
            frames = Hdf5Frames(path, node.name)
            listed, broken = dataset(file, "indexes"), dataset(file, "bad_pixels")
            indexes = np.arange(len(frames)) if listed is None else table(listed, "iu")
            bad = None if broken is None else table(broken)
            own = own_attributes.of(file)
    indexes = np.asarray(indexes).reshape(-1)
    if len(indexes) != len(frames) or indexes.dtype.kind not in "iu":
        raise PtychonError(
            f"{path} has {len(indexes)} indexes for {len(frames)} frames; they must agree"
        )
    return frames, indexes, bad, own


def read_result(path: PathLike) -> Result:
    """Object, probe and positions of a product.

    Raises
    ------
    PtychonError
        If it holds no object or no probe.
    """
    product = read_product(path)
    if product.object is None or product.probe is None:
        raise PtychonError(f"{path} is a product without object or probe")
    layers, modes = product.object, product.probe
    settings: dict[str, Any] = {"format": "Ptychodus", "name": product.name, **product.numbers}
    settings |= {"wavelength": product.wavelength, "distance": product.distance}
    if len(layers) > 1:
        settings["left_out"] = [f"{len(layers) - 1} more layers of the object"]
    size = product.pixel_size
    half = (np.array(layers.shape[1:]) - np.array(modes.shape[1:])) / 2 + np.array(
        modes.shape[1:]
    ) // 2
    middle = np.array([product.numbers.get(f"object_center_{axis}_m", 0.0) for axis in "yx"])
    positions = (product.positions - middle) / (size or (1.0, 1.0)) + half
    origin = middle - half * np.array(size or (1.0, 1.0))
    return Result(
        object=np.asarray(layers[0], np.complex64),
        probe=np.asarray(modes, np.complex64),
        errors=np.full(len(product.losses), np.nan, np.float32),
        final_error=math.nan,
        positions=positions,
        origin=(float(origin[0]), float(origin[1])),
        pixel_size=size,
        engine="Ptychodus",
        backend="Ptychodus",
        passes=len(product.losses),
        history={"loss": product.losses.astype(np.float32)},
        settings={k: v for k, v in settings.items() if v is not None},
    )
