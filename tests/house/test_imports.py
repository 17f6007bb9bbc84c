"""Who may know whom: the rows of the house, read from the imports; and what a plain
`import ptychon` does not bring in.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from _sources import nodes

ROOT = Path(__file__).parents[2] / "src" / "ptychon"

#: A module imports from rows above its own or, without circles, from its own row. Imports inside
#: functions count too.
ROWS = (
    ("types", "units"),
    ("data", "kernels", "distributed"),
    ("backends",),
    ("model",),
    ("metrics", "simulation"),
    ("engines",),
    ("sweeps", "io"),
    ("run",),
    ("testing",),
    ("checks",),
    ("uncertainty", "inspect"),
    ("plots", "request"),
    ("reports",),
    ("bench", "cli"),
    ("__main__",),
)
#: What people ask a thing itself for is a part of the public face, as the root is: `Result.save`,
#: `Result.load` and `Result.show`, `reconstruct(live=True)`, and what a notebook shows.
ALLOWED = {
    ("data.result", "io"),
    ("data.result", "plots.notebook"),
    ("data.dataset", "plots.notebook"),
    ("run.one_scan", "plots.live"),
}
#: The root holds names, no code: it knows everybody, and all may ask it for the version.
PUBLIC = "__init__"


class Import(NamedTuple):
    source: str
    target: str  # dotted, without "ptychon"; or the name of another package
    own: bool
    lazy: bool  # inside a function
    typing: bool  # for the type checker only


def modules():
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return names


MODULES = modules()


def imports_of(name):
    """Every import statement of a module, wherever it stands."""
    path, found = MODULES[name], []
    package = list(path.relative_to(ROOT).parts[:-1])

    def add(target, own, lazy, typing):
        found.append(Import(name, target, own, lazy, typing))

    def walk(node, lazy, typing):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    add(alias.name, False, lazy, typing)
            elif isinstance(child, ast.ImportFrom) and not child.level:
                add(child.module or "", False, lazy, typing)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] + (child.module or "").split(".")
                base = [part for part in base if part]
                for alias in child.names:
                    whole = ".".join([*base, alias.name])
                    add(whole if whole in MODULES else ".".join(base) or PUBLIC, True, lazy, typing)
            else:
                inner = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                only_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(
                    child.test
                )
                walk(child, lazy or inner, typing or only_types)

    walk(ast.parse(path.read_text("utf-8")), False, False)
    return found


IMPORTS = [i for name in MODULES for i in imports_of(name)]


def row(name):
    """Number of the row of a module, from 1."""
    best, number = -1, None
    for n, entries in enumerate(ROWS, 1):
        for entry in entries:
            fits = (
                name.startswith(entry[:-1])
                if entry.endswith("*")
                else name == entry or name.startswith(entry + ".")
            )
            if fits and len(entry) > best:
                best, number = len(entry), n
    return number


def test_every_module_has_a_row():
    assert [name for name in MODULES if name != PUBLIC and row(name) is None] == []
    assert [
        entry
        for entries in ROWS
        for entry in entries
        if not entry.endswith("*")
        and not any(name == entry or name.startswith(entry + ".") for name in MODULES)
    ] == []


def test_no_module_imports_from_a_row_below_its_own():
    wrong = [
        f"{i.source} (row {row(i.source)}) imports {i.target} (row {row(i.target)})"
        for i in IMPORTS
        if i.own
        and not i.typing
        and PUBLIC not in (i.source, i.target)
        and (row(i.target) or 0) > (row(i.source) or 99)
        and (i.source, i.target) not in ALLOWED
    ]
    assert wrong == []


def test_there_are_no_circles():
    """Among all imports, those inside functions too."""
    edges = {name: set() for name in MODULES}
    for i in IMPORTS:
        # a package is loaded before its members: `from . import x` inside it is no circle
        inside = i.source == i.target or i.source.startswith(i.target + ".")
        allowed = (i.source, i.target) in ALLOWED
        if i.own and not (i.typing or inside or allowed) and i.target != PUBLIC:
            edges[i.source].add(i.target)
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            path.append(name)
            for target in sorted(edges[name]):
                visit(target)
            done.add(path.pop())

    for name in MODULES:
        visit(name)


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("engines.")])
def test_engines_are_mathematics_alone(name):
    """No numpy, cupy, numba, files, logging or progress bars: everything arrives as an argument."""
    assert {i.target for i in imports_of(name) if not i.own} <= {
        "__future__",
        "dataclasses",
        "typing",
    }


def test_cupy_is_imported_only_where_a_gpu_was_asked_for():
    users = [
        i
        for i in IMPORTS
        if not i.own and i.target.split(".")[0] in ("cupy", "cupyx", "cupy_backends")
    ]
    assert users
    assert all(i.lazy or i.typing for i in users)
    assert {i.source for i in users} <= {
        name for name in MODULES if name == "backends.gpu" or name.startswith("kernels.gpu.")
    }


def test_numba_stays_in_its_files():
    users = {
        i.source
        for i in IMPORTS
        if not i.own and i.target.split(".")[0] in ("numba", "rocket_fft") and not i.lazy
    }
    assert all(name.startswith(("kernels.cpu.", "bench.")) for name in users)


def test_importing_the_package_is_light():
    """Data set, problem and errors need neither compiler, GPU, HDF5 nor a plotting library."""
    heavy = (
        "cupy",
        "numba",
        "llvmlite",
        "matplotlib",
        "h5py",
        "hdf5plugin",
        "click",
        "rich",
        "pydantic",
        "tifffile",
    )
    script = f"import ptychon, sys; print(*[m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.split() == []


def test_public_names_exist():
    import ptychon

    assert sorted(ptychon.__all__) == list(ptychon.__all__)
    for name in ptychon.__all__:
        assert getattr(ptychon, name) is not None
    assert set(dir(ptychon)) == set(ptychon.__all__)
    # no package hides a function
    assert all(
        callable(getattr(ptychon, name))
        for name in ("load", "plot", "report", "check", "simulate", "reconstruct")
    )
    with pytest.raises(AttributeError, match="teleport"):
        _ = ptychon.teleport


def test_nobody_asks_for_an_engine_by_its_name():
    """What must be known of an engine it declares, or its type tells. Names are for people: to
    choose, store and print.
    """
    from ptychon.engines import registry

    wrong = []
    for name, path in MODULES.items():
        if name.startswith(("engines", "bench.peers")):
            continue
        for node in nodes(path):
            if not isinstance(node, ast.Compare):
                continue
            words = {
                c.value
                for side in (node.left, *node.comparators)
                for c in ast.walk(side)
                if isinstance(c, ast.Constant)
            }
            asked = {
                ast.unparse(side).rpartition(".")[2] for side in (node.left, *node.comparators)
            }
            if words & set(registry) and asked & {"name", "engine"}:
                wrong.append(f"{name}:{node.lineno} {ast.unparse(node)}")
    assert wrong == []
