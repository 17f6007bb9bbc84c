"""Docstrings as reStructuredText: they are plain text with the sections of NumPy.

Stars, bars and underscores in them are those of formulas, and what is indented is a formula or a
table. Only single backticks mean something: a name.
"""

from __future__ import annotations

import re
import sys
from typing import Any

#: Sections whose indentation is that of a list of names, which napoleon reads.
LISTS = {"Parameters", "Attributes", "Returns", "Raises", "Yields", "Warns", "Other Parameters"}
MARKUP = re.compile(r"(``.*?``|`[^`]+`)|([\\*|`]|(?<=\w)_(?!\w))")


def escaped(line: str) -> str:
    """A line in which nothing but names in backticks is markup."""
    return MARKUP.sub(lambda found: named(found[1]) if found[1] else "\\" + found[2], line)


def named(quoted: str) -> str:
    """A class, or what has a dotted name, as a link; parameters and code as they are."""
    name = quoted.strip("`")
    is_link = re.fullmatch(r"[A-Z]\w*[a-z]\w*|[a-zA-Z]\w*(\.[a-zA-Z]\w*)+", name)
    return f":py:obj:`{name}`" if is_link else f"``{name}``"


def rest(lines: list[str]) -> list[str]:
    """The docstring `lines` with formulas as literal blocks."""
    out: list[str] = []
    in_list = in_formula = False
    for number, line in enumerate(lines):
        title = line.strip()
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if title and re.fullmatch(r"-{3,}", following.strip()) and not line.startswith(" "):
            in_list, in_formula = title in LISTS, False
        indented = line.startswith("  ") and bool(title)
        if in_list or re.fullmatch(r"-{3,}", title):
            out.append(escaped(line))
            continue
        if indented and not in_formula:
            out += ["", "::", ""]
            in_formula = True
        elif title and not indented and in_formula:
            out.append("")
            in_formula = False
        out.append(line if in_formula else escaped(line))
    return out


def process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """A listener of autodoc, before napoleon."""
    lines[:] = rest(lines)


def private(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """True for what is not to be shown of a module: constants, and names that its __all__ leaves
    out.
    """
    if what != "module":
        return None
    home = getattr(thing, "__module__", None)
    listed = getattr(sys.modules.get(home or ""), "__all__", None)
    return True if home is None or (listed is not None and name not in listed) else None


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process, priority=100)
    app.connect("autodoc-skip-member", private)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
