"""Frames without a header that says what they are: EMPAD raw, TIFF stacks, and what RosettaSciIO
reads.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.lazy import Frames
from ..types import IntArray, PtychonError
from ..units import factor_of, in_si, is_pixel, states_nothing
from .found import Found
from .hdf5 import PathLike
from .listing import alone
from .microscopy import taken_back
from .positions import add_positions

#: A frame of an EMPAD: 128x128 float32 followed by 1024 bytes that are none.
_EMPAD = (130, 128)
_EMPAD_BYTES = 130 * 128 * 4
_INTEGRATES = (
    "no: an EMPAD integrates; --pedestal (its dark level) and --gain (units per electron) make "
    "counts"
)
#: Readers of RosettaSciIO that are used: the formats of detectors and microscopes, none of which
#: unpickles anything.
_MICROSCOPES = (
    "Blockfile",
    "DigitalMicrograph",
    "EMD",
    "FEI",
    "HSPY",
    "ZSPY",
    "QuantumDetector",
    "Quantum Detector",
    "TVIPS",
    "EMPAD",
    "NumPy",
    "Ripple",
    "MRC",
    "Electron Microscopy Dataset (EMD)",
)


def is_empad(path: PathLike) -> bool:
    """Whether a file named .raw has the length of whole EMPAD frames."""
    return Path(path).suffix.lower() == ".raw" and os.path.getsize(path) % _EMPAD_BYTES == 0


def read_empad(path: PathLike, given: Mapping[str, Any]) -> Found:
    """Frames of an EMPAD; everything else comes from the caller."""
    found = Found("EMPAD raw")
    count = os.path.getsize(path) // _EMPAD_BYTES
    frames = np.memmap(path, np.float32, "r", shape=(count, *_EMPAD))[:, :128]
    found.add("patterns", frames, "the file")
    _raster_of(path, count, found)
    found.fields["counting"] = False
    found.where["counting"] = _INTEGRATES
    add_positions(found, given)
    return found


#: Shapes of rasters in names of files: scan_x16_y4 has 4 rows of 16, 4x16 as well.
_NAMED_RASTERS = (
    (re.compile(r"x_?(\d+)_?y_?(\d+)", re.IGNORECASE), (2, 1)),
    (re.compile(r"(?<!\d)(\d+)x(\d+)(?!\d)"), (1, 2)),
)


def _raster_of(path: PathLike, count: int, found: Found) -> None:
    """Rows and columns of a raster from the name of its file, else a square."""
    other = ""
    for pattern, (slow, fast) in _NAMED_RASTERS:
        for match in pattern.finditer(Path(path).stem):
            rows, columns = int(match.group(slow)), int(match.group(fast))
            if rows * columns == count:
                found.add(
                    "scan_shape", (rows, columns), f"the name of the file: {rows} rows of {columns}"
                )
                return
            other = other or f"; its name says {rows} x {columns}, which is {rows * columns}"
    side = math.isqrt(count)
    if side * side == count:
        found.add(
            "scan_shape",
            (side, side),
            f"guess: a square raster, since there are {count} frames{other}",
        )
    elif other:
        found.problems["scan_shape"] = f"the file holds {count} frames{other}"


class TiffFrames(Frames):
    """Pages of a TIFF file, read when they are asked for."""

    def __init__(self, path: PathLike) -> None:
        with _tiff(path) as file:
            series = file.series[0] if file.series else None
            if series is None or len(series.shape) not in (3, 4) or series.dtype is None:
                shape = None if series is None else series.shape
                hint = alone(tuple(shape or ()))
                raise PtychonError(
                    f"{path} has shape {shape}; a scan is a stack of pages (frames, rows, "
                    f"columns){hint}"
                )
            shape, dtype = tuple(int(n) for n in series.shape), series.dtype
            if len(series.pages) not in (1, math.prod(shape[:-2])) or dtype.kind not in "uifb":
                raise PtychonError(
                    f"{path} holds colours or {dtype}; a scan is a stack of pages of grey values"
                )
            self._offset = series.dataoffset
            self._stored = np.dtype(file.byteorder + dtype.char) if dtype.itemsize > 1 else dtype
            if self._offset is None and math.prod(shape) * dtype.itemsize > 2**10 * os.path.getsize(
                path
            ):
                raise PtychonError(
                    f"{path} says it holds {shape} {dtype} in {os.path.getsize(path)} bytes: "
                    "damaged"
                )
        self._path = path
        super().__init__(shape, dtype, f"pages of {path}")

    def _read(self, first: int, last: int) -> Any:
        if self._offset is not None:
            size = math.prod(self.shape[1:])
            offset = self._offset + first * size * self._stored.itemsize
            block = np.fromfile(self._path, self._stored, (last - first) * size, offset=offset)
            if block.size != (last - first) * size:
                raise PtychonError(
                    f"{self._path} is truncated: frames {first} to {last - 1} are not all there"
                )
            return block.reshape(-1, *self.shape[1:]).astype(self.dtype, copy=False)
        return self._pages(range(first, last))

    def _gather(self, index: IntArray) -> Any:
        if self._offset is not None:
            return super()._gather(index)
        return self._pages(index.tolist())

    def _pages(self, numbers: Sequence[int]) -> Any:
        """Compressed pages; the file is opened once for all of them, since finding them takes
        longer than reading one.
        """
        with _tiff(self._path) as file:
            try:
                pages = [file.series[0].pages[k].asarray() for k in numbers]
            except Exception as error:  # whatever a damaged stream provokes in a decoder
                raise PtychonError(
                    f"{self._path} is damaged among frames {min(numbers)} to {max(numbers)}: "
                    f"{error}"
                ) from error
        return np.array(pages, self.dtype).reshape(-1, *self.shape[1:])


def _tiff(path: PathLike) -> Any:
    try:
        import tifffile
    except ImportError:
        raise PtychonError(
            f"{path} is a TIFF file: install its reader with 'pip install tifffile'"
        ) from None
    try:
        return tifffile.TiffFile(path)
    except Exception as error:  # whatever a damaged header provokes
        raise PtychonError(f"{path} is truncated or damaged ({error}); copy it again") from error


def is_tiff(head: bytes) -> bool:
    """Whether the first bytes of a file are those of TIFF or BigTIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff(path: PathLike, given: Mapping[str, Any]) -> Found:
    """Frames of a TIFF stack; positions and scale come from the caller."""
    found = Found("TIFF stack")
    try:
        frames = TiffFrames(path)
    except PtychonError:
        raise
    except Exception as error:  # tags of absurd values fail deep inside
        raise PtychonError(
            f"{path} is a TIFF file that cannot be understood ({error}); copy it again"
        ) from error
    found.add("patterns", frames, "the pages")
    add_positions(found, given)
    return found


