"""NVIDIA GPUs through CuPy. Nothing here imports CuPy before it is asked for."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from typing import Any

from ..kernels import build
from ..types import PtychonError
from .base import Backend


def driver_found() -> bool:
    """Whether an NVIDIA driver with at least one device answers, asked of the driver library itself."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(name)
    except OSError:
        return False
    count = ctypes.c_int(0)
    return cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def cupy_backend(device: int = 0) -> Backend:
    """CuPy arrays and cuFFT on one GPU.

    Raises
    ------
    PtychonError
        Without a GPU, its driver or CuPy: one sentence that says which.
    """
    if not driver_found():
        raise PtychonError("backend 'cupy' needs an NVIDIA GPU and its driver, and none was found; use --backend numpy")
    try:
        import cupy
    except ImportError as error:
        raise PtychonError(
            f"backend 'cupy' needs CuPy, which cannot be imported ({error}); pip install 'ptychon[gpu]'"
        ) from None
    try:
        cupy.cuda.Device(device).use()
        properties = cupy.cuda.runtime.getDeviceProperties(device)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise PtychonError(f"GPU {device} cannot be used: {error}") from None

    def fft2(a: Any) -> Any:
        return cupy.fft.fft2(a, norm="ortho")

    def ifft2(a: Any) -> Any:
        return cupy.fft.ifft2(a, norm="ortho")

    return Backend(
        name="cupy",
        xp=cupy,
        fft2=fft2,
        ifft2=ifft2,
        kernels=build(),
        asarray=cupy.asarray,
        to_host=cupy.asnumpy,
        synchronise=lambda: cupy.cuda.get_current_stream().synchronize(),
        facts={
            "device": properties["name"].decode(),
            "memory": int(properties["totalGlobalMem"]),
            "CuPy": cupy.__version__,
        },
    )
