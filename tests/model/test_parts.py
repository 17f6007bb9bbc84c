"""Every part of the forward model, and all of them together, through the tests that new parts
inherit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from _device import device_backend

from _problems import gpu_backend
from ptychon.model.detector import Detector, Separable, binning, blur
from ptychon.model.illumination import Illumination
from ptychon.model.specimen import Specimen
from ptychon.testing import (
    FRAME,
    DetectorTests,
    IlluminationTests,
    ModelTests,
    SpecimenTests,
    scene,
    scenes,
)


class TestIllumination(IlluminationTests):
    """Modes, variations, positions, dose."""


class TestSpecimen(SpecimenTests):
    """One slice and three."""


class TestDetector(DetectorTests):
    """Far and near field, background."""


class TestBlurredDetector(DetectorTests):
    """A point spread of one pixel, and a background that is known beside the one that is not."""

    def part(self, scene):
        return Detector(
            scene.model.detector.propagator,
            spread=blur(FRAME, (1.0, 0.7)),
            background=np.ones(FRAME),
        )


class TestBinnedDetector(DetectorTests):
    """Two rows of waves to each row of pixels."""

    def scenes(self):
        for s in super().scenes():
            yield (
                s
                if s.x.background is None
                else replace(s, x=replace(s.x, background=s.x.background[::2].copy()))
            )

    def part(self, scene):
        spread = Separable(binning((FRAME[0], FRAME[0]), 2).rows, np.eye(FRAME[1]))
        return Detector(scene.model.detector.propagator, spread=spread)


class TestModel(ModelTests):
    """All three."""


class TestModelOnADevice(ModelTests):
    """The same where arrays of the host and of the device must not be mixed, as on a GPU."""

    def scenes(self):
        return (s for s in scenes() if len(s.x.object) == 3 and len(s.x.probe) == 2)

    def backends(self):
        return (device_backend(),)


@pytest.mark.gpu
class TestModelOnAGpu(ModelTests):
    """The same on a GPU, where there is one."""

    def backends(self):
        return (gpu_backend(),)


# ---------------------------------------------------------------- that the tests can fail


def _wrong(name, change):
    """A part class one of whose methods is off."""

    @dataclass(frozen=True)
    class Wrong(PARTS[name[0]]):
        pass

    inherited = getattr(PARTS[name[0]], name[1])
    setattr(Wrong, name[1], lambda self, *args: change(inherited, self, *args))
    return Wrong


PARTS = {"illumination": Illumination, "specimen": Specimen, "detector": Detector}
BASES = {"illumination": IlluminationTests, "specimen": SpecimenTests, "detector": DetectorTests}


def _scaled(inherited, self, *args):
    return 1.01 * inherited(self, *args)


def _conjugated(inherited, self, *args):
    return inherited(self, *args).conj()


def _forgotten(name):
    def change(inherited, self, view, c, out):
        return inherited(self, view, c, replace(out, **{name: None}))

    return change


@pytest.mark.parametrize(
    ("method", "change", "check"),
    [
        (("illumination", "tangent"), _scaled, "test_tangent"),
        (("illumination", "tangent"), _scaled, "test_adjoint"),
        (("illumination", "adjoint"), _forgotten("weights"), "test_adjoint"),
        (("specimen", "tangent"), _scaled, "test_tangent"),
        (("specimen", "adjoint"), _conjugated, "test_adjoint"),
        (("specimen", "adjoint"), _forgotten("object"), "test_adjoint"),
        (("detector", "adjoint"), _forgotten("positions"), "test_adjoint"),
        (("detector", "intensity_tangent"), _scaled, "test_tangent"),
        (("detector", "intensity_adjoint"), _forgotten("background"), "test_adjoint"),
    ],
)
def test_a_part_that_is_wrong_does_not_pass(method, change, check):
    place = method[0]

    class Tests(BASES[place]):
        def scenes(self):
            yield scene(2, 2, 2, near=True)

        def part(self, scene):
            right = getattr(scene.model, place)
            return _wrong(method, change)(**{f.name: getattr(right, f.name) for f in fields(right)})

    with pytest.raises(AssertionError, match="off by"):
        getattr(Tests(), check)()
