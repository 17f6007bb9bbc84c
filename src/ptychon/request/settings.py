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
from typing import TYPE_CHECKING, Annotated, Any

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

from ..types import PtychonError
from .options import split_options, stage_of

if TYPE_CHECKING:
    from ..run.recipe import Recipe, Stage


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
    error_bars_prior : str, optional
        Prior of the object in these, "white", "learned" or "local" (methods auto and laplace).
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
    error_bars_prior: str | None = None

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

    @field_validator("error_bars_prior")
    @classmethod
    def _known_prior(cls, value: str | None) -> str | None:
        from ..engines import nearest
        from ..uncertainty.prior import PRIORS

        if value is not None and value not in PRIORS:
            text = f"unknown prior of error bars {value!r}; {nearest(value, PRIORS)}"
            raise PydanticCustomError("error_bars_prior", "{text}", {"text": text})
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
    def _prior_of_bars(self) -> Settings:
        if self.error_bars_prior is not None and self.error_bars not in ("auto", "laplace"):
            text = f"error_bars_prior is for error_bars auto or laplace, not {self.error_bars}"
            raise PydanticCustomError("error_bars_prior", "{text}", {"text": text})
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
