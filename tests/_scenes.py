"""Simulated scans that several files of tests share."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.scan import raster
from ptychon.simulation.simulate import simulate


def textured(side, places, beam, *, room, texture, counts, seed, light=None):
    """Frames of side x side, Poisson counts, of a phase object with a texture.

    Parameters
    ----------
    side : int
    places : (N, 2) float
        Positions, px.
    beam : (radius, defocus)
        Of the aperture that makes the probe.
    room : int
        Of the object beyond the windows, px.
    texture, seed : int
        Seeds of the object and of the noise.
    counts : float
        Of a frame.
    light : (K, side, side) complex, optional
        Another probe.
    """
    size = int(np.ptp(places, axis=0).max()) + side + room
    truth = phantoms.complex_object(
        np.zeros((size, size)), phantoms.texture((size, size), texture), amplitude_range=(1, 1)
    )
    if light is None:
        light = probes.defocused_aperture((side, side), radius=beam[0], defocus=beam[1])
    return simulate(truth, light, places, noise="poisson", mean_counts=counts, seed=seed)


def close_frames(side, beam, counts):
    """36 frames in steps of 3 px, between pixels."""
    places = scan.raster(6, step=3, jitter=0.8, whole=False, seed=4)
    return textured(side, places, beam, room=12, texture=7, counts=counts, seed=3)


def small_texture():
    """25 frames of 24 x 24 at 4e4 counts, of an object of 44 x 44 with textures in both parts."""
    truth = phantoms.complex_object(
        phantoms.make("texture", (44, 44), 1), phantoms.make("texture", (44, 44), 2)
    )
    beam = probes.defocused_aperture((24, 24), radius=8, defocus=8)
    places = raster((5, 5), 4.0, jitter=1.0, seed=3)
    return simulate(truth, beam, places, mean_counts=4e4, noise="poisson", seed=4)


@lru_cache
def two_probes(side, window, width, frames):
    """A smooth object with a texture, side x side, a defocused probe with waves in it, a plain
    one, and frames x frames positions.
    """
    rng = np.random.default_rng(1)
    f2 = np.add.outer(np.fft.fftfreq(side) ** 2, np.fft.fftfreq(side) ** 2)
    rough = rng.normal(size=(side, side)) + 1j * rng.normal(size=(side, side))
    s = np.fft.ifft2(np.fft.fft2(rough) * np.exp(-f2 / (2 * 0.1**2)))
    s /= np.abs(s).std()
    object = (1 - 0.1 * np.abs(s.real).clip(0, 2)) * np.exp(0.5j * s.imag)
    y, x = np.indices((window, window)) - window // 2
    waves = 0.5 * np.sin(0.7 * x + 1) + 0.4 * np.cos(0.6 * y + 0.2 * x)
    one = np.exp(-(y**2 + x**2) / (2 * width**2) + 0.06j * (y**2 + x**2) + 1j * waves)
    other = np.exp(-(y**2 + x**2) / (2 * 3.0**2) - 0.04j * (y**2 + x**2))
    return object, one, other, raster(frames, step=5.0, jitter=1.0, seed=2)


def of_world(world, frames, counts, seed, probe, **how):
    """Some frames of `two_probes`, on the smallest object; probe is an array or its number."""
    light = world[probe] if isinstance(probe, int) else probe
    made = simulate(
        world[0], light, world[3][frames], noise="poisson", mean_counts=counts, seed=seed, **how
    )
    return replace(made.dataset, object_shape=None)
