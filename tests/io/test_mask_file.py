"""Masks in files of their own: what their values mean, what is said of them, and
what is refused.
"""

from __future__ import annotations

import re
import warnings

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.io import savemat

from ptychon import Problem, PtychonError, PtychonWarning, load
from ptychon.__main__ import main
from ptychon.io import write_dataset
from ptychon.io.mask_file import read_mask
from ptychon.request.inputs import read_settings, with_paths
from ptychon.request.settings import validated

RNG = np.random.default_rng(2)
GOOD = np.ones((16, 24), bool)
GOOD[5:7], GOOD[12, 3] = False, False
ROWS, COLUMNS = np.indices(GOOD.shape)
LIGHT = 400 * np.exp(-((ROWS - 8) ** 2 + (COLUMNS - 12) ** 2) / 18)
FRAMES = RNG.poisson(np.broadcast_to(LIGHT, (9, *GOOD.shape))).astype("u2")
PLACES = np.stack(np.mgrid[:3, :3], -1).reshape(-1, 2) * 3.0


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("scan.npz", patterns=FRAMES, positions_px=PLACES)


def hdf5(name, values, **attributes):
    with h5py.File("m.h5", "a") as file:
        file[name] = values
        file[name].attrs.update(attributes)
    return f"m.h5:{name}"


def written(name, array):
    if name.endswith(".npy"):
        np.save(name, array)
    elif name.endswith(".npz"):
        np.savez(name, array)
    elif name.endswith(".tif"):
        tifffile.imwrite(name, np.asarray(array, "f4"))
    elif name.endswith(".mat"):
        savemat(name, {"m": np.asarray(array, "u1")})
    elif name.endswith(".txt"):
        np.savetxt(name, array, fmt="%d")
    else:
        Image.fromarray(np.asarray(array, "u1") * 255).save(name)
    return name


@pytest.mark.parametrize("kind", ["npy", "npz", "tif", "mat", "txt", "png"])
@pytest.mark.parametrize(
    ("stem", "means"), [("bad_pixels", ~GOOD), ("hot", ~GOOD), ("valid", GOOD), ("good-mask", GOOD)]
)
def test_the_name_of_the_file_says_what_ones_are(kind, stem, means):
    mask, said = read_mask(written(f"{stem}.{kind}", means))
    assert np.array_equal(mask, GOOD)
    assert f"{stem}.{kind} takes out 49 of 384 pixels" in said


@pytest.mark.parametrize("kind", ["npy", "npz", "tif", "png"])
def test_where_nothing_says_it_it_is_asked(kind):
    name = written(f"mask.{kind}", GOOD)
    with pytest.raises(
        PtychonError,
        match=r"valid \(then 49 of 384 pixels are taken out\) or bad \(then 335\).*--mask-ones",
    ):
        read_mask(name)
    assert np.array_equal(read_mask(name, "valid")[0], GOOD)
    assert np.array_equal(read_mask(name, "bad")[0], ~GOOD)


def test_hdf5_says_it_in_many_ways():
    bits = np.where(GOOD, 0, RNG.choice([1, 2, 256], GOOD.shape)).astype("u4")
    told = {
        hdf5("entry/instrument/detector/pixel_mask", bits): "0 is valid",
        hdf5("a/mask", ~GOOD, note="1 = bad, 0 = good"): "by its attribute note",
        hdf5("b/mask", GOOD, meaning="0: masked"): "by its attribute meaning",
        hdf5("c/mask", GOOD, convention="valid"): "by its attribute convention",
        hdf5("d/mask", bits): "as a field of bits",
        hdf5("e/weights", GOOD.astype(float)): "by the name e/weights",
    }
    for name, why in told.items():
        mask, said = read_mask(name)
        assert np.array_equal(mask, GOOD), name
        assert why in said
    with pytest.raises(PtychonError, match="name the mask behind a colon"):
        read_mask("m.h5")
    with h5py.File("scan.h5", "w") as file:  # as plain files beside frames are read
        file["frames"], file["mask"] = FRAMES, GOOD
    assert np.array_equal(read_mask("scan.h5")[0], GOOD)
    with h5py.File("one.cxi", "w") as file:
        file["cxi_version"] = 150
        file["entry_1/instrument_1/detector_1/mask"] = (~GOOD).astype("u4") | np.where(
            GOOD, 0x1000, 0
        ).astype("u4")
    assert np.array_equal(read_mask("one.cxi")[0], GOOD)


def test_one_mask_a_frame():
    each = RNG.random(FRAMES.shape) > 0.1
    np.save("valid.npy", each.reshape(3, 3, *GOOD.shape))
    mask, said = read_mask("valid.npy")
    assert np.array_equal(mask, each)
    assert f"takes out {round((~each).sum() / 9)} of 384 pixels (the mean of 9 frames)" in said
    np.save("valid.npy", np.broadcast_to(GOOD, FRAMES.shape))
    assert read_mask("valid.npy")[0].shape == GOOD.shape


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("valid.npy", np.zeros((16, 24)), "no pixel is valid"),
        ("valid.npy", FRAMES[0], "different values: it is no mask"),
        ("valid.npy", np.ones(7), "it must be a frame"),
        ("valid.npy", np.ones((4, 4), complex), "it must be a frame"),
    ],
)
def test_what_is_no_mask(name, array, message):
    np.save(name, array)
    with pytest.raises(PtychonError, match=message):
        read_mask(name)


