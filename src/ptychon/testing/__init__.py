"""Tests to inherit: for a part of the forward model (`parts`) and for an engine (`engines`), in a
package of your own too.
"""

from __future__ import annotations

from .engines import EngineTests
from .parts import DetectorTests, IlluminationTests, ModelTests, PartTests, SpecimenTests
from .scenes import FRAME, Scene, scene, scenes

__all__ = [
    "FRAME",
    "DetectorTests",
    "EngineTests",
    "IlluminationTests",
    "ModelTests",
    "PartTests",
    "Scene",
    "SpecimenTests",
    "scene",
    "scenes",
]
