"""A short run does not spend its time on starting: what it imports, and what stands in for that."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import ptychon
from ptychon.__main__ import main
from ptychon.metrics import frc, registration
from ptychon.run.doubts import _highest
from ptychon.run.guess import _smoothed

#: Packages that take longer to import than a short run to compute, and are not needed for it.
HEAVY = (
    "scipy.fft",
    "scipy.linalg",
    "scipy.ndimage",
    "scipy.spatial",
    "scipy.special",
    "scipy.stats",
    "scipy.optimize",
    "matplotlib.pyplot",
    "numpy.f2py",
    "numba.cuda",
    "jinja2",
    "tifffile",
    "IPython",
    "ptychon.cli.check",
    "ptychon.cli.tune",
    "ptychon.reports",
    "ptychon.bench",
    "ptychon.uncertainty",
)


def test_a_run_with_its_picture_imports_nothing_heavy_that_it_does_not_use(tmp_path: Path) -> None:
    script = (
        "import sys; from ptychon.__main__ import main; "
        "assert main(['reconstruct', 'scan.npz', '-n', '1', '-q']) == 0; "
        "print(*[name for name in sys.modules if sys.modules[name] is not None])"
    )
    scan = tmp_path / "scan.npz"
    assert main(["simulate", str(scan), "--points", "3", "--frame", "16", "-q"]) == 0
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (tmp_path / "scan_rpie.png").stat().st_size > 10_000
    loaded = set(done.stdout.split())
    assert {"matplotlib.figure", "numba"} <= loaded
    assert not [name for name in HEAVY if name in loaded]


@pytest.mark.parametrize("name", ["dot", "vdot", "inner", "linalg", "matmul"])
def test_no_kernel_calls_of_a_library_what_a_command_hides_from_the_compiler(name: str) -> None:
    for path in (Path(ptychon.__file__).parent / "kernels" / "cpu").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)), path
            called = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if called and node.value.id in ("np", "scipy") and node.attr == name:
                pytest.fail(f"{path.name}:{node.lineno} uses np.{name}")


@pytest.mark.parametrize("shape", [(64, 64), (17, 48), (7, 5)])
def test_stand_ins_for_what_takes_long_to_import_give_the_same(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).random(shape)
    expected = ndimage.gaussian_filter(picture, 1.5, mode="wrap")
    np.testing.assert_allclose(_smoothed(picture, 1.5), expected, rtol=0, atol=1e-14)
    expected = ndimage.maximum_filter(picture, 5, mode="wrap")
    np.testing.assert_array_equal(_highest(picture, 2), expected)
    inside = np.pad(expected > 0.97, 1)
    deep = ndimage.distance_transform_edt(inside)
    for most in (1, 3, 9, frc.NEAR, frc.NEAR + 1):
        near = np.minimum(frc._depth(inside, most), most)
        np.testing.assert_allclose(near, np.minimum(deep, most), rtol=1e-14)


def test_the_ramp_is_found_alike_by_both_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = np.mgrid[:40, :57]
    noise = np.random.default_rng(1).normal(size=(2, 40, 57))
    field = np.exp(1j * (0.31 * y - 1.7 * x)) + 0.3 * (noise[0] + 1j * noise[1])
    small = registration.phase_ramp(field)
    monkeypatch.setattr(registration, "SMALL", 0)
    np.testing.assert_allclose(small, registration.phase_ramp(field), atol=1e-5)
    np.testing.assert_allclose(small, (0.31, -1.7), atol=2e-3)
