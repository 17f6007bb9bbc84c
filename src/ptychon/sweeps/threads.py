"""Work cut into pieces, one thread each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np


def stripes(n: int, parts: int) -> list[tuple[int, int]]:
    """0..n cut into at most `parts` stretches that are not empty."""
    edges = np.linspace(0, n, min(parts, n) + 1).astype(int).tolist()
    return list(pairwise(edges))


def each(
    pool: ThreadPoolExecutor, function: Callable[..., Any], arguments: list[tuple[Any, ...]]
) -> list[Any]:
    """function(*a) for every a, one thread each. Plain threads sleep when idle: a busy neighbour
    costs its share only.

    They end with the pass: a process that keeps threads cannot be copied safely (`io.guard`), which
    0.1 ms is not worth.
    """
    if len(arguments) == 1:
        return [function(*arguments[0])]
    return [task.result() for task in [pool.submit(function, *a) for a in arguments]]
