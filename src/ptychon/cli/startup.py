"""What a command does without, so that a short run does not spend its time on starting.

Only for a program that runs by itself: a library must leave the collector and other packages alone.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for garbage within the block.

    Importing and drawing make hundreds of thousands of objects that stay; to look through them
    again and again takes a tenth of a short run.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def import_compiler() -> None:
    """Import Numba and rocket-fft without what they would let compiled code call of SciPy.

    No kernel calls transforms or linear algebra of SciPy, and to import them takes as long as to
    import Numba.
    """
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in ("scipy.fft", "scipy.linalg") if name not in modules]
    # an import of what is None here raises ImportError, which both packages expect
    modules.update(dict.fromkeys(hidden))
    try:
        import numba.np.arraymath  # noqa: F401
        import rocket_fft  # noqa: F401
    finally:
        for name in hidden:
            del modules[name]


@cache
def import_for_run() -> None:
    """Import what every run of an engine needs, once a process."""
    with uncollected():
        import_compiler()
        from ..backends import get_backend
        from ..run import reconstruct  # noqa: F401

        get_backend("numpy")  # brings its kernels
        gc.freeze()  # what is there now stays: later searches leave it out
