"""Backends are values: chosen by name, refused in one sentence, any number alive at once."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from _problems import gpu_backend, make_case
from ptychon import PtychonError
from ptychon.backends import NAMES, get_backend, gpu
from ptychon.backends.cores import cores
from ptychon.engines import Context, make
from ptychon.kernels import SPECIFIED
from ptychon.run.iterate import iterate
from ptychon.run.reconstruct import reconstruct
from ptychon.run.schedule import Schedule


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine without an NVIDIA driver, whatever this one has."""
    monkeypatch.setattr(gpu, "driver_found", lambda: False)


def test_auto_without_a_gpu_is_numpy(no_gpu):
    assert get_backend("auto").name == "numpy"
    assert get_backend().name == "numpy"


def test_auto_with_a_driver_but_no_cupy_is_numpy(monkeypatch):
    monkeypatch.setattr(gpu, "driver_found", lambda: True)
    monkeypatch.setattr("ptychon.backends._installed", lambda module: False)
    assert get_backend("auto").name == "numpy"


def test_cupy_without_a_gpu_is_one_sentence(no_gpu):
    with pytest.raises(PtychonError) as error:
        get_backend("cupy")
    message = str(error.value)
    assert "\n" not in message
    assert "needs an NVIDIA GPU" in message
    assert "--backend numpy" in message


def test_cupy_that_cannot_be_imported_is_one_sentence(monkeypatch):
    monkeypatch.setattr(gpu, "driver_found", lambda: True)
    monkeypatch.setitem(sys.modules, "cupy", None)  # import raises ImportError
    with pytest.raises(PtychonError, match=r"needs CuPy.*pip install 'ptychon\[gpu\]'"):
        get_backend("cupy")


def test_unknown_names_get_the_nearest():
    for name, nearest in (
        ("nunpy", "numpy"),
        ("cuda", None),
        ("cuppy", "cupy"),
        ("referense", "reference"),
    ):
        with pytest.raises(
            PtychonError,
            match=f"unknown backend '{name}'; choose one of auto, numpy, cupy, reference",
        ) as error:
            get_backend(name)
        assert (f"did you mean {nearest!r}" in str(error.value)) == (nearest is not None)


def test_a_job_uses_the_cores_that_it_was_given(monkeypatch):
    """Not all those of a node of a cluster."""
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 4, 5, 6})
        assert cores() == 4
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    assert cores() == 2


def test_threads():
    assert get_backend("numpy", threads=3).threads == 3
    assert 1 <= get_backend("numpy").threads <= 16
    with pytest.raises(PtychonError, match="threads is 0"):
        get_backend("numpy", threads=0)


def test_a_backend_is_taken_as_it_is():
    backend = get_backend("numpy", threads=1)
    assert get_backend(backend) is backend
    assert get_backend("numpy") is not get_backend("numpy")
    with pytest.raises(AttributeError):
        backend.name = "other"


def test_describe_names_the_kernels_without_a_fast_version():
    facts = get_backend("reference").describe()
    assert facts["reference kernels"] == list(SPECIFIED)
    fast = get_backend("numpy").describe()
    assert set(fast["reference kernels"]) < set(SPECIFIED)
    assert {"gather", "modulus_projection", "message_sums", "curvature", "site_moments"}.isdisjoint(
        fast["reference kernels"]
    )
    assert (fast["name"], fast["device"]) == ("numpy", "CPU")


@pytest.mark.parametrize("name", ["numpy", "reference"])
def test_transforms_are_orthonormal_and_stay_single(name):
    backend = get_backend(name)
    rng = np.random.default_rng(0)
    a = (rng.standard_normal((3, 2, 12, 9)) + 1j * rng.standard_normal((3, 2, 12, 9))).astype(
        np.complex64
    )
    kept = a.copy()
    wave = backend.fft2(a)
    assert wave.dtype == np.complex64
    assert np.array_equal(a, kept)
    assert np.linalg.norm(wave) == pytest.approx(np.linalg.norm(a), rel=1e-6)
    assert np.allclose(wave, np.fft.fft2(a.astype(complex), norm="ortho"), atol=1e-5)
    assert np.allclose(backend.ifft2(wave), a, atol=1e-5)


@pytest.mark.parametrize("name", ["rpie", "dm", "ep"])
def test_two_alive_at_once(name):
    """Runs on three backends, one pass of each in turn, give the bits each gives alone."""
    case, engine = make_case(subpixel=True), make(name)
    choices = (("numpy", {"threads": 1}), ("reference", {}), ("numpy", {"threads": 2}))

    def run(choice):
        ctx = Context(get_backend(choice[0], **choice[1]))
        return iterate(case.problem, engine, case.object, case.probe, ctx=ctx)

    alone = [next(itertools.islice(run(choice), 3, None)).state.object for choice in choices]
    together = [run(choice) for choice in choices]
    for _ in range(4):
        states = [next(steps).state for steps in together]
    for state, expected in zip(states, alone, strict=True):
        assert np.array_equal(state.object, expected)


def test_asking_for_numpy_does_not_import_cupy():
    script = (
        "import sys, ptychon.run.reconstruct; from ptychon.backends import get_backend; "
        "get_backend('numpy'); "
        "print('cupy' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.strip() == "False"


def test_names_are_what_get_backend_takes(no_gpu):
    for name in NAMES:
        if name != "cupy":
            assert get_backend(name).name in ("numpy", "reference")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["pie", "epie", "rpie", "dm", "ep"])
def test_gpu_follows_the_cpu(name):
    """Four passes from a near start, sub-pixel positions and masks: the same object to rounding."""
    backend = gpu_backend()
    case = make_case(subpixel=True, masks="each")
    found = [
        reconstruct(
            case.problem,
            name,
            passes=4,
            backend=b,
            object=case.object,
            probe=case.probe,
            schedule=Schedule(kind="parallel" if name == "dm" else "sequential", shuffle=False),
        )
        for b in ("reference", backend)
    ]
    assert np.linalg.norm(found[1].object - found[0].object) < 1e-4 * np.linalg.norm(
        found[0].object
    )
    assert np.linalg.norm(found[1].probe - found[0].probe) < 1e-4 * np.linalg.norm(found[0].probe)
    assert found[1].final_error == pytest.approx(found[0].final_error, rel=1e-3)
