"""Values of frames that are no measurement: what detectors and programs write into pixels that have
none.

    not finite      NaN and infinities
    end of range    the largest value of an integer type, and 2^16 - 2, 2^32 - 2 in types of 16 and
                    32 bits, where detectors
                    mark gaps, broken and overflown pixels; 2^32 - 1 and 2^32 - 2 in wider types as
                    well, as copies keep them
    saturated       above the value that the file states (`saturation`)
    negative        counts are not negative: -1, -2 and the like are marks

Negative values are marks only where they can be nothing else. Where a dark level was subtracted
they are noise, and without them the mean is wrong. Noise lies below zero now and then, in many
pixels and in most of the frames, at many different values; marks stand in few pixels or always in
the same ones, at few values (`MARKS`). So a sample of the frames decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..types import Array, BoolArray

#: Frames, and bytes of frames in float32, that decide what negative values are.
SAMPLE_FRAMES, SAMPLE_BYTES = 32, 2**26
#: Different negative values that may be marks.
MARKS = 3
#: Share of the pixels below zero now and then, above which whole numbers below zero are noise.
SCATTERED = 0.01
#: Negative values that are so small a share of all the counts come from rounding.
ROUNDING = 1e-6
#: Marks of detectors of 32 bits, and the first of them as float32 keeps it.
_WIDE = (2.0**32 - 2, 2.0**32 - 1, 2.0**32)

NOT_FINITE, TOP, SATURATED, NEGATIVE = (
    "not finite",
    "at the end of the range",
    "saturated",
    "negative",
)


@dataclass(frozen=True)
class BadValues:
    """Which values of a stack of frames are no measurement.

    Attributes
    ----------
    dtype : dtype of the frames
    saturation : float or None
        Larger values are bad.
    noise : float
        Root mean square of the negative values, where these are noise and stay; else 0.
    share : float
        Share of the sampled values that are negative by noise.
    same : (P, Q) bool array or None
        Pixels with the same negative value in all frames, which alone are bad where other negative
        values are noise.
    """

    dtype: Any
    saturation: float | None = None
    noise: float = 0.0
    share: float = 0.0
    same: BoolArray | None = None

    @classmethod
    def of(
        cls, frames: Array, *, saturation: float | None = None, mask: BoolArray | None = None
    ) -> BadValues:
        """The rule for a stack of frames.

        Parameters
        ----------
        frames : (N, P, Q) array, perhaps lazy
            Where its type has negative values, neighbouring frames from the middle are looked at.
        saturation : float, optional
        mask : (P, Q) or (N, P, Q) bool array, optional
            True where a pixel is valid; others decide nothing.
        """
        dtype = np.dtype(frames.dtype)
        if dtype.kind in "ub":
            return cls(dtype, saturation)
        n, (p, q) = int(frames.shape[0]), frames.shape[1:]
        count = min(n, SAMPLE_FRAMES, max(4, SAMPLE_BYTES // (4 * p * q)))
        first = (n - count) // 2
        sample = np.asarray(frames[first : first + count])
        valid: Any = (
            True if mask is None else mask if mask.ndim == 2 else mask[first : first + count]
        )
        with np.errstate(invalid="ignore"):
            negative = (sample < 0) & np.isfinite(sample) & valid
        subtracted = bool(getattr(frames, "subtracted", False))
        if not (negative.any() or subtracted):
            return cls(dtype, saturation)
        same = negative.all(axis=0) & (sample == sample[0]).all(axis=0) & (not subtracted)
        rest = negative & ~same
        low = sample[rest]
        if not subtracted and (not low.size or not _is_noise(sample, rest, low)):
            return cls(dtype, saturation)
        if not low.size:
            return cls(dtype, saturation, same=same)
        levels = np.unique(low[: 2**16])
        if (
            len(levels) <= MARKS
        ):  # what stands in dark pixels always and elsewhere now and then is a level
            same &= ~np.isin(sample[0], levels)
        rms = math.sqrt(float(np.mean(np.square(low, dtype=np.float64))))
        return cls(dtype, saturation, rms, float(rest.mean()), same)

    @property
    def tops(self) -> tuple[float, ...]:
        """The values at the end of the range."""
        if self.dtype.kind == "b":
            return ()
        if self.dtype.kind == "f":
            return (*_WIDE, float(np.finfo(self.dtype).max))
        largest, bits = int(np.iinfo(self.dtype).max), 8 * self.dtype.itemsize
        marks = {largest, largest - 1} if self.dtype.kind == "u" and bits in (16, 32) else {largest}
        return tuple(
            sorted(float(m) for m in (marks if bits <= 32 else marks | {2**32 - 2, 2**32 - 1}))
        )

    def find(self, block: Any) -> dict[str, BoolArray]:
        """Bad values of a block of frames (B, P, Q) by what they are; only what occurs. They do not
        overlap.
        """
        found: dict[str, BoolArray] = {}
        if not block.size or self.dtype.kind == "b":
            return found
        if self.dtype.kind == "f":
            wrong = ~np.isfinite(block)
            if wrong.any():
                found[NOT_FINITE] = wrong
                block = np.where(wrong, 0, block)
        largest, tops = float(block.max()), self.tops
        end: Any = False
        if largest >= tops[0]:
            # compared in the type itself: large integers are not exact as floats
            ends = [
                block == block.dtype.type(_whole(top) if self.dtype.kind in "ui" else top)
                for top in tops
            ]
            end = np.logical_or.reduce(ends)
            if end.any():
                found[TOP] = end
        if self.saturation is not None and largest > self.saturation:
            high = (block > self.saturation) & ~np.asarray(end)
            if high.any():
                found[SATURATED] = high
        if self.dtype.kind in "if" and block.min() < 0:
            low = block < 0 if self.same is None else (block < 0) & self.same
            if low.any():
                found[NEGATIVE] = low
        return found

    def bad(self, block: Any) -> BoolArray | None:
        """True where a value of the block is bad, (B, P, Q); None where none is."""
        found = self.find(block)
        return np.asarray(np.logical_or.reduce(list(found.values()))) if found else None


def _whole(top: float) -> int:
    return int(top) if top < 2**62 else 2**63 - 1 if top < 2**63.5 else 2**64 - 1


def _is_noise(sample: Any, rest: BoolArray, low: Any) -> bool:
    """Whether negative values `low`, at `rest` of the sample, are noise rather than marks."""
    few = len(np.unique(low[: 2**16])) <= MARKS
    if sample.dtype.kind == "f":
        finite = sample[np.isfinite(sample)]
        if (finite != np.rint(finite)).any():
            return not few
    scattered = float(rest.any(axis=0).mean()) > SCATTERED
    return scattered and float(np.median(rest.any(axis=(1, 2)))) > 0


def without_bad(
    block: Any, rule: BadValues, mask: BoolArray | None, signed: bool
) -> tuple[Any, BoolArray | None]:
    """Frames in memory with 0 for bad values, and the mask without them; for parts of a scan that
    are used many times.

    Parameters
    ----------
    block : (B, P, Q) array
    rule : BadValues
        Of the whole scan.
    mask : (P, Q) or (B, P, Q) bool array, optional
    signed : bool
        Whether negative values that are noise are to stay; else they become 0.
    """
    bad = rule.bad(block)
    if bad is not None:
        block, good = np.where(bad, block.dtype.type(0), block), ~bad
        good = good[0] if (good == good[0]).all() else good
        mask = good if mask is None else mask & good
    return (np.maximum(block, 0) if rule.noise and not signed else block), mask


@dataclass
class Tally:
    """Counts of the bad values of a stack, block by block, and the sentence about them.

    Attributes
    ----------
    always, ever : (P, Q) bool arrays
        Pixels that are bad in all frames and in any.
    """

    rule: BadValues
    always: BoolArray
    ever: BoolArray
    frames: int = 0
    frames_hit: int = 0
    values: dict[str, int] = field(default_factory=dict)
    examples: dict[str, set[float]] = field(default_factory=dict)

    @classmethod
    def new(cls, rule: BadValues, shape: tuple[int, int]) -> Tally:
        return cls(rule, np.ones(shape, bool), np.zeros(shape, bool))

    def add(self, block: Any, valid: BoolArray | None = None) -> BoolArray | None:
        """Bad values of a block (B, P, Q), counted where `valid`; None where there are none."""
        found = self.rule.find(block)
        self.frames += len(block)
        if valid is not None:
            found = {kind: where & valid for kind, where in found.items()}
        found = {kind: where for kind, where in found.items() if where.any()}
        if not found:
            self.always[:] = False
            return None
        bad: BoolArray = np.logical_or.reduce(list(found.values()))
        self.always &= bad.all(axis=0)
        self.ever |= bad.any(axis=0)
        self.frames_hit += int(np.count_nonzero(bad.any(axis=(1, 2))))
        for kind, where in found.items():
            self.values[kind] = self.values.get(kind, 0) + int(np.count_nonzero(where))
            if kind != NOT_FINITE:
                seen = self.examples.setdefault(kind, set())
                seen.update(float(v) for v in np.unique(block[where][:4096])[:3])
        return bad

    @property
    def still(self) -> bool:
        """Whether the same pixels are bad in all frames."""
        return bool((self.always == self.ever).all())

    @property
    def sentence(self) -> str:
        """How many pixels are bad in how many frames, and why; empty if there are none."""
        if not self.frames or not self.values:
            return ""
        why = ", ".join(self._kind(kind) for kind in self.values)
        fixed, size = int(self.always.sum()), self.always.size
        rest = sum(self.values.values()) - fixed * self.frames
        often = f"{self.frames_hit if not fixed else 'some'} of {self.frames} frames"
        sometimes = f"{int((self.ever & ~self.always).sum())} in {often} ({rest} values)"
        if not fixed:
            return f"of {size} pixels {sometimes} are bad and masked there: {why}"
        more = f", and another {sometimes}," if rest else ""
        return (
            f"{fixed} of {size} pixels are bad in all {self.frames} frames{more} and masked: {why}"
        )

    def _kind(self, kind: str) -> str:
        values = sorted(self.examples.get(kind, ()))
        named = ", ".join(f"{v:.10g}" for v in values[:3])
        if kind == NEGATIVE:
            return f"negative values ({named})"
        if kind == SATURATED:
            return f"values above the saturation at {self.rule.saturation:g}"
        if kind == TOP:
            return f"values at the end of the range ({named})"
        return "values that are not finite"
