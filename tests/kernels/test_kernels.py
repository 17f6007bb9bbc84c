"""Every kernel of the reference table: in float32 as in float64, on every backend as in the
reference, and what it means.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import i0e, i1e

from _problems import FRAME, gpu_backend, make_case, normal, shift64
from ptychon.backends import get_backend
from ptychon.kernels import build, reference
from ptychon.metrics.residual import residual

P, Q = FRAME
B, K = 5, 2


def _patches(rng, *shape):
    return 3 * normal(rng, (*shape, P, Q))


def _corners(rng, n=B):
    return rng.integers(0, 12, (n, 2)).astype(np.int32)


def _masks(rng, n):
    return [np.ones((1, P, Q), bool), rng.random((1, P, Q)) > 0.2, rng.random((n, P, Q)) > 0.2]


def _in_place(kernel, *args):
    """Kernels that add to their first arguments: give those back."""
    outputs = [a.copy() for a in args[: 2 if kernel.__name__ == "message_sums" else 1]]
    assert kernel(*outputs, *args[len(outputs) :]) is None
    return tuple(outputs)


def _beliefs(rng):
    """Arguments of message_sums and probe_force for 7 frames with 3 distinct shifts."""
    n, shifts = 7, np.array([[0, 0], [0.25, -0.5], [-0.125, 0.0625]], np.float32)
    index = np.array([2, 0, 1, 1, 0, 2, 1], np.int32)
    probes = np.stack([shift64(_patches(rng, 1), s)[0] for s in shifts])
    precision, natural = 1 + 5 * rng.random((25, 23)), 4 * normal(rng, (25, 23))
    return (
        precision,
        natural,
        probes,
        shifts,
        index,
        _corners(rng, n),
        0.5 + rng.random(n),
        _patches(rng, n),
    )


def _table():
    """name -> list of argument lists in double precision."""
    rng = np.random.default_rng(5)
    table = {name: [] for name in reference.__all__}
    field, real_field = normal(rng, (25, 23)), rng.random((25, 23))
    table["abs2"] = [(_patches(rng, B, K),)]
    far_apart = np.array([[0, 0], [13, 0], [0, 10]], np.int32)
    for corners in (_corners(rng), far_apart, _corners(rng, 1)):
        table["gather"] += [(field, corners, FRAME), (real_field, corners, FRAME)]
        table["scatter_add"] += [(field, corners, _patches(rng, len(corners)))]
        table["scatter_add"] += [(real_field, corners, rng.random((len(corners), P, Q)))]
        table["batch_sum"] += [(rng.random((len(corners), P, Q)), corners)]
    some, none = rng.uniform(-0.5, 0.5, (B, 2)).astype(np.float32), np.zeros((B, 2), np.float32)
    for sign in (1, -1):
        table["shift"] += [
            (_patches(rng, K), some, sign),
            (_patches(rng, B, K), some, sign),
            (_patches(rng, K), none, sign),
        ]
    v0, v = 0.02 + rng.random(B), np.asarray(0.05)
    for mask in _masks(rng, B):
        for modes in (1, K):
            wave = _patches(rng, B, modes)
            wave[:, :, :2, 3] = 0
            table["modulus_projection"] += [(wave, 4 * rng.random((B, P, Q)), mask)]
        wave, amplitude = _patches(rng, B), 4 * rng.random((B, P, Q))
        wave[:, 2, 3] = 0
        amplitude[:, 4] = 0
        table["rician"] += [(wave, v0, amplitude, mask, v)]
        # bright pixels, concentrations up to 1e10
        table["rician"] += [(3e3 * wave, v0, 3e3 * amplitude, mask, v)]
        wave[:, 2, 3] = 1  # where the modulus vanishes Laplace's variance does not exist
        table["laplace"] += [(wave, v0, amplitude, mask, v)]
    belief, message = _patches(rng, B), _patches(rng, B)
    variance, precision = 0.1 + rng.random(B), 0.5 * rng.random(B)
    precision[1] = 2 / variance[1]  # more precise than the belief: the floor
    table["cavity"] = [(belief, variance, message, precision)]
    variance, g_c, precision = 0.1 + 0.2 * rng.random(B), 1 + rng.random(B), 1 + rng.random(B)
    variance[2] = 1 / g_c[2]  # nothing learned
    variance[3] = 0  # the floor
    table["damped_message"] = [
        (_patches(rng, B), variance, belief, g_c, message, precision, d) for d in (0.9, 1.0, 0.3)
    ]
    precision, natural, probes, shifts, index, *rest = _beliefs(rng)
    table["message_sums"] = [(precision, natural, probes, index, *rest)]
    table["probe_force"] = [(precision, natural, probes, shifts, index, *rest)]
    table["quotient"] = [
        (natural, precision, field),
        (natural, precision, 1.01 * natural / precision),
    ]
    mean, variance = 2 * normal(rng, (25, 23)), 10 ** rng.uniform(-3, 2, (25, 23))
    table["bernoulli_gauss"] = [(mean, variance, 0.1, 1.0), (1e3 * mean, 1e6 * variance, 0.6, 1e6)]
    return table


TABLE = _table()
CASES = [
    pytest.param(name, args, id=f"{name}-{i}")
    for name, calls in TABLE.items()
    for i, args in enumerate(calls)
]


def _single(x):
    if isinstance(x, np.ndarray) and x.dtype.kind in "fc":
        return x.astype(np.float32 if x.dtype.kind == "f" else np.complex64)
    return x


def _call(kernel, args, name):
    result = _in_place(kernel, *args) if name in ("scatter_add", "message_sums") else kernel(*args)
    return result if isinstance(result, tuple) else (result,)


def _compare(found, expected, rtol):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        assert a.dtype.kind == b.dtype.kind
        if a.dtype.kind == "b":
            assert np.array_equal(a, b)
        else:
            # relative to each element, and to rounding of the largest
            assert np.allclose(a, b, rtol=rtol, atol=0.1 * rtol * np.abs(b).max())


def test_the_table_knows_every_kernel():
    assert set(TABLE) == set(reference.__all__)
    assert all(TABLE.values())


@pytest.mark.parametrize(("name", "args"), CASES)
def test_reference_in_single_precision(name, args):
    """float32 in, float32 out, and the numbers those of float64 to rounding."""
    kernel = getattr(reference, name)
    found, expected = _call(kernel, [_single(a) for a in args], name), _call(kernel, args, name)
    assert {a.dtype.str for a in found} <= {"<f4", "<c8", "|b1"}
    _compare(found, expected, 2e-5)


@pytest.mark.parametrize(("name", "args"), CASES)
def test_numpy_backend(name, args):
    single = [_single(a) for a in args]
    kept = [a.copy() if isinstance(a, np.ndarray) else a for a in single]
    found = _call(getattr(get_backend("numpy").kernels, name), single, name)
    _compare(found, _call(getattr(reference, name), single, name), 2e-5)
    for a, b in zip(single, kept, strict=True):
        assert np.array_equal(a, b)  # arguments are not changed


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "args"), CASES)
def test_gpu_backend(name, args):
    """Corners, shifts and indices are host arrays on every backend; all else lives
    on the device.
    """
    backend = gpu_backend()
    single = [_single(a) for a in args]
    on_host = {
        "gather": {1},
        "scatter_add": {1},
        "batch_sum": {1},
        "shift": {1},
        "message_sums": {3, 4},
        "probe_force": {3, 4, 5},
    }
    device = [
        backend.asarray(a) if isinstance(a, np.ndarray) and i not in on_host.get(name, ()) else a
        for i, a in enumerate(single)
    ]
    found = [backend.to_host(a) for a in _call(getattr(backend.kernels, name), device, name)]
    _compare(found, _call(getattr(reference, name), single, name), 2e-5)


def test_an_override_must_be_specified():
    class Module:
        __name__ = "wild"
        __all__ = ("gather", "teleport")
        gather = teleport = None

    with pytest.raises(TypeError, match="teleport"):
        build(Module)


# ---------------------------------------------------------------- placing and shifting


def test_scatter_is_the_adjoint_of_gather():
    rng = np.random.default_rng(0)
    field, corners, patches = normal(rng, (25, 23)), _corners(rng), _patches(rng, B)
    back = np.zeros_like(field)
    reference.scatter_add(back, corners, patches)
    assert np.vdot(patches, reference.gather(field, corners, FRAME)) == pytest.approx(
        np.vdot(back, field), rel=1e-12
    )


def test_batch_sum_by_hand():
    """Two windows that overlap in one column of pixels, one that stands alone."""
    patches = np.array([np.full((2, 3), n) for n in (1.0, 10.0, 100.0)])
    total = reference.batch_sum(patches, np.array([[0, 0], [0, 2], [7, 7]]))
    assert np.array_equal(total[0], [[1, 1, 11]] * 2)
    assert np.array_equal(total[1], [[11, 10, 10]] * 2)
    assert np.array_equal(total[2], [[100, 100, 100]] * 2)


@pytest.mark.parametrize("shape", [(12, 9), (8, 8), (7, 16)])
def test_shift_is_unitary(shape):
    rng = np.random.default_rng(1)
    shifts = rng.uniform(-0.5, 0.5, (B, 2))
    a, b = normal(rng, (K, *shape)), normal(rng, (B, K, *shape))
    moved = reference.shift(a, shifts)
    assert moved.shape == (B, K, *shape)
    assert np.linalg.norm(moved, axis=(2, 3)) == pytest.approx(
        np.broadcast_to(np.linalg.norm(a, axis=(1, 2)), (B, K))
    )
    assert np.allclose(reference.shift(moved, shifts, -1), a)
    # <b, S a> = <S^-1 b, a>
    assert np.vdot(b, moved) == pytest.approx(
        np.vdot(reference.shift(b, shifts, -1), np.broadcast_to(a, b.shape))
    )


def test_shift_moves_towards_larger_coordinates():
    """By whole pixels it is np.roll; by nothing it is the identity, bit for bit."""
    rng = np.random.default_rng(2)
    a = normal(rng, (1, P, Q)).astype(np.complex64)
    assert np.allclose(
        reference.shift(a, np.array([[2, -3]]))[0], np.roll(a, (2, -3), (1, 2)), atol=1e-5
    )
    assert np.array_equal(reference.shift(a, np.zeros((3, 2)))[1], a)
    y = np.arange(64) - 32
    bump = np.exp(-(y[:, None] ** 2 + y[None] ** 2) / 50)[None].astype(complex)
    moved = np.abs(reference.shift(bump, np.array([[0.25, -0.375]]))[0, 0]) ** 2
    centre = [(moved.sum(axis=1 - i) * y).sum() / moved.sum() for i in (0, 1)]
    assert centre == pytest.approx([0.25, -0.375], abs=1e-6)


# ---------------------------------------------------------------- modulus


@pytest.mark.parametrize("backend", ["reference", "numpy"])
@pytest.mark.parametrize("modes", [1, 3])
def test_modulus_projection_is_a_projection(backend, modes):
    rng = np.random.default_rng(3)
    project = get_backend(backend).kernels.modulus_projection
    wave, y = _patches(rng, B, modes).astype(np.complex64), rng.random((B, P, Q)).astype(np.float32)
    wave[:, :, 5, 5] = 0
    mask = rng.random((B, P, Q)) > 0.3
    mask[:, 5, 5] = True
    once, misfit = project(wave, y, mask)
    twice, nothing = project(once, y, mask)
    modulus = np.sqrt((np.abs(once) ** 2).sum(axis=1))
    lit = mask & ((np.abs(wave) ** 2).sum(axis=1) > 0)
    # a fused kernel adds the change to the wave: good to the rounding of the longer of both
    rounding = 1e-6 * (np.sqrt((np.abs(wave) ** 2).sum(axis=1)) + y)
    assert np.all(np.abs(once - twice) <= rounding[:, None])  # idempotent
    assert np.all(np.abs(modulus - y)[lit] <= rounding[lit])
    assert np.allclose(nothing, [(y[b][mask[b] & ~lit[b]] ** 2).sum() for b in range(B)], atol=1e-6)
    assert np.array_equal(once[:, :, 5, 5], wave[:, :, 5, 5])  # zero has no phase and stays
    apart = np.broadcast_to(~mask[:, None], once.shape)
    assert np.array_equal(once[apart], wave[apart])  # so do masked pixels
    along = once * np.exp(-1j * np.angle(wave))
    assert np.all(np.abs(along.imag) <= rounding[:, None])  # the phase is kept
    assert np.all(along.real >= -rounding[:, None])
    expected = (
        np.where(mask, np.sqrt((np.abs(wave.astype(complex)) ** 2).sum(axis=1)) - y, 0) ** 2
    ).sum(axis=(1, 2))
    assert misfit == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------- output functions


def _at(kernel, z, v0, y, v, mask=True):
    """An output function at one pixel: mean, variance, noise, as floats in double precision."""
    shape = (1, 1, 1)
    args = (
        np.full(shape, z, complex),
        np.array([v0]),
        np.full(shape, y, float),
        np.full(shape, mask),
        np.asarray(v),
    )
    mean, variance, noise = kernel(*args)
    return complex(mean.item()), float(variance.item()), float(noise.item())


CAVITIES = [
    # z_c, v0, y, v: signal regimes, dark pixels, and a phase that is hardly determined
    (1.0, 0.1, 1.2, 1e-2),
    (0.7 - 0.7j, 1e-2, 0.9, 1e-3),
    (0.02 + 0.01j, 2e-3, 0.05, 1.2e-3),
    (1e-2, 0.5, 0.8, 1e-2),
    (0.3j, 0.5, 0.0, 0.05),
]


@pytest.mark.parametrize(("z_c", "v0", "y", "v"), CAVITIES)
def test_rician_moments_by_quadrature(z_c, v0, y, v):
    """Mean, variance and noise moment of CN(z; z_c, v0) p(y | z), p(y | z) the Rice density, summed
    on a fine grid.
    """
    width = 8 * np.sqrt(v0)
    t = np.linspace(-width, width, 1201)
    z = z_c + t[:, None] + 1j * t[None]
    k = y * np.abs(z) / v
    weight = np.exp(-(np.abs(z - z_c) ** 2) / v0 - (y - np.abs(z)) ** 2 / (2 * v)) * i0e(k)
    weight /= weight.sum()
    mean = (weight * z).sum()
    variance = (weight * np.abs(z - mean) ** 2).sum()
    noise = (weight * (y**2 + np.abs(z) ** 2 - 2 * y * np.abs(z) * i1e(k) / i0e(k))).sum() / 2
    found = _at(reference.rician, z_c, v0, y, v)
    assert found[0] == pytest.approx(mean, rel=3e-4, abs=1e-9)
    assert found[1] == pytest.approx(variance, rel=1e-3)
    assert found[2] == pytest.approx(noise, rel=3e-3)


@pytest.mark.parametrize(
    ("z_c", "v0", "y", "v"), [*CAVITIES, *((s, 0.5, 1.01 * s, 0.25) for s in (1e2, 3e3, 1e4, 1e6))]
)
def test_rician_closed_form(z_c, v0, y, v):
    """The same with the Bessel functions of SciPy, also for pixels so bright that the fits no
    longer cover them.
    """
    s, r0 = v0 + 2 * v, abs(z_c)
    kappa = 2 * y * r0 / s
    R = i1e(kappa) / i0e(kappa)
    rho = (v0 * y * R + 2 * v * r0) / s
    spread = (1 - R) * (1 + R) if kappa < 1e6 else 1 / kappa
    variance = 2 * v0 * v / s + (v0 * y / s) ** 2 * spread
    # E|y e^{i theta} - z|^2/2 in a form without large terms that cancel
    noise = (
        (2 * v / s) ** 2 * ((y - r0) ** 2 + 2 * y * r0 * spread / (1 + R)) + 2 * v0 * v / s
    ) / 2
    found = _at(reference.rician, z_c, v0, y, v)
    assert found[0] == pytest.approx(rho * z_c / r0, rel=1.3e-4)
    assert found[1] == pytest.approx(variance, rel=6.75e-4)
    assert found[2] == pytest.approx(noise, rel=2e-3)


def test_rational_bessel_ratios_are_as_good_as_stated():
    """For every concentration up to the cut, in double and in single precision."""
    kappa = np.concatenate([[0], np.logspace(-6, np.log10(reference.KAPPA_MAX), 20001)])
    R = i1e(kappa) / i0e(kappa)
    with np.errstate(invalid="ignore"):
        over = np.where(kappa > 0, R / kappa, 0.5)
    for dtype, slack in ((np.float64, 1.0), (np.float32, 1.01)):
        k = kappa.astype(dtype)
        ratio = reference._polynomial(reference.BESSEL_A, k) / reference._polynomial(
            reference.BESSEL_B, k
        )
        rest = reference._polynomial(reference.BESSEL_C, k) / reference._polynomial(
            reference.BESSEL_D, k
        )
        assert ratio.dtype == rest.dtype == dtype
        assert np.abs(ratio / over - 1).max() < 1.31e-4 * slack
        # 1 - R^2 by subtraction keeps 9 digits in double precision at the largest kappa
        assert np.abs(rest / ((1 - R) * (1 + R)) - 1).max() < 6.75e-4 * slack


def test_rician_becomes_laplace_where_the_phase_is_certain():
    for z_c, v0, y, v in ((3.0 - 4.0j, 1e-3, 5.1, 1e-3), (2.0, 1e-4, 1.9, 1e-2)):
        a, b = _at(reference.rician, z_c, v0, y, v), _at(reference.laplace, z_c, v0, y, v)
        assert a[0] == pytest.approx(b[0], rel=3e-4)
        assert a[1] == pytest.approx(b[1], rel=2e-3)


@pytest.mark.parametrize("kernel", [reference.rician, reference.laplace])
def test_useless_data_change_nothing(kernel):
    mean, variance, _ = _at(kernel, 0.6 - 0.2j, 0.3, 1.5, 1e9)
    assert mean == pytest.approx(0.6 - 0.2j, rel=1e-6)
    # Laplace: v0/2 + v0 rho/(2 r0) -> v0 as well
    assert variance == pytest.approx(0.3, rel=1e-6)


def test_rician_is_finite_at_zero():
    """No division by |z_c|: the mean vanishes, the variance is that of an unknown phase."""
    mean, variance, noise = _at(reference.rician, 0, 0.2, 0.5, 0.01)
    s = 0.2 + 0.02
    assert mean == 0
    assert variance == pytest.approx(2 * 0.2 * 0.01 / s + (0.2 * 0.5 / s) ** 2, rel=6.75e-4)
    assert noise == pytest.approx((0.25 * (0.02 / s) ** 2 + 2 * 0.2 * 0.01 / s) / 2, rel=1e-6)
    tiny, *_ = _at(reference.rician, 1e-30, 0.2, 0.5, 0.01)
    assert np.isfinite(tiny)
    single = np.zeros((1, 2, 2), np.complex64)
    wave = reference.rician(
        single,
        np.ones(1, np.float32),
        np.ones((1, 2, 2), np.float32),
        np.ones((1, 2, 2), bool),
        np.float32(1),
    )
    assert all(np.isfinite(x).all() for x in wave)


def test_negative_amplitudes_count_as_zero():
    for kernel in (reference.rician, reference.laplace):
        assert _at(kernel, 0.3, 0.1, -0.5, 0.01) == _at(kernel, 0.3, 0.1, 0.0, 0.01)


@pytest.mark.parametrize(
    ("z_c", "v0", "y", "v"),
    [(0.5 + 0.2j, 0.1, 0.9, 0.02), (1.0j, 0.02, 0.7, 0.1), (2.0, 0.5, 1.0, 1e-3)],
)
def test_laplace_is_the_minimum_and_its_hessian(z_c, v0, y, v):
    """Mean: the minimum of |z - z_c|^2/v0 + (|z| - y)^2/2v. Variance: trace of the inverse Hessian
    by finite differences.
    """

    def cost(a, b):
        z = complex(a, b)
        return abs(z - z_c) ** 2 / v0 + (abs(z) - y) ** 2 / (2 * v)

    mean, variance, noise = _at(reference.laplace, z_c, v0, y, v)
    a, b, h = mean.real, mean.imag, 1e-4
    gradient = [
        (cost(a + h, b) - cost(a - h, b)) / (2 * h),
        (cost(a, b + h) - cost(a, b - h)) / (2 * h),
    ]
    mixed = (cost(a + h, b + h) - cost(a + h, b - h) - cost(a - h, b + h) + cost(a - h, b - h)) / (
        4 * h * h
    )
    aa = (cost(a + h, b) - 2 * cost(a, b) + cost(a - h, b)) / h**2
    bb = (cost(a, b + h) - 2 * cost(a, b) + cost(a, b - h)) / h**2
    inverse = np.linalg.inv([[aa, mixed], [mixed, bb]])
    assert np.abs(gradient).max() < 1e-4
    assert variance == pytest.approx(np.trace(inverse), rel=1e-4)
    # the noise moment: square of the rest, and the radial share of the variance
    along = np.array([a, b]) / abs(mean)
    assert noise == pytest.approx((y - abs(mean)) ** 2 + along @ inverse @ along, rel=1e-3)


@pytest.mark.parametrize("kernel", ["rician", "laplace"])
def test_masked_pixels_keep_the_cavity(kernel):
    """Mean z_c bit for bit, variance v0, no share in the noise."""
    rng = np.random.default_rng(4)
    wave, v0 = _patches(rng, B).astype(np.complex64), (0.1 + rng.random(B)).astype(np.float32)
    y, v = rng.random((B, P, Q)).astype(np.float32), np.float32(0.02)
    function = getattr(reference, kernel)
    mean, variance, noise = function(wave, v0, y, np.zeros((1, P, Q), bool), v)
    assert np.array_equal(mean, wave)
    assert variance == pytest.approx(v0, rel=1e-6)
    assert not noise.any()
    mask = rng.random((B, P, Q)) > 0.5
    mean, variance, noise = function(wave, v0, y, mask, v)
    everything = function(wave, v0, y, np.ones((1, P, Q), bool), v)
    assert np.array_equal(mean[~mask], wave[~mask])
    assert np.array_equal(mean[mask], everything[0][mask])
    for b in range(B):
        valid, at = mask[b], np.s_[b : b + 1]
        rest = function(
            wave[b][valid][None, None], v0[at], y[b][valid][None, None], np.ones((1, 1, 1), bool), v
        )
        n = int(valid.sum())
        assert variance[b] == pytest.approx(
            (n * rest[1][0] + (P * Q - n) * v0[b]) / (P * Q), rel=1e-5
        )
        assert noise[b] == pytest.approx(rest[2][0], rel=1e-5)


# ---------------------------------------------------------------- messages


def test_cavity_times_message_is_the_belief():
    rng = np.random.default_rng(6)
    belief, message = _patches(rng, B), _patches(rng, B)
    variance, precision = 0.1 + rng.random(B), 0.5 * rng.random(B)
    mean, g_c = reference.cavity(belief, variance, message, precision)
    assert g_c + precision == pytest.approx(1 / variance)
    joint = (g_c[:, None, None] * mean + precision[:, None, None] * message) * variance[
        :, None, None
    ]
    assert np.allclose(joint, belief)


def test_cavity_floor_is_relative():
    """A message as precise as the belief leaves 1/1000 of it, whatever the unit of the data."""
    ones = np.ones((1, 2, 2), complex)
    for scale in (1e-12, 1.0, 1e12):
        _, g_c = reference.cavity(ones, np.array([scale]), ones, np.array([1 / scale]))
        assert g_c[0] == pytest.approx(1e-3 / scale)


def test_damped_message():
    """Undamped it is posterior/cavity; damped the mean and the standard deviation mix linearly;
    1e-4 gained is too little.
    """
    rng = np.random.default_rng(7)
    posterior, centre, old = (_patches(rng, 3) for _ in range(3))
    g_c, precision = np.array([1.0, 2.0, 3.0]), np.array([1.5, 0.7, 0.9])
    variance = 1 / (g_c * [1.5, 1.00009, 1.02])
    column = np.s_[:, None, None]
    phi, g, skipped = reference.damped_message(
        posterior, variance, centre, g_c, old, precision, 1.0
    )
    assert skipped.tolist() == [False, True, False]
    assert g == pytest.approx([0.5, 0.7, 0.06])
    exact = (posterior / variance[column] - centre * g_c[column]) / (1 / variance - g_c)[column]
    assert np.allclose(phi[[0, 2]], exact[[0, 2]])
    assert np.array_equal(phi[1], old[1])
    d = 0.3
    damped, g_d, _ = reference.damped_message(posterior, variance, centre, g_c, old, precision, d)
    assert np.allclose(damped[0], d * exact[0] + (1 - d) * old[0])
    assert g_d[0] ** -0.5 == pytest.approx(d * 0.5**-0.5 + (1 - d) * precision[0] ** -0.5)
    assert np.array_equal(damped[1], old[1])
    assert g_d[1] == precision[1]


def test_variance_floor_is_relative():
    """A posterior without variance counts as 1e-6 of the cavity's, so its message is 1e6 times as
    precise.
    """
    one = np.ones((1, 2, 2), complex)
    for scale in (1e-6, 1.0, 1e6):
        _, g, _ = reference.damped_message(
            one, np.zeros(1), one, np.array([scale]), one, np.array([scale]), 1.0
        )
        assert g[0] == pytest.approx(1e6 * scale, rel=1e-4)


def test_message_sums_and_probe_force_by_hand():
    """Frame by frame in float64, with a shift that is not the package's."""
    rng = np.random.default_rng(8)
    precision, natural, probes, shifts, index, corners, g, messages = _beliefs(rng)
    Lambda, eta = precision.copy(), natural.copy()
    force, weight = np.zeros((1, P, Q), complex), np.zeros((P, Q))
    for j, (r, c) in enumerate(corners):
        box, probe = np.s_[r : r + P, c : c + Q], probes[index[j]]
        mu, var = natural[box] / precision[box], 1 / precision[box]
        pull = g[j] * (mu.conj() * (messages[j] - mu * probe) - probe * var)
        force += shift64(pull[None], shifts[index[j]], -1)
        weight += g[j] * (np.abs(mu) ** 2 + var)
        Lambda[box] += g[j] * np.abs(probe) ** 2
        eta[box] += g[j] * probe.conj() * messages[j]
    found = reference.probe_force(precision, natural, probes, shifts, index, corners, g, messages)
    assert np.allclose(found[0], force)
    assert np.allclose(found[1], weight)
    reference.message_sums(precision, natural, probes, index, corners, g, messages)
    assert np.allclose(precision, Lambda)
    assert np.allclose(natural, eta)


