"""``python -m ptychon.bench`` and ``ptychon bench``: tables and JSON of `run.compare`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click


@click.command(
    name="bench",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples
  ptychon bench
  ptychon bench many --engine ep --threads 2 -o ep.json
  ptychon bench --peers --threads 1 --threads 2
  ptychon bench --peers -e ptychon -e ptychi:lsqml --peers-dir /scratch/peers
  ptychon bench --peers --peer-scan measured --picture peers.png
  ptychon bench --options -e rpie
""",
)
@click.argument("names", nargs=-1, metavar="[CASE]...")
@click.option(
    "-e",
    "--engine",
    "engines",
    multiple=True,
    help="Time this engine: pie, epie, rpie, dm, ep or ep+em; default all. Repeatable.",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    default=("numpy",),
    show_default=True,
    help="Time this backend: numpy or cupy. Repeatable.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1,),
    show_default=True,
    help="Run on so many threads. Repeatable.",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=7,
    show_default=True,
    help="Time so many interleaved stretches of passes.",
)
@click.option(
    "--passes",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Set the passes of a stretch.",
)
@click.option("--points", type=click.IntRange(min=2), help="Use fewer positions than the case has.")
@click.option(
    "--noisy",
    "noise",
    is_flag=True,
    help="Add Gaussian noise of variance 1e-3 of the mean squared amplitude.",
)
@click.option(
    "--busy", is_flag=True, help="Time everything also while another process keeps a core busy."
)
@click.option(
    "--textbook/--no-textbook", default=True, help="Compare with plain NumPy code, or do not."
)
@click.option(
    "--reference", is_flag=True, help="Time cases too that run on the slow reference kernels."
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), help="Write all measurements to .json."
)
@click.option("--json", "as_json", is_flag=True, help="Print all measurements as JSON.")
@click.option(
    "--peers",
    "with_peers",
    is_flag=True,
    help="Compare with other packages, each installed in an environment of its own.",
)
@click.option(
    "--peer-scan",
    type=click.Choice(["plain", "measured", "thick"]),
    default="plain",
    show_default=True,
    help="Compare on a scan with known positions and one mode, with three modes and wrong "
    "positions, or of two slices.",
)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False),
    help="Draw the errors against seconds, for --peers, to .png, .pdf or .svg.",
)
@click.option(
    "--peers-dir",
    type=click.Path(file_okay=False),
    help="Keep those environments here (several GB); default in your cache.",
)
@click.option(
    "--peer-passes",
    type=click.IntRange(min=2),
    default=200,
    show_default=True,
    help="Limit the passes of each package.",
)
@click.option(
    "--peer-seconds",
    type=float,
    default=60.0,
    show_default=True,
    help="Limit the processor seconds of each package.",
)
@click.option(
    "--options",
    "with_options",
    is_flag=True,
    help="Measure what modes, positions, doses and other options cost a pass.",
)
def command(
    names: tuple[str, ...],
    engines: tuple[str, ...],
    backends: tuple[str, ...],
    threads: tuple[int, ...],
    repeats: int,
    passes: int,
    points: int | None,
    noise: bool,
    busy: bool,
    textbook: bool,
    reference: bool,
    output: str | None,
    as_json: bool,
    with_peers: bool,
    peer_scan: str,
    picture: str | None,
    peers_dir: str | None,
    peer_passes: int,
    peer_seconds: float,
    with_options: bool,
) -> None:
    """Time the engines on named problems, each in turn with plain NumPy code and with its two FFTs
    alone.

    CASES are default, large, many, modes, star and star-subpixel; without any, default.

    With --peers: the same simulated scan for Ptychon and for Pty-Chi, PtyLab, phaser and CDTools,
    which are downloaded and installed in --peers-dir the first time and kept there. Reports the
    time per position, and the error of the object over time. -e then names packages (ptychon,
    ptychi, ptylab, phaserem, cdtools) or package:algorithm.

    With --options: the time of a pass of rpie, dm, lsqml and ml with each option, relative to a
    pass without.
    """
    from ..io.hdf5 import check_writable
    from . import cases
    from .run import compare

    if output is not None:
        check_writable(output)
    if with_peers:
        if names:
            raise click.UsageError("--peers has a scan of its own; leave out the cases")
        limits = peer_passes, peer_seconds
        _beside_peers(
            engines, threads, peers_dir, *limits, output, as_json, scan=peer_scan, picture=picture
        )
        return
    if with_options:
        _options(engines, repeats, threads, output, as_json)
        return
    reports = []
    for name in names or ("default",):
        case = cases.make(name, points=points, noise=noise)
        # of several cases one may not be for every engine that was named
        wanted = [
            e for e in engines if len(names) < 2 or e in case.engines or e not in cases.ENGINES
        ]
        if engines and not wanted:
            continue
        for backend in backends:
            for count in threads if backend == "numpy" else (1,):
                report = compare(
                    case,
                    wanted,
                    repeats,
                    count,
                    backend=backend,
                    passes=passes,
                    busy=busy,
                    with_textbook=textbook,
                    allow_reference=reference,
                    say=_progress,
                )
                reports.append(report)
                _progress("")
                if not as_json:
                    click.echo(table(report))
    text = json.dumps(reports, indent=1)
    if as_json:
        click.echo(text)
    if output is not None:
        Path(output).write_text(text + "\n")


