"""Illuminations, each (P, Q) complex64, centred at [P//2, Q//2] and scaled to max |P| = 1.

Coordinates r are whole pixels from the centre pixel, -n/2 .. n/2-1 for even n; frequencies f are in
cycles per object pixel, 0.5 being Nyquist. Object pixels are taken to be square except in
`electron`.

Defocus    P = F^-1[ exp(-i pi D f^2) F P0 ],  D = wavelength * distance / pixel^2 (square pixels).
           D > 0 is the wave a distance *behind* the plane of P0 (the sample stands downstream of
           the focus). A ray of frequency f moves by D f pixels, so |D| <= n keeps everything inside
           the window; the Fresnel number of an aperture of radius a is a^2 / D. (Goodman,
           Introduction to Fourier Optics, chapter 4.)
Electrons  P = F^-1[ A(k) exp(-i chi(k)) ],  alpha = wavelength |k|,
           chi = (2 pi / wavelength) ( C1 alpha^2/2 + A1 alpha^2/2 cos 2(phi - phi_A) + B2 alpha^3/3
           cos(phi - phi_B)
                                       + C3 alpha^4/4 )
           in the notation of Krivanek, Dellby & Lupini (Ultramicroscopy 78, 1, 1999; Kirkland,
           Advanced Computing in Electron Microscopy, chapter 3). With the forward transform exp(-2
           pi i) of this package the far field of the probe is A exp(-i chi) itself, and C1 > 0
           (overfocus) is again the wave a distance C1 behind the focus.
"""

from __future__ import annotations

import numpy as np
import scipy

from ..types import COMPLEX, Array, ComplexArray, FloatArray, PtychonError

Shape = tuple[int, int]


def circular_aperture(shape: Shape, radius: float) -> ComplexArray:
    """Hard disc: 1 where sqrt(y^2 + x^2) <= radius, else 0.

    Parameters
    ----------
    shape : (P, Q)
    radius : float
        px. Published experiments give it as a fraction r of the window's n pixels: radius = r * n.

    Raises
    ------
    PtychonError
        Negative radius.
    """
    if not radius >= 0:
        raise PtychonError(f"the aperture radius is {radius} px; it must not be negative")
    return (_radius(shape) <= radius).astype(COMPLEX)


def defocused_aperture(
    shape: Shape, radius: float, defocus: float, *, edge: float = 2.0
) -> ComplexArray:
    """Disc seen a distance behind it: near-field fringes and a curved wavefront.

    Parameters
    ----------
    shape : (P, Q)
    radius : float
        px.
    defocus : float
        D = wavelength * distance / pixel^2, square pixels; the sign is explained above.
    edge : float
        Width of the edge of the disc before propagation, px; 0 is hard.

    Raises
    ------
    PtychonError
        A radius that is not positive, a negative edge.
    """
    _positive("aperture radius", radius)
    if not edge >= 0:
        raise PtychonError(f"the edge of the aperture is {edge} px wide; it must not be negative")
    return _unit(_defocus(_disc(_radius(shape), radius, edge), defocus))


def gaussian(shape: Shape, fwhm: float, curvature: float = 0.0) -> ComplexArray:
    """Gaussian beam, free of zeros and therefore of vortices: exp(-2 ln 2 r^2 / fwhm^2 + i pi
    curvature r^2).

    Parameters
    ----------
    shape : (P, Q)
    fwhm : float
        Full width at half maximum of the *intensity*, px.
    curvature : float
        1/px^2; pixel^2 / (wavelength * R) for a wavefront of radius R, positive for a diverging
        beam. Below 1/(2 n) in magnitude the phase is sampled well everywhere.

    Raises
    ------
    PtychonError
        A width that is not positive.
    """
    _positive("width of the Gaussian", fwhm)
    r2 = _radius(shape) ** 2
    return _unit(np.exp((-2 * np.log(2) / fwhm**2 + 1j * np.pi * curvature) * r2))


