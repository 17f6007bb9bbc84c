"""CXI (coherent X-ray imaging, HDF5): reading, and writing of data sets.

Axes. The laboratory frame is (x, y, z). Detector rows and columns lie along the two ``basis_vectors`` b_i, b_j; a field
at the sample is reconstructed on the same axes. The file gives translations t of the *sample*: the probe moves by -t,

    row = -t . b_i / |b_i|,    col = -t . b_j / |b_j|    (m)

Without basis vectors rows run along -y and columns along -x, the default of the format.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ..dataset import Dataset
from ..types import FloatArray, PtychonError
from ..units import Dimension, energy_of_photons, parse, wavelength_of_photons
from .found import Found
from .frames import Hdf5Frames
from .hdf5 import PathLike, create, get, opened, put, put_array

#: A mask value with no other bit set than this one marks a good pixel.
_HARMLESS = 0x1000
_DEFAULT_BASIS = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
#: Fields of `Dataset` that are kept exactly in a group of their own; the arrays live in the CXI tree.
_SCALARS = (
    "pixel_size", "detector_pixel_size", "wavelength", "distance", "focus_distance", "geometry", "counting",
    "noise_variance", "object_shape", "name", "notes",
)  # fmt: skip
#: Shorter waves belong to electrons: no energy of a photon is written for them.
_SHORTEST_X_RAYS = 1e-11


def recognise(file: Any) -> bool:
    """Whether an open HDF5 file is a CXI data set."""
    if "cxi_version" in file:
        return True
    entry = _entry(file)
    return entry is not None and any(name in entry for name in ("data_1/data", "instrument_1/detector_1/data"))


def _entry(file: Any) -> Any:
    return file["entry_1"] if "entry_1" in file and hasattr(file["entry_1"], "keys") else None


def read(path: PathLike) -> Found:
    """What a CXI file says, in SI. Frames stay on disk.

    Raises
    ------
    PtychonError
        If the file is damaged, or holds no stack of frames.
    """
    found = Found("CXI")
    with opened(path) as file:
        entry = _entry(file)
        if entry is None:
            raise PtychonError(f"{path} has no group entry_1, so it is no CXI data set that can be read")
        instrument = _group(entry, "instrument_1")
        detector = _group(instrument, "detector_1")
        ours = str(file.attrs.get("ptychon", "")) == "dataset"
        patterns = _find(file, ("entry_1/data_1/data", "entry_1/instrument_1/detector_1/data"))
        if patterns is None:
            raise PtychonError(f"{path} has no frames at entry_1/data_1/data nor at entry_1/instrument_1/detector_1/data")
        _check_frames(patterns, path)
        shape = tuple(patterns.shape[-2:])
        dark = _dark(detector, shape, found)
        found.add("patterns", Hdf5Frames(path, patterns.name, dark), patterns.name)
        if len(patterns.shape) == 4:
            found.add("scan_shape", tuple(patterns.shape[:2]), patterns.name)
        basis = _basis(detector, found)
        if ours:
            _read_ours(file["ptychon"], found)
        else:
            _read_geometry(entry, instrument, detector, basis, found)
        _read_positions(file, basis, len(found.fields["patterns"]), found)
        _read_mask(detector, shape, found)
        _read_probe(instrument, shape, found)
    if ours:
        found.where.clear()  # how the scan was first read is in its notes
    return found


def _group(parent: Any, name: str) -> Any:
    return parent[name] if parent is not None and name in parent and hasattr(parent[name], "keys") else None


def _find(file: Any, names: tuple[str, ...]) -> Any:
    """The first of some datasets that exists."""
    for name in names:
        node = file.get(name)
        if node is not None and hasattr(node, "dtype"):
            return node
    return None


def _check_frames(node: Any, path: PathLike) -> None:
    if node.dtype.kind not in "uifb":
        kind = "complex images (a reconstruction?)" if node.dtype.kind == "c" else f"values of type {node.dtype}"
        raise PtychonError(f"{node.name} of {path} holds {kind}, not intensities")
    if len(node.shape) not in (3, 4):
        raise PtychonError(f"{node.name} of {path} has shape {node.shape}; a scan is (frames, rows, columns)")


def _decimal(value: Any) -> float:
    """A number; of a float32 the shortest decimal that it stands for, 5.5e-05 rather than 5.4999999702e-05."""
    value = np.asarray(value).reshape(-1)[0]
    return float(str(value)) if isinstance(value, np.float32) else float(value)


def _number(group: Any, name: str, dimension: Dimension) -> float | None:
    """A scalar dataset in SI, honouring an attribute ``units``; None if it is not there."""
    node = group.get(name) if group is not None else None
    if node is None or not hasattr(node, "dtype") or node.dtype.kind not in "uif" or node.size == 0:
        return None
    value, units = _decimal(node[()]), _units(node)
    return parse(f"{value!r}{units}", dimension, f"{node.name}") if units and math.isfinite(value) else value


def _units(node: Any) -> str:
    units = node.attrs.get("units", "")
    return units.decode(errors="replace") if isinstance(units, bytes) else str(units)


def _read_ours(group: Any, found: Found) -> None:
    for name in _SCALARS:
        if name in group:
            found.add(name, get(group[name]), group.name)
    if "positions" in group:
        found.add("positions", get(group["positions"]), group.name)
        found.unit = "px"


def _read_geometry(entry: Any, instrument: Any, detector: Any, basis: FloatArray | None, found: Found) -> None:
    try:
        found.add("distance", _number(detector, "distance", "length"), "detector_1/distance")
        if basis is not None:
            size = math.hypot(*basis[0]), math.hypot(*basis[1])
            found.add("detector_pixel_size", size, "detector_1/basis_vectors")
        else:
            sizes = [_number(detector, name, "length") for name in ("y_pixel_size", "x_pixel_size")]
            if None not in sizes:
                found.add("detector_pixel_size", tuple(sizes), "detector_1/y_pixel_size, x_pixel_size")
    except PtychonError as error:
        found.problems["detector_pixel_size"] = str(error)
    definition = entry["definition"][()] if "definition" in entry else b""
    nexus = (definition.decode(errors="replace") if isinstance(definition, bytes) else str(definition)) == "NXptycho"
    source, beam = _group(instrument, "source_1"), _group(instrument, "beam_1")
    try:
        for group, name in ((source, "wavelength"), (beam, "incident_wavelength")):
            value = _number(group, name, "length")
            found.add("wavelength", value, f"{getattr(group, 'name', '')}/{name}")
        # in NXptycho the energy of the source is that of the electrons in the ring
        places = [(beam, "energy"), (beam, "incident_energy"), (beam, "incident_beam_energy")]
        for group, name in places if nexus else [*places, (source, "energy")]:
            energy = _number(group, name, "energy")
            if energy is not None and "wavelength" not in found.fields:
                where = f"{group.name}/{name}"
                try:
                    found.add("wavelength", wavelength_of_photons(energy), where)
                except PtychonError as error:
                    found.problems["wavelength"] = f"{where}: {error}"
    except PtychonError as error:
        found.problems["wavelength"] = str(error)


def _basis(detector: Any, found: Found) -> FloatArray | None:
    """Vectors of one step down the rows and along the columns, (2, 3) in m, or None."""
    node = detector.get("basis_vectors") if detector is not None else None
    if node is None or not hasattr(node, "dtype") or node.dtype.kind not in "uif":
        return None
    basis: Any = np.vectorize(_decimal, otypes=[float])(node[()]) if node.size else np.zeros(0)
    if basis.ndim == 3 and len(basis):
        if np.ptp(basis, axis=0).max() > 1e-6 * np.abs(basis).max():
            found.where["basis_vectors"] = "they differ from frame to frame; those of the first frame were used"
        basis = np.asarray(basis[0])
    if basis.shape == (3, 2):
        basis = basis.T
    lengths = [math.hypot(*b) for b in basis] if basis.shape == (2, 3) else [0.0]
    if not (np.isfinite(basis).all() and min(lengths) > 0):
        found.where["basis_vectors"] = f"basis_vectors of shape {node.shape} were not understood and left aside"
        return None
    return np.asarray(basis, np.float64)


def _probe_positions(translation: FloatArray, basis: FloatArray | None) -> FloatArray:
    """Rows and columns (N, 2) of the probe in m, from translations (N, 3) of the sample in m."""
    across = (_DEFAULT_BASIS if basis is None else basis)[:, :2]
    units = np.array([b / math.hypot(*b) if math.hypot(*b) > 0 else b for b in across])
    if not abs(np.linalg.det(units)) > 0.5:
        raise PtychonError("basis_vectors are parallel to each other or to the beam: positions cannot be placed on them")
    moved = -translation[:, :2]
    if abs(units[0] @ units[1]) < 1e-6:
        return np.asarray(moved @ units.T + 0.0)
    return np.asarray(np.linalg.solve(units.T, moved.T).T)


def _read_positions(file: Any, basis: FloatArray | None, frames: int, found: Found) -> None:
    places = ("data_1", "sample_1/geometry_1", "sample_1/geometry", "instrument_1/detector_1")
    node = _find(file, tuple(f"entry_1/{place}/translation" for place in places))
    if node is None or node.dtype.kind not in "uif":
        return
    table = np.asarray(node[()], np.float64)
    table = table.reshape(-1, table.shape[-1]) if table.ndim == 3 else table
    if table.ndim == 2 and table.shape[0] in (2, 3) and table.shape[1] == frames and frames > 3:
        table = table.T
    if table.ndim != 2 or table.shape[1] not in (2, 3):
        raise PtychonError(f"{node.name} has shape {node.shape}; sample translations are (frames, 3): x, y, z")
    if units := _units(node):
        table = table * parse(f"1{units}", "length", node.name)
    remark = "" if basis is not None else "; no basis_vectors: rows along -y, columns along -x"
    found.add("positions", _probe_positions(table, basis), f"{node.name} (motion of the sample{remark})")
    found.unit = found.unit or "m"


def _read_mask(detector: Any, shape: tuple[int, ...], found: Found) -> None:
    node = detector.get("mask") if detector is not None else None
    if node is None or not hasattr(node, "dtype") or node.dtype.kind not in "uib":
        return
    mask = np.asarray(node[()])
    if mask.dtype.kind != "b":
        mask = (mask & ~mask.dtype.type(_HARMLESS)) if mask.dtype.itemsize > 1 else mask
    good = mask == 0
    if good.ndim == 4:
        good = good.reshape(-1, *good.shape[-2:])
    found.add("mask", good, f"{node.name} (0 is good)")


def _dark(detector: Any, shape: tuple[int, ...], found: Found) -> FloatArray | None:
    node = detector.get("data_dark") if detector is not None else None
    if node is None or not hasattr(node, "dtype") or node.dtype.kind not in "uif" or node.size == 0:
        return None
    if tuple(node.shape[-2:]) != shape:
        found.where["dark"] = f"{node.name} of shape {node.shape} does not fit the frames: not used"
        return None
    dark: FloatArray = np.asarray(node[()], np.float64).reshape(-1, *shape).mean(axis=0)
    found.where["dark"] = f"{node.name}, mean {dark.mean():.4g}, subtracted; negative values set to 0"
    return dark


def _read_probe(instrument: Any, shape: tuple[int, ...], found: Found) -> None:
    if instrument is None:
        return
    names = ("illumination", "illumination/data", "source_1/illumination", "illumination_1/data")
    node = _find(instrument, names)
    if node is None or node.dtype.kind != "c":
        return
    probe = np.asarray(node[()])
    probe = probe.reshape(-1, *probe.shape[-2:]) if probe.ndim >= 2 else probe
    if probe.shape[-2:] != shape or not np.isfinite(probe).all() or not probe.any():
        found.where["probe"] = f"{node.name} of shape {node.shape} is no probe for frames of {shape}: not used"
        return
    found.add("probe", probe, node.name)


def write_dataset(path: PathLike, data: Dataset) -> None:
    """Write a data set to a CXI file; `ptychon.load` gives back every field.

    The CXI tree holds what the format has names for (frames, translations of the sample, mask, detector, wavelength,
    first probe), so that other programs read it too; the group ``ptychon`` holds the rest. The file appears when it is
    complete.

    Parameters
    ----------
    path : path of the file to write
    data : Dataset
        Its frames may be on disk; they are copied in blocks.

    Raises
    ------
    PtychonError
        If the file cannot be written.
    """
    from .. import __version__

    with create(path) as file:
        file.attrs["ptychon"] = "dataset"
        file.attrs["ptychon_version"] = __version__
        file["cxi_version"], file["number_of_entries"] = 160, 1
        entry = file.create_group("entry_1")
        detector = entry.create_group("instrument_1/detector_1")
        frames = put_array(detector, "data", data.patterns)
        frames.attrs["axes"] = "translation:y:x"
        entry.create_group("data_1")["data"] = frames
        if data.mask is not None:
            put_array(detector, "mask", np.where(data.mask, 0, 1).astype(np.uint32))
        if data.distance is not None:
            detector["distance"] = data.distance
        if isinstance(data.detector_pixel_size, tuple):
            dy, dx = data.detector_pixel_size
            detector["y_pixel_size"], detector["x_pixel_size"] = dy, dx
            detector["basis_vectors"] = (_DEFAULT_BASIS * [[dy], [dx]] + 0.0).T
        if data.wavelength is not None:
            source = entry.create_group("instrument_1/source_1")
            source["wavelength"] = data.wavelength
            if data.wavelength >= _SHORTEST_X_RAYS:
                source["energy"] = energy_of_photons(data.wavelength)
        if data.probe is not None:
            put_array(entry["instrument_1"], "illumination", data.probe)
        own = file.create_group("ptychon")
        if data.pixel_size is None:
            put(own, "positions", data.positions)
        else:
            y, x = data.positions.T
            translation = np.stack([x, y, 0 * x], axis=1)  # rows run along -y and the sample moves by -probe
            entry.create_group("sample_1/geometry_1")["translation"] = translation
            entry["data_1/translation"] = entry["sample_1/geometry_1/translation"]
        for name in _SCALARS:
            derived = name == "pixel_size" and replace(data, pixel_size=None).pixel_size == data.pixel_size
            if not derived:
                put(own, name, getattr(data, name), lenient=True)
