"""The unknowns of a scan in one record: an estimate, and also a gradient, a step, a standard
deviation or a draw.

A field declares once what it is: the letters of its shape, its kind of number, and whether all
frames share it or each has its own. Every method goes over the fields, so a new unknown is one line
here and its derivative in one part of the model.

Letters, beside those of `ptychon.types`: S slices, M variations of the probe, (R, C) pixels of a
measured frame, which are (P, Q) unless the detector adds pixels up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cache
from operator import attrgetter
from typing import Any

import numpy as np

from ..kernels.reference import namespace
from ..types import Array, FloatArray, PtychonError

#: Types of the kinds of numbers, in single and in double precision. Positions are large and matter
#: to 1/100 px.
KINDS: dict[str, dict[str, np.dtype[Any]]] = {
    "complex": {"single": np.dtype(np.complex64), "double": np.dtype(np.complex128)},
    "real": {"single": np.dtype(np.float32), "double": np.dtype(np.float64)},
    "position": {"single": np.dtype(np.float64), "double": np.dtype(np.float64)},
}


#: Type of the parts of a complex number.
REALS = {"F": np.dtype(np.float32), "D": np.dtype(np.float64)}


@dataclass(frozen=True)
class Declared:
    """What a field of `Unknowns` is: letters of its shape, kind of number (of `KINDS`), whether
    each frame has its own.
    """

    letters: tuple[str, ...]
    kind: str
    per_frame: bool


def shared(letters: str, kind: str) -> dict[str, Declared]:
    """Metadata of a field that all frames see."""
    return {"declared": Declared(tuple(letters.split()), kind, False)}


def per_frame(letters: str, kind: str) -> dict[str, Declared]:
    """Metadata of a field with a row for each frame; the first letter is N."""
    return {"declared": Declared(tuple(letters.split()), kind, True)}


@dataclass(slots=True, kw_only=True)
class Unknowns:
    """Everything about a scan that may have to be found. A field is None where there is no such
    unknown, or no change of it.

    Attributes
    ----------
    object : (S, H, W) complex
        Transmission of each slice; one slice is the usual thin object.
    probe : (K, P, Q) complex
        Modes, which add in intensity; mode 0 is the one that varies.
    positions : (N, 2) float64
        Probe centres (y, x) in object pixels, fractions included; None where every probe sits on
        its window's pixels.
    log_scale : (N,) real
        a of each frame: its probe is exp(a) times as strong.
    variations : (M, P, Q) complex
        What may be added to mode 0 of the probe.
    weights : (N, M) real
        How much of each variation a frame has.
    background : (R, C) real
        Counts that come from no wave, beside those that the detector knows of.
    distance : (1,) real
        Of a near field: by how much longer the way from the object to the detector is than the
        propagator has it, in units of the distance that is stated.
    """

    object: Array = field(default=None, metadata=shared("S H W", "complex"))
    probe: Array = field(default=None, metadata=shared("K P Q", "complex"))
    positions: Array = field(default=None, metadata=per_frame("N 2", "position"))
    log_scale: Array = field(default=None, metadata=per_frame("N", "real"))
    variations: Array = field(default=None, metadata=shared("M P Q", "complex"))
    weights: Array = field(default=None, metadata=per_frame("N M", "real"))
    background: Array = field(default=None, metadata=shared("R C", "real"))
    distance: Array = field(default=None, metadata=shared("1", "real"))

    # ------------------------------------------------------------ what there is

    def each(self) -> Iterator[tuple[str, Array]]:
        """Names and arrays of the fields that are there."""
        # not a loop of its own: solvers ask thousands of times
        found = zip(_NAMES, _VALUES(self), strict=True)
        return iter([pair for pair in found if pair[1] is not None])

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that are there."""
        return tuple(name for name, _ in self.each())

    @property
    def precision(self) -> str:
        """ "single" or "double": that of the first field whose kind tells."""
        for name, array in self.each():
            kind = declared()[name].kind
            if kind != "position":
                return "double" if array.dtype == KINDS[kind]["double"] else "single"
        return "single"

    def sizes(self) -> dict[str, int]:
        """What each letter stands for, {"S": 1, "H": 200, ...}.

        Raises
        ------
        PtychonError
            If an array has the wrong number of axes, or two disagree.
        """
        found: dict[str, tuple[int, str]] = {}
        for name, array in self.each():
            letters = declared()[name].letters
            fixed = all(
                int(n) == size for n, size in zip(letters, array.shape, strict=False) if n.isdigit()
            )
            if len(array.shape) != len(letters) or not fixed:
                raise PtychonError(
                    f"{name} has shape {tuple(array.shape)}; it must be ({', '.join(letters)})"
                )
            for letter, size in zip(letters, array.shape, strict=True):
                known, owner = found.setdefault(letter, (int(size), name))
                if known != size:
                    raise PtychonError(
                        f"{name} has {letter} = {size}, but {owner} has {letter} = {known}; "
                        "make them agree"
                    )
        return {letter: size for letter, (size, _) in found.items() if not letter.isdigit()}

    # ------------------------------------------------------------ others like it

    def map(self, change: Callable[[Array], Array]) -> Unknowns:
        """The same with a function applied to each array."""
        return replace(self, **{name: change(array) for name, array in self.each()})

    def only(self, names: Collection[str]) -> Unknowns:
        """The same arrays, of the fields named; the others are None.

        Raises
        ------
        PtychonError
            If one is not there.
        """
        there = dict(self.each())
        for name in names:
            if name not in there:
                known = ", ".join(there)
                raise PtychonError(
                    f"there is no unknown {name!r} in this estimate, which has {known}; give it "
                    "a start first"
                )
        return Unknowns(**{name: array for name, array in there.items() if name in names})

    def zeros(self, names: Collection[str] | None = None) -> Unknowns:
        """No change of the unknowns named, or of all that are there."""
        chosen = self if names is None else self.only(names)
        return chosen.map(lambda array: namespace(array).zeros_like(array))

    def copy(self) -> Unknowns:
        """Arrays of its own."""
        return self.map(lambda array: array.copy())

    def to(self, backend: Any) -> Unknowns:
        """The same on a backend's device."""
        return self.map(backend.asarray)

    def on_host(self, backend: Any) -> Unknowns:
        """The same as NumPy arrays."""
        return self.map(backend.to_host)

    def astype(self, precision: str) -> Unknowns:
        """The same in "single" or "double" precision."""
        cast = {
            n: a.astype(KINDS[declared()[n].kind][precision], copy=False) for n, a in self.each()
        }
        return replace(self, **cast)

    def select(self, frames: Any) -> Unknowns:
        """The same for some of the frames (an index array, slice or boolean array): their rows, and
        all that is shared.
        """
        rows = {name: array[frames] for name, array in self.each() if declared()[name].per_frame}
        return replace(self, **rows)

    def put(self, frames: Any, part: Unknowns) -> None:
        """Write the rows of `part` to some of the frames, in place: the opposite of `select`."""
        for name, rows in part.each():
            if declared()[name].per_frame:
                getattr(self, name)[frames] = rows

    # ------------------------------------------------------------ algebra

    def axpy(self, factor: Any, other: Unknowns) -> Unknowns:
        """self + factor other, in the precision of each field; a field that one of the two lacks is
        0 in it.
        """
        total = dict(self.each())
        for name, step in other.each():
            start = total.get(name)
            same = step.dtype if start is None else start.dtype
            part = step if isinstance(factor, int) and factor == 1 else factor * step
            total[name] = (part if start is None else start + part).astype(same, copy=False)
        return Unknowns(**total)

    def add(self, factor: Array, other: Unknowns) -> None:
        """self += factor other in place, for a real factor; `other` has no fields beside those of
        this one.
        """
        for name, step in other.each():
            a, b = _reals(getattr(self, name), step)
            a += b if isinstance(factor, int) and factor == 1 else factor * b

    def turn(self, factor: Array, other: Unknowns) -> None:
        """self <- factor self + other in place, likewise."""
        for name, step in other.each():
            a, b = _reals(getattr(self, name), step)
            a *= factor
            a += b

    def times(self, factor: Any) -> Unknowns:
        """factor self: a number, or `Unknowns` of factors for the fields that both have."""
        if isinstance(factor, Unknowns):
            found = {}
            for name, array in self.each():
                by = getattr(factor, name)
                if by is not None:
                    found[name] = (array * by).astype(array.dtype, copy=False)
            return Unknowns(**found)
        return self.map(lambda array: (factor * array).astype(array.dtype, copy=False))

    def dot(self, other: Unknowns) -> Array:
        """Re <self, other> over the fields both have, rows of pixels summed in double precision;
        0-d, where the arrays are.
        """
        total: Array = 0.0
        for name, array in self.each():
            part = getattr(other, name)
            if part is not None:
                a, b = _reals(array, part)
                products = a.real * b.real
                if a.dtype.kind == "c":
                    products += a.imag * b.imag
                if products.ndim:
                    products = products.sum(axis=-1)
                total = total + products.sum(dtype="float64")
        return total

    def norm(self) -> Array:
        """sqrt(self.dot(self)), 0-d."""
        return self.dot(self) ** 0.5

    # ------------------------------------------------------------ as one vector

    def vector(self) -> FloatArray:
        """All numbers in a row, float64 on the host: field by field, real and imaginary parts of a
        complex number in turn.
        """
        parts = [np.asarray(array).reshape(-1) for _, array in self.each()]
        flat = [
            p.astype(np.complex128).view(np.float64) if np.iscomplexobj(p) else p.astype(np.float64)
            for p in parts
        ]
        return np.concatenate(flat)

    def from_vector(self, vector: FloatArray) -> Unknowns:
        """The record like this one whose `vector` that is, on the host."""
        found, first = {}, 0
        for name, array in self.each():
            wide = np.iscomplexobj(array)
            part = np.ascontiguousarray(vector[first : first + array.size * (1 + wide)])
            found[name] = (
                (part.view(np.complex128) if wide else part)
                .reshape(array.shape)
                .astype(array.dtype)
            )
            first += part.size
        return Unknowns(**found)


def _reals(a: Array, b: Array) -> tuple[Array, Array]:
    """Two complex arrays as real ones, real and imaginary parts in turn, which are quicker to
    multiply; views, so that what is changed in one is changed in its array. As they are where
    their memory does not allow it.
    """
    alike = a.dtype.kind == b.dtype.kind == "c" and a.shape == b.shape and a.ndim > 0
    if not (alike and a.flags.c_contiguous and b.flags.c_contiguous):
        return a, b
    return a.view(REALS[a.dtype.char]), b.view(REALS[b.dtype.char])


@cache
def declared() -> dict[str, Declared]:
    """What each field is, by name, in order."""
    return {f.name: f.metadata["declared"] for f in fields(Unknowns)}


#: The fields, and what gets all of a record.
_NAMES = tuple(declared())
_VALUES: Callable[[Unknowns], tuple[Array, ...]] = attrgetter(*_NAMES)
