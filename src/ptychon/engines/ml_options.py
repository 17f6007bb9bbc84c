"""Options of the engine "ml": what it moves, from which step on, and how a step is solved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..types import PtychonError
from .base import Engine, Keeps, check_range
from .update import After
from .varying import timed_variations

LIKELIHOODS = ("auto", "counts", "roots")


@dataclass(frozen=True, kw_only=True)
class MLOptions(Engine):
    r"""(J^T Pi J + ridge) dx = -gradient by conjugate gradients, positions and doses eliminated;
    steps never raise the cost.

    One pass is one step, with as many Fourier transforms as 10 to 40 passes of rPIE; 10 to 20 steps
    from a result of another engine are usual. Where no result to start from is given, 20 passes of
    rPIE come first.

    Parameters
    ----------
    positions : bool
        Refine the position of each frame.
    positions_start, positions_every : int
        First step (from 0) that moves positions, and how many steps apart they move.
    dose : bool
        Refine the dose of each frame.
    dose_start : int
        First step (from 0) that moves doses.
    probe : bool
        Refine the probe; false keeps it as it is given.
    probe_start : int
        First step (from 0) that moves the probe.
    variations : int
        Ways in which the first mode of the probe varies from frame to frame.
    variations_start : int
        First step (from 0) that moves them.
    background : bool
        Refine a background: counts, the same in all frames, that come from no wave. Weak modes of
        the probe look like it.
    background_start : int
        First step (from 0) that moves it.
    background_distance : float, optional
        Between two points of the grid on which it is found, detector pixels; 1 gives each pixel its
        own. Default an eighth of a frame, from 4 to 8.
    distance : bool
        Refine the distance from the object to the detector, in the near field.
    distance_start : int
        First step (from 0) that moves it.
    position_spread : float, optional
        Expected standard deviation of the position errors, object pixels; default learned from the
        data.
    dose_spread : float, optional
        Expected relative standard deviation of the doses, as an amplitude; default learned from the
        data.
    iterations : int
        Products with the Gauss-Newton matrix in a step, at most.
    tolerance : float in (0, 1)
        Relative residual at which the equations of a step count as solved.
    detector : float in (0, 1]
        Share of the detector, from its middle to its nearest edge, that is compared. Less than 1
        begins from an object without finer details, and reports no R. Far field only.
    likelihood : {"auto", "counts", "roots"}
        What is compared of counts once steps are small: counts themselves, which is best where the
        model holds, or their roots throughout, which dark pixels that the model does not explain
        mislead less. "auto" takes roots where the misfit is more than the noise makes of it.
    depth : float
        How strongly neighbouring slices of a thick specimen are held together, as a share of what
        the data say of a pixel where they say most: tau of tau/2 sum_s |O_s+1 - O_s|^2.
    smoothness : float
        A prior of smooth objects in the same units: s of s/2 sum_r |grad O|^2; 1e-3 to 1e-1 where
        counts are few.
    variation : float
        A prior of little total variation, which leaves edges: v of v sum_r |grad O|, in the same
        units times |O|; 1e-3 to 3e-2 where counts are few.
    """

    moves: ClassVar[frozenset[str]] = frozenset(
        {"object", "probe", "positions", "log_scale", "variations", "weights"}
        | {"background", "distance"}
    )
    copes: ClassVar[frozenset[str]] = Engine.copes | {"background", "slices", "spread"}
    schedule: ClassVar[str] = "parallel"
    needs_guess: ClassVar[bool] = True
    begins_with: ClassVar[tuple[str, int] | None] = ("rpie", 20)
    instead: ClassVar[str] = (
        "its priors weigh what is known against the data: smoothness, variation (edges stay) and, "
        "of slices, depth"
    )
    keeps: ClassVar[Keeps] = Keeps(
        object_bytes=96,
        stack="waves",
        stack_bytes=40,
        frame_bytes=32,
        counts=True,
        streams=False,
        compile_seconds=5,
    )
    positions: bool = False
    positions_start: int = 0
    positions_every: int = 1
    dose: bool = False
    dose_start: int = 0
    probe: bool = True
    probe_start: int = 0
    variations: int = 0
    variations_start: int = 0
    background: bool = False
    background_start: int = 0
    background_distance: float | None = None
    distance: bool = False
    distance_start: int = 0
    position_spread: float | None = None
    dose_spread: float | None = None
    iterations: int = 40
    tolerance: float = 1e-2
    detector: float = 1.0
    likelihood: str = "auto"
    depth: float = 0.0
    smoothness: float = 0.0
    variation: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            *("probe_start", "positions_start", "dose_start"),
            *("variations", "variations_start", "background_start", "distance_start"),
        ):
            check_range(name, getattr(self, name), 0, 1e9, open_low=False)
        check_range("positions_every", self.positions_every, 1, 1e9, open_low=False)
        check_range("background_distance", self.background_distance, 1, 1e6, open_low=False)
        check_range("position_spread", self.position_spread, 0, 1e6)
        check_range("dose_spread", self.dose_spread, 0, 10)
        check_range("iterations", self.iterations, 1, 10000, open_low=False)
        check_range("tolerance", self.tolerance, 0, 0.999)
        check_range("detector", self.detector, 0, 1)
        for name in ("depth", "smoothness", "variation"):
            check_range(name, getattr(self, name), 0, 1e6, open_low=False)
        if self.likelihood not in LIKELIHOODS:
            raise PtychonError(
                f"likelihood is {self.likelihood!r}; choose {', '.join(LIKELIHOODS)}"
            )

    @property
    def moves_probe(self) -> bool:
        """Whether the probe is refined."""
        return self.probe

    @property
    def varies_probe(self) -> bool:
        return self.variations > 0

    def probe_moves_at(self, epoch: int) -> bool:
        return self.probe and epoch >= self.probe_start

    def own(self, epoch: int) -> tuple[str, ...]:
        """What is refined of each frame in a step: eliminated from it."""
        place = After(self.positions_start, self.positions_every)
        moved = {
            "positions": self.positions and place.moves(epoch),
            "log_scale": self.dose and epoch >= self.dose_start,
            "weights": self.variations and epoch >= self.variations_start,
        }
        return tuple(name for name, moves in moved.items() if moves)

    def timed(self, name: str, when: bool | After) -> dict[str, Any]:
        found = timed_variations(self, name, when)
        return super().timed(name, when) if found is None else found
