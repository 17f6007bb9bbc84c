"""What kind of file it is, by its content."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from ..data.result import Result
from ..types import PtychonError
from . import (
    arrays,
    cxi,
    emd,
    folder,
    mat,
    nexus,
    own_attributes,
    plainly,
    ptychodus,
    ptylab,
    ptypy,
    raw,
    saved,
    zarr_store,
)
from .found import Found
from .frames import npz_headers
from .hdf5 import PathLike, check_readable, opened
from .listing import said_of_text
from .nodes import plain
from .places import KINDS, is_folder, is_store
from .positions import add_positions

_HDF5_SUFFIXES = (".h5", ".hdf5", ".cxi", ".nxs", ".hdf", ".he5", ".ptyd", ".ptyr", ".emd")
_LARGEST_OBJECT = 2**28
_KNOWN = (
    "CXI, NeXus and other HDF5, .ptyd, .ptyr, .mat, .npz, .npy, TIFF, EMPAD .raw, folders of "
    ".tif, .npy, .cbf, .edf or .h5"
)


class Format(NamedTuple):
    """A format inside HDF5: how it is recognised and read, as a scan or (with `scan` None) as a
    reconstruction.
    """

    name: str
    recognise: Callable[[Any], bool]
    scan: Callable[[PathLike, Mapping[str, Any]], Found] | None
    result: Callable[[PathLike], Result] | None = None


#: In the order tried.
HDF5 = (
    Format("EMD 1.0", emd.recognise, emd.read),
    Format("ptypy data", ptypy.is_data, ptypy.read),
    Format("ptypy", ptypy.is_result, None, ptypy.read_result),
    Format("PtyLab data", ptylab.is_data, ptylab.read),
    Format("PtyLab", ptylab.is_result, None, ptylab.read_result),
    Format("Ptychodus product", ptychodus.is_product, ptychodus.read, ptychodus.read_result),
    Format("Ptychodus diffraction", ptychodus.is_diffraction, ptychodus.read_diffraction),
    Format("CXI", cxi.recognise, cxi.read),
    Format("NXmx", nexus.recognise, nexus.read),
)


def find(path: PathLike, given: Mapping[str, Any]) -> Found:
    """What is in a file, whatever it is.

    Parameters
    ----------
    path : path of the file
    given : mapping
        What the caller states, from `check_given`.

    Raises
    ------
    PtychonError
        If the file is missing, damaged, of an unknown kind, or a reconstruction rather than a scan.
    """
    if Path(path).suffix.lower() == ".zspy" and (found := raw.read_rosetta(path, given)):
        return found
    if is_store(path):
        return zarr_store.read(path, given)
    if is_folder(path):
        return folder.read_folder(path, given)
    head = first_bytes(path)
    suffix = Path(path).suffix.lower()
    if head.startswith(b"PK") or suffix == ".npz":
        if not zipfile.is_zipfile(path):
            raise PtychonError(
                f"{path} is no complete .npz archive: truncated or damaged; copy it again"
            )
        headers = npz_headers(path)
        if ptychodus.is_product(headers):
            return ptychodus.read(path, given)
        if plainly.is_result(headers) and "data_path" not in given:
            raise PtychonError(
                f"{path} holds object and probe of a reconstruction but no frames; go on from "
                "it with --start"
            )
        if ptychodus.is_diffraction(headers) and "data_path" not in given:
            return ptychodus.read_diffraction(path, given)
        return arrays.read_archive(path, given)
    if head.startswith(b"\x93NUMPY") or suffix == ".npy":
        return arrays.read_stack(path, given)
    if raw.is_tiff(head):
        return raw.read_tiff(path, given)
    if mat.is_v5(head):
        return mat.read(path, given)
    if _is_hdf5(path):
        return _find_hdf5(path, head, given)
    if suffix in _HDF5_SUFFIXES:
        with opened(path):  # says what is wrong with it
            pass
    if raw.is_empad(path):
        return raw.read_empad(path, given)
    found = raw.read_rosetta(path, given)
    if found is None and suffix in KINDS:
        raise PtychonError(
            f"{path} is one frame of a scan; name the folder with all of them, or a pattern "
            f"such as '*{suffix}'"
        )
    if found is None:
        if table := said_of_text(path):
            raise PtychonError(table)
        raise PtychonError(
            f"{path} is of no kind that can be read; these can: {_KNOWN}; more with 'pip "
            "install ptychon[em]'"
        )
    return found


def first_bytes(path: PathLike) -> bytes:
    """The first 128 bytes of a file.

    Raises
    ------
    PtychonError
        If there is no such file, or nothing in it.
    """
    check_readable(path)
    with open(path, "rb") as stream:
        return stream.read(128)


def _is_hdf5(path: PathLike) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path))


def _find_hdf5(path: PathLike, head: bytes, given: Mapping[str, Any]) -> Found:
    with opened(path) as file:
        own = plain(file.attrs.get("ptychon", ""))
        known = next((f for f in HDF5 if f.recognise(file)), None)
        own_numbers = own_attributes.of(file)
        hyperspy = plain(file.attrs.get("file_format", "")) == "HyperSpy"
    if own and own != "dataset":
        verb = "--start" if own == "result" else "ptychon resume"
        raise PtychonError(
            f"{path} is the {own} of a reconstruction, not a scan; to go on from it use {verb} "
            f"{path}"
        )
    named = given.get("data_path")
    if named is not None and (
        known is None or known.scan is None or not _keeps(known, path, named)
    ):
        return arrays.read_hdf5(path, given)
    if (
        hyperspy
        and find_spec("rsciio") is not None
        and (signal := raw.read_rosetta(path, given)) is not None
    ):
        return signal
    if known is None:
        return mat.read_v73(path, given) if mat.is_v73(head) else arrays.read_hdf5(path, given)
    if known.scan is None:
        raise PtychonError(
            f"{path} is a reconstruction by {known.name}, not a scan: it holds no frames; to go "
            f"on from it use --start {path}"
        )
    found = known.scan(path, given)
    own_attributes.take(own_numbers, found)
    if given.get("positions_path") and known.name not in _OWN_POSITIONS:
        found.fields.pop("positions", None)
        add_positions(found, given, arrays.hdf5_box(path, given))
    return found


#: Formats whose reader finds the frames that are named, and keeps all else that the format says.
_NAMED_FRAMES = ("CXI", "NXmx", "EMD 1.0")
#: Formats whose reader knows what --positions-path means there.
_OWN_POSITIONS = ("NXmx", "Ptychodus product", "Ptychodus diffraction")


def _keeps(known: Format, path: PathLike, named: str) -> bool:
    """Whether the reader of a format is to be used though the frames are named."""
    if (
        known.result is not None and Path(named).is_file()
    ):  # frames of a product are in another file
        return True
    if known.name in _NAMED_FRAMES:
        return True
    assert known.scan is not None
    try:
        return str(known.scan(path, {}).where.get("patterns", "")).strip("/") == named.strip("/")
    except PtychonError:
        return False


def load_result(path: PathLike) -> Result:
    """A reconstruction: our own, or one by ptypy, PtyLab, Ptychodus or fold_slice, recognised by
    content.

    Of another package's, object, probe modes, positions and pixel size are kept; its error is in
    ``history``, since none of them measures R, and ``settings["left_out"]`` names what a `Result`
    has no room for.

    Parameters
    ----------
    path : path of the file

    Raises
    ------
    PtychonError
        If the file is missing, damaged or no reconstruction.
    """
    head = first_bytes(path)
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        product = ptychodus.is_product(npz_headers(path))
        if not product and not plainly.is_result(npz_headers(path)):
            raise PtychonError(
                f"{path} is no reconstruction: it has no complex arrays called object and probe"
            )
        return _checked(path, (ptychodus if product else plainly).read_result(path))
    if mat.is_v5(head):
        return _checked(path, mat.read_result(path, v73=False))
    with opened(path) as file:
        if not plain(file.attrs.get("ptychon", "")):
            known = next((f for f in HDF5 if f.result is not None and f.recognise(file)), None)
            if known is not None and known.result is not None:
                return _checked(path, known.result(path))
            if mat.is_v73(head) and mat.is_result(file):
                return _checked(path, mat.read_result(path, v73=True))
    return saved.load_result(path)


def _checked(path: PathLike, result: Result) -> Result:
    """The result of another package, if its parts are such as ours are."""
    import numpy as np

    for name, ndim in (("object", 2), ("probe", 3), ("positions", 2)):
        array = getattr(result, name)
        if (
            array.ndim != ndim
            or (name != "positions" and 0 in array.shape)
            or not np.isfinite(array).all()
        ):
            raise PtychonError(
                f"{path}: its {name} of shape {array.shape} is damaged, empty or not finite"
            )
    return _padded(path, result) if len(result.positions) else result


def _padded(path: PathLike, result: Result) -> Result:
    """With an object that holds every window: some packages store less, and mean a transparent
    rest.
    """
    import numpy as np

    window, shape = np.array(result.probe.shape[1:]), np.array(result.object.shape)
    corners = np.rint(result.positions) - window // 2
    before = np.maximum(-corners.min(axis=0), 0)
    after = np.maximum(corners.max(axis=0) + window - shape, 0)
    if not (before.any() or after.any()):
        return result
    if np.prod(shape + before + after) > _LARGEST_OBJECT:
        raise PtychonError(
            f"{path}: its positions lie far outside its object of {shape[0]}x{shape[1]} px; "
            "their unit is wrong"
        )
    wide = [(int(b), int(a)) for b, a in zip(before, after, strict=True)]
    size = result.pixel_size or (1.0, 1.0)
    std = result.object_std
    return replace(
        result,
        object=np.pad(result.object, wide, constant_values=1),
        object_std=None if std is None else np.pad(std, wide),
        positions=result.positions + before,
        origin=(
            result.origin[0] - float(before[0]) * size[0],
            result.origin[1] - float(before[1]) * size[1],
        ),
        settings={**result.settings, "padded": [list(pair) for pair in wide]},
    )


def holds_result(path: PathLike) -> bool:
    """Whether a file holds a reconstruction rather than a scan.

    Raises
    ------
    PtychonError
        If the file is missing or damaged.
    """
    if is_folder(path):
        return False
    head = first_bytes(path)
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        headers = npz_headers(path)
        return ptychodus.is_product(headers) or plainly.is_result(headers)
    if mat.is_v5(head):
        return mat.is_v5_result(path)
    if not _is_hdf5(path):
        return False
    with opened(path) as file:
        own = plain(file.attrs.get("ptychon", ""))
        if own:
            return own == "result"
        known = next((f for f in HDF5 if f.recognise(file)), None)
        return (known is not None and known.result is not None) or (
            mat.is_v73(head) and mat.is_result(file)
        )
