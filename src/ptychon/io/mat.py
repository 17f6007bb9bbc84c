"""MATLAB files, version 5 (through SciPy) and 7.3 (HDF5), and the results of fold_slice and
PtychoShelves in them.

MATLAB counts its axes from the other end: frames are (row, column, frame), probes (row, column,
mode), a raster (row, column, slow, fast). In a file of version 7.3 every array appears with its
axes reversed.

A result ``Niter*.mat`` holds ``object`` (H, W[, layers]), ``probe`` (P, Q, modes[, variable]),
``p.lambda`` and ``p.dx_spec`` in m, and ``outputs.probe_positions`` (x, y) in px, which places the
corner of a window at position + ceil(H/2 - P/2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data.lazy import Derived, Frames, Selected, transposed
from ..data.result import Result
from ..types import PtychonError
from .box import Box
from .entries import understand
from .found import Found
from .frames import Hdf5Frames
from .hdf5 import PathLike, opened
from .nodes import LARGEST_TABLE, is_dataset
from .order import Hdf5Last, frames_last
from .positions import points_of
from .records import check_size

#: Variables of a file of version 5 are read as a whole; larger ones are refused.
_LARGEST_STACK = 2**34


def is_v5(head: bytes) -> bool:
    """Whether the first bytes of a file are those of version 5."""
    return head.startswith(b"MATLAB 5.0")


def is_v73(head: bytes) -> bool:
    """Whether the first bytes of a file are those of version 7.3."""
    return head.startswith(b"MATLAB 7.3")


def _scipy(path: PathLike, function: str, **options: Any) -> Any:
    """A reader of scipy.io; whatever is wrong with the file becomes one sentence. Nothing is
    unpickled by them.
    """
    import scipy.io

    try:
        return getattr(scipy.io, function)(path, **options)
    except MemoryError:
        raise PtychonError(f"not enough memory for {path}, or its sizes are damaged") from None
    except (
        Exception
    ) as error:  # MatReadError, zlib.error, struct.error, ...: whatever a broken stream provokes
        reason = (str(error).splitlines() or [""])[0][:100] or type(error).__name__
        raise PtychonError(
            f"{path} is no MATLAB file that can be read, or damaged: {reason}"
        ) from error


def _turned(array: Any, first: bool | None = None) -> Any:
    """An array of version 5 with its axes in our order; `first` if frames are along the first axes
    in MATLAB as well.
    """
    return array.transpose(_order(array.shape, first))


def _frames_first(shape: tuple[int, ...], points: set[int]) -> bool:
    """Whether a stack was written by someone who puts frames first: what the number of positions
    says, else equal axes.
    """
    if len(shape) not in (3, 4):
        return False
    first, last = (shape[:1], shape[2:]) if len(shape) == 3 else (shape[:2], shape[2:])
    if math.prod(last) in points or math.prod(first) in points:
        return math.prod(last) not in points
    return len(shape) == 3 and shape[1] == shape[2] != shape[0]


def _turned_shape(shape: tuple[int, ...], first: bool | None = None) -> tuple[int, ...]:
    return tuple(shape[k] for k in _order(shape, first))


def _order(shape: tuple[int, ...], first: bool | None = None) -> tuple[int, ...]:
    first = _frames_first(shape, set()) if first is None else first
    if first or len(shape) not in (3, 4):
        return tuple(range(len(shape)))
    return (2, 3, 0, 1) if len(shape) == 4 else (2, 0, 1)


class MatFrames(Frames):
    """Frames of a variable of a file of version 5, which is read at the first touch and kept."""

    def __init__(
        self,
        path: PathLike,
        name: str,
        shape: tuple[int, ...],
        dtype: Any,
        first: bool | None = None,
    ) -> None:
        if math.prod(shape) > _LARGEST_STACK:
            raise PtychonError(
                f"{name} of {path} has shape {shape}: too large for a MATLAB file of version 5; "
                "is it damaged?"
            )
        self._path, self._name, self._first = path, name, first
        self._data: Any = None
        super().__init__(shape, dtype, f"{name} of {path}")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_data": None}

    def _read(self, first: int, last: int) -> Any:
        if self._data is None:
            array = _variable(self._path, self._name)
            if array.size != math.prod(self.shape):
                raise PtychonError(f"{self.source} has changed since it was opened; load it again")
            self._data = np.ascontiguousarray(_turned(array, self._first), self.dtype).reshape(
                self.shape
            )
        return self._data[first:last]


def _variable(path: PathLike, name: str) -> Any:
    return np.asarray(_scipy(path, "loadmat", variable_names=[name])[name])


_CLASSES = {"double": "f8", "single": "f4", "logical": "?", "char": "U1"} | {
    f"{sign}int{bits}": f"{sign or 'i'}{bits // 8}"
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}


def read(path: PathLike, given: Mapping[str, Any]) -> Found:
    """What a file of version 5 says; names as in `ptychon.io.arrays`.

    Raises
    ------
    PtychonError
        If it is damaged, or a result rather than a scan.
    """
    listed = {name: (tuple(shape), kind) for name, shape, kind in _scipy(path, "whosmat")}
    _refuse_result(path, set(listed))
    arrays = {
        n: (_turned_shape(s), np.dtype(_CLASSES[k]))
        for n, (s, k) in listed.items()
        if k in _CLASSES
    }
    small = {
        n: _variable(path, n)
        for n, (s, d) in arrays.items()
        if 0 < math.prod(s) <= LARGEST_TABLE // 64 and "f" in d.kind
    }
    for name, array in small.items():  # the class does not tell whether it is complex
        arrays[name] = arrays[name][0], array.dtype
    box = Box(
        path,
        arrays,
        lambda key: _turned(_variable(path, key)),
        lambda key: MatFrames(path, key, *arrays[key], first[key]),
    )
    points = points_of(box, given)
    first = {n: _frames_first(s, points) for n, (s, k) in listed.items() if k in _CLASSES}
    arrays.update(
        {
            n: (_turned_shape(listed[n][0], first[n]), arrays[n][1])
            for n in first
            if len(listed[n][0]) > 2
        }
    )
    for name, (shape, kind) in listed.items():
        if kind in _CLASSES and math.prod(shape) <= 2:
            value = _variable(path, name)
            box.numbers[name.lower()] = (
                str(value[0]) if kind == "char" and value.size else value,
                name,
            )
    return understand(box, "MATLAB file", given)


def read_v73(path: PathLike, given: Mapping[str, Any]) -> Found:
    """What a file of version 7.3 says; names as in `ptychon.io.arrays`."""
    with opened(path) as file:
        _refuse_result(path, set(file))
        nodes = {name: node for name, node in file.items() if is_dataset(node)}
        arrays = {
            name: (_v73_shape(node.shape), _v73_dtype(node.dtype)) for name, node in nodes.items()
        }

        def load(key: str) -> Any:
            with opened(path) as again:
                return _v73(again[key])

        def frames(key: str) -> Any:
            stack: Any = (Hdf5Last if key in first else Hdf5Frames)(path, key)
            with opened(path) as again:
                shape = tuple(again[key].shape)
            if (
                key in first
            ):  # frames that are first in MATLAB are last, and transposed, in the file
                shape = (*shape[2:], *shape[:2])
            if len(shape) == 4:  # (fast, slow, column, row)
                stack = Selected(stack, np.arange(len(stack)).reshape(shape[:2]).T.reshape(-1))
            return Derived(stack, transposed, (shape[-1], shape[-2]), stack.dtype)

        box = Box(path, arrays, load, frames)
        first: set[str] = set()
        points = points_of(box, given)
        for name, node in nodes.items():
            shape = tuple(node.shape)
            if (
                len(shape) in (3, 4)
                and node.dtype.kind in "uif"
                and frames_last(shape, points, given.get("scan_shape"))
            ):
                first.add(name)
                arrays[name] = _v73_shape((*shape[2:], *shape[:2])), arrays[name][1]
        for name, (shape, dtype) in arrays.items():
            if 0 < math.prod(shape) <= 2 and dtype.kind in "uif":
                box.numbers[name.lower()] = (nodes[name][()], name)
    return understand(box, "MATLAB file (7.3)", given)


def _v73_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 4:
        return shape[1], shape[0], shape[3], shape[2]
    return (*shape[:-2], shape[-1], shape[-2]) if len(shape) >= 2 else tuple(shape)


def _v73_dtype(dtype: Any) -> Any:
    return np.dtype(np.complex128) if dtype.names == ("real", "imag") else dtype


def _v73(node: Any) -> Any:
    """An array of a file of version 7.3 in our order, complex where it was."""
    if math.prod(node.shape) > LARGEST_TABLE:
        raise PtychonError(f"{node.name} has shape {node.shape}: too large for what its name says")
    check_size(node)
    array = np.asarray(node[()])
    if array.dtype.names == ("real", "imag"):
        array = array["real"] + 1j * array["imag"]
    return np.swapaxes(array, -1, -2) if array.ndim >= 2 else array


def _refuse_result(path: PathLike, names: set[str]) -> None:
    if is_result(names):
        raise PtychonError(
            f"{path} is a reconstruction by fold_slice, not a scan; to go on from it use "
            f"--start {path}"
        )


def is_result(names: Any) -> bool:
    """Whether a file with these variables (or an open HDF5 file) is a reconstruction
    by fold_slice.
    """
    return all(name in names for name in ("object", "probe", "outputs", "p"))


def is_v5_result(path: PathLike) -> bool:
    """Whether a file of version 5 is a reconstruction by fold_slice."""
    return is_result({name for name, _, _ in _scipy(path, "whosmat")})


def read_result(path: PathLike, v73: bool) -> Result:
    """Object, probe and positions of ``Niter*.mat``.

    Raises
    ------
    PtychonError
        If it is damaged, or no result.
    """
    if v73:
        with opened(path) as file:
            if not is_result(file):
                raise PtychonError(
                    f"{path} is no result of fold_slice: object, probe, outputs and p are not "
                    "all there"
                )
            objects, probe = (_v73(file[name]) for name in ("object", "probe"))
            values = {name: _v73(file[name]) if name in file else None for name in _FIELDS}
        objects, probe = (
            objects.reshape(-1, *objects.shape[-2:]),
            probe.reshape(-1, *probe.shape[-2:]),
        )
    else:
        if not is_v5_result(path):
            raise PtychonError(
                f"{path} is no result of fold_slice: object, probe, outputs and p are not all there"
            )
        whole = _scipy(
            path, "loadmat", variable_names=["object", "probe", "outputs", "p"], simplify_cells=True
        )
        values = {name: _field(whole, *name.split("/")) for name in _FIELDS}
        objects, probe = (np.asarray(whole[name]) for name in ("object", "probe"))
        objects, probe = (
            a.transpose(*range(a.ndim)[:1:-1], 0, 1).reshape(-1, *a.shape[:2])
            for a in (objects, probe)
        )
    if (
        objects.dtype.kind not in "cf"
        or probe.dtype.kind not in "cf"
        or not objects.size
        or not probe.size
    ):
        raise PtychonError(
            f"object and probe of {path} are of type {objects.dtype} and {probe.dtype}; complex "
            "is needed"
        )
    flat = {k: np.asarray(v, np.float64).reshape(-1) for k, v in values.items() if _numeric(v)}
    scale = flat.get("p/dx_spec", np.zeros(0))
    size = (float(scale[-1]), float(scale[0])) if len(scale) and (scale > 0).all() else None
    corner = (
        np.ceil(np.array(objects.shape[1:]) / 2 - np.array(probe.shape[1:]) / 2)
        + np.array(probe.shape[1:]) // 2
    )
    places = (
        np.asarray(values["outputs/probe_positions"])
        if _numeric(values["outputs/probe_positions"])
        else np.zeros((0, 2))
    )
    if places.ndim != 2 or places.shape[1] != 2:
        places = places.T if places.ndim == 2 and places.shape[0] == 2 else np.zeros((0, 2))
    errors = flat.get("outputs/fourier_error_out", np.zeros(0))
    wavelength = flat.get("p/lambda", np.zeros(0))
    settings: dict[str, Any] = {"format": "fold_slice"}
    if wavelength.size == 1:
        settings["wavelength"] = float(wavelength[0])
    if len(objects) > 1:
        settings["left_out"] = [f"{len(objects) - 1} more layers of the object"]
    origin = (
        (0.0, 0.0) if size is None else (-float(corner[0]) * size[0], -float(corner[1]) * size[1])
    )
    return Result(
        object=objects[0].astype(np.complex64),
        probe=probe.astype(np.complex64),
        errors=np.full(len(errors), np.nan, np.float32),
        final_error=math.nan,
        positions=places[:, ::-1].astype(np.float64) + corner,
        origin=origin,
        pixel_size=size,
        engine="fold_slice",
        backend="fold_slice",
        passes=len(errors),
        history={"fourier_error": errors.astype(np.float32)},
        settings=settings,
    )


_FIELDS = ("p/dx_spec", "p/lambda", "outputs/probe_positions", "outputs/fourier_error_out")


def _numeric(value: Any) -> bool:
    return value is not None and np.asarray(value).dtype.kind in "uif"


def _field(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
