"""A folder to start from, settings that are checked, numbers that are searched."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
import yaml

from ptychon import PtychonError
from ptychon.__main__ import main
from ptychon.cli.tune import knob_of
from ptychon.inspect.tuning import Knob, tune
from ptychon.io import load, load_result, write_scan
from ptychon.request.settings import validated
from ptychon.request.starter import KINDS, settings_text, write_starter
from ptychon.simulation import phantoms, probes, scan
from ptychon.simulation.simulate import simulate
from ptychon.units import parse, wavelength_of_electrons, wavelength_of_photons


def made(kind, side=5, frame=16):
    """A scan with the numbers of the starter, whose file does not state them."""
    known = {n: v for n, (v, _) in KINDS[kind].stated.items()}
    geometry = "near" if kind == "near-field" else "far"
    how = {"geometry": geometry, "noise": "poisson", "mean_counts": 1e5}
    step, jitter = 3.0, 1.0
    if kind == "electron":
        frame, jitter = 32, 0.0
        how |= {
            "wavelength": wavelength_of_electrons(parse(known["voltage"], "voltage")),
            "pixel_size": parse(known["pixel_size"], "length"),
        }
        step = parse(known["step"], "length") / how["pixel_size"]
    else:
        how |= {n: parse(known[n], "length") for n in ("distance", "detector_pixel_size")}
        if "energy" in known:
            how["wavelength"] = wavelength_of_photons(parse(known["energy"], "energy"))
        else:
            how["wavelength"] = parse(known["wavelength"], "length")
        if kind == "near-field":
            how["focus_distance"] = parse(known["focus_distance"], "length")
    places = scan.raster(side, step, jitter=jitter, whole=False)
    size = int(frame + 2 * np.ceil(np.abs(places).max() + 2))
    truth = phantoms.complex_object(
        phantoms.cell((size, size)), phantoms.texture((size, size), 1), amplitude_range=(0.6, 1.0)
    )
    probe = probes.defocused_aperture((frame, frame), radius=frame / 5, defocus=4)
    return simulate(truth, probe, places, **how).dataset


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_starter_runs_as_it_is_written(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "run", "--kind", kind]) == 0
    assert "ptychon validate" in capsys.readouterr().out
    folder = tmp_path / "run"
    text = (folder / "settings.yaml").read_text()
    data = made(kind)
    name = KINDS[kind].input
    if kind == "electron":  # a stack alone; the shape of the scan is what a user changes
        np.save(folder / name, np.asarray(data.patterns))
        text = text.replace("64x64", "5x5")
        (folder / "settings.yaml").write_text(text)
    elif name.endswith(".npz"):
        np.savez(folder / name, patterns=data.patterns, positions_m=data.positions)
    else:
        write_scan(folder / name, data)
    assert main(["validate", "run/settings.yaml"]) == 0
    assert "no mistakes" in capsys.readouterr().out
    short = ["-n", "2", "--no-report", "--backend", "reference", "-q", "-o", "r.h5"]
    assert main(["reconstruct", "run/settings.yaml", *short]) == 0
    result = load_result(tmp_path / "r.h5")
    assert len(result.probe) == KINDS[kind].modes
    assert result.pixel_size == pytest.approx(data.pixel_size, rel=1e-3)
    # every line that is not in force is one that may be put in force
    on = "\n".join(_in_force(line) for line in text.splitlines())
    values = validated(yaml.safe_load(on), "settings")
    assert values.orient == "auto"
    assert values.options["object_step"] == 0.8
    assert {"crop", "bin", "mask", "positions_path"} <= set(values.data)


def _in_force(line):
    bare = line.strip()
    if bare.startswith("# ") and bare.split(" ")[1].endswith(":"):
        return line.replace("# ", "", 1)
    return line


@pytest.mark.parametrize("kind", ["electron", "near-field"])
def test_the_script_and_the_job_of_a_starter(tmp_path, monkeypatch, kind):
    """The script is run, its run and its error bars made short; the job is read by the shell."""
    import ptychon

    monkeypatch.chdir(tmp_path)
    write_starter(tmp_path, kind)
    assert subprocess.run(["bash", "-n", "job.sh"], check=False).returncode == 0
    job = (tmp_path / "job.sh").read_text()
    assert "#SBATCH --cpus-per-task" in job
    assert "ptychon reconstruct settings.yaml" in job
    data, called = made(kind), {}
    whole = ptychon.reconstruct

    def loaded(path, **stated):
        assert path == KINDS[kind].input
        np.savez("scan_of_test.npz", patterns=data.patterns, positions_m=data.positions)
        stated.pop("scan_shape", None), stated.pop("step", None)
        return load("scan_of_test.npz", **stated)

    def short(data, engine, *, passes, **more):
        called["passes"] = passes
        return whole(data, engine, passes=2, backend="reference", say=None, judge=False, **more)

    def bars(data, result, method):
        called["method"] = method
        return "bars"

    monkeypatch.setattr(ptychon, "load", loaded, raising=False)
    monkeypatch.setattr(ptychon, "reconstruct", short, raising=False)
    monkeypatch.setattr(ptychon, "error_bars", bars, raising=False)
    exec(compile((tmp_path / "reconstruct.py").read_text(), "reconstruct.py", "exec"), {})
    assert called == {"passes": KINDS[kind].passes, "method": KINDS[kind].bars}
    assert (tmp_path / "result.h5").exists()
    assert (tmp_path / "result.png").exists()


def test_a_starter_is_not_written_over(tmp_path, capsys):
    where = str(tmp_path / "a")
    assert main(["init", where, "--input", str(tmp_path / "my scan: 1.cxi"), "-q"]) == 0
    assert yaml.safe_load((tmp_path / "a" / "settings.yaml").read_text())["input"].endswith(
        "my scan: 1.cxi"
    )
    assert main(["init", where]) == 2
    assert "settings.yaml" in capsys.readouterr().err
    assert main(["init", where, "--force", "-q"]) == 0
    with pytest.raises(PtychonError, match="no starter for 'neutron'"):
        write_starter(tmp_path, "neutron")


def test_mistakes_of_settings_are_all_told(tmp_path, capsys):
    path = tmp_path / "s.yaml"
    path.write_text(settings_text(KINDS["beamline"], "scan.cxi").replace("rpie", "rpi"))
    assert main(["validate", str(path)]) == 2
    assert "did you mean 'rpie'" in capsys.readouterr().err
    path.write_text(settings_text(KINDS["beamline"], "scan.cxi"))
    assert main(["validate", str(path)]) == 2
    assert "scan.cxi: there is no such file" in capsys.readouterr().err
    write_scan(tmp_path / "scan.cxi", made("beamline"))
    assert main(["validate", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["frames"] == [25, 16, 16]
    assert found["engine"] == "rpie"


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """A scan whose file states a distance 8 % too short."""
    truth = phantoms.complex_object(
        phantoms.cell((82, 82)), phantoms.texture((82, 82), 1), amplitude_range=(0.5, 1.0)
    )
    how = {"wavelength": 1e-10, "distance": 1.0, "detector_pixel_size": 1e-4}
    data = simulate(
        truth,
        probes.defocused_aperture((24, 24), radius=6, defocus=6),
        scan.raster(9, 5.0, jitter=1, whole=False),
        noise="poisson",
        mean_counts=1e6,
        **how,
    ).dataset
    place = tmp_path_factory.mktemp("tune") / "scan.npz"
    np.savez(place, patterns=data.patterns, positions_m=data.positions)
    return place, ["--wavelength", "1A", "--distance", "0.92m", "--detector-pixel-size", "100um"]


@pytest.mark.parametrize("by", ["frames", "pixels"])
def test_a_wrong_distance_is_found(wrong, tmp_path, capsys, by, monkeypatch):
    monkeypatch.setattr("ptychon.inspect.tuned_bars.LEVELS", 1)
    place, known = wrong
    out = tmp_path / "t.yaml"
    asked = ["--vary", "distance=20%", "--by", by, "--trials", "12", "-n", "12", "-o", str(out)]
    more = ["--backend", "numpy", "--max-frames", "81", "--json"]
    assert main(["tune", str(place), *known, *asked, *more]) == 0
    table = json.loads(capsys.readouterr().out)
    best = table["trials"][0]
    assert best["values"]["distance"] == pytest.approx(1.0, abs=0.025)
    scores = [t["explained"] for t in table["trials"] if t["explained"] is not None]
    assert scores == sorted(scores, reverse=True)
    far_off = [t for t in table["trials"] if abs(t["values"]["distance"] - 1) > 0.08]
    assert all(t["explained"] < best["explained"] - 0.02 for t in far_off)
    assert far_off
    settings = yaml.safe_load(out.read_text())
    found = table["values"][0]
    assert found["told"]
    assert found["value"] == pytest.approx(1.0, abs=max(0.01, 4 * found["error"]))
    assert settings["data"]["distance"] == found["value"]
    assert main(["validate", str(out), "-q"]) == 0


def test_choices_are_each_tried(wrong):
    place, _ = wrong
    known = {"wavelength": 1e-10, "detector_pixel_size": 1e-4, "distance": 1.0}
    found = tune(
        lambda values: load(place, **{**known, **values}),
        [Knob("orient", ("as-is", "transpose")), Knob("modes", (1, 2))],
        passes=10,
        frames=60,
    )
    assert len(found.trials) == 4
    assert found.best.values["orient"] == "as-is"
    assert all(t.behind > 2 for t in found.trials if t.values["orient"] == "transpose")


def test_what_can_be_varied():
    data = made("beamline")
    assert knob_of("distance=1m..3m", data, {}).range == (1.0, 3.0)
    assert knob_of("distance=10%", data, {}).range == pytest.approx((1.8, 2.2))
    assert knob_of("modes=1,3", data, {}).choices == (1, 3)
    assert knob_of("object-step=0.1..1", data, {}).logarithmic
    assert Knob("object_step", range=(0.1, 1.0)).at(0.5) == pytest.approx(0.1**0.5)
    assert Knob("distance", range=(1.0, 3.0)).at(0.5) == 2.0
    for text, said in (
        ("distance", "is not of the form"),
        ("distanse=1..2", "distance"),
        ("defocus=5%", "not known; give a range"),
        ("modes=1..3", "modes and orient have none"),
        ("distance=3m..1m", "from the smaller to the larger"),
        ("modes=0", "no number of modes"),
        ("orient=sideways", "sideways"),
    ):
        with pytest.raises(PtychonError, match=said):
            knob_of(text, data, {})


def completed(line):
    """What the shell offers for the last word of a line."""
    from click.shell_completion import ShellComplete

    from ptychon.cli.main import cli

    words = line.split(" ")
    found = ShellComplete(cli, {}, "ptychon", "_X").get_completions(words[1:-1], words[-1])
    return [item.value for item in found]


def test_the_shell_completes_values():
    from ptychon.engines import registry
    from ptychon.uncertainty.methods import registry as methods

    assert completed("ptychon reconstruct scan.cxi -e ") == list(registry)
    assert completed("ptychon reconstruct scan.cxi --engine rp") == ["rpie"]
    assert completed("ptychon error_bars r.h5 -m ") == ["auto", *methods]
    assert completed("ptychon check r.h5 --backend c") == ["cupy"]
    assert "transpose+negate" in completed("ptychon reconstruct scan.cxi --orient tr")
    assert "object_step=" in completed("ptychon reconstruct s.cxi --set object")
    assert completed("ptychon reconstruct s.cxi -e ep --set object_st") == []
    assert completed("ptychon reconstruct s.cxi --set shuffle=") == ["shuffle=yes", "shuffle=no"]
    assert completed("ptychon convert a b --format hy") == ["hyperspy"]
    assert "tune" in completed("ptychon tu")
