"""CDTools: Adam on the amplitude misfit, with the workhorse model and with the simple one
(whole-pixel windows).
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


def start(problem: Problem, algorithm: str, passes: int) -> Run:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    name = algorithm.removeprefix("adam, ")
    p, pixel = problem.probe.shape[0], 1e-8
    step = 1e-9 / (p * pixel)
    # detector rows run along -y and columns along -x, so that object rows and columns do too
    basis = np.array([[0, -step], [-step, 0], [0, 0]])
    geometry = {
        "distance": 1.0,
        "basis": basis,
        "corner": np.array([p * step / 2, p * step / 2, 1.0]),
    }
    places = np.zeros((len(problem.corners), 3))
    places[:, 0], places[:, 1] = -pixel * problem.corners[:, 1], -pixel * problem.corners[:, 0]
    data = cdtools.datasets.Ptycho2DDataset(
        places.astype(np.float32),
        problem.patterns.copy(),
        wavelength=1e-9,
        detector_geometry=geometry,
    )
    kind = {"fancy": cdtools.models.FancyPtycho, "simple": cdtools.models.SimplePtycho}[name]
    model = kind.from_dataset(data, **({"obj_padding": 4} if name == "fancy" else {}))
    first = problem.corners.min(axis=0) - (4 if name == "fancy" else 0)
    guess = torch.as_tensor(problem.probe)
    with torch.no_grad():
        norm = guess.abs().max()
        model.probe_norm.fill_(norm)
        model.probe.copy_((guess / norm)[None] if model.probe.ndim == 3 else guess / norm)
        model.obj.fill_(complex(problem.object[0, 0]))
    # positions, flux and background are known here, as they are to everyone else
    for known in ("weights", "translation_offsets", "background"):
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

    def state() -> tuple[Any, Any]:
        found = np.full(problem.object.shape, problem.object[0, 0])
        obj = model.obj.detach().numpy()
        y, x = first
        low, high = np.maximum(first, 0), np.minimum(first + obj.shape, found.shape)
        found[low[0] : high[0], low[1] : high[1]] = obj[
            low[0] - y : high[0] - y, low[1] - x : high[1] - x
        ]
        probe = (model.probe * model.probe_norm).detach().numpy()
        return found, probe.reshape(problem.probe.shape)

    settings = {"loss": "amplitude MSE", "stages (share, rate, batch)": STAGES[name]}
    return Run(loop, state, settings, ("cdtools-py", "torch"))


if __name__ == "__main__":
    main(start)