class _Dask(Frames):
    """A lazy signal of RosettaSciIO."""

    def __init__(self, array: Any, path: PathLike) -> None:
        self._array = array.reshape(-1, *array.shape[-2:])
        super().__init__(array.shape, array.dtype, str(path))

    def _read(self, first: int, last: int) -> Any:
        return self._now(self._array[first:last])

    def _gather(self, index: IntArray) -> Any:
        return self._now(self._array[index])

    def _now(self, block: Any) -> Any:
        return np.asarray(block.compute() if hasattr(block, "compute") else block)


#: Suffixes of files that need RosettaSciIO.
_SUFFIXES = ("mib", "dm3", "dm4", "blo", "hspy", "zspy", "tvips", "hdr", "emi", "ser", "mrc")


def read_rosetta(path: PathLike, given: Mapping[str, Any]) -> Found | None:
    """What RosettaSciIO finds in a file of an electron microscope; None if it knows no such file.

    Raises
    ------
    PtychonError
        If the file is one of those but cannot be read.
    """
    suffix = Path(path).suffix.lower().lstrip(".")
    try:
        from importlib import import_module

        from rsciio import IO_PLUGINS
    except ImportError:
        if suffix in (
            "mib",
            "dm3",
            "dm4",
            "blo",
            "hspy",
            "zspy",
            "tvips",
            "hdr",
            "emi",
            "ser",
            "mrc",
        ):
            raise PtychonError(
                f"{path} looks like a file of an electron microscope: install the reader with "
                "'pip install ptychon[em]'"
            ) from None
        return None
    plugins = [
        p
        for p in IO_PLUGINS
        if suffix in [e.lower() for e in p["file_extensions"]] and p["name"] in _MICROSCOPES
    ]
    for plugin in plugins:
        try:
            signals = import_module(plugin["api"]).file_reader(str(path), lazy=True)
        except ImportError as error:
            raise PtychonError(
                f"{path} is read with {plugin['name']} of RosettaSciIO, which needs a package "
                f"that is not there ({error}); "
                f"install it with 'pip install ptychon[em]'"
            ) from error
        except Exception as error:  # every reader has its own ways to fail
            reason = (str(error).splitlines() or [""])[0][:150] or type(error).__name__
            raise PtychonError(f"{path} cannot be read as {plugin['name']}: {reason}") from error
        for signal in signals:
            data, axes = _usual_order(signal)
            if data.ndim in (3, 4) and data.dtype.kind in "uifb" and min(data.shape[-2:]) >= 4:
                return _signal(path, plugin["name"], signal, data, axes, given)
        shapes = ", ".join(str(tuple(signal["data"].shape)) for signal in signals[:8]) or "nothing"
        raise PtychonError(
            f"{path} ({plugin['name']}) holds {shapes}, and no stack of frames: (frames, rows, "
            "columns) or (slow, fast, rows, "
            f"columns); save one scan as .npy and give that"
        )
    return None


