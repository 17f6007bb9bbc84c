r"""FFT of small frames whose sides are powers of two, in explicit vectors: what pocketfft's 128-bit code leaves unused.

`LANES` transforms run side by side, one in each lane of a vector, real and imaginary parts apart, in a buffer that stays in the
first-level cache. Columns are side by side already; rows are transposed in registers on their way in and out. Each transform
is in place, decimation in frequency with radix 8 and 4 (Gentleman & Sande, AFIPS Proc. 29, 563 (1966)); its digit-reversed
order is undone as results are written. The inverse is the forward transform with real and imaginary parts exchanged.

The operations are written out, not left to the compiler, so that rounding depends on the processor's vectors alone.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..types import Array


def _features() -> set[str]:
    """What the processor that Numba compiles for has; nothing where that is unknown."""
    config: Any = nb.config
    asked = config.CPU_FEATURES
    if asked is None and config.CPU_NAME in (None, "", "host", llvmlite.binding.get_host_cpu_name()):
        try:
            asked = llvmlite.binding.get_host_cpu_features().flatten()
        except RuntimeError:  # LLVM does not know this processor
            asked = ""
    return {name[1:] for name in (asked or "").split(",") if name.startswith("+")}


_FOUND = _features()
LANES = 16 if "avx512f" in _FOUND else 8
#: Whether transforms run here at all: with 128-bit vectors pocketfft is as good. Without fused multiplication and addition LLVM
#: would call a library function for each.
WIDE = {"avx2", "fma"} <= _FOUND
#: Sides that are transformed here.
SMALLEST, LARGEST = 16, 1024

_VECTOR, _FLOAT = ir.VectorType(ir.FloatType(), LANES), ir.FloatType()
_ROW = 2 * LANES
Pair = tuple[Any, Any]


def _radices(n: int) -> list[int]:
    """8 as long as what remains is not 16, then 4."""
    found = []
    while n > 1:
        found.append(8 if n % 8 == 0 and n != 16 else 4)
        n //= found[-1]
    return found


def _twiddles(n: int) -> Any:
    """exp(-2 pi i j k/N) for k = 1..r-1 of each j, real and imaginary, stage after stage."""
    parts, length = [np.zeros(0)], n
    for r in _radices(n):
        angle = -2 * np.pi * np.outer(np.arange(length // r), np.arange(1, r)) / length
        parts.append(np.stack([np.cos(angle), np.sin(angle)], -1).reshape(-1))
        length //= r
    return np.concatenate(parts).astype(np.float32)


def _places(n: int) -> Any:
    """Where in the buffer each frequency of a transform of length n is found."""
    place, step, length = np.zeros(n, np.int64), 1, n
    for r in _radices(n):
        length //= r
        place += np.arange(n) // step % r * length
        step *= r
    return place


_SIDES = [2**k for k in range(4, 11)]
_START = {"twiddle": np.cumsum([0, *(len(_twiddles(n)) for n in _SIDES)]), "place": np.cumsum([0, *_SIDES])}
TWIDDLES, PLACES = np.concatenate([_twiddles(n) for n in _SIDES]), np.concatenate([_places(n) for n in _SIDES])
TWIDDLE_START, PLACE_START = (np.array(_START[name], np.int64) for name in ("twiddle", "place"))


# ---------------------------------------------------------------- vectors


class _Code:
    """Emits vector operations into a function that is being compiled."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.context, self.b = context, builder

    def pointer(self, array: Any, value: Any) -> Any:
        data = self.context.make_array(array)(self.context, self.b, value).data
        return self.b.bitcast(data, _FLOAT.as_pointer())

    def at(self, index: Any, extra: Any) -> Any:
        return self.b.add(index, extra if isinstance(extra, ir.Value) else ir.Constant(index.type, extra))

    def load(self, pointer: Any, index: Any) -> Any:
        where = self.b.bitcast(self.b.gep(pointer, [index]), _VECTOR.as_pointer())
        return self.b.load(where, align=4)

    def store(self, value: Any, pointer: Any, index: Any) -> None:
        where = self.b.bitcast(self.b.gep(pointer, [index]), _VECTOR.as_pointer())
        self.b.store(value, where, align=4)

    def spread(self, scalar: Any) -> Any:
        one = self.b.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
        return self.b.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), self._mask([0] * LANES))

    def shuffle(self, a: Any, b: Any, order: list[int]) -> Any:
        return self.b.shuffle_vector(a, b, self._mask(order))

    def _mask(self, order: list[int]) -> Any:
        return ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)

    def add(self, x: Pair, y: Pair) -> Pair:
        return self.b.fadd(x[0], y[0]), self.b.fadd(x[1], y[1])

    def sub(self, x: Pair, y: Pair) -> Pair:
        return self.b.fsub(x[0], y[0]), self.b.fsub(x[1], y[1])

    def turn(self, x: Pair) -> Pair:
        """-i x; the minus sign goes into the next addition where LLVM can put it."""
        return x[1], self.b.fneg(x[0])

    def times(self, x: Pair, w: Pair) -> Pair:
        b = self.b
        find: Any = cgutils.get_or_insert_function
        fma = find(b.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{LANES}f32")
        real = b.call(fma, [x[0], w[0], b.fneg(b.fmul(x[1], w[1]))])
        return real, b.call(fma, [x[0], w[1], b.fmul(x[1], w[0])])

    def radix4(self, x: list[Pair]) -> list[Pair]:
        s, d = self.add(x[0], x[2]), self.sub(x[0], x[2])
        t, u = self.add(x[1], x[3]), self.sub(x[1], x[3])
        b = self.b  # d -+ i u
        down = b.fadd(d[0], u[1]), b.fsub(d[1], u[0])
        up = b.fsub(d[0], u[1]), b.fadd(d[1], u[0])
        return [self.add(s, t), down, self.sub(s, t), up]

    def radix8(self, x: list[Pair]) -> list[Pair]:
        b, half = self.b, self.spread(ir.Constant(_FLOAT, float(np.float32(0.5**0.5))))
        a = [self.add(x[i], x[i + 4]) for i in range(4)]
        d = [self.sub(x[i], x[i + 4]) for i in range(4)]
        # exp(-i pi/4) = (1 - i)/sqrt 2 and exp(-3 i pi/4) = -(1 + i)/sqrt 2
        d[1] = b.fmul(half, b.fadd(d[1][0], d[1][1])), b.fmul(half, b.fsub(d[1][1], d[1][0]))
        d[2] = self.turn(d[2])
        d[3] = b.fmul(half, b.fsub(d[3][1], d[3][0])), b.fneg(b.fmul(half, b.fadd(d[3][0], d[3][1])))
        even, odd = self.radix4(a), self.radix4(d)
        return [y for pair in zip(even, odd, strict=True) for y in pair]

    def transpose(self, rows: list[Any]) -> list[Any]:
        """Of a LANES x LANES tile, by interleaving the first half of the rows with the second, log2(LANES) times."""
        half = LANES // 2
        for _ in range(LANES.bit_length() - 1):
            pairs = [(rows[i], rows[i + half]) for i in range(half)]
            rows = [self.shuffle(a, b, order) for a, b in pairs for order in (_LOW, _HIGH)]
        return rows


def _vectors(function: Any) -> Any:
    """A function that compiled code calls and that emits its vector operations itself."""
    return intrinsic(function)


def _compiled(function: Any) -> Any:
    """Compiled with whatever calls it; no `fastmath`, so that it rounds the same in every caller."""
    return nb.njit(nogil=True, error_model="numpy")(function)


_EVEN, _ODD = list(range(0, _ROW, 2)), list(range(1, _ROW, 2))
_LOW = [i for k in range(LANES // 2) for i in (k, LANES + k)]
_HIGH = [i + LANES // 2 for i in _LOW]


def _butterfly(r: int, last: bool) -> Any:
    """butterfly(buffer, i, stride, twiddles, t): r rows of the buffer, from float i, `stride` floats apart, in place."""

    @_vectors
    def butterfly(typing: Any, buffer: Any, i: Any, stride: Any, twiddles: Any, t: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            code = _Code(context, builder)
            data, table = code.pointer(signature.args[0], args[0]), code.pointer(signature.args[3], args[3])
            where, index = [], args[1]
            for _ in range(r):
                where.append(index)
                index = builder.add(index, args[2])
            x = [(code.load(data, w), code.load(data, code.at(w, LANES))) for w in where]
            y = code.radix8(x) if r == 8 else code.radix4(x)
            for k in range(r):
                if k and not last:
                    factor = [builder.load(builder.gep(table, [code.at(args[4], 2 * (k - 1) + c)])) for c in (0, 1)]
                    y[k] = code.times(y[k], (code.spread(factor[0]), code.spread(factor[1])))
                code.store(y[k][0], data, where[k])
                code.store(y[k][1], data, code.at(where[k], LANES))
            return context.get_dummy_value()

        return types.void(buffer, types.intp, types.intp, twiddles, types.intp), emit

    return butterfly


_butterfly8, _butterfly4, _last8, _last4 = _butterfly(8, False), _butterfly(4, False), _butterfly(8, True), _butterfly(4, True)


@_vectors
def _split(typing: Any, source: Any, i: Any, buffer: Any, k: Any, swap: Any) -> Any:
    """LANES complex numbers from source[i] on into row k of the buffer: real parts to float `swap`, imaginary to the other."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder)
        data, rows = code.pointer(signature.args[0], args[0]), code.pointer(signature.args[2], args[2])
        first = builder.mul(args[1], ir.Constant(args[1].type, 2))
        a, b = code.load(data, first), code.load(data, code.at(first, LANES))
        start = builder.mul(args[3], ir.Constant(args[3].type, _ROW))
        other = builder.sub(ir.Constant(args[4].type, LANES), args[4])
        code.store(code.shuffle(a, b, _EVEN), rows, code.at(start, args[4]))
        code.store(code.shuffle(a, b, _ODD), rows, code.at(start, other))
        return context.get_dummy_value()

    return types.void(source, types.intp, buffer, types.intp, types.intp), emit


@_vectors
def _join(typing: Any, buffer: Any, k: Any, out: Any, i: Any, swap: Any) -> Any:
    """Row k of the buffer to out[i : i + LANES]."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder)
        rows, data = code.pointer(signature.args[0], args[0]), code.pointer(signature.args[2], args[2])
        start = builder.mul(args[1], ir.Constant(args[1].type, _ROW))
        other = builder.sub(ir.Constant(args[4].type, LANES), args[4])
        a, b = code.load(rows, code.at(start, args[4])), code.load(rows, code.at(start, other))
        first = builder.mul(args[3], ir.Constant(args[3].type, 2))
        code.store(code.shuffle(a, b, _LOW), data, first)
        code.store(code.shuffle(a, b, _HIGH), data, code.at(first, LANES))
        return context.get_dummy_value()

    return types.void(buffer, types.intp, out, types.intp, types.intp), emit


@_vectors
def _split_tile(typing: Any, source: Any, i: Any, width: Any, buffer: Any, k: Any, swap: Any) -> Any:
    """A LANES x LANES tile, its rows `width` apart from source[i] on, transposed into rows k, k + 1, ... of the buffer."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder)
        data, rows = code.pointer(signature.args[0], args[0]), code.pointer(signature.args[3], args[3])
        two = ir.Constant(args[1].type, 2)
        step, start = builder.mul(args[2], two), builder.mul(args[4], ir.Constant(args[4].type, _ROW))
        other = builder.sub(ir.Constant(args[5].type, LANES), args[5])
        for order, slot in ((_EVEN, args[5]), (_ODD, other)):
            lines, index = [], builder.mul(args[1], two)
            for _ in range(LANES):
                lines.append(code.shuffle(code.load(data, index), code.load(data, code.at(index, LANES)), order))
                index = builder.add(index, step)
            for r, line in enumerate(code.transpose(lines)):
                code.store(line, rows, code.at(code.at(start, slot), r * _ROW))
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, buffer, types.intp, types.intp), emit


@_vectors
def _join_tile(typing: Any, buffer: Any, places: Any, k: Any, out: Any, i: Any, width: Any, swap: Any, scale: Any) -> Any:
    """Rows places[k], places[k + 1], ... of the buffer, transposed and scaled, to a tile of `out` that starts at out[i]."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder)
        rows, data = code.pointer(signature.args[0], args[0]), code.pointer(signature.args[3], args[3])
        table = context.make_array(signature.args[1])(context, builder, args[1]).data
        other, factor = builder.sub(ir.Constant(args[6].type, LANES), args[6]), code.spread(args[7])
        parts = []
        for slot in (args[6], other):
            lines = []
            for r in range(LANES):
                place = builder.load(builder.gep(table, [code.at(args[2], r)]))
                start = builder.mul(place, ir.Constant(place.type, _ROW))
                lines.append(builder.fmul(code.load(rows, code.at(start, slot)), factor))
            parts.append(code.transpose(lines))
        index, step = builder.mul(args[4], ir.Constant(args[4].type, 2)), builder.mul(args[5], ir.Constant(args[5].type, 2))
        for a, b in zip(*parts, strict=True):
            code.store(code.shuffle(a, b, _LOW), data, index)
            code.store(code.shuffle(a, b, _HIGH), data, code.at(index, LANES))
            index = builder.add(index, step)
        return context.get_dummy_value()

    signature = types.void(buffer, places, types.intp, out, types.intp, types.intp, types.intp, types.float32)
    return signature, emit


# ---------------------------------------------------------------- transforms


@_compiled
def _lines(buffer: Array, n: int, t: int) -> None:
    """LANES transforms of length n, in place, digit-reversed; twiddles from t on."""
    length = n
    while length > 1:
        if length % 8 == 0 and length != 16:
            m = length // 8
            if m == 1:
                for base in range(0, n, 8):
                    _last8(buffer, base * _ROW, _ROW, TWIDDLES, 0)
            for j in range(m if m > 1 else 0):
                for base in range(0, n, length):
                    _butterfly8(buffer, (base + j) * _ROW, m * _ROW, TWIDDLES, t)
                t += 14
        else:
            m = length // 4
            if m == 1:
                for base in range(0, n, 4):
                    _last4(buffer, base * _ROW, _ROW, TWIDDLES, 0)
            for j in range(m if m > 1 else 0):
                for base in range(0, n, length):
                    _butterfly4(buffer, (base + j) * _ROW, m * _ROW, TWIDDLES, t)
                t += 6
        length = m


@_compiled
def _power(n: int) -> int:
    """log2(n) - 4 for the sides this file transforms, else -1."""
    if not WIDE or n < SMALLEST or n > LARGEST or n & (n - 1):
        return -1
    k = 0
    while n > 16:
        n >>= 1
        k += 1
    return k


@_compiled
def _columns(x: Array, z: Array, p: int, q: int, swap: int, buffer: Array, k: int) -> None:
    places = PLACES[PLACE_START[k] :]
    for column in range(0, q, LANES):
        for r in range(p):
            _split(x, r * q + column, buffer, r, swap)
        _lines(buffer, p, TWIDDLE_START[k])
        for r in range(p):
            _join(buffer, places[r], z, r * q + column, swap)


@_compiled
def _rows(x: Array, z: Array, top: int, bottom: int, q: int, swap: int, buffer: Array, k: int, scale: Any) -> None:
    places = PLACES[PLACE_START[k] :]
    for row in range(top - top % LANES, bottom, LANES):
        for column in range(0, q, LANES):
            _split_tile(x, row * q + column, q, buffer, column, swap)
        _lines(buffer, q, TWIDDLE_START[k])
        for column in range(0, q, LANES):
            _join_tile(buffer, places, column, z, row * q + column, q, swap, scale)


@_compiled
def fft2_small(a: Array, out: Array, forward: bool, top: int, bottom: int) -> bool:
    """Orthonormal 2-D FFT of contiguous (K, P, Q) complex64; `out` may be `a`. False, and nothing done, for other sides.

    Forward, rows outside top..bottom-1 must be zero in both arrays, and stay out of the first half of the work. Backward, they
    are not wanted, and left unfinished.
    """
    p, q = a.shape[1], a.shape[2]
    ky, kx = _power(p), _power(q)
    if ky < 0 or kx < 0:
        return False
    room = np.empty(max(p, q) * _ROW + 16, np.float32)
    buffer = room[(-room.ctypes.data % 64) // 4 :]  # vectors that straddle two cache lines take twice as long
    scale = np.float32(1 / np.sqrt(p * q))
    for mode in range(a.shape[0]):
        x, z = a[mode].reshape(-1), out[mode].reshape(-1)
        if forward:
            _rows(x, z, top, bottom, q, 0, buffer, kx, scale)
            _columns(z, z, p, q, 0, buffer, ky)
        else:
            _columns(x, z, p, q, LANES, buffer, ky)
            _rows(z, z, top, bottom, q, LANES, buffer, kx, scale)
    return True
