"""Shared by all tests: where measured data are, a cache of compiled kernels that belongs to this
source and no other, and the order of the files.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

_SOURCES = sorted((Path(__file__).parents[1] / "src" / "ptychon" / "kernels").rglob("*.py"))
_STAMP = hashlib.sha256(b"".join(p.read_bytes() for p in _SOURCES)).hexdigest()[:16]
# Numba does not notice that a function compiled into another module has changed, so a cache is only
# good for one source
os.environ.setdefault(
    "NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"ptychon-test-kernels-{_STAMP}")
)
# a second thread of the linear algebra waits in a loop: beside another worker a small system costs
# ten times the processor time
for _library in ("OPENBLAS", "MKL", "OMP"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
# every command that a test starts would compile the package's Python anew, half a second each
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest  # noqa: E402

#: What takes longest begins first: the last file of all is then a short one, and no worker waits.
_LONGEST = (
    "house/test_experiments.py",
    "sweeps/test_cuda.py",
    "engines/test_ml.py",
    "cli/test_cli.py",
    "uncertainty/test_bars_cli.py",
    "engines/test_engines.py",
    "run/test_measured.py",
    "engines/test_published.py",
    "house/test_docs.py",
    "uncertainty/test_uncertainty_sampler.py",
    "run/test_compiling.py",
    "run/test_first_probe.py",
    "engines/test_ep.py",
    "uncertainty/test_uncertainty_laplace.py",
    "uncertainty/test_uncertainty_limits.py",
    "house/test_notebooks.py",
    "engines/test_posterior.py",
    "uncertainty/test_plan.py",
    "uncertainty/test_half_data.py",
    "engines/test_recovery.py",
    "uncertainty/test_uncertainty_positions.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: k for k, name in enumerate(_LONGEST)}
    here = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        try:
            return place.get(item.path.relative_to(here).as_posix(), len(place))
        except ValueError:
            return len(place)

    items.sort(key=rank)


@pytest.fixture(scope="session", autouse=True)
def a_share_of_the_cores() -> Iterator[None]:
    """Where as many workers run as there are cores, each has one thread unless a test asks for
    more: threads of tiny scans that wait for each other cost a third more processor time. Tests of
    threads say how many they want, and every engine runs on two (`EngineTests`).
    """
    from ptychon.backends import cpu

    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    share = max(1, (os.cpu_count() or 1) // workers)
    threads = cpu._threads
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "_threads", lambda asked: threads(share if asked is None else asked))
        yield


@pytest.fixture(scope="module", autouse=True)
def textures_drawn_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """A texture of the same shape and seed is drawn once by each worker: its 1500 leaves take 40 ms
    whatever its size, and hundreds of tests ask for one. What is said of phantoms themselves is
    asked of the function.
    """
    if request.path.name == "test_phantoms.py":
        yield
        return
    from ptychon.simulation import phantoms

    drawn = _textures(phantoms.texture)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantoms, "texture", lambda *args, **more: drawn(*args, **more).copy())
        yield


@cache
def _textures(draw: Callable[..., Any]) -> Callable[..., Any]:
    return cache(draw)


@pytest.fixture
def sketched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of results and of reports are one pixel each: a second less for every command whose
    picture nobody looks at, five for a report. Tests marked `pictures` have theirs in full.
    """
    if request.node.get_closest_marker("pictures"):
        return
    from _problems import pixel, sketch

    monkeypatch.setattr("ptychon.plots.result.picture", sketch)
    for place in ("page", "write"):
        monkeypatch.setattr(f"ptychon.reports.{place}.png_of", pixel)


@pytest.fixture(scope="session")
def measured() -> Path:
    """Folder of measured data sets, from PTYCHON_TEST_DATA; the test is skipped where there is
    none.
    """
    folder = os.environ.get("PTYCHON_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PTYCHON_TEST_DATA names no folder of measured data")
    return Path(folder)
