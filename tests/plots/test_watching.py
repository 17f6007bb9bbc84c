"""A run that is watched, and frames that are compared, in a notebook."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import ptychon
from ptychon import Problem, PtychonError
from ptychon.plots import frames, live
from ptychon.plots.live import Live
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate


@pytest.fixture(scope="module")
def made():
    truth = phantoms.complex_object(phantoms.cell((40, 40)), phantoms.texture((40, 40), 1))
    probe = probes.defocused_aperture((16, 16), radius=4, defocus=6)
    s = simulate(truth, probe, scan.raster(4, 4), noise="poisson", mean_counts=1e5, seed=1)
    # the truth as a result: the model is what was simulated
    result = ptychon.Result(
        object=s.object,
        probe=s.probe,
        errors=np.array([0.1], np.float32),
        final_error=0.01,
        positions=Problem.from_dataset(s.dataset).positions,
        engine="rpie",
        passes=1,
    )
    return s, result


def test_live_needs_a_place_to_draw(made):
    with pytest.raises(PtychonError, match="notebook or in a window"):
        ptychon.reconstruct(made[0].dataset, passes=1, live=True, backend="reference")


def test_live_redraws_every_few_passes(made, monkeypatch):
    shown, drawn = [], []
    monkeypatch.setattr(live, "in_notebook", lambda: True)
    monkeypatch.setattr(Live, "_show", lambda self, figure: shown.append(figure))
    monkeypatch.setattr(live, "OFTEN", 0.0)
    monkeypatch.setattr(live, "SHARE", 0.0)
    original = live.drawn

    def spy(object, probe, errors, engine):
        drawn.append((object.copy(), list(errors)))
        return original(object, probe, errors, engine)

    monkeypatch.setattr(live, "drawn", spy)
    how = {"probe": made[0].probe, "backend": "reference", "progress": False}
    result = ptychon.reconstruct(made[0].dataset, passes=3, live=True, **how)
    assert len(shown) == 3
    assert [n for n, _ in drawn[-1][1]] == [1, 2, 3]
    # at the end of a run a factor goes from the object to the probe
    factor = result.object[0, 0] / drawn[-1][0][0, 0]
    np.testing.assert_allclose(factor * drawn[-1][0], result.object, rtol=1e-5)
    np.testing.assert_allclose([e for _, e in drawn[-1][1]], result.errors, rtol=1e-6)
    assert [ax.get_title() for ax in shown[0].axes[:3]] == [
        "object amplitude",
        "object phase",
        "probe",
    ]


def test_the_last_pass_is_drawn_whatever_the_time(made, monkeypatch):
    shown = []
    monkeypatch.setattr(live, "in_notebook", lambda: True)
    monkeypatch.setattr(Live, "_show", lambda self, figure: shown.append(figure))
    watch = Live(SimpleNamespace(backend=SimpleNamespace(to_host=np.asarray)), every=10)
    engine = SimpleNamespace(
        name="rpie",
        estimate=lambda state, ctx: SimpleNamespace(object=made[1].object, probe=made[1].probe),
    )
    for n in (1, 2):
        watch(SimpleNamespace(passes=n, planned=5, error=0.1, state=None, engine=engine))
    assert not shown
    watch.close()
    watch.close()
    assert len(shown) == 1


def test_frames_are_those_of_data_and_model(made):
    s, result = made
    problem = Problem.from_dataset(s.dataset)
    measured, model = frames.pair(problem, result, 5)
    np.testing.assert_allclose(measured**2, s.dataset.patterns[5], atol=1e-2)
    # counts about a known mean: the model is that mean
    score = (s.dataset.patterns[5] - model**2) / np.sqrt(np.maximum(model**2, 1))
    assert 0.7 < np.sqrt(np.mean(score[model > 2] ** 2)) < 1.3
    figure = frames.frames_of(problem, result, 5)
    assert figure.axes[0].get_title() == "measured, frame 5"


def test_compare_slides(made):
    pytest.importorskip("ipywidgets")
    s, result = made
    box = ptychon.compare(s.dataset, result, frame=3)
    slider, image = box.children
    before = bytes(image.value)
    assert before.startswith(b"\x89PNG")
    assert slider.max == len(s.dataset) - 1
    slider.value = 7
    assert bytes(image.value) != before
    slider.value = 3
    assert bytes(image.value) == before
    with pytest.raises(PtychonError, match="frame 99 is none of the 16"):
        ptychon.compare(s.dataset, result, frame=99)
    with pytest.raises(PtychonError, match="give the data as the result read them"):
        ptychon.compare(s.dataset, replace(result, positions=result.positions[:5]))


def test_a_part_of_the_object_is_enlarged_and_coloured(made):
    """Axes count pixels of the whole object, and what is shown is that part of it."""
    from ptychon.plots.notebook import drawn

    _, result = made
    box = (slice(10, 26), slice(12, 30))
    figure = drawn(result, False, box)
    amplitude = figure.axes[0].images[0]
    np.testing.assert_allclose(amplitude.get_array(), np.abs(result.object[box]), rtol=1e-5)
    assert list(amplitude.get_extent()) == [11.5, 29.5, 25.5, 9.5]
    coloured = drawn(result, True, box).axes[0].images[0].get_array()
    assert coloured.shape == (16, 18, 3)
    assert len(drawn(result, True, None).axes) == 1
    with pytest.raises(PtychonError, match="holds no pixel"):
        drawn(result, False, (slice(90, 95), slice(0, 5)))
    with pytest.raises(PtychonError, match="opens no window"):
        result.show(colour=True)
