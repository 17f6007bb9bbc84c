"""PtyLab: ePIE and mPIE."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from _adapter import Problem, Run, main

matplotlib.use("Agg")
logging.disable(logging.INFO)

import PtyLab  # noqa: E402
from PtyLab import Engines  # noqa: E402


def start(problem: Problem, algorithm: str, passes: int) -> Run:
    np.random.seed(0)  # noqa: NPY002  PtyLab draws from it
    kind = {"epie": Engines.ePIE, "mpie": Engines.mPIE}[algorithm]
    p, side = len(problem.probe), len(problem.object)
    data = PtyLab.ExperimentalData(None, "CPM")
    data.ptychogram = problem.patterns.copy()
    # a geometry whose object pixel is 10 nm; positions are those of the window's centre from the
    # object's
    data.wavelength, data.zo, data.dxd = 1e-9, 1.0, 1e-9 / (p * 1e-8)
    data.encoder = (problem.corners - (side // 2 - p // 2)) * 1e-8
    data.entrancePupilDiameter = data.spectralDensity = data.theta = data.emptyBeam = None
    data._setData()
    params = PtyLab.Params()
    params.gpuSwitch = False
    params.propagatorType = "Fraunhofer"
    # "this speeds up some propagators", say its examples
    params.fftshiftSwitch = True
    params.positionOrder = "random"
    now = PtyLab.Reconstruction(data, params)
    now.No = side
    now.initialProbe, now.initialObject = "circ", "ones"
    now.initializeObjectProbe()
    now.object[...] = problem.object
    now.probe[...] = problem.probe
    engine = kind(now, data, params, PtyLab.DummyMonitor())
    engine.numIterations = passes
    if not np.array_equal(now.positions, problem.corners):
        raise ValueError("PtyLab places the windows elsewhere")

    def loop(after: Callable[[], None]) -> None:
        # both engines call this once a pass, after their constraints
        engine.showReconstruction = lambda loop, force=False: after()
        engine.reconstruct()

    def state() -> tuple[Any, Any]:
        return np.squeeze(now.object), np.squeeze(now.probe)

    names = "betaObject", "betaProbe", "alphaObject", "alphaProbe", "feedbackM", "frictionM"
    settings = {name: getattr(engine, name) for name in names if hasattr(engine, name)}
    return Run(loop, state, settings | {"fftshiftSwitch": True}, ("ptylab", "numpy"))


if __name__ == "__main__":
    main(start)
