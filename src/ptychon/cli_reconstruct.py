"""``ptychon reconstruct``: from a file to a result and a picture."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .cli_options import Quantity, Shape, engine_options
from .types import PtychonError

if TYPE_CHECKING:
    from .dataset import Dataset
    from .result import Result

_RESULT_SUFFIXES = (".h5", ".hdf5", ".cxi")
_HASHED_BYTES = 2**31


@click.command(
    epilog="""\b
Examples
\b
A file that knows everything:
  ptychon reconstruct scan.cxi
\b
Near field; the distance from focus to sample is not in the file:
  ptychon reconstruct scan.cxi --near-field --focus-distance 3.65mm --epochs 60
\b
Electrons; the file holds nothing but frames:
  ptychon reconstruct frames.h5 --data-path dp --scan-shape 40x40 --step 31.25A --pixel-size 9.3A
          --rotation -126deg --voltage 300kV --semi-angle 1.03mrad --defocus 13.5um
\b
Tune, then go on with error bars from Ptycho-EP:
  ptychon reconstruct scan.npz --set object_step=0.8 --set object_reg=0.1 -o first.h5
  ptychon reconstruct scan.npz --engine ep --epochs 40 --start first.h5

Quantities take units (m mm um nm A pm, keV eV, kV V, deg mrad rad); plain numbers are SI. What is given here wins
over the file.
""",
)
@click.argument("file", type=click.Path())
@click.option("-e", "--engine", default="rpie", show_default=True, help="Algorithm: pie, epie, rpie, dm or ep.")
@click.option("-n", "--epochs", type=int, default=40, show_default=True, help="Passes over the data.")
@click.option("--backend", default="auto", show_default=True, help="auto, numpy, cupy (GPU) or reference.")
@click.option("-s", "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Option of the engine (repeatable).")
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything random.")
@click.option("--near-field/--far-field", "near", default=None, help="Geometry, where the file does not say: far.")
@click.option("--wavelength", type=Quantity("length"), help="Wavelength.")
@click.option("--energy", type=Quantity("energy"), help="Energy of the photons, instead of the wavelength.")
@click.option("--voltage", type=Quantity("voltage"), help="Voltage of the electrons, instead of the wavelength.")
@click.option("--distance", type=Quantity("length"), help="From sample to detector.")
@click.option("--focus-distance", type=Quantity("length"), help="From focus to sample (near field, cone beam).")
@click.option("--detector-pixel-size", type=Quantity("length", pair=True), help="Pixel of the detector; or Y,X.")
@click.option("--pixel-size", type=Quantity("length", pair=True), help="Pixel of the object, if it cannot be derived.")
@click.option("--scan-shape", type=Shape(), metavar="SLOWxFAST", help="Points of a raster that is not listed.")
@click.option("--step", type=Quantity("length", pair=True), help="Step of that raster; or SLOW,FAST.")
@click.option("--rotation", type=Quantity("angle"), help="Of that raster against the detector.")
@click.option("--semi-angle", type=Quantity("angle"), help="Convergence of an electron probe, for a first guess of it.")
@click.option("--defocus", type=Quantity("length"), help="Of that probe; positive is underfocus (C1 = -defocus).")
@click.option("--data-path", metavar="NAME", help="Dataset in the file that holds the frames.")
@click.option("--positions-path", metavar="NAME", help="Dataset, or file (.npy, .csv, .txt), with rows and columns.")
@click.option("--probe", type=click.Path(), help="First probe: .npy, .npz, or a result.")
@click.option("--start", type=click.Path(), help="Result to go on from.")
@click.option("--no-subpixel", is_flag=True, help="Round positions to whole pixels.")
@click.option("-o", "--output", type=click.Path(), help="Result file; default FILE_ENGINE.h5, here.")
@click.option("--picture", type=click.Path(), help="Picture; default beside the result, .png.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
@click.option("-v", "--verbose", is_flag=True, help="Progress also where there is no terminal; where values came from.")
@click.option("--json", "as_json", is_flag=True, help="The summary for machines.")
def reconstruct(
    file: str,
    engine: str,
    epochs: int,
    backend: str,
    settings: tuple[str, ...],
    seed: int,
    near: bool | None,
    probe: str | None,
    start: str | None,
    no_subpixel: bool,
    output: str | None,
    picture: str | None,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Reconstruct object and probe from a scan in FILE (CXI, .npz, .npy, any HDF5).

    Writes a result file and a picture, and prints R, the mismatch sqrt(sum (|model| - sqrt(counts))^2 / sum counts): as
    accumulated during the last pass, and of the final object and probe held still.
    """
    options, run = engine_options(engine, settings)
    if epochs < 1:
        raise PtychonError(f"--epochs is {epochs}; at least 1 pass is needed")
    result_path, picture_path = _places(file, engine, output, picture, start)

    from .backends import get_backend
    from .callbacks import Interrupt, ProgressBar
    from .io import load, load_result, save_result
    from .reconstruct import reconstruct as run_engine

    chosen_backend = get_backend(backend)
    data = load(file, geometry=None if near is None else "near" if near else "far", **given)
    if verbose and not quiet and not as_json:
        _tell_sources(data)
    earlier = None if start is None else load_result(start)
    first_probe = None if probe is None else read_probe(probe)
    callbacks: list[Any] = [] if quiet else [ProgressBar(engine, lines=verbose)]
    with Interrupt() as interrupt:
        result = run_engine(
            data,
            engine,
            epochs=epochs,
            backend=chosen_backend,
            callbacks=[*callbacks, interrupt],
            probe=first_probe,
            start=earlier,
            seed=seed,
            subpixel=not no_subpixel,
            **run,
            **options,
        )
    result = with_origin(result, file, data)
    save_result(result_path, result)

    from .plot import picture as draw

    draw(result, picture_path)
    if as_json:
        click.echo(json.dumps(summary(result, result_path, picture_path) | {"stopped": interrupt.pressed}))
    elif not quiet:
        show_summary(summary(result, result_path, picture_path))
    return 130 if interrupt.pressed else 0


