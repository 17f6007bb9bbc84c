"""Checkpoints: a run that was stopped goes on bit for bit.

Batches are a pure function of (positions, seed, number of the pass), so a run is known by its
engine, the state after a pass and what was recorded up to there. All of that is in one HDF5 file,
which appears whole or not at all; object and probe stand also where readers of CXI look for them.

    entry_1/image_1/data, entry_1/image_2/data   object and probe of the state
    ptychon/checkpoint                           every field of `Checkpoint`

The root carries the attribute ``ptychon`` = "checkpoint".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..io.hdf5 import PathLike, create, opened
from ..io.records import get, put
from ..io.saved import FORMAT, check_format
from ..types import FloatArray, PtychonError

if TYPE_CHECKING:
    from ..backends import Backend
    from ..engines import State
    from .progress import Progress


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run after one of its passes.

    Attributes
    ----------
    engine : str
    options : mapping
        The engine's hyper-parameters, as used (a restarted run has safer ones than it was given).
    state : mapping of str to array or number
        Every field of the engine's state, on the host.
    errors : (passes,) float32
        R of the passes of this run; NaN where it was not measured.
    history : mapping of str to (passes,) float32
    passes, planned : int
        Passes done and passes planned, those of an earlier run included.
    recipe : list of dict
        The stages of the run, as `Recipe.stored` gives them.
    stage : int
        The one that was running, counted from 0.
    ran : list of [engine, passes, whether aside]
        Those before it.
    begun, found : mapping of str to array
        What those before it have refined, and what is refined between its passes, as `Found.stored`
        gives it.
    others : list of mapping
        Of each further scan, where several with probes of their own take turns, its `options`,
        `state`, `begun` and `found`.
    backend : str
    seconds : float
        Spent so far.
    settings : mapping
        What the command line needs to go on: the request, the file with the data and its hash.
    """

    engine: str
    options: Mapping[str, Any]
    state: Mapping[str, Any]
    errors: FloatArray
    passes: int
    planned: int
    recipe: list[dict[str, Any]] = field(default_factory=list)
    stage: int = 0
    ran: list[list[Any]] = field(default_factory=list)
    begun: Mapping[str, Any] = field(default_factory=dict)
    found: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, FloatArray] = field(default_factory=dict)
    others: list[Mapping[str, Any]] = field(default_factory=list)
    backend: str = ""
    seconds: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Passes of the stage that was running."""
        return int(self.state.get("epoch", 0))

    def of_scan(self, number: int) -> Checkpoint:
        """What it holds of one of several scans that take turns."""
        return self if not number else replace(self, others=[], **self.others[number - 1])

    def rows(self) -> list[tuple[float, dict[str, float]]]:
        """What the loop had recorded: R and the other numbers of each pass."""
        return [
            (
                float(error),
                {
                    name: float(values[i])
                    for name, values in self.history.items()
                    if math.isfinite(values[i])
                },
            )
            for i, error in enumerate(self.errors)
        ]


def restore(checkpoint: Checkpoint, fresh: State, backend: Backend) -> State:
    """The state of a checkpoint on a backend.

    Parameters
    ----------
    checkpoint : Checkpoint
    fresh : State
        A first state of the same engine on the same problem; it is changed.
    backend : Backend

    Returns
    -------
    State
        `fresh`, with every field replaced.

    Raises
    ------
    PtychonError
        If the checkpoint belongs to another engine or to other data.
    """
    for item in fields(fresh):
        if item.name not in checkpoint.state:
            raise PtychonError(
                f"the checkpoint lacks {item.name!r} of engine {checkpoint.engine!r}; it cannot "
                "go on"
            )
        new, old = checkpoint.state[item.name], getattr(fresh, item.name)
        if hasattr(old, "shape"):
            if tuple(np.shape(new)) != tuple(old.shape):
                raise PtychonError(
                    f"the checkpoint has {item.name} of shape {np.shape(new)}; these data need "
                    f"{tuple(old.shape)}: "
                    f"it belongs to other data, or these were read otherwise"
                )
            new = np.array(new, dtype=old.dtype)
            if hasattr(old, "host"):  # it stays there
                old.host[...] = new
            new = old if hasattr(old, "host") else backend.asarray(new)
        setattr(fresh, item.name, new)
    return fresh


class Checkpointer:
    """A callback that writes a checkpoint every so many passes, and whenever `due` says so.

    Parameters
    ----------
    path : path of the file, which is replaced as a whole each time
    every : int or None
        Passes between two checkpoints; None writes only when `due`.
    due : callable, optional
        Asked after each pass; True writes one, Ctrl-C say.
    settings : mapping
        Kept in the file.
    resumed : Checkpoint, optional
        The one this run goes on from.

    Attributes
    ----------
    written : int or None
        Passes done when the last one was written.
    """

    def __init__(
        self,
        path: PathLike,
        every: int | None = None,
        *,
        due: Callable[[], bool] = lambda: False,
        settings: Mapping[str, Any] | None = None,
        resumed: Checkpoint | None = None,
    ) -> None:
        if every is not None and every < 1:
            raise PtychonError(
                f"a checkpoint every {every} passes was asked for; the number must be at least 1"
            )
        self.path, self.every, self.due, self.settings = path, every, due, dict(settings or {})
        self.written: int | None = None
        self.rows = [] if resumed is None else resumed.rows()
        self._passes = 0 if resumed is None else resumed.passes
        self._before = 0.0 if resumed is None else resumed.seconds

    def __call__(self, progress: Progress) -> None:
        """Keep the record, and write if it is time."""
        if progress.passes <= self._passes:  # the stage has been restarted
            del self.rows[len(self.rows) - (self._passes - progress.passes + 1) :]
        self._passes = progress.passes
        self.rows.append((progress.error, dict(progress.extra)))
        last = progress.passes == progress.planned
        if self.due() or (self.every is not None and (len(self.rows) % self.every == 0 or last)):
            save_checkpoint(self.path, self.take(progress))
            self.written = progress.passes

    def take(self, progress: Progress) -> Checkpoint:
        """The checkpoint of the pass just done."""
        engine, state = progress.engine, progress.state
        assert engine is not None
        names = sorted({name for _, extra in self.rows for name in extra})
        return Checkpoint(
            engine=engine.name,
            options=asdict(engine),
            state=_stored(state),
            errors=np.array([error for error, _ in self.rows], np.float32),
            history={
                n: np.array([extra.get(n, math.nan) for _, extra in self.rows], np.float32)
                for n in names
            },
            passes=progress.passes,
            planned=progress.planned or progress.passes,
            recipe=[] if progress.plan is None else progress.plan.recipe,
            stage=0 if progress.plan is None else progress.plan.stage,
            ran=[] if progress.plan is None else progress.plan.ran,
            begun={} if progress.plan is None else progress.plan.begun,
            found={} if progress.found is None else progress.found.stored(),
            others=[
                {
                    "options": asdict(other.engine) if other.engine is not None else {},
                    "state": _stored(other.state),
                    "begun": {} if other.plan is None else other.plan.begun,
                    "found": {} if other.found is None else other.found.stored(),
                }
                for other in progress.others
            ],
            seconds=self._before + progress.seconds,
            settings=self.settings,
        )


def _stored(state: State) -> dict[str, Any]:
    return {item.name: _on_host(getattr(state, item.name)) for item in fields(state)}


def _on_host(value: Any) -> Any:
    if not hasattr(value, "shape"):
        return value
    return np.asarray(value.get() if hasattr(value, "get") else value)


def save_checkpoint(path: PathLike, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; what was there before is replaced only by a complete one.

    Raises
    ------
    PtychonError
        If the file cannot be written.
    """
    from .. import __version__

    with create(path) as file:
        file.attrs["ptychon"] = "checkpoint"
        file.attrs["ptychon_version"], file.attrs["ptychon_format"] = __version__, FORMAT
        file["cxi_version"], file["number_of_entries"] = 160, 1
        own = file.create_group("ptychon/checkpoint", track_order=True)
        for item in fields(Checkpoint):
            put(own, item.name, getattr(checkpoint, item.name), lenient=True)
        own.attrs["type"], own.attrs["class"] = "record", "Checkpoint"
        for number, name in ((1, "object"), (2, "probe")):
            file.create_group(f"entry_1/image_{number}")["data"] = own["state"][name]


