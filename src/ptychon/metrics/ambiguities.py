"""What the data cannot tell, as directions in which object and probe may move without any change of
the intensities.

With the probe known there is one, the global phase: dO = i O. With the probe free (Guizar-Sicairos
& Fienup, Opt. Express 16, 7264 (2008)):

    phase               dO = i O
    modes               dP_k = sum_l X_kl P_l       X anti-Hermitian: K^2 phases and mixings of K
                                                    modes
    scale               dO = O                      dP = -P
    ramps along y, x    dO = i r O                  dP = -i r P
    translations        dO = -grad O                dP = -grad P        (far field only)

Translations are exact for waves that vanish at the rim of their windows, the others always. In the
near field object and probe cannot be translated together: the images would move on the detector.
`unseen` is where this is decided for all.

Free positions s_j, doses a_j (amplitudes exp(a_j)) and weights c_jl of variations V_l of the probe
may move together, the first two whether the probe is known or free, in both fields:

    all positions       dO = -grad O,   ds_j = 1    (far field, probe free: also dP = grad P)
    all doses           dO = O,         da_j = -1
    a gradient of them  dO = r O,       dP = -u P,  da_j = -s_j    (probe free)
    all weights         dP_0 = V_l,     dc_jl = -1                 (probe free)
    mixing of the V     dV_l = V_m,     dc_jm = -c_jl              (variations free)

Free variations follow the first mode wherever it is multiplied or moved: by a phase, a scale, a
ramp, a translation. Held, they tell its factor and its place.

r being a place on the object, u one in the window of the probe, r = u + s_j.

An error e is stated after the best of these was taken off: e - G c with c least squares on the
region compared. That is to first order what `metrics.phase_align` does with a known probe and
`metrics.align` with an unknown one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..model.problem import Problem
from ..model.unknowns import Unknowns
from ..types import Array, BoolArray, ComplexArray, FloatArray
from .registration import translate

#: Half the distance (px) over which a translation is differentiated.
STEP = 0.25
PHASE, PROBE_PHASE, SCALE = "global phase", "phase of the probe", "scale"
RAMPS = "ramp along y", "ramp along x"
TRANSLATIONS = "translation along y", "translation along x"
POSITIONS, DOSES = ("all positions along y", "all positions along x"), "all doses"
DOSE_RAMPS = "gradient of doses along y", "gradient of doses along x"
MIXING, WEIGHTS = "mixing of the modes", "all weights of a variation"
VARYING = "mixing of the variations"
#: Those that make the object brighter or darker.
BRIGHTER = SCALE, DOSES, *DOSE_RAMPS


def unseen(
    near_field: bool,
    free_probe: bool,
    free_positions: bool = False,
    free_doses: bool = False,
    modes: int = 1,
    variations: int = 0,
    mixed: bool = False,
) -> tuple[str, ...]:
    """Names of the directions that the data of a scan do not tell; K^2 - 1 mixings of K modes, and
    as many weights as there are variations with free weights, M, with M^2 mixings of them where the
    variations are free (`mixed`).
    """
    own = (*(POSITIONS if free_positions else ()), *((DOSES,) if free_doses else ()))
    if not free_probe:
        return (PHASE, *own)
    own += (*(DOSE_RAMPS if free_doses else ()), *(WEIGHTS,) * variations)
    own += (VARYING,) * (variations**2 if mixed else 0)
    mixings = (MIXING,) * (modes**2 - 1)
    moves = () if near_field else TRANSLATIONS
    return (PHASE, PROBE_PHASE, *mixings, SCALE, *RAMPS, *moves, *own)


def mixings(modes: int) -> ComplexArray:
    """A basis of the anti-Hermitian X, (K^2, K, K) complex128, the first of them i."""
    found = [1j * np.eye(modes)]
    found += [1j * np.diag(np.eye(modes)[k]) for k in range(1, modes)]
    for k in range(modes):
        for l in range(k):
            pair = np.zeros((modes, modes), complex)
            pair[k, l], pair[l, k] = 1, -1
            found += [pair, 1j * abs(pair)]
    return np.array(found)


def free_shift(near_field: bool, free_probe: bool, most: int) -> int:
    """The `max_shift` with which `metrics.align` may lay one reconstruction on another: `most`
    pixels where the data do not tell translations, else 0, since a translation is then an error.
    """
    return most if TRANSLATIONS[0] in unseen(near_field, free_probe) else 0


@dataclass(frozen=True)
class Gauge:
    """Directions in which nothing can be told.

    Attributes
    ----------
    names : tuple of str
    object : (n, H, W) complex128
    probe : (n, K, P, Q) complex128, zeros where the probe is known
    exact : (n,) bool
        Whether the data are blind to it exactly.
    region : (H, W) bool
        Where an error is compared.
    variations : (n, M, P, Q) complex128 or None
        Where these are free.
    """

    names: tuple[str, ...]
    object: ComplexArray
    probe: ComplexArray
    exact: BoolArray
    region: BoolArray
    variations: ComplexArray | None = None

    def coefficients(self, error: ComplexArray) -> FloatArray:
        """c of the least-squares fit of G c to an error (H, W) on the region: (n,) float64."""
        inner: FloatArray = np.array(
            [_real(g[self.region], error[self.region]) for g in self.object]
        )
        return np.asarray(self._inverse @ inner)

    def remove(self, error: ComplexArray) -> tuple[ComplexArray, FloatArray]:
        """An error (H, W) without what could be aligned away, and the coefficients c."""
        c = self.coefficients(error)
        return np.asarray(error - np.tensordot(c, self.object, 1)), c

    def remove_from_probe(self, error: ComplexArray, c: FloatArray) -> ComplexArray:
        """An error (K, P, Q) of the probe without what belongs to the coefficients c of the object,
        and without what it may do by itself: its phase, and what positions or doses make up for.
        """
        return self._alone(error - np.tensordot(c, self.probe, 1), self.probe)

    def remove_from_variations(self, error: ComplexArray, c: FloatArray) -> ComplexArray:
        """The same of the error (M, P, Q) of free variations of the probe."""
        assert self.variations is not None
        return self._alone(error - np.tensordot(c, self.variations, 1), self.variations)

    def _alone(self, rest: ComplexArray, directions: ComplexArray) -> ComplexArray:
        """Without what may be done with the object where it is."""
        alone = {PROBE_PHASE, MIXING, WEIGHTS, VARYING}
        alone |= set(TRANSLATIONS) if POSITIONS[0] in self.names else set()
        alone |= {SCALE} if DOSES in self.names else set()
        pairs = zip(self.names, directions, strict=True)
        own = [g for name, g in pairs if name in alone and np.any(g)]
        if not own:
            return np.asarray(rest)
        matrix = np.array([[_real(a, b) for b in own] for a in own])
        found = np.linalg.pinv(matrix, rcond=1e-10) @ np.array([_real(g, rest) for g in own])
        return np.asarray(rest - np.tensordot(found, np.array(own), 1))

    @property
    def _inverse(self) -> FloatArray:
        inside = [g[self.region] for g in self.object]
        return np.asarray(
            np.linalg.pinv(np.array([[_real(a, b) for b in inside] for a in inside]), rcond=1e-10)
        )

    def brighter(self, positions: FloatArray) -> Unknowns:
        """The exact directions that make the object brighter or darker, along a first axis, with
        the doses (n, N) that make up for it, of frames centred at these object pixels (N, 2).
        """
        own = [i for i, sure in enumerate(self.exact) if sure and self.names[i] in BRIGHTER]
        shape = np.array(self.region.shape)
        one, along = np.ones(len(positions)), (positions - shape // 2).T / max(shape)
        doses = {SCALE: 0 * one, DOSES: -one} | dict(zip(DOSE_RAMPS, -along, strict=True))
        return Unknowns(
            object=self.object[own][:, None],
            probe=self.probe[own],
            variations=None if self.variations is None else self.variations[own],
            log_scale=np.array([doses[self.names[i]] for i in own]).reshape(len(own), len(one)),
        )

    def orthonormal(self, with_probe: bool) -> ComplexArray:
        """The exact directions as orthonormal rows of (Re, Im) vectors, (m, H W [+ K P Q [+ M P
        Q]]) complex128.
        """
        parts = [self.object]
        if with_probe:
            parts += [self.probe] if self.variations is None else [self.probe, self.variations]
        rows = [
            np.concatenate([part[i].ravel() for part in parts])
            for i, sure in enumerate(self.exact)
            if sure
        ]
        real = np.array([np.concatenate([r.real, r.imag]) for r in rows]).T
        # scale and doses move the object alike; what is said twice is held once
        norms = np.maximum(np.linalg.norm(real, axis=0), 1e-300)
        basis, sizes, _ = np.linalg.svd(real / norms, full_matrices=False)
        basis = basis[:, sizes > 1e-6 * sizes[0]]
        half = len(basis) // 2
        return np.asarray((basis[:half] + 1j * basis[half:]).T)


def gauge_of(
    problem: Problem,
    object: Any,
    probe: Any,
    free_probe: bool,
    region: BoolArray,
    touched: BoolArray,
    free_positions: bool = False,
    free_doses: bool = False,
    variations: Any = None,
    free_weights: bool = False,
    free_variations: bool = False,
) -> Gauge:
    """The directions at an object (H, W) and a probe (K, P, Q), inside the pixels `touched` by
    light (H, W). Of a probe that varies by known `variations` (M, P, Q) the first mode is told from
    the others, and its factor from theirs: what moves the probe is then not exact. Nor are mixings
    of the first mode with others where variations are free.
    """
    O = np.where(touched, object, 0).astype(np.complex128)
    P = np.asarray(probe, np.complex128)
    V = np.zeros((0, *P.shape[1:]), complex)
    if variations is not None:
        V = np.asarray(variations, np.complex128)
    M = len(V) if free_weights else 0
    names = unseen(
        *(problem.near_field, free_probe, free_positions, free_doses, len(P), M, free_variations)
    )
    still, none, same = 0 * O, 0 * P, 0 * V
    # the first mode has a phase and a factor of its own, its variations follow
    mixed = [
        (still, np.tensordot(X, P, 1), X[0, 0] * V, not (len(V) and X[0, 1:].any()))
        for X in mixings(len(P))
    ]
    found: dict[str, list[tuple[Any, Any, Any, bool]]] = {
        PHASE: [(1j * O, none, same, True)],
        PROBE_PHASE: mixed[:1],
        MIXING: mixed[1:],
        SCALE: [(O, -P, -V, True)],
        DOSES: [(O, none, same, True)],
        WEIGHTS: [(still, np.concatenate([v[None], none[1:]]), same, True) for v in V],
        VARYING: [(still, none, np.tensordot(Y, V, 1), True) for Y in _units(len(V))],
    }
    (yo, xo), (yp, xp) = (
        np.meshgrid(*(np.arange(n) - n // 2 for n in s), indexing="ij")
        for s in (O.shape, P.shape[-2:])
    )
    scale = float(max(O.shape))  # coordinates of order 1, for the sake of the numbers alone
    for name, dose, r, rp in zip(RAMPS, DOSE_RAMPS, (yo, xo), (yp, xp), strict=True):
        along = [r * O / scale, -rp * P / scale, -rp * V / scale]
        found[name] = [(1j * along[0], 1j * along[1], 1j * along[2], True)]
        found[dose] = [(along[0], along[1], along[2], True)]
    if {POSITIONS[0], TRANSLATIONS[0]} & set(names):
        for i, axis in enumerate(((STEP, 0.0), (0.0, STEP))):
            back = -axis[0], -axis[1]

            def slope(field: ComplexArray) -> ComplexArray:
                each = [translate(f, axis) - translate(f, back) for f in field]  # noqa: B023
                return np.array(each).reshape(field.shape) / (2 * STEP)

            moved = np.where(touched, slope(O[None])[0], 0)
            found[TRANSLATIONS[i]] = [(moved, slope(P), slope(V), False)]
            found[POSITIONS[i]] = [(moved, none, same, False)]
    held = len(V) > 0 and not free_variations
    told = {PROBE_PHASE, MIXING, SCALE, *RAMPS, *DOSE_RAMPS} if held else set()
    rows = [(name, *row) for name in dict.fromkeys(names) for row in found[name]]
    exact = np.array([sure and name not in told for name, *_, sure in rows])
    objects, probes, varied = (np.array([row[i] for row in rows]) for i in (1, 2, 3))
    return Gauge(names, objects, probes, exact, region, varied if free_variations else None)


def _units(n: int) -> FloatArray:
    """All n x n matrices with one 1, (n^2, n, n)."""
    return np.eye(n * n).reshape(n * n, n, n)


def without_unseen(
    change: Array, object: Array, weight: Array, names: tuple[str, ...], backend: Any
) -> Array:
    """A small change of the object without its share in directions that the data do not tell: the
    same as `Gauge.remove`, on a device, in single precision and without a look at any number.

    Parameters
    ----------
    change, object : (H, W) complex64
    weight : (H, W) float32
        Where the object is lit.
    names : tuple of str
        As from `unseen`.
    """
    xp = backend.xp
    tangents = [1j * object]
    if SCALE in names:
        h, w = object.shape
        y, x = (xp.arange(h) - h / 2)[:, None] / h, (xp.arange(w) - w / 2)[None] / w
        tangents += [object, 1j * y * object, 1j * x * object]
    if TRANSLATIONS[0] in names:
        tangents += [(xp.roll(object, -1, axis) - xp.roll(object, 1, axis)) / 2 for axis in (0, 1)]
    basis = xp.stack([t.astype("complex64").reshape(-1) for t in tangents])
    lit = weight.reshape(-1)
    products = ((basis * lit) @ basis.conj().T).real.astype("float64")
    found = ((basis.conj() * lit) @ change.reshape(-1)).real.astype("float64")
    scale = xp.sqrt(xp.maximum(xp.diagonal(products), 1e-30))
    matrix = products / (scale[:, None] * scale[None]) + 1e-9 * xp.eye(len(tangents))
    factors = xp.linalg.solve(matrix, found / scale) / scale
    return (
        (change.reshape(-1) - factors.astype("float32") @ basis)
        .reshape(change.shape)
        .astype("complex64")
    )


def _real(a: ComplexArray, b: ComplexArray) -> float:
    return float((a.real * b.real + a.imag * b.imag).sum())
