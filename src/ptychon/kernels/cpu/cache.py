"""Compiled kernels on disk: good for one state of this folder's source, and heard of when one is missing.

Numba looks only at the file of the function it compiles, not at what is compiled into it from other files: after an update an
old kernel would go on calling what no longer exists. Here the stamp of every entry is a hash of all the kernels' source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numba as nb
from numba.core import caching

_caching: Any = caching
#: Asked once, by the first kernel that is not on disk.
_listeners: list[Callable[[], None]] = []


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


class _Parts(_caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes: ClassVar[list[Any]] = [_stamped(c) for c in _caching.CompileResultCacheImpl._locator_classes]


class _Cache(_caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _Parts

    def load_overload(self, *args: Any) -> Any:
        found = super().load_overload(*args)
        while found is None and _listeners:
            _listeners.pop()()
        return found


def cached(function: Any, **options: Any) -> Any:
    """`numba.njit` with a cache on disk as above."""
    dispatcher: Any = nb.njit(**options)(function)
    dispatcher._cache = _Cache(function)
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
