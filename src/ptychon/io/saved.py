"""Results of reconstructions: one HDF5 file in the CXI tree, that other readers of CXI show as an
image.

    entry_1/image_1/data            object (H, W) complex, or (S, H, W) of a thick specimen, with
                                    data_error = object_std where there is one
    entry_1/image_2/data            probe modes (K, P, Q) complex; also
                                    entry_1/instrument_1/illumination
    entry_1/object_std              the standard deviation beside it, a link
    entry_1/data_1/data             the object again, a link
    entry_1/sample_1/geometry_1     translations of the sample, where the scale is known
    ptychon/result                  every field of `ptychon.Result`, object and probe being links to
                                    the above

Attributes of NeXus (NX_class, default, signal, axes, units) make silx and h5web open on the object.
The root carries the attributes ``ptychon`` = "result" and ``ptychon_format`` = `FORMAT`.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from ..data.result import Result
from ..data.slices import Slices
from ..types import PtychonError
from .hdf5 import PathLike, create, opened, titled
from .nexus_write import classify, picture
from .records import get, put, put_array

#: Of results and checkpoints. It grows when names of engines, options or fields change their
#: meaning; files of another number are refused.
FORMAT = 3
#: Fields stored in the CXI tree and linked to.
_LINKED = {
    "object": "entry_1/image_1/data",
    "probe": "entry_1/image_2/data",
    "object_std": "entry_1/image_1/data_error",
}


def save_result(path: PathLike, result: Result) -> None:
    """Write a result; the file appears when it is complete, and what was there before is not harmed
    by a failure.

    Parameters
    ----------
    path : path of the file to write
    result : Result

    Raises
    ------
    PtychonError
        If the file cannot be written.
    """
    with create(path) as file:
        put_result(file, result)


def put_result(file: Any, result: Result) -> None:
    """The same into an HDF5 file that is open and empty."""
    from .. import __version__

    file.attrs["ptychon"] = "result"
    file.attrs["ptychon_version"] = __version__
    file.attrs["ptychon_format"] = FORMAT
    file["cxi_version"], file["number_of_entries"] = 160, 1
    entry = file.create_group("entry_1")
    entry["program_name"] = f"ptychon {__version__}"
    entry["title"] = titled(result.settings.get("name"), "ptychographic reconstruction")
    for number, array, what in ((1, result.object, "object"), (2, result.probe, "probe")):
        image = entry.create_group(f"image_{number}")
        put_array(image, "data", array)
        image["data_space"], image["data_type"] = "real", f"complex transmission of the {what}"
        thick = result.slices if what == "object" else None
        image["dimensionality"], image["is_fft_shifted"] = 2 if thick is None else 3, 0
        if result.pixel_size is not None:
            h, w = array.shape[-2:]
            depth = 0.0 if thick is None else thick.depths[-1]
            image["image_size"] = [w * result.pixel_size[1], h * result.pixel_size[0], depth]
    entry["image_2/data_type"][()] = "complex amplitude of the probe"
    if result.object_std is not None:
        put_array(entry["image_1"], "data_error", result.object_std)
    entry.create_group("data_1")["data"] = entry["image_1/data"]
    entry.create_group("instrument_1")["illumination"] = entry["image_2/data"]
    process = entry["image_1"].create_group("process_1")
    process["program"], process["comment"] = "ptychon", f"{result.engine}, {result.passes} passes"
    if result.pixel_size is not None:
        y, x = (result.positions * result.pixel_size + result.origin).T
        entry.create_group("sample_1/geometry_1")["translation"] = np.stack([x, y, 0 * x], axis=1)
    for name, what in (("image_1", "object"), ("image_2", "probe")):
        origin = result.origin if what == "object" else (0.0, 0.0)
        depths = result.slices.depths if what == "object" and result.slices is not None else None
        title = f"{what}: {entry['title'].asstr()[()]}"
        picture(entry[name], result.pixel_size, origin, title, depths)
    if result.object_std is not None:
        beside = entry.create_group("object_std")
        beside["data"] = entry["image_1/data_error"]
        for axis in "yx":
            beside[axis] = entry[f"image_1/{axis}"]
        picture(beside, result.pixel_size, title="standard deviation of the object")
    own = file.create_group("ptychon/result", track_order=True)
    for item in fields(Result):
        value = getattr(result, item.name)
        if item.name in _LINKED and value is not None:
            own[item.name] = file[_LINKED[item.name]]
            own[item.name].attrs["type"] = "array"
        else:
            put(own, item.name, value, lenient=True)
    own.attrs["type"] = "record"
    own.attrs["class"] = "Result"
    classify(file, "entry_1/image_1")


def check_format(file: Any, path: PathLike) -> None:
    """Refuse a result or a checkpoint whose names mean something else now.

    Raises
    ------
    PtychonError
        If it was written with another `FORMAT`.
    """
    number = int(file.attrs.get("ptychon_format", 1))
    if number != FORMAT:
        which = "an earlier" if number < FORMAT else "a later"
        raise PtychonError(
            f"{path} was written by {which} version of ptychon (format {number}; this version "
            f"reads format {FORMAT}): run the reconstruction again from its data"
        )


def load_result(path: PathLike) -> Result:
    """Read what `save_result` wrote.

    Raises
    ------
    PtychonError
        If the file is missing, damaged or no result of this package.
    """
    with opened(path) as file:
        if str(file.attrs.get("ptychon", "")) != "result" or "ptychon/result" not in file:
            raise PtychonError(f"{path} is not a result written by ptychon")
        check_format(file, path)
        values: dict[str, Any] = get(file["ptychon/result"])
    missing = [
        f.name
        for f in fields(Result)
        if f.default is f.default_factory is MISSING and f.name not in values
    ]
    if missing:
        raise PtychonError(f"{path} is incomplete: it lacks {', '.join(missing)}")
    thick = values.get("slices")
    if thick is not None:
        values["slices"] = Slices(**thick)
    result = Result(**{f.name: values[f.name] for f in fields(Result) if f.name in values})
    count = () if result.slices is None else (len(result.slices),)
    if tuple(np.shape(result.object)[:-2]) != count:
        raise PtychonError(
            f"{path}: its object has shape {np.shape(result.object)}, but "
            f"{count[0] if count else 'no'} slices are stated; the file was altered"
        )
    for name, ndim, kind in (
        ("object", 2 + len(count), "c"),
        ("probe", 3, "c"),
        ("positions", 2, "f"),
        ("errors", 1, "f"),
    ):
        array = np.asarray(getattr(result, name))
        if array.ndim != ndim or array.dtype.kind != kind:
            raise PtychonError(
                f"{path}: its {name} has shape {array.shape} and type {array.dtype}; the file "
                "was altered"
            )
    return result


def stated(result: Result, name: str) -> float | None:
    """A number about the scan, "wavelength" or "distance" in m, that came along in the settings of
    a result.
    """
    scan = result.settings.get("scan")
    value = result.settings.get(name) or (scan.get(name) if isinstance(scan, dict) else None)
    return float(value) if isinstance(value, int | float) and value > 0 else None
