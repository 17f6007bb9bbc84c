"""CDTools: Adam on the amplitude misfit, with the workhorse model and with the simple one
(whole-pixel windows); the first also with modes and positions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

import cdtools
import torch
from _adapter import THREADS, Problem, Run, main

#: (share of the passes, learning rate, batch): the two stages of the package's own example of the
#: model.
STAGES = {
    "fancy": ((0.5, 0.02, 10), (0.5, 0.005, 50)),
    "simple": ((0.5, 0.02, 10), (0.5, 0.005, 50)),
}
#: Room around the object, px; more where positions may move.
PADDING, MORE_PADDING = 4, 10


def start(problem: Problem, algorithm: str, passes: int) -> Run:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    name = algorithm.removeprefix("adam, ")
    p, pixel = problem.probe.shape[-1], 1e-8
    moves = problem.positions is not None
    padding = MORE_PADDING if moves else PADDING
    step = 1e-9 / (p * pixel)
    # detector rows run along -y and columns along -x, so that object rows and columns do too
    basis = np.array([[0, -step], [-step, 0], [0, 0]])
    geometry = {
        "distance": 1.0,
        "basis": basis,
        "corner": np.array([p * step / 2, p * step / 2, 1.0]),
    }
    places = np.zeros((len(problem.corners), 3))
    begins = problem.positions - p // 2 if moves else problem.corners
    places[:, 0], places[:, 1] = -pixel * begins[:, 1], -pixel * begins[:, 0]
    data = cdtools.datasets.Ptycho2DDataset(
        places.astype(np.float32),
        problem.patterns.copy(),
        wavelength=1e-9,
        detector_geometry=geometry,
    )
    kind = {"fancy": cdtools.models.FancyPtycho, "simple": cdtools.models.SimplePtycho}[name]
    more = {"obj_padding": padding, "n_modes": len(problem.modes)} if name == "fancy" else {}
    model = kind.from_dataset(data, **more)
    # the grid of its object begins at the least position, whatever its fraction
    first = np.rint(begins.min(axis=0)).astype(int) - (padding if name == "fancy" else 0)
    guess = torch.as_tensor(problem.modes)
    with torch.no_grad():
        norm = guess.abs().max()
        model.probe_norm.fill_(norm)
        model.probe.copy_(guess / norm if model.probe.ndim == 3 else guess[0] / norm)
        model.obj.fill_(complex(problem.object[0, 0]))
    # flux and background are known here, as they are to everyone else
    for known in ("weights", "background", *(() if moves else ("translation_offsets",))):
        if isinstance(getattr(model, known, None), torch.nn.Parameter):
            getattr(model, known).requires_grad = False
    recon = cdtools.reconstructors.AdamReconstructor(model, data)

    def loop(after: Callable[[], None]) -> None:
        for share, rate, batch in STAGES[name]:
            # in this thread: another one is for figures that follow the run
            for _ in recon.optimize(
                max(1, round(share * passes)), lr=rate, batch_size=batch, thread=False
            ):
                after()

    def state() -> tuple[Any, ...]:
        found = np.full(problem.object.shape, problem.object[0, 0])
        obj = model.obj.detach().numpy()
        y, x = first
        low, high = np.maximum(first, 0), np.minimum(first + obj.shape, found.shape)
        found[low[0] : high[0], low[1] : high[1]] = obj[
            low[0] - y : high[0] - y, low[1] - x : high[1] - x
        ]
        probe = (model.probe * model.probe_norm).detach().numpy()
        answer = found, probe.reshape(problem.probe.shape)
        if not moves:
            return answer
        offsets = model.translation_offsets * model.translation_scale
        return *answer, problem.positions + offsets.detach().numpy()

    settings = {"loss": "amplitude MSE", "stages (share, rate, batch)": STAGES[name]}
    return Run(loop, state, settings, ("cdtools-py", "torch"))


if __name__ == "__main__":
    main(start)
