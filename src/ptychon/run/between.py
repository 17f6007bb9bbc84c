"""Positions, doses and the background refined between the passes of an engine: it and
`model.alternate` take turns.

After a pass, with object and probe as the pass has left them, each frame that is due takes its own
step. Steps of positions are limited, in the beginning to 1 px, later to 0.1 px, and to ten times
their median; their mean is taken off, which the probe takes up. They have momentum: a scan that is
stretched or drifts deforms the object with it, so that single steps along such errors are much too
short. Every few turns frames that fit much worse than the others are tried at places around, as far
as other frames see the object there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..engines import After, Context, Engine, State
from ..kernels.reference import abs2
from ..model.alternate import background_step, best_of, frame_steps, misfits
from ..model.forward import Model
from ..model.grid import windows
from ..model.known import known
from ..model.problem import Problem
from ..model.slices import layers
from ..model.unknowns import Unknowns
from ..types import REAL, Array, FloatArray, IntArray, PtychonError
from .positions import MANY, PER_PIXEL
from .refine import Found, Turns

#: How many times the median move is the largest, and the largest step of a log dose.
MEDIANS, DOSE = 10.0, 1.0
#: Momentum of doses: with more of it, or beside that of an engine, doses that are far off swing.
DOSE_MOMENTUM = 0.5
#: Turns between two searches for frames that fit badly: those whose misfit is so many times the
#: median, on circles of these radii (px) about where they are and where the data say.
SEARCH_EVERY, OUTLIER, RADII = 5, 1.3, (1.0, 2.0, 3.5, 5.0)
#: They are not put where others see less of what they would see than so much of that where they
#: are, or where the data put them, whichever is less: there the object fits anything.
KNOWN = 0.9
#: Frames whose pixels say what a background that is taken off leaves of the noise, in every turn.
NOISE_FRAMES = 4
#: First background, as a share of the mean counts of a pixel.
DIM = 1e-3


class Refinement:
    """What a run refines between its passes: the problem as its engine sees it now.

    Parameters
    ----------
    turns : Turns or None
        None refines nothing.
    problem : Problem
        On the host.
    base : Problem
        The same for the engine, on its device.
    engine : Engine
    ctx : Context
    found : Found, optional
        From where a run was stopped.

    Attributes
    ----------
    local : Problem
        Windows, shifts and amplitudes as they are now: with doses taken off.
    found : Found
    """

    def __init__(
        self,
        turns: Turns | None,
        problem: Problem,
        base: Problem,
        engine: Engine,
        ctx: Context,
        found: Found | None = None,
    ) -> None:
        self.turns, self.engine, self.ctx = turns, engine, ctx
        self._problem, self._base = problem, base
        self._pattern: Array = None
        self._lit: Any = None
        self._first: Any = None
        self._total = 1.0
        when: Mapping[str, After] = {} if turns is None else turns.when
        doses = "log_scale" in engine.follows and problem.log_scale is not None
        self.found = found or Found(
            log_scale=np.asarray(problem.log_scale, float) if doses else None
        )
        self._given = problem.positions if problem.measured is None else problem.measured
        if when.keys() & {"log_scale", "background"} or self.found.log_scale is not None:
            self._check(when)
        if "background" in when:
            self._count()
        self.local = base
        self.power: float | None = None
        if self.found.stored():
            self._see()

    # ------------------------------------------------------------ what the engine sees

    def _check(self, when: Mapping[str, After]) -> None:
        if hasattr(self._base.amplitude, "host"):
            raise PtychonError(
                f"engine {self.engine.name!r} refines doses and background, and uses doses, only "
                "where all frames fit on the GPU; crop or bin them, or use --backend numpy"
            )
        if "background" in when and not self._problem.counting:
            raise PtychonError(
                "a background is refined for counts only, and these data are not counts; subtract "
                "one with --background, or state --gain"
            )

    def _count(self) -> None:
        """Measured patterns, and where the background begins."""
        problem, move = self._problem, self.ctx.backend.asarray
        if problem.counts is None:
            self._pattern = self._base.amplitude**2
        else:
            self._pattern = move(problem.counts) - REAL.type(problem.read_noise**2)
        total = float(self._pattern.sum(dtype="float64"))
        lit = problem.mask.sum(axis=0) * (len(problem) // len(problem.mask))
        self._lit, self._total = lit, max(total, 1e-300)
        self._first = np.full(problem.frame_shape, DIM * total / max(lit.sum(), 1))
        if problem.background is not None:
            stated = np.asarray(problem.background, float)[0] - problem.read_noise**2
            self._first = np.maximum(self._first, stated)

    def _see(self) -> None:
        """Make `local` of what is found."""
        found, local, move = self.found, self._base, self.ctx.backend.asarray
        if found.positions is not None:
            many = PER_PIXEL if len(local) > MANY else None
            local = local.with_positions(found.positions, corners=found.corners, per_pixel=many)
        amplitude, more = local.amplitude, dict[str, Any]()
        if self._pattern is not None and found.background is not None:
            xp, dark = self.ctx.backend.xp, move(found.background.astype(REAL))
            amplitude = xp.sqrt(xp.maximum(self._pattern - dark, 0))
            part = self._problem.select(slice(None, None, max(1, -(-len(local) // NOISE_FRAMES))))
            noise = part.with_background(found.background, instead=True).subtracted()
            more = {"counting": False, "noise_variance": noise.noise_variance}
        if found.log_scale is not None:
            factor = np.exp(-found.log_scale).astype(REAL)
            amplitude = amplitude * move(factor)[:, None, None]
            more["noise_scale"] = factor**2
        if amplitude is not local.amplitude:
            local = replace(local, amplitude=amplitude, log_scale=None, **more)
            self.power = float((amplitude**2).sum(dtype="float64"))
        self.local = local

    def _with_doses(self, x: Unknowns) -> Unknowns:
        dose = self.found.log_scale
        return (
            x if dose is None else replace(x, log_scale=self.ctx.backend.asarray(dose.astype(REAL)))
        )

    # ------------------------------------------------------------ a turn

    def turn(self, state: State) -> State:
        """Refine what is due after the pass that is just done."""
        turns, epoch = self.turns, state.epoch - 1
        due = () if turns is None else turns.due(epoch)
        if turns is None or not due:
            return state
        before, old = self.found, self.local
        x, model = self._estimate(state, due)
        own = [name for name in ("positions", "log_scale") if name in due]
        if own:
            self._frames(model, x, own, epoch)
        if "background" in due:
            self._background(model, x)
        self._see()
        after = self.found
        doses = np.zeros(len(self.local))
        if after.log_scale is not None:
            doses += after.log_scale
        if before.log_scale is not None:
            doses -= before.log_scale
        factor = self.ctx.backend.asarray(np.exp(-doses).astype(REAL))
        moved: State = self.engine.moved(state, old, self.local, factor, self.ctx)
        return moved

    def extra(self) -> dict[str, float]:
        """For the record of a pass: how far positions have moved, px, the spread of the log doses
        and the share of the light that is background.
        """
        found, extra = self.found, {}
        when: Mapping[str, After] = {} if self.turns is None else self.turns.when
        if "positions" in when:
            off = 0.0 if found.positions is None else found.positions - self._given
            extra["moved"] = float(np.sqrt(2 * np.mean(np.square(off))))
        if "log_scale" in when:
            extra["dose_spread"] = 0.0 if found.log_scale is None else float(found.log_scale.std())
        if "background" in when:
            dark = 0.0 if found.background is None else found.background
            extra["background"] = float((dark * self._lit).sum()) / self._total
        return extra

    def _estimate(self, state: State, due: tuple[str, ...]) -> tuple[Unknowns, Model]:
        found, move, xp = self.found, self.ctx.backend.asarray, self.ctx.backend.xp
        places = self.local.positions if found.positions is None else found.positions
        x = Unknowns(
            object=layers(state.object),
            probe=state.probe,
            positions=move(np.asarray(places, np.float64)),
            # amplitudes are seen without their doses: this is the change
            log_scale=xp.zeros(len(self.local), "float32") if "log_scale" in due else None,
        )
        return x, Model.of(replace(self.local, background=None), self.ctx.backend)

    def _frames(self, model: Model, x: Unknowns, own: Sequence[str], epoch: int) -> None:
        """Positions and doses."""
        assert self.turns is not None
        turns, move, host = self.turns, self.ctx.backend.asarray, self.ctx.backend.to_host
        limits: list[float] = []
        if "positions" in own:
            places = self._tried(model, x, epoch)
            x = replace(x, positions=move(places))
            model = replace(model, corners=self._corners(places))
            limits += [turns.limit(epoch)] * 2
        if "log_scale" in own:
            limits.append(DOSE)
        change = np.asarray(host(frame_steps(model, self.local, x, own, limits).change))
        if "log_scale" in own:
            self._dose(change[:, -1])
        if "positions" in own:
            self._move(places, change[:, :2], turns.limit(epoch))

    def _dose(self, change: FloatArray) -> None:
        found = self.found
        if found.dose_velocity is not None and not self.engine.has_momentum:
            change = change + DOSE_MOMENTUM * found.dose_velocity
        change = change.clip(-DOSE, DOSE)
        change = change - change.mean()
        dose = change if found.log_scale is None else found.log_scale + change
        self.found = replace(found, log_scale=dose - dose.mean(), dose_velocity=change)

    def _move(self, places: FloatArray, change: FloatArray, limit: float) -> None:
        assert self.turns is not None
        size = np.hypot(*change.T)
        most = MEDIANS * float(np.median(size))
        change = change * np.minimum(1, most / np.maximum(size, 1e-30))[:, None]
        if self.found.velocity is not None:
            change = change + self.turns.how.momentum * self.found.velocity
        change = change.clip(-limit, limit)
        velocity = change - change.mean(axis=0)
        places = places + velocity
        self.found = replace(
            self.found, positions=places, velocity=velocity, corners=self._corners(places)
        )

    def _corners(self, places: FloatArray) -> IntArray:
        local = self.local
        return windows(places, local.frame_shape, local.corners, local.object_shape)

    def _tried(self, model: Model, x: Unknowns, epoch: int) -> FloatArray:
        """Positions after trials around them, of all frames while there is annealing, and of those
        that fit badly now and then.
        """
        assert self.turns is not None
        turns, host = self.turns, self.ctx.backend.to_host
        places = np.asarray(host(x.positions)).copy()
        radius, first = turns.radius(epoch), turns.when["positions"]
        if radius > turns.how.least:
            rng = np.random.default_rng([turns.seed, epoch])
            shape = turns.how.trials, len(places)
            r, angle = radius * np.sqrt(rng.random(shape)), 2 * np.pi * rng.random(shape)
            around = np.stack([r * np.sin(angle), r * np.cos(angle)], axis=-1)
            places = best_of(model, self.local, x, places + around)
            x = replace(x, positions=self.ctx.backend.asarray(places))
            model = replace(model, corners=self._corners(places))
        if ((epoch - first.passes) // first.every) % SEARCH_EVERY != SEARCH_EVERY - 1:
            return places
        misfit = np.asarray(host(misfits(model, self.local, x)))
        middle = float(np.median(misfit))
        spread = 1.48 * float(np.median(np.abs(misfit - middle)))
        worst = np.argsort(-misfit)[: max(1, len(misfit) // 10)]
        worst = np.sort(worst[misfit[worst] > max(OUTLIER * middle, middle + 5 * spread)])
        if len(worst):
            angle = np.arange(8) * np.pi / 4
            ring = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
            around = np.concatenate([[[0.0, 0.0]], *(r * ring for r in RADII)])[:, None]
            tried = np.concatenate([places[worst] + around, self._given[worst] + around])
            light = np.asarray(host(abs2(x.probe).sum(axis=0, dtype="float64")))
            shape = int(x.object.shape[-2]), int(x.object.shape[-1])
            seen = known(light, places, worst, tried, shape)
            least = KNOWN * np.minimum(seen[0], seen[len(around)])
            tried = np.where((seen >= least)[..., None], tried, places[worst])
            part = replace(model, corners=model.corners[worst])
            places[worst] = best_of(part, self.local.select(worst), x.select(worst), tried)
        return places

    def _background(self, model: Model, x: Unknowns) -> None:
        assert self.turns is not None
        found, move = self.found, self.ctx.backend.asarray
        if found.positions is not None and found.corners is not None:
            x = replace(x, positions=move(found.positions))
            model = replace(model, corners=found.corners)
        dark = self._first if found.background is None else found.background
        x = self._with_doses(replace(x, log_scale=None))
        new = background_step(
            model, self._pattern, self.local, x, move(dark), self.turns.how.smooth
        )
        self.found = replace(found, background=np.asarray(self.ctx.backend.to_host(new), float))
