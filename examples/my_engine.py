"""An engine of your own, complete: its formula, its tests, and a run.

    python examples/my_engine.py       reconstruct a simulated scan with it and with ePIE
    pytest examples/my_engine.py       the tests that every engine passes

`--engine fading` knows it once an installed package says so in its pyproject.toml:

    [project.entry-points."ptychon.engines"]
    fading = "my_package.my_engine:Fading"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ptychon import reconstruct, simulate
from ptychon.engines import registry
from ptychon.engines.pie import Iterative
from ptychon.simulation import phantoms, probes, scan
from ptychon.testing import EngineTests
from ptychon.types import Array


@dataclass(frozen=True, kw_only=True)
class Fading(Iterative):
    r"""w_O = 1/max|P|^2,  w_P = 1/max|O_j|^2 as in ePIE, both times fade^e in pass e.

    Parameters
    ----------
    fade : float in (0, 1]
        Factor of both steps from one pass to the next.
    """

    name: ClassVar[str] = "fading"
    title: ClassVar[str] = "ePIE with steps that fade from pass to pass"
    fade: float = 0.95

    def cooling(self, epoch: int) -> float:
        return float(self.fade**epoch)

    def object_weight(self, p2: Array, corners: Array, k: Any) -> Array:
        return 1 / k.batch_sum(p2, corners).max(axis=(-2, -1), keepdims=True)

    def probe_weight(self, o2: Array) -> Array:
        return 1 / o2.max()


class TestFading(EngineTests):
    engine = Fading


if __name__ == "__main__":
    registry.add(Fading)
    truth = phantoms.complex_object(phantoms.cell((96, 96)), phantoms.siemens_star((96, 96)))
    beam = probes.defocused_aperture((48, 48), radius=9, defocus=20)
    places = scan.raster(9, step=5, jitter=1)
    data = simulate(truth, beam, places, noise="poisson", mean_counts=1e6).dataset
    for name in ("epie", "fading"):
        print(f"{name}: R = {reconstruct(data, name, passes=30).final_error:.4f}")
