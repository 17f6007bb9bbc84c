"""-log posterior of object and probe, with its gradient: what a sampler needs, exactly, at the cost
of a pass.

    U(O, P) = sum_j -log p(data_j | |F[P O_j]|) + |O|^2/S + |P|^2/S_P

of the real and imaginary parts of the unknowns; p is that of `noise`, the priors are CN(0, S) and
CN(0, S_P). Where pixels of the object hold each other, O^* K O/2 with their precision K takes the
place of |O|^2/S; a precision of the probe, where there is one, is added.

No data tell the scale between object and probe, and there are many more numbers of one than of the
other: the volume of x -> (s O, P/s) alone, s^(2 n_O - 2 n_P), carries a free chain to an object of
1 - n_P/n_O times the power of its prior. So the power of the probe may be `held`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..model.batch import Batch, Shifts, exit_wave, to_object, to_wave
from ..model.noise import Noise
from ..model.noise.likelihood import count_energy, count_score, root_energy, root_score
from ..model.problem import Problem
from ..model.pulls import Together
from ..types import COMPLEX, REAL, Array

#: Frames computed at a time in array code.
BLOCK = 64


class Potential:
    """U of one problem.

    Vectors are flat complex64 arrays on the backend, the object's pixels first and then, if it is
    free, the probe's.

    Parameters
    ----------
    problem : Problem
        On the backend's device.
    probe : (K, P, Q) complex64
        Known; or, if it is free, what its prior is made from.
    noise : Noise
    backend : Backend
    free_probe : bool
    object_variance : float
        S.
    between : mapping of str to FieldPrior
        Precisions: of the "object", in place of S, and of the "probe".
    """

    def __init__(
        self,
        problem: Problem,
        probe: Array,
        noise: Noise,
        backend: Backend,
        free_probe: bool,
        object_variance: float,
        between: Together | None = None,
    ) -> None:
        self.problem, self.noise, self.backend = problem, noise, backend
        self.free_probe, self.between = free_probe, dict(between or {})
        xp = backend.xp
        self.probe = xp.asarray(probe, COMPLEX)
        self.pixels = int(np.prod(problem.object_shape))
        size = self.pixels + (self.probe.size if free_probe else 0)
        self.prior = xp.full(size, 0 if "object" in self.between else 2 / object_variance, REAL)
        self.prior[self.pixels :] = 2 / float((xp.abs(self.probe) ** 2).sum(axis=0).max())
        #: K of K log^2(|P|^2/|P_0|^2)/2, which holds the power of a free probe.
        self.held = 0.0
        self.power = float((xp.abs(self.probe) ** 2).sum(dtype="float64"))
        self.shifts = Shifts(problem, backend)
        self.probes = self.shifts.forward(self.probe)
        self.soft: Any = REAL.type(0)
        if noise.kind == "poisson":
            shape = problem.frame_shape
            self.soft = np.ascontiguousarray(np.broadcast_to(noise.soft, (1, *shape)), REAL)
            extra = backend.asarray(
                np.ascontiguousarray(np.broadcast_to(noise.extra, (1, *shape)), REAL)
            )
            root = noise.root(problem, slice(None))
            self.data = xp.asarray(root * abs(root) + extra, REAL)
        else:
            self.data = noise.measured(problem.amplitude).astype(REAL, copy=False)

    def unpack(self, vector: Array) -> tuple[Array, Array]:
        """Object (H, W) and probe (K, P, Q) of a vector."""
        n = self.pixels
        probe = vector[n:].reshape(self.probe.shape) if self.free_probe else self.probe
        return vector[:n].reshape(self.problem.object_shape), probe

    def __call__(self, vector: Array) -> tuple[float, Array]:
        """U, and its gradient: by real parts in its real parts, by imaginary ones in its imaginary
        ones.
        """
        xp = self.backend.xp
        object, probe = self.unpack(vector)
        probes = self.shifts.forward(probe) if self.free_probe else self.probes
        out_O = xp.zeros(self.problem.object_shape, COMPLEX)
        out_P = xp.zeros_like(probes) if self.free_probe else xp.zeros((0, 1, 1, 1), COMPLEX)
        compiled = self.backend.sweeps == "cpu"
        energy = (self._compiled if compiled else self._plain)(object, probes, out_O, out_P)
        parts = [out_O.reshape(-1)]
        if self.free_probe:
            back = self.shifts.adjoint(out_P)
            parts.append(back.astype(COMPLEX, copy=False).reshape(-1))
        own, pull = self.of_prior(vector)
        return energy + own, xp.concatenate(parts) + pull

    def of_prior(self, vector: Array) -> tuple[float, Array]:
        """-log of the priors, and its gradient."""
        pull = self.prior * vector
        for name, prior in self.between.items():
            own, shape = self._part(name)
            pull[own] += prior(vector[own].reshape(shape)).reshape(-1)
        power = vector.real * pull.real + vector.imag * pull.imag
        energy = 0.5 * float(power.sum(dtype="float64"))
        if self.held:
            probe = vector[self.pixels :]
            now = float((probe.real**2 + probe.imag**2).sum(dtype="float64"))
            off = math.log(max(now, 1e-30) / self.power)
            energy += 0.5 * self.held * off**2
            pull[self.pixels :] += REAL.type(2 * self.held * off / max(now, 1e-30)) * probe
        return energy, pull

    def _part(self, name: str) -> tuple[slice, tuple[int, ...]]:
        """Where a field is in a vector, and its shape."""
        if name == "object":
            return slice(self.pixels), (1, *self.problem.object_shape)
        return slice(self.pixels, None), self.probe.shape

    def draw_variance(
        self, vector: Array, here: tuple[float, Array], rng: np.random.Generator
    ) -> tuple[float, Array]:
        """Draw the variance of the amplitude noise, given the misfit of a vector, and from here on
        hold it: v = S/chi^2_n with S = sum (m - y)^2 over n valid pixels, its prior being 1/v. U
        and gradient `here` follow."""
        power, pull = self.of_prior(vector)
        v, n = (
            self.noise.variance,
            float(self.problem.mask.sum()) * (len(self.problem) // len(self.problem.mask)),
        )
        new = 2 * v * (here[0] - power) / rng.chisquare(n)
        self.noise = replace(self.noise, variance=new)
        return power + (here[0] - power) * v / new, pull + (here[1] - pull) * REAL.type(v / new)

    def misfit(self, vector: Array) -> tuple[float, float]:
        """Sum over valid pixels of the squared misfit in units of the noise, and what it should be
        (see `Noise.surprise`).
        """
        backend, problem, (object, probe) = self.backend, self.problem, self.unpack(vector)
        probes, found, expected = self.shifts.forward(probe), 0.0, 0.0
        for first in range(0, len(problem), BLOCK):
            b = slice(first, min(first + BLOCK, len(problem)))
            frames = Batch.of(problem, backend, b)
            wave = frames.onward(exit_wave(probes[frames.index], frames.window(object)))
            m = backend.to_host(backend.xp.sqrt((wave.real**2 + wave.imag**2).sum(axis=1)))
            seen = backend.to_host(problem.mask_of(b))
            found += float(
                np.where(
                    seen, self.noise.surprise(m, backend.to_host(self.noise.root(problem, b))), 0
                ).sum()
            )
            expected += float(np.where(seen, self.noise.expected_surprise(m), 0).sum())
        return found, expected

    def _compiled(self, object: Array, probes: Array, out_O: Array, out_P: Array) -> float:
        from ..kernels.cpu.energy import energy_gradient
        from ..kernels.cpu.rows import transfer_table

        problem = self.problem
        transfer, near = transfer_table(problem.propagator.transfer, len(problem.shifts))
        counting = self.noise.kind == "poisson"
        soft = self.soft if counting else np.zeros((1, 1, 1), REAL)
        energy = np.zeros(len(problem))
        energy_gradient(
            np.ascontiguousarray(object),
            probes,
            problem.shift_index,
            problem.corners,
            self.data,
            problem.mask,
            soft,
            1 / self.noise.variance,
            counting,
            self.free_probe,
            transfer,
            near,
            energy,
            out_O,
            out_P,
        )
        return float(energy.sum())

    def _plain(self, object: Array, probes: Array, out_O: Array, out_P: Array) -> float:
        """The same in array code, all frames of a block at a time."""
        xp, problem, total = self.backend.xp, self.problem, 0.0
        soft: Any = self.backend.asarray(self.soft) if self.noise.kind == "poisson" else 0
        for first in range(0, len(problem), BLOCK):
            b = slice(first, min(first + BLOCK, len(problem)))
            frames = Batch.of(problem, self.backend, b)
            P, O = probes[frames.index], frames.window(object)
            wave = frames.onward(exit_wave(P, O))
            power, d, seen = (
                (wave.real**2 + wave.imag**2).sum(axis=1),
                self.data[b],
                problem.mask_of(b),
            )
            if self.noise.kind == "poisson":
                mean = (power + soft).astype("float64")
                each, pull = count_energy(mean, d), 2 * count_score(mean, d)
            else:
                m = xp.sqrt(power)
                each = root_energy(m.astype("float64"), d, self.noise.variance)
                score = root_score(m, d, self.noise.variance)
                pull = xp.where(m > 1e-20, score / xp.maximum(m, REAL.type(1e-20)), 0)
            total += float(xp.where(seen, each, 0).sum())
            wave = wave * xp.where(seen, pull, 0).astype(REAL)[:, None]
            back = frames.back(wave).astype(COMPLEX, copy=False)
            frames.add(out_O, to_object(P, back))
            if self.free_probe:
                pulled = to_wave(O, back)
                for j, u in enumerate(problem.shift_index[b].tolist()):
                    out_P[u] += pulled[j]
        return total
