"""Draw the packages and who imports whom, from the source: ``python docs/images/rooms.py`` writes
rooms.png here.

A package stands above those that it needs nothing of and that need it: arrows point downwards only.
Darker arrows stand for more imports, those inside functions included.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
#: What everybody imports, left out.
COMMON = ("types", "units")
#: What people ask a thing itself for, to be saved or shown, is a part of the public face, which
#: knows everybody.
FACE = {("data", "io"), ("data", "plots"), ("run", "plots")}
SOURCE = HERE.parents[1] / "src" / "ptychon"


def room(parts: tuple[str, ...]) -> str:
    """The package at the top that a module is in; "" for the root."""
    return parts[0] if parts else ""


def modules() -> dict[tuple[str, ...], Path]:
    """Dotted names as tuples, without "ptychon"."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[parts[:-1] if parts[-1] == "__init__" else parts] = path
    return found


def imports() -> Counter[tuple[str, str]]:
    """How often modules of one package import from another: (importer, imported)."""
    known, counts = modules(), Counter[tuple[str, str]]()
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name[:-1]
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.ImportFrom) and node.level):
                continue
            base = (
                *package[: len(package) - node.level + 1],
                *(node.module.split(".") if node.module else ()),
            )
            for alias in node.names:
                target = (*base, alias.name) if (*base, alias.name) in known else base
                if (
                    room(name)
                    and room(target)
                    and room(name) != room(target)
                    and room(target) not in COMMON
                    and (room(name), room(target)) not in FACE
                ):
                    counts[room(name), room(target)] += 1
    return counts


def floors(edges: Counter[tuple[str, str]]) -> dict[str, int]:
    """Floor of each package: one above the highest of those that it imports from."""
    names = {name for edge in edges for name in edge}
    needs = {name: {b for a, b in edges if a == name} for name in names}
    found: dict[str, int] = {}
    while len(found) < len(names):
        ready = {name for name in names - set(found) if needs[name] <= set(found)}
        if not ready:
            raise SystemExit(
                f"imports go in a circle among {', '.join(sorted(names - set(found)))}"
            )
        found |= {name: 1 + max((found[b] for b in needs[name]), default=-1) for name in ready}
    return found


def draw(target: Path) -> None:
    """The picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    edges = imports()
    level = floors(edges)
    sizes = Counter(room(name) for name in modules() if name)
    rows: dict[int, list[str]] = {}
    for name in sorted(level):
        rows.setdefault(level[name], []).append(name)
    place = {
        name: ((i - (len(row) - 1) / 2) * 2.2 + 0.45 * (-1) ** floor, float(floor))
        for floor, row in rows.items()
        for i, name in enumerate(row)
    }
    figure, axes = plt.subplots(figsize=(9, 0.72 * len(rows) + 0.6))
    for (a, b), count in sorted(edges.items(), key=lambda item: item[1]):
        (x0, y0), (x1, y1) = place[a], place[b]
        shade = 0.82 - 0.5 * min(1.0, count / 20)
        bend = {"connectionstyle": f"arc3,rad={0.12 if abs(y0 - y1) > 1 else 0.0}"}
        arrow = {
            "arrowstyle": "-|>",
            "color": str(shade),
            "lw": 0.5 + 0.06 * min(count, 20),
            "shrinkA": 12,
            "shrinkB": 12,
        }
        axes.annotate("", (x1, y1), (x0, y0), arrowprops=arrow | bend, zorder=1)
    for name, (x, y) in place.items():
        text = f"{name}  ({sizes[name]})" if sizes[name] > 1 else name
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#eef3f8", "edgecolor": "#3b5b7a"}
        axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox=box, zorder=2)
    axes.set_xlim(min(x for x, _ in place.values()) - 1.3, max(x for x, _ in place.values()) + 1.3)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.axis("off")
    figure.savefig(target, dpi=130, bbox_inches="tight")


if __name__ == "__main__":
    draw(HERE / "rooms.png")
