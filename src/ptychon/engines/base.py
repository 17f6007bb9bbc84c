"""What every engine is: a frozen record of hyper-parameters that takes a state one pass further."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple

from ..backends.base import Backend
from ..distributed.comm import Comm, Serial
from ..model.forward import Model
from ..model.problem import Problem
from ..types import Array, PtychonError
from .update import After, Update


@dataclass(frozen=True)
class Context:
    """Where a step runs: the backend and the other processes."""

    backend: Backend
    comm: Comm = field(default_factory=Serial)


@dataclass(slots=True)
class State:
    """What changes from pass to pass.

    Attributes
    ----------
    object : (H, W) complex64, or (S, H, W) where the problem has slices
    probe : (K, P, Q) complex64
    epoch : int
        Passes done.
    """

    object: Array
    probe: Array
    epoch: int = 0


@dataclass(frozen=True)
class Estimate:
    """object (H, W), probe (K, P, Q) and, where the engine has them, the posterior standard
    deviation (H, W), draws of the posterior error (S, H, W), the noise variance of each frame (N,),
    refined positions (N, 2) in object pixels with the corners of their windows (N, 2), the
    logarithm of the dose of each frame, as an amplitude (N,), and variations of the probe (M, P, Q)
    with their weights in each frame (N, M), and the counts of each pixel that are no part of the
    wave, (P, Q) in the order of the amplitude, and by how much longer the distance to the detector
    is than that of the problem, in units of that stated, (1,).
    """

    object: Array
    probe: Array
    object_std: Array | None = None
    draws: Array | None = None
    noise_variances: Array | None = None
    positions: Array | None = None
    corners: Array | None = None
    log_scale: Array | None = None
    variations: Array | None = None
    weights: Array | None = None
    background: Array | None = None
    distance: Array | None = None


@dataclass(frozen=True)
class Report:
    """What one pass found, still on the device.

    misfit : 0-d, sum of (|model| - amplitude)^2 over valid pixels, or None where this pass did not
    measure it
    extra : other numbers for the history
    """

    misfit: Array | None
    extra: dict[str, Array] = field(default_factory=dict)


class Remedy(NamedTuple):
    """What an engine proposes after a pass that shows that the run will fail: a safer engine, and
    what is wrong.
    """

    engine: Any
    because: str


@dataclass(frozen=True, kw_only=True)
class Keeps:
    """What a run of an engine keeps in memory and costs, from which plans of memory and time are
    made.

    Attributes
    ----------
    object_bytes : int
        Bytes for each object pixel beside the object: states, sums, beliefs, what is computed after
        a sweep.
    stack : str
        What is kept for each frame and mode, "waves" say; "" where nothing is.
    stack_bytes : int
        Bytes of that for each detector pixel of a frame and mode.
    frame_bytes : int
        Bytes kept for each detector pixel of a frame beside its amplitude.
    shift_bytes : int
        Bytes kept for each pixel of the probe at every distinct shift.
    counts : bool
        Whether counts and background are kept beside the amplitudes, where there is a background.
    sums_apart : bool
        Whether sums over all frames are made apart from the sweep, from frames that are sent once
        more.
    streams : bool
        Whether frames may stay on the host while a GPU computes.
    transforms : float, optional
        Time of a pass in Fourier transforms of a frame and mode, measured; None where it was not.
    compile_seconds : int
        What compiling its own kernels takes on one core, measured on a server (AMD Zen 3).
    """

    object_bytes: int = 64
    stack: str = ""
    stack_bytes: int = 0
    frame_bytes: int = 0
    shift_bytes: int = 0
    counts: bool = False
    sums_apart: bool = False
    streams: bool = True
    transforms: float | None = None
    compile_seconds: int = 15


#: What the options of an unknown are called where that is not its name in `Unknowns`.
OPTION_OF = {"log_scale": "dose"}


class Engine:
    """A reconstruction algorithm. Subclasses are frozen dataclasses whose fields are the options a
    user may set.

    What the rest of the package must know of an engine, the engine declares here; the defaults are
    right for an engine that updates object and probe frame by frame and keeps nothing else.

    Attributes
    ----------
    name : str
        As in ``--engine name``.
    title : str
        One line for lists of engines.
    moves : frozenset of str
        Unknowns that it can move, names of fields of `Unknowns`.
    copes : frozenset of str
        What data and models may have that it honours: "modes" of the probe, "near field", "masks",
        "background", "constraints" on object and probe after each pass, "slices" of the object,
        "spread" of light over pixels.
    follows : frozenset of str
        Unknowns that it does not move, but that may change between its passes: what it keeps stays
        right, or is made right by `moved`. A run refines them in turn with it.
    schedule : str
        How a pass is cut into batches where nobody says otherwise.
    shuffle : bool
        Whether frames are visited in a new random order each pass where nobody says otherwise.
    finished_by : str
        Name of the engine that takes over for the last quarter of the passes where nobody says
        otherwise; "" for none.
    needs_guess : bool
        Whether it wants a first guess of object and probe by another engine, where none is given.
    fixes_scale : bool
        Whether something in it, a prior say, fixes the scale between object and probe. Where
        nothing does, the scale drifts and the result is rescaled to the power that the probe began
        with.
    begins_with : (str, int) or None
        Engine that makes that guess, and its passes; None is the difference map, until it has
        settled.
    instead : str
        What of it says the same as a constraint would, where it copes with none: for messages.
    keeps : Keeps
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    title: ClassVar[str] = ""
    moves: ClassVar[frozenset[str]] = frozenset({"object", "probe"})
    copes: ClassVar[frozenset[str]] = frozenset({"modes", "near field", "masks"})
    follows: ClassVar[frozenset[str]] = frozenset()
    schedule: ClassVar[str] = "sequential"
    shuffle: ClassVar[bool] = False
    finished_by: ClassVar[str] = ""
    needs_guess: ClassVar[bool] = False
    fixes_scale: ClassVar[bool] = False
    begins_with: ClassVar[tuple[str, int] | None] = None
    instead: ClassVar[str] = ""
    keeps: ClassVar[Keeps] = Keeps()

    @property
    def moves_probe(self) -> bool:
        """Whether this run of it learns the probe."""
        return "probe" in self.moves

    @property
    def stacks(self) -> int:
        """How many arrays with a wave for each frame and mode this run keeps; see `Keeps.stack`."""
        return 1 if self.keeps.stack else 0

    @property
    def has_momentum(self) -> bool:
        """Whether this run of it makes the changes of one pass again in the next: doses refined
        between its passes then have no momentum of their own.
        """
        return False

    @property
    def varies_probe(self) -> bool:
        """Whether this run of it finds how the probe varies from frame to frame."""
        return False

    def probe_moves_at(self, epoch: int) -> bool:
        """Whether the probe is updated in pass `epoch` (counted from 0)."""
        return self.moves_probe

    def model(self, problem: Problem, backend: Backend) -> Model:
        """The forward model that `ml` fits, and by which R of a result is measured. A subclass that
        changes a part of it has a model of its own.
        """
        return Model.of(problem, backend)

    @property
    def models(self) -> bool:
        """Whether it has a forward model of its own."""
        return type(self).model is not Engine.model

    def init(self, problem: Problem, object: Array, probe: Array, ctx: Context) -> State:
        """First state; copies, so that a caller's array never changes."""
        xp = ctx.backend.xp
        return State(
            xp.array(object, "complex64", order="C"), xp.array(probe, "complex64", order="C")
        )

    def step(
        self, state: Any, problem: Problem, batches: list[Any], ctx: Context
    ) -> tuple[Any, Report]:
        """One pass over the data. Never looks at a number on the device."""
        raise TypeError(f"{type(self).__name__} has no step")

    def moved(
        self, state: Any, before: Problem, after: Problem, factor: Array, ctx: Context
    ) -> Any:
        """The state for the same frames at other positions: `after` in place of `before`. What is
        known of their doses has multiplied their amplitudes by `factor`, (N,) float32.
        """
        return state

    def estimate(self, state: Any, ctx: Context) -> Estimate:
        """What the state says of object and probe."""
        return Estimate(state.object, state.probe)

    def for_passes(self, passes: int) -> Engine:
        """The same with what is left open set for a run of so many passes."""
        return self

    def updating(self, update: Update) -> Engine:
        """The same, moving the unknowns that are named when it is said.

        Raises
        ------
        PtychonError
            For an unknown that this engine cannot move, keep or time so.
        """
        changes: dict[str, Any] = {}
        for name, when in update.items():
            changes |= self.timed(name, when)
        return replace(self, **changes) if changes else self

    def timed(self, name: str, when: bool | After) -> dict[str, Any]:
        """The options by which it moves an unknown when it is said.

        By the names of its options: ``probe`` (a switch), ``probe_start``, ``probe_every`` and
        ``probe_before``; those of `log_scale` begin with ``dose``. A ``probe_start`` of None leaves
        the probe as it is.
        """
        name = OPTION_OF.get(name, name)
        own = {f.name: f.default for f in fields(self)}
        switch, start = isinstance(own.get(name), bool), f"{name}_start"
        if when is False:
            if switch:
                return {name: False}
            if start in own and own[start] is not None:
                return {start: None}
            raise PtychonError(f"engine {self.name!r} always moves {name!r}")
        found: dict[str, Any] = {name: True} if switch else {}
        if when is True:
            # asked for, though this run of it would leave it alone
            held = start in own and own[start] is not None and getattr(self, start) is None
            return found | ({start: own[start]} if held else {})
        wanted = {start: when.passes}
        if when.every != 1:
            wanted[f"{name}_every"] = when.every
        if when.before is not None:
            wanted[f"{name}_before"] = when.before
        for option in wanted:
            if option not in own:
                raise PtychonError(
                    f"engine {self.name!r} cannot move {name!r} {when}: it has no option {option!r}"
                )
        return found | wanted

    def eager(self) -> Engine:
        """The same with all that it does only in later passes done from the first: what compiling
        ahead runs.

        Options named ``*_start`` are passes from which something begins.
        """
        late = {
            f.name: 0
            for f in fields(self)
            if f.name.endswith("_start") and getattr(self, f.name) is not None
        }
        return replace(self, **late) if late else self

    def remedy(self, extra: dict[str, float], epoch: int) -> Remedy | None:
        """What to try instead, after a pass that shows that the run will fail."""
        return None


def check_range(
    name: str, value: float | None, low: float, high: float, open_low: bool = True
) -> None:
    """Refuse an option outside its range, naming both; None leaves the choice to the engine."""
    if value is None:
        return
    if not (low < value or (value == low and not open_low)) or not value <= high:
        bracket = "(" if open_low else "["
        raise PtychonError(f"{name} is {value}; it must lie in {bracket}{low:g}, {high:g}]")


def blocks(n: int, size: int = 16) -> list[slice]:
    """All n positions in slices of at most `size`: for sums in which the order does not matter."""
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]
