"""The CUDA sources as one text, and what their kernels take: read from the text, so that host code
cannot disagree with it.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

#: Files of the one module that is compiled, headers first.
HEADERS = ("common.cuh", "pixels.cuh", "fft.cuh")
FILES = ("waves.cu", "pie.cu", "overlap.cu", "ep.cu", "lines.cu", "table.cu")
#: Tile of the object that one block of threads sums over, as in common.cuh.
TILE = (8, 32)
_FOLDER = Path(__file__).parents[1] / "cuda"
_ARRAYS = {
    "float2": "complex64",
    "float": "float32",
    "double": "float64",
    "int": "int32",
    "unsigned char": "uint8",
}
_SCALARS = {"int": np.int32, "float": np.float32, "long long": np.int64}


@cache
def source() -> str:
    """All kernels, with the headers once and in place, so that no compiler needs to
    look for a file.
    """
    text = "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in (*HEADERS, *FILES))
    return re.sub(r'^#include "\w+\.cuh"$', "", text, flags=re.M)


@cache
def signatures() -> dict[str, tuple[tuple[str, bool], ...]]:
    """For each kernel its arguments as (C type without const, whether it is a pointer)."""
    found = {}
    for name, text in re.findall(r"^KERNEL (\w+)\(([^)]*)\)", source(), re.M):
        arguments = []
        for part in text.split(","):
            words = part.replace("const ", "").strip()
            kind = " ".join(words.replace("*", " ").split()[:-1])
            arguments.append((kind, "*" in words))
        found[name] = tuple(arguments)
    return found


def check(name: str, args: tuple[Any, ...]) -> list[Any]:
    """Arguments as the kernel takes them: contiguous arrays of the right type, scalars of the right
    size, None for no array.

    Raises
    ------
    TypeError
        Where they do not fit: on a device this would be undefined behaviour.
    """
    wanted = signatures()[name]
    if len(args) != len(wanted):
        raise TypeError(f"kernel {name} takes {len(wanted)} arguments, not {len(args)}")
    out = []
    for i, (value, (kind, pointer)) in enumerate(zip(args, wanted, strict=True)):
        if not pointer:
            out.append(_SCALARS[kind](value))
        elif value is None:
            out.append(np.uintp(0))
        elif value.dtype != _ARRAYS[kind] or not value.flags.c_contiguous:
            raise TypeError(
                f"argument {i} of kernel {name} is {value.dtype} (contiguous: "
                f"{value.flags.c_contiguous}), not {kind}*"
            )
        else:
            out.append(value)
    return out
