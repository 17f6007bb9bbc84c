"""Shared by all tests: where measured data are, and a cache of compiled kernels that belongs to
this source and no other.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

_SOURCES = sorted((Path(__file__).parents[1] / "src" / "ptychon" / "kernels").rglob("*.py"))
_STAMP = hashlib.sha256(b"".join(p.read_bytes() for p in _SOURCES)).hexdigest()[:16]
# Numba does not notice that a function compiled into another module has changed, so a cache is only
# good for one source
os.environ.setdefault(
    "NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"ptychon-test-kernels-{_STAMP}")
)

import pytest  # noqa: E402


@pytest.fixture
def measured() -> Path:
    """Folder of measured data sets, from PTYCHON_TEST_DATA; the test is skipped where there is
    none.
    """
    folder = os.environ.get("PTYCHON_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PTYCHON_TEST_DATA names no folder of measured data")
    return Path(folder)