def _places(file: str, engine: str, output: str | None, picture: str | None, start: str | None) -> tuple[Path, Path]:
    """Where result and picture go; refused now rather than after hours of computing."""
    from .io.hdf5 import check_readable, check_writable

    result_path = Path(output) if output else Path(f"{Path(file).stem}_{engine}.h5")
    if result_path.suffix.lower() not in _RESULT_SUFFIXES:
        raise PtychonError(f"the result {result_path} must be named {', '.join(_RESULT_SUFFIXES)}: it is an HDF5 file")
    picture_path = Path(picture) if picture else result_path.with_suffix(".png")
    if picture_path.suffix.lower() not in (".png", ".pdf", ".svg", ".jpg", ".tif", ".tiff"):
        raise PtychonError(f"the picture {picture_path} must be named .png, .pdf, .svg, .jpg or .tif")
    for needed in (file, start):
        if needed is not None:
            check_readable(needed)
    for place in (result_path, picture_path):
        if place.exists() and place.samefile(file):
            raise PtychonError(f"{place} is the file with the data: give another name with -o")
        check_writable(place)
    return result_path, picture_path


def read_probe(path: str) -> Any:
    """A complex probe (P, Q) or (modes, P, Q) from .npy, .npz, a result or an HDF5 file with one called probe.

    Raises
    ------
    PtychonError
        If the file is damaged or holds no probe.
    """
    import numpy as np

    from .io.frames import npz_headers, read_npz
    from .io.hdf5 import check_readable, opened

    check_readable(path)
    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise PtychonError(f"{path} is truncated, damaged or holds pickled objects; save a plain array") from error
    elif suffix == ".npz":
        names = list(npz_headers(path))
        name = "probe" if "probe" in names else names[0] if len(names) == 1 else None
        if name is None:
            raise PtychonError(f"{path} has no array called probe; it has {', '.join(names) or 'none at all'}")
        array = read_npz(path, name)
    else:
        places = ("ptychon/result/probe", "entry_1/instrument_1/illumination", "probe")
        with opened(path) as file:
            node = next((file[place] for place in places if place in file and hasattr(file[place], "dtype")), None)
            if node is None:
                raise PtychonError(f"{path} holds no probe: looked for {', '.join(places)}")
            array = node[()]
    if array.ndim not in (2, 3) or array.dtype.kind not in "cf":
        raise PtychonError(
            f"the probe in {path} has shape {array.shape} and type {array.dtype}; it must be complex, "
            f"(rows, columns) or (modes, rows, columns)"
        )
    return array


def with_origin(result: Result, file: str, data: Dataset) -> Result:
    """The result, with the file it came from, that file's hash, and how it was read."""
    import hashlib

    source = Path(file)
    provenance = dict(result.provenance)
    if source.stat().st_size <= _HASHED_BYTES:  # reading a huge file again would cost more than it tells
        with source.open("rb") as stream:
            provenance["input_sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
    settings = dict(result.settings) | {"input": source.name, "name": data.name, "notes": dict(data.notes)}
    return replace(result, settings=settings, provenance=provenance)


def _tell_sources(data: Dataset) -> None:
    for title, key in (("file", "read"), ("given", "given")):
        entries = data.notes.get(key)
        if isinstance(entries, dict):
            for name, where in entries.items():
                click.echo(f"{title}: {name} = {where}" if key == "given" else f"{title}: {name} from {where}", err=True)


def summary(result: Result, result_path: Path, picture_path: Path) -> dict[str, Any]:
    """The numbers of a run; R that was never measured is None."""
    measured = result.errors[~(result.errors != result.errors)]
    return {
        "engine": result.engine,
        "backend": result.backend,
        "epochs": result.epochs,
        "error_in_pass": float(measured[-1]) if len(measured) else None,
        "error_final": float(result.final_error) if math.isfinite(result.final_error) else None,
        "object_shape": list(result.object.shape),
        "pixel_size": None if result.pixel_size is None else list(result.pixel_size),
        "seconds": result.seconds,
        "compile_seconds": result.compile_seconds,
        "result": str(result_path),
        "picture": str(picture_path),
    }


def show_summary(numbers: dict[str, Any]) -> None:
    """The summary for people, on stdout."""
    from .units import pretty

    def error(value: float | None) -> str:
        return "not measured" if value is None else f"{value:.4f}"

    height, width = numbers["object_shape"]
    scale = "" if numbers["pixel_size"] is None else f", pixel {pretty(numbers['pixel_size'][1], 'length')}"
    compiling = f" and {numbers['compile_seconds']:.1f} s compiling" if numbers["compile_seconds"] >= 0.05 else ""
    rows = [
        ("engine", f"{numbers['engine']} on {numbers['backend']}, {numbers['epochs']} epochs"),
        ("time", f"{numbers['seconds']:.1f} s{compiling}"),
        ("object", f"{height} x {width} px{scale}"),
        ("R in pass", error(numbers["error_in_pass"])),
        ("R final", error(numbers["error_final"])),
        ("result", numbers["result"]),
        ("picture", numbers["picture"]),
    ]
    for name, value in rows:
        click.echo(f"{name:<10} {value}")
