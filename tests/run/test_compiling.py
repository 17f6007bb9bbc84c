"""Compiled kernels on disk: announced when missing, silent when there, made anew when any kernel's
source has changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from _forks import Forks
from ptychon.engines import make
from ptychon.kernels.cpu import cache as _numba_cache
from ptychon.kernels.cpu.linked import TRANSFORMS
from ptychon.run.compile import announcement

#: Says what is still to be compiled of what engines share, and runs one.
SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from _problems import make_case
from ptychon import reconstruct
from ptychon.backends import get_backend
print(get_backend("numpy").shared_left())
case = make_case()
start = dict(object=case.object, probe=case.probe)
reconstruct(case.problem, "pie", passes=1, backend="numpy", judge=False, **start)
"""

#: A package of two files: `entry` is cached, and has `inner` of the other file compiled in.
INNER = "import numba\n\n@numba.njit\ndef inner(x):\n    return x + {n}\n"
ENTRY = """
from cached import cached
from inner import inner

def entry(x):
    return inner(x)

entry = cached(entry)
"""
CALL = """
from cached import announcing
from entry import entry
with announcing(lambda: print("compiling", end=" ")):
    print(entry(10))
"""


@pytest.fixture(scope="module")
def forks():
    made = Forks()
    yield made
    made.close()


@pytest.fixture
def run(forks):
    """A function that runs a script in a folder with a cache: what it said on both streams."""

    def script_in(script, folder, cache):
        # a source that changes twice in a second would be read from its old bytecode
        env = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
        return forks.run(script, folder, env)

    return script_in


def test_compilation_is_announced_once(run, tmp_path):
    """One sentence on the error stream while there is nothing on disk; a second process says
    nothing. What engines share is left to be compiled before, and not after.
    """
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]))
    out, told = run(script, tmp_path, tmp_path / "cache")
    assert out.splitlines() == [str(TRANSFORMS)]
    (line,) = told.splitlines()
    assert re.fullmatch(r"Compiling kernels \(once, about [1-9]\d* s\)", line)
    assert run(script, tmp_path, tmp_path / "cache") == ("0.0\n", "")


def test_the_announcement_counts_what_is_left():
    """The engine's own seconds, those of what engines share, and the pace of the machine."""
    pie = make("pie")
    own = pie.keeps.compile_seconds
    assert announcement(pie) == f"Compiling kernels (once, about {own} s)"
    assert announcement(pie, 6.0, 2.0) == f"Compiling kernels (once, about {2 * (own + 6)} s)"
    assert announcement(pie, 0.0, 0.001) == "Compiling kernels (once, about 1 s)"


#: Two functions that exist once: `outer` is cached and calls `middle`, which calls `inmost`.
CHAIN = """
import sys
import numpy as np
from numba.core import types
from ptychon.kernels.cpu.cache import cached
from ptychon.kernels.cpu.linked import linked

@linked(types.float64(types.float64))
def inmost(x):
    if x < 0:
        raise ValueError("negative")
    return x + {n}

@linked(types.float64(types.float64), fastmath=True)
def middle(x):
    return 2 * inmost(x)

def outer(x):
    return middle(x) + 1

outer = cached(outer)
"""
ASK = """
from chain import inmost, middle, outer
print(outer(3), len(outer.overloads), sum(outer.stats.cache_hits.values()))
try:
    outer(-1.0)
except ValueError as error:
    print(error)
"""


def test_linked_functions_are_found_in_the_next_process(run, tmp_path):
    """A caller read from disk finds what it calls, whatever of that is still on disk itself, and
    what that raises.
    """
    (tmp_path / "chain.py").write_text(CHAIN.format(n=4))
    first = "15.0 1 0\nnegative\n"
    assert run(ASK, tmp_path, tmp_path / "cache")[0] == first
    again = "15.0 1 1\nnegative\n"
    assert run(ASK, tmp_path, tmp_path / "cache")[0] == again
    for path in (tmp_path / "cache").rglob("chain.inmost*"):
        path.unlink()
    assert run(ASK, tmp_path, tmp_path / "cache")[0] == again
    for name in ("middle", "inmost"):
        assert list((tmp_path / "cache").rglob(f"chain.{name}*.nbc"))


def test_a_change_in_another_file_is_noticed(run, tmp_path):
    """`entry` stays as it is, what is compiled into it changes: Numba alone would answer from the
    old cache.
    """
    source = (
        Path(_numba_cache.__file__)
        .read_text("utf-8")
        .replace("from ...types", "from ptychon.types")
    )
    (tmp_path / "cached.py").write_text(source)
    (tmp_path / "entry.py").write_text(ENTRY)
    for n, expected in ((1, "compiling 11"), (1, "11"), (5, "compiling 15"), (1, "compiling 11")):
        (tmp_path / "inner.py").write_text(INNER.format(n=n))
        assert run(CALL, tmp_path, tmp_path / "cache")[0].split("\n")[0] == expected


#: Compiles when it is told to, and says how often it had to.
TOLD = """
from entry import entry
print("ready", flush=True)
input()
print(entry(10), sum(entry.stats.cache_misses.values()))
"""


