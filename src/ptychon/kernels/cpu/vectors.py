r"""Vector operations that compiled code calls, written out in LLVM's language instead of left to
its vectoriser.

A "row" of a buffer is LANES real parts and then LANES imaginary ones: `LANES` transforms run side
by side, one in each lane. `swap` is 0, or LANES to exchange real and imaginary parts.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array


def _features() -> set[str]:
    """What the processor that Numba compiles for has; nothing where that is unknown."""
    config: Any = nb.config
    asked = config.CPU_FEATURES
    if asked is None and config.CPU_NAME in (
        None,
        "",
        "host",
        llvmlite.binding.get_host_cpu_name(),
    ):
        try:
            asked = llvmlite.binding.get_host_cpu_features().flatten()
        except RuntimeError:  # LLVM does not know this processor
            asked = ""
    return {name[1:] for name in (asked or "").split(",") if name.startswith("+")}


_FOUND = _features()
LANES = 16 if "avx512f" in _FOUND else 8
#: Whether transforms run here at all: with 128-bit vectors pocketfft is as good. Without fused
#: multiplication and addition LLVM would call a library function for each.
WIDE = {"avx2", "fma"} <= _FOUND
VECTOR, FLOAT = ir.VectorType(ir.FloatType(), LANES), ir.FloatType()
ROW = 2 * LANES
#: Bytes of a cache line.
LINE = 64
Pair = tuple[Any, Any]
#: Where a stretch of memory begins and how many bytes it has.
STRETCH: Any = types.UniTuple(types.intp, 2)  # type: ignore[no-untyped-call]


class Code:
    """Emits vector operations into a function that is being compiled."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.context, self.b = context, builder

    def pointer(self, array: Any, value: Any) -> Any:
        data = self.context.make_array(array)(self.context, self.b, value).data
        return self.b.bitcast(data, FLOAT.as_pointer())

    def at(self, index: Any, extra: Any) -> Any:
        return self.b.add(
            index, extra if isinstance(extra, ir.Value) else ir.Constant(index.type, extra)
        )

    def load(self, pointer: Any, index: Any) -> Any:
        where = self.b.bitcast(self.b.gep(pointer, [index]), VECTOR.as_pointer())
        return self.b.load(where, align=4)

    def store(self, value: Any, pointer: Any, index: Any) -> None:
        where = self.b.bitcast(self.b.gep(pointer, [index]), VECTOR.as_pointer())
        self.b.store(value, where, align=4)

    def spread(self, scalar: Any) -> Any:
        one = self.b.insert_element(
            ir.Constant(VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
        )
        return self.b.shuffle_vector(
            one, ir.Constant(VECTOR, ir.Undefined), self._mask([0] * LANES)
        )

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

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        find: Any = cgutils.get_or_insert_function
        function = find(
            self.b.module, ir.FunctionType(VECTOR, [VECTOR] * 3), f"llvm.fma.v{LANES}f32"
        )
        return self.b.call(function, [x, y, z])

    def times(self, x: Pair, w: Pair) -> Pair:
        b = self.b
        return self.fma(x[0], w[0], b.fneg(b.fmul(x[1], w[1]))), self.fma(
            x[0], w[1], b.fmul(x[1], w[0])
        )

    def radix4(self, x: list[Pair]) -> list[Pair]:
        s, d = self.add(x[0], x[2]), self.sub(x[0], x[2])
        t, u = self.add(x[1], x[3]), self.sub(x[1], x[3])
        b = self.b  # d -+ i u
        down = b.fadd(d[0], u[1]), b.fsub(d[1], u[0])
        up = b.fsub(d[0], u[1]), b.fadd(d[1], u[0])
        return [self.add(s, t), down, self.sub(s, t), up]

    def radix8(self, x: list[Pair]) -> list[Pair]:
        b, half = self.b, self.spread(ir.Constant(FLOAT, float(np.float32(0.5**0.5))))
        a = [self.add(x[i], x[i + 4]) for i in range(4)]
        d = [self.sub(x[i], x[i + 4]) for i in range(4)]
        # exp(-i pi/4) = (1 - i)/sqrt 2 and exp(-3 i pi/4) = -(1 + i)/sqrt 2
        d[1] = b.fmul(half, b.fadd(d[1][0], d[1][1])), b.fmul(half, b.fsub(d[1][1], d[1][0]))
        d[2] = self.turn(d[2])
        d[3] = (
            b.fmul(half, b.fsub(d[3][1], d[3][0])),
            b.fneg(b.fmul(half, b.fadd(d[3][0], d[3][1]))),
        )
        even, odd = self.radix4(a), self.radix4(d)
        return [y for pair in zip(even, odd, strict=True) for y in pair]

    def transpose(self, rows: list[Any]) -> list[Any]:
        """Of a LANES x LANES tile, by interleaving the first half of the rows with the second,
        log2(LANES) times.
        """
        half = LANES // 2
        for _ in range(LANES.bit_length() - 1):
            pairs = [(rows[i], rows[i + half]) for i in range(half)]
            rows = [self.shuffle(a, b, order) for a, b in pairs for order in (_LOW, _HIGH)]
        return rows


def vectors(function: Any) -> Any:
    """A function that compiled code calls and that emits its vector operations itself."""
    return intrinsic(function)


_EVEN, _ODD = list(range(0, ROW, 2)), list(range(1, ROW, 2))
_LOW = [i for k in range(LANES // 2) for i in (k, LANES + k)]
_HIGH = [i + LANES // 2 for i in _LOW]


def _butterfly(r: int, last: bool) -> Any:
    """butterfly(buffer, i, stride, twiddles, t): r rows of the buffer, from float i, `stride`
    floats apart, in place.
    """

    @vectors
    def butterfly(typing: Any, buffer: Any, i: Any, stride: Any, twiddles: Any, t: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            code = Code(context, builder)
            data, table = (
                code.pointer(signature.args[0], args[0]),
                code.pointer(signature.args[3], args[3]),
            )
            where, index = [], args[1]
            for _ in range(r):
                where.append(index)
                index = builder.add(index, args[2])
            x = [(code.load(data, w), code.load(data, code.at(w, LANES))) for w in where]
            y = code.radix8(x) if r == 8 else code.radix4(x)
            for k in range(r):
                if k and not last:
                    factor = [
                        builder.load(builder.gep(table, [code.at(args[4], 2 * (k - 1) + c)]))
                        for c in (0, 1)
                    ]
                    y[k] = code.times(y[k], (code.spread(factor[0]), code.spread(factor[1])))
                code.store(y[k][0], data, where[k])
                code.store(y[k][1], data, code.at(where[k], LANES))
            return context.get_dummy_value()

        return types.void(buffer, types.intp, types.intp, twiddles, types.intp), emit

    return butterfly


butterfly8, butterfly4, last8, last4 = (
    _butterfly(8, False),
    _butterfly(4, False),
    _butterfly(8, True),
    _butterfly(4, True),
)


@vectors
def split(typing: Any, source: Any, i: Any, buffer: Any, k: Any, swap: Any) -> Any:
    """LANES complex numbers from source[i] on into row k of the buffer: real parts to float `swap`,
    imaginary to the other.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = Code(context, builder)
        data, rows = (
            code.pointer(signature.args[0], args[0]),
            code.pointer(signature.args[2], args[2]),
        )
        first = builder.mul(args[1], ir.Constant(args[1].type, 2))
        a, b = code.load(data, first), code.load(data, code.at(first, LANES))
        start = builder.mul(args[3], ir.Constant(args[3].type, ROW))
        other = builder.sub(ir.Constant(args[4].type, LANES), args[4])
        code.store(code.shuffle(a, b, _EVEN), rows, code.at(start, args[4]))
        code.store(code.shuffle(a, b, _ODD), rows, code.at(start, other))
        return context.get_dummy_value()

    return types.void(source, types.intp, buffer, types.intp, types.intp), emit


@vectors
def join(typing: Any, buffer: Any, k: Any, out: Any, i: Any, swap: Any) -> Any:
    """Row k of the buffer to out[i : i + LANES]."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = Code(context, builder)
        rows, data = (
            code.pointer(signature.args[0], args[0]),
            code.pointer(signature.args[2], args[2]),
        )
        start = builder.mul(args[1], ir.Constant(args[1].type, ROW))
        other = builder.sub(ir.Constant(args[4].type, LANES), args[4])
        a, b = code.load(rows, code.at(start, args[4])), code.load(rows, code.at(start, other))
        first = builder.mul(args[3], ir.Constant(args[3].type, 2))
        code.store(code.shuffle(a, b, _LOW), data, first)
        code.store(code.shuffle(a, b, _HIGH), data, code.at(first, LANES))
        return context.get_dummy_value()

    return types.void(buffer, types.intp, out, types.intp, types.intp), emit


@vectors
def split_tile(typing: Any, source: Any, i: Any, width: Any, buffer: Any, k: Any, swap: Any) -> Any:
    """A LANES x LANES tile, its rows `width` apart from source[i] on, transposed into rows k, k +
    1, ... of the buffer.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = Code(context, builder)
        data, rows = (
            code.pointer(signature.args[0], args[0]),
            code.pointer(signature.args[3], args[3]),
        )
        two = ir.Constant(args[1].type, 2)
        step, start = (
            builder.mul(args[2], two),
            builder.mul(args[4], ir.Constant(args[4].type, ROW)),
        )
        other = builder.sub(ir.Constant(args[5].type, LANES), args[5])
        for order, slot in ((_EVEN, args[5]), (_ODD, other)):
            lines, index = [], builder.mul(args[1], two)
            for _ in range(LANES):
                lines.append(
                    code.shuffle(
                        code.load(data, index), code.load(data, code.at(index, LANES)), order
                    )
                )
                index = builder.add(index, step)
            for r, line in enumerate(code.transpose(lines)):
                code.store(line, rows, code.at(code.at(start, slot), r * ROW))
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, buffer, types.intp, types.intp), emit


@vectors
def join_tile(
    typing: Any,
    buffer: Any,
    places: Any,
    k: Any,
    out: Any,
    i: Any,
    width: Any,
    swap: Any,
    scale: Any,
) -> Any:
    """Rows places[k], places[k + 1], ... of the buffer, transposed and scaled, to a tile of `out`
    that starts at out[i].
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = Code(context, builder)
        rows, data = (
            code.pointer(signature.args[0], args[0]),
            code.pointer(signature.args[3], args[3]),
        )
        table = context.make_array(signature.args[1])(context, builder, args[1]).data
        other, factor = builder.sub(ir.Constant(args[6].type, LANES), args[6]), code.spread(args[7])
        parts = []
        for slot in (args[6], other):
            lines = []
            for r in range(LANES):
                place = builder.load(builder.gep(table, [code.at(args[2], r)]))
                start = builder.mul(place, ir.Constant(place.type, ROW))
                lines.append(builder.fmul(code.load(rows, code.at(start, slot)), factor))
            parts.append(code.transpose(lines))
        index, step = (
            builder.mul(args[4], ir.Constant(args[4].type, 2)),
            builder.mul(args[5], ir.Constant(args[5].type, 2)),
        )
        for a, b in zip(*parts, strict=True):
            code.store(code.shuffle(a, b, _LOW), data, index)
            code.store(code.shuffle(a, b, _HIGH), data, code.at(index, LANES))
            index = builder.add(index, step)
        return context.get_dummy_value()

    signature = types.void(
        buffer, places, types.intp, out, types.intp, types.intp, types.intp, types.float32
    )
    return signature, emit


@vectors
def stretch(typing: Any, array: Any) -> Any:
    """Where the data of an array in C order begin and how many bytes they are: for `ask`, to which
    no type matters.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = context.make_array(signature.args[0])(context, builder, args[0])
        data = builder.ptrtoint(found.data, context.get_value_type(types.intp))
        size = builder.mul(found.nitems, found.itemsize)
        return context.make_tuple(builder, STRETCH, (data, size))

    return STRETCH(array), emit


@vectors
def flat(typing: Any, array: Any) -> Any:
    """All of an array in C order as one row, which lives no longer than the array."""
    row = types.Array(array.dtype, 1, "C", readonly=not array.mutable)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = context.make_array(signature.args[0])(context, builder, args[0])
        out = context.make_array(row)(context, builder)
        fill: Any = populate_array
        fill(
            out,
            data=found.data,
            shape=[found.nitems],
            strides=[found.itemsize],
            itemsize=found.itemsize,
            meminfo=None,
        )
        return out._getvalue()

    return row(array), emit


@vectors
def clear(typing: Any, array: Any) -> Any:
    """Set an array in C order to zero."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = context.make_array(signature.args[0])(context, builder, args[0])
        size = builder.mul(found.nitems, found.itemsize)
        tools: Any = cgutils
        tools.memset(builder, found.data, size, 0)
        return context.get_dummy_value()

    return types.void(array), emit


@vectors
def ask(typing: Any, place: Any, line: Any) -> Any:
    """Ask for cache line `line` from an address on, to be in the second-level cache when it is
    wanted. Changes nothing else.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, whole = ir.IntType(8).as_pointer(), ir.IntType(32)
        data = builder.inttoptr(args[0], byte)
        find: Any = cgutils.get_or_insert_function
        kind = ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole])
        where = builder.gep(data, [builder.mul(args[1], ir.Constant(args[1].type, LINE))])
        builder.call(
            find(builder.module, kind, "llvm.prefetch.p0i8"), [where, whole(0), whole(2), whole(1)]
        )
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), emit
