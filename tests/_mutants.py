"""Damaged files: copies of good ones, cut, with bits flipped, with fields of absurd shape, type,
size and text.

Run as a script to try many of them: ``python tests/_mutants.py 1000``.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

HOSTILE = (
    "",
    "a" * 100_000,
    "%s%n",
    "../../etc/passwd",
    "NaN",
    "1e400",
    "\ud7ff\u202e",
    "12keV",
    "-1m",
    "__import__('os')",
)
#: What is tried on every mutant, one of them; OUT stands for the file to write.
COMMANDS = (
    ["inspect"],
    ["inspect", "--json"],
    ["inspect", "--pixel-size", "1nm"],
    ["convert", "OUT"],
)


def good_files(folder: Path) -> list[Path]:
    """One small file of every format."""
    import scipy.io

    from ptychon import Dataset, Result
    from ptychon.io import save_result, write_dataset, write_result, write_scan

    rng = np.random.default_rng(0)
    frames = rng.poisson(5.0, (6, 16, 16)).astype(np.uint16)
    data = Dataset(
        patterns=frames,
        positions=rng.uniform(0, 2e-5, (6, 2)),
        wavelength=1e-10,
        distance=2.0,
        detector_pixel_size=1e-4,
        mask=frames[0] < 9,
        probe=np.ones((16, 16), complex),
    )
    result = Result(
        object=np.ones((40, 40), "c8"),
        probe=np.ones((2, 16, 16), "c8"),
        errors=np.ones(3, "f4"),
        final_error=0.1,
        positions=rng.uniform(8, 30, (6, 2)),
        engine="ep",
        passes=3,
        pixel_size=(1e-9, 1e-9),
    )
    write_dataset(folder / "ours.cxi", data)
    save_result(folder / "result.h5", result)
    for name in ("scan.npz", "scan.mat", "scan.tif", "ptylab.hdf5", "scan.npy"):
        write_scan(folder / name, data)
    for name, format in (
        ("ptypy.ptyr", None),
        ("ptylab_result.hdf5", "ptylab"),
        ("product.h5", "ptychodus"),
        ("product.npz", "ptychodus"),
        ("niter.mat", None),
    ):
        write_result(folder / name, result, format)
    with h5py.File(folder / "foreign.cxi", "w") as file:
        file["cxi_version"] = 160
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector.create_dataset(
            "data", data=frames, chunks=(1, 16, 16), compression="gzip", fletcher32=True
        )
        detector["distance"], detector["x_pixel_size"], detector["y_pixel_size"] = 1.5, 1e-4, 1e-4
        detector["distance"].attrs["units"] = "m"
        detector["mask"] = np.zeros((16, 16), np.uint32)
        detector["basis_vectors"] = np.array([[0, -1e-4, 0], [-1e-4, 0, 0]])
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        file["entry_1/sample_1/geometry_1/translation"] = rng.uniform(-1e-5, 1e-5, (6, 3))
        file["entry_1/instrument_1/source_1/energy"] = 1.6e-15
    with h5py.File(folder / "scan.ptyd", "w") as file:
        for name, value in (
            ("energy", 8.0),
            ("distance", 2.0),
            ("psize", np.array([1e-4, 1e-4])),
            ("propagation", "farfield"),
        ):
            file[f"meta/{name}"] = value
            file[f"meta/{name}"].attrs["type"] = "scalar"
        for name, value in (
            ("data", frames),
            ("positions", rng.uniform(0, 1e-5, (6, 2))),
            ("weights", frames < 9),
        ):
            file[f"chunks/0/{name}"] = value
            file[f"chunks/0/{name}"].attrs["type"] = "array"
    with h5py.File(folder / "cube.emd", "w") as file:
        file.attrs["emd_group_type"], file.attrs["version_major"] = "file", 1
        cube = file.create_group("root/cube")
        cube.attrs["python_class"] = "DataCube"
        cube["data"] = frames.reshape(2, 3, 16, 16)
        for name, value in (
            ("R_pixel_size", 2.0),
            ("R_pixel_units", "A"),
            ("Q_pixel_size", 0.02),
            ("Q_pixel_units", "A^-1"),
        ):
            file[f"root/metadatabundle/calibration/{name}"] = value
    with h5py.File(folder / "plain.h5", "w", libver="latest") as file:
        file["dp"] = frames.reshape(2, 3, 16, 16)
        file["dp"].attrs.update(
            voltage_kV=300, scan_step_A=40.0, semiangle_mrad=1.0, detector_pixel_mrad=0.2
        )
        file.create_dataset("texts", data=["a", "b"], dtype=h5py.string_dtype())
    scipy.io.savemat(
        folder / "dp.mat",
        {"dp": np.moveaxis(frames, 0, -1), "positions_px": rng.uniform(0, 9, (6, 2))},
    )
    return sorted(folder.iterdir())


def mutate(source: Path, target: Path, dice: random.Random) -> str:
    """Write a damaged copy; returns what was done to it."""
    content = bytearray(source.read_bytes())
    ways = ["cut", "bits", "zeros", "ends", "numbers", "shuffle"]
    if h5py.is_hdf5(source):
        ways += ["shape", "dtype", "text", "attribute", "missing", "sparse", "link", "group"] * 2
    way = dice.choice(ways)
    if way == "cut":
        content = content[: dice.randrange(len(content))]
    elif way == "bits":
        for _ in range(dice.choice((1, 3, 30))):
            content[dice.randrange(min(len(content), dice.choice((512, 4096, len(content)))))] ^= (
                1 << dice.randrange(8)
            )
    elif way in ("zeros", "ends"):
        first = dice.randrange(len(content))
        last = min(len(content), first + dice.choice((1, 8, 64, 4096)))
        content[first:last] = (b"\0" if way == "zeros" else b"\xff") * (last - first)
    elif way == "numbers":
        for _ in range(dice.choice((1, 4))):
            first = dice.randrange(max(1, len(content) - 8))
            content[first : first + 8] = dice.choice(
                (2**63 - 1, 2**40, 2**31, 1, 2**64 - 2)
            ).to_bytes(8, "little")
    elif way == "shuffle":
        first, second = sorted(dice.randrange(len(content)) for _ in range(2))
        content[first : first + 64], content[second : second + 64] = (
            content[second : second + 64],
            content[first : first + 64],
        )
    target.write_bytes(content)
    if way in ("shape", "dtype", "text", "attribute", "missing", "sparse", "link", "group"):
        way = _mutate_hdf5(target, way, dice)
    return way


def _mutate_hdf5(path: Path, way: str, dice: random.Random) -> str:
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, node: names.append(name) if hasattr(node, "dtype") else None)
        name = dice.choice(names)
        node = file[name]
        kept = dict(node.attrs)
        shape = node.shape
        if way == "attribute":
            owner = dice.choice([file, node])
            keys = list(owner.attrs) or ["units"]
            owner.attrs[dice.choice(keys)] = dice.choice(
                (np.zeros((2, 2)), "x" * 1000, -1, np.nan, h5py.Empty("f8"), "GeV")
            )
            return f"{way} of {name}"
        del file[name]
        if way == "missing":
            return f"{name} missing"
        if way == "shape":
            shape = dice.choice(
                [(), (0,), (1,), (2, 3), (5, 7, 3), (1, 1, 1, 1, 1), (6, 0, 16), (3, 2**20)]
            )
            file.create_dataset(name, data=np.zeros(shape if np.prod(shape) < 2**21 else (4, 4)))
        elif way == "dtype":
            kind = dice.choice(
                ["S5", "f2", "f8", "c16", "?", "i8", "u1", "V7", [("a", "f4"), ("b", "i2")]]
            )
            file.create_dataset(name, shape, dtype=np.dtype(kind))
        elif way == "text":
            file[name] = dice.choice(HOSTILE)
        elif way == "sparse":
            huge = dice.choice(
                [(2**40, 16, 16), (6, 2**30, 2**30), (2**31, 2), (2**50,), (2**20, 2**20, 2, 2)]
            )
            chunks = tuple(min(n, 16) for n in huge)
            file.create_dataset(name, huge, dtype=dice.choice(["u1", "f8", "c16"]), chunks=chunks)
        elif way == "link":
            file[name] = dice.choice(
                [
                    h5py.SoftLink(f"/{name}"),
                    h5py.SoftLink("/"),
                    h5py.ExternalLink("no.h5", "/x"),
                    h5py.ExternalLink(path.name, f"/{name}"),
                ]
            )
        else:
            group = file.create_group(name)
            group["x"] = 1
        if way != "link":
            for key, value in kept.items():
                with contextlib.suppress(Exception):
                    file[name].attrs[key] = value
    return f"{way} of {name}"


def attempt(path: Path, command: list[str]) -> tuple[int, str]:
    """Exit code and message of a command of ptychon, run in this process."""
    from ptychon.__main__ import main

    err, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        code = main([*command[:1], str(path), *command[1:]])
    return code, err.getvalue()


def run(count: int, seed: int, folder: Path) -> dict[str, int]:
    """Try `count` damaged files; returns how many ended how. Raises AssertionError at the first
    that is not as it should be.
    """
    originals = folder / "good"
    originals.mkdir()
    files = good_files(originals)
    dice = random.Random(seed)
    ends: dict[str, int] = {}
    for k in range(count):
        source = dice.choice(files)
        target = folder / f"mutant{source.suffix}"
        way = mutate(source, target, dice)
        target_out = folder / "out.cxi"
        command = [str(target_out) if word == "OUT" else word for word in dice.choice(COMMANDS)]
        began = time.monotonic()
        kept = target.read_bytes()
        try:
            code, message = attempt(target, command)
        except BaseException as error:
            shutil.copy(target, Path(tempfile.gettempdir()) / f"ptychon-mutant{source.suffix}")
            raise AssertionError(
                f"mutant {k} of {source.name} ({way}), {command[0]}: {error!r}"
            ) from error
        seconds = time.monotonic() - began
        lines = [line for line in message.splitlines() if not line.startswith("ptychon: warning: ")]
        wrong = (
            code not in (0, 2)
            or "Traceback" in message
            or seconds > 30
            or (code == 2) != (len(lines) == 1)
        )
        if wrong:
            (Path(tempfile.gettempdir()) / f"ptychon-mutant{source.suffix}").write_bytes(kept)
        assert not wrong, (
            f"mutant {k} of {source.name} ({way}), {command}: code {code}, {seconds:.0f} s, "
            f"{message[:2000]}"
        )
        named = (
            "crash named"
            if "crashed" in message
            else "too much memory"
            if "memory" in message
            else "refused"
        )
        end = "opened" if code == 0 else named
        ends[end] = ends.get(end, 0) + 1
        target_out.unlink(missing_ok=True)
    return ends


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    if os.environ.get("PTYCHON_MUTANTS") is None:  # a process of its own, whose memory can be told
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, *sys.argv], env={**os.environ, "PTYCHON_MUTANTS": "1"}, check=False
        )
        import resource

        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        print(
            f"{number} mutants in {time.monotonic() - started:.0f} s, at most {peak:.2f} GB, "
            f"exit code {done.returncode}"
        )
    else:
        with tempfile.TemporaryDirectory() as place:
            print(run(number, int(sys.argv[2]) if len(sys.argv) > 2 else 0, Path(place)))
