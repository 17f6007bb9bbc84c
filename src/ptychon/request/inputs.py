"""From settings to data: a settings file is read, the files named in it are found, and the data of
an earlier result are found again by their path and their hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..io.hdf5 import PathLike, check_readable
from ..io.places import exists, sha256_of
from ..types import PtychonError
from .settings import Settings, validated

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.result import Result

SUFFIXES = (".yaml", ".yml")
_PATHS = ("input", "output", "picture", "probe", "start")
_DATA_PATHS = ("positions_path", "dark", "pedestal", "flat", "background", "mask")


def read_settings(path: PathLike) -> dict[str, Any]:
    """The values of a YAML file; paths in it are relative to its folder. They are not yet
    validated.

    Raises
    ------
    PtychonError
        If it is missing or no YAML mapping.
    """
    import yaml

    check_readable(path)
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise PtychonError(
            f"{path}{where}: {getattr(error, 'problem', None) or str(error).splitlines()[0]}"
        ) from None
    if not isinstance(values, dict):
        raise PtychonError(
            f"{path} holds no settings; it must be lines such as 'input: scan.cxi' and 'passes: 60'"
        )
    folder = Path(path).parent
    for name in _PATHS:
        if isinstance(values.get(name), str):
            values[name] = str(folder / values[name])
    if isinstance(values.get("data"), dict):
        values["data"] = with_paths(values["data"], folder)
    return values


def with_paths(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What is known of a scan, with the files named in it that exist in a folder by their full
    paths.
    """
    found = {}
    for name in _DATA_PATHS:
        text = data.get(name)
        if not isinstance(text, str) or not text:
            continue
        file, colon, inner = text, "", ""
        if not (folder / file).is_file():  # perhaps with the name of a dataset behind a colon
            file, colon, inner = text.rpartition(":")
        if file and (folder / file).is_file():
            found[name] = f"{(folder / file).resolve()}{colon}{inner}"
    return {**data, **found}


def open_data(settings: Settings, path: PathLike | None = None) -> Dataset:
    """The scan as the settings say it is to be read, turned as they say (unless "auto").

    Parameters
    ----------
    settings : Settings
    path : path, optional
        Where the file is now, if not at ``settings.input``.
    """
    from ..inspect.affine import Affine, asked
    from ..inspect.orientation import Orientation
    from ..io import load

    data = load(settings.input if path is None else path, **settings.data)
    if settings.orient not in (None, "auto"):
        data = Orientation.parse(settings.orient).apply(data)
    if settings.affine is not None and not asked(settings.affine):
        data = Affine.parse(settings.affine).apply(data)
    return data


def request_for(settings: Settings) -> dict[str, Any]:
    """The settings as they are stored with a result: all of them, files by their full paths."""
    request = settings.model_dump()
    for name in ("input", "probe", "start"):
        if request[name] is not None:
            request[name] = str(Path(request[name]).resolve())
    return request | {"data": with_paths(request["data"], Path())}


def input_hash(path: PathLike) -> str | None:
    """SHA-256 of a file or of a folder of frames, None if it is too large to be read once more."""
    return sha256_of(path)


def find_input(
    request: Mapping[str, Any], near: PathLike, sha256: str | None
) -> tuple[Path, Literal["same", "changed", "unknown"]]:
    """Where the data of a run are now: at their old path, or beside the file `near`; and whether
    they are the same.

    Raises
    ------
    PtychonError
        If they are at neither place.
    """
    stored = Path(str(request.get("input", "")))
    places = [stored, Path(near).parent / stored.name]
    found = next((place for place in places if exists(place)), None)
    if found is None:
        raise PtychonError(
            f"the data of {near} are not found: neither {places[0]} nor {places[1]} exists; put "
            "them there"
        )
    now = input_hash(found)
    if sha256 is None or now is None:
        return found, "unknown"
    return found, "same" if now == sha256 else "changed"


def find_data(
    result: Result, near: PathLike, background: str | None = None
) -> tuple[Dataset, Path, bool]:
    """What a result was made from, the file it is in now, and whether that has changed since.

    Parameters
    ----------
    result : Result
    near : path
        Of the result.
    background : str, optional
        Mean background counts per pixel that the data do not state: a number, or a file.

    Raises
    ------
    PtychonError
        If the result does not name them, or they are not found or cannot be read.
    """
    request = request_of(result.settings, near)
    if background is not None:
        request["data"] = {**(request.get("data") or {}), "background": background}
    source, state = find_input(request, near, result.provenance.get("input_sha256"))
    return open_data(validated(request, str(near)), source), source, state == "changed"


def request_of(settings: Mapping[str, Any], path: PathLike) -> dict[str, Any]:
    """What a result or a checkpoint says it was asked for.

    Raises
    ------
    PtychonError
        If it was not made from a file by the command line.
    """
    request = settings.get("request")
    if not isinstance(request, Mapping) or "input" not in request:
        raise PtychonError(
            f"{path} does not say from which file and with which settings it was made; start "
            "from the scan"
        )
    return dict(request)
