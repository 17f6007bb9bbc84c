"""The report: its numbers against what is known, its page, and a real browser."""

from __future__ import annotations

import html.parser
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from _problems import pixel
from ptychon import PtychonError, reconstruct
from ptychon.__main__ import main
from ptychon.backends import get_backend
from ptychon.io import load_result, save_result, write_dataset
from ptychon.metrics.residual import residual, residual_per_frame
from ptychon.metrics.unwrap import level, unwrap
from ptychon.model.noise.moments import counting_noise, expected_root
from ptychon.model.problem import Problem
from ptychon.reports import page, pictures
from ptychon.reports.numbers import fit, outliers, phase_error_bar, power_spectrum
from ptychon.reports.page import png_of
from ptychon.reports.verdict import verdict
from ptychon.reports.write import write_report
from ptychon.run.doubts import at_rim

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
PANELS = (
    "object",
    "object_colours",
    "object_unwrapped",
    "deviation",
    "probe",
    "propagation",
    "convergence",
    "ring_correlation",
    "spectrum",
    "positions",
    "frames",
    "detector",
)


@pytest.fixture(scope="module")
def simulation():
    from ptychon.simulation import phantoms, probes
    from ptychon.simulation.scan import raster
    from ptychon.simulation.simulate import simulate

    shape = (96, 96)
    truth = phantoms.complex_object(
        phantoms.cell(shape), phantoms.siemens_star(shape), phase_range=(0.0, 1.0)
    )
    probe = probes.defocused_aperture((32, 32), radius=7, defocus=8)
    mask = np.ones((32, 32), bool)
    mask[3, 4] = False
    return simulate(
        truth,
        probe,
        raster(11, 4, jitter=1, whole=False),
        noise="poisson",
        mean_counts=1e6,
        mask=mask,
        wavelength=1.5e-10,
        distance=1.0,
        detector_pixel_size=5e-4,
        name="<b>&name",
    )


@pytest.fixture(scope="module")
def folder(simulation, tmp_path_factory):
    """A scan, a result with error bars from the command line, and its report with half-scans."""
    place = tmp_path_factory.mktemp("report")
    data = replace(simulation.dataset, probe=simulation.probe)
    patterns = data.patterns.copy()
    patterns[17] = patterns[90]
    write_dataset(place / "scan.cxi", replace(data, patterns=patterns))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["reconstruct", "scan.cxi", "-e", "ep", "-n", "20", "--report", "-q"]) == 0
    return place


def test_noise_of_counts():
    random = np.random.default_rng(0)
    for mean in (1e-7, 1e-3, 0.3, 2.0, 30.0, 5e3):
        n = random.poisson(mean, 400_000)
        seen = ((np.sqrt(n) - math.sqrt(mean)) ** 2).mean()
        assert counting_noise(np.array([mean]))[0] == pytest.approx(seen, rel=0.02, abs=3e-6)
        assert expected_root(np.array([math.sqrt(mean)]))[0] == pytest.approx(
            np.sqrt(n).mean(), rel=0.01, abs=2e-4
        )


def test_the_fit_of_the_truth(simulation):
    problem = Problem.from_dataset(simulation.dataset)
    result = reconstruct(problem, "rpie", passes=2, backend="reference", probe=simulation.probe)
    found = fit(
        problem,
        replace(result, object=simulation.object, probe=simulation.probe),
        get_backend("reference"),
    )
    assert found.residual == pytest.approx(
        residual(problem, simulation.object, simulation.probe), rel=1e-6
    )
    np.testing.assert_allclose(
        found.per_frame, residual_per_frame(problem, simulation.object, simulation.probe), rtol=1e-5
    )
    assert found.residual == pytest.approx(found.noise, rel=0.02)  # nothing but noise is left
    assert found.flat > 3 * found.residual
    assert found.bad.size == 0
    assert np.argwhere(np.isnan(found.per_pixel)).tolist() == [[3, 4]]
    assert abs(np.nanmean(found.bias)) < 0.005
    assert found.counts == pytest.approx(1e6, rel=0.05)
    with pytest.raises(PtychonError, match="as the result read them"):
        fit(problem.select(slice(0, 50)), result, get_backend("reference"))


