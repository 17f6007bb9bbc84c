"""Pictures need nothing of the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ptychon import PtychonWarning, Result
from ptychon.cli.run import drawn
from ptychon.plots import result as plot

DRAW = """
import numpy as np
from ptychon import Result
from ptychon.plots.result import picture
one = Result(object=np.ones((32, 32), np.complex64), probe=np.ones((1, 16, 16), np.complex64),
             errors=np.array([0.1], np.float32), final_error=0.1,
             positions=np.array([[12.0, 12], [15, 15]]), engine="rpie", passes=1)
for suffix in ("png", "pdf", "svg"):
    picture(one, "p." + suffix)
import matplotlib
print(matplotlib.rcParams._get("backend"))
"""


@pytest.mark.parametrize(
    ("given", "honoured"),
    [("module://not_installed_here.backend_inline", False), ("svg", True), ("nonsense", False)],
)
def test_a_backend_of_a_notebook_spoils_nothing(tmp_path, given, honoured):
    """MPLBACKEND that names nothing makes the import of matplotlib fail: not ours. One that exists
    still holds.
    """
    env = os.environ | {"MPLBACKEND": given}
    done = subprocess.run(
        [sys.executable, "-c", DRAW],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".pdf", ".png", ".svg"]
    assert (done.stdout.strip() == given) == (honoured or given.startswith("module"))


def test_no_result_is_lost_through_its_picture(tmp_path, monkeypatch):
    """Whatever drawing raises becomes a sentence that says where the result is."""

    def broken(*arguments):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(plot, "picture", broken)
    one = Result(
        object=np.ones((32, 32), np.complex64),
        probe=np.ones((1, 16, 16), np.complex64),
        errors=np.zeros(1, np.float32),
        final_error=0.1,
        positions=np.array([[12.0, 12], [15, 15]]),
        engine="rpie",
        passes=1,
    )
    places = SimpleNamespace(picture=tmp_path / "p.png", result=tmp_path / "r.h5")
    with pytest.warns(
        PtychonWarning, match=r"could not be drawn \(no fonts\); the result is in .*r\.h5"
    ):
        assert not drawn(one, places)
