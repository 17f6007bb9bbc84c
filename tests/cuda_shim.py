"""The CUDA kernels compiled by the host's C++ compiler, and a launcher of them on NumPy arrays."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import scipy.fft

from ptychon.kernels.gpu.far import Far, host_of
from ptychon.kernels.gpu.source import check, signatures, source

_HEADER = Path(__file__).with_name("cuda_shim.h")
_C = {"int": ctypes.c_int, "float": ctypes.c_float, "long long": ctypes.c_longlong}
#: As in the header.
MOST_CELLS = 6144
#: Numbers before and after each array, that nobody may change.
_GUARD, _PATTERN = 64, 0x5A


def compiler() -> str | None:
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def program() -> str:
    """The sources, and for each kernel a function that runs it over a grid."""
    wrappers = []
    for name, arguments in signatures().items():
        declared = ", ".join(
            f"{kind}{'*' if pointer else ''} a{i}" for i, (kind, pointer) in enumerate(arguments)
        )
        passed = ", ".join(f"a{i}" for i in range(len(arguments)))
        wrappers.append(
            f'extern "C" int run_{name}(unsigned gx, unsigned gy, unsigned bx, {declared})'
            f" {{ return shim::launch(gx, gy, bx, [&] {{ {name}({passed}); }}); }}"
        )
    return "\n".join(['#include "cuda_shim.h"', source(), *wrappers, ""])


@cache
def library() -> ctypes.CDLL:
    if platform.system() != "Linux" or compiler() is None:
        pytest.skip("there is no C++ compiler to build the CUDA kernels for the host")
    text = program()
    stamp = hashlib.sha256((text + _HEADER.read_text()).encode()).hexdigest()[:16]
    built = Path(tempfile.gettempdir()) / f"ptychon-cuda-shim-{stamp}-{os.getuid()}.so"
    if not built.exists():
        with tempfile.TemporaryDirectory() as folder:
            code, made = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
            code.write_text(text)
            flags = [
                "-std=c++17",
                "-O2",
                "-ffp-contract=off",
                "-U_FORTIFY_SOURCE",
                "-Wall",
                "-Werror",
                "-Wno-unused-function",
            ]
            command = [
                compiler(),
                *flags,
                "-shared",
                "-fPIC",
                f"-I{_HEADER.parent}",
                "-o",
                str(made),
                str(code),
            ]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            # built beside and then moved, for tests that run in several processes
            beside = built.with_suffix(f".{os.getpid()}")
            shutil.copy(made, beside)
            os.replace(beside, built)
    found = ctypes.CDLL(str(built))
    for name, arguments in signatures().items():
        pointer = ctypes.c_void_p
        getattr(found, f"run_{name}").argtypes = [ctypes.c_uint] * 3 + [
            pointer if p else _C[kind] for kind, p in arguments
        ]
    return found


class HostLauncher:
    """Runs kernels through `library`; FFTs by SciPy. Its arrays are NumPy's, with guards around
    them.

    Parameters
    ----------
    threads : int
        Of a block.
    block_bytes : int
        Small by default, so that sweeps are cut into several blocks of frames.
    far : bool
        Frames stay where they are and are sent in groups of about `group_bytes`.
    reverse : bool
        Blocks and threads in reverse order: a kernel without races gives the same bits.
    """

    def __init__(
        self, threads: int = 64, block_bytes: int = 5000, reverse: bool = False, far: bool = False
    ) -> None:
        self.threads, self.block_bytes, self.reverse = threads, block_bytes, reverse
        self.far, self.group_bytes, self.lines = far, 2000, True
        self.library = library()
        self.launches: list[str] = []
        self._guarded: list[np.ndarray] = []
        self._tape: list | None = None
        self._busy: set[int] = set()
        self._flying: dict[int, list] = {0: [], 1: []}

    def empty(self, shape, dtype):
        """Not zero, so that nothing can count on it: every byte 0xFF, which is NaN in floats."""
        size = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
        memory = np.full(size + 2 * _GUARD, _PATTERN, np.uint8)
        memory[_GUARD : _GUARD + size] = 0xFF
        self._guarded.append(memory)
        return memory[_GUARD : _GUARD + size].view(dtype).reshape(shape)

    def upload(self, host):
        out = self.empty(host.shape, host.dtype)
        out[...] = host
        return out

    def write(self, target, host):
        assert target.dtype == host.dtype
        target.reshape(-1)[: host.size] = host.reshape(-1)

    def launch(self, name, grid, *args, threads=0, shared=0):
        assert shared <= 8 * MOST_CELLS
        values = [
            a.ctypes.data if isinstance(a, np.ndarray) else a.item() for a in check(name, args)
        ]
        self._do(partial(self._launch, name, (*grid, threads or self.threads, *values)))

    def _launch(self, name, values):
        """From here on there are only numbers and addresses, as in a CUDA graph."""
        self.library.shim_order(self.reverse)
        divergent = getattr(self.library, f"run_{name}")(*values)
        assert not divergent, f"kernel {name}: a barrier that not all threads reach"
        self.launches.append(name)

    def _do(self, work):
        if self._tape is not None:
            self._tape.append(work)
        work()

    def fft(self, a, out, inverse):
        assert a.dtype == out.dtype == np.complex64
        assert a.flags.c_contiguous
        self._do(partial(self._fft, a, out, inverse))

    @staticmethod
    def _fft(a, out, inverse):
        out[...] = scipy.fft.ifft2(a, norm="forward") if inverse else scipy.fft.fft2(a)

    def is_far(self, frames):
        return self.far or isinstance(frames, Far)

    def send(self, pairs, rows, slot):
        """What is not sent is NaN, and what is sent cannot be in use."""
        assert slot not in self._busy
        self._land(slot)
        for array, target in pairs:
            target[...] = np.nan
            target[: len(rows)] = host_of(array)[rows]
        self._busy.add(slot)

    def fetch(self, pairs, rows, slot):
        """On the host there is NaN until it has arrived, which is as late as can be."""
        assert slot not in self._busy
        for array, target in pairs:
            self._flying[slot].append((host_of(array), rows, target[: len(rows)].copy()))
            host_of(array)[rows] = np.nan

    def _land(self, slot):
        for host, rows, values in self._flying[slot]:
            host[rows] = values
        self._flying[slot].clear()

    def drain(self):
        for slot in (0, 1):
            self._land(slot)

    def arrived(self, slot):
        assert slot in self._busy

    def used(self, slot):
        self._busy.remove(slot)

    def run(self, graphs, key, jobs):
        """As a CUDA graph would: from the second time on the launches of the first, and nothing
        else, are repeated.
        """
        if key in graphs:
            for work in graphs[key]:
                work()
            return
        self._tape = []
        for job in jobs():
            job()
        graphs[key], self._tape = self._tape, None

    def intact(self) -> bool:
        """Whether all guards are as they were."""
        return all(
            (m[:_GUARD] == _PATTERN).all() and (m[-_GUARD:] == _PATTERN).all()
            for m in self._guarded
        )
