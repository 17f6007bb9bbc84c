"""The notebooks of the documents run, anywhere, and show what is kept of them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def printed(notebook: Any) -> list[tuple[int, str]]:
    """What cells printed, by the number of the cell."""
    return [
        (number, output.text)
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stdout"
    ]


def numbers(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", text)]


def test_there_are_three_and_they_are_small() -> None:
    assert [p.stem for p in NOTEBOOKS] == ["electrons_4dstem", "near_field", "xray_cxi"]
    assert all(p.stat().st_size < 400_000 for p in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs_and_shows_what_is_kept(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.syspath_prepend(str(FOLDER))
    sys.modules.pop("run", None)
    from run import executed

    kept, new = nbformat.read(path, as_version=4), executed(path, tmp_path)
    kinds = [
        [[o.output_type for o in cell.get("outputs", [])] for cell in notebook.cells]
        for notebook in (kept, new)
    ]
    assert kinds[0] == kinds[1]
    assert any(kinds[0])
    before, after = printed(kept), printed(new)
    assert before
    for (cell, text), (cell_now, text_now) in zip(before, after, strict=True):
        assert cell == cell_now
        # other processors round otherwise, and a run amplifies it
        np.testing.assert_allclose(numbers(text_now), numbers(text), rtol=0.1, atol=1.5)
