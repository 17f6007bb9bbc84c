"""What a command says while it runs, and where its results go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..types import PtychonError
from .results import check_places, refuse_same, unused

if TYPE_CHECKING:
    from ..request.settings import Settings

RESULT_SUFFIXES = (".h5", ".hdf5", ".cxi")
PICTURE_SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class Voice:
    """How much is said: `quiet` nothing, `verbose` more, `as_json` the summary for
    machines alone.
    """

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False

    def say(self, text: str) -> None:
        """Something by the way, on stderr."""
        if not self.quiet and not self.as_json:
            click.echo(text, err=True)

    @property
    def wants_details(self) -> bool:
        return self.verbose and not self.quiet and not self.as_json


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things go."""

    result: Path
    picture: Path
    checkpoint: Path

    @classmethod
    def of(cls, settings: Settings, default: str, *, force: bool = False) -> Places:
        """From the settings; refused now, rather than after hours of computing.

        Parameters
        ----------
        settings : Settings
        default : str
            Name of the result where the settings have none.
        force : bool
            Write over a result that exists.
        """
        from ..io.hdf5 import check_readable
        from ..io.places import check_there

        result = Path(settings.output or default)
        if result.suffix.lower() not in RESULT_SUFFIXES:
            raise PtychonError(
                f"the result {result} must be named {', '.join(RESULT_SUFFIXES)}: it is an HDF5 "
                "file"
            )
        picture = Path(settings.picture) if settings.picture else result.with_suffix(".png")
        if picture.suffix.lower() not in PICTURE_SUFFIXES:
            raise PtychonError(
                f"the picture {picture} must be named .png, .pdf, .svg, .jpg or .tif"
            )
        check_there(settings.input)
        if settings.start is not None:
            check_readable(settings.start)
        for place in (result, picture):
            refuse_same(place, settings.input, "the file with the data: give another name with -o")
        free = unused(result, settings.output is not None, force)
        if free != result and settings.picture is None:
            picture = free.with_suffix(".png")
        result = free
        check_places(result, picture)
        return cls(result=result, picture=picture, checkpoint=result.with_suffix(".checkpoint.h5"))
