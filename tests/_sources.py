"""The syntax of the package's files, read once for all tests that look for something in it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path

import ptychon

ROOT = Path(ptychon.__file__).parent


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a file."""
    return tuple(ast.walk(ast.parse(path.read_text("utf-8"))))


def owners(sign: Callable[[ast.AST], bool], root: Path = ROOT) -> set[str]:
    """The files below a folder that have a node with the sign."""
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if any(sign(node) for node in nodes(path))
    }
