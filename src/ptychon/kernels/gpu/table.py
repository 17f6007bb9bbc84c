"""Kernels of the reference table on a GPU, where the reference would loop over frames or make many
passes over memory.

Same names, signatures and results as in `reference`, in single precision; other types go to the
reference. Sums are deterministic: each pixel adds the frames that reach it in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...types import Array
from .. import reference
from . import lists as lists
from .far import Far, Stream, group_frames, in_groups
from .geometry import FRAME_BLOCKS, GRID_ROWS, Geometry, Launcher

__all__ = ["Table"]

_WORDS = {"float32": 1, "complex64": 2}


class Table:
    """The kernels, for one launcher.

    It remembers the lists of the last scan it saw, by identity: an engine asks with the same arrays
    in every pass.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._scan: tuple[Any, ...] = ()
        self._geometry: Geometry | None = None
        self._far_scan: tuple[Any, ...] = ()
        self._far_geometry: Geometry | None = None

    def names(self) -> dict[str, Callable[..., Any]]:
        """name -> kernel."""
        return {name: getattr(self, name) for name in reference.__all__ if hasattr(self, name)}

    def _grid(self, pixels: int, frames: int) -> tuple[int, int]:
        return min(-(-pixels // self._launcher.threads), FRAME_BLOCKS), frames

    def _known(
        self, corners: Any, index: Any, shifts: Any, frame: tuple[int, int], shape: tuple[int, int]
    ) -> Geometry:
        scan = corners, index, shifts
        same = self._geometry is not None and all(
            a is b for a, b in zip(scan, self._scan, strict=True)
        )
        if (
            not same
            or self._geometry is None
            or (self._geometry.frame, self._geometry.shape) != (frame, shape)
        ):
            self._geometry, self._scan = (
                Geometry(self._launcher, corners, index, shifts, frame, shape, 1),
                scan,
            )
            self._geometry.make_lists(np.arange(len(corners)), [(0, len(corners))], True)
        return self._geometry

    def gather(self, field: Array, corners: Array, shape: tuple[int, int]) -> Array:
        words = _WORDS.get(str(field.dtype))
        if words is None or len(corners) > GRID_ROWS:
            return reference.gather(field, corners, shape)
        L, (p, q) = self._launcher, shape
        out = L.empty((len(corners), p, q), str(field.dtype))
        source, where = L.upload(field).view("float32"), L.upload(np.asarray(corners, np.int32))
        L.launch(
            "gather",
            self._grid(p * q * words, len(corners)),
            source,
            field.shape[1],
            words,
            where,
            p,
            q,
            out.view("float32"),
        )
        return out

    def scatter_add(self, field: Array, corners: Array, patches: Array) -> None:
        words = _WORDS.get(str(field.dtype))
        if words is None or patches.dtype != field.dtype or not field.flags.c_contiguous:
            reference.scatter_add(field, corners, patches)
            return
        L, shape, corners = self._launcher, field.shape, np.asarray(corners, np.int32)
        p, q = patches.shape[-2:]
        starts, members = lists.tile_lists(corners, (p, q), shape, [(0, len(corners))])
        listed = L.upload(starts[0]), L.upload(members), L.upload(corners)
        values = L.upload(patches).view("float32")
        L.launch(
            "scatter_add",
            (lists.tile_count(shape), 1),
            field.view("float32"),
            *shape,
            words,
            *listed,
            p,
            q,
            values,
        )

    def shift(self, probe: Array, shifts: Array, sign: int = 1) -> Array:
        # the reference makes its ramps on the host, an image for every shift
        shifts = np.asarray(shifts)
        if probe.ndim != 3 or probe.dtype != "complex64" or not shifts.any():
            return reference.shift(probe, shifts, sign)
        L, n, (k, p, q) = self._launcher, len(shifts), probe.shape
        rows = L.upload(np.arange(n, dtype=np.int32))
        factors = [L.upload(r) for r in lists.ramps(sign * shifts, (p, q))]
        spectrum, out = L.empty(probe.shape, "complex64"), L.empty((n, k, p, q), "complex64")
        L.fft(L.upload(probe), spectrum, False)
        L.launch(
            "ramp",
            self._grid(p * q, n),
            spectrum,
            *factors,
            rows,
            0,
            rows,
            k,
            p,
            q,
            1 / (p * q),
            out,
        )
        L.fft(out, out, True)
        return out

    def batch_sum(self, patches: Array, corners: Array) -> Array:
        if len(patches) == 1 or str(patches.dtype) not in _WORDS:
            return reference.batch_sum(patches, corners)
        corners = np.asarray(corners, np.int32)
        low, shape = corners.min(axis=0), patches.shape[-2:]
        extent = (corners.max(axis=0) - low + np.array(shape)).tolist()
        total = self._launcher.empty(tuple(extent), str(patches.dtype))
        total[...] = 0
        self.scatter_add(total, corners - low, patches)
        return self.gather(total, corners - low, shape)

    def modulus_projection(self, wave: Array, amplitude: Array, mask: Array) -> tuple[Array, Array]:
        if wave.dtype != "complex64" or amplitude.dtype != "float32" or len(wave) > GRID_ROWS:
            return reference.modulus_projection(wave, amplitude, mask)
        L, (b, k, p, q) = self._launcher, wave.shape
        grid = self._grid(p * q, b)
        out, parts = L.empty(wave.shape, "complex64"), L.empty((b, grid[0]), "float64")
        data = L.upload(wave), L.upload(amplitude), L.upload(mask).view("uint8"), len(mask)
        L.launch("project", grid, *data, k, p * q, out, parts)
        return out, parts.sum(axis=1).astype("float32")

    def message_sums(
        self,
        precision: Array,
        natural: Array,
        probes: Array,
        index: Array,
        corners: Array,
        g: Array,
        messages: Array,
    ) -> None:
        if isinstance(messages, Far):
            self._far_sums(precision, natural, probes, index, corners, g, messages)
            return
        if messages.dtype != "complex64" or not (
            precision.flags.c_contiguous and natural.flags.c_contiguous
        ):
            reference.message_sums(precision, natural, probes, index, corners, g, messages)
            return
        L = self._launcher
        known, scan = self._geometry, self._scan
        if (
            known is None
            or scan[0] is not corners
            or scan[1] is not index
            or known.shape != precision.shape
        ):
            # only their number matters here: which shift a frame has is `index`
            known = self._known(
                corners,
                index,
                np.zeros((len(probes), 2), np.float32),
                probes.shape[1:],
                precision.shape,
            )
        data = L.upload(probes), L.upload(g), 1, L.upload(messages), 0
        place = known.iota, 0, known.corners, known.index
        known.over_tiles(
            "belief_sums",
            precision,
            natural,
            *data,
            *known.listed("tile", 0),
            *place,
            *known.frame,
            *known.shape,
        )

    def probe_force(
        self,
        precision: Array,
        natural: Array,
        probes: Array,
        shifts: Array,
        index: Array,
        corners: Array,
        g: Array,
        messages: Array,
    ) -> tuple[Array, Array]:
        if isinstance(messages, Far):
            return self._far_force(precision, natural, probes, shifts, index, corners, g, messages)
        if messages.dtype != "complex64":
            return reference.probe_force(
                precision, natural, probes, shifts, index, corners, g, messages
            )
        L, frame = self._launcher, probes.shape[1:]
        known = self._known(corners, index, shifts, frame, precision.shape)
        force, weight = known.segment_arrays()
        head = (
            L.upload(precision),
            L.upload(natural),
            precision.shape[1],
            L.upload(probes),
            L.upload(g),
            L.upload(messages),
        )
        place = known.iota, known.corners, known.index
        known.launch(
            "probe_pull",
            known.segments,
            *head,
            *known.listed("segment", 0),
            *place,
            *frame,
            force,
            weight,
        )
        total = L.empty((1, *frame), "complex64")
        known.gather_force(force, total)
        return total, known.light_total(weight)[0].copy()

    def _far(
        self, corners: Any, index: Any, shifts: Any, probes: Array, shape: tuple[int, int]
    ) -> tuple[Geometry, list[tuple[int, int]]]:
        """A scan with lists for groups of frames, and those; sums do not ask for `shifts` (None),
        only for their number.
        """
        frame: tuple[int, int] = probes.shape[1:]
        size, count = (
            group_frames(self._launcher.group_bytes, frame[0] * frame[1], 1, False),
            len(corners),
        )
        groups = [(first, min(first + size, count)) for first in range(0, count, size)]
        known, scan = self._far_geometry, self._far_scan
        same = (
            known is not None
            and scan[0] is corners
            and scan[1] is index
            and (shifts is None or scan[2] is shifts)
        )
        if known is None or not same or (known.frame, known.shape) != (frame, shape):
            moved = np.zeros((len(probes), 2), np.float32) if shifts is None else shifts
            known = Geometry(self._launcher, corners, index, moved, frame, shape, 1)
            known.make_lists(np.arange(count), groups, True)
            self._far_geometry, self._far_scan = known, (corners, index, shifts)
        return known, groups

    def _each(
        self, known: Geometry, groups: list[tuple[int, int]], messages: Far
    ) -> Iterator[tuple[int, Array]]:
        """First frame and messages of each group."""
        rows = [np.arange(*group) for group in groups]
        for (first, _), (_, arrays) in zip(
            groups,
            in_groups(self._launcher, (Stream("messages", messages),), rows, known.array),
            strict=True,
        ):
            yield first, arrays["messages"]

    def _far_sums(
        self,
        precision: Array,
        natural: Array,
        probes: Array,
        index: Array,
        corners: Array,
        g: Array,
        messages: Far,
    ) -> None:
        """`message_sums` where the messages are on the host: group after group."""
        known, groups = self._far(corners, index, None, probes, precision.shape)
        for b, (first, phi) in enumerate(self._each(known, groups, messages)):
            head = precision, natural, probes, g[first:], 1, phi, 1, *known.listed("tile", b)
            place = known.iota, first, known.corners, known.index
            known.over_tiles("belief_sums", *head, *place, *known.frame, *known.shape)

    def _far_force(
        self,
        precision: Array,
        natural: Array,
        probes: Array,
        shifts: Array,
        index: Array,
        corners: Array,
        g: Array,
        messages: Far,
    ) -> tuple[Array, Array]:
        """`probe_force` where the messages are on the host: the sums of the groups, added."""
        known, groups = self._far(corners, index, shifts, probes, precision.shape)
        force, weight = known.segment_arrays()
        sums = (
            known.array("sum of forces", force.shape),
            known.array("sum of weights", weight.shape, "float32"),
        )
        known.clear(*sums)
        for b, (first, phi) in enumerate(self._each(known, groups, messages)):
            head = precision, natural, precision.shape[1], probes, g[first:], phi
            place = known.iota, known.corners[first:], known.index[first:]
            known.launch(
                "probe_pull",
                known.segments,
                *head,
                *known.listed("segment", b),
                *place,
                *known.frame,
                force,
                weight,
            )
            for part, total in zip((force, weight), sums, strict=True):
                known.add(part, total)
        total = self._launcher.empty((1, *known.frame), "complex64")
        known.gather_force(sums[0], total)
        return total, known.light_total(sums[1])[0].copy()

    def bernoulli_gauss(
        self, mean: Array, variance: Array, density: float, scale: float
    ) -> tuple[Array, Array, Array]:
        if mean.dtype != "complex64":
            return reference.bernoulli_gauss(mean, variance, density, scale)
        L = self._launcher
        out = L.empty(mean.shape, "complex64")
        out_variance, probability = (L.empty(mean.shape, "float32") for _ in range(2))
        prior = float(np.log(density / (1 - density)))
        grid = self._grid(mean.size, 1)
        results = out, out_variance, probability
        L.launch(
            "bernoulli_gauss",
            grid,
            L.upload(mean),
            L.upload(variance),
            mean.size,
            prior,
            scale,
            *results,
        )
        return results
