r"""Modulus constraint with both its FFTs in one piece: F^-1[Pi_F z - z], z = F psi.

The forward transform ends, and the inverse begins, with the same columns. So each group of columns
is transformed, given its measured amplitudes and transformed back while it lies in the first-level
cache, and the wave itself never reaches the memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ...types import Array
from .fft import NONE, PLACE_START, PLACES, TWIDDLE_START, lines, power, rows
from .linked import (
    KEPT_BYTES,
    KEPT_FLOATS,
    KEPT_FRAME,
    KEPT_MASK,
    KEPT_WAVE,
    WAVE_ROW,
    WAVES,
    linked,
    uniform,
)
from .rows import OPTIONS, TINY, modulus_change, propagate_within
from .vectors import FLOAT, LANES, ROW, STRETCH, VECTOR, Code, flat, join, split, stretch, vectors

#: Rows of a group of columns that are handled between two additions to the misfit.
_STEP = 8


def _inverse_root(code: Code, x: Any) -> Any:
    """x^(-1/2): the processor's estimate of 14 bits and a step of Newton's where it has one, else
    by division.
    """
    b = code.b
    find: Any = cgutils.get_or_insert_function
    if LANES == 16:
        kind = ir.FunctionType(VECTOR, [VECTOR, VECTOR, ir.IntType(16)])
        estimate = find(b.module, kind, "llvm.x86.avx512.rsqrt14.ps.512")
        y = b.call(
            estimate, [x, ir.Constant(VECTOR, [0.0] * LANES), ir.Constant(ir.IntType(16), -1)]
        )
        half = b.fmul(code.spread(ir.Constant(FLOAT, -0.5)), b.fmul(x, y))
        return b.fmul(y, code.fma(half, y, code.spread(ir.Constant(FLOAT, 1.5))))
    root = find(b.module, ir.FunctionType(VECTOR, [VECTOR]), f"llvm.sqrt.v{LANES}f32")
    return b.fdiv(code.spread(ir.Constant(FLOAT, 1.0)), b.call(root, [x]))


@vectors
def _replace(
    typing: Any,
    buffer: Any,
    places: Any,
    out: Any,
    row: Any,
    amplitude: Any,
    mask: Any,
    i: Any,
    width: Any,
    misfit: Any,
) -> Any:
    """Rows row..row+7 of `out` = (y/|z| - 1) z of the rows `places` of the buffer, zero where
    masked, real and imaginary parts exchanged for the inverse transform; misfit (LANES,) += (y -
    |z|)^2."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = Code(context, builder)
        source, target, measured, sums = (
            code.pointer(signature.args[n], args[n]) for n in (0, 2, 4, 8)
        )
        table = context.make_array(signature.args[1])(context, builder, args[1]).data
        valid = context.make_array(signature.args[5])(context, builder, args[5]).data
        valid = builder.bitcast(valid, ir.IntType(8).as_pointer())
        size = args[6].type
        floor, total, index = code.spread(ir.Constant(FLOAT, float(TINY) ** 2)), None, args[6]
        for n in range(_STEP):
            place = builder.load(builder.gep(table, [code.at(args[3], n)]))
            start = builder.mul(place, ir.Constant(place.type, ROW))
            real, imaginary = code.load(source, start), code.load(source, code.at(start, LANES))
            power = code.fma(real, real, builder.fmul(imaginary, imaginary))
            bounded = builder.select(builder.fcmp_ordered(">", power, floor), power, floor)
            inverse = _inverse_root(code, bounded)
            where = builder.bitcast(
                builder.gep(valid, [index]), ir.VectorType(ir.IntType(8), LANES).as_pointer()
            )
            share = builder.uitofp(builder.load(where, align=1), VECTOR)
            change = builder.fmul(
                share, builder.fsub(code.load(measured, index), builder.fmul(power, inverse))
            )
            square = builder.fmul(change, change)
            total = square if total is None else builder.fadd(total, square)
            factor = builder.fmul(change, inverse)
            to = builder.mul(code.at(args[3], n), ir.Constant(size, ROW))
            code.store(builder.fmul(imaginary, factor), target, to)
            code.store(builder.fmul(real, factor), target, code.at(to, LANES))
            index = builder.add(index, args[7])
        zero = ir.Constant(size, 0)
        code.store(builder.fadd(code.load(sums, zero), total), sums, zero)
        return context.get_dummy_value()

    kinds = buffer, places, out, types.intp, amplitude, mask, types.intp, types.intp, misfit
    return types.void(*kinds), emit


