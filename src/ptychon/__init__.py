"""Ptychon: ptychographic reconstruction with an honest error bar on every pixel."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import engines
    from .checks.predictive import check
    from .data.dataset import Dataset
    from .data.result import Result
    from .inspect.proposal import propose
    from .io import load, save
    from .model.forward import Model
    from .model.problem import Problem
    from .model.unknowns import Unknowns
    from .plots.frames import compare
    from .plots.result import picture as plot
    from .reports.write import write_report as report
    from .run.iterate import iterate
    from .run.recipe import Recipe
    from .run.reconstruct import reconstruct
    from .run.refine import Refine
    from .run.stage import Stage
    from .simulation.simulate import simulate
    from .types import PtychonError, PtychonWarning
    from .uncertainty.call import error_bars

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "Model",
    "Problem",
    "PtychonError",
    "PtychonWarning",
    "Recipe",
    "Refine",
    "Result",
    "Stage",
    "Unknowns",
    "__version__",
    "check",
    "compare",
    "engines",
    "error_bars",
    "iterate",
    "load",
    "plot",
    "propose",
    "reconstruct",
    "report",
    "save",
    "simulate",
]

#: Names that come when they are first used: they bring NumPy, h5py, Numba or matplotlib, which take
#: up to a second to import.
_LATER = {
    "Dataset": (".data.dataset", "Dataset"),
    "Problem": (".model.problem", "Problem"),
    "PtychonError": (".types", "PtychonError"),
    "PtychonWarning": (".types", "PtychonWarning"),
    "Result": (".data.result", "Result"),
    "Model": (".model.forward", "Model"),
    "Recipe": (".run.recipe", "Recipe"),
    "Refine": (".run.refine", "Refine"),
    "Stage": (".run.stage", "Stage"),
    "Unknowns": (".model.unknowns", "Unknowns"),
    "check": (".checks.predictive", "check"),
    "compare": (".plots.frames", "compare"),
    "engines": (".engines", ""),
    "error_bars": (".uncertainty.call", "error_bars"),
    "iterate": (".run.iterate", "iterate"),
    "load": (".io", "load"),
    "plot": (".plots.result", "picture"),
    "propose": (".inspect.proposal", "propose"),
    "reconstruct": (".run.reconstruct", "reconstruct"),
    "report": (".reports.write", "write_report"),
    "save": (".io", "save"),
    "simulate": (".simulation.simulate", "simulate"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LATER[name]
    found: Any = import_module(module, __name__)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    """What a user needs, and nothing else."""
    return list(__all__)
