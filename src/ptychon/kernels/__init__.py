"""Kernels: the few array operations every engine is written in.

`reference`, `likelihoods`, `averages`, `curvature`, `joint`, `extended`, `marginal` and `turns` are
the specification. Those of `cpu` and `gpu.table` may replace any name, with the same signature and
the same result; a name they lack falls back to the reference. tests/kernels,
tests/engines/test_posterior.py and tests/model/test_gauss_newton.py compare every name on every
backend.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

from . import averages, extended, joint, reference, turns
from . import curvature as products
from . import likelihoods as sites
from . import marginal as marginals

#: Every kernel and what it means.
SPECIFIED = {
    name: getattr(module, name)
    for module in (reference, sites, averages, products, joint, extended, marginals, turns)
    for name in module.__all__
}


def build(*overrides: ModuleType) -> SimpleNamespace:
    """The table of kernels: the reference, with whatever `overrides` define in its place."""
    table = dict(SPECIFIED)
    for module in overrides:
        extra = set(module.__all__) - set(table)
        if extra:
            raise TypeError(
                f"{module.__name__} defines {sorted(extra)}, which neither reference.py, "
                "likelihoods.py, averages.py, curvature.py, joint.py, extended.py, marginal.py nor "
                "turns.py specifies"
            )
        table |= {name: getattr(module, name) for name in module.__all__}
    return SimpleNamespace(**table)
