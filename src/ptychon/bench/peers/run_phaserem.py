"""phaser (PyPI: phaserem), on JAX: ePIE, LSQML and gradient descent; with modes, positions and
slices.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pane
from _adapter import PIXEL, WAVELENGTH, Problem, Run, main
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


#: Of the package's examples with modes and positions (prsco3_lsqml): groups, steps, when probe and
#: positions begin. Their `illum_reg_object` is for electrons counted in other units: the plan's
#: default stands. Lengths are pixels here; 0.2 is the largest step of the example in angstrom, of
#: which its pixels have about as many.
EXAMPLE: dict[str, Any] = {
    "grouping": 16,
    "update_probe": {"after": 5},
    "update_positions": {"after": 5},
}
MOMENTUM = {"type": "momentum", "momentum": 0.9, "step_size": 2.0, "max_step_size": 0.2}
LSQML = {"type": "lsqml", "beta_probe": 0.1, "beta_object": 0.5, "gamma": 0.0}
#: Learning rate of positions, px, of gradient descent: found here.
POSITION_RATE = 0.05


def hard(problem: Problem, algorithm: str) -> dict[str, Any]:
    """Additions to the plan for modes, positions and slices."""
    more: dict[str, Any] = {"probe_modes": len(problem.modes), "grouping": EXAMPLE["grouping"]}
    moves = problem.positions is not None
    if algorithm == "lsqml":
        more |= {"solver": LSQML, "update_probe": EXAMPLE["update_probe"]}
        more |= {"position_solver": MOMENTUM} if moves else {}
    elif moves:
        solvers = dict(SOLVERS["gradient"]["solvers"])
        solvers["positions"] = {"type": "adam", "learning_rate": POSITION_RATE}
        more["solvers"] = solvers
    return more | ({"update_positions": EXAMPLE["update_positions"]} if moves else {})


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
    p = problem.probe.shape[-1]
    if problem.positions is None:
        begins = problem.corners.astype(np.float64)
    else:
        begins = problem.positions - p // 2
    thick = np.array([], np.float32)
    wavelength = 1e-3
    if problem.gaps is not None:
        # in units of a pixel: each slice is as thick as the gap behind it
        gaps = problem.gaps * WAVELENGTH / PIXEL**2 / wavelength
        thick = np.append(gaps, gaps[-1]).astype(np.float32)
    sampling = Sampling((p, p), sampling=(1.0, 1.0))
    # lengths in pixels: window j begins at its place - (P - 1)/2 - corner
    plane = ObjectSampling(problem.object.shape[-2:], (1.0, 1.0), (0.0, 0.0))
    places = (begins + (p - 1) / 2).astype(np.float32)
    state = ReconsState(
        iter=IterState(0, 0, 0),
        wavelength=wavelength,
        probe=PixelatedProbeState(sampling, problem.modes.copy()),
        object=PixelatedObjectState(plane, problem.layers.copy(), thick),
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
    plan |= SOLVERS[algorithm]
    if problem.positions is not None or problem.gaps is not None:
        plan |= hard(problem, algorithm)
    hook = pane.from_data(plan, EngineHook)
    watch = _Watch()
    patterns = np.fft.ifftshift(problem.patterns, axes=(1, 2)).astype(np.float32)
    ready = PreparedRecons(
        Patterns(patterns, np.ones((p, p), np.float32)), state, "peer", ObserverSet([watch])
    )

    def loop(after: Callable[[], None]) -> None:
        watch.after = after
        execute_engine(ready, hook)

    def found() -> tuple[Any, ...]:
        state = watch.state
        y, x = np.rint(-np.asarray(state.object.sampling.corner)).astype(int)
        h, w = problem.object.shape[-2:]
        layers = np.asarray(state.object.data)[:, y : y + h, x : x + w]
        modes = np.asarray(state.probe.data) / factor
        answer = layers.reshape(problem.object.shape), modes.reshape(problem.probe.shape)
        if problem.positions is None:
            return answer
        return *answer, np.asarray(state.scan.data) - (p - 1) / 2 + p // 2

    moves = MOMENTUM if algorithm == "lsqml" else POSITION_RATE
    settings = {
        **({} if problem.positions is None else {"positions": moves}),
        "noise model": "amplitude",
        "group": hook.props.grouping or 64,
        "probe scaled by": factor,
        **_flat(hook.props),
    }
    return Run(loop, found, settings, ("phaserEM", "jax"))


if __name__ == "__main__":
    main(start)