@pytest.mark.parametrize("known", ["doses", "variations"])
def test_the_fit_knows_doses_and_how_the_probe_varies(simulation, known):
    """R of the report, and of each frame, is that of the run, which knows them; without them it is
    another one.
    """
    rng, plain = (
        np.random.default_rng(5),
        Problem.from_dataset(simulation.dataset).select(slice(0, 40)),
    )
    probe = simulation.probe.reshape(1, *plain.frame_shape).astype(np.complex64)
    object = np.asarray(simulation.object, np.complex64)
    if known == "doses":
        more = {"log_scale": rng.normal(0, 0.1, 40).astype("f4")}
    else:
        weights = rng.normal(0, 0.2, (40, 1)).astype("f4")
        more = {"variations": np.roll(probe, 2, axis=1), "weights": weights}
    problem = replace(plain, **more)
    result = reconstruct(
        plain, "pie", passes=1, probe=probe, backend="reference", judge=False, progress=False
    )
    result = replace(result, object=object, probe=probe, **more)
    found = fit(problem, result, get_backend("numpy"))
    assert found.residual == pytest.approx(residual(problem, object, probe), rel=1e-5)
    np.testing.assert_allclose(
        found.per_frame, residual_per_frame(problem, object, probe), rtol=1e-4
    )
    assert fit(plain, result, get_backend("numpy")).residual < 0.5 * found.residual


def test_bad_frames_stand_out():
    values = np.full(100, 0.1) + 0.001 * np.sin(np.arange(100))
    values[[7, 30]] = 0.3, 0.5
    values[50] = np.nan
    assert outliers(values).tolist() == [30, 7]
    assert outliers(np.full(5, np.nan)).size == 0


def test_unwrapping():
    y, x = np.mgrid[:80, :90]
    truth = 12 * np.exp(-((y - 40) ** 2 + (x - 50) ** 2) / 400) + 0.05 * x - 0.03 * y
    weights = np.ones(truth.shape)
    found = unwrap(np.exp(1j * truth), weights)
    difference = (found - truth) / (2 * np.pi)
    np.testing.assert_allclose(difference, np.rint(difference.mean()), atol=1e-6)
    flat = level(found, weights)
    assert np.median(np.abs(flat[:8])) < 0.5
    # where nothing is known anything may be, without harm to the rest
    noisy = truth.copy()
    noisy[30:50, 70:80] = np.random.default_rng(0).uniform(-9, 9, (20, 10))
    weights[30:50, 70:80] = 0
    turns = (unwrap(np.exp(1j * noisy), weights) - noisy)[weights > 0] / (2 * np.pi)
    np.testing.assert_allclose(turns, np.rint(turns.mean()), atol=1e-6)


def test_small_numbers(folder):
    result = load_result(folder / "scan_ep.h5")
    bars = phase_error_bar(result)
    lit = result.illuminated
    expected = result.object_std[lit] / (math.sqrt(2) * np.abs(result.object[lit]))
    bright = expected < 1 / 6
    assert bright.sum() > 0
    np.testing.assert_allclose(bars[lit][bright], expected[bright], rtol=1e-5)
    dark = replace(result, object=1e-6 * result.object)
    np.testing.assert_allclose(phase_error_bar(dark)[lit], 0.683 * math.pi, rtol=0.01)
    assert phase_error_bar(replace(result, object_std=None)) is None
    assert 0 <= at_rim(result.probe)[0] < 0.1
    frequency, power = power_spectrum(result)
    assert frequency[-1] == pytest.approx(0.5 / max(result.pixel_size), rel=0.1)
    assert power[0] > power[-1] > 0