@linked(
    types.float64(
        *(WAVE_ROW, KEPT_FLOATS, KEPT_BYTES, *[types.intp] * 4, uniform(types.intp, 2)),
        *(types.float64, STRETCH),
    ),
    error_model="numpy",
)
def _constrained(
    x: Array,
    y: Array,
    valid: Array,
    p: int,
    q: int,
    top: int,
    bottom: int,
    k: tuple[int, int],
    bound: float,
    later: tuple[int, int],
) -> float:
    """x (P Q,) <- F^-1[Pi_F z - z], unless the misfit, which is returned, is below `bound`."""
    room = np.empty((max(p, q) + p + 1) * ROW + 16, np.float32)
    buffer = room[
        (-room.ctypes.data % 64) // 4 :
    ]  # vectors that straddle two cache lines take twice as long
    change, misfit = buffer[max(p, q) * ROW :], buffer[(max(p, q) + p) * ROW :]
    scale, total = np.float32(1 / np.sqrt(p * q)), 0.0
    places, t = PLACES[PLACE_START[k[0]] :], TWIDDLE_START[k[0]]
    rows(x, x, top, bottom, q, 0, buffer, k[1], scale, stretch(y), later)
    for column in range(0, q, LANES):
        for r in range(p):
            split(x, r * q + column, buffer, r, 0)
        lines(buffer, p, t)
        misfit[:LANES] = 0
        for r in range(0, p, _STEP):
            _replace(buffer, places, change, r, y, valid, r * q + column, q, misfit)
        for n in range(LANES):
            total += misfit[n]
        lines(change, p, t)
        for r in range(p):
            join(change, places[r], x, r * q + column, LANES)
    if total > bound:
        rows(x, x, top, bottom, q, LANES, buffer, k[1], scale, NONE, NONE)
    return total


@linked(
    types.float64(
        *(WAVES, KEPT_FRAME, KEPT_MASK, KEPT_WAVE, types.boolean, types.intp, types.intp),
        *(types.float64, STRETCH),
    ),
    **OPTIONS,
)
def modulus_return(
    wave: Array,
    amplitude: Array,
    mask: Array,
    transfer: Array,
    near: bool,
    top: int,
    bottom: int,
    bound: float,
    later: tuple[int, int],
) -> float:
    """wave (K, P, Q) <- F^-1[Pi_F z - z] with z = F wave, in place; returns sum over valid pixels
    of (|z| - y)^2.

    Rows outside top..bottom-1 must be zero, and are not wanted of the result. If the misfit does
    not exceed `bound` the result is not wanted either. `later` is a stretch of memory that
    will be wanted after this.
    """
    p, q = wave.shape[1], wave.shape[2]
    ky, kx = power(p), power(q)
    if wave.shape[0] == 1 and not near and ky >= 0 and kx >= 0:
        parts = flat(wave), flat(amplitude), flat(mask)
        misfit: float = _constrained(*parts, p, q, top, bottom, (ky, kx), bound, later)
        return misfit
    propagate_within(wave, wave, transfer, near, True, top, bottom, stretch(amplitude), later)
    misfit = modulus_change(wave, amplitude, mask)
    if misfit > bound:
        propagate_within(wave, wave, transfer, near, False, top, bottom, NONE, NONE)
    return misfit
