r"""FFT of small frames whose sides are powers of two, in explicit vectors: what pocketfft's 128-bit
code leaves unused.

`LANES` transforms run side by side, one in each lane of a vector, real and imaginary parts apart,
in a buffer that stays in the first-level cache. Columns are side by side already; rows are
transposed in registers on their way in and out. Each transform is in place, decimation in frequency
with radix 8 and 4 (Gentleman & Sande, AFIPS Proc. 29, 563 (1966)); its digit-reversed order is
undone as results are written. The inverse is the forward transform with real and imaginary parts
exchanged.

The operations are written out, not left to the compiler, so that rounding depends on the
processor's vectors alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from ...types import Array
from .linked import FLOATS, KEPT_WAVE_ROW, KEPT_WAVES, WAVE_ROW, WAVES, linked
from .vectors import (
    LANES,
    LINE,
    ROW,
    STRETCH,
    WIDE,
    ask,
    butterfly4,
    butterfly8,
    flat,
    join,
    join_tile,
    last4,
    last8,
    split,
    split_tile,
)

#: Sides that are transformed here.
SMALLEST, LARGEST = 16, 1024
#: No memory to be asked for.
NONE = (0, 0)


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
_START = {
    "twiddle": np.cumsum([0, *(len(_twiddles(n)) for n in _SIDES)]),
    "place": np.cumsum([0, *_SIDES]),
}
TWIDDLES, PLACES = (
    np.concatenate([_twiddles(n) for n in _SIDES]),
    np.concatenate([_places(n) for n in _SIDES]),
)
TWIDDLE_START, PLACE_START = (np.array(_START[name], np.int64) for name in ("twiddle", "place"))


# ---------------------------------------------------------------- transforms


@linked(types.void(FLOATS, types.intp, types.intp), error_model="numpy")
def lines(buffer: Array, n: int, t: int) -> None:
    """LANES transforms of length n, in place, digit-reversed; twiddles from t on."""
    length = n
    while length > 1:
        if length % 8 == 0 and length != 16:
            m = length // 8
            if m == 1:
                for base in range(0, n, 8):
                    last8(buffer, base * ROW, ROW, TWIDDLES, 0)
            for j in range(m if m > 1 else 0):
                for base in range(0, n, length):
                    butterfly8(buffer, (base + j) * ROW, m * ROW, TWIDDLES, t)
                t += 14
        else:
            m = length // 4
            if m == 1:
                for base in range(0, n, 4):
                    last4(buffer, base * ROW, ROW, TWIDDLES, 0)
            for j in range(m if m > 1 else 0):
                for base in range(0, n, length):
                    butterfly4(buffer, (base + j) * ROW, m * ROW, TWIDDLES, t)
                t += 6
        length = m


@linked(types.intp(types.intp), error_model="numpy")
def power(n: int) -> int:
    """log2(n) - 4 for the sides this file transforms, else -1."""
    if not WIDE or n < SMALLEST or n > LARGEST or n & (n - 1):
        return -1
    k = 0
    while n > 16:
        n >>= 1
        k += 1
    return k


@linked(
    types.void(KEPT_WAVE_ROW, WAVE_ROW, *[types.intp] * 3, FLOATS, types.intp), error_model="numpy"
)
def columns(x: Array, z: Array, p: int, q: int, swap: int, buffer: Array, k: int) -> None:
    places = PLACES[PLACE_START[k] :]
    for column in range(0, q, LANES):
        for r in range(p):
            split(x, r * q + column, buffer, r, swap)
        lines(buffer, p, TWIDDLE_START[k])
        for r in range(p):
            join(buffer, places[r], z, r * q + column, swap)


@linked(
    types.void(
        KEPT_WAVE_ROW,
        WAVE_ROW,
        *[types.intp] * 4,
        FLOATS,
        types.intp,
        types.float32,
        *[STRETCH] * 2,
    ),
    error_model="numpy",
)
def rows(
    x: Array,
    z: Array,
    top: int,
    bottom: int,
    q: int,
    swap: int,
    buffer: Array,
    k: int,
    scale: Any,
    soon: tuple[int, int],
    later: tuple[int, int],
) -> None:
    """Meanwhile the contents of `soon` and `later` are asked for, a tile's share at a time: memory
    answers while we calculate, and a hundred lines asked for at once would only wait for each
    other."""
    places = PLACES[PLACE_START[k] :]
    first = top - top % LANES
    tiles = (bottom - first + LANES - 1) // LANES * (q // LANES)
    wanted, after, tile = -(-soon[1] // LINE), -(-later[1] // LINE), 0
    for row in range(first, bottom, LANES):
        for column in range(0, q, LANES):
            split_tile(x, row * q + column, q, buffer, column, swap)
            for n in range(tile * wanted // tiles, (tile + 1) * wanted // tiles):
                ask(soon[0], n)
            tile += 1
        tile -= q // LANES
        lines(buffer, q, TWIDDLE_START[k])
        for column in range(0, q, LANES):
            join_tile(buffer, places, column, z, row * q + column, q, swap, scale)
            for n in range(tile * after // tiles, (tile + 1) * after // tiles):
                ask(later[0], n)
            tile += 1


@linked(
    types.boolean(KEPT_WAVES, WAVES, types.boolean, *[types.intp] * 2, *[STRETCH] * 2),
    error_model="numpy",
)
def fft2_small(
    a: Array,
    out: Array,
    forward: bool,
    top: int,
    bottom: int,
    soon: tuple[int, int],
    later: tuple[int, int],
) -> bool:
    """Orthonormal 2-D FFT of contiguous (K, P, Q) complex64; `out` may be `a`. False, and nothing
    done, for other sides.

    Forward, rows outside top..bottom-1 must be zero in both arrays, and stay out of the first half
    of the work. Backward, they are not wanted, and left unfinished. `soon` and `later` are
    stretches of memory wanted next; NONE if none.
    """
    p, q = a.shape[1], a.shape[2]
    ky, kx = power(p), power(q)
    if ky < 0 or kx < 0:
        return False
    room = np.empty(max(p, q) * ROW + 16, np.float32)
    buffer = room[
        (-room.ctypes.data % 64) // 4 :
    ]  # vectors that straddle two cache lines take twice as long
    scale = np.float32(1 / np.sqrt(p * q))
    before, after = flat(a), flat(out)
    for mode in range(a.shape[0]):
        x, z = before[mode * p * q :], after[mode * p * q :]
        if forward:
            rows(x, z, top, bottom, q, 0, buffer, kx, scale, soon, later)
            columns(z, z, p, q, 0, buffer, ky)
        else:
            columns(x, z, p, q, LANES, buffer, ky)
            rows(z, z, top, bottom, q, LANES, buffer, kx, scale, soon, later)
    return True
