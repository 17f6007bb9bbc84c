"""Files that Ptychodus reads: a product with object, probe and positions, and diffraction data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.result import Result
from ..units import ELEMENTARY_CHARGE, energy_of_photons
from . import left_out, own_attributes
from .frames import write_npz
from .hdf5 import PathLike, create
from .ptychodus import FLAT, MARK
from .records import put_array
from .saved import stated


def write_result(path: PathLike, result: Result) -> list[str]:
    """Write a product, .h5 or .npz by the suffix; returns what it has no room for."""
    scale = np.array(result.pixel_size or (1.0, 1.0))
    half = (np.array(result.object.shape[-2:]) - np.array(result.probe.shape[1:])) / 2 + np.array(
        result.probe.shape[1:]
    ) // 2
    middle = np.array(result.origin) + half * scale
    places = (result.positions - half) * scale + middle
    measured = np.flatnonzero(np.isfinite(result.errors))
    wavelength = stated(result, "wavelength")
    scan = result.settings.get("scan")
    near = isinstance(scan, dict) and scan.get("geometry") == "near"
    # under the names of today, and under those that older versions demand
    numbers: dict[str, Any] = dict.fromkeys(
        ("exposure_time_s", "mass_attenuation_m2_kg", "tomography_angle_deg"), 0.0
    )
    numbers["far_field"] = not near
    numbers["detector_object_distance_m"] = float(stated(result, "distance") or 0.0)
    numbers["probe_energy_eV"] = (
        energy_of_photons(float(wavelength)) / ELEMENTARY_CHARGE if wavelength else 0.0
    )
    numbers["photon_energy_eV"] = numbers["probe_energy_eV"]
    numbers["probe_photon_count"] = float(np.sum(np.abs(result.probe) ** 2))
    values = {
        "probe_pixel_width_m": scale[1],
        "probe_pixel_height_m": scale[0],
        "object_pixel_width_m": scale[1],
        "object_pixel_height_m": scale[0],
        "object_center_x_m": middle[1],
        "object_center_y_m": middle[0],
    }
    arrays: dict[str, Any] = {
        MARK: np.arange(len(places)),
        "probe_position_x_m": places[:, 1],
        "probe_position_y_m": places[:, 0],
        "probe": result.probe[None],
        "object": result.object if result.object.ndim == 3 else result.object[None],
        "object_layer_spacing_m": np.array(() if result.slices is None else result.slices.gaps),
        "loss_epochs": measured,
        "loss_values": np.asarray(result.errors)[measured],
    }
    texts = {
        "name": str(result.settings.get("name") or "ptychon"),
        "comments": f"{result.engine}, {result.passes} passes",
    }
    if Path(path).suffix.lower() == ".npz":
        write_npz(
            path, {**{k: np.asarray(v) for k, v in (numbers | values | texts).items()}, **arrays}
        )
    else:
        with create(path) as file:
            file.attrs.update(numbers | texts)
            for name, array in arrays.items():
                put_array(file, name, np.asarray(array))
            for (kind, name), flat in FLAT.items():
                file[kind].attrs[name] = values[flat]
    lost = ["settings and provenance"] + ["object_std"] * (result.object_std is not None)
    return lost + ["that the scale is unknown (1 px is written as 1 m)"] * (
        result.pixel_size is None
    )


def write_data(path: PathLike, data: Dataset) -> list[str]:
    """Write the frames as a diffraction file .h5 or .npz; returns what it has no room for: all but
    frames and mask.
    """
    bad = None if data.mask is None or data.mask.ndim == 3 else ~data.mask
    beyond = {"wavelength", "distance", "focus_distance", "pixel_size", "detector_pixel_size"}
    kept = {"patterns", "positions", "mask", "probe", "object_shape", "geometry"} | beyond
    if Path(path).suffix.lower() == ".npz":
        arrays = {"indexes": np.arange(len(data)), "patterns": data.patterns}
        kept = own_attributes.keep(arrays, data, kept)
        write_npz(path, arrays | ({} if bad is None else {"bad_pixels": bad}))
    else:
        with create(path) as file:
            put_array(file, "patterns", data.patterns)
            file["indexes"] = np.arange(len(data))
            if bad is not None:
                file["bad_pixels"] = bad
            kept = own_attributes.keep(file.attrs, data, kept)
    lost = left_out.of_scan(data, kept)
    return ["positions and geometry (they belong into a product)", *lost]