def _beside_peers(
    wanted: tuple[str, ...],
    threads: tuple[int, ...],
    folder: str | None,
    passes: int,
    seconds: float,
    output: str | None,
    as_json: bool,
    *,
    scan: str,
    picture: str | None,
) -> None:
    from .peers_run import compare
    from .peers_table import table as peers_table

    place = Path(
        folder or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "ptychon" / "peers"
    ).expanduser()
    report = compare(
        wanted,
        threads,
        place,
        passes=passes,
        seconds=seconds,
        scan=scan,
        say=lambda text: click.echo(text, err=True),
    )
    text = json.dumps(report, indent=1)
    click.echo(text if as_json else peers_table(report))
    if output is not None:
        Path(output).write_text(text + "\n")
    if picture is not None:
        from .peers_picture import draw

        draw([report], picture)


def _options(
    engines: tuple[str, ...],
    repeats: int,
    threads: tuple[int, ...],
    output: str | None,
    as_json: bool,
) -> None:
    from .options import costs
    from .options import table as options_table

    reports = [costs(engines, repeats, count, say=_progress) for count in threads]
    _progress("")
    text = json.dumps(reports, indent=1)
    click.echo(text if as_json else "\n".join(map(options_table, reports)))
    if output is not None:
        Path(output).write_text(text + "\n")


def _progress(text: str) -> None:
    """What is being measured, on one line of the screen that is overwritten; nothing in a log."""
    if sys.stderr.isatty():
        click.echo(f"\r{text}\033[K", nl=False, err=True)


_COLUMNS = (
    ("us", "us", "{:.1f}"),
    ("textbook", "textbook_us", "{:.1f}"),
    ("ratio", "ratio", "{:.2f}"),
    ("2 FFTs", "fft_share", "{:.0%}"),
    ("CPU us", "cpu_us", "{:.1f}"),
    ("CPU ratio", "cpu_ratio", "{:.2f}"),
    ("CPU 2 FFTs", "cpu_fft_share", "{:.0%}"),
    ("busy", "slowdown", "x {:.2f}"),
    ("kB/position", "bytes_per_position", "{:,.0f}"),
    ("R", "R", "{:.2e}"),
)


def table(report: dict[str, Any]) -> str:
    """A report of `run.compare` as text."""
    host, backend = report["machine"], report["backend"]
    count = f"{report['threads']} thread{'s' if report['threads'] > 1 else ''}"
    where = count if backend["name"] == "numpy" else backend.get("device", "")
    lines = [
        f"{report['case']['name']}: {report['case']['about']}",
        f"{backend['name']} ({where}) on {host['processor']}, {host['cores']} cores, load "
        f"{host['load'] or '?'}; "
        f"medians of {report['repeats']} x {report['passes']} passes, us a position and iteration",
        "",
    ]
    rows = report["engines"]
    columns = [c for c in _COLUMNS if any(row.get(c[1]) is not None for row in rows.values())]
    cells = [["engine", *(title for title, _, _ in columns)]]
    for name, row in rows.items():
        cells.append([name, *(_cell(row.get(key), key, form) for _, key, form in columns)])
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for first, *rest in cells:
        lines.append(
            "  ".join(
                [
                    first.ljust(widths[0]),
                    *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True)),
                ]
            )
        )
    reasons = {row["no_textbook"] for row in rows.values() if "no_textbook" in row}
    notes = [f"no ratio: {reason}" for reason in sorted(reasons)]
    for name, row in rows.items():
        if row["skipped"]:
            notes.append(
                f"{name}: {row['skipped']:.0%} of the frames taught nothing and were skipped, "
                "which costs less"
            )
    return "\n".join([*lines, *notes, ""])


def _cell(value: float | None, key: str, form: str) -> str:
    if value is None:
        return "-"
    return form.format(value / 1e3 if key == "bytes_per_position" else value)
