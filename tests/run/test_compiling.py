"""Compiled kernels on disk: announced when missing, silent when there, made anew when any kernel's source has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ptychon.engines import registry
from ptychon.kernels.cpu import cache as _numba_cache

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from _problems import make_case
from ptychon import reconstruct
case = make_case()
reconstruct(case.problem, "pie", epochs=1, backend="numpy", object=case.object, probe=case.probe)
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


def run(script, folder, cache):
    env = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout, done.stderr


def test_compilation_is_announced_once(tmp_path):
    """One sentence on the error stream while there is nothing on disk; a second process says nothing."""
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]))
    out, told = run(script, tmp_path, tmp_path / "cache")
    assert out == ""
    assert told.splitlines() == [f"Compiling kernels, once: about {registry['pie'].keeps.compile_seconds} s"]
    assert run(script, tmp_path, tmp_path / "cache") == ("", "")


def test_a_change_in_another_file_is_noticed(tmp_path):
    """`entry` stays as it is, what is compiled into it changes: Numba alone would answer from the old cache."""
    (tmp_path / "cached.py").write_text(Path(_numba_cache.__file__).read_text("utf-8"))
    (tmp_path / "entry.py").write_text(ENTRY)
    for n, expected in ((1, "compiling 11"), (1, "11"), (5, "compiling 15"), (5, "15"), (1, "compiling 11")):
        (tmp_path / "inner.py").write_text(INNER.format(n=n))
        assert run(CALL, tmp_path, tmp_path / "cache")[0].split("\n")[0] == expected


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
