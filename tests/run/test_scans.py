"""Several scans that share a probe, an object, or both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from _scenes import of_world, two_probes
from ptychon import PtychonError, reconstruct
from ptychon.__main__ import main
from ptychon.io import load_result
from ptychon.io.cxi_write import write_dataset
from ptychon.metrics.alignment import align
from ptychon.metrics.residual import residual
from ptychon.model.problem import Problem
from ptychon.run.scans import Scans
from ptychon.simulation.simulate import simulate

pytestmark = pytest.mark.usefixtures("sketched")

SIDE = 72
HOW = {"passes": 40, "judge": False, "say": None}


def world():
    return two_probes(SIDE, 24, 4.0, 8)


def scan(frames, counts, seed, probe=1, **how):
    return of_world(world(), frames, counts, seed, probe, **how)


def error(result, data):
    """Of the object against the truth, percent of it, away from the rim."""
    origin = np.round(Problem.from_dataset(data).origin).astype(int) + SIDE // 2
    y, x = (slice(o, o + n) for o, n in zip(origin, result.object.shape, strict=True))
    inner = (slice(14, -14), slice(14, -14))
    found = align(result.object, world()[0][y, x].astype("c8"), region=inner)
    return 100 * 10 ** (-found.error_db / 20)


TOP, BOTTOM = slice(0, 32), slice(32, 64)


def test_a_scan_of_few_counts_takes_the_probe_of_another_one():
    """Another part of the specimen with a tenth of the dose comes nearer to the truth than alone,
    and each has a result of its own.
    """
    errors, quick = [], {k: v for k, v in HOW.items() if k != "passes"}
    for seed in (33, 43, 53):
        data = [scan(TOP, 3e4, seed), scan(BOTTOM, 3e3, seed + 1)]
        alone = reconstruct(data[1], "rpie:30, ml:5", **quick)
        shared = reconstruct(data, "rpie:30, ml:5", share="probe", **quick)
        errors.append([error(alone, data[1]), error(shared[1], data[1])])
    means = np.mean(errors, axis=0)
    assert means[1] < 0.9 * means[0]
    for number, (result, one) in enumerate(zip(shared, data, strict=True)):
        problem = Problem.from_dataset(one)
        assert result.object.shape == problem.object_shape
        np.testing.assert_allclose(result.positions, problem.positions)
        assert result.final_error == pytest.approx(
            residual(problem, result.object, result.probe), rel=1e-6
        )
        power = float((np.abs(result.probe) ** 2).sum())
        assert power == pytest.approx([3e4, 3e3][number], rel=0.02)
        assert result.settings["shared"] == {"what": "probe", "scan": number, "scans": 2}
    cosine = np.vdot(shared[0].probe, shared[1].probe)
    norms = [np.linalg.norm(result.probe) for result in shared]
    assert abs(cosine) == pytest.approx(norms[0] * norms[1], rel=1e-5)


def test_two_probes_find_one_object():
    """Each by itself is far from it."""
    even, odd = slice(0, 64, 2), slice(1, 64, 2)
    data = [scan(even, 3e3, 5), scan(odd, 3e3, 6, probe=world()[2])]
    alone = [error(reconstruct(one, **HOW), one) for one in data]
    results = reconstruct(data, "rpie", share="object", constraints=["centre:every=10"], **HOW)
    shared = [error(result, one) for result, one in zip(results, data, strict=True)]
    assert max(shared) < 0.8 * min(alone)
    for result, one in zip(results, data, strict=True):
        assert result.final_error == pytest.approx(
            residual(Problem.from_dataset(one), result.object, result.probe), rel=1e-6
        )
    assert len(results[0].errors) == 40
    probes = [align(r.probe[0], p).error_db for r, p in zip(results, world()[1:3], strict=True)]
    assert min(probes) > 10


def test_a_scan_in_two_parts_is_one():
    """Of the same dose, from the same start: what the whole scan gives."""
    object, probe, _, places = world()
    whole = simulate(object, probe, places, noise="poisson", mean_counts=1e4, seed=7)
    parts = [replace(whole.dataset.select(frames), object_shape=None) for frames in (TOP, BOTTOM)]
    scans = Scans.of(parts, "both")
    joined = scans.joined()
    one = Problem.from_dataset(replace(whole.dataset, object_shape=None))
    np.testing.assert_array_equal(joined.amplitude, one.amplitude)
    np.testing.assert_allclose(joined.positions, one.positions)
    assert joined.object_shape == one.object_shape
    # the parts differ a little in what they transmit; here the dose is known to be the same
    same = replace(joined, log_scale=None)
    how = {**HOW, "passes": 5, "probe": probe}
    results = scans.apart(reconstruct(same, **how), same)
    found = reconstruct(one, **how)
    for result, part, corner in zip(results, scans.parts, scans.corners, strict=True):
        (y, h), (x, w) = zip(corner, part.object_shape, strict=True)
        cut = found.object[y : y + h, x : x + w]
        assert np.linalg.norm(result.object - cut) < 1e-5 * np.linalg.norm(cut)


@pytest.mark.parametrize("engine", ["rpie", "dm", "ep", "ml"])
def test_engines_take_them_or_say_why_not(engine):
    frames = slice(0, 64, 4)
    data = [scan(frames, 3e4, 3), scan(frames, 3e3, 4)]
    how = {**HOW, "passes": 4, "probe": world()[1]}
    for share in ("probe", "both", "object"):
        if share == "object" and engine != "rpie":
            with pytest.raises(PtychonError, match=f"engine '{engine}' fits one probe to all"):
                reconstruct(data, engine, share=share, **how)
        elif share == "both" and engine == "ep":
            with pytest.raises(PtychonError, match="'ep' knows nothing of doses"):
                reconstruct(data, engine, share=share, **how)
        else:
            found = reconstruct(data, engine, share=share, **how)
            assert max(r.final_error for r in found) < 0.4
            powers = [float((np.abs(r.probe) ** 2).sum()) for r in found]
            if engine == "rpie":
                assert powers[0] / powers[1] == pytest.approx(10, rel=0.1)


def test_masks_and_backgrounds_are_those_of_each():
    mask = np.random.default_rng(0).random((24, 24)) > 0.05
    data = [
        scan(slice(0, 16), 1e4, 3, mask=mask),
        scan(slice(16, 40), 1e4, 4, background=2.0),
        scan(slice(40, 64), 1e4, 5),
    ]
    joined = Scans.of(data, "probe").joined()
    assert joined.mask.shape == joined.amplitude.shape
    np.testing.assert_array_equal(joined.mask[0], np.fft.ifftshift(mask))
    assert joined.mask[16:].all()
    assert joined.counts is None
    own = Problem.from_dataset(data[1])
    np.testing.assert_array_equal(joined.amplitude[16:40], own.subtracted().amplitude)


def test_scans_that_do_not_fit_are_refused():
    first = scan(TOP, 1e4, 3, pixel_size=1e-8, wavelength=1e-10)
    other = scan(BOTTOM, 1e4, 4, pixel_size=1.1e-8, wavelength=1e-10)
    for data, share, why in (
        ([first, other], "probe", r"pixel_size \(m\), .*: crop or bin them"),
        ([first, replace(first, wavelength=2e-10)], "probe", r"wavelength \(m\), 1e-10 and 2e-10"),
        ([first, replace(first, counting=False)], "both", "state --gain"),
        ([first], "probe", "for two scans or more; 1 is given"),
        ([first, first], "beam", "choose probe, object, both"),
        ([first, replace(first, positions=first.positions + 1e-5)], "object", "overlaps no other"),
    ):
        with pytest.raises(PtychonError, match=why):
            Scans.of(data, share)
    with pytest.raises(PtychonError, match="say what they share"):
        reconstruct([first, first], **HOW)
    with pytest.raises(PtychonError, match="is for several scans, and one is given"):
        reconstruct(first, share="probe", **HOW)


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, frames, seed in (("a", TOP, 3), ("b", BOTTOM, 4)):
        write_dataset(tmp_path / f"{name}.cxi", scan(frames, 1e4, seed))
    assert main(["reconstruct", "a.cxi", "b.cxi", "--share", "probe", "-n", "3", "-q"]) == 0
    for name in ("a", "b"):
        found = load_result(tmp_path / f"{name}_rpie.h5")
        assert found.settings["request"]["input"].endswith(f"{name}.cxi")
        assert found.settings["shared"]["what"] == "probe"
        assert (tmp_path / f"{name}_rpie.png").exists()
    assert main(["reconstruct", "a.cxi", "b.cxi", "-n", "3", "-q"]) == 2
    assert "say what they share with --share" in capsys.readouterr().err
