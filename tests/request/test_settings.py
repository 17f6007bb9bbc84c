"""Settings files: read, validated as a whole, merged with the command line, stored,
and run again.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from ptychon import PtychonError
from ptychon.__main__ import main
from ptychon.cli.options import engine_options
from ptychon.io import load_result, write_dataset
from ptychon.request.inputs import find_input, input_hash, read_settings, request_of
from ptychon.request.options import stage_of
from ptychon.request.settings import validated
from ptychon.run.until import Still

pytestmark = pytest.mark.usefixtures("sketched")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scan():
    from ptychon.simulation import phantoms, probes
    from ptychon.simulation.scan import raster
    from ptychon.simulation.simulate import simulate

    truth = phantoms.complex_object(phantoms.texture((40, 40)), phantoms.texture((40, 40), 1))
    probe = probes.defocused_aperture((16, 16), radius=5, defocus=4)
    return simulate(truth, probe, raster(4, 4, jitter=1), noise="poisson", mean_counts=1e5).dataset


def test_all_mistakes_at_once():
    wrong = {
        "inputt": "a.cxi",
        "engine": "rpie",
        "passes": 0,
        "backend": "cupi",
        "seed": "many",
        "options": {
            "object_stp": 1,
            "probe_step": 9,
            "probe_start": 1.5,
            "shuffle": "perhaps",
            "schedule": "zigzag",
        },
        "data": {"energi": 1, "wavelength": "1parsec", "rotation": "-126"},
        "orient": "sideways",
    }
    with pytest.raises(PtychonError) as caught:
        validated(wrong, "settings.yaml")
    text = str(caught.value)
    for words in (
        "settings.yaml has 8 mistakes: (1)",
        "'input' is missing",
        "unknown setting 'inputt', did you mean 'input'?",
        "passes: it should be greater than or equal to 1",
        "did you mean 'cupy'",
        "seed: it should be a valid integer",
        "did you mean 'object_step'",
        "probe_step is 9",
        "'probe_start' is 1.5",
        "true or false",
        "choose one of",
        "did you mean 'energy'",
        "parsec",
        "more than a turn",
        "'sideways' is none of as-is",
    ):
        assert words in text, words
    assert "\n" not in text


@pytest.mark.parametrize(
    ("engine", "option"),
    [
        ("ep", "damping"),
        ("ep", "object_variance"),
        ("ep", "noise_variance"),
        ("joint", "noise_variance"),
        ("rpie", "cool_from"),
        ("epie", "cool_from"),
        ("ml", "position_spread"),
        ("rpie", "object_step"),
    ],
)
def test_none_leaves_an_option_to_the_engine(engine, option):
    """From the command line, from YAML (null, or the word) and in Python; a number is still one."""
    number = 7 if option == "cool_from" else 0.25
    for text, value in (("none", None), ("null", None), (str(number), number)):
        chosen, run = engine_options(engine, [f"{option}={text}"])
        assert chosen == {option: value}
        assert not run
        read = yaml.safe_load(f"{{input: a, engine: {engine}, options: {{{option}: {text}}}}}")
        assert validated(read, "s.yaml").options == {option: value}
    with pytest.raises(PtychonError, match=f"option {option} is 'much'; it must be .*, or none"):
        engine_options(engine, [f"{option}=much"])


def test_one_mistake():
    with pytest.raises(
        PtychonError, match=r"^s\.yaml: engine: unknown engine 'rpei'; did you mean 'rpie'"
    ):
        validated({"input": "a.cxi", "engine": "rpei"}, "s.yaml")
    with pytest.raises(PtychonError, match="state the same thing"):
        validated({"input": "a.cxi", "data": {"energy": "1keV", "wavelength": "1A"}}, "s.yaml")


def test_one_word_ends_a_run_early():
    """The same as in a recipe; what once was `tolerance` is no option of a run any more."""
    stage = stage_of("ep", 40, {"until": "still:1e-4"}, {}, 0)
    assert stage.until == (Still(1e-4),)
    assert stage_of("ep", 40, {}, {}, 0).until == ()
    with pytest.raises(PtychonError, match="has no option 'tolerance'"):
        stage_of("ep", 40, {"tolerance": 1e-4}, {}, 0)


def test_what_yaml_makes_of_numbers():
    settings = validated(
        {"input": "a", "options": {"object_reg": "1e-3", "probe-start": 2, "object_step": 1}}, "s"
    )
    assert settings.options == {"object_reg": 1e-3, "probe_start": 2, "object_step": 1}
    assert (
        validated({"input": "a", "orient": "flip-columns+transpose"}, "s").orient
        == "transpose+flip-columns"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("- a\n- b\n", "holds no settings"),
        ("engine: [rpie\npasses: 3\n", "line 2, column"),
        ("engine: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("a: \0", "special characters"),
    ],
)
def test_files_that_are_no_settings(here, text, message):
    Path("s.yaml").write_text(text)
    with pytest.raises(PtychonError, match=message):
        read_settings("s.yaml")


def test_a_file_of_settings(here, scan, capsys):
    Path("sub").mkdir()
    np.savez("sub/scan.npz", patterns=scan.patterns, positions_px=scan.positions)
    Path("sub/s.yaml").write_text(
        "input: scan.npz\noutput: found.h5\npasses: 3\nbackend: reference\nseed: 5\nsubpixel: no\n"
        "options: {object_step: 0.7, shuffle: off}\ndata: {pixel_size: 5nm}\n"
    )
    assert (
        main(
            [
                "reconstruct",
                "sub/s.yaml",
                "--passes",
                "2",
                "--set",
                "probe_step=0.3",
                "--energy",
                "8keV",
                "--json",
            ]
        )
        == 0
    )
    numbers = json.loads(capsys.readouterr().out)
    assert (numbers["passes"], Path(numbers["result"])) == (2, Path("sub/found.h5"))
    result = load_result("sub/found.h5")
    assert result.pixel_size == (5e-9, 5e-9)
    assert (result.options["object_step"], result.options["probe_step"]) == (0.7, 0.3)
    assert result.settings["schedule"] == {
        "kind": "sequential",
        "size": None,
        "shuffle": False,
        "seed": 5,
    }
    request = request_of(result.settings, "found.h5")
    assert request["data"]["pixel_size"] == "5nm"
    assert Path(request["input"]) == (here / "sub" / "scan.npz").resolve()
    assert result.provenance["input_sha256"] == input_hash("sub/scan.npz")
    Path("bad.yaml").write_text("input: sub/scan.npz\nengin: ep\npasses: none\n")
    assert main(["reconstruct", "bad.yaml"]) == 2
    err = capsys.readouterr().err
    assert "2 mistakes" in err
    assert "did you mean 'engine'" in err


def test_a_recipe_in_a_settings_file():
    stages = [{"engine": "dm", "passes": 4, "until": "settled"}, "rpie:3"]
    settings = validated({"input": "a", "recipe": stages, "update": {"probe": "after=2"}}, "s.yaml")
    assert (settings.engine, settings.passes) == ("dm", 7)
    assert str(settings.way()) == "dm:4, rpie:3"
    assert [s.made().probe_start for s in settings.way().stages] == [2, 2]
    again = validated(settings.model_dump(), "s.yaml")
    assert again.way() == settings.way()
    for wrong, words in (
        ({"recipe": "dm:4", "passes": 9}, "passes is 9 beside a recipe, dm:4: give one"),
        (
            {"recipe": "rpie:4", "options": {"object_step": 0.5}},
            r"^s\.yaml: options stand beside a recipe: write them into its stages",
        ),
        ({"recipe": [{"engine": "dm"}]}, "recipe: a stage needs an engine and its passes"),
        ({"engine": "pie", "update": {"probe": True}}, "'pie' does not move 'probe'; these do"),
        ({"update": {"probe": "now"}}, "update of probe is 'now'"),
    ):
        with pytest.raises(PtychonError, match=words):
            validated({"input": "a", **wrong}, "s.yaml")


def test_a_result_is_repeated(here, scan, capsys):
    write_dataset("scan.cxi", scan)
    arguments = ["--backend", "reference", "-q"]
    assert (
        main(
            [
                "reconstruct",
                "scan.cxi",
                "-n",
                "3",
                "--seed",
                "3",
                "--set",
                "object_step=0.4",
                *arguments,
            ]
        )
        == 0
    )
    assert main(["reconstruct", "scan_rpie.h5", "-q"]) == 0
    first, again = load_result("scan_rpie.h5"), load_result("scan_rpie_again.h5")
    np.testing.assert_array_equal(again.object, first.object)
    np.testing.assert_array_equal(again.errors, first.errors)
    assert again.settings["request"] == first.settings["request"]
    # another engine does not take over the options; the file may have moved along with the result
    Path("moved").mkdir()
    for name in ("scan.cxi", "scan_rpie.h5"):
        Path(name).rename(Path("moved") / name)
    assert (
        main(["reconstruct", "moved/scan_rpie.h5", "--engine", "dm", "-o", "dm.h5", *arguments])
        == 0
    )
    assert load_result("dm.h5").engine == "dm"
    assert capsys.readouterr() == ("", "")
    write_dataset(
        "moved/scan.cxi", type(scan)(patterns=scan.patterns + 1, positions=scan.positions)
    )
    assert main(["reconstruct", "moved/scan_rpie.h5", "-q", "-o", "c.h5"]) == 0
    assert "has changed since" in capsys.readouterr().err
    Path("moved/scan.cxi").unlink()
    assert main(["reconstruct", "moved/scan_rpie.h5", "-q"]) == 2
    assert "are not found" in capsys.readouterr().err


def test_finding_the_input(here):
    Path("a").write_text("x")
    assert find_input({"input": str(here / "a")}, "r.h5", None)[1] == "unknown"
    assert find_input({"input": "/gone/a"}, here / "r.h5", input_hash("a"))[1] == "same"
    assert find_input({"input": "a"}, "r.h5", "0" * 64)[1] == "changed"
    with pytest.raises(PtychonError, match="does not say from which file"):
        request_of({}, "r.h5")
