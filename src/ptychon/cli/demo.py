"""``ptychon demo``: from a scan to a picture, on simulated data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..types import PtychonError
from .options import BACKEND, seed_option

if TYPE_CHECKING:
    from ..data.result import Result
    from ..simulation.simulate import Simulation

#: Far field of 8 keV X-rays: 128 pixels of 75 um at 1.24 m give object pixels of 20 nm.
_FRAME, _WAVELENGTH, _DETECTOR_PIXEL, _DISTANCE = 128, 1.5498e-10, 75e-6, 1.2388
_STEP, _POINTS, _COUNTS = 15, 13, 4e6
#: Passes of rPIE, and the most of Ptycho-EP.
_PASSES = 60, 250


@click.command(epilog="\b\nExamples\n  ptychon demo\n  ptychon demo elsewhere --seed 7\n")
@click.argument("folder", type=click.Path(file_okay=False), default="ptychon_demo")
@seed_option("Seed for specimen, positions and noise.")
@BACKEND
@click.option("-q", "--quiet", is_flag=True, help="Print nothing, no progress either.")
def demo(folder: str, seed: int, backend: str, quiet: bool) -> int:
    """Simulate a scan, write it to a CXI file, read it back, reconstruct it twice and draw the
    results.

    rPIE starts from the data alone; Ptycho-EP goes on from there and adds an error bar to every
    pixel. Writes everything to FOLDER (default ptychon_demo). Takes under a minute on two cores.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PtychonError(
            f"cannot make the folder {folder}: {error.strerror}; name another one"
        ) from error

    from ..backends import get_backend
    from ..io import load, save_result, write_dataset
    from ..io.hdf5 import check_writable
    from ..plots.result import picture
    from ..request.inputs import input_hash, request_for
    from ..request.settings import validated
    from ..run.observers import Interrupt, ProgressBar
    from ..run.reconstruct import reconstruct
    from .run import with_origin

    scan = place / "scan.cxi"
    check_writable(scan)
    chosen_backend = get_backend(backend)
    say = (lambda text: None) if quiet else click.echo
    simulation = specimen(seed)
    write_dataset(scan, simulation.dataset)
    data, origin = load(scan), {"input_sha256": input_hash(scan)}
    say(
        f"{scan}: {len(data)} frames of {_FRAME}x{_FRAME} px, {_COUNTS:.0e} photons each, 8 "
        "keV, pixel 20 nm"
    )
    result: Result | None = None
    start: str | None = None
    runs: list[tuple[str, int, dict[str, Any]]] = [
        ("rpie", _PASSES[0], {}),
        # its error bars are right once the object has converged
        ("ep", _PASSES[1], {"until": "still:1e-4"}),
    ]
    for engine, passes, options in runs:
        asked = {
            # as ptychon reconstruct names them: the commands that work on a result find its scan
            "input": str(scan),
            "engine": engine,
            "passes": passes,
            "seed": seed,
            "options": options,
            "start": start,
        }
        settings = validated(asked | {"backend": backend}, folder)
        done = result
        earlier = 0 if done is None else done.passes
        callbacks: list[Any] = [] if quiet else [ProgressBar(engine, earlier=earlier)]
        with Interrupt() as interrupt:
            result = reconstruct(
                data,
                settings.way(),
                backend=chosen_backend,
                callbacks=[*callbacks, interrupt],
                start=done,
                seed=seed,
                progress=False,
            )
        passes = result.passes - earlier
        result = with_origin(result, settings, request_for(settings), data, origin)
        start = str(place / f"{engine}.h5")
        save_result(start, result)
        picture(result, place / f"{engine}.png")
        say(
            f"{place / engine}.h5, .png: {engine} on {result.backend}, {passes} passes in "
            f"{result.seconds:.1f} s"
            f" (+ {result.compile_seconds:.1f} s compiling), R "
            f"{result.final_error:.4f}{_truth(simulation, result)}"
        )
        if interrupt.pressed:
            return 130
    say(
        f"look at {place / 'ep.png'}; go on with: ptychon reconstruct {scan} --start "
        f"{place / 'ep.h5'} --engine ep"
    )
    return 0


def specimen(seed: int) -> Simulation:
    """A stained cell behind a defocused aperture: a jittered raster with sub-pixel positions,
    Poisson counts.
    """
    import numpy as np

    from ..simulation import phantoms, probes, scan
    from ..simulation.simulate import simulate

    size = _FRAME + _STEP * (_POINTS - 1) + 24
    truth = phantoms.complex_object(
        phantoms.cell((size, size), seed),
        phantoms.siemens_star((size, size), seed),
        phase_range=(0.0, 1.0),
    )
    probe = probes.defocused_aperture((_FRAME, _FRAME), radius=22, defocus=60)
    positions = scan.raster(_POINTS, _STEP, jitter=3, seed=seed, whole=False)
    return simulate(
        truth,
        np.asarray(probe),
        positions,
        noise="poisson",
        mean_counts=_COUNTS,
        wavelength=_WAVELENGTH,
        distance=_DISTANCE,
        detector_pixel_size=_DETECTOR_PIXEL,
        seed=seed,
        name="demo",
    )


def _truth(simulation: Simulation, result: Result) -> str:
    """How far the result is from what was simulated, for the report."""
    from ..metrics.alignment import align

    # what data cannot tell (factor, phase ramp, translation) is removed, and the rim, where little
    # light came, left out
    margin = _FRAME // 2 + 12
    region = tuple(slice(margin, n - margin) for n in result.object.shape)
    error = align(
        result.object, simulation.object, region=(region[0], region[1]), max_shift=8, subpixel=True
    ).error_db
    return f", {error:.1f} dB from the truth"
