"""A starter folder: a commented settings file, a script and a batch job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..io.hdf5 import write_aside
from ..types import PtychonError


@dataclass(frozen=True)
class Kind:
    """A kind of experiment.

    Attributes
    ----------
    title : str
    input : str
        Name of the file with the scan where none is given.
    stated : mapping of str to (value, comment)
        What a file of that kind often lacks.
    engine : str
    passes : int
    modes : int
    bars : str
    """

    title: str
    input: str
    stated: Mapping[str, tuple[str, str]]
    engine: str = "rpie"
    passes: int = 200
    modes: int = 1
    bars: str = "auto"


#: What is known by its names.
KINDS: dict[str, Kind] = {
    "beamline": Kind(
        "far-field X-ray ptychography at a synchrotron",
        "scan.cxi",
        {
            "energy": ("8keV", "of the photons; or wavelength: 1.55A"),
            "distance": ("2m", "from sample to detector"),
            "detector_pixel_size": ("75um", ""),
            "centre": ("auto", "of the pattern on the detector; or row,column"),
            "bad_pixels": ("yes", "mask hot, dead and saturated pixels"),
        },
        modes=2,
    ),
    "electron": Kind(
        "ptychography from 4D-STEM data",
        "scan.npy",
        {
            "voltage": ("300kV", ""),
            "semi_angle": ("21mrad", "convergence semi-angle of the probe"),
            "defocus": ("20nm", "positive is underfocus; tune it with ptychon tune"),
            "scan_shape": ("64x64", "rows x columns of the scan"),
            "step": ("0.5A", "of the scan"),
            "pixel_size": ("0.2A", "of the object: wavelength / (2 x largest angle of the frame)"),
        },
        passes=100,
    ),
    "optical": Kind(
        "ptychography with visible light and a camera without a lens",
        "scan.npz",
        {
            "wavelength": ("632.8nm", ""),
            "distance": ("50mm", "from sample to camera"),
            "detector_pixel_size": ("4.5um", ""),
            "background": ("5", "mean counts of the camera a pixel that are no light; or a file"),
        },
    ),
    "near-field": Kind(
        "near-field X-ray ptychography with a cone or a parallel beam",
        "scan.h5",
        {
            "geometry": ("near", ""),
            "energy": ("17keV", "of the photons"),
            "distance": ("1.2m", "from sample to detector"),
            "focus_distance": ("50mm", "from focus to sample; leave it out for a parallel beam"),
            "detector_pixel_size": ("3um", ""),
        },
    ),
}


def write_starter(
    folder: str | Path, kind: str, input: str | None = None, force: bool = False
) -> list[Path]:
    """Write settings.yaml, reconstruct.py and job.sh.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    kind : str
        A key of `KINDS`.
    input : str, optional
        The scan; a path relative to the folder, or a full one.
    force : bool
        Write over files that exist.

    Returns
    -------
    list of Path

    Raises
    ------
    PtychonError
        For an unknown kind, or a file that exists.
    """
    if kind not in KINDS:
        raise PtychonError(f"there is no starter for {kind!r}; there are {', '.join(KINDS)}")
    place, what = Path(folder), KINDS[kind]
    made = {
        "settings.yaml": settings_text(what, input or what.input),
        "reconstruct.py": script_text(what, input or what.input),
        "job.sh": job_text(what),
    }
    there = [str(place / name) for name in made if (place / name).exists()]
    if there and not force:
        raise PtychonError(
            f"{', '.join(there)} exist{'s' if len(there) == 1 else ''} already: write over with "
            "--force, or name another folder"
        )
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PtychonError(f"cannot make the folder {place}: {error.strerror}") from error
    for name, text in made.items():
        with write_aside(place / name) as aside:
            aside.write_text(text, encoding="utf-8")
    (place / "job.sh").chmod(0o755)
    return [place / name for name in made]


def settings_text(kind: Kind, input: str) -> str:
    """The settings file, every line with what it is for."""
    lines = [
        f"# Settings for {kind.title}.",
        "# Check them:   ptychon validate settings.yaml",
        "# Run them:     ptychon reconstruct settings.yaml",
        "# A line that begins with # is not in force. Quantities take units (m mm um nm A, keV,",
        "# kV, deg, mrad); paths are relative to this file.",
        "",
        f"input: {_text(input)}",
        "",
        "# What the file of the scan does not say. ptychon inspect lists what it says; leave out",
        "# here what is right there.",
        "data:",
        *(_line(n, v, c, 2) for n, (v, c) in kind.stated.items()),
        *(_line(n, v, c, 2, False) for n, (v, c) in _MORE.items() if n not in kind.stated),
        "",
        "# How the detector was mounted, which decides on the object with hardly a change of R:",
        "# ptychon orient finds it.",
        _line("orient", "auto", "or as-is, transpose, flip-rows, ...", 0, False),
        "",
        "# The algorithm (ptychon engines lists them and their options), and passes over the data.",
        f"engine: {kind.engine}",
        f"passes: {kind.passes}",
        _line("modes", str(kind.modes), "incoherent modes of the probe", 0),
        "options:",
        _line("object_step", "0.8", "smaller for few counts; ptychon tune searches it", 2, False),
        "  schedule: null           # null leaves the choice to the engine",
        "update: {}                 # e.g. {positions: 'after=20,every=5'} refines the positions",
        "",
        "# Afterwards.",
        "report: yes                # one page with pictures and a verdict",
        "half_scans: yes            # two half-scans for the resolution in it",
        _line("error_bars", kind.bars, "error bars on every pixel: laplace, joint, ...", 0, False),
        _line("checkpoint_every", "50", "passes, to go on from with ptychon resume", 0),
        "seed: 0",
        "",
    ]
    return "\n".join(lines)


#: What every kind may need.
_MORE = {
    "crop": ("256x256", "middle of the frames"),
    "bin": ("2", "sum counts of 2 x 2 pixels"),
    "blur": ("1.0", "point spread of the detector, standard deviation in pixels"),
    "pad": ("16", "detector pixels of unknown value at each side: finer pixels of the object"),
    "upsample": ("2", "a pixel counts 2 x 2 points of the wave: for large probes"),
    "mask": ("mask.npy", "True or 1 where a pixel is valid"),
    "positions_path": ("positions.csv", "table of positions, y and x"),
    "position_units": ("um", ""),
}


def _text(value: str) -> str:
    import yaml

    return str(yaml.safe_dump(value, default_flow_style=True, width=10**6)).splitlines()[0]


def _line(name: str, value: str, comment: str, indent: int, on: bool = True) -> str:
    body = f"{' ' * indent}{'' if on else '# '}{name}: {value}"
    return f"{body:<25}  # {comment}" if comment else body


def script_text(kind: Kind, input: str) -> str:
    """The same from Python."""
    known = ", ".join(f"{n}={_python(n, v)}" for n, (v, _) in kind.stated.items())
    return f'''"""Reconstruct a scan: {kind.title}."""

import ptychon

# what the file does not say; leave out what is right there
stated = dict({known})

data = ptychon.load({input!r}, **stated)
print(data)
result = ptychon.reconstruct(data, {kind.engine!r}, passes={kind.passes}, modes={kind.modes})
print(result)
result.save("result.h5")
ptychon.plot(result, "result.png")

# error bars on every pixel of the object
bars = ptychon.error_bars(data, result, method={kind.bars!r})
print(bars)
'''


def _python(name: str, value: str) -> str:
    return {"yes": "True", "no": "False"}.get(value, repr(value))


def job_text(kind: Kind) -> str:
    """A batch job for Slurm."""
    return f"""#!/bin/bash
# {kind.title[0].upper()}{kind.title[1:]}: sbatch job.sh
#SBATCH --job-name=ptychon
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=02:00:00
#SBATCH --output=ptychon_%j.log
# for a GPU: add --gres=gpu:1 and, below, --backend cupy

set -euo pipefail
cd "${{SLURM_SUBMIT_DIR:-.}}"
export NUMBA_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"

ptychon validate settings.yaml
ptychon reconstruct settings.yaml --verbose "$@"
"""


def stated_of(kind: str) -> dict[str, Any]:
    """What the settings of a kind state of the scan."""
    return {name: value for name, (value, _) in KINDS[kind].stated.items()}
