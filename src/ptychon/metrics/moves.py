r"""What refined positions tell of a scan: how much of their moves is a wrong scale, rotation or
shear, how much a stage that stands elsewhere when it comes from the other side, and what is left.

    d_j = A (s_j - mean) + b t_j + rest_j,          t_j = +1 or -1: which way frame j was reached
                                                    along a row

by least squares, d_j being the move of frame j and s_j where the data put it. 2 b is the backlash.
It is sought only where rows are scanned to and fro.

Frames at the rim of a scan have neighbours on one side only. Much of what such a frame sees no
other sees, so that it fits its part of the object nearly anywhere: its position is the least sure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..data.result import Result
from ..types import FloatArray, IntArray

#: Least share of the frames that are reached either way, and of those reached as the one before.
EITHER, SAME = 0.25, 0.6
#: A part of the moves is told where it is more than this share of them (rms).
TOLD = 0.1
#: Angle (rad) without a neighbour from which on a frame stands at the rim, among so many of the
#: nearest; and how many of them are listed.
OPEN, NEIGHBOURS, LISTED = np.pi / 2, 24, 12


@dataclass(frozen=True)
class Moves:
    """By how much positions have moved, and what of it is common to all frames.

    Attributes
    ----------
    rms, rest : float
        Root mean square length of the moves less their mean, px; and of what the others leave.
    largest : float
        px.
    scale : (2,) float
        By which the scan is larger than stated, along y and x: 0.01 is 1 %.
    rotation, shear : float
        rad, from x towards y; and by how much x grows with y, symmetrically.
    backlash : (2,) float or None
        Difference between frames reached one way and the other along a row, px; None where rows are
        not scanned to and fro.
    rim : tuple of int
        Frames at the rim of the scan, see `at_rim`.
    """

    rms: float
    largest: float
    scale: tuple[float, float]
    rotation: float
    shear: float
    backlash: tuple[float, float] | None
    rest: float
    rim: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def moves_of(given: FloatArray, found: FloatArray) -> Moves:
    """Compare refined positions with those of the data, both (N, 2) in object pixels, in the order
    in which frames were taken.
    """
    x = np.asarray(given, float) - np.mean(given, axis=0)
    d = np.asarray(found, float) - np.asarray(given, float)
    d = d - d.mean(axis=0)
    ways = _ways(np.asarray(given, float))
    columns = x if ways is None else np.concatenate([x, (ways - ways.mean())[:, None]], axis=1)
    # a scan along a line has no scale across it
    parts = np.linalg.pinv(columns, rcond=1e-6) @ d
    A, rest = parts[:2].T, d - columns @ parts
    size = np.hypot(*d.T)
    return Moves(
        rms=float(np.sqrt((size**2).mean())),
        largest=float(size.max()),
        scale=(float(A[0, 0]), float(A[1, 1])),
        rotation=float((A[0, 1] - A[1, 0]) / 2),
        shear=float((A[0, 1] + A[1, 0]) / 2),
        backlash=None if ways is None else (float(2 * parts[2, 0]), float(2 * parts[2, 1])),
        rest=float(np.sqrt((rest**2).sum(axis=1).mean())),
        rim=tuple(int(j) for j in at_rim(np.asarray(found, float))),
    )


def at_rim(places: FloatArray) -> IntArray:
    """Frames that have no neighbour within some angle of more than `OPEN` around them.

    Parameters
    ----------
    places : (N, 2) float
        Where frames are.

    Returns
    -------
    (M,) int
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(places)
    around = min(NEIGHBOURS + 1, len(places))
    _, near = tree.query(places, k=around)
    found = []
    for j, others in enumerate(near.reshape(len(places), -1)):
        y, x = (places[others[others != j]] - places[j]).T
        apart = np.hypot(y, x) > 0
        angle = np.sort(np.arctan2(y[apart], x[apart]))
        gaps = np.diff(np.append(angle, angle[:1] + 2 * np.pi)) if len(angle) else [2 * np.pi]
        if np.max(gaps) > OPEN:
            found.append(j)
    return np.asarray(found, int)


