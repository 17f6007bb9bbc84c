"""Writing data sets as CXI files that `ptychon.load` gives back in every field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..types import PtychonError
from ..units import energy_of_photons
from . import left_out, own_attributes
from .cxi import SCALARS
from .cxi_positions import DEFAULT_BASIS
from .hdf5 import PathLike, create, titled
from .nexus_write import classify, picture
from .records import put, put_array

#: Shorter waves belong to electrons: no energy of a photon is written for them.
_SHORTEST_X_RAYS = 1e-11


def write_dataset(path: PathLike, data: Dataset) -> None:
    """Write a data set to a CXI file; `ptychon.load` gives back every field.

    The CXI tree holds what the format has names for (frames, translations of the sample, mask,
    detector, wavelength, first probe), so that other programs read it too; the group ``ptychon``
    holds the rest. The file appears when it is complete.

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
        _tree(file, data)
        own = file.create_group("ptychon")
        if data.pixel_size is None:
            put(own, "positions", data.positions)
        for name in SCALARS:
            derived = (
                name == "pixel_size"
                and replace(data, pixel_size=None).pixel_size == data.pixel_size
            )
            if not derived:
                put(own, name, getattr(data, name), lenient=True)
        _shown(file, data)


def write_nexus(path: PathLike, data: Dataset) -> list[str]:
    """Write a data set as NXcxi_ptycho (.nxs), for programs that know NeXus; returns what it has no
    room for.

    Parameters
    ----------
    path : path of the file to write
    data : Dataset
        With a pixel size, since translations are in m.

    Raises
    ------
    PtychonError
        If the scale is not known, or the file cannot be written.
    """
    if data.pixel_size is None:
        raise PtychonError(
            f"{path}: NXcxi_ptycho states positions in m, and the pixel size of the object is not "
            "known; give --pixel-size, or write .cxi"
        )
    with create(path) as file:
        _tree(file, data)
        entry = file["entry_1"]
        entry["definition"] = "NXptycho"
        entry["title"] = titled(data.name, "ptychographic scan")
        instrument = entry["instrument_1"]
        instrument["name"] = "unknown"
        # the energy of a source is that of its machine, which nobody knows here
        if "source_1" in instrument:
            del instrument["source_1"]
        beam = instrument.create_group("beam_1")
        if data.wavelength is not None:
            if data.wavelength >= _SHORTEST_X_RAYS:
                beam["energy"] = energy_of_photons(data.wavelength)
            beam["incident_wavelength"] = data.wavelength
            beam["incident_wavelength"].attrs["units"] = "m"
        _shown(file, data)
        kept = {"patterns", "positions", "mask", "distance", "detector_pixel_size"}
        kept = own_attributes.keep(file.attrs, data, kept | {"wavelength", "probe"})
    return left_out.of_scan(data, kept)


def _tree(file: Any, data: Dataset) -> None:
    """What CXI has names for, into an open file."""
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
        detector["basis_vectors"] = (DEFAULT_BASIS * [[dy], [dx]] + 0.0).T
    if data.wavelength is not None:
        source = entry.create_group("instrument_1/source_1")
        source["wavelength"] = data.wavelength
        if data.wavelength >= _SHORTEST_X_RAYS:
            source["energy"] = energy_of_photons(data.wavelength)
    if data.probe is not None:
        put_array(entry["instrument_1"], "illumination", data.probe)
    if data.pixel_size is not None:
        y, x = data.positions.T
        # rows run along -y and the sample moves by -probe
        translation = np.stack([x, y, 0 * x], axis=1)
        entry.create_group("sample_1/geometry_1")["translation"] = translation
        entry["data_1/translation"] = entry["sample_1/geometry_1/translation"]


def _shown(file: Any, data: Dataset) -> None:
    """Programs that know NeXus open on the frames."""
    entry = file["entry_1"]
    size = data.detector_pixel_size
    size = size if isinstance(size, tuple) else None
    picture(entry["data_1"], size, title=titled(data.name, "diffraction patterns"))
    if "illumination" in entry["instrument_1"]:
        shown = entry.create_group("probe")
        shown["data"] = entry["instrument_1/illumination"]
        pixel = data.pixel_size if isinstance(data.pixel_size, tuple) else None
        picture(shown, pixel, title="first probe")
    classify(file, "entry_1/data_1")
