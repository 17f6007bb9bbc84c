"""A scan that never happened: object, probe and positions to a `Dataset`, with the truth kept
beside it.

    I_j = sum_k | D[ S_j P_k . O_j ] |^2

O_j is the window of position j, S_j the shift of the probe by the fraction of a pixel, D the
propagator (far or near field), k the mutually incoherent modes of the probe (Thibault & Menzel,
Nature 494, 68, 2013). Of an object of several slices, the product is the walk through them
(`ptychon.model.specimen`). Windows, fractions and propagator are those `Problem.from_dataset` makes
of the same data, so without noise the truth fits to rounding.

Noise
    none      patterns = I
    gaussian  patterns = max(0, sqrt(I) + w)^2,  w ~ N(0, variance); Gaussian on the *amplitude*.
    Given an SNR,
              variance = sum I / (number of pixels * 10^(SNR/10)) over valid pixels, before
              clipping.
    poisson   patterns ~ Poisson(I + b) + N(0, r^2), b counts of background and r of read noise;
              integers where r = 0
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..data.dataset import Dataset, Geometry
from ..data.slices import Slices
from ..kernels import reference
from ..model.batch import Batch, shifted_probes
from ..model.grid import pair
from ..model.problem import Problem
from ..model.spread import blur as model_blur
from ..types import COMPLEX, REAL, BoolArray, ComplexArray, FloatArray, PtychonError
from .noise import BLOCK_BYTES, Noise, add_noise, blocks, check_noise
from .scan import from_table, inside

#: What a batch needs of a backend. Double precision: the truth should not carry the rounding
#: of an engine.
_DOUBLE = SimpleNamespace(
    asarray=np.asarray,
    fft2=lambda a: np.fft.fft2(a, norm="ortho"),
    ifft2=lambda a: np.fft.ifft2(a, norm="ortho"),
    kernels=reference,
)


@dataclass(frozen=True)
class Simulation:
    """A data set and what it was made of.

    Attributes
    ----------
    dataset : Dataset
    object : (H, W) or (S, H, W) complex64
    probe : (K, P, Q) complex64
        Scaled so that it explains the patterns of `dataset` as they are.
    slices : Slices or None
        Where the slices of the object lie.
    """

    dataset: Dataset
    object: ComplexArray
    probe: ComplexArray
    slices: Slices | None = None


def simulate(
    object: ComplexArray,
    probe: ComplexArray,
    positions: FloatArray,
    *,
    geometry: Geometry = "far",
    noise: Noise = "none",
    variance: float | None = None,
    snr_db: float | None = None,
    mean_counts: float | None = None,
    background: FloatArray | float | None = None,
    read_noise: float | None = None,
    blur: float | None = None,
    mask: BoolArray | None = None,
    pixel_size: float | tuple[float, float] | None = None,
    detector_pixel_size: float | tuple[float, float] | None = None,
    wavelength: float | None = None,
    distance: float | None = None,
    focus_distance: float | None = None,
    spacing: Any = None,
    tilt: Any = None,
    subpixel: bool = True,
    seed: int = 0,
    name: str = "",
) -> Simulation:
    """Simulate a ptychographic scan.

    Parameters
    ----------
    object : (H, W) or (S, H, W) complex
        Thin, or slices in the order in which the light meets them; these need `spacing`, a
        wavelength and a pixel size.
    probe : (P, Q) or (K, P, Q) complex
        Modes in the object plane, centred at [P//2, Q//2]. Arrays of the caller are never changed.
    positions : (N, 2) float
        Probe centres (y, x) in object pixels relative to the object's centre pixel [H//2, W//2].
        `Dataset.positions` holds the same in metres if a pixel size is given or follows from the
        geometry.
    geometry : {"far", "near"}
        The near field needs `wavelength`, `distance` and a pixel size.
    noise : {"none", "gaussian", "poisson"}
    variance, snr_db : float, optional
        Gaussian noise only, exactly one of them: variance of the amplitude noise, or the
        signal-to-noise ratio in dB.
    mean_counts : float, optional
        The probe is scaled so that the mean over frames of all intensity that reaches the detector,
        masked pixels included, is this number. Without it the probe is taken as it is, sum |P|^2
        being the counts behind a transparent object.
    background : float or (P, Q) array, optional
        Poisson noise only: mean counts a pixel besides the wave's, ordered as the patterns are; not
        part of `mean_counts`.
    read_noise : float, optional
        Poisson noise only: standard deviation (counts) of Gaussian noise added after counting;
        patterns are then float32.
    blur : float, optional
        Standard deviation of the detector's point spread, pixels.
    mask : (P, Q) or (N, P, Q) bool, optional
        True where a pixel is valid, ordered as the patterns are (zero frequency at [P//2, Q//2] in
        the far field). Patterns are 0 elsewhere.
    pixel_size, detector_pixel_size, wavelength, distance, focus_distance
        As in `Dataset`, m.
    spacing : float or (S-1,) floats, optional
        Distance between slices, m.
    tilt : float or (y, x), optional
        Angle of the beam against what stands straight in a specimen of several slices, rad.
    subpixel : bool
        Honour fractions of a pixel (to 1/16 px); False rounds the positions, and the data set
        states them rounded.
    seed : int
    name : str

    Returns
    -------
    Simulation
        Patterns are float32 with `Dataset.counting` False, or for Poisson noise uint16 (uint32
        where needed) with `counting` True. `Dataset.noise_variance` states Gaussian noise that was
        added, `background` and `read_noise` these two.

    Raises
    ------
    PtychonError
        Shapes that disagree, windows outside the object, options that do not belong to the noise,
        impossible numbers.
    """
    truth, modes = _checked_arrays(object, probe)
    check_noise(noise, variance, snr_db, mean_counts)
    if noise != "poisson" and (background is not None or read_noise is not None):
        raise PtychonError(f"background and read noise belong to Poisson noise; noise is {noise!r}")
    positions = from_table(positions)
    # patterns that take no memory: Dataset checks the rest and derives the pixel size
    data = Dataset(
        patterns=np.broadcast_to(REAL.type(1), (len(positions), *modes.shape[1:])),
        positions=positions if subpixel else np.rint(positions),
        pixel_size=pixel_size,
        detector_pixel_size=detector_pixel_size,
        wavelength=wavelength,
        distance=distance,
        focus_distance=focus_distance,
        geometry=geometry,
        mask=mask,
        counting=noise == "poisson",
        background=background,
        read_noise=read_noise,
        blur=blur,
        object_shape=(truth.shape[-2], truth.shape[-1]),
        name=name,
    )
    _check_windows(data)
    slices = Slices.of(
        len(truth) if truth.ndim == 3 else 1,
        spacing,
        wavelength=data.wavelength,
        pixel_size=None if data.pixel_size is None else pair(data.pixel_size),
        tilt=tilt,
    )
    truth = truth if slices is not None or truth.ndim == 2 else truth[0]
    if data.pixel_size is not None:
        data = replace(data, positions=data.positions * np.asarray(data.pixel_size))
    patterns, total = _intensities(truth, modes, data, slices)
    if blur is not None:
        patterns = model_blur(data.frame_shape, blur).forward(patterns)
    if mean_counts is not None:
        if not total > 0:
            raise PtychonError(
                "no light reaches the detector (object or probe is zero), so it cannot be scaled"
            )
        scale = mean_counts * len(data) / total
        modes = np.asarray(modes * np.sqrt(scale), COMPLEX)
        patterns *= REAL.type(scale)
    if snr_db is not None:
        valid = np.broadcast_to(True if data.mask is None else data.mask, patterns.shape)
        power = patterns.mean(dtype=np.float64, where=valid)
        variance = float(power / 10 ** (snr_db / 10))
    options = {"seed": seed, "variance": variance, "snr_db": snr_db, "mean_counts": mean_counts}
    notes: dict[str, Any] = {"simulated": True, "noise": noise} | {
        k: v for k, v in options.items() if v is not None
    }
    if slices is not None:
        notes |= {"slices": len(slices), "gaps": list(slices.gaps), "tilt": list(slices.tilt)}
    if background is not None and data.background is not None:
        patterns += np.asarray(data.background, REAL)
        notes["background"] = float(np.mean(data.background))
    if read_noise:
        notes["read_noise"] = float(read_noise)
    noisy = add_noise(
        patterns, data.mask, noise, variance, np.random.default_rng(seed), data.read_noise or 0.0
    )
    return Simulation(
        replace(data, patterns=noisy, noise_variance=variance, notes=notes), truth, modes, slices
    )


def _checked_arrays(object: Any, probe: Any) -> tuple[ComplexArray, ComplexArray]:
    """Copies: object (H, W) or (S, H, W) and probe (K, P, Q), complex64."""
    truth, modes = np.array(object, COMPLEX), np.array(probe, COMPLEX)
    modes = modes[None] if modes.ndim == 2 else modes
    if truth.ndim not in (2, 3) or not len(truth):
        raise PtychonError(
            f"the object has shape {truth.shape}; it must be (rows, columns), or (slices, ...)"
        )
    if modes.ndim != 3 or not len(modes):
        raise PtychonError(
            f"the probe has shape {np.shape(probe)}; it must be (rows, columns), or (modes, ...)"
        )
    (p, q), (h, w) = modes.shape[1:], truth.shape[-2:]
    if p > h or q > w:
        raise PtychonError(f"the probe is {p}x{q} px, larger than the object of {h}x{w}")
    for what, array in (("object", truth), ("probe", modes)):
        if not np.isfinite(array).all():
            raise PtychonError(
                f"the {what} has {int((~np.isfinite(array)).sum())} values that are not finite"
            )
    return truth, modes


def _check_windows(data: Dataset) -> None:
    shape = data.object_shape
    assert shape is not None
    outside = ~inside(data.positions, shape, data.frame_shape)
    if outside.any():
        j = int(np.flatnonzero(outside)[0])
        y, x = data.positions[j]
        raise PtychonError(
            f"{int(outside.sum())} of {len(data)} positions put the "
            f"{data.frame_shape[0]}x{data.frame_shape[1]} window "
            f"outside the object of {shape[0]}x{shape[1]} px (first: position {j} at ({y:g}, "
            f"{x:g})); "
            f"drop them with scan.fit or enlarge the object"
        )


def _intensities(
    truth: ComplexArray, modes: ComplexArray, data: Dataset, slices: Slices | None
) -> tuple[FloatArray, float]:
    """Patterns without noise, (N, P, Q) float32, zero frequency in the middle in the far field; and
    their sum.
    """
    patterns = np.empty(data.patterns.shape, REAL)
    wide, total = modes.astype(np.complex128), 0.0
    count = 1 if slices is None else len(slices)
    for part in blocks(len(data), BLOCK_BYTES // (64 * count * modes.size)):
        block = replace(
            data,
            patterns=data.patterns[part],
            positions=data.positions[part],
            mask=None,
            background=None,
        )
        # Problem does the placing, so that its windows and fractions are these and not merely like
        # them
        problem = replace(Problem.from_dataset(block), slices=slices)
        frames = Batch.of(problem, _DOUBLE, slice(None))
        probes = shifted_probes(wide, problem, reference)[frames.index]
        waves = frames.onward(frames.exits(truth, probes))
        intensity = reference.abs2(waves).sum(axis=1)
        total += float(intensity.sum())
        patterns[part] = (
            np.fft.fftshift(intensity, axes=(1, 2)) if data.geometry == "far" else intensity
        )
    return patterns, total


def beam_stop(shape: tuple[int, int], radius: float, arm_width: float = 0.0) -> BoolArray:
    """Mask of a beam stop: False in a disc about [P//2, Q//2] and in an arm from there to the last
    row.

    Parameters
    ----------
    shape : (P, Q)
    radius : float
        px; pixels with sqrt(y^2 + x^2) <= radius are covered.
    arm_width : float
        px; columns with |x| < arm_width/2 are covered below the centre. 0 is no arm.

    Returns
    -------
    (P, Q) bool, True where a pixel is valid

    Raises
    ------
    PtychonError
        Negative lengths, or nothing left.
    """
    if not (radius >= 0 and arm_width >= 0):
        raise PtychonError(
            f"the beam stop has radius {radius} and arm width {arm_width} px; they must not be "
            "negative"
        )
    y, x = (np.arange(n) - n // 2 for n in shape)
    covered = np.hypot(y[:, None], x[None, :]) <= radius
    covered |= (y[:, None] >= 0) & (np.abs(x)[None, :] < arm_width / 2)
    if covered.all():
        raise PtychonError(
            f"a beam stop of radius {radius} px covers the whole frame of {shape[0]}x{shape[1]} px"
        )
    return np.asarray(~covered)


def bad_pixels(shape: tuple[int, int], fraction: float, seed: int = 0) -> BoolArray:
    """Mask of dead pixels at random places: round(fraction * P * Q) are False.

    Parameters
    ----------
    shape : (P, Q)
    fraction : float
        In [0, 1).
    seed : int

    Returns
    -------
    (P, Q) bool, True where a pixel is valid

    Raises
    ------
    PtychonError
        A fraction outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise PtychonError(
            f"the fraction of bad pixels is {fraction}; it must be at least 0 and below 1"
        )
    valid = np.ones(shape, bool)
    dead = np.random.default_rng(seed).choice(
        valid.size, round(fraction * valid.size), replace=False
    )
    valid.flat[dead] = False
    return valid
