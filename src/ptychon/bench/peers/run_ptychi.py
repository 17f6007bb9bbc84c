"""Pty-Chi: ePIE, rPIE, LSQML, the difference map and gradient descent by automatic
differentiation; LSQML and rPIE with modes, positions and slices.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from _adapter import PIXEL, THREADS, WAVELENGTH, Problem, Run, main


class _NoBlur:
    """Stands for the one thing that Pty-Chi takes from torchvision, where that is of another build
    than torch.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("torchvision cannot be imported, and a Gaussian blur was asked for")


try:
    importlib.import_module("torchvision")
except RuntimeError:
    # a blur for constraints that nothing here asks for
    for _name in ("torchvision", "torchvision.transforms"):
        sys.modules[_name] = ModuleType(_name)
    vars(sys.modules["torchvision.transforms"])["GaussianBlur"] = _NoBlur

import ptychi.api as api  # noqa: E402
from ptychi.api.task import PtychographyTask  # noqa: E402

#: Options, batch and steps (object, probe) as the package's own tests of these engines set them;
#: None: its default. "one by one" is the sequential algorithm of the paper, with the steps that
#: ptychon takes.
ALGORITHMS: dict[str, tuple[Any, int | None, float | None, float | None, float | None]] = {
    "epie": (api.EPIEOptions, 100, 0.1, 0.1, 1.0),
    "epie, one by one": (api.EPIEOptions, 1, 1.0, 0.5, 1.0),
    "rpie": (api.RPIEOptions, 20, 0.1, 1.0, None),
    "lsqml": (api.LSQMLOptions, 96, 1.0, 1.0, None),
    "dm": (api.DMOptions, 100, None, None, None),
    "autodiff": (api.AutodiffPtychographyOptions, 96, 0.1, 0.1, None),
}
#: Batch with modes, positions and slices: scans this small are but one or two batches of 96. Step
#: and largest move of positions are the package's defaults.
SMALL_BATCH = 20


def start(problem: Problem, algorithm: str, passes: int) -> Run:
    torch.set_num_threads(THREADS)
    kind, batch, object_step, probe_step, alpha = ALGORITHMS[algorithm]
    moves = problem.positions is not None
    if moves or problem.gaps is not None:
        batch = SMALL_BATCH
    options = kind()
    settings: dict[str, Any] = {}
    p = problem.probe.shape[-1]

    def choose(where: Any, name: str, value: Any, label: str) -> None:
        if value is not None:
            setattr(where, name, value)
        if hasattr(where, name):
            settings[label] = getattr(where, name)

    choose(options.object_options, "step_size", object_step, "object step")
    choose(options.probe_options, "step_size", probe_step, "probe step")
    choose(options.object_options, "alpha", alpha, "object alpha")
    choose(options.probe_options, "alpha", alpha, "probe alpha")
    if algorithm == "dm":
        # positions worked on together; "smaller values ... can be slower", and 1 is the default
        choose(options.reconstructor_options, "chunk_length", batch, "chunk")
    else:
        choose(options.reconstructor_options, "batch_size", batch, "batch")
    places = options.probe_position_options
    places.optimizable = moves
    if moves:
        places.optimizer = api.Optimizers.SGD
        settings["position step"] = places.step_size
        settings["limit of it, px"] = places.correction_options.update_magnitude_limit
    options.object_options.pixel_size_m = PIXEL
    if problem.gaps is not None:
        options.object_options.slice_spacings_m = np.asarray(problem.gaps)
        options.data_options.wavelength_m = WAVELENGTH
    # window j begins at position + origin - (P - 1)/2, and positions with a fraction would shift
    # the probe
    options.object_options.determine_position_origin_coords_by = (
        api.ObjectPosOriginCoordsMethods.SPECIFIED
    )
    options.object_options.position_origin_coords = [(p - 1) / 2 - p // 2] * 2
    options.reconstructor_options.default_device = api.Devices.CPU
    options.reconstructor_options.num_epochs = passes
    options.reconstructor_options.random_seed = 0
    logging.disable(logging.INFO)
    centres = problem.positions if moves else problem.corners + p // 2
    task = PtychographyTask(
        options,
        diffraction_data=problem.patterns,
        object_data=problem.layers,
        probe_data=problem.modes[None] / p,  # its FFT has no factor, ours 1/p
        probe_position_x_px=centres[:, 1].astype(np.float32),
        probe_position_y_px=centres[:, 0].astype(np.float32),
    )

    def loop(after: Callable[[], None]) -> None:
        for _ in range(passes):
            task.run(n_epochs=1)
            after()

    def state() -> tuple[Any, ...]:
        found, probe = (task.get_data_to_cpu(name, as_numpy=True) for name in ("object", "probe"))
        answer = found.reshape(problem.object.shape), probe[0].reshape(problem.probe.shape) * p
        if not moves:
            return answer
        return *answer, task.get_data_to_cpu("probe_positions", as_numpy=True)

    return Run(loop, state, settings, ("ptychi", "torch"))


if __name__ == "__main__":
    main(start)
