"""``ptychon info``: what this machine and this installation are."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..backends.cores import cores

#: Packages whose versions matter, by what they are for.
PACKAGES = {
    "core": ("numpy", "scipy", "numba", "llvmlite", "rocket-fft", "h5py", "hdf5plugin"),
    "gpu": ("cupy-cuda12x", "cupy-cuda13x"),
    "em": ("rosettasciio",),
    "detectors": ("fabio",),
    "mpi": ("mpi4py",),
}


@click.command(epilog="\b\nExamples\n  ptychon info\n  ptychon info --json\n")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def info(as_json: bool) -> None:
    """Show the processor, the GPU, the versions and the compiled kernels of this installation."""
    from rich.console import Console
    from rich.table import Table

    found = facts()
    if as_json:
        click.echo(json.dumps(found))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    for name, value in found.items():
        table.add_row(name, value if isinstance(value, str) else _listed(value))
    Console(highlight=False).print(table)


def facts() -> dict[str, Any]:
    """Processor, threads, memory, GPU, versions and the folder of compiled kernels."""
    from ..data.lazy import free_memory

    free = free_memory()
    folder, kernels, size = compiled()
    return {
        "ptychon": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "processor": f"{_processor()}, {cores()} threads for this process",
        "free memory": "unknown" if free is None else f"{free / 1e9:.1f} GB",
        "gpu": _gpu(),
        "packages": {
            name: version
            for names in PACKAGES.values()
            for name in names
            if (version := _version(name))
        },
        "extras not installed": [
            extra
            for extra, names in PACKAGES.items()
            if extra != "core" and not any(_version(name) for name in names)
        ],
        "compiled kernels": f"{kernels} in {folder}, {size / 1e6:.1f} MB",
    }


def compiled() -> tuple[Path, int, int]:
    """Where compiled kernels are kept, how many there are, and their bytes."""
    from ..kernels.cpu import pie

    caches = [getattr(value, "_cache", None) for value in vars(pie).values()]
    places = [path for cache in caches if (path := getattr(cache, "cache_path", None))]
    folder = Path(places[0])
    files = list(folder.rglob("*.nbc"))
    return folder, len(files), sum(file.stat().st_size for file in files)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _gpu() -> str:
    from ..backends.gpu import driver_found

    if not driver_found():
        return "none: no NVIDIA driver with a device answers"
    if not any(_version(name) for name in PACKAGES["gpu"]):
        return "an NVIDIA GPU, but no CuPy: pip install 'ptychon[gpu]'"
    from ..backends import get_backend
    from ..types import PtychonError

    try:
        about = get_backend("cupy").facts
    except PtychonError as error:
        return str(error)
    return f"{about['device']}, {about['memory'] / 2**30:.0f} GiB"


def _listed(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return ", ".join(value) or "none"