def sentence(moves: Moves, given: FloatArray) -> str:
    """For people: "moved 0.24 px rms, of it scale +0.50 % along x and backlash 0.12 px along x;
    rest 0.10 px".
    """
    spread = np.sqrt(((given - np.mean(given, axis=0)) ** 2).mean(axis=0))
    parts = [
        (abs(moves.scale[i]) * spread[i], f"scale {100 * moves.scale[i]:+.2f} % along {'yx'[i]}")
        for i in (0, 1)
    ]
    wide = float(np.hypot(*spread))
    degrees = math.degrees(moves.rotation)
    parts.append((abs(moves.rotation) * wide, f"rotation {degrees:+.2f} degrees"))
    parts.append((abs(moves.shear) * wide, f"shear {moves.shear:+.4f}"))
    for i, step in enumerate(moves.backlash or ()):
        parts.append((abs(step) / 2, f"backlash {step:+.2f} px along {'yx'[i]}"))
    told = [text for size, text in parts if size > TOLD * moves.rms]
    whole = f"moved {moves.rms:.2g} px rms, {moves.largest:.2g} px at most"
    if not told:
        return f"{whole}; no scale, rotation or backlash in it"
    listed = told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"
    return f"{whole}; of it {listed}, and {moves.rest:.2g} px rms of each frame's own"


def refined(result: Result) -> list[tuple[str, str]]:
    """Rows of what was refined beside object and probe: positions, doses, how the probe varies, the
    distance, the background.
    """
    rows = []
    if result.positions_given is not None:
        moves = moves_of(result.positions_given, result.positions)
        rows.append(("positions", sentence(moves, result.positions_given)))
        if moves.rim and 2 * len(moves.rim) < len(result.positions):
            rows.append(("positions least sure", rim_sentence(moves.rim)))
    if result.log_scale is not None:
        spread = 100 * float(np.std(result.log_scale))
        rows.append(("doses", f"differ by {spread:.2g} % rms, as an amplitude"))
    if result.weights is not None:
        rms = np.sqrt((np.asarray(result.weights, float) ** 2).mean(axis=0))
        ways = ", ".join(f"{100 * share:.2g} %" for share in rms)
        rows.append(("the probe varies by", f"{ways} of its amplitude, rms"))
    if result.distance is not None:
        more = 100 * (result.distance - 1)
        rows.append(("distance to the detector", f"{more:+.3g} % of what the data state"))
    if result.background is not None:
        share = background_share(result)
        part = "" if share is None else f", {100 * share:.2g} % of all light"
        rows.append(
            (
                "background",
                f"{float(result.background.mean()):.3g} counts a pixel{part}; weak modes of the "
                "probe look like it",
            )
        )
    return rows


def rim_sentence(rim: Sequence[int]) -> str:
    """For people: which frames stand at the rim."""
    first = ", ".join(str(j) for j in rim[:LISTED])
    more = f" and {len(rim) - LISTED} more" if len(rim) > LISTED else ""
    return f"{len(rim)} frames at the rim of the scan, with neighbours on one side: {first}{more}"


def background_share(result: Result) -> float | None:
    """Of all light, as the last pass that recorded it found; None where none did."""
    values = np.asarray(result.history.get("background", ()), float)
    values = values[np.isfinite(values)]
    return float(values[-1]) if len(values) else None


def _ways(given: FloatArray) -> FloatArray | None:
    """+1 or -1 for each frame: which way it was reached along a row; None without rows that are
    scanned to and fro.
    """
    if len(given) < 9:
        return None
    steps = np.diff(given, axis=0)
    size = np.hypot(*steps.T)
    usual = steps[size <= 3 * np.median(size)]  # not the way to the next row
    _, _, axes = np.linalg.svd(usual, full_matrices=False)
    axis = axes[0] * np.sign(axes[0][np.argmax(np.abs(axes[0]))])
    along = np.concatenate([steps[:1], steps]) @ axis
    ways = np.sign(np.where(np.abs(along) < 0.5 * np.median(np.abs(along)), 0, along))
    for j in range(1, len(ways)):  # a step to the next row leaves the stage as it came
        ways[j] = ways[j] or ways[j - 1]
    either = min(float((ways > 0).mean()), float((ways < 0).mean()))
    same = float((ways[1:] == ways[:-1]).mean())
    return ways if either >= EITHER and same >= SAME else None


__all__ = ["Moves", "at_rim", "background_share", "moves_of", "refined", "sentence"]