def test_quotient_by_hand():
    """(6, 8i)/2 is (3, 4i) of norm 5; from (3, 0) it moved by 4."""
    for kernels in (reference, get_backend("numpy").kernels):
        num, old = np.array([[6, 8j]], np.complex64), np.array([[3, 0]], np.complex64)
        new, change = kernels.quotient(num, np.full((1, 2), 2, np.float32), old)
        assert np.allclose(new, [[3, 4j]])
        assert float(change) == pytest.approx(0.8)


# ---------------------------------------------------------------- sparse prior


@pytest.mark.parametrize(
    ("m", "V", "density", "S"),
    [(0.5, 0.2, 0.1, 1.0), (1.5j, 0.3, 0.1, 2.0), (0.1, 0.02, 0.5, 0.5), (2 + 1j, 3.0, 0.7, 1.0)],
)
def test_bernoulli_gauss_by_quadrature(m, V, density, S):
    """(1 - rho) delta_0 + rho CN(0, S) times CN(m, V): the spike by hand, the slab summed on a
    grid.
    """
    t = np.linspace(-9, 9, 1801)
    x = t[:, None] + 1j * t[None]
    slab = (
        density
        * np.exp(-(np.abs(x) ** 2) / S - np.abs(x - m) ** 2 / V)
        / (np.pi * S)
        / (np.pi * V)
        * (t[1] - t[0]) ** 2
    )
    spike = (1 - density) * np.exp(-(abs(m) ** 2) / V) / (np.pi * V)
    total = slab.sum() + spike
    mean = (slab * x).sum() / total
    variance = (slab * np.abs(x) ** 2).sum() / total - abs(mean) ** 2
    found = reference.bernoulli_gauss(np.array([m], complex), np.array([V]), density, S)
    assert found[2][0] == pytest.approx(slab.sum() / total, rel=1e-6)
    assert found[0][0] == pytest.approx(mean, rel=1e-6)
    assert found[1][0] == pytest.approx(variance, rel=1e-6)


