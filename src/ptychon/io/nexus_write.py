"""What makes an HDF5 file open on its picture in silx, h5web and other programs that know NeXus:
NX_class, default, signal, axes and units as attributes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..types import FloatArray

#: Names of groups of CXI -> classes of NeXus.
_CLASSES = {
    "entry": "NXentry",
    "instrument": "NXinstrument",
    "detector": "NXdetector",
    "source": "NXsource",
    "beam": "NXbeam",
    "sample": "NXsample",
    "geometry": "NXcollection",
    "process": "NXprocess",
}
#: Names of datasets -> units of SI.
_UNITS = {
    "distance": "m",
    "x_pixel_size": "m",
    "y_pixel_size": "m",
    "basis_vectors": "m",
    "wavelength": "m",
    "translation": "m",
    "energy": "J",
    "image_size": "m",
}


def classify(file: Any, default: str) -> None:
    """Give groups of a CXI tree their classes and numbers their units, and say what is shown first.

    Parameters
    ----------
    file : h5py.File
        Open, complete.
    default : str
        Path of the group (an `NXdata`) that is shown.
    """
    entry = file["entry_1"]
    entry.attrs["NX_class"] = "NXentry"

    def visit(name: str, node: Any) -> None:
        last = name.rsplit("/", 1)[-1]
        kind = _CLASSES.get(last.rsplit("_", 1)[0])
        if kind is not None and hasattr(node, "keys"):
            node.attrs.setdefault("NX_class", kind)
        unit = _UNITS.get(last)
        if unit is not None and hasattr(node, "dtype") and "units" not in node.attrs:
            node.attrs["units"] = unit

    entry.visititems(visit)
    file.attrs["default"] = "entry_1"
    entry.attrs["default"] = default.removeprefix("entry_1/")


def picture(
    group: Any,
    size: tuple[float, float] | None,
    origin: tuple[float, float] = (0.0, 0.0),
    title: str = "",
    depths: FloatArray | None = None,
) -> None:
    """Make a group with a dataset ``data`` (..., rows, columns) an `NXdata` with axes y and x.

    Parameters
    ----------
    group : h5py.Group
    size : (dy, dx) in m, or None
        Of a pixel; None counts pixels.
    origin : (y, x)
        Of pixel [0, 0], in m or px.
    title : str
    depths : (S,) float, optional
        z of each slice, m, where these are the first axis.
    """
    data = group["data"]
    height, width = data.shape[-2:]
    step = size or (1.0, 1.0)
    for name, n, first, each in zip("yx", (height, width), origin, step, strict=True):
        if name not in group:
            group[name] = first + each * np.arange(n)
            group[name].attrs["units"] = "px" if size is None else "m"
    group.attrs["NX_class"] = "NXdata"
    group.attrs["signal"] = "data"
    if depths is not None and "z" not in group:
        group["z"] = depths
        group["z"].attrs["units"] = "m"
    first_axis = "." if depths is None else "z"
    group.attrs["axes"] = [*([first_axis] * (data.ndim - 2)), "y", "x"]
    data.attrs["interpretation"] = "image"
    if title:
        group["title"] = title