@pytest.mark.skipif(os.name == "nt", reason="files are locked by fcntl")
def test_one_of_several_processes_compiles(package, tmp_path):
    """What two need at the same time is compiled by one, and the other reads it from disk."""
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [
        subprocess.Popen([sys.executable, "-c", TOLD], cwd=package, env=env, **pipes)
        for _ in range(2)
    ]
    assert [one.stdout.readline() for one in both] == ["ready\n"] * 2
    for one in both:
        one.stdin.write("\n")
        one.stdin.flush()
    said = [one.communicate(timeout=300)[0].split() for one in both]
    assert sorted(said) == [["11", "0"], ["11", "1"]]


@pytest.mark.parametrize("inside", [True, False])
def test_who_is_asked(inside):
    """A listener hears of the first missing kernel only, and of none after its block."""
    heard = []

    def fresh(x):
        return x + 1

    def other(x):
        return x + 2

    kernels = [_numba_cache.cached(f) for f in (fresh, other)]
    for kernel in kernels:
        kernel._cache.flush()
    with _numba_cache.announcing(lambda: heard.append(1)):
        if inside:
            assert [kernel(1) for kernel in kernels] == [2, 3]
    assert [kernel(1.0) for kernel in kernels] == [2.0, 3.0]
    assert len(heard) == inside


#: One kernel with a warning shown as the command line shows it.
ALONE = """
import warnings
warnings.showwarning = lambda message, *rest: print(message)
from cached import announcing
from entry import entry
with announcing(lambda: print("compiling")):
    print(entry(10))
"""


@pytest.fixture
def package(tmp_path):
    """The two files, and our own cache beside them."""
    source = (
        Path(_numba_cache.__file__)
        .read_text("utf-8")
        .replace("from ...types", "from ptychon.types")
    )
    (tmp_path / "cached.py").write_text(source)
    (tmp_path / "entry.py").write_text(ENTRY)
    (tmp_path / "inner.py").write_text(INNER.format(n=1))
    return tmp_path


def without_places(forks, folder, temporary):
    """Run where neither package, home nor NUMBA_CACHE_DIR can be written (a file stands where a
    folder is needed).
    """
    for name in ("__pycache__", "home", "cache"):
        (folder / name).write_text("")
    env = os.environ | {
        "NUMBA_CACHE_DIR": str(folder / "cache"),
        "HOME": str(folder / "home"),
        "TMPDIR": str(temporary),
    }
    env |= {"XDG_CACHE_HOME": str(folder / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    out, _ = forks.run(ALONE, folder, env)
    for name in ("__pycache__", "home", "cache"):
        (folder / name).unlink()
    return out.splitlines()


def test_nowhere_to_write(forks, package, tmp_path):
    """Kernels go to a private folder among the temporary files, and the second run finds them
    there.
    """
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    told, *rest = without_places(forks, package, temporary)
    (folder,) = temporary.glob("ptychon-kernels-*")
    assert folder.stat().st_mode & 0o077 == 0
    assert str(folder) in told
    assert "NUMBA_CACHE_DIR" in told
    assert rest == ["compiling", "11"]
    assert without_places(forks, package, temporary)[1:] == ["11"]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions of folders are POSIX")
def test_a_folder_others_can_write_is_not_used(forks, package, tmp_path):
    """What is in the cache is executed: a folder that somebody else may fill is left alone, and
    nothing is kept.
    """
    temporary = tmp_path / "tmp"
    place = temporary / f"ptychon-kernels-{os.getuid()}"
    place.mkdir(parents=True)
    place.chmod(0o777)
    for _ in range(2):
        told, *rest = without_places(forks, package, temporary)
        assert "every run compiles again" in told
        assert "NUMBA_CACHE_DIR" in told
        assert rest == ["compiling", "11"]
    assert list(place.iterdir()) == []


def test_damaged_entries_are_compiled_again(run, package, tmp_path):
    """Truncated files of the cache, the index or the code, cost a compilation and nothing else."""
    cache = tmp_path / "cache"
    assert run(CALL, package, cache)[0].split() == ["compiling", "11"]
    for kind in ("*.nbi", "*.nbc"):
        (path,) = cache.rglob("entry" + kind)
        path.write_bytes(path.read_bytes()[:100])
        assert run(CALL, package, cache)[0].split() == ["compiling", "11"]
        assert run(CALL, package, cache)[0].split() == ["11"]


def test_a_cache_that_cannot_be_written_is_told_once(tmp_path, recwarn):
    """A full disk: the kernel runs all the same."""

    def fresh(x):
        return x + 3

    kernel = _numba_cache.cached(fresh)
    kernel._cache._cache_file._cache_path = str(tmp_path / "gone")
    kernel._cache._cache_file._index_path = str(tmp_path / "gone" / "index")
    assert [kernel(1), kernel(1.0)] == [4, 4.0]
    told = [str(w.message) for w in recwarn if "NUMBA_CACHE_DIR" in str(w.message)]
    assert len(told) == 1
