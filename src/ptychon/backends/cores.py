"""How many cores this process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that the system lends this process, and no more than ``NUMBA_NUM_THREADS`` says.

    A job on a cluster may be bound to a few cores of a large node, which `os.cpu_count` does not
    know.
    """
    try:
        lent = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        lent = os.cpu_count() or 1
    said = os.environ.get("NUMBA_NUM_THREADS", "")
    return min(lent, int(said)) if said.isdigit() and int(said) else lent


__all__ = ["cores"]
