"""A page that a scientist can send to a colleague: pictures, numbers and a verdict of one or
several results.

One self-contained HTML file, the pictures in it once more as PNG files in a folder beside it, and
the numbers as JSON. What cannot be shown is said with its reason.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.result import Result
from ..io.hdf5 import PathLike, check_writable, write_aside
from ..types import PtychonError
from .page import Panel, Section, facts_of, fill, numbers_of, plain, png_of, summary_of, title_of
from .verdict import verdict

if TYPE_CHECKING:
    from ..backends import Backend
    from ..checks.half_scans import Agreement
    from ..data.dataset import Dataset
    from ..model.problem import Problem
    from .numbers import Fit


@dataclass(frozen=True, kw_only=True)
class Written:
    """Where a report is: the page, the numbers, the folder of pictures."""

    page: Path
    numbers: Path
    pictures: Path


def write_report(
    paths: Sequence[PathLike],
    *,
    output: PathLike | None = None,
    half_scans: bool | None = None,
    data: Dataset | None = None,
    backend: str | Backend = "auto",
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Written:
    """Write the report of one or several results.

    Parameters
    ----------
    paths : sequence of paths of results
    output : path, optional
        The page, .html; default beside the first result.
    half_scans : bool, optional
        Whether to reconstruct two half-scans for the resolution. None uses those that an earlier
        report left beside the result; False uses none.
    data : Dataset, optional
        What the (only) result was made from; default the file named in it.
    backend : str or Backend
    seed : int
        Of the split.
    say : callable
        Told what is going on.

    Returns
    -------
    Written

    Raises
    ------
    PtychonError
        If a result cannot be read or a file cannot be written.
    """
    from ..backends import get_backend
    from ..io import load_result

    if not paths:
        raise PtychonError("there is no result to report on")
    first = Path(paths[0])
    page = Path(output) if output is not None else first.with_name(f"{first.stem}_report.html")
    if page.suffix.lower() not in (".html", ".htm"):
        raise PtychonError(f"the report {page} must be named .html")
    written = Written(page=page, numbers=page.with_suffix(".json"), pictures=page.with_suffix(""))
    results = [load_result(path) for path in paths]
    for place in (written.page, written.numbers):
        check_writable(place)
    chosen = get_backend(backend) if isinstance(backend, str) else backend
    sections = []
    for path, result in zip(paths, results, strict=True):
        say(f"report: {path}")
        sections.append(
            section(
                path, result, chosen, half_scans, data if len(results) == 1 else None, seed, say
            )
        )
    together = None
    if len(sections) > 1:
        from ..plots.result import compare

        png = png_of(compare(results, [s.name for s in sections]))
        together = Panel(
            "comparison", "Side by side", "Phases above, amplitudes below, on common scales.", png
        )
    _write(written, sections, together)
    return written


def section(
    path: PathLike,
    result: Result,
    backend: Backend,
    half_scans: bool | None,
    data: Dataset | None,
    seed: int,
    say: Callable[[str], None],
) -> Section:
    """Numbers, pictures and verdict of one result."""
    from ..uncertainty.saved import find_half_data_test
    from . import numbers as numbers

    problem, why, warning = _problem(path, result, data)
    fit: Fit | None = None
    if problem is not None:
        try:
            fit = numbers.fit(problem, result, backend)
        except PtychonError as error:
            problem, why = None, str(error)
    found, why_not = _agreement(path, result, problem, why, backend, half_scans, data, seed, say)
    halves = find_half_data_test(path)
    far = None if problem is None else problem.propagator.transfer is None
    judged = verdict(result, fit, found, halves, far)
    made = Section(name=Path(path).stem, path=str(path), result=result, verdict=judged)
    made.numbers = numbers_of(result, fit, found, judged)
    fill(made, fit, why, found, why_not, halves)
    made.facts = facts_of(result, fit, found)
    try:
        date = f"{datetime.datetime.fromtimestamp(Path(path).stat().st_mtime):%Y-%m-%d}"
    except OSError:
        date = ""
    made.title = title_of(result, str(path), date)
    made.summary = summary_of(result, fit, found)
    if halves is not None:
        from ..uncertainty.half_data_table import half_data_numbers, half_data_rows

        made.numbers["half_data_test"] = half_data_numbers(halves)
        made.facts += [
            (f"half-data test: {name}", text) for name, text in half_data_rows(halves)[1:]
        ]
    if problem is not None and problem.slices is None and problem.spread is None:
        # it knows of neither
        _check(made, problem, backend)
    if warning:
        made.facts.append(("attention", warning))
    made.settings = json.dumps(plain({"options": result.options, **result.settings}), indent=2)
    origin = dict(result.provenance)
    about = origin.pop("backend", {})
    origin |= (
        {f"backend {k}": v for k, v in about.items()}
        if isinstance(about, Mapping)
        else {"backend": about}
    )
    made.provenance = [(k.replace("_", " "), _text(v)) for k, v in origin.items()]
    return made


def _check(made: Section, problem: Problem, backend: Backend) -> None:
    """What the data say of single frames and pixels, in short (see `predictive`)."""
    from ..checks.predictive import check
    from ..checks.verdict import sentences

    found = check(problem, made.result, backend=backend)
    if found.level is not None:
        made.facts.append(
            ("misfit over what is foretold", f"{found.level:.3f} ± {found.level_error:.3f}")
        )
    made.facts.append(("frames, pixels and drift", " ".join(sentences(found))))
    kept = (
        "level",
        "level_error",
        "bad_frames",
        "worst_frames",
        "hot",
        "dead",
        "noisy",
        "false_alarm",
    )
    made.numbers["check"] = plain(
        {name: getattr(found, name) for name in kept}
        | {"converged": found.converged, "drifts": [d.name for d in found.drifts]}
    )


def _problem(
    path: PathLike, result: Result, data: Dataset | None
) -> tuple[Problem | None, str, str]:
    """The data of a result on its grid, or why not; and a warning if they have changed."""
    from ..model.found import on_grid
    from ..request.inputs import find_data

    warning = ""
    try:
        if data is None:
            data, source, changed = find_data(result, path)
            if changed:
                warning = f"{source} has changed since the result was made from it."
        return on_grid(data, result), "", warning
    except PtychonError as error:
        return None, str(error), warning


def _agreement(
    path: PathLike,
    result: Result,
    problem: Problem | None,
    why: str,
    backend: Backend,
    half_scans: bool | None,
    data: Dataset | None,
    seed: int,
    say: Callable[[str], None],
) -> tuple[Agreement | None, str]:
    from ..checks.half_scans import agreement, belongs, tagged
    from ..checks.half_scans import half_scans as reconstruct_both
    from ..io import load_result, save_result

    if half_scans is False:
        return None, "it was not asked for (--half-scans)"
    places = [Path(path).with_suffix(f".half{i}.h5") for i in (1, 2)]
    scan = result.settings.get("scan") or {}
    near = scan.get("geometry") == "near" if problem is None else problem.near_field
    try:
        stored = (
            [load_result(place) for place in places]
            if all(place.is_file() for place in places)
            else []
        )
        if stored and all(belongs(half, result) for half in stored):
            return agreement(stored[0], stored[1], near_field=near), ""
        if half_scans is None:
            return None, f"two half-scans are needed: ptychon report {path} --half-scans"
        if problem is None:
            return None, why
        say("reconstructing two half-scans")
        from ..run.observers import ProgressBar

        halves = reconstruct_both(
            problem,
            **_as_before(result, data),
            backend=backend,
            seed=seed,
            callbacks=[ProgressBar("half-scan")],
        )
        for i, place in enumerate(places):
            save_result(place, tagged(halves[i], i + 1, result))
        return agreement(*halves, near_field=near), ""
    except PtychonError as error:
        return None, str(error)


def _as_before(result: Result, data: Dataset | None) -> dict[str, Any]:
    """How to reconstruct as the whole scan was: its recipe, frame order and first probe."""
    from ..io.probe import read_probe
    from ..run.placing import probe_for
    from ..run.recipe import Recipe

    request = dict(result.settings.get("request") or {})
    probe = None
    if data is not None:
        probe = data.probe
    if request.get("probe"):
        probe = (
            read_probe(request["probe"])[0] if data is None else probe_for(data, request["probe"])
        )
    elif request.get("start"):
        probe = (
            read_probe(request["start"])[0] if data is None else probe_for(data, request["start"])
        )
    elif request and data is None:
        from ..request.inputs import open_data
        from ..request.settings import validated

        probe = open_data(validated(request, "the result")).probe
    return {
        "recipe": Recipe.of(result),
        "order": int(result.settings.get("seed") or 0),
        "probe": probe,
        "modes": result.settings.get("modes"),
    }


def _write(written: Written, sections: list[Section], together: Panel | None) -> None:
    import jinja2

    from .. import __version__

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ptychon.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    now = datetime.datetime.now().astimezone()
    html = environment.get_template("report.html").render(
        sections=sections,
        together=together,
        version=__version__,
        date=f"{now:%Y-%m-%d %H:%M %Z}",
        folder=written.pictures.name,
    )
    try:
        written.pictures.mkdir(exist_ok=True)
    except OSError as error:
        raise PtychonError(
            f"cannot make the folder {written.pictures}: {error.strerror}"
        ) from error
    for each in sections:
        prefix = f"{each.name}_" if len(sections) > 1 else ""
        for panel in each.panels:
            if panel.png:
                _bytes(written.pictures / f"{prefix}{panel.name}.png", panel.png)
    if together is not None:
        _bytes(written.pictures / "comparison.png", together.png)
    numbers = {
        "ptychon": __version__,
        "date": now.isoformat(),
        "results": {s.path: plain(s.numbers) for s in sections},
    }
    _bytes(written.numbers, (json.dumps(numbers, indent=1) + "\n").encode())
    _bytes(written.page, html.encode())


def _bytes(path: Path, data: bytes) -> None:
    with write_aside(path) as aside:
        aside.write_bytes(data)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
