"""phaser (PyPI: phaserem), on JAX: ePIE, LSQML and gradient descent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pane
from _adapter import Problem, Run, main
from phaser.execute import execute_engine
from phaser.observer import Observer, ObserverSet
from phaser.plan import EngineHook
from phaser.state import (
    IterState,
    Patterns,
    PixelatedObjectState,
    PixelatedProbeState,
    PreparedRecons,
    ReconsState,
    ScanState,
)
from phaser.utils.num import Sampling, get_backend_module
from phaser.utils.object import ObjectSampling

#: ePIE as in the section on algorithms of its documentation, and with the steps and groups that
#: were quickest here of a few; LSQML with the plan's defaults, which want a probe whose maximum is
#: about 1 (`scaled`); gradient descent by Adam with rates found here, because those of the
#: documentation's example do not move this object.
SOLVERS: dict[str, dict[str, Any]] = {
    "epie": {
        "type": "conventional",
        "solver": {"type": "epie", "beta_object": 0.1, "beta_probe": 0.1},
    },
    "epie, tuned": {
        "type": "conventional",
        "grouping": 16,
        "solver": {"type": "epie", "beta_object": 0.5, "beta_probe": 0.5},
    },
    "lsqml": {"type": "conventional", "solver": {"type": "lsqml"}},
    "gradient": {
        "type": "gradient",
        "solvers": {
            "object": {"type": "adam", "learning_rate": 0.02},
            "probe": {"type": "adam", "learning_rate": 0.5},
        },
        "regularizers": [],
    },
}


def scaled(problem: Problem, algorithm: str) -> tuple[Problem, float]:
    """The problem in units in which the algorithm works, and what its probe was multiplied by."""
    factor = float(1 / np.abs(problem.probe).max()) if algorithm == "lsqml" else 1.0
    patterns, probe = problem.patterns * np.float32(factor**2), problem.probe * np.float32(factor)
    return replace(problem, patterns=patterns, probe=probe), factor


class _Watch(Observer):
    after: Callable[[], None]
    state: ReconsState

    def update_iteration(
        self, state: ReconsState, i: int, n: int, errors: dict[str, float]
    ) -> None:
        jax.block_until_ready((state.object.data, state.probe.data))
        self.state = state
        self.after()


def _flat(props: Any) -> dict[str, Any]:
    """Steps and rates in force."""
    solvers = (
        {"": props.solver}
        if hasattr(props, "solver")
        else {" ".join(k): v for k, v in props.solvers.items()}
    )
    dull = ("b1", "b2", "eps", "eps_root", "nesterov")
    return {
        f"{k} {name}".strip(): v
        for k, s in solvers.items()
        for name, v in s.props.into_data().items()
        if name not in dull
    }


def start(problem: Problem, algorithm: str, passes: int) -> Run:
    logging.disable(logging.INFO)
    xp = get_backend_module("jax")
    problem, factor = scaled(problem, algorithm)
    p = problem.probe.shape[0]
    corners = problem.corners.astype(np.float64)
    sampling = Sampling((p, p), sampling=(1.0, 1.0))
    # lengths in pixels: window j begins at its place - (P - 1)/2 - corner
    plane = ObjectSampling(problem.object.shape, (1.0, 1.0), (0.0, 0.0))
    places = (corners + (p - 1) / 2).astype(np.float32)
    state = ReconsState(
        iter=IterState(0, 0, 0),
        wavelength=1e-3,
        probe=PixelatedProbeState(sampling, problem.probe[None].copy()),
        object=PixelatedObjectState(plane, problem.object[None].copy(), np.array([], np.float32)),
        scan=ScanState(places, places.copy()),
    ).to_xp(xp)
    # `bwlim_frac` None: the data hold all frequencies
    plan: dict[str, Any] = {
        "probe_modes": 1,
        "niter": passes,
        "noise_model": {"type": "amplitude"},
        "bwlim_frac": None,
        "obj_pad_px": 0.0,
        "group_constraints": [],
        "iter_constraints": [],
    }
    hook = pane.from_data(plan | SOLVERS[algorithm], EngineHook)
    watch = _Watch()
    patterns = np.fft.ifftshift(problem.patterns, axes=(1, 2)).astype(np.float32)
    ready = PreparedRecons(
        Patterns(patterns, np.ones((p, p), np.float32)), state, "peer", ObserverSet([watch])
    )

    def loop(after: Callable[[], None]) -> None:
        watch.after = after
        execute_engine(ready, hook)

    def found() -> tuple[Any, Any]:
        state = watch.state
        y, x = np.rint(-np.asarray(state.object.sampling.corner)).astype(int)
        h, w = problem.object.shape
        return np.asarray(state.object.data)[0, y : y + h, x : x + w], np.asarray(state.probe.data)[
            0
        ] / factor

    settings = {
        "noise model": "amplitude",
        "group": hook.props.grouping or 64,
        "probe scaled by": factor,
        **_flat(hook.props),
    }
    return Run(loop, found, settings, ("phaserEM", "jax"))


if __name__ == "__main__":
    main(start)
