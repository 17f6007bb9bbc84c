"""A backend is a value: an array module, its FFT, a table of kernels, and what it can do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from ..types import Array


def _empty(like: Array, shape: tuple[int, ...], dtype: str) -> Any:
    return np.empty(shape, dtype)


def _nothing_to_say(say: Callable[[], None]) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Backend:
    """Where arrays live and what computes on them.

    Attributes
    ----------
    name : str
    xp : module
        The array module, ``numpy`` or ``cupy``.
    fft2, ifft2 : callables
        Orthonormal, over the last two axes, complex64 in and out.
    kernels : namespace
        Every name of ``kernels/reference.py``, fast where this backend has a fast version.
    asarray, to_host : callables
        To this backend's device and back (never a copy where none is needed).
    beside : callable
        ``beside(frames, shape, dtype)`` is an array with an entry for each frame, not yet written,
        kept where the frames are.
    stay : callable, optional
        ``stay(frames)`` leaves frames on the host and sends them in groups; None where host and
        device are one.
    frames_on_host : bool
        Always leave frames on the host, not only where the device is too small for them.
    free_bytes : callable
        Bytes that could be had on the device now.
    threads : int
    sweeps : {"cpu", "gpu", ""}
        Which compiled passes run here; "" for kernels alone.
    launcher : Launcher, optional
        What launches compiled kernels on a device.
    kept : dict
        What compiled passes keep from one to the next.
    synchronise : callable
        Returns when all work handed to the device is done.
    compiling : callable
        ``compiling(say)`` is a context in which `say()` is called once if a kernel is not on disk
        and must be compiled.
    shared_left : callable
        Seconds that compiling what engines share takes yet.
    facts : mapping
        What `describe` says beyond the kernels.
    """

    name: str
    xp: ModuleType
    fft2: Callable[[Array], Array]
    ifft2: Callable[[Array], Array]
    kernels: SimpleNamespace
    asarray: Callable[[Any], Array] = np.asarray
    to_host: Callable[[Array], Any] = np.asarray
    beside: Callable[[Array, tuple[int, ...], str], Array] = _empty
    stay: Callable[[Any], Any] | None = None
    frames_on_host: bool = False
    free_bytes: Callable[[], int] = lambda: 0
    threads: int = 1
    sweeps: str = ""
    launcher: Any = None
    kept: dict[str, Any] = field(default_factory=dict)
    synchronise: Callable[[], None] = lambda: None
    compiling: Callable[[Callable[[], None]], AbstractContextManager[None]] = _nothing_to_say
    shared_left: Callable[[], float] = lambda: 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Name, threads, device, and which kernels fall back to the reference."""
        from ..kernels import SPECIFIED

        fallback = [n for n, kernel in SPECIFIED.items() if getattr(self.kernels, n) is kernel]
        return {
            "name": self.name,
            "threads": self.threads,
            **self.facts,
            "reference kernels": fallback,
        }
