r"""Which way round a detector and its scan stand, found by trying.

There are eight ways to read out a detector (with or without transposition, each axis either way)
and two signs of the positions. For each that can be told apart a few passes are made on frames
around the middle of the scan, a quarter of them held out, and the score is how well these are
predicted: by the mean frame f of the others and a multiple a of what the model m_j adds to it,

    gain_j = ||y_j - f||^2 - ||y_j - f - a (m_j - f)||^2

with a >= 0 the best for all held-out frames together,

y_j being roots of counts. The right orientation predicts frames it has not seen. (On those it has
seen, a free probe lets a wrong one fit almost as well; and without a, the noise of a short
reconstruction would decide at low doses.) The margin between two orientations is the mean
difference of their gains in the same frames, in standard errors.

What no reconstruction with a free probe can tell apart:

    far field, four classes of four:
        (I(k), x) with O, P    =   (I(-k), x) with O*, P*
        = (I(k), -x) with O*(-r), P*(-r)   =   (I(-k), -x) with O(-r), P(-r)
    near field, eight classes of two:
        (I(r), x) with O, P    =   (I(-r), -x) with O(-r), P(-r)

The frames turned by 180 degrees are tried as well in the far field: that is the same as trying the
conjugate of the first probe, and finds the sign of its defocus.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.lazy import Derived
from ..types import FloatArray, PtychonError
from .trials import FRAMES, Attempt, subset

#: Passes of the first round, and how many more the leading ones get if it is not decisive.
PASSES, MORE_PASSES = 5, 10
#: Standard errors of the margin from which the data have decided.
DECIDED = 5.0
#: What is said where nobody has said which way round the detector stands.
UNSTATED = (
    "the file does not say how its detector was mounted, and a wrong way may lose the object "
    "with hardly a change of R"
)
_NAMES = {
    "transpose": "transpose",
    "flip-rows": "flip_rows",
    "flip-columns": "flip_columns",
    "negate": "negate",
}


@dataclass(frozen=True, kw_only=True, order=True)
class Orientation:
    """How frames and positions are to be turned.

    Attributes
    ----------
    transpose : bool
        Rows and columns of every frame change places, first.
    flip_rows, flip_columns : bool
        The order of rows (columns) is reversed, after that.
    negate : bool
        Positions change sign.
    """

    negate: bool = False
    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def __str__(self) -> str:
        return "+".join(name for name, field in _NAMES.items() if getattr(self, field)) or "as-is"

    @classmethod
    def parse(cls, text: str | None) -> Orientation:
        """From a text such as ``transpose+flip-rows`` or ``as-is``.

        Raises
        ------
        PtychonError
            For an unknown word.
        """
        words = [w.strip().replace("_", "-") for w in (text or "as-is").lower().split("+")]
        for word in words:
            if word not in (*_NAMES, "as-is"):
                raise PtychonError(
                    f"orientation {text!r}: {word!r} is none of as-is, {', '.join(_NAMES)} "
                    "(joined by +)"
                )
        return cls(**{field: name in words for name, field in _NAMES.items()})

    def then(self, other: Orientation) -> Orientation:
        """This one first, the other afterwards, as one."""
        rows, columns = (
            (self.flip_columns, self.flip_rows)
            if other.transpose
            else (self.flip_rows, self.flip_columns)
        )
        return Orientation(
            transpose=self.transpose != other.transpose,
            flip_rows=rows != other.flip_rows,
            flip_columns=columns != other.flip_columns,
            negate=self.negate != other.negate,
        )

    def turned(self) -> Orientation:
        """With the frames turned by 180 degrees as well."""
        return replace(self, flip_rows=not self.flip_rows, flip_columns=not self.flip_columns)

    def equivalents(self, geometry: str) -> frozenset[Orientation]:
        """Those that no reconstruction with a free probe tells from this one, itself included."""
        twin = replace(self.turned(), negate=not self.negate)
        if geometry == "near":
            return frozenset((self, twin))
        return frozenset((self, twin, self.turned(), twin.turned()))

    def frames(self, block: Any, far: bool) -> Any:
        """Frames, masks or a single frame (..., P, Q) turned; in the far field zero frequency stays
        at [P//2, Q//2].
        """
        if self.transpose:
            block = block.swapaxes(-1, -2)
        for axis, flip in ((-2, self.flip_rows), (-1, self.flip_columns)):
            if flip:
                block = np.flip(block, axis)
                # of an even number of pixels, the one in the middle is not mapped to itself
                block = np.roll(block, 1, axis) if far and block.shape[axis] % 2 == 0 else block
        return block

    def apply(self, data: Dataset) -> Dataset:
        """The data set turned; its frames stay where they are until they are needed."""
        if self == Orientation():
            return data
        far, shape = data.geometry == "far", data.frame_shape
        turned = (shape[1], shape[0]) if self.transpose else shape
        swap = self.transpose and shape[0] != shape[1]

        def pair(value: Any) -> Any:
            return value[::-1] if self.transpose and isinstance(value, tuple) else value

        return replace(
            data,
            patterns=Derived(data.patterns, partial(_turn, self, far), turned, data.patterns.dtype),
            positions=-data.positions if self.negate else data.positions,
            mask=None if data.mask is None else np.ascontiguousarray(self.frames(data.mask, far)),
            background=self.frames(data.background, far)
            if isinstance(data.background, np.ndarray)
            else data.background,
            probe=data.probe.swapaxes(-1, -2) if data.probe is not None and swap else data.probe,
            object_shape=None if swap else data.object_shape,
            pixel_size=pair(data.pixel_size),
            detector_pixel_size=pair(data.detector_pixel_size),
            notes={**data.notes, "orientation": str(self)},
        )


def stated_orientation(data: Dataset) -> str:
    """What says how the detector stood: the place in the file, or how the frames were turned; empty
    where nothing does.
    """
    made = "simulated" if data.notes.get("simulated") else ""
    return str(
        data.notes.get("orientation") or (data.notes.get("read") or {}).get("orientation") or made
    )


def _turn(orientation: Orientation, far: bool, block: Any, first: int = 0) -> Any:
    return orientation.frames(block, far)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One class of orientations that cannot be told apart, tried.

    Attributes
    ----------
    orientation : Orientation
        The one to use, of the class: with it the first probe that did best is right as it is.
    equivalents : tuple of Orientation
    probe : str
        The first probe that did best: "given" or "mean frame".
    explained : float
        Share of the held-out frames' squared deviation from the mean frame that is predicted; 1 is
        all of it.
    behind : float
        How far behind the best, in standard errors of the paired difference; 0 for the best.
    passes : int
    """

    orientation: Orientation
    equivalents: tuple[Orientation, ...]
    probe: str
    explained: float
    behind: float
    passes: int


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What trying the orientations found, the best first.

    Attributes
    ----------
    trials : tuple of Trial
    geometry : {"far", "near"}
    frames, held_out : int
        Frames used, those held out included, and how many were held out.
    seconds : float
    """

    trials: tuple[Trial, ...]
    geometry: str
    frames: int
    held_out: int
    seconds: float

    @property
    def best(self) -> Trial:
        return self.trials[0]

    @property
    def margin(self) -> float:
        """How far the nearest of the others is behind, in standard errors."""
        return _margin(self.trials)

    @property
    def decided(self) -> bool:
        """Whether that is far enough to rely on."""
        return self.margin >= DECIDED


def find(
    data: Dataset,
    *,
    backend: Any = "numpy",
    frames: int = FRAMES,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> Ranking:
    """Try all orientations that can be told apart on a part of a scan.

    Parameters
    ----------
    data : Dataset
    backend : str or Backend
    frames : int
        How many frames around the middle of the scan are used.
    seed : int
        Of the choice of held-out frames.
    say : callable, optional
        Told what is going on, after each reconstruction.

    Returns
    -------
    Ranking

    Raises
    ------
    PtychonError
        If there are too few frames to hold some out, or every attempt failed.
    """
    from ..backends import get_backend

    start = time.perf_counter()
    part, held = subset(data, frames, seed)
    chosen = get_backend(backend) if isinstance(backend, str) else backend
    turns = [
        Orientation(transpose=t, flip_rows=r, flip_columns=c)
        for t, r, c in itertools.product((False, True), repeat=3)
    ]
    attempts: list[Attempt] = []
    ranked: list[Trial] = []
    for first in ("given", "mean frame") if data.probe is not None else ("mean frame",):
        new = [Attempt(part, held, turn, first, chosen) for turn in turns]
        _go_on(new, PASSES, chosen, say)
        attempts += new
        ranked = _ranked(attempts, part.geometry)
        if _margin(ranked) >= DECIDED:
            break
    else:
        leading = sorted(attempts, key=lambda a: -a.explained)[: max(4, len(attempts) // 3)]
        _go_on(leading, MORE_PASSES, chosen, say)
        ranked = _ranked(attempts, part.geometry)
    if not math.isfinite(ranked[0].explained):
        raise PtychonError(
            "no orientation led to a reconstruction; look at the frames and the positions first"
        )
    return Ranking(
        trials=tuple(ranked),
        geometry=data.geometry,
        frames=len(part),
        held_out=int(held.sum()),
        seconds=time.perf_counter() - start,
    )


def _go_on(
    attempts: list[Attempt], passes: int, backend: Any, say: Callable[[str], None] | None
) -> None:
    """More passes for each attempt; side by side on the CPU, where compiled sweeps let go of the
    interpreter.
    """
    from ..backends.cores import cores

    workers = min(cores(), 8) if backend.name == "numpy" else 1
    attempts[0].run(passes)  # compiles
    with ThreadPoolExecutor(workers) as pool:
        done = pool.map(lambda attempt: attempt.run(passes), attempts[1:])
        for i, _ in enumerate(done, 2):
            if say is not None:
                say(
                    f"{i} of {len(attempts)} orientations, first probe {attempts[0].probe}, "
                    f"{attempts[0].passes} passes"
                )


def _ranked(attempts: list[Attempt], geometry: str) -> list[Trial]:
    """The best attempt of each class, the best class first."""
    classes: dict[frozenset[Orientation], Attempt] = {}
    for attempt in sorted(attempts, key=lambda a: -a.explained):
        classes.setdefault(attempt.orientation.equivalents(geometry), attempt)
    best = next(iter(classes.values()))
    return [
        Trial(
            orientation=attempt.orientation,
            equivalents=tuple(sorted(equivalents)),
            probe=attempt.probe,
            explained=attempt.explained,
            behind=0.0 if attempt is best else _behind(best.gain, attempt.gain),
            passes=attempt.passes,
        )
        for equivalents, attempt in classes.items()
    ]


def _margin(trials: Sequence[Trial]) -> float:
    return min(trial.behind for trial in trials[1:])


def _behind(best: FloatArray, other: FloatArray) -> float:
    """Mean of the paired differences in standard errors."""
    if not np.isfinite(other).all():
        return math.inf
    difference = best - other
    error = (
        float(difference.std(ddof=1)) / math.sqrt(len(difference))
        if len(difference) > 1
        else math.inf
    )
    return float(difference.mean()) / max(error, 1e-300)
