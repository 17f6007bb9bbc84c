"""Each constraint where it helps: a fault, or a lack of counts, and the error with and without."""

from __future__ import annotations

import numpy as np
import pytest

from ptychon import reconstruct
from ptychon.metrics.alignment import align
from ptychon.metrics.depth import levelled
from ptychon.run.constraints import CONSTRAINTS
from ptychon.simulation.scan import raster
from ptychon.simulation.simulate import simulate

N, WINDOW = 64, 24
INNER = (slice(16, 48), slice(16, 48))
QUIET = {"judge": False, "progress": False, "say": None, "backend": "numpy"}


def field(cut, seed=1):
    """A smooth real field of no mean and of standard deviation 1."""
    rng = np.random.default_rng(seed)
    f2 = np.add.outer(np.fft.fftfreq(N) ** 2, np.fft.fftfreq(N) ** 2)
    found = np.fft.ifft2(np.fft.fft2(rng.normal(size=(N, N))) * np.exp(-f2 / (2 * cut**2))).real
    return (found - found.mean()) / found.std()


def blocks():
    """An object of flat parts."""
    y, x = np.indices((N, N))
    return np.where((y // 12 + x // 14) % 2, 0.75, 1.0) * np.exp(0.6j * (y // 16 % 2))


def disc(inside):
    """1, and within a disc something else."""
    y, x = np.indices((N, N)) - N // 2
    return np.where(np.hypot(y, x - 3) < 9, inside, 1.0 + 0j)


def beam(width=3.5, chirp=0.06, waves=1):
    """A Gaussian of uneven phase."""
    y, x = np.indices((WINDOW, WINDOW)) - WINDOW // 2
    uneven = waves * (0.5 * np.sin(0.7 * x + 1) + 0.4 * np.cos(0.6 * y + 0.2 * x))
    return np.exp(-(y**2 + x**2) / (2 * width**2) + 1j * (chirp * (y**2 + x**2) + uneven))


def aperture(radius, defocus=30.0):
    """A probe of an aperture, radius in cycles a pixel, defocused."""
    q2 = np.add.outer(np.fft.fftfreq(WINDOW) ** 2, np.fft.fftfreq(WINDOW) ** 2)
    pupil = (q2 <= radius**2) * np.exp(-1j * np.pi * defocus * q2)
    return np.fft.fftshift(np.fft.ifft2(pupil))


def scan(object, probe, counts, seed, jitter=1.0, step=4.0, side=8, **more):
    return simulate(
        object,
        probe,
        raster(side, step=step, jitter=jitter, seed=7),
        noise="poisson",
        mean_counts=counts,
        seed=seed,
        pixel_size=1e-9,
        wavelength=1e-11,
        **more,
    )


PHASE, SMOOTH = np.exp(0.5j * field(0.09)), np.exp(0.5j * field(0.04))
ABSORBING = (0.6 + 0.2 * np.tanh(field(0.08))) * PHASE


def aligned(result, made, region=INNER, **how):
    """Error of the object, percent, wherever it lies."""
    found = align(result.object, made.object, region=region, subpixel=True, **how)
    return 100 * 10 ** (-found.error_db / 20)


def of_all(result, made):
    """With the rim, where there is little light."""
    return aligned(result, made, (slice(6, 58), slice(6, 58)))


def as_it_stands(result, made):
    """With its scale."""
    return aligned(result, made, scale=False)


def untilted(result, made):
    """With its linear phase."""
    return aligned(result, made, ramp=False)


def of_probe(result, made):
    found = align(result.probe[0], made.probe[0], subpixel=True)
    return 100 * 10 ** (-found.error_db / 20)


def of_slices(result, made):
    """Of the phases of slices, each without its constant and plane; mean over them."""
    lit = result.illuminated
    errors = []
    for one, truth in zip(result.object, made.object, strict=True):
        a, b = (np.angle(levelled(layer, lit))[lit] for layer in (one, truth))
        errors.append(np.linalg.norm(a - b) / np.linalg.norm(b))
    return 100 * float(np.mean(errors))


def chirped(made, curvature=0.003):
    """The true probe with a wrong curvature."""
    y, x = np.indices((WINDOW, WINDOW)) - WINDOW // 2
    return made.probe * np.exp(1j * curvature * (y**2 + x**2))


def far_out(made):
    return np.roll(chirped(made), (8, -8), (-2, -1))


def tilted(made):
    return chirped(made) * np.exp(0.2j * np.arange(WINDOW))


def too_fine(made):
    """That of an aperture twice as large."""
    return aperture(0.3, 25)


def power(made):
    """Counts of a frame without object."""
    return f"power:{float((np.abs(made.probe) ** 2).sum()):.9g}"


GAUSS = beam(3.0, 0.03, waves=0)
COLUMNS = np.stack([np.exp(0.25j * field(0.09))] * 3)
#: Constraints; object, probe, counts, more of the scan; first probe, measure; and the largest ratio
#: of the error with them to that without them.
HELP = {
    "amplitude:lo=0.98,hi=1.02": (PHASE, beam(), 1000, {}, chirped, aligned, 0.85),
    "transmission:high=1": (disc(0.7), beam(), 300, {}, chirped, of_all, 0.92),
    "phase:lo=0,hi=1.05,zero=0.4": (disc(np.exp(1j)), beam(), 1000, {}, chirped, aligned, 0.96),
    "tv:weight=1e-2": (blocks(), beam(), 300, {}, chirped, aligned, 0.9),
    "smooth:sigma=0.4": (SMOOTH, beam(), 300, {}, chirped, aligned, 0.92),
    "grid_notch:every=5": (
        PHASE,
        GAUSS,
        1e5,
        {"step": 6, "side": 7, "jitter": 0},
        lambda made: chirped(made, 0.03),
        aligned,
        0.75,
    ),
    "support:radius=7": (PHASE, beam(2.0), 300, {}, chirped, of_probe, 0.9),
    "aperture:fraction=0.32": (PHASE, aperture(0.15, 40), 1e5, {}, too_fine, aligned, 0.5),
    "centre": (PHASE, beam(), 1e4, {}, far_out, aligned, 0.8),
    "power": (ABSORBING, beam(), 1e4, {}, chirped, as_it_stands, 0.4),
    "ramp": (PHASE, beam(), 1e4, {}, tilted, untilted, 0.6),
    "depth:1": (COLUMNS, beam(), 1e4, {"spacing": 15e-7, "side": 6}, chirped, of_slices, 0.8),
}
#: `depth_centre` has a file of its own; `orthogonal_modes` changes how a probe is written.
ELSEWHERE = {"depth_centre", "orthogonal_modes"}


def test_each_constraint_has_a_case():
    assert {text.partition(":")[0] for text in HELP} | ELSEWHERE == set(CONSTRAINTS)


@pytest.mark.parametrize("text", HELP)
def test_it_helps(text):
    object, probe, counts, more, start, measure, ratio = HELP[text]
    made = scan(object, probe, counts, 21, **more)
    thick = {"slices": len(object), "spacing": more["spacing"]} if object.ndim == 3 else {}
    how = {"passes": 30, "probe": start(made), **thick, **QUIET}
    # with a transmission the scale must be that of the light without object
    beside = [power(made)] if text.startswith("transmission") else []
    asked = [power(made)] if text == "power" else [text]
    alone, held = (
        measure(reconstruct(made.dataset, "rpie", constraints=[*beside, *more], **how), made)
        for more in ((), asked)
    )
    assert held < ratio * alone


def test_orthogonal_modes_change_nothing_but_the_modes():
    """Engines of the PIE family do to a mixture of modes what they do to the modes."""
    y, x = np.indices((WINDOW, WINDOW)) - WINDOW // 2
    modes = np.stack([beam(), 0.5 * beam() * x / 4, 0.3 * beam() * y / 4])
    made = scan(PHASE, modes, 1e4, 21)
    start = made.probe.copy()
    start[1] += 0.5 * start[0]
    overlaps = []

    def seen(progress):
        one, two = progress.state.probe[:2]
        overlaps.append(abs(np.vdot(one, two)) / np.linalg.norm(one) / np.linalg.norm(two))

    free, held = (
        reconstruct(
            made.dataset, passes=6, probe=start, constraints=given, callbacks=[seen], **QUIET
        )
        for given in ((), ("orthogonal_modes",))
    )
    assert min(overlaps[:6]) > 0.05
    assert max(overlaps[6:]) < 1e-4
    assert np.linalg.norm(free.object - held.object) < 1e-3 * np.linalg.norm(free.object)
