"""Writing data sets as CXI files that `ptychon.load` gives back in every field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..data.dataset import Dataset
from ..units import energy_of_photons
from .cxi import DEFAULT_BASIS, SCALARS
from .hdf5 import PathLike, create
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
        own = file.create_group("ptychon")
        if data.pixel_size is None:
            put(own, "positions", data.positions)
        else:
            y, x = data.positions.T
            translation = np.stack(
                [x, y, 0 * x], axis=1
            )  # rows run along -y and the sample moves by -probe
            entry.create_group("sample_1/geometry_1")["translation"] = translation
            entry["data_1/translation"] = entry["sample_1/geometry_1/translation"]
        for name in SCALARS:
            derived = (
                name == "pixel_size"
                and replace(data, pixel_size=None).pixel_size == data.pixel_size
            )
            if not derived:
                put(own, name, getattr(data, name), lenient=True)
