r"""Several scans that share a probe, an object, or both, each with its doses, positions and mask.

Sharing the probe:   the objects lie side by side on one canvas, further apart than a window is
                     wide; the scans are one, and every engine takes it. What differs in dose is in
                     the objects, and is given back to the probes at the end.
Sharing the object:  the scans lie on the object where their positions say. Passes over them take
                     turns, each with its own probe, which is what sequential engines do with frames
                     anyway; engines that look at all frames at once cannot.
Sharing both:        the same canvas, one probe; scans of another dose have it as `log_scale` of
                     their frames, from their mean counts.

Positions of scans that share the object must be in one system of coordinates, or their shifts be
told or searched for (`shifts`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.result import Result
from ..metrics.residual import residual
from ..model.problem import Problem
from ..types import REAL, ComplexArray, FloatArray, IntArray, PtychonError
from .guess import wave_power

SHARES = ("probe", "object", "both")
#: Relative difference of pixel sizes, wavelengths or distances that is none.
SAME = 1e-3
#: Relative difference of mean amplitudes of frames that asks for doses.
DOSE = 0.01


@dataclass(frozen=True)
class Scans:
    """Several scans on one canvas.

    Attributes
    ----------
    share : {"probe", "object", "both"}
    parts : tuple of Problem
        Each on its own object.
    corners : (S, 2) int
        Of the own objects on the canvas.
    shape : (H, W)
        Of the canvas.
    shifts : (S, 2) float
        What was added to the positions of each, m, or pixels where their size is not known.
    """

    share: str
    parts: tuple[Problem, ...]
    corners: IntArray
    shape: tuple[int, int]
    shifts: FloatArray

    @classmethod
    def of(
        cls,
        data: Sequence[Dataset | Problem],
        share: str,
        subpixel: bool = True,
        shifts: FloatArray | None = None,
    ) -> Scans:
        """Put scans on one canvas.

        Parameters
        ----------
        data : sequence of Dataset or Problem
        share : {"probe", "object", "both"}
        subpixel : bool
        shifts : (S, 2) float, optional
            What is added to the positions of each; default nothing.

        Raises
        ------
        PtychonError
            If there is one scan only, or they differ in window, pixel size, wavelength, distance,
            geometry or kind.
        """
        if share not in SHARES:
            raise PtychonError(f"share is {share!r}; choose {', '.join(SHARES)}")
        if len(data) < 2:
            raise PtychonError(f"share={share!r} is for two scans or more; {len(data)} is given")
        _check_alike(data)
        parts = tuple(
            Problem.from_dataset(d, subpixel=subpixel) if isinstance(d, Dataset) else d
            for d in data
        )
        moves = np.zeros((len(parts), 2)) if shifts is None else np.asarray(shifts, float)
        parts = tuple(_moved(part, move) for part, move in zip(parts, moves, strict=True))
        shapes = np.array([part.object_shape for part in parts])
        if share == "probe":
            wide = shapes[:, 1] + parts[0].frame_shape[1]  # windows may move, but never so far
            corners = np.stack([0 * wide, np.cumsum(wide) - wide], axis=1)
        else:
            pixel = np.array(parts[0].pixel_size or (1.0, 1.0))
            corners = np.rint(np.array([part.origin for part in parts]) / pixel).astype(int)
            corners -= corners.min(axis=0)
            _check_near(parts, corners)
        height, width = (corners + shapes).max(axis=0)
        return cls(share, parts, corners, (int(height), int(width)), moves)

    def placed(self, number: int) -> Problem:
        """One of the scans on the canvas."""
        part, corner = self.parts[number], self.corners[number]
        pixel = np.array(part.pixel_size or (1.0, 1.0))
        start = np.array(part.origin) - corner * pixel
        return replace(
            part,
            corners=np.ascontiguousarray(part.corners + corner, dtype=np.int32),
            measured=None if part.measured is None else part.measured + corner,
            object_shape=self.shape,
            origin=(float(start[0]), float(start[1])),
        )

    @property
    def frames(self) -> list[slice]:
        """Frames of each scan in `joined`."""
        ends = np.cumsum([len(part) for part in self.parts])
        return [slice(int(e) - len(p), int(e)) for e, p in zip(ends, self.parts, strict=True)]

    def joined(self) -> Problem:
        """All frames as one scan with one probe."""
        parts = [self.placed(i) for i in range(len(self.parts))]
        dark = [part.background for part in parts]
        if any(not _same(one, dark[0]) for one in dark):
            # one background a scan: what is left of the frames without it is no count
            parts = [p if p.counts is None else p.subtracted() for p in parts]
            level = float(np.mean([p.noise_level for p in parts]))
            parts = [replace(p, counting=False, noise_variance=level) for p in parts]
        masks = [part.mask for part in parts]
        shared = all(_same(mask, masks[0]) for mask in masks) and len(masks[0]) == 1
        first = parts[0]
        fractions = np.concatenate([part.shifts[part.shift_index] for part in parts])
        shifts, index = np.unique(fractions, axis=0, return_inverse=True)
        counts: list[Any] = [part.counts for part in parts]
        moved = any(part.measured is not None for part in parts)
        stated = [p.positions if p.measured is None else p.measured for p in parts]
        return replace(
            first,
            amplitude=np.concatenate([part.amplitude for part in parts]),
            mask=first.mask
            if shared
            else np.concatenate([np.broadcast_to(p.mask, p.amplitude.shape) for p in parts]),
            corners=np.concatenate([part.corners for part in parts]),
            shifts=shifts,
            shift_index=index.reshape(-1).astype(np.int32),
            counts=None if first.counts is None else np.concatenate(counts),
            measured=np.concatenate(stated) if moved else None,
            log_scale=self._doses(),
        )

    def level(self, object: ComplexArray) -> ComplexArray:
        """The first object on the canvas, where each scan has its own: each begins at the level
        of its dose, which the shared probe does not have.
        """
        if self.share != "probe":
            return object
        powers = np.array([wave_power(part) for part in self.parts])
        counts = np.array([len(part) for part in self.parts])
        found = object.copy()
        each = np.sqrt(powers / np.average(powers, weights=counts))
        for part, corner, factor in zip(self.parts, self.corners, each, strict=True):
            at = (..., *cut(corner, part))
            found[at] = times(found[at], factor)
        return found

    def _doses(self) -> Any:
        """Logarithms of the doses of all frames, where they differ and the probe is that of all."""
        if self.share == "probe":
            return None
        powers = np.array([wave_power(part) for part in self.parts])
        counts = np.array([len(part) for part in self.parts])
        doses = 0.5 * np.log(powers / np.average(powers, weights=counts))
        each = np.repeat(doses, counts)
        return each.astype(REAL) if np.ptp(doses) > DOSE else None

    def apart(self, result: Result, joined: Problem) -> list[Result]:
        """The results of the scans from that of all of them together."""
        whole = wave_power(joined)
        found: list[Result] = []
        for part, frames, corner in zip(self.parts, self.frames, self.corners, strict=True):
            factor = np.float32(np.sqrt(wave_power(part) / whole))
            at = cut(corner, part)
            own: dict[str, Any] = {
                "object": result.object[..., at[0], at[1]],
                "probe": result.probe * factor,
                "positions": result.positions[frames] - corner,
                "corners": None if result.corners is None else result.corners[frames] - corner,
            }
            if result.positions_given is not None:
                own["positions_given"] = result.positions_given[frames] - corner
            if result.log_scale is not None:
                level = float(result.log_scale[frames].mean())
                rest = result.log_scale[frames] - REAL.type(level)
                # of a scan whose frames are alike it is nothing beside its probe
                own["log_scale"] = rest if np.abs(rest).max() > 1e-6 else None
                own["probe"] = result.probe * np.float32(np.exp(level))
                factor = np.float32(1)
            if self.share == "probe":
                own["object"] = times(own["object"], 1 / factor)
            for name in ("object_std", "draws"):
                array = getattr(result, name)
                own[name] = None if array is None else array[..., at[0], at[1]] / factor
            for name in ("noise_variances", "weights"):
                array = getattr(result, name)
                own[name] = array if array is None or not len(array.shape) else array[frames]
            if result.variations is not None:
                own["variations"] = result.variations * factor
            found.append(self.named(replace(result, **own), part, len(found)))
        return found

    def named(self, result: Result, part: Problem, number: int) -> Result:
        """The result of one scan, with R of its own and a word on the others."""
        places = part
        if result.positions_given is not None or result.log_scale is not None:
            places = part.with_positions(result.positions, result.log_scale, corners=result.corners)
        shared: dict[str, Any] = {"what": self.share, "scan": number, "scans": len(self.parts)}
        pixel, move = np.array(part.pixel_size or (1.0, 1.0)), self.shifts[number]
        if self.shifts.any():
            shared["shift"] = [float(m) for m in move]
        start = np.array(part.origin) - np.rint(move / pixel) * pixel  # as the file states it
        return replace(
            result,
            origin=(float(start[0]), float(start[1])),
            final_error=residual(places, result.object, result.probe),
            settings={**result.settings, "shared": shared},
        )


def shared_scans(
    scans: Scans,
    data: Sequence[Dataset | Problem],
    one: Callable[[Problem, Any], Result],
    turns: Callable[[], list[Result]],
) -> list[Result]:
    """Results of several scans.

    Parameters
    ----------
    scans : Scans
    data : sequence of Dataset or Problem
        That they were made from.
    one : callable
        Reconstructs all frames as one problem, from a first probe.
    turns : callable
        Reconstructs scans of one object in turn.
    """
    if scans.share == "object":
        return turns()
    joined = scans.joined()
    probe = next((d.probe for d in data if isinstance(d, Dataset) and d.probe is not None), None)
    return scans.apart(one(joined, probe), joined)


def times(object: ComplexArray, factor: Any) -> ComplexArray:
    """An object by a factor, of which each of its slices takes the same part."""
    each = factor if object.ndim == 2 else factor ** (1 / len(object))
    return object * np.float32(each)


def cut(corner: IntArray, part: Problem) -> tuple[slice, slice]:
    """Rows and columns of the object of a scan on the canvas."""
    (y, x), (h, w) = corner, part.object_shape
    return slice(int(y), int(y) + h), slice(int(x), int(x) + w)


def _moved(part: Problem, move: FloatArray) -> Problem:
    """A scan elsewhere: by whole pixels its object goes with it, by the rest its positions move."""
    if not np.any(move):
        return part
    pixel = np.array(part.pixel_size or (1.0, 1.0))
    whole = np.rint(move / pixel)
    rest = move / pixel - whole
    start = np.array(part.origin) + whole * pixel
    part = replace(part, origin=(float(start[0]), float(start[1])))
    if np.abs(rest).max() < 1e-3:
        return part
    return part.with_positions(part.positions + rest, part.log_scale)


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return a is b or (a.shape == b.shape and bool(np.array_equal(a, b)))


def _geometry(scan: Dataset | Problem) -> str:
    if isinstance(scan, Dataset):
        return scan.geometry
    return "near" if scan.near_field else "far"


def _check_alike(data: Sequence[Dataset | Problem]) -> None:
    """Refuse scans that cannot share anything."""

    def differ(what: str, a: Any, b: Any, i: int, remedy: str) -> PtychonError:
        return PtychonError(f"scans 1 and {i} differ in {what}, {a} and {b}: {remedy}")

    first = data[0]
    kinds = [_geometry(scan) for scan in data]
    for i, other in enumerate(data[1:], 2):
        a, b = first.frame_shape, other.frame_shape
        if a != b:
            raise differ("window (px)", f"{a[0]}x{a[1]}", f"{b[0]}x{b[1]}", i, "crop them alike")
        if kinds[0] != kinds[i - 1]:
            raise differ("geometry", kinds[0], kinds[i - 1], i, "reconstruct each by itself")
        for name, remedy in (
            ("pixel_size", "crop or bin them so that their pixels are alike"),
            ("wavelength", "reconstruct each by itself"),
            ("distance", "reconstruct each by itself"),
        ):
            if name == "distance" and kinds[0] == "far":
                continue
            x, y = (getattr(d, name, None) for d in (first, other))
            if (x is None) != (y is None):
                raise differ(name, x, y, i, f"state the {name} of both, or of none")
            if x is not None and y is not None:
                ratio = np.asarray(y, float) / np.asarray(x, float)
                if np.abs(ratio - 1).max() > SAME:
                    raise differ(f"{name} (m)", x, y, i, remedy)
        if first.counting != other.counting:
            raise PtychonError(
                f"one of scans 1 and {i} holds counts and the other does not: state --gain, or "
                "reconstruct each by itself"
            )


def _check_near(parts: Sequence[Problem], corners: IntArray) -> None:
    """Refuse scans of one object that do not overlap."""
    for i, (part, corner) in enumerate(zip(parts, corners, strict=True)):
        ends = corner + np.array(part.object_shape)
        others = [j for j in range(len(parts)) if j != i]
        touch = any(
            (corner < corners[j] + np.array(parts[j].object_shape)).all()
            and (ends > corners[j]).all()
            for j in others
        )
        if not touch:
            away = np.abs(corners[others] - corner).max(axis=1).min()
            raise PtychonError(
                f"scan {i + 1} overlaps no other on the object: it begins {away} px away and is "
                f"{part.object_shape[0]}x{part.object_shape[1]} px; give positions of all scans in "
                "one system of coordinates or the shift between them (--shift search finds it), or "
                "share the probe only"
            )


__all__ = ["SHARES", "Scans", "cut", "shared_scans", "times"]
