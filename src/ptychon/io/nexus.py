"""NXmx, the files of Dectris detectors (Eiger, Pilatus, Arina): a master file, and frames in others
behind external links.

Frames are ``entry/data/data_000001``, ``data_000002``, ... one after the other, or the virtual
dataset ``entry/data/data``. Distance, pixels, wavelength and the mask (bits, 0 is good) are in
``entry/instrument``. Positions are not; they come from a table, or from a dataset under a known
name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..data.lazy import Stacked
from ..types import PtychonError
from ..units import ELEMENTARY_CHARGE, wavelength_of_electrons, wavelength_of_photons
from .arrays import hdf5_box
from .cxi import read_limit
from .found import Found
from .frames import Hdf5Frames
from .hdf5 import PathLike, opened
from .links import broken, missing_target
from .masks import valid_from
from .nodes import dataset, group, number, scalar, table, text, units
from .positions import add_positions

_BLOCK = re.compile(r"data_\d+")
#: Words in the description of detectors that count electrons.
_ELECTRONS = ("arina", "quadro", "singla", "ela")


def recognise(file: Any) -> bool:
    """Whether an open HDF5 file is a master file of this kind."""
    entry = group(file, "entry")
    data = group(entry, "data")
    if data is None:
        return False
    return any(_BLOCK.fullmatch(name) for name in data) or (
        text(entry, "definition") == "NXmx" and "data" in data
    )


def read(path: PathLike, given: Mapping[str, Any]) -> Found:
    """What a master file and the files it links to say, in SI.

    Raises
    ------
    PtychonError
        If frames are missing (the first file that is not there is named), or are no frames.
    """
    with opened(path) as file:
        entry = file["entry"]
        data = entry["data"]
        named = given.get("data_path")
        names = (
            [named]
            if named
            else [f"entry/data/{name}" for name in sorted(data) if _BLOCK.fullmatch(name)]
        )
        names = names or ["entry/data/data"]
        gone = broken(data, path)
        lost = [link for link in gone if link[0].strip("/") in [name.strip("/") for name in names]]
        if lost:
            raise missing_target(lost, path)
        found = Found("NXmx (Dectris master file)")
        stacks = []
        for name in names:
            node = dataset(file, name)
            if node is None or len(node.shape) not in (3, 4) or node.dtype.kind not in "uifb":
                shape = (
                    "missing" if node is None else f"of shape {node.shape} and type {node.dtype}"
                )
                raise PtychonError(
                    f"{name} of {path} is {shape}, not a stack of frames; name another with "
                    "--data-path"
                )
            stacks.append(Hdf5Frames(path, name))
        where = (
            names[0]
            if len(names) == 1
            else f"{names[0]} to {names[-1].rsplit('/', 1)[-1]} ({len(names)} datasets)"
        )
        found.add("patterns", stacks[0] if len(stacks) == 1 else Stacked(stacks), where)
        instrument = group(entry, "instrument")
        detector = group(instrument, "detector")
        _geometry(detector, group(instrument, "beam"), found)
        _mask(detector, found)
        read_limit(detector, found)
        _scan(detector, found)
    add_positions(found, given, hdf5_box(path, given))
    return found


def _geometry(detector: Any, beam: Any, found: Found) -> None:
    places = {
        "distance": ("detector_distance", "distance"),
        "detector_pixel_size": ("y_pixel_size", "x_pixel_size"),
    }
    for what, names in places.items():
        try:
            values = [(number(detector, name, "length"), name) for name in names]
        except PtychonError as error:
            found.problems[what] = str(error)
            continue
        known = [
            (value, name) for value, name in values if value
        ]  # Dectris writes 0 for what nobody has set
        if what == "distance" and known:
            found.add(what, known[0][0], f"detector/{known[0][1]}")
        elif len(known) == 2:
            found.add(
                what, tuple(value for value, _ in known), "detector/y_pixel_size, x_pixel_size"
            )
    label = text(detector, "description").lower()
    electrons = any(word in re.split(r"[^a-z]+", label) for word in _ELECTRONS)
    try:
        node = dataset(beam, "incident_wavelength", "wavelength")
        length = None if node is None else number(beam, node.name.rsplit("/", 1)[-1], "length")
        if node is not None and length:
            bare = not units(node) and length > 1e-6
            found.add(
                "wavelength",
                length * 1e-10 if bare else length,
                node.name + " (guess: A, for no unit is stated)" * bare,
            )
        for parent, name in (
            (beam, "incident_energy"),
            (beam, "energy"),
            (group(detector, "detectorSpecific"), "photon_energy"),
        ):
            node = dataset(parent, name)
            if "wavelength" in found.fields or node is None or not scalar(parent, name):
                continue
            volts = (
                None if units(node) else scalar(parent, name)
            )  # eV, by the definition of the format
            energy = number(parent, name, "energy") if volts is None else volts * ELEMENTARY_CHARGE
            kind = "electrons" if electrons else "photons"
            remark = f"{node.name}, of {kind}" + " (guess: eV, for no unit is stated)" * (
                volts is not None
            )
            energy = energy or 0.0
            wave = (
                wavelength_of_electrons(energy / ELEMENTARY_CHARGE)
                if electrons
                else wavelength_of_photons(energy)
            )
            found.add("wavelength", wave, remark)
    except PtychonError as error:
        found.problems["wavelength"] = str(error)


def _mask(detector: Any, found: Found) -> None:
    node = dataset(detector, "detectorSpecific/pixel_mask", "pixel_mask")
    if node is None or node.dtype.kind not in "uib":
        return
    valid = valid_from(table(node), "nexus")
    if valid.shape[-2:] != found.fields["patterns"].shape[1:]:
        found.where["mask"] = f"{node.name} of shape {node.shape} does not fit the frames: not used"
        return
    found.add(
        "mask",
        valid.reshape(-1, *valid.shape[-2:])[0] if valid.ndim > 2 else valid,
        f"{node.name} (0 is valid)",
    )


def _scan(detector: Any, found: Found) -> None:
    """Rows and columns of a raster, where the detector was triggered once a row."""
    specific = group(detector, "detectorSpecific")
    rows, columns = (
        int(scalar(specific, name) or 0) if specific is not None else 0
        for name in ("ntrigger", "nimages")
    )
    count = len(found.fields["patterns"])
    if rows > 1 and columns > 1 and rows * columns == count:
        found.add("scan_shape", (rows, columns), "guess: ntrigger x nimages")
