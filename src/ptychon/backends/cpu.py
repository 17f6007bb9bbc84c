"""The CPU: NumPy arrays, FFTs and fused kernels in Numba; or, by name, the plain
reference kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy

from ..kernels import build
from ..types import COMPLEX, Array, PtychonError
from .base import Backend
from .cores import cores

#: What transforms waves, and where.
FFT = (
    "inside fused kernels: own vector code for sides 16, 32, ..., 1024, else ducc (rocket-fft); "
    "outside: the same for complex64, scipy.fft for all else"
)


def numpy_backend(threads: int | None = None) -> Backend:
    """NumPy arrays with fused Numba kernels.

    Parameters
    ----------
    threads : int, optional
        Threads for engines whose frames are independent of each other; default those that this
        process may use (`cores`), at most 16.
    """
    from ..kernels.cpu import averages as _numba_averages
    from ..kernels.cpu import cache as _numba_cache
    from ..kernels.cpu import curvature as _numba_curvature
    from ..kernels.cpu import extended as _numba_extended
    from ..kernels.cpu import joint as _numba_joint
    from ..kernels.cpu import likelihoods as _numba_sites
    from ..kernels.cpu import marginal as _numba_marginal
    from ..kernels.cpu import table as _numba_table
    from ..kernels.cpu import turns as _numba_turns
    from ..kernels.cpu.linked import transforms_left

    return Backend(
        name="numpy",
        xp=np,
        fft2=_fast_fft2,
        ifft2=_fast_ifft2,
        kernels=build(
            _numba_table,
            _numba_sites,
            _numba_averages,
            _numba_curvature,
            _numba_joint,
            _numba_extended,
            _numba_marginal,
            _numba_turns,
        ),
        threads=_threads(threads),
        sweeps="cpu",
        compiling=_numba_cache.announcing,
        shared_left=transforms_left,
        facts={"device": "CPU", "FFT": FFT},
    )


def reference_backend() -> Backend:
    """NumPy arrays and the reference kernels alone: slow, and what every other backend is tested
    against.
    """
    return Backend(
        name="reference", xp=np, fft2=_fft2, ifft2=_ifft2, kernels=build(), facts={"device": "CPU"}
    )


def _threads(threads: int | None) -> int:
    if threads is None:
        return min(cores(), 16)
    if threads < 1:
        raise PtychonError(f"threads is {threads}; it must be at least 1")
    return threads


def _fft2(a: Array) -> Any:
    return scipy.fft.fft2(a, norm="ortho")


def _ifft2(a: Array) -> Any:
    return scipy.fft.ifft2(a, norm="ortho")


def _fast_fft2(a: Array) -> Any:
    return _fft2(a) if a.dtype != COMPLEX else _transformed(a, True)


def _fast_ifft2(a: Array) -> Any:
    return _ifft2(a) if a.dtype != COMPLEX else _transformed(a, False)


def _transformed(a: Array, forward: bool) -> Any:
    """By the FFT of the fused kernels: of small frames it is five times as fast as a call of SciPy,
    most of which is what goes on around the transform.
    """
    from ..kernels.cpu.joint import transform

    out = np.array(a, order="C")
    if out.size:
        transform(out.reshape(-1, *out.shape[-2:]), forward)
    return out
