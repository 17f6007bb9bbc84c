"""Compiled kernels on disk: good for one state of this folder's source, and heard of when one is
missing.

Numba looks only at the file of the function it compiles, not at what is compiled into it from other
files: after an update an old kernel would go on calling what no longer exists. Here the stamp of
every entry is a hash of all the kernels' source.

Where neither the package nor the user's cache folder can be written (a container, a node of a
cluster) kernels are kept in a private folder among the temporary files, or not at all. A kernel
that cannot be read or written costs its compilation, never the run. Of several processes that need
the same kernel at the same time one compiles it, and the others wait for that.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numba as nb
from numba.core import caching

from ...types import PtychonWarning

try:
    import fcntl
except ImportError:  # Windows: everybody compiles
    fcntl = None  # type: ignore[assignment]

_caching: Any = caching
#: How long another process may take to compile one kernel, seconds; then we do it, too.
PATIENCE = 120.0
#: Asked once, by the first kernel that is not on disk.
_listeners: list[Callable[[], None]] = []
#: Functions that compiled code calls by a name of the linker's (`linked`), and what tells the
#: linker of each.
LINKED = "ptychon_linked_"
linkers: dict[str, Callable[[], None]] = {}


@cache
def source_stamp() -> str:
    """Hash of the Python files of this folder and of the library whose FFT is compiled in."""
    digest = hashlib.sha256(version("rocket-fft").encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _stamped(locator: Any) -> Any:
    """A place of cached functions, one of Numba's, with that hash beside its own stamp."""

    class Stamped(locator):  # type: ignore[misc]
        def get_source_stamp(self) -> Any:
            return source_stamp(), super().get_source_stamp()

    return Stamped


class _Temporary(_caching.UserProvidedCacheLocator):  # type: ignore[misc]
    """The last resort: a folder among the temporary files that nobody else can write, since what is
    in it is executed.
    """

    def __init__(self, function: Any, file: str) -> None:
        super().__init__(function, file)
        self._cache_path = os.path.join(private_folder(), self.get_suitable_cache_subpath(file))

    @classmethod
    def from_function(cls, function: Any, file: str) -> Any:
        try:
            found = cls(function, file)
            found.ensure_cache_path()
        except OSError:
            return None
        say_once(f"compiled kernels are kept in {private_folder()}: {_unwritable()}")
        return found


def private_folder() -> str:
    """``ptychon-kernels-USER`` among the temporary files, made if need be.

    Raises
    ------
    OSError
        If it cannot be made, or is not this user's alone.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    place = os.path.join(tempfile.gettempdir(), f"ptychon-kernels-{user}")
    os.makedirs(place, mode=0o700, exist_ok=True)
    about = os.lstat(place)
    mine = not hasattr(os, "getuid") or (about.st_uid == os.getuid() and not about.st_mode & 0o022)
    if not stat.S_ISDIR(about.st_mode) or not mine:
        raise PermissionError(f"{place} belongs to somebody else, or others can write it")
    return place


def _unwritable() -> str:
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        return (
            f"NUMBA_CACHE_DIR is {given}, which cannot be written, nor can the package; set it "
            "to a folder that can"
        )
    return (
        "neither the package nor the cache folder of the user can be written; set "
        "NUMBA_CACHE_DIR to a folder that lasts"
    )


@cache
def say_once(text: str) -> None:
    """Warn, the first time this is said."""
    warnings.warn(text, PtychonWarning, stacklevel=2)


class _Parts(_caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes: ClassVar[list[Any]] = [
        *(_stamped(c) for c in _caching.CompileResultCacheImpl._locator_classes),
        _stamped(_Temporary),
    ]

    def reduce(self, result: Any) -> Any:
        """What is kept of a compiled function, with the linked functions that it calls."""
        functions = result.library._final_module.functions
        names = [f.name for f in functions if f.is_declaration and f.name.startswith(LINKED)]
        return names, super().reduce(result)

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        names, kept = payload
        for name in names:
            linkers[name]()
        return super().rebuild(target_context, kept)


class _Turn:
    """Of several processes, one compiles a function at a time: a lock on a file beside its index,
    which the system takes back from a process that ends.
    """

    def __init__(self) -> None:
        self.file: Any = None

    def take(self, path: str) -> None:
        """Wait for the turn, or for `PATIENCE`."""
        if fcntl is None or self.file is not None:
            return
        until = time.monotonic() + PATIENCE
        with suppress(OSError):  # a folder that is gone, a file system without locks
            self.file = open(path, "ab")  # noqa: SIM115 - open until the turn is over
            while True:
                try:
                    fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        break
                    time.sleep(0.05)

    def give(self) -> None:
        """Let the next one compile."""
        if self.file is not None:
            self.file.close()
            self.file = None


class _Cache(_caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _Parts

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._turn = _Turn()

    def has(self, signature: Any, codegen: Any) -> bool:
        """Whether the code for a signature is on disk."""
        try:
            return self._index_key(signature, codegen) in self._cache_file._load_index()
        except Exception:  # a damaged index, which the next to read it begins anew
            return False

    def load_overload(self, *args: Any) -> Any:
        found = self._load(*args)
        while found is None and _listeners:
            _listeners.pop()()
        if found is None:
            self._turn.take(f"{self._cache_file._index_path}.lock")
            found = self._load(*args)  # by another process, before our turn came
            if found is not None:
                self._turn.give()
        return found

    def _load(self, *args: Any) -> Any:
        try:
            return super().load_overload(*args)
        except Exception:  # a damaged pickle raises anything; it is compiled again, written over
            with suppress(Exception):
                self.flush()
            return None

    def save_overload(self, *args: Any) -> None:
        try:
            super().save_overload(*args)
        except Exception as error:  # a full disk, or a damaged index
            why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            say_once(
                f"compiled kernels cannot be kept in {self.cache_path} ({why}), so the next run "
                "compiles again; "
                f"make room, or set NUMBA_CACHE_DIR to another folder"
            )
        finally:
            self._turn.give()


class _None(_caching.NullCache):  # type: ignore[misc]
    """No cache: every kernel is compiled, and heard of."""

    def has(self, *args: Any) -> bool:
        return False

    def load_overload(self, *args: Any) -> None:
        while _listeners:
            _listeners.pop()()


def cached(function: Any, **options: Any) -> Any:
    """`numba.njit` with a cache on disk as above, or none where no folder can be written."""
    dispatcher: Any = nb.njit(**options)(function)
    try:
        dispatcher._cache = _Cache(function)
    except (RuntimeError, OSError):  # Numba's for "no locator available"
        say_once(f"compiled kernels cannot be kept, so every run compiles again: {_unwritable()}")
        dispatcher._cache = _None()
    return dispatcher


@contextmanager
def announcing(say: Callable[[], None]) -> Iterator[None]:
    """`say` is called once if a kernel must be compiled within the block, before it is."""
    _listeners.append(say)
    try:
        yield
    finally:
        if say in _listeners:
            _listeners.remove(say)