def test_bernoulli_gauss_by_sampling():
    """Draws from the prior, weighted by the message."""
    rng = np.random.default_rng(9)
    n, m, V, density, S = 400_000, 0.6 - 0.3j, 0.3, 0.2, 1.5
    x = np.where(rng.random(n) < density, np.sqrt(S) * normal(rng, n), 0)
    w = np.exp(-(np.abs(x - m) ** 2) / V)
    mean = (w * x).sum() / w.sum()
    variance = (w * np.abs(x - mean) ** 2).sum() / w.sum()
    found = reference.bernoulli_gauss(np.array([m]), np.array([V]), density, S)
    assert abs(found[0][0] - mean) < 0.005
    assert found[1][0] == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("backend", ["reference", "numpy"])
def test_bright_pixels_survive_the_sparse_prior(backend):
    """With precision 1e4 a pixel of modulus 10 stays at 10/(1 + 1e-4); one of 1e-3 vanishes."""
    size = np.array([1, 2, 3, 4, 5, 10, 100, 1e-3], np.float32)
    kernel = get_backend(backend).kernels.bernoulli_gauss
    mean, variance, pi = kernel(size.astype(np.complex64), np.full(8, 1e-4, np.float32), 0.1, 1.0)
    assert np.allclose(mean[:-1], size[:-1] / (1 + 1e-4), rtol=1e-5)
    assert np.allclose(pi[:-1], 1)
    assert pi[-1] < 1e-3
    assert abs(mean[-1]) < 1e-6
    assert np.isfinite(variance).all()
    assert (variance >= 0).all()


def test_random_problem_is_what_it_says():
    """The shared helper itself: its truth explains its data to the 1 % of noise that was added."""
    for near in (False, True):
        case = make_case(subpixel=True, near=near, masks="each", modes=2)
        assert 0.005 < residual(case.problem, case.true_object, case.true_probe) < 0.012
        assert residual(case.problem, case.object, case.probe) > 0.04
