"""CXI (coherent X-ray imaging, HDF5) and its relatives NXcxi_ptycho and the NeXus files of Diamond
Light Source.

Axes. The laboratory frame is (x, y, z). Detector rows and columns lie along the two
``basis_vectors`` b_i, b_j; a field at the sample is reconstructed on the same axes. The file gives
translations t of the *sample*: the probe moves by -t,

    row = -t . b_i / |b_i|,    col = -t . b_j / |b_j|    (m)

Without basis vectors rows run along -y and columns along -x, the default of the format.
NXcxi_ptycho is the same tree with a ``units`` attribute on every number, and perhaps a raster
[slow, fast, row, column]; Diamond's files have the frames at ``data/data`` with the scan in
``data/x`` and ``data/y``, dark and flat fields beside the detector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data.bad_values import BadValues
from ..data.prepare import corrected
from ..types import FloatArray, PtychonError
from ..units import wavelength_of_photons
from .cxi_positions import _CUTOFF, detector_basis, read_positions
from .found import Found
from .frames import Hdf5Frames
from .hdf5 import PathLike, opened
from .links import broken, missing_target
from .masks import valid_from
from .nodes import dataset, group, number, plain, table, text
from .records import get

#: Fields of `Dataset` that our own files keep exactly in a group of their own; the arrays live in
#: the CXI tree.
SCALARS = (
    "pixel_size",
    "detector_pixel_size",
    "wavelength",
    "distance",
    "focus_distance",
    "geometry",
    "counting",
    "noise_variance",
    "background",
    "read_noise",
    "blur",
    "upsample",
    "saturation",
    "object_shape",
    "name",
    "notes",
)
#: Where frames are, in the order tried; the last is Diamond's.
_FRAMES = ("data_1/data", "instrument_1/detector_1/data", "data/data")
_ENTRIES = ("entry_1", "entry", "entry1")


def recognise(file: Any) -> bool:
    """Whether an open HDF5 file is a CXI data set or one of its relatives."""
    entry = _entry(file)
    if entry is None:
        return False
    if "cxi_version" in file or any(place in entry for place in _FRAMES[:2]):
        return True
    return "data/data" in entry and (
        text(entry, "definition") == "NXptycho" or ("data/x" in entry and "data/y" in entry)
    )


def _entry(file: Any) -> Any:
    return next((found for name in _ENTRIES if (found := group(file, name)) is not None), None)


def read(path: PathLike, given: Mapping[str, Any] | None = None) -> Found:
    """What a CXI or NeXus file says, in SI. Frames stay on disk.

    Parameters
    ----------
    path : path of the file
    given : mapping, optional
        ``data_path`` names frames that are elsewhere than usual; all else is read from where the
        format has it.

    Raises
    ------
    PtychonError
        If the file is damaged, or holds no stack of frames.
    """
    named = (given or {}).get("data_path")
    with opened(path) as file:
        entry = _entry(file)
        if entry is None:
            raise PtychonError(
                f"{path} has no group entry_1, so it is no CXI data set that can be read"
            )
        nexus = text(entry, "definition") == "NXptycho"
        ours = plain(file.attrs.get("ptychon", "")) == "dataset"
        instrument = _instrument(entry)
        detector = _detector(instrument)
        usual = dataset(entry, *_FRAMES)
        patterns = dataset(file, named) if named else usual
        if patterns is None:
            gone = [
                link
                for link in broken(file, path)
                if not named or link[0].strip("/") == named.strip("/")
            ]
            if gone:
                raise missing_target(gone, path)
            if named:
                raise PtychonError(
                    f"{path} has no dataset {named!r}"
                    + (f"; frames are at {usual.name}" if usual else "")
                )
            raise PtychonError(
                f"{path} has no frames at entry_1/data_1/data nor at "
                "entry_1/instrument_1/detector_1/data"
            )
        diamond = usual is not None and usual.name.endswith("/data/data")
        found = Found("NeXus (Diamond)" if diamond else "NXcxi_ptycho" if nexus else "CXI")
        _check_frames(patterns, path)
        shape = tuple(patterns.shape[-2:])
        dark, flat = _field(detector, ("data_dark", "darkfield"), "dark", shape, found), None
        if not ours:
            flat = _field(detector, ("data_white", "flatfield"), "flat", shape, found)
        found.add("patterns", Hdf5Frames(path, patterns.name), patterns.name)
        if len(patterns.shape) == 4:
            found.add("scan_shape", tuple(patterns.shape[:2]), patterns.name)
        basis = detector_basis(detector, found)
        if basis is not None:
            found.where["orientation"] = "basis_vectors"
        if ours:
            _read_ours(file["ptychon"], found)
        else:
            _read_names(entry, found)
            _read_geometry(entry, instrument, detector, basis, found, nexus=nexus or diamond)
            _read_monitor(instrument, found)
        read_positions(entry, basis, len(found.fields["patterns"]), found)
        _read_mask(detector, found)
        read_limit(detector, found)
        _read_probe(instrument, shape, found)
        if dark is not None or flat is not None:
            _correct(found, dark, flat)
    if ours:
        found.ours = True
        # its basis vectors are those of any scan that was turned when it was first read
        for name in ("orientation", "name", "notes"):
            found.where.pop(name, None)
    return found


def _instrument(entry: Any) -> Any:
    found = group(entry, "instrument_1")
    return group(entry, "instrument") if found is None else found


def _detector(instrument: Any) -> Any:
    """The group of the detector; where there are several, the one that says most."""
    if instrument is None:
        return None
    names = [
        name
        for name in instrument
        if name.startswith("detector") and group(instrument, name) is not None
    ]
    known = ("distance", "x_pixel_size", "basis_vectors", "mask")
    names.sort(
        key=lambda name: (
            -sum(key in instrument[name] for key in known),
            name != "detector_1",
            name,
        )
    )
    return instrument[names[0]] if names else None


def _correct(found: Found, dark: FloatArray | None, flat: FloatArray | None) -> None:
    """Frames without dark and flat field; values that are no measurement stay so."""
    frames = found.fields["patterns"]
    rule = BadValues.of(
        frames, saturation=found.fields.pop("saturation", None), mask=_fitting(found, frames)
    )
    found.fields["patterns"] = corrected(frames, rule, dark, flat)


def _fitting(found: Found, frames: Any) -> Any:
    mask = found.fields.get("mask")
    return mask if mask is not None and mask.shape in (frames.shape, frames.shape[1:]) else None


def read_limit(detector: Any, found: Found) -> None:
    """The largest value that is a measurement, which NeXus calls saturation_value and Dectris the
    cutoff of its counters.
    """
    for name in ("saturation_value", "count_cutoff", f"detectorSpecific/{_CUTOFF}", _CUTOFF):
        node = dataset(detector, name)
        if node is None or node.dtype.kind not in "uif" or node.size != 1:
            continue
        limit = float(np.asarray(node[()]).reshape(-1)[0])
        if np.isfinite(limit) and limit > 0:
            found.add("saturation", limit, f"{node.name} (larger values are bad)")


def _check_frames(node: Any, path: PathLike) -> None:
    if node.dtype.kind not in "uifb":
        kind = (
            "complex images (a reconstruction?)"
            if node.dtype.kind == "c"
            else f"values of type {node.dtype}"
        )
        raise PtychonError(f"{node.name} of {path} holds {kind}, not intensities")
    if len(node.shape) not in (3, 4):
        raise PtychonError(
            f"{node.name} of {path} has shape {node.shape}; a scan is (frames, rows, columns)"
        )


def _read_names(entry: Any, found: Found) -> None:
    """Sample and time, for reports."""
    sample = group(entry, "sample_1")
    sample = group(entry, "sample") if sample is None else sample
    said = {
        "sample": text(sample, "name") if sample is not None else "",
        "start_time": text(entry, "start_time"),
    }
    kept = {name: value.strip() for name, value in said.items() if value.strip()}
    if kept:
        found.fields["notes"] = kept


def _read_ours(own: Any, found: Found) -> None:
    for name in SCALARS:
        if name in own:
            found.add(name, get(own[name]), f"{own.name}/{name}")
    if "positions" in own:
        found.add("positions", get(own["positions"]), f"{own.name}/positions")
        found.unit = "px"


def _read_geometry(
    entry: Any, instrument: Any, detector: Any, basis: FloatArray | None, found: Found, nexus: bool
) -> None:
    name = getattr(detector, "name", "detector_1").rsplit("/", 1)[-1]
    try:
        found.add("distance", number(detector, "distance", "length"), f"{name}/distance")
    except PtychonError as error:
        found.problems["distance"] = str(error)
    try:
        if basis is not None:
            size = math.hypot(*basis[0]), math.hypot(*basis[1])
            found.add("detector_pixel_size", size, f"{name}/basis_vectors")
        else:
            sizes = [number(detector, f"{axis}_pixel_size", "length") for axis in "yx"]
            if None not in sizes:
                found.add("detector_pixel_size", tuple(sizes), f"{name}/y_pixel_size, x_pixel_size")
    except PtychonError as error:
        found.problems["detector_pixel_size"] = str(error)
    source, beam = group(instrument, "source_1"), group(instrument, "beam_1")
    beam = group(entry, "sample_1/beam_1") if beam is None else beam
    try:
        for parent, stem in ((source, "wavelength"), (beam, "incident_wavelength")):
            value = number(parent, stem, "length")
            found.add("wavelength", value, f"{getattr(parent, 'name', '')}/{stem}")
        # in NXptycho the energy of the source is that of the electrons in the ring
        places = [(beam, "energy"), (beam, "incident_energy"), (beam, "incident_beam_energy")]
        for parent, stem in places if nexus else [*places, (source, "energy")]:
            energy = number(parent, stem, "energy")
            if energy is not None and "wavelength" not in found.fields:
                where = f"{parent.name}/{stem}"
                try:
                    found.add("wavelength", wavelength_of_photons(energy), where)
                except PtychonError as error:
                    found.problems["wavelength"] = f"{where}: {error}"
    except PtychonError as error:
        found.problems["wavelength"] = str(error)


def _read_monitor(instrument: Any, found: Found) -> None:
    for name in ("monitor", "ion_chamber"):
        node = dataset(instrument, f"{name}/data")
        if node is not None and node.dtype.kind in "uif" and 1 < node.size <= 10**7:
            values = np.asarray(node[()], np.float64)
            mean = values.mean()
            if np.isfinite(mean) and mean > 0:
                spread = values.std() / mean
                found.where["monitor"] = (
                    f"{node.name}: varies by {100 * spread:.1f} % (rms); frames were not "
                    "divided by it"
                )


def _read_mask(detector: Any, found: Found) -> None:
    node = dataset(detector, "mask", "pixel_mask")
    if node is None or node.dtype.kind not in "uib":
        return
    good = valid_from(table(node), "nexus" if node.name.endswith("pixel_mask") else "cxi")
    if good.ndim == 4:
        good = good.reshape(-1, *good.shape[-2:])
    found.add("mask", good, f"{node.name} (0 is valid)")


def _field(
    detector: Any, names: tuple[str, ...], what: str, shape: tuple[int, ...], found: Found
) -> FloatArray | None:
    """A dark or flat field (P, Q), the mean of several; None if there is none that fits."""
    node = dataset(detector, *names)
    if node is None or node.dtype.kind not in "uif" or node.size == 0:
        return None
    if tuple(node.shape[-2:]) != shape:
        found.where[what] = f"{node.name} of shape {node.shape} does not fit the frames: not used"
        return None
    field: FloatArray = np.asarray(table(node), np.float64).reshape(-1, *shape).mean(axis=0)
    done = "subtracted" if what == "dark" else "frames were divided by it; 0 where it is 0"
    if what == "flat":
        positive = field > 0
        if not positive.any() or np.allclose(field, field.reshape(-1)[0]):
            return None
        field = field / field[positive].mean()
    found.where[what] = f"{node.name}, mean {field.mean():.4g}, {done}"
    return field


def _read_probe(instrument: Any, shape: tuple[int, ...], found: Found) -> None:
    names = ("illumination", "illumination/data", "source_1/illumination", "illumination_1/data")
    node = dataset(instrument, *names)
    if node is None or node.dtype.kind != "c":
        return
    probe = table(node)
    probe = probe.reshape(-1, *probe.shape[-2:]) if probe.ndim >= 2 else probe
    if probe.shape[-2:] != shape or not np.isfinite(probe).all() or not probe.any():
        found.where["probe"] = (
            f"{node.name} of shape {node.shape} is no probe for frames of {shape}: not used"
        )
        return
    found.add("probe", probe, node.name)
