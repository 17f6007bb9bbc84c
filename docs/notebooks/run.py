"""Run the notebooks of this folder and keep what they show.

python docs/notebooks/run.py
python docs/notebooks/run.py near_field.ipynb
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def executed(path: Path, folder: Path | None = None) -> Any:
    """The notebook with its outputs, run in a fresh kernel.

    Parameters
    ----------
    path : Path
    folder : Path, optional
        Where it runs; default that of the notebook.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    where = str(folder or path.parent)
    NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=300,
        record_timing=False,
        coalesce_streams=True,  # else two prints are one or two, as the clock has it
        resources={"metadata": {"path": where}},
    ).execute(env=os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    # what differs from machine to machine is not kept
    notebook.metadata.get("language_info", {}).pop("version", None)
    return notebook


def main() -> None:
    import nbformat

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", type=Path, nargs="*", help="default all of the folder")
    for path in parser.parse_args().notebooks or sorted(HERE.glob("*.ipynb")):
        begun = time.perf_counter()
        nbformat.write(executed(path), path)
        print(f"{path.name}: {time.perf_counter() - begun:.0f} s, {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