def structured(
    shape: Shape,
    diameter: float,
    feature: float,
    strength: float = 1.0,
    seed: int = 0,
    *,
    contrast: float = 0.2,
) -> ComplexArray:
    """Disc behind a diffuser: soft disc * exp(contrast h + i strength g), with g and h smooth
    random fields.

    The exponential has no zeros, so whatever the strength the probe has no vortices inside the
    disc.

    Parameters
    ----------
    shape : (P, Q)
    diameter : float
        Of the disc, px; its edge is as soft as the features.
    feature : float
        Correlation length of the diffuser, px (1/e of the correlation of g).
    strength : float
        Standard deviation of the phase, rad.
    seed : int
    contrast : float
        Standard deviation of the logarithm of the amplitude.

    Raises
    ------
    PtychonError
        Lengths that are not positive.
    """
    _positive("probe diameter", diameter)
    _positive("feature size", feature)
    rng = np.random.default_rng(seed)
    g, h = (_smooth_noise(rng, shape, feature) for _ in range(2))
    disc = _disc(_radius(shape), diameter / 2, min(feature, diameter / 2))
    return _unit(disc * np.exp(contrast * h + 1j * strength * g))


def zone_plate(shape: Shape, outer: float, stop: float, defocus: float) -> ComplexArray:
    """Focus of a zone plate with a central stop, seen out of focus: a ring-shaped pupil transformed
    to the sample.

    Parameters
    ----------
    shape : (P, Q)
    outer : float
        Radius of the pupil, cycles per object pixel (pixel * numerical aperture / wavelength), at
        most 0.5.
    stop : float
        Radius of the central stop, cycles per object pixel, below `outer`.
    defocus : float
        D = wavelength * distance / pixel^2; geometrically the ring on the sample reaches from |D|
        stop to |D| outer px.

    Raises
    ------
    PtychonError
        Radii out of order or beyond Nyquist.
    """
    if not 0 <= stop < outer <= 0.5:
        raise PtychonError(
            f"the pupil reaches from {stop} to {outer} cycles/px; 0 <= stop < outer <= 0.5 is "
            "needed"
        )
    f, sample = _frequency(shape), 1 / min(shape)
    # edges one sample wide, so that small pupils do not depend on how the grid falls
    pupil = _disc(f, outer, sample) * (1 - _disc(f, stop, sample) if stop > 0 else 1)
    return _unit(_defocus(_to_sample(pupil), defocus))


def electron(
    shape: Shape,
    pixel_size: float | tuple[float, float],
    *,
    semi_angle: float,
    voltage: float | None = None,
    wavelength: float | None = None,
    defocus: float = 0.0,
    cs: float = 0.0,
    astigmatism: float = 0.0,
    astigmatism_angle: float = 0.0,
    coma: float = 0.0,
    coma_angle: float = 0.0,
) -> ComplexArray:
    """Focused electron probe with aberrations.

    Parameters
    ----------
    shape : (P, Q)
    pixel_size : float or (dy, dx)
        Object pixel, m.
    semi_angle : float
        Convergence semi-angle, rad.
    voltage : float, optional
        Accelerating voltage, V; give this or `wavelength`.
    wavelength : float, optional
        m.
    defocus : float
        C1 = C10, m; > 0 is overfocus, the sample downstream of the focus. Textbooks that write chi
        with -Delta f mean C1 = -Delta f.
    cs : float
        Spherical aberration C3 = C30, m.
    astigmatism, astigmatism_angle : float
        Two-fold, A1 = C12, m, and its azimuth phi_A from +x towards +y (down the rows), rad.
    coma, coma_angle : float
        B2 = C21, m, and its azimuth phi_B, rad.

    Raises
    ------
    PtychonError
        Neither or both of voltage and wavelength, or an aperture beyond Nyquist.
    """
    if (voltage is None) == (wavelength is None):
        raise PtychonError(
            "an electron probe needs either voltage or wavelength, not both and not neither"
        )
    lam = electron_wavelength(voltage) if voltage is not None else float(wavelength or 0)
    dy, dx = (float(v) for v in np.broadcast_to(np.asarray(pixel_size, float), (2,)))
    for name, value in (
        ("wavelength", lam),
        ("pixel size", min(dy, dx)),
        ("semi-angle", semi_angle),
    ):
        _positive(name, value)
    if semi_angle / lam > 0.5 / max(dy, dx):
        raise PtychonError(
            f"a semi-angle of {semi_angle:g} rad needs pixels of at most "
            f"{lam / (2 * semi_angle):.3g} m, not "
            f"{max(dy, dx):.3g} m; take smaller pixels or a smaller angle"
        )
    y, x = _axes(shape)
    ay, ax = lam * y / (shape[0] * dy), lam * x / (shape[1] * dx)
    alpha, phi = np.hypot(ay, ax), np.arctan2(ay, ax)
    chi = alpha**2 / 2 * (defocus + astigmatism * np.cos(2 * (phi - astigmatism_angle)))
    chi += coma * alpha**3 / 3 * np.cos(phi - coma_angle) + cs * alpha**4 / 4
    edge = lam / min(shape[0] * dy, shape[1] * dx)
    return _unit(_to_sample(_disc(alpha, semi_angle, edge) * np.exp(-2j * np.pi / lam * chi)))


