r"""Several probe modes: what they begin as, which basis they are stated in, and how much of the
light each holds.

Modes are mutually incoherent waves whose intensities add (Thibault & Menzel, Nature 494, 68
(2013)). Modes that begin alike move alike and never separate, so the weak ones begin as products of
the first with low powers of the coordinates,

    P_k = x^a y^b P_0,    (a, b) = (1, 0), (0, 1), (2, 0), (1, 1), (0, 2), ...

about its centre of mass, made orthogonal to the earlier ones: what a beam that trembles, a source
of finite size or a spread of energies adds first. Only P^H P is known from the data, so any unitary
mixture U of the modes is the same probe. Stated are the eigenvectors of the Gram matrix G_kl =
<P_k, P_l>: orthogonal, the strongest first, with all intensities as they were.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

import numpy as np

from ..engines import Engine, able, registry
from ..types import ComplexArray, FloatArray, PtychonError

#: Share of the power that each new mode begins with.
SHARE = 0.02
#: A product counts as new where this much of its norm is left beside the earlier modes.
LEFT = 1e-3
#: Highest power of the coordinates that is tried.
HIGHEST = 40


def for_engine(probe: ComplexArray, modes: int | None, engine: Engine) -> ComplexArray:
    """The first probe with as many modes as were asked for, if the engine can have them.

    Parameters
    ----------
    probe : (K, P, Q) complex array
    modes : int, optional
        Default K.
    engine : Engine

    Raises
    ------
    PtychonError
        If the engine takes one mode, or moves no probe and would leave new modes as they began;
        with the engines to choose.
    """
    if modes is not None and modes > len(probe) and not engine.moves_probe:
        free = ", ".join(
            name
            for name, kind in registry.items()
            if "probe" in kind.moves and "modes" in kind.copes
        )
        raise PtychonError(
            f"{modes} modes were asked for and the probe that is known has {len(probe)}; engine "
            f"{engine.name!r} does not move "
            f"it, so that new modes would stay as they began: choose {free}"
        )
    count = len(probe) if modes is None else modes
    if count > 1 and "modes" not in engine.copes:
        raise PtychonError(
            f"the probe has {count} modes and engine {engine.name!r} takes one; these take "
            f"several: {able('modes')}; error bars of their results are made by ptychon error_bars"
        )
    return probe if modes is None else started(probe, modes)


def started(probe: ComplexArray, modes: int) -> ComplexArray:
    """A probe with a given number of modes, of the same power.

    Parameters
    ----------
    probe : (K, P, Q) complex array
    modes : int
        If more than K, weak ones are added; if fewer, the strongest are kept.

    Returns
    -------
    (modes, P, Q) complex64 array

    Raises
    ------
    PtychonError
        If there are no modes, or more than the window holds beside each other.
    """
    if modes < 1:
        raise PtychonError(f"modes is {modes}; at least 1 is needed")
    power = float((np.abs(probe.astype(np.complex128)) ** 2).sum())
    if modes == len(probe):
        return np.asarray(probe, np.complex64)
    if modes < len(probe):
        kept = orthogonal(probe)[:modes].astype(np.complex128)
        return np.asarray(kept * np.sqrt(power / (np.abs(kept) ** 2).sum()), np.complex64)
    new = _products(probe.astype(np.complex128), modes - len(probe))
    share = min(SHARE, 0.5 / len(new))
    old = probe * np.sqrt(1 - share * len(new))
    return np.concatenate([old, new * np.sqrt(share * power)]).astype(np.complex64)


def _products(probe: ComplexArray, number: int) -> ComplexArray:
    """x^a y^b P_0 orthogonal to all modes and to each other, each of norm 1, (number, P, Q)
    complex128.
    """
    first = orthogonal(probe)[0].astype(np.complex128)
    light = np.abs(first) ** 2
    axes = []
    for axis, n in enumerate(light.shape):
        place = np.arange(n, dtype=float)
        weight = light.sum(axis=1 - axis) / light.sum()
        place -= (place * weight).sum()
        axes.append(place / max(np.sqrt((place**2 * weight).sum()), 1e-12))
    y, x = axes[0][:, None], axes[1][None, :]
    basis = [mode / norm for mode in probe if (norm := np.linalg.norm(mode)) > 0]
    basis = list(
        np.linalg.qr(np.stack([b.ravel() for b in basis], axis=1))[0].T.reshape(-1, *light.shape)
    )
    found: list[ComplexArray] = []
    for degree in count(1):
        if degree > HIGHEST:
            raise PtychonError(
                f"{number + len(probe)} modes are more than the first probe leaves room for; "
                "ask for fewer"
            )
        for b in range(degree + 1):
            wave = x ** (degree - b) * y**b * first
            whole = np.linalg.norm(wave)
            for _ in range(2):  # once more takes away what rounding left
                for other in basis:
                    wave = wave - np.vdot(other, wave) * other
            left = np.linalg.norm(wave)
            if left > LEFT * whole > 0:
                basis.append(wave / left)
                found.append(wave / left)
            if len(found) == number:
                return np.stack(found)
    raise AssertionError("unreachable")


def orthogonal(probe: ComplexArray) -> ComplexArray:
    """The same probe in modes that are orthogonal, the strongest first, (K, P, Q) complex64.

    A unitary mixture of the modes: every intensity is unchanged. Modes that are so already stay as
    they are.

    Parameters
    ----------
    probe : (K, P, Q) complex array
    """
    if len(probe) == 1:
        return np.asarray(probe, np.complex64)
    flat = probe.reshape(len(probe), -1).astype(np.complex128)
    # G_kl = <P_k, P_l>; row n of U^T are the weights of the modes in the new mode n
    _, vectors = np.linalg.eigh(flat.conj() @ flat.T)
    mixing = vectors[:, ::-1].T
    largest = np.take_along_axis(mixing, np.abs(mixing).argmax(axis=1)[:, None], axis=1)
    mixing = mixing * (largest.conj() / np.abs(largest))  # eigenvectors have no phase of their own
    turned: ComplexArray = (mixing @ flat).reshape(probe.shape).astype(np.complex64)
    return turned


def shares(probe: ComplexArray) -> FloatArray:
    """Share of the power in each mode, (K,) float64; they sum to 1."""
    power = (np.abs(probe.astype(np.complex128)) ** 2).sum(axis=(1, 2))
    found: FloatArray = power / max(float(power.sum()), 1e-300)
    return found


def described(powers: Iterable[float]) -> str:
    """Shares in words, such as "70.2, 19.6, 10.2 %"."""
    return ", ".join(f"{100 * share:.1f}" for share in powers) + " %"
