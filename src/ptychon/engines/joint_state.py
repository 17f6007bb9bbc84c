"""State of the joint posterior (see `joint_posterior`), and its spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends import Backend
from ..types import Array
from . import spectral_prior as stationary
from .base import State


@dataclass(slots=True)
class PosteriorState(State):
    """State of the joint posterior.

    Attributes
    ----------
    natural : (N, K, P, Q) complex64
        h, the messages as precision times mean.
    waves : (N, K, P, Q) complex64
        z, the detector waves of the mean.
    classes : (N, P, Q) uint8, or uint16 where frames differ in noise
    sites : (3, C) float32
        Per class the message's precision g, and the precisions along and across the wave.
    spectrum : (R,) float32
        S_k by rings of spatial frequency.
    rings, ring_size : (H, W) int32 and (R,) float32
        Ring of each spatial frequency, and how many each has.
    light, taper : (H, W) float32
        Sum over frames of |P|^2, and a window that is 1 where it is full.
    draw, draw_probe : (H, W) and (K, P, Q) complex64
        The last draw.
    draws : (S, H, W) complex64
        Those that are kept.
    noise_variance : 0-d or (N,) float32
        v, of all frames or of each.
    level, damping, change : 0-d float32
        The first mean of v, the damping d in force, and the last relative change of the object.
    near_field : bool, on the host
        Whether the data tell where object and probe are.
    """

    natural: Array = None
    waves: Array = None
    classes: Array = None
    sites: Array = None
    spectrum: Array = None
    rings: Array = None
    ring_size: Array = None
    light: Array = None
    taper: Array = None
    draw: Array = None
    draw_probe: Array = None
    draws: Array = None
    noise_variance: Array = None
    level: Array = None
    damping: Array = None
    change: Array = None
    near_field: bool = False


def by_rings(state: PosteriorState, field: Array, backend: Backend) -> Array:
    """Power of a field (H, W) by rings of spatial frequency, (R,)."""
    return stationary.by_rings(field, state.taper, state.rings, state.ring_size, backend)


def learn_spectrum(state: PosteriorState, draw: Array, backend: Backend) -> None:
    """S of the mean, and of a draw of its error without what no measurement can know."""
    mean, variance = (by_rings(state, field, backend) for field in (state.object, draw))
    state.spectrum = stationary.learned(state.spectrum, mean, variance, state.ring_size, backend.xp)


def white_variance(state: PosteriorState, xp: Any) -> Array:
    """Variance that data of the dose at each pixel, white over spatial frequencies, leave."""
    total = xp.bincount(state.classes.reshape(-1), minlength=state.sites.shape[1])
    dose = (total * state.sites[0]).sum() / total.sum() * state.light
    return stationary.variance_left(dose, state.spectrum, state.ring_size, xp)
