"""Error bars for the result of any engine, and the limit they are judged by.

>>> from ptychon.uncertainty import laplace  # doctest: +SKIP
"""

from __future__ import annotations

from .laplace import laplace
from .posterior import Posterior

__all__ = ["Posterior", "laplace"]
