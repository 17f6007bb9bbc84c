"""The settings of a run: one record, from a YAML file, from the command line, or from an earlier
result.

All mistakes of a settings file are found and told together. What a run used is stored with its
result, so that it can be repeated, and the data of a result can be found again by their path and
their hash.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..io.hdf5 import PathLike, check_readable
from ..io.places import exists, sha256_of
from ..types import PtychonError
from .options import split_options, stage_of

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.result import Result
    from ..model.problem import Problem
    from ..run.recipe import Recipe, Stage

SUFFIXES = (".yaml", ".yml")
_PATHS = ("input", "output", "picture", "probe", "start")
_DATA_PATHS = ("positions_path", "dark", "pedestal", "flat", "background", "mask")


def _affine(value: str | None) -> str | None:
    from ..inspect.affine import Affine, asked

    try:
        if value is not None and not asked(value):
            Affine.parse(value)
    except PtychonError as error:
        raise PydanticCustomError("affine", "{text}", {"text": str(error)}) from None
    return value


def _orientation(value: str | None) -> str | None:
    from ..inspect.orientation import Orientation

    if value is None or value == "auto":
        return value
    return str(Orientation.parse(value))


class Settings(BaseModel):
    """Everything `ptychon reconstruct` can be told.

    Attributes
    ----------
    input : str
        File with the scan.
    output, picture : str, optional
        Where result and picture go.
    engine, backend : str
    passes, seed : int
    subpixel : bool
        Honour fractions of a pixel in the positions.
    options : mapping
        Of the engine and of the run, as ``ptychon engines`` lists them.
    data : mapping
        What the file does not say or says wrongly, as `ptychon.load` takes it: numbers in SI, or
        text with a unit.
    probe, start : str, optional
        Files with the first probe, and with a result to start from.
    recipe : str or list of mappings, optional
        Stages in place of `engine`, `passes` and `options`, such as "dm:60, rpie:100" or a list of
        what `ptychon.Stage` takes.
    update : mapping
        What moves and when, such as {positions: "after=20,every=5", probe: no}.
    refine : mapping
        How positions and the background are refined between the passes of an engine, such as
        {trials: 4}.
    constraints : list of str
        What object and probe are made to fulfil after the passes of engines that take it, such as
        ["support:radius=20", "tv:weight=1e-3,after=5"].
    modes : int, optional
        Incoherent modes of the probe; default as many as the first probe has.
    slices : int, optional
        Of a thick specimen.
    slice_spacing, tilt : number, text with a unit, or several
        Distance between slices, and the angle of the beam against the specimen, along y or along y
        and x.
    orient : str, optional
        "auto", or how frames and positions are turned, such as "transpose+negate".
    affine : str, optional
        "search", or how positions are scaled, turned and sheared, such as "scale=1.02,rotation=-1".
    checkpoint_every : int, optional
        Passes.
    report, half_scans : bool
    error_bars : str, optional
        Method of `ptychon error_bars` that gives the result its error bars.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    input: Annotated[str, Field(min_length=1)]
    output: str | None = None
    picture: str | None = None
    engine: str = "rpie"
    passes: Annotated[int, Field(ge=1)] = 40
    backend: str = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    subpixel: bool = True
    options: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    recipe: list[dict[str, Any]] | None = None
    update: dict[str, Any] = Field(default_factory=dict)
    refine: dict[str, Any] = Field(default_factory=dict)
    constraints: list[str] = Field(default_factory=list)
    data: dict[str, Any] = Field(default_factory=dict)
    probe: str | None = None
    start: str | None = None
    modes: Annotated[int, Field(ge=1)] | None = None
    slices: Annotated[int, Field(ge=1)] | None = None
    slice_spacing: list[float] | None = None
    tilt: list[float] | None = None
    orient: Annotated[str | None, AfterValidator(_orientation)] = None
    affine: Annotated[str | None, AfterValidator(_affine)] = None
    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    report: bool = False
    half_scans: bool = True
    error_bars: str | None = None

    @field_validator("slice_spacing", "tilt", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        from ..units import parse

        if value is None:
            return None
        parts = value.split(",") if isinstance(value, str) else value
        parts = list(parts) if isinstance(parts, list | tuple) else [parts]
        try:
            return [parse(p, "length" if info.field_name != "tilt" else "angle") for p in parts]
        except PtychonError as error:
            raise PydanticCustomError("slices", "{text}", {"text": str(error)}) from None

    @field_validator("engine")
    @classmethod
    def _known_engine(cls, value: str) -> str:
        from ..engines import nearest, registry

        if value not in registry:
            raise PydanticCustomError(
                "engine",
                "{text}",
                {"text": f"unknown engine {value!r}; {nearest(value, registry)}"},
            )
        return value

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, value: str) -> str:
        from ..engines import nearest

        known = ("auto", "numpy", "cupy", "reference")
        if value not in known:
            raise PydanticCustomError(
                "backend", "{text}", {"text": f"unknown backend {value!r}; {nearest(value, known)}"}
            )
        return value

    @field_validator("error_bars")
    @classmethod
    def _known_bars(cls, value: str | None) -> str | None:
        from ..engines import nearest
        from ..uncertainty.methods import AUTO, registry

        known = AUTO, *registry
        if value is not None and value not in known:
            text = f"unknown method of error bars {value!r}; {nearest(value, known)}"
            raise PydanticCustomError("error_bars", "{text}", {"text": text})
        return value

    @field_validator("options")
    @classmethod
    def _known_options(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        engine = info.data.get("engine")
        if engine is None:  # unknown: said already
            return value
        chosen, run, wrong = split_options(engine, value)
        if wrong:
            raise PydanticCustomError("options", "{text}", {"text": "; ".join(wrong)})
        return {**chosen, **run}

    @field_validator("recipe", mode="before")
    @classmethod
    def _known_recipe(cls, value: Any) -> Any:
        from ..run.recipe import Recipe

        try:
            return None if value is None else Recipe.read(value).stored()
        except PtychonError as error:
            raise PydanticCustomError("recipe", "{text}", {"text": str(error)}) from None

    @field_validator("update", mode="before")
    @classmethod
    def _known_update(cls, value: Any) -> Any:
        from ..run.update import when_of

        if not isinstance(value, Mapping):
            return value
        try:
            found = {str(name): when_of(str(name), when) for name, when in value.items()}
        except PtychonError as error:
            raise PydanticCustomError("update", "{text}", {"text": str(error)}) from None
        return {name: w if isinstance(w, bool) else str(w) for name, w in found.items()}

    @field_validator("refine", mode="before")
    @classmethod
    def _known_refine(cls, value: Any) -> Any:
        from ..run.refine import Refine

        try:
            return Refine.read(value).stored()
        except PtychonError as error:
            raise PydanticCustomError("refine", "{text}", {"text": str(error)}) from None

    @field_validator("constraints", mode="before")
    @classmethod
    def _known_constraints(cls, value: Any) -> Any:
        from ..run.constraints import CONSTRAINTS, constraint_of
        from ..run.words import text_of

        listed = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
        try:
            return [text_of(constraint_of(one), CONSTRAINTS) for one in listed]
        except PtychonError as error:
            raise PydanticCustomError("constraints", "{text}", {"text": str(error)}) from None

    @model_validator(mode="after")
    def _slices_without_bars(self) -> Settings:
        if self.error_bars is not None and (self.slices or 1) > 1:
            from ..data.slices import HALVES

            text = f"there are error bars for thin objects only, and slices is {self.slices}"
            raise PydanticCustomError("error_bars", "{text}", {"text": f"{text}; {HALVES}"})
        return self

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Settings:
        """What the recipe says is not said once more; and all of it can be made."""
        from ..run.recipe import Recipe

        if self.recipe is not None:
            recipe = Recipe.read(self.recipe)
            for name, own in (("engine", recipe.main.name), ("passes", recipe.passes)):
                if name in self.model_fields_set and getattr(self, name) != own:
                    text = f"{name} is {getattr(self, name)!r} beside a recipe, {recipe}"
                    raise PydanticCustomError("recipe", "{text}", {"text": f"{text}: give one"})
                # not by assignment, which validates again
                self.__dict__[name] = own
            if self.options:
                text = (
                    "options stand beside a recipe: write them into its stages, in a settings file"
                )
                raise PydanticCustomError("recipe", "{text}", {"text": text})
        try:
            self.way()
        except PtychonError as error:
            raise PydanticCustomError("update", "{text}", {"text": str(error)}) from None
        return self

    def way(self) -> Stage | Recipe:
        """What `ptychon.reconstruct` is to run: the recipe, or the engine with its options."""
        from ..run.constraints import constraint_of
        from ..run.recipe import Recipe
        from ..run.refine import Refine
        from ..run.update import when_of

        update = {name: when_of(name, when) for name, when in self.update.items()}
        constraints = tuple(map(constraint_of, self.constraints))
        if self.recipe is not None:
            recipe = Recipe.read(self.recipe).updating(update, self.refine)
            return recipe.constrained(constraints)
        stage = stage_of(self.engine, self.passes, self.options, update, self.seed)
        return replace(stage, refine=Refine.read(self.refine), constraints=constraints)

    @field_validator("data")
    @classmethod
    def _known_data(cls, value: dict[str, Any]) -> dict[str, Any]:
        from ..io.given import check_given

        wrong = []
        for name in value:
            try:
                check_given({name: value[name]})
            except PtychonError as error:
                wrong.append(str(error))
        if not wrong:
            try:
                check_given(value)
            except PtychonError as error:
                wrong.append(str(error))
        if wrong:
            raise PydanticCustomError("data", "{text}", {"text": "; ".join(wrong)})
        return {name: given for name, given in value.items() if given is not None}


def validated(values: Mapping[str, Any], source: str) -> Settings:
    """Settings from plain values.

    Raises
    ------
    PtychonError
        With every mistake, numbered if there are several.
    """
    try:
        return Settings(**{str(key): value for key, value in values.items()})
    except ValidationError as error:
        wrong = [_sentence(e["loc"], e["type"], e["msg"]) for e in error.errors()]
    if len(wrong) == 1:
        raise PtychonError(f"{source}: {wrong[0]}")
    raise PtychonError(
        f"{source} has {len(wrong)} mistakes: "
        + "; ".join(f"({i}) {w}" for i, w in enumerate(wrong, 1))
    )


def _sentence(place: tuple[Any, ...], kind: str, message: str) -> str:
    name = ".".join(map(str, place))
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(name, Settings.model_fields, 1)
        return f"unknown setting {name!r}" + (f", did you mean {near[0]!r}?" if near else "")
    if kind == "missing":
        return f"{name!r} is missing"
    text = message.removeprefix("Value error, ").replace("Input should", "it should")
    return f"{name}: {text}" if name else text


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


def on_grid(data: Dataset, result: Result) -> Problem:
    """Data on the grid of a result made from them, with all that it has found of each frame (see
    `model.found`).
    """
    from ..model.found import on_grid

    return on_grid(data, result)


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
