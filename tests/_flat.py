"""The curvature of object and probe as a function of flat vectors."""

from __future__ import annotations

import numpy as np

from ptychon.model.solve import solve
from ptychon.model.unknowns import Unknowns
from ptychon.uncertainty.curvature import Curvature


class Flat:
    """A `Curvature` of object and probe whose vectors are flat: the object's pixels, then the
    probe's.
    """

    def __init__(self, problem, object, probe, noise, backend, free=True, prior=0.0, spread=None):
        names = ("object", "probe") if free else ("object",)
        ridge = Unknowns(**dict.fromkeys(names, np.float32(prior)))
        x = Unknowns(object=np.asarray(object, np.complex64)[None], probe=probe)
        self.point = Curvature(problem, x, noise, backend, names, ridge, spread)
        self.object, self.probe, self.free, self.blocks = object, probe, free, self.point.blocks
        self.hold, self.modulus, self.waves = self.point.hold, self.point.modulus, self.H.waves

    @property
    def H(self):
        return self.point.H

    @property
    def size(self):
        return self.object.size + (self.probe.size if self.free else 0)

    def pack(self, object, probe):
        parts = [object.ravel()] + ([probe.ravel()] if self.free else [])
        return np.concatenate(parts).astype(np.complex64)

    def flat(self, u):
        return np.concatenate([array.ravel() for _, array in u.each()])

    def unpack(self, v):
        n = self.object.size
        probe = v[n:].reshape(self.probe.shape) if self.free else None
        return v[:n].reshape(self.object.shape), probe

    def unknowns(self, v):
        object, probe = self.unpack(v)
        return Unknowns(object=object[None], probe=probe)

    def product(self, v):
        return self.flat(self.H(self.unknowns(np.asarray(v, np.complex64))))

    def dot(self, a, b):
        return float((a.real * b.real + a.imag * b.imag).sum(dtype="float64"))

    def gradient(self):
        return self.flat(self.point.gradient())

    def energy(self, object=None, probe=None):
        object = self.object if object is None else object
        probe = self.probe if probe is None else probe
        return self.point.energy(Unknowns(object=object[None], probe=probe))

    @property
    def diagonal(self):
        return self.flat(self.point.diagonal)

    def draw(self, rng):
        return self.flat(self.H.noise(rng))

    def solve(self, t, tolerance):
        return self.flat(solve(self.H, self.unknowns(t), self.point.diagonal, tolerance).x)
