"""What the site is made from. That it builds without a warning is for .ci/run to say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import ptychon

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))

from plain_docstrings import escaped, rest  # noqa: E402


@pytest.mark.parametrize(
    ("plain", "marked"),
    [
        ("|P|^2 O*", r"\|P\|^2 O\*"),
        ("a `Dataset` of `patterns`", "a :py:obj:`Dataset` of ``patterns``"),
        ("`Engine.copes` and `x = 1`", ":py:obj:`Engine.copes` and ``x = 1``"),
        ("w_ and w_O", r"w\_ and w_O"),
        (r"\psi", r"\\psi"),
        ("a ` alone", r"a \` alone"),
    ],
)
def test_only_names_in_backticks_are_markup(plain: str, marked: str) -> None:
    assert escaped(plain) == marked


def test_formulas_become_literal_blocks_and_sections_stay() -> None:
    docstring = """One step,

    O <- O + |P|^2
      + more

which ends.

Parameters
----------
beta : float
    Step * size.

Notes
-----
    z = F psi""".splitlines()
    assert rest(docstring) == [
        "One step,",
        "",
        *["", "::", ""],
        "    O <- O + |P|^2",
        "      + more",
        "",
        "",
        "which ends.",
        "",
        "Parameters",
        "----------",
        "beta : float",
        r"    Step \* size.",
        "",
        "Notes",
        "-----",
        *["", "::", ""],
        "    z = F psi",
    ]


def test_the_reference_lists_the_names_of_the_package_and_the_modules_it_shows() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")][1:]
    named = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert named == set(ptychon.__all__) - {"__version__"}
    shown = {m for p in (DOCS / "api").glob("*.md") for m in _modules(p)}
    targets = {t.rsplit(".", 1)[0] for t in re.findall(r"<ptychon\.([\w.]+)>", page) if "." in t}
    assert {f"ptychon.{module}" for module in targets} <= shown


def _modules(page: Path) -> list[str]:
    return re.findall(r"automodule:: ([\w.]+)", page.read_text(encoding="utf-8"))


def test_every_page_of_the_reference_is_in_its_contents() -> None:
    contents = (DOCS / "api.md").read_text(encoding="utf-8")
    assert {f"api/{p.stem}" for p in (DOCS / "api").glob("*.md")} == set(
        re.findall(r"^api/\w+$", contents, re.MULTILINE)
    )
