"""Parts of a sum over frames on threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...types import Array


def run_all(kernel: Callable[..., Any], calls: Sequence[tuple[Any, ...]], threads: int) -> None:
    """Call a kernel with each of some arguments, on so many threads."""
    if threads <= 1 or len(calls) == 1:
        for call in calls:
            kernel(*call)
        return
    with ThreadPoolExecutor(min(threads, len(calls))) as pool:
        for job in [pool.submit(kernel, *call) for call in calls]:
            job.result()


def summed(parts: Array) -> Array:
    """Their sum; of one no copy."""
    return parts[0] if len(parts) == 1 else parts.sum(axis=0)
