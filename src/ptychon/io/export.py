"""Writing scans and reconstructions in the formats of others, and from any format to any other that
can hold them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.result import Result
from ..types import PtychonError
from . import left_out, microscopy, ptychodus_write, ptylab, ptypy
from .cxi_write import write_dataset, write_nexus
from .entries import BACKGROUND
from .export_files import matlab, write_mat, write_pictures, write_stack, write_table, write_tiff
from .frames import write_npz
from .hdf5 import PathLike
from .saved import save_result, stated

#: Name of a format -> suffixes it may have; the first format with a suffix is the one it stands
#: for.
FORMATS: dict[str, tuple[str, ...]] = {
    "ptychon": (".h5", ".cxi"),
    "ptypy": (".ptyr", ".ptyd"),
    "nexus": (".nxs",),
    "hyperspy": (".hspy", ".zspy"),
    "emd": (".emd",),
    "ptylab": (".hdf5", ".h5"),
    "numpy": (".npz", ".npy"),
    "matlab": (".mat",),
    "tiff": (".tif", ".tiff"),
    "ptychodus": (".h5", ".hdf5", ".npz"),
}
#: Fields whose unit is written beside them.
_LENGTHS = ("pixel_size", "detector_pixel_size", "wavelength", "distance", "focus_distance")


@dataclass(frozen=True)
class Written:
    """What `convert` did.

    Attributes
    ----------
    kind : {"scan", "reconstruction"}
    format : str
        A key of `FORMATS`.
    files : list of str
    lost : list of str
        What the new file has no room for.
    """

    kind: str
    format: str
    files: list[str]
    lost: list[str]


def format_of(path: PathLike, name: str | None = None) -> str:
    """The format to write, from its name, or from the suffix of the file.

    Raises
    ------
    PtychonError
        If neither is known, or they do not go together.
    """
    suffix = Path(path).suffix.lower()
    if name is not None:
        if name not in FORMATS:
            raise PtychonError(f"format {name!r} is none of {', '.join(FORMATS)}")
        if suffix not in FORMATS[name]:
            raise PtychonError(
                f"{path} must be named {' or '.join(FORMATS[name])} to be written as {name}"
            )
        return name
    for known, suffixes in FORMATS.items():
        if suffix in suffixes:
            return known
    listed = ", ".join(f"{suffixes[0]} ({known})" for known, suffixes in FORMATS.items())
    raise PtychonError(
        f"{path}: the suffix {suffix or 'is missing, and'} says no format; use one of {listed}, "
        "or --format"
    )


def convert(source: PathLike, target: PathLike, format: str | None = None, **given: Any) -> Written:
    """Write what is in one file into another of a different format.

    Parameters
    ----------
    source : path of a scan or a reconstruction
    target : path of the file to write; the suffix says the format
    format : str, optional
        A key of `FORMATS`, where the suffix is not enough.
    **given
        For a scan, as in `ptychon.load`: what the file does not say, and how to prepare the frames.

    Returns
    -------
    Written
        What was lost, among other things.

    Raises
    ------
    PtychonError
        If either file is at fault, or the format cannot hold what is there.
    """
    from . import load
    from .recognise import holds_result, load_result

    chosen = format_of(target, format)
    if Path(target).exists() and Path(target).samefile(source):
        raise PtychonError(f"{target} would overwrite what it is made from; give another name")
    if given.get("data_path") is None and holds_result(source):
        stated = [name for name, value in given.items() if value is not None]
        if stated:
            raise PtychonError(
                f"{source} is a reconstruction: {', '.join(stated)} can only be said of a scan"
            )
        return _written(
            target, "reconstruction", chosen, write_result(target, load_result(source), chosen)
        )
    return _written(target, "scan", chosen, write_scan(target, load(source, **given), chosen))


def _written(target: PathLike, kind: str, format: str, lost: list[str]) -> Written:
    files = [str(target)]
    table = positions_beside(target)
    if kind == "scan" and (format == "tiff" or Path(target).suffix.lower() == ".npy"):
        files.append(str(table))
    return Written(kind, format, files, lost)


def positions_beside(path: PathLike) -> Path:
    """Where the table of positions of a TIFF stack goes."""
    return Path(path).with_name(f"{Path(path).stem}_positions.csv")


def write_scan(path: PathLike, data: Dataset, format: str | None = None) -> list[str]:
    """Write a scan; returns what the format has no room for.

    Parameters
    ----------
    path : path of the file to write
    data : Dataset
        Its frames may be on disk; where the format allows it they are copied in blocks.
    format : str, optional
        A key of `FORMATS`; default what the suffix says.

    Raises
    ------
    PtychonError
        If the file cannot be written, or the format cannot hold a scan.
    """
    format = format_of(path, format)
    if format == "ptychon":
        write_dataset(path, data)
        return []
    if format == "ptypy":
        if Path(path).suffix.lower() == ".ptyr":
            raise PtychonError(
                f"{path}: a .ptyr holds a reconstruction, and this is a scan; use .ptyd, .cxi or "
                ".npz"
            )
        return ptypy.write_data(path, data)
    if format == "nexus":
        return write_nexus(path, data)
    if format == "emd":
        return microscopy.write_emd(path, data)
    if format == "hyperspy":
        beside = {k: v for k, v in _scan_values(data).items() if k != "patterns"}
        return microscopy.write_hyperspy(path, data, beside)
    if format == "ptylab":
        return ptylab.write_data(path, data)
    if format == "ptychodus":
        return ptychodus_write.write_data(path, data)
    if format == "tiff" or Path(path).suffix.lower() == ".npy":
        (write_tiff if format == "tiff" else write_stack)(path, data.patterns)
        write_table(positions_beside(path), data)
        return left_out.of_scan(data, {"patterns", "positions"})
    values = _scan_values(data)
    if format == "numpy":
        write_npz(path, values)
    else:
        write_mat(path, {name: matlab(value) for name, value in values.items()}, data.patterns)
    return ["notes"] * bool(data.notes)


def _scan_values(data: Dataset) -> dict[str, Any]:
    """Arrays under the names that `ptychon.io.arrays` knows."""
    unit = "px" if data.pixel_size is None else "m"
    values: dict[str, Any] = {"patterns": data.patterns, f"positions_{unit}": data.positions}
    for name in (
        "mask",
        "probe",
        "pixel_size",
        "detector_pixel_size",
        "wavelength",
        "distance",
        "focus_distance",
        "noise_variance",
        "read_noise",
        "blur",
        "saturation",
        "object_shape",
        "geometry",
        "counting",
    ):
        value = getattr(data, name)
        if value is not None:
            values[name] = np.asarray(value)
            if name in _LENGTHS:
                values[f"{name}_units"] = np.asarray("m")
    if data.upsample != 1:
        values["upsample"] = np.asarray(data.upsample)
    if data.background is not None:
        values[BACKGROUND] = np.asarray(data.background)
    return values


def write_result(path: PathLike, result: Result, format: str | None = None) -> list[str]:
    """Write a reconstruction; returns what the format has no room for.

    Parameters
    ----------
    path : path of the file to write
    result : Result
    format : str, optional
        A key of `FORMATS`; default what the suffix says.

    Raises
    ------
    PtychonError
        If the file cannot be written.
    """
    format = format_of(path, format)
    if format == "ptychon":
        save_result(path, result)
        return []
    if Path(path).suffix.lower() in (".ptyd", ".nxs"):
        raise PtychonError(
            f"{path}: such a file holds a scan, and this is a reconstruction; use .h5, which other "
            "programs that know NeXus open too, or .ptyr"
        )
    if format in ("ptypy", "ptylab", "ptychodus", "hyperspy", "emd"):
        writers = {
            "hyperspy": microscopy.write_hyperspy_result,
            "emd": microscopy.write_emd_result,
            "ptypy": ptypy.write_result,
            "ptylab": ptylab.write_result,
            "ptychodus": ptychodus_write.write_result,
        }
        lost = writers[format](path, result)
        return lost + left_out.of_frames(result)
    if format == "tiff":
        return write_pictures(path, result) + left_out.of_frames(result)
    if Path(path).suffix.lower() == ".npy":
        write_stack(path, result.object)
        return ["everything but the object"]
    history = ["history, settings and provenance"]
    scale = {} if result.pixel_size is None else {"pixel_size": np.array(result.pixel_size)}
    if format == "numpy":
        extra: dict[str, Any] = {}
        if result.object_std is not None:
            extra["object_std"] = result.object_std
        if result.slices is not None:
            extra["slice_depths"] = result.slices.depths
        frames = ("variations", "weights", "log_scale", "background")
        extra |= {n: a for n in frames if (a := getattr(result, n)) is not None}
        arrays = {
            "object": result.object,
            "probe": result.probe,
            "positions_px": result.positions,
            **extra,
            **scale,
        }
        more = {
            "origin": np.array(result.origin),
            "errors": result.errors,
            "engine": np.array(result.engine),
        }
        write_npz(path, arrays | more)
        return history + left_out.of_frames(result, frames)
    size = result.pixel_size or (1.0, 1.0)
    corner = np.ceil(np.array(result.object.shape[-2:]) / 2 - np.array(result.probe.shape[1:]) / 2)
    places = result.positions - corner - np.array(result.probe.shape[1:]) // 2
    wavelength = stated(result, "wavelength")
    outputs = {
        "probe_positions": places[:, ::-1],
        "fourier_error_out": np.asarray(result.errors, np.float64),
    }
    known = {"dx_spec": np.array([size[1], size[0]])} | (
        {"lambda": float(wavelength)} if wavelength else {}
    )
    extra = {} if result.object_std is None else {"object_std": result.object_std}
    if result.slices is not None:  # MATLAB has the slices last, as it has the modes
        extra["slice_depths"] = result.slices.depths
    field = result.object if result.object.ndim == 2 else np.moveaxis(result.object, 0, -1)
    arrays = {"object": field, "probe": np.moveaxis(result.probe, 0, -1), **extra}
    write_mat(path, {**arrays, "p": known, "outputs": outputs})
    lost = [*history, "the origin of the positions", *left_out.of_frames(result)]
    return lost + ["that the scale is unknown (1 px is written as 1 m)"] * (
        result.pixel_size is None
    )
