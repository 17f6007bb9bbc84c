"""The comparison with other packages as text."""

from __future__ import annotations

from typing import Any

from .peers_run import TARGETS


def table(report: dict[str, Any]) -> str:
    """A report of `peers_run.compare`: what ran where, a Markdown table for each number of threads,
    versions, settings.
    """
    host = report["machine"]
    lines = [
        report["about"],
        f"{host['processor']}, {host['cores']} cores, load {host['load'] or '?'}; at most "
        f"{report['passes']} passes and "
        f"{report['seconds']:g} s of processor time each",
    ]
    rows = report["rows"]
    for count in dict.fromkeys(row["threads"] for row in rows):
        lines += [
            "",
            f"{count} thread{'s' if count > 1 else ''}",
            "",
            *_grid([r for r in rows if r["threads"] == count]),
        ]
    done = [row for row in rows if "failed" not in row]
    versions = {name: text for row in done for name, text in row["versions"].items()}
    lines += ["", "versions: " + ", ".join(f"{name} {text}" for name, text in versions.items())]
    seen = set()
    for row in done:
        name = f"{row['package']}: {row['algorithm']}"
        if name not in seen:
            lines.append(
                f"{name}: "
                + ", ".join(f"{key} {_short(value)}" for key, value in row["settings"].items())
            )
        seen.add(name)
    lines += [row["failed"] for row in rows if "failed" in row]
    return "\n".join([*lines, ""])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _grid(rows: list[dict[str, Any]]) -> list[str]:
    """Times of a position and pass, ratio to the quickest engine of ptychon, seconds to the
    targets, the end.
    """
    ours = [row["cpu_us"] for row in rows if row["package"] == "ptychon" and "failed" not in row]
    reach = [f"s to {100 * target:g} %" for target in TARGETS]
    lines = [
        "| package | algorithm | us wall | us processor | x ptychon | "
        + " | ".join(reach)
        + " | passes | error | R |",
        "|" + "---|" * (8 + len(TARGETS)),
    ]
    for row in rows:
        head = f"| {row['package']} | {row['algorithm']} | "
        if "failed" in row:
            lines.append(head + " | ".join(["failed", *["-"] * (5 + len(TARGETS))]) + " |")
            continue
        times = [row["reached"][str(target)] for target in TARGETS]
        cells = [
            f"{row['us']:.0f}",
            f"{row['cpu_us']:.0f}",
            f"{row['cpu_us'] / min(ours):.1f}" if ours else "-",
            *("-" if pair is None else f"{pair[1]:.2g}" for pair in times),
            str(row["passes"]),
            "diverged" if row["error"] is None else f"{100 * row['error']:.1f} %",
            "-" if row["R"] is None else f"{row['R']:.4f}",
        ]
        lines.append(head + " | ".join(cells) + " |")
    return lines
