"""The HDF5 library can crash on a damaged file, and take the process with it: what reads one does
so in a copy first.

The copy of the process (a fork) opens the file, walks what will be needed of it, and is gone within
milliseconds. If it crashes, hangs or asks for absurd amounts of memory, one sentence says so. Where
there is no fork, under MPI and where other threads are running, files are opened without this.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..types import PathLike, PtychonError

#: Seconds after which a file that is being opened counts as one that never will be.
PATIENCE = 120.0
#: Seconds of the processor that it takes to find what is in a file, at most: a slow disk takes none
#: of these, and the library can go round in a damaged attribute for ever.
OPENING = 10
#: Bytes beyond those in use, and beyond four times the size of the file, that opening it may take.
_MEMORY = 6 * 2**30
_OUT_OF_MEMORY, _MESSAGE = 77, 78
#: Groups and data sets whose attributes are looked at: a few tenths of a second's worth.
_NODES = 1000
_copies = 0
#: Files that were looked at, as they were.
_sound: set[tuple[str, int, int]] = set()


def possible() -> bool:
    """Whether a copy of this process can be made safely."""
    alone = threading.active_count() == 1 and "mpi4py.MPI" not in sys.modules
    return hasattr(os, "fork") and alone and _copies == 0


def check(path: PathLike, open_it: Callable[[], Any]) -> None:
    """Open an HDF5 file in a copy of the process first; do nothing for other files.

    Parameters
    ----------
    path : path of the file
    open_it : callable
        Returns the frames; the first and the last of them are read, and the index of all.

    Raises
    ------
    PtychonError
        If that crashes, hangs or takes absurd amounts of memory. What else is wrong is not said
        here.
    """

    def probe() -> None:
        warnings.simplefilter("ignore")  # whoever opens the file next will warn
        frames = open_it()
        _limit_processor(None)  # the index of a large file may take longer
        frames[np.array([0, len(frames) - 1])]  # together: they may lie in the same chunks
        walk = getattr(frames, "walk", None)
        if walk is not None:
            walk()

    check_finding(path, probe)


def check_finding(path: PathLike, find_it: Callable[[], Any]) -> None:
    """The same of what looks for its parts alone: it gets `OPENING` seconds of the processor."""
    if not (_is_hdf5(path) and possible()):
        return

    def work() -> None:
        find_it()

    try:
        in_copy(path, work, PATIENCE, OPENING)
    except Damaged:
        raise
    except PtychonError:
        pass  # whoever opens the file next will say it


def check_nodes(path: PathLike) -> None:
    """The same of the groups, data sets and attributes of a file, up to `_NODES` of them: whoever
    opens it looks at some. A file that has not changed since is not looked at again.

    Raises
    ------
    PtychonError
        If the library crashes, goes round for ever or takes absurd amounts of memory.
    """
    with contextlib.suppress(OSError):
        about = os.stat(path)
        state = (os.path.realpath(path), about.st_mtime_ns, about.st_size)
        if state in _sound:
            return
        check_finding(path, lambda: _look_at_nodes(path))
        if possible():
            _sound.add(state)


def _look_at_nodes(path: PathLike) -> None:
    import h5py

    seen = 0

    def look(_: str, node: Any) -> bool | None:
        nonlocal seen
        seen += 1
        list(node.attrs.values())
        return True if seen == _NODES else None

    with h5py.File(path, "r", locking="best-effort") as file:
        look("", file)
        file.visititems(look)


def _is_hdf5(path: PathLike) -> bool:
    """Whether the signature is at one of the places where the format has it."""
    try:
        with open(path, "rb") as stream:
            for offset in (0, 512, 1024, 2048):
                stream.seek(offset)
                if stream.read(8) == b"\x89HDF\r\n\x1a\n":
                    return True
    except (OSError, ValueError):
        pass
    return False


class Damaged(PtychonError):
    """A file at which the process that read it died."""


def in_copy(
    path: PathLike,
    work: Callable[[], Any],
    patience: float | None = None,
    processor: int | None = None,
) -> Any:
    """The value of `work()`, something JSON can hold, computed in a copy of the process.

    Parameters
    ----------
    path : path of the file it reads, for the message
    work : callable
    patience : float, optional
        Seconds; longer counts as hanging.
    processor : int, optional
        The same of the processor.

    Raises
    ------
    PtychonError
        That of `work`, or one that says that it crashed, hung or ran out of memory.
    """
    if not possible():
        return work()
    sys.stdout.flush()
    sys.stderr.flush()
    receive, send = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of native threads, which the copy does not use
        child = os.fork()
    if child == 0:
        os.close(receive)
        _be_the_copy(path, work, send, processor)
    os.close(send)
    try:
        text = _listen(receive, patience)
    except BaseException:
        _end(child)
        raise
    finally:
        os.close(receive)
    if text is None:
        _end(child)
        raise Damaged(
            f"{path} cannot be read: no answer in {patience:.0f} s; it is damaged, or its disk "
            "is slow"
        )
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        if name in ("SIGINT", "SIGTERM"):
            raise KeyboardInterrupt
        if name == "SIGXCPU":
            raise Damaged(
                f"{path} is damaged: the library that reads it found no end in {processor} s of "
                "the processor; copy or write it again"
            )
        raise Damaged(
            f"{path} is damaged: the library that reads it crashed ({name}); copy or write it again"
        )
    code = os.WEXITSTATUS(status)
    if code == _OUT_OF_MEMORY:
        raise Damaged(
            f"{path} asks for more memory than a file of its size can need: it is damaged, or "
            "too large"
        )
    if code == 130:
        raise KeyboardInterrupt
    if code == _MESSAGE:
        raise PtychonError(text.decode("utf-8", "replace"))
    if code != 0:
        raise Damaged(f"{path} cannot be read: the process that tried ended with code {code}")
    return json.loads(text) if text else None


def _be_the_copy(path: PathLike, work: Callable[[], Any], send: int, processor: int | None) -> None:
    """Work, send the answer and end without any of the things a process does at its end."""
    global _copies
    _copies += 1
    faulthandler.disable()  # the crash is told in one sentence
    code, answer = 1, b""
    try:
        _limit_memory(path)
        _limit_processor(processor)
        value = work()
        code, answer = 0, b"" if value is None else json.dumps(value).encode()
    except PtychonError as error:
        code, answer = _MESSAGE, str(error).encode("utf-8", "replace")
        if isinstance(error.__cause__, MemoryError) or "not enough memory" in str(error):
            code = _OUT_OF_MEMORY
    except MemoryError:
        code = _OUT_OF_MEMORY
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        code, answer = _MESSAGE, f"{path}: {error.strerror or error}".encode("utf-8", "replace")
    except BaseException as error:
        code, answer = (
            _MESSAGE,
            f"{path} is damaged or not what it seems: {error}".encode("utf-8", "replace"),
        )
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
            while answer:
                answer = answer[os.write(send, answer) :]
        os._exit(code)


def _limit_memory(path: PathLike) -> None:
    with contextlib.suppress(Exception):
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        limit = used + _MEMORY + 4 * os.path.getsize(path)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_processor(seconds: int | None) -> None:
    with contextlib.suppress(Exception):
        import resource

        most = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (most if seconds is None else seconds, most))


def _listen(receive: int, patience: float | None) -> bytes | None:
    """All that the copy sends; None if it does not end in time."""
    parts: list[bytes] = []
    until = None if patience is None else time.monotonic() + patience
    while True:
        left = None if until is None else max(0.0, until - time.monotonic())
        if not select.select([receive], [], [], left)[0]:
            return None
        part = os.read(receive, 2**16)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _end(child: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(child, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.waitpid(child, 0)
