"""NVIDIA GPUs through CuPy. Nothing here imports CuPy before it is asked for."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from typing import Any

import numpy as np

from ..kernels import build
from ..types import PtychonError
from .base import Backend

#: Share of the free memory that one array may take: there must be room for what is computed.
FRAMES_SHARE = 0.8


def driver_found() -> bool:
    """Whether an NVIDIA driver with at least one device answers, asked of the driver library
    itself.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(name)
    except OSError:
        return False
    count = ctypes.c_int(0)
    return (
        cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    )


def cupy_backend(device: int = 0, graphs: bool = True, lines: bool = False) -> Backend:
    """CuPy arrays, fused CUDA kernels around cuFFT, and one CUDA graph for a whole pass, on one
    GPU.

    Parameters
    ----------
    device : int
    graphs : bool
        False launches kernels one by one: slower, and what graphs are tested against.
    lines : bool
        Three launches a frame that have the Fourier transforms inside, in place of five around
        cuFFT, for the far field and sides of 32, 64, 128, 256 or 512 pixels. Not yet run on a
        device, therefore not the default.

    Raises
    ------
    PtychonError
        Without a GPU, its driver or CuPy: one sentence that says which.
    """
    if not driver_found():
        raise PtychonError(
            "backend 'cupy' needs an NVIDIA GPU and its driver, and none was found; use "
            "--backend numpy"
        )
    try:
        import cupy
        import cupyx
    except ImportError as error:
        raise PtychonError(
            f"backend 'cupy' needs CuPy, which cannot be imported ({error}); pip install "
            "'ptychon[gpu]'"
        ) from None
    try:
        cupy.cuda.Device(device).use()
        properties = cupy.cuda.runtime.getDeviceProperties(device)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise PtychonError(f"GPU {device} cannot be used: {error}") from None

    from ..kernels.gpu.far import Far
    from ..kernels.gpu.launch import CupyLauncher
    from ..kernels.gpu.table import Table

    def fft2(a: Any) -> Any:
        return cupy.fft.fft2(a, norm="ortho")

    def ifft2(a: Any) -> Any:
        return cupy.fft.ifft2(a, norm="ortho")

    def free_bytes() -> int:
        free, _ = cupy.cuda.runtime.memGetInfo()
        return int(free) + int(cupy.get_default_memory_pool().free_bytes())

    def stay(a: Any, pinned: bool = False) -> Far:
        return Far(a, cupy.asarray, cupy.asnumpy, pinned)

    def asarray(a: Any) -> Any:
        if isinstance(a, Far):
            return a
        if isinstance(a, np.ndarray) and a.nbytes > FRAMES_SHARE * free_bytes():
            if a.ndim == 3 and a.dtype == np.float32:
                # frames: they can be sent, a group at a time
                return stay(a)
            raise PtychonError(
                f"{a.nbytes / 1e9:.2f} GB of {a.dtype} do not fit on the GPU, where "
                f"{free_bytes() / 1e9:.2f} GB are free; use "
                f"fewer or smaller frames (a crop or a binning), or --backend numpy"
            )
        return cupy.asarray(a)

    def beside(frames: Any, shape: tuple[int, ...], dtype: str) -> Any:
        return (
            stay(cupyx.empty_pinned(shape, dtype), True)
            if isinstance(frames, Far)
            else cupy.empty(shape, dtype)
        )

    launcher = CupyLauncher(device, graphs, lines)
    kernels = build()
    vars(kernels).update(Table(launcher).names())
    return Backend(
        name="cupy",
        xp=cupy,
        fft2=fft2,
        ifft2=ifft2,
        kernels=kernels,
        asarray=asarray,
        to_host=cupy.asnumpy,
        beside=beside,
        stay=stay,
        free_bytes=free_bytes,
        sweeps="gpu",
        launcher=launcher,
        synchronise=lambda: cupy.cuda.get_current_stream().synchronize(),
        facts={
            "device": properties["name"].decode(),
            "memory": int(properties["totalGlobalMem"]),
            "CuPy": cupy.__version__,
            "FFT": "cuFFT",
            "graphs": graphs,
        },
    )