def _usual_order(signal: Any) -> tuple[Any, list[dict[str, Any]]]:
    """Data and axes with the scan first and the detector last, without axes of length 1 at the
    front.

    The unit of an axis says what it is: a length is the scan, an angle or a wavenumber the
    detector. Where units do not, the reader says which axes it navigates along.
    """
    data = signal["data"]
    axes = [axis for axis in signal.get("axes", []) if isinstance(axis, dict)]
    if len(axes) != data.ndim:
        return data, []
    axes.sort(key=lambda axis: int(axis.get("index_in_array", 0) or 0))
    while data.ndim > 4 and data.shape[0] == 1:
        data, axes = data[0], axes[1:]
    kinds = [_kind(axis) for axis in axes]
    detector = [k for k, kind in enumerate(kinds) if kind == "detector"]
    if len(detector) != 2:
        detector = [k for k, axis in enumerate(axes) if not axis.get("navigate")]
    if data.ndim in (3, 4) and len(detector) == 2 and detector != [data.ndim - 2, data.ndim - 1]:
        order = [k for k in range(data.ndim) if k not in detector] + detector
        return data.transpose(order), [axes[k] for k in order]
    return data, axes


def _kind(axis: Mapping[str, Any]) -> str:
    unit = str(axis.get("units") or "")
    if states_nothing(unit):
        return ""
    if factor_of(unit, "angle") is not None or factor_of(unit, "wavenumber") is not None:
        return "detector"
    return "scan" if factor_of(unit, "length") is not None else ""


def _signal(
    path: PathLike,
    kind: str,
    signal: Any,
    data: Any,
    axes: list[dict[str, Any]],
    given: Mapping[str, Any],
) -> Found:
    found = Found(f"{kind} (RosettaSciIO)")
    turned = tuple(data.shape) != tuple(signal["data"].shape)
    found.add(
        "patterns", _Dask(data, path), f"data, axes in the order {data.shape}" if turned else "data"
    )
    if kind == "EMPAD":
        found.fields["counting"], found.where["counting"] = False, _INTEGRATES
    if data.ndim == 4:
        found.add("scan_shape", tuple(int(n) for n in data.shape[:2]), "the shape of the data")
    beside = signal.get("original_metadata", {}).get("ptychon")
    if isinstance(beside, dict) and len(beside):
        return taken_back(found, beside)
    steps, pixels = axes[:-2], axes[-2:]
    try:
        if len(steps) == 2:
            step = tuple(
                abs(in_si(float(a["scale"]), str(a["units"]), "length", "step of the scan"))
                for a in steps
            )
            known = all(_kind(a) == "scan" for a in steps) and min(step) > 0
            found.add("step", step if known else None, "scale of the axes of the scan")
    except (PtychonError, KeyError, TypeError, ValueError) as error:
        found.where["step"] = (
            str(error)
            if isinstance(error, PtychonError)
            else "the axes of the scan state no length"
        )
    units = [str(axis.get("units") or "") for axis in pixels]
    scales = [abs(float(axis.get("scale") or 0)) for axis in pixels]
    if len(pixels) == 2 and min(scales) > 0:
        # rows and columns of the detector may differ
        sizes = list(zip(scales, units, strict=True))
        if all(factor_of(unit, "angle") is not None for unit in units):
            angles = tuple(in_si(scale, unit, "angle") for scale, unit in sizes)
            found.add(
                "detector_pixel_angle", angles, f"scale of the axes of the detector ({units[0]})"
            )
        elif all(factor_of(unit, "wavenumber") is not None for unit in units):
            waves = [1 / in_si(scale, unit, "wavenumber") for scale, unit in sizes]
            size = waves[0] / data.shape[-2], waves[1] / data.shape[-1]
            found.add("pixel_size", size, f"scale of the axes of the detector ({units[0]})")
        elif not all(states_nothing(unit) or is_pixel(unit) for unit in units):
            stated = " and ".join(dict.fromkeys(units))
            found.problems["pixel_size"] = (
                f"the axes of the detector are in {stated}, neither an angle nor a wavenumber"
            )
    microscope = signal.get("metadata", {}).get("Acquisition_instrument", {}).get("TEM", {})
    if isinstance(microscope, dict):
        voltage, angle = microscope.get("beam_energy"), microscope.get("convergence_angle")
        found.add("voltage", float(voltage) * 1e3 if voltage else None, "beam_energy (kV)")
        found.add("semi_angle", float(angle) * 1e-3 if angle else None, "convergence_angle (mrad)")
    add_positions(found, given)
    return found
