"""Kernels: the few array operations every engine is written in.

`reference` is the specification. `_numba_table` and `_cupy` may replace any name in it, with the same signature and the same
result; a name they lack falls back to the reference. tests/test_kernels.py compares every name on every backend.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

from . import reference


def build(*overrides: ModuleType) -> SimpleNamespace:
    """The table of kernels: the reference, with whatever `overrides` define in its place."""
    table = {name: getattr(reference, name) for name in reference.__all__}
    for module in overrides:
        extra = set(module.__all__) - set(table)
        if extra:
            raise TypeError(f"{module.__name__} defines {sorted(extra)}, which reference.py does not specify")
        table |= {name: getattr(module, name) for name in module.__all__}
    return SimpleNamespace(**table)
