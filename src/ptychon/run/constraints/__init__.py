"""What object and probe are made to fulfil between passes: frozen records that the loop applies.

    Stage("rpie", 100, constraints=["support:radius=40", "tv:weight=1e-3,after=5,before=30"])

Only engines whose next pass begins with nothing but object and probe take constraints (see
`Engine.copes`). A message-passing engine holds beliefs that a change of the mean would contradict,
the difference map makes its object from its waves, and a fit to the likelihood weighs what is known
beforehand against the data; their means of saying the same are priors.
"""

from __future__ import annotations

from typing import Any

from ..words import record_of
from .depth import Depth, DepthCentre
from .illumination import Aperture, OrthogonalModes, Support
from .raster import GridNotch
from .record import Constraint
from .shared import Centre, Power, Ramp
from .specimen import AmplitudeRange, PhaseRange, Smooth, TotalVariation, Transmission

CONSTRAINTS: dict[str, Any] = {
    "amplitude": AmplitudeRange,
    "transmission": Transmission,
    "phase": PhaseRange,
    "smooth": Smooth,
    "tv": TotalVariation,
    "grid_notch": GridNotch,
    "support": Support,
    "aperture": Aperture,
    "centre": Centre,
    "power": Power,
    "ramp": Ramp,
    "orthogonal_modes": OrthogonalModes,
    "depth": Depth,
    "depth_centre": DepthCentre,
}


def constraint_of(text: Any) -> Constraint:
    """A constraint from text such as "support:radius=20", "tv:1e-3,after=5,before=30" or "centre".

    Raises
    ------
    PtychonError
        If it is none.
    """
    constraint: Constraint = record_of(text, CONSTRAINTS, "apply", "the constraint")
    return constraint


__all__ = [
    "CONSTRAINTS",
    "AmplitudeRange",
    "Aperture",
    "Centre",
    "Constraint",
    "Depth",
    "DepthCentre",
    "GridNotch",
    "OrthogonalModes",
    "PhaseRange",
    "Power",
    "Ramp",
    "Smooth",
    "Support",
    "TotalVariation",
    "Transmission",
    "constraint_of",
]