def test_load_takes_paths_and_arrays():
    np.save("bad_pixels.npy", ~GOOD)
    np.save("mask.npy", ~GOOD)
    named = ({"mask": "bad_pixels.npy"}, {"mask": "mask.npy", "mask_ones": "bad"})
    for how in (
        *named,
        {"mask": GOOD},
        {"mask": GOOD.astype(int)},
        {"mask": ~GOOD, "mask_ones": "bad"},
    ):
        assert np.array_equal(load("scan.npz", **how).mask, GOOD)
    assert "takes out 49 of 384" in load("scan.npz", mask="bad_pixels.npy").notes["given"]["mask"]
    np.savez("own.npz", patterns=FRAMES, positions_px=PLACES, mask=~GOOD)
    said = load("own.npz", mask="bad_pixels.npy").notes["given"]["mask"]
    assert "335 pixels that the scan's own mask takes out are valid" in said
    np.save("bad_pixels.npy", ~GOOD[:8])
    with pytest.raises(PtychonError, match=r"\(8, 24\).*\(16, 24\)"):
        load("scan.npz", mask="bad_pixels.npy")
    with pytest.raises(PtychonError, match="valid or bad"):
        load("scan.npz", mask=GOOD, mask_ones="good")
    with pytest.raises(PtychonError, match="--mask-ones"):
        load("scan.npz", mask_ones="bad")


def test_settings_find_what_is_named_with_a_dataset(tmp_path):
    (tmp_path / "sub").mkdir()
    hdf5("q", ~GOOD)
    (tmp_path / "s.yaml").write_text(
        "input: scan.npz\ndata: {mask: 'm.h5:q', mask_ones: bad, pedestal: 1.5}\n"
    )
    settings = validated(read_settings(tmp_path / "s.yaml"), "s.yaml")
    assert settings.data["mask"] == f"{tmp_path.resolve() / 'm.h5'}:q"
    assert with_paths({"mask": "none.npy", "dark": 3}, tmp_path) == {"mask": "none.npy", "dark": 3}
    data = load(settings.input, **settings.data)
    assert np.array_equal(data.mask, GOOD)
    assert np.allclose(np.asarray(data.patterns), FRAMES - 1.5)


def test_the_command_line_says_what_is_taken_out(capsys):
    np.save("bad_pixels.npy", ~GOOD)
    assert main(["inspect", "scan.npz", "--mask", "bad_pixels.npy", "--json"]) == 0
    assert (
        "takes out 49 of 384 pixels; nonzero is bad, by the name of the file"
        in capsys.readouterr().out
    )
    assert main(["convert", "scan.npz", "b.npz", "--mask", "bad_pixels.npy", "-q"]) == 0
    assert np.array_equal(load("b.npz").mask, GOOD)
    np.save("mask.npy", GOOD)
    assert main(["inspect", "scan.npz", "--mask", "mask.npy"]) == 2
    assert "--mask-ones valid or --mask-ones bad" in capsys.readouterr().err


def cxi(name, **detector):
    with h5py.File(name, "w") as file:
        group = file.create_group("entry_1/instrument_1/detector_1")
        group["distance"], group["x_pixel_size"], group["y_pixel_size"] = 1.0, 5e-5, 5e-5
        for key, value in detector.items():
            group[key] = value
        file["entry_1/instrument_1/source_1/wavelength"] = 1e-10
        file["entry_1/sample_1/geometry_1/translation"] = np.column_stack(
            [PLACES * 1e-7, 0 * PLACES[:, 0]]
        )
    return load(name)


@pytest.mark.filterwarnings("ignore::ptychon.PtychonWarning")
@pytest.mark.parametrize(
    "place", ["saturation_value", "detectorSpecific/countrate_correction_count_cutoff"]
)
def test_what_a_cxi_or_nexus_file_says_is_saturated(place, tmp_path):
    data = cxi("a.cxi", data=FRAMES, **{place: 390})
    assert data.saturation == 390
    expected = np.fft.ifftshift(FRAMES <= 390, axes=(1, 2))
    assert np.array_equal(Problem.from_dataset(data).mask, expected)
    write_dataset("b.cxi", data)
    assert load("b.cxi").saturation == 390
    # neither a dark field in the file nor a gain hides it
    darker = cxi("c.cxi", data=FRAMES, data_dark=np.full(GOOD.shape, 7.0), **{place: 390})
    assert np.array_equal(Problem.from_dataset(darker).mask, expected)


@pytest.mark.filterwarnings("ignore::ptychon.PtychonWarning")
def test_the_dark_field_of_a_file_is_subtracted_without_bias_and_keeps_marks():
    frames = np.where(GOOD, FRAMES + RNG.normal(100, 4, FRAMES.shape).round(), 2**32 - 1).astype(
        "u4"
    )
    data = cxi("a.cxi", data=frames, data_dark=np.full((3, *GOOD.shape), 100.0))
    assert np.array_equal(Problem.from_dataset(data).mask, np.fft.ifftshift(GOOD)[None])
    seen = np.asarray(data.patterns)[:, GOOD]
    assert np.allclose(seen, frames[:, GOOD] - 100.0)
    assert seen.min() < 0


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_a_mask_beside_the_frames_whose_meaning_was_guessed_wrong(kind):
    """The message says how to turn it round; what it says does so, and ends the doubt."""
    arrays = {"patterns": FRAMES, "positions_px": PLACES, "mask": (~GOOD).astype("u1")}
    name = f"own.{kind}"
    if kind == "npz":
        np.savez(name, **arrays)
    else:
        with h5py.File(name, "w") as file:
            for key, array in arrays.items():
                file[key] = array
    with pytest.warns(PtychonWarning, match="which is a guess") as told:
        data = load(name)
    assert np.array_equal(data.mask, ~GOOD)
    said = re.search(r"say --mask (\S+) --mask-ones (\w+),", str(told[0].message))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(name, mask=said[1], mask_ones=said[2])
    assert np.array_equal(data.mask, GOOD)
