"""Error bars for the result of any engine, and the limit they are judged by.

`laplace`: a Gaussian posterior about the solution; seconds. `bootstrap`: simulate, reconstruct
again, compare; the slow referee. `sample`: chains that wander through the posterior itself, exact
if they are long enough. `cramer_rao`: what no estimate can beat, exact, for small problems.
"""

from __future__ import annotations

from .bootstrap import bootstrap
from .bound import Bound, cramer_rao, information
from .laplace import laplace
from .posterior import Posterior
from .sampling import sample

__all__ = ["Bound", "Posterior", "bootstrap", "cramer_rao", "information", "laplace", "sample"]