def test_verdicts(folder):
    result = load_result(folder / "scan_ep.h5")
    nothing = verdict(result, None, None)
    assert nothing.level == "care"
    assert any("--half-scans" in reason.text for reason in nothing.reasons)
    falling = replace(result, errors=np.geomspace(1, 0.1, 20).astype(np.float32))
    assert any("run it longer" in reason.text for reason in verdict(falling, None, None).reasons)
    rising = replace(result, errors=np.linspace(0.1, 0.5, 20).astype(np.float32))
    assert any(
        "steps may be too large" in reason.text for reason in verdict(rising, None, None).reasons
    )


def test_everything_is_there(folder):
    assert sorted(p.name for p in folder.iterdir()) == [
        "scan.cxi",
        "scan_ep.h5",
        "scan_ep.half1.h5",
        "scan_ep.half2.h5",
        "scan_ep.png",
        "scan_ep_report",
        "scan_ep_report.html",
        "scan_ep_report.json",
    ]
    assert sorted(p.stem for p in (folder / "scan_ep_report").iterdir()) == sorted(PANELS)
    numbers = next(
        iter(json.loads((folder / "scan_ep_report.json").read_text())["results"].values())
    )
    assert numbers["fit"]["bad"][0] == 17
    assert 0 < numbers["fit"]["noise"] < numbers["fit"]["residual"] < numbers["fit"]["flat"] < 1
    halves = numbers["half_scans"]
    assert halves["interval"][0] <= halves["resolution"] <= halves["interval"][1]
    assert (
        len(halves["frequency"])
        == len(halves["correlation"])
        == len(halves["half_bit"])
        == len(halves["one_bit"])
    )
    assert (
        numbers["propagation"]["rms_radius_at_focus"]
        <= numbers["propagation"]["rms_radius_at_object"]
    )
    assert numbers["deviation"]["median_phase_std"] > 0
    assert any("17" in reason["text"] for reason in numbers["verdict"]["reasons"])