def electron_wavelength(voltage: float) -> float:
    """Relativistic de Broglie wavelength h / sqrt(2 m e V (1 + e V / (2 m c^2))), in m.

    Parameters
    ----------
    voltage : float
        V; 300 kV gives 1.96875 pm.

    Raises
    ------
    PtychonError
        A voltage that is not positive.
    """
    _positive("voltage", voltage)
    constants = scipy.constants
    energy, mass = constants.e * voltage, constants.m_e
    momentum = np.sqrt(2 * mass * energy * (1 + energy / (2 * mass * constants.c**2)))
    return float(constants.h / momentum)


def normalise(probe: ComplexArray, mean_counts: float) -> ComplexArray:
    """The probe scaled so that sum |P|^2 over pixels and modes is `mean_counts`; a new complex64
    array.

    With orthonormal transforms that is the number of counts in a frame behind a transparent object.

    Parameters
    ----------
    probe : (P, Q) or (K, P, Q) complex
    mean_counts : float

    Raises
    ------
    PtychonError
        A count that is not positive, a probe that is zero.
    """
    _positive("mean count", mean_counts)
    probe = np.asarray(probe)
    power = float((np.abs(probe).astype(np.float64) ** 2).sum())
    if not (np.isfinite(power) and power > 0):
        raise PtychonError(
            f"the probe has sum |P|^2 = {power}; it must be finite and not zero everywhere"
        )
    return np.asarray(probe * np.sqrt(mean_counts / power), COMPLEX)


def _positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise PtychonError(f"the {name} is {value}; it must be a positive number")


def _axes(shape: Shape) -> tuple[FloatArray, FloatArray]:
    """Whole-pixel coordinates (P, 1) and (1, Q) from the centre pixel."""
    if len(shape) != 2 or min(shape) < 1:
        raise PtychonError(f"the probe shape is {tuple(shape)}; it must be (rows, columns)")
    y, x = (np.arange(n, dtype=np.float64) - n // 2 for n in shape)
    return y[:, None], x[None, :]


def _radius(shape: Shape) -> FloatArray:
    return np.hypot(*_axes(shape))


def _frequency(shape: Shape) -> FloatArray:
    """|f| in cycles per pixel, zero frequency at the centre pixel."""
    y, x = _axes(shape)
    return np.hypot(y / shape[0], x / shape[1])


def _disc(r: FloatArray, radius: float, edge: float) -> FloatArray:
    """1 inside, 0 outside, a raised cosine over `edge` between them; 1/2 at the radius."""
    if edge == 0:
        return (r <= radius).astype(np.float64)
    return np.asarray(0.5 - 0.5 * np.sin(np.pi * np.clip((r - radius) / edge, -0.5, 0.5)))


def _to_sample(pupil: Array) -> ComplexArray:
    """Inverse transform with both origins at the centre pixel."""
    return np.asarray(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(pupil), norm="ortho")))


def _defocus(wave: Array, defocus: float) -> ComplexArray:
    y, x = (np.fft.fftfreq(n) for n in wave.shape)
    chirp = np.exp(-1j * np.pi * defocus * (y[:, None] ** 2 + x[None, :] ** 2))
    return np.asarray(np.fft.ifft2(chirp * np.fft.fft2(wave)))


def _smooth_noise(rng: np.random.Generator, shape: Shape, length: float) -> FloatArray:
    """Gaussian random field, mean 0, standard deviation 1, correlation exp(-r^2 / length^2),
    periodic.
    """
    f = np.fft.ifftshift(_frequency(shape))
    spectrum = np.fft.fft2(rng.standard_normal(shape)) * np.exp(-((np.pi * length * f) ** 2) / 2)
    spectrum[0, 0] = 0
    field = np.fft.ifft2(spectrum).real
    # features wider than the window leave nothing but the mean
    return np.asarray(field / max(float(field.std()), np.finfo(float).tiny))


def _unit(probe: Array) -> ComplexArray:
    return np.asarray(probe / np.abs(probe).max(), COMPLEX)
