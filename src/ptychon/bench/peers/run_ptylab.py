"""PtyLab: ePIE and mPIE, with modes and position correction (pcPIE), and e3PIE for slices."""

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
    kinds = {"epie": Engines.ePIE, "mpie": Engines.mPIE, "e3pie": Engines.e3PIE}
    kind = kinds[algorithm]
    p, side = problem.probe.shape[-1], problem.object.shape[-1]
    data = PtyLab.ExperimentalData(None, "CPM")
    data.ptychogram = problem.patterns.copy()
    # a geometry whose object pixel is 10 nm; positions are those of the window's centre from the
    # object's
    data.wavelength, data.zo, data.dxd = 1e-9, 1.0, 1e-9 / (p * 1e-8)
    begins = problem.corners if problem.positions is None else problem.positions - p // 2
    data.encoder = (begins - (side // 2 - p // 2)) * 1e-8
    data.entrancePupilDiameter = data.spectralDensity = data.theta = data.emptyBeam = None
    data._setData()
    params = PtyLab.Params()
    params.gpuSwitch = False
    params.propagatorType = "Fraunhofer"
    # "this speeds up some propagators", say its examples
    params.fftshiftSwitch = True
    params.positionOrder = "random"
    if len(problem.modes) > 1:
        params.orthogonalizationSwitch = True
    if problem.positions is not None:
        params.positionCorrectionSwitch = True
    now = PtyLab.Reconstruction(data, params)
    now.No = side
    now.npsm, now.nslice = len(problem.modes), len(problem.layers)
    if problem.gaps is not None:
        now.dz, now.refrIndex = float(problem.gaps[0]), 1.0
    now.initialProbe, now.initialObject = "circ", "ones"
    now.initializeObjectProbe()
    now.object[0, 0, 0] = problem.layers
    now.probe[0, 0] = problem.modes[:, None]
    engine = kind(now, data, params, PtyLab.DummyMonitor())
    engine.numIterations = passes
    if problem.positions is None and not np.array_equal(now.positions, problem.corners):
        raise ValueError("PtyLab places the windows elsewhere")

    def loop(after: Callable[[], None]) -> None:
        # both engines call this once a pass, after their constraints
        engine.showReconstruction = lambda loop, force=False: after()
        engine.reconstruct()

    def state() -> tuple[Any, ...]:
        # of a probe that walks through slices the first is what meets the specimen
        answer = (
            now.object[0, 0, 0].reshape(problem.object.shape),
            now.probe[0, 0, :, 0].reshape(problem.probe.shape),
        )
        if problem.positions is None:
            return answer
        return *answer, now.encoder_corrected / 1e-8 + side // 2

    names = "betaObject", "betaProbe", "alphaObject", "alphaProbe", "feedbackM", "frictionM"
    settings = {name: getattr(engine, name) for name in names if hasattr(engine, name)}
    return Run(loop, state, settings | {"fftshiftSwitch": True}, ("ptylab", "numpy"))


if __name__ == "__main__":
    main(start)