def test_the_page_stands_for_itself(folder):
    page = (folder / "scan_ep_report.html").read_text(encoding="utf-8")
    seen: list[tuple[str, dict[str, str | None]]] = []

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append((tag, dict(attrs)))

    Parser().feed(page)
    images = [attrs for tag, attrs in seen if tag == "img"]
    assert len(images) == len(PANELS)
    assert all(
        attrs["src"].startswith("data:image/png;base64,") and attrs["alt"] for attrs in images
    )
    assert not any(tag in ("script", "link", "iframe") for tag, _ in seen)
    text = re.sub(r"data:image/png;base64,[^\"]*", "", page)
    assert "http" not in text
    assert "&lt;b&gt;&amp;name" in text
    assert "<b>&name" not in text
    assert "Not shown" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_in_a_browser(folder, tmp_path):
    """At a laptop's width nothing sticks out, every picture is drawn, and the colour wheel can be
    chosen.
    """
    page = (folder / "scan_ep_report.html").read_text(encoding="utf-8")
    probe = """<script>addEventListener("load", () => {
      const wide = document.documentElement.scrollWidth - innerWidth, images = [...document.images];
      const before = document.getElementById("object_colours").offsetHeight;
      document.querySelector("label[for=colour1]").click();
      const after = document.getElementById("object_colours").offsetHeight;
      const drawn = images.filter(i => i.naturalWidth > 0).length;
      document.title = JSON.stringify({wide, drawn, before, after,
        grey: document.getElementById("object").offsetHeight});
    });</script>"""
    (tmp_path / "probed.html").write_text(
        page.replace("</body>", probe + "</body>"), encoding="utf-8"
    )
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path}",
    ]
    address = f"file://{tmp_path}/probed.html"
    done = subprocess.run(
        [*command, "--window-size=1280,800", "--dump-dom", address],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    found = json.loads(html.unescape(re.search(r"<title>(\{.*?\})</title>", done.stdout).group(1)))
    assert found["wide"] <= 0
    assert found["drawn"] == len(PANELS)
    assert found["before"] == 0 < found["after"]
    assert found["grey"] == 0


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_in_a_narrow_window(folder, tmp_path):
    """At 500 px the page does not stick out, pictures keep a readable width in boxes that are
    pushed sideways, and a click enlarges one over the whole window.
    """
    page = (folder / "scan_ep_report.html").read_text(encoding="utf-8")
    probe = """<script>addEventListener("load", () => {
      const wide = document.documentElement.scrollWidth - innerWidth;
      const image = document.querySelector("#probe img"), box = image.closest(".picture");
      const before = [image.offsetWidth, box.offsetWidth];
      document.getElementById("zoom_probe").click();
      const over = image.closest("label").getBoundingClientRect();
      document.title = JSON.stringify({wide, before, at: innerWidth,
        over: [over.left, over.top, over.width, over.height, innerHeight]});
    });</script>"""
    (tmp_path / "probed.html").write_text(
        page.replace("</body>", probe + "</body>"), encoding="utf-8"
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    more = [f"--user-data-dir={tmp_path}", "--window-size=500,900", "--dump-dom"]
    done = subprocess.run(
        [*command, *more, f"file://{tmp_path}/probed.html"],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    found = json.loads(html.unescape(re.search(r"<title>(\{.*?\})</title>", done.stdout).group(1)))
    assert found["at"] == 500
    assert found["wide"] <= 0
    picture, box = found["before"]
    assert picture >= 650 > 500 > box
    left, top, width, height, window = found["over"]
    assert (left, top) == (0, 0)
    assert width >= 500
    assert height >= window


def test_the_title_and_the_facts_come_first(folder):
    page = (folder / "scan_ep_report.html").read_text(encoding="utf-8")
    text = re.sub(r"data:image/png;base64,[^\"]*", "", page)
    title = re.search(r"<h1>(.*?)</h1>", text).group(1)
    assert "&lt;b&gt;&amp;name, scan scan.cxi, reconstructed 20" in title
    assert text.index("<h1>") < text.index('<dl class="facts">') < text.index('class="verdict')
    for name in ("field of view", "pixel", "R of noise alone", "frames", "error bar"):
        assert f"<dt>{name}</dt>" in text
    linked = re.findall(r'<a class="full" href="([^"]*)"', text)
    assert len(linked) == len(PANELS)
    assert all((folder / name).is_file() for name in linked)


@pytest.mark.usefixtures("sketched")
def test_what_cannot_be_shown_is_said(folder, tmp_path, capsys):
    result = load_result(folder / "scan_ep.h5")
    plain = replace(
        result, object_std=None, pixel_size=None, settings={"passes": 20}, provenance={}
    )
    save_result(tmp_path / "api.h5", plain)
    assert main(["report", str(tmp_path / "api.h5")]) == 0
    out = capsys.readouterr().out
    assert "Use this reconstruction with care." in out
    page = (tmp_path / "api_report.html").read_text()
    for words in (
        "has no error bars",
        "wavelength and pixel size are not both known",
        "does not say from which file",
        "two half-scans are needed",
    ):
        assert words in page
    assert page.count("Not shown") == 5


@pytest.mark.usefixtures("sketched")
def test_moved_and_changed_data(folder, simulation, tmp_path):
    shutil.copy(folder / "scan_ep.h5", tmp_path / "r.h5")
    written = write_report(
        [tmp_path / "r.h5"], half_scans=False, data=replace(simulation.dataset, probe=None)
    )
    numbers = next(iter(json.loads(written.numbers.read_text())["results"].values()))
    assert "fit" in numbers
    assert "half_scans" not in numbers
    write_dataset(tmp_path / "scan.cxi", simulation.dataset)
    result = load_result(tmp_path / "r.h5")
    request = result.settings["request"] | {"input": "/gone/scan.cxi"}
    save_result(tmp_path / "r.h5", replace(result, settings=result.settings | {"request": request}))
    assert "has changed since" in write_report([tmp_path / "r.h5"]).page.read_text()


@pytest.mark.parametrize("right", [True, False])
def test_what_two_halves_say_of_the_bars(folder, tmp_path, monkeypatch, right):
    """A file of `ptychon validate`: its verdict, T and what is covered stand on the page, and among
    the numbers. The other pictures are one pixel each.
    """
    from ptychon.uncertainty.half_data_record import HalfDataTest
    from ptychon.uncertainty.saved import save_half_data_test

    covered = (0.4, 0.6, 0.85, 0.92)
    said = HalfDataTest(
        kind="counts",
        mean_square=1.44,
        covered=covered,
        covered_after=(0.5, 0.69, 0.9, 0.95),
        mean_square_after=1.02,
        by_period=(math.nan, 1.4 if right else 14.0, 1.5, 1.3, 1.4),
        independent=0.9,
        difference_db=20.0,
        chi2=(1.0, 1.1),
        pixels=900,
        modes=1,
        update=("object", "probe"),
    )
    draw, shown = pictures.half_data_test, []
    monkeypatch.setattr(pictures, "half_data_test", lambda s: shown.append(draw(s)) or shown[-1])
    monkeypatch.setattr(page, "png_of", lambda f: (png_of if f in shown else pixel)(f))
    save_half_data_test(tmp_path / "judged.h5", folder / "scan_ep.h5", said)
    written = write_report([tmp_path / "judged.h5"], half_scans=False)
    text = re.sub(r"data:image/png;base64,[^\"]*", "", written.page.read_text(encoding="utf-8"))
    numbers = next(iter(json.loads(written.numbers.read_text())["results"].values()))
    assert (written.pictures / "half_data_test.png").stat().st_size > 10_000
    for words in (
        "T = 1.44: bars times 1.20",
        "40% for 50%, 60% for 68%",
        f"above 16 px {1.4 if right else 14}",
        "misfit",
    ):
        assert words in text
    assert text.index("Error bars against two halves of the data") < text.index("<h3>Probe</h3>")
    told = [r for r in numbers["verdict"]["reasons"] if r["text"].startswith("The model")]
    assert [r["level"] for r in told] == ["good" if right else "care"]
    assert ("model does not describe the data" in told[0]["text"]) is not right
    assert ("Do not rely on its error bars" in told[0]["text"]) is not right
    assert numbers["half_data_test"]["temperature"] == pytest.approx(1.44)
    assert numbers["half_data_test"]["by_period"][0] is None
    assert numbers["half_data_test"]["covered"] == list(covered)


@pytest.mark.usefixtures("sketched")
def test_several_results(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    result = load_result(folder / "scan_ep.h5")
    save_result("a.h5", replace(result, settings={}))
    save_result(
        "b.h5",
        replace(
            result, settings={}, probe=np.concatenate([result.probe, 0.3 * result.probe[:, ::-1]])
        ),
    )
    assert main(["report", "a.h5", "b.h5", "-o", "both.html", "--json"]) == 0
    assert sorted(json.loads(capsys.readouterr().out)["results"]) == ["a.h5", "b.h5"]
    assert Path("both/comparison.png").is_file()
    assert Path("both/b_probe.png").is_file()
    assert "Side by side" in Path("both.html").read_text()


def test_refusals(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_result("a.h5", load_result(folder / "scan_ep.h5"))
    for arguments, words in (
        (["none.h5"], "no such file"),
        ([str(folder / "scan.cxi")], ""),
        (["a.h5", "-o", "a.pdf"], "must be named .html"),
        (["a.h5", "-o", "no/a.html"], "folder does not exist"),
        ([], "Missing argument"),
    ):
        assert main(["report", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert words in err
        assert err.count("\n") <= 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5"]


def test_convergence_counts_passes_not_measurements(folder):
    result = load_result(folder / "scan_ep.h5")
    seldom = np.full(40, np.nan, np.float32)
    seldom[:20] = np.geomspace(1, 0.3, 20)
    seldom[20::5] = 0.2, 0.101, 0.1005, 0.1
    reasons = verdict(replace(result, errors=seldom), None, None).reasons
    assert any(
        "settled: it changed by 0.5% over the last 6 passes" in reason.text for reason in reasons
    )
    few = verdict(replace(result, errors=seldom[-12:-3]), None, None).reasons
    assert any("too few" in reason.text for reason in few)
