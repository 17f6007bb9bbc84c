"""``ptychon simulate``: write a simulated scan to a file, with the true object beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..types import PtychonError
from .options import Quantity, at_least, output_options, seed_option
from .results import FORCE, check_places, unused


@click.command(
    epilog="""\b
Examples
  ptychon simulate scan.cxi
  ptychon simulate spiral.npz --scan spiral --points 300 --step-px 6 --counts 1e5 --modes 2
  ptychon simulate ccd.cxi --counts 1e4 --background 2 --read-noise 1.5
  ptychon simulate low.cxi --amplitude cell --phase texture --counts 2e3 --seed 7
  ptychon simulate real.cxi --wavelength 1.55A --detector-pixel-size 75um --distance 1.24m
  ptychon simulate thick.cxi --slices 2 --slice-spacing 2um --wavelength 1.55A
          --detector-pixel-size 75um --distance 1.24m
  ptychon simulate turned.cxi --orient transpose+negate      then: ptychon orient turned.cxi

The suffix of FILE selects the format (.cxi, .h5, .npz, .hdf5, ...; see ptychon convert --help).
The true object and probe are written to FILE.truth.npz.
"""
)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--amplitude",
    default="siemens_star",
    show_default=True,
    help="Choose the picture of the amplitude (siemens_star, blobs, cell, ...).",
)
@click.option("--phase", default="cell", show_default=True, help="Choose the picture of the phase.")
@click.option(
    "--phase-range",
    type=float,
    default=1.0,
    show_default=True,
    metavar="RAD",
    help="Set the phase at the brightest part of that picture.",
)
@click.option(
    "--frame",
    type=int,
    default=64,
    show_default=True,
    callback=at_least(8),
    help="Set the size of a frame, pixels along each side.",
)
@click.option(
    "--radius",
    type=float,
    help="Set the radius of the beam, object pixels; default a sixth of the frame.",
)
@click.option(
    "--defocus-px",
    "defocus",
    type=float,
    default=30.0,
    show_default=True,
    help="Set the defocus of the beam, wavelength x distance in squares of the object pixel.",
)
@click.option(
    "--modes",
    type=int,
    default=1,
    show_default=True,
    callback=at_least(1),
    help="Set the number of incoherent probe modes.",
)
@click.option(
    "--scan",
    type=click.Choice(["raster", "spiral"]),
    default="raster",
    show_default=True,
    help="Choose the scan pattern.",
)
@click.option(
    "--points",
    type=int,
    callback=at_least(2),
    help="Set the number of positions: of a raster along each side (13), of a spiral in all (169).",
)
@click.option(
    "--step-px",
    "step",
    type=float,
    help="Set the step, object pixels; default a third of the diameter of the beam.",
)
@click.option(
    "--jitter",
    type=float,
    default=1.0,
    show_default=True,
    help="Displace the positions of a raster at random by up to so many pixels.",
)
@click.option(
    "--counts",
    type=float,
    default=1e6,
    show_default=True,
    help="Set the mean counts (photons or electrons) per frame.",
)
@click.option(
    "--noise",
    type=click.Choice(["poisson", "none"]),
    default="poisson",
    show_default=True,
    help="Choose the noise of the counts.",
)
@click.option(
    "--background",
    metavar="FILE|NUMBER",
    help="Add a background of so many mean counts per pixel (FILE or FILE:DATASET).",
)
@click.option(
    "--read-noise",
    type=float,
    metavar="COUNTS",
    help="Add Gaussian read noise of this standard deviation.",
)
@click.option(
    "--blur",
    type=float,
    metavar="PIXELS",
    help="Spread the light over pixels by a Gaussian of this standard deviation.",
)
@click.option(
    "--wavelength",
    type=Quantity("length"),
    help="Set the wavelength; positions are then in metres (needs the next two options).",
)
@click.option(
    "--distance", type=Quantity("length"), help="Set the distance from sample to detector."
)
@click.option(
    "--detector-pixel-size",
    type=Quantity("length", pair=True),
    help="Set the pixel size of the detector; or Y,X.",
)
@click.option(
    "--slices",
    type=int,
    default=1,
    show_default=True,
    callback=at_least(1),
    help="Set the number of slices, each with a part of the phase; needs the geometry above.",
)
@click.option("--slice-spacing", type=Quantity("length"), help="Set the distance between slices.")
@click.option(
    "--tilt",
    type=Quantity("angle", pair=True),
    help="Set the angle between beam and specimen, along y; or Y,X.",
)
@click.option(
    "--orient",
    metavar="WAY",
    help="Turn frames and positions as a wrongly described detector does (see ptychon orient).",
)
@seed_option("Seed for pictures, jitter and noise.")
@FORCE
@output_options()
def simulate(file: str, force: bool, quiet: bool, as_json: bool, **how: Any) -> int:
    """Write a simulated far-field scan to FILE.

    The object has two pictures as amplitude and phase; the probe is a defocused beam.
    """
    from ..inspect.orientation import Orientation
    from ..io import write_scan
    from ..io.hdf5 import write_aside

    truth_path = Path(file).with_suffix(".truth.npz")
    check_places(unused(Path(file), True, force), truth_path)
    way = Orientation.parse(how.pop("orient"))
    if how["background"] is not None:
        from ..io.fields import number_or_field

        how["background"] = number_or_field(how["background"], "background")
    made = simulated(**how)
    data = way.apply(made.dataset)
    lost = write_scan(file, data)

    import numpy as np

    with write_aside(truth_path) as aside, aside.open("wb") as stream:
        np.savez_compressed(stream, object=made.object, probe=made.probe)
    if as_json:
        shape = [len(data), *data.frame_shape]
        click.echo(
            json.dumps(
                {
                    "file": file,
                    "truth": str(truth_path),
                    "shape": shape,
                    "orientation": str(way),
                    "lost": lost,
                }
            )
        )
    elif not quiet:
        height, width = data.frame_shape
        turned = "" if way == Orientation() else f", turned ({way})"
        click.echo(
            f"{file}: {len(data)} frames of {height} x {width} px, {how['counts']:.3g} counts "
            f"each{turned}"
        )
        click.echo(f"{truth_path}: the true object and probe")
        if lost:
            click.echo(f"this format cannot hold: {', '.join(lost)}")
    return 0


def simulated(
    *,
    amplitude: str,
    phase: str,
    phase_range: float,
    frame: int,
    radius: float | None,
    defocus: float,
    modes: int,
    scan: str,
    points: int | None,
    step: float | None,
    jitter: float,
    counts: float,
    noise: Any,
    seed: int,
    slices: int = 1,
    slice_spacing: float | None = None,
    **geometry: Any,
) -> Any:
    """The `Simulation` that the options of ``ptychon simulate`` describe."""
    import numpy as np

    from ..simulation import phantoms, probes
    from ..simulation.scan import fermat_spiral, raster
    from ..simulation.simulate import simulate as make

    radius = frame / 6 if radius is None else radius
    step = max(1.0, round(2 * radius / 3)) if step is None else step
    if scan == "raster":
        positions = raster(points or 13, step, jitter=jitter, seed=seed, whole=False)
    else:
        positions = fermat_spiral(points or 169, step / 1.68)
    reach = np.abs(positions).max(axis=0)
    if not reach.max() < 20_000:
        raise PtychonError(
            f"the scan reaches {reach.max():.3g} px from its middle; use fewer points or a "
            "smaller step"
        )
    shape = tuple(int(n) for n in frame + 2 * np.ceil(reach + 1).astype(int))
    layers = []
    for s in range(slices):
        pictures = [
            phantoms.make(name, (shape[0], shape[1]), seed + 2 * s + k)
            for k, name in enumerate((amplitude, phase))
        ]
        # pictures without chance in them are told apart by where their corners are
        flips = tuple(axis for axis in (0, 1) if s >> axis & 1)
        layers.append(
            phantoms.complex_object(
                *(np.flip(picture, flips) for picture in pictures),
                phase_range=(0.0, phase_range / slices),
            )
        )
    truth = layers[0] if slices == 1 else np.stack(layers)
    if slices > 1:
        # all of them together absorb as much as one would
        truth = np.abs(truth) ** (1 / slices) * np.exp(1j * np.angle(truth))
    probe = probes.defocused_aperture((frame, frame), radius, defocus)
    # further modes: the beam of a source that is also a little to the side
    y, x = ((np.arange(frame) - frame // 2) / radius for _ in range(2))
    shapes = [probe * 0.5**k * (y[:, None] ** ((k + 1) // 2) * x ** (k // 2)) for k in range(modes)]
    return make(
        truth,
        np.stack(shapes),
        positions,
        spacing=slice_spacing,
        noise=noise,
        mean_counts=counts,
        seed=seed,
        name="simulated",
        **geometry,
    )