def load_checkpoint(path: PathLike) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    PtychonError
        If the file is missing, damaged or no checkpoint.
    """
    with opened(path) as file:
        kind = str(file.attrs.get("ptychon", ""))
        if kind == "result":
            raise PtychonError(
                f"{path} is a result, not a checkpoint; to go on from it use reconstruct "
                f"--start {path}"
            )
        if kind != "checkpoint" or "ptychon/checkpoint" not in file:
            raise PtychonError(f"{path} is not a checkpoint written by ptychon")
        check_format(file, path)
        values: dict[str, Any] = get(file["ptychon/checkpoint"])
    known = fields(Checkpoint)
    missing = [
        f.name for f in known if f.default is f.default_factory is MISSING and f.name not in values
    ]
    if missing:
        raise PtychonError(f"{path} is incomplete: it lacks {', '.join(missing)}")
    checkpoint = Checkpoint(**{f.name: values[f.name] for f in known if f.name in values})
    if not isinstance(checkpoint.state, Mapping) or np.asarray(checkpoint.errors).ndim != 1:
        raise PtychonError(
            f"{path}: its state is not what a checkpoint holds; the file was altered"
        )
    return checkpoint


__all__ = ["Checkpoint", "Checkpointer", "load_checkpoint", "restore", "save_checkpoint"]
