"""What `ptychon.inspect` found, as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..units import pretty


def show(about: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the findings as tables.

    Parameters
    ----------
    about : mapping
        From `ptychon.inspect.inspect`.
    console : rich.console.Console, optional
    """
    out = console or Console(highlight=False)
    out.print(
        Text.assemble(
            (str(about["file"]), "bold"),
            f"  {about['kind']}, {about['format']}, {_bytes(about['bytes'])}",
        )
    )
    if about["kind"] == "reconstruction":
        _rows(
            out,
            [(name.replace("_", " "), _plain(value)) for name, value in about["result"].items()],
        )
    else:
        _found(out, about["found"])
        _rows(out, _frames(about["frames"]), "frames")
        if about["scan"]:
            _rows(out, _scan(about["scan"]), "scan")
        _engines(out, about["engines"])
        if about["preparation"]:
            _rows(
                out,
                [(name, _plain(value)) for name, value in about["preparation"].items()],
                "prepared",
            )
    out.print(Text("advice", style="bold"))
    for line in about["advice"]:
        out.print(Text(f"  - {line}"))


def _rows(out: Console, rows: list[tuple[str, str]], title: str = "") -> None:
    if title:
        out.print(Text(title, style="bold"))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    out.print(table)


def _found(out: Console, rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="bold")
    for title in ("quantity", "value", "where"):
        table.add_column(
            title, no_wrap=title == "quantity", style="dim" if title == "where" else ""
        )
    for row in rows:
        name = row["name"].replace("_", " ")
        if row["value"] is None:
            reason = f"{row['problem']}; " if row["problem"] else ""
            table.add_row(
                Text(name), Text("not known", style="yellow"), Text(f"{reason}give {row['flag']}")
            )
        else:
            table.add_row(Text(name), Text(row["value"]), Text(row["where"]))
    out.print(table)


def _frames(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    p, q = facts["shape"]
    rows = [
        ("stack", f"{facts['count']} x {p} x {q} {facts['dtype']}, {_bytes(facts['bytes'])}"),
        ("looked at", f"{facts['looked_at']} of them"),
        ("counts a frame", f"{facts['counts_mean']:.4g}" + _spread(facts["counts_spread"])),
        ("brightest pixel", "none" if facts["brightest"] is None else f"{facts['brightest']:.6g}"),
        (
            "bad pixels",
            ", ".join(f"{facts[n]} {n}" for n in ("hot", "dead", "saturated", "marked"))
            + " (not in the mask)",
        ),
    ]
    if "centre" in facts:
        (row, column), drift = facts["centre"], facts["drift"]
        rows.append(
            (
                "centre of mass",
                f"row {row:.2f}, column {column:.2f}; wanders by {facts['wander']:.2f} px (rms)",
            )
        )
        rows.append(("drift", f"{drift[0]:+.2f}, {drift[1]:+.2f} px from first to last"))
    return rows


def _spread(value: float | None) -> str:
    return "" if value is None else f", varying by {value:.1%} (rms)"


def _scan(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    def said(value: float | None) -> str:
        if value is None:
            return "unknown"
        return pretty(value, "length") if facts["unit"] == "m" else f"{value:.4g} px"

    rows = [
        ("extent", " x ".join(said(v) for v in facts["extent"])),
        ("step", f"{said(facts['step'])} (median to the nearest neighbour)"),
        (
            "window",
            " x ".join(said(v) for v in facts["window"]) + _ratio(facts["steps_per_window"]),
        ),
        ("object", f"{facts['object_shape'][0]} x {facts['object_shape'][1]} px"),
        ("beam", f"{said(facts['beam_diameter'])} across ({facts['beam_from']})"),
    ]
    if facts["overlap"] is not None:
        rows.append(("overlap", f"{facts['overlap']:.0%} of the beam's diameter"))
    if facts["oversampling"] is not None:
        rows.append(
            ("sampling", f"window/beam = {facts['oversampling']:.2f} (2 and more is well sampled)")
        )
    if facts["dose_e_per_A2"] is not None:
        rows.append(("dose", f"{facts['dose_e_per_A2']:.4g} e/A^2"))
    return rows


def _ratio(value: float | None) -> str:
    return "" if value is None else f", {value:.1f} steps"


def _engines(out: Console, engines: Mapping[str, Mapping[str, float]]) -> None:
    out.print(Text("cost, within a factor of about two, on this machine's CPU", style="bold"))
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
    for title in ("engine", "memory", "a pass"):
        table.add_column(title, justify="left" if title == "engine" else "right")
    for name, cost in engines.items():
        table.add_row(name, _bytes(cost["memory"]), f"{cost['seconds_per_pass']:.2g} s")
    out.print(table)


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.3g} {unit}"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return " x ".join(_plain(v) for v in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{n} {_plain(v)}" for n, v in value.items())
    return "not stated" if value is None else str(value)
