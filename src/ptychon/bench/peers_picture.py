"""The comparison with other packages as a picture: error against seconds, one panel a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Colours that people of any colour vision tell apart (Okabe and Ito), one a package, and a mark,
#: so that the picture can be read in grey too.
LOOKS = {
    "ptychon": ("#d55e00", "o"),
    "ptychi": ("#0072b2", "s"),
    "ptylab": ("#009e73", "^"),
    "phaserem": ("#cc79a7", "D"),
    "cdtools": ("#000000", "v"),
}
#: Lines of the algorithms of a package, in the order of the report.
DASHES = ("-", "--", ":", "-.")
NAMES = {
    "ptychon": "Ptychon",
    "ptychi": "Pty-Chi",
    "ptylab": "PtyLab",
    "phaserem": "phaser",
    "cdtools": "CDTools",
}
TITLES = {
    "plain": "known positions, one mode",
    "measured": "three modes, positions 1 px off",
    "thick": "two slices",
}


def draw(reports: Sequence[Mapping[str, Any]], path: Path | str) -> None:
    """Draw reports of `peers_run.compare` side by side.

    Parameters
    ----------
    reports : sequence of mappings
        Of the rows with the least number of threads.
    path : path
        .png, .pdf or .svg.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 5.2 * len(reports), 4.6), layout="constrained")
    axes = figure.subplots(1, len(reports), squeeze=False)[0]
    for ax, report in zip(axes, reports, strict=True):
        _panel(ax, report)
    axes[0].set_ylabel("error of the object, %")
    figure.savefig(path, dpi=150)


def _panel(ax: Any, report: Mapping[str, Any]) -> None:
    rows = [row for row in report["rows"] if "failed" not in row]
    least = min((row["threads"] for row in rows), default=1)
    seen: dict[str, int] = {}
    for row in rows:
        points = [(c["cpu_s"], 100 * c["error"]) for c in row["curve"] if c["error"] is not None]
        if row["threads"] != least or not points:
            continue
        package = row["package"]
        colour, mark = LOOKS.get(package, ("#777777", "x"))
        number = seen[package] = seen.get(package, -1) + 1
        own = package == "ptychon"
        ax.plot(
            *zip(*points, strict=True),
            DASHES[number % len(DASHES)],
            color=colour,
            marker=mark,
            markersize=3.5,
            linewidth=2.2 if own else 1.3,
            zorder=3 if own else 2,
            label=f"{NAMES.get(package, package)} {row['algorithm']}",
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")
    ax.tick_params(axis="y", which="minor", labelsize=7)
    ax.grid(True, which="both", alpha=0.25)
    ax.set_xlabel("processor time, s (one thread)")
    ax.set_title(TITLES.get(report.get("scan", ""), ""))
    ax.legend(fontsize=8, frameon=False)
