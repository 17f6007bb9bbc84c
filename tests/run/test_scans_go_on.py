"""Several scans: stopped and gone on with, started from results, ended by rules, and laid on each
other where their positions do not say how.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from _scenes import of_world, two_probes
from ptychon import PtychonError, reconstruct
from ptychon.metrics.alignment import align
from ptychon.model.problem import Problem
from ptychon.run.checkpoint import Checkpointer, load_checkpoint
from ptychon.run.registered import stated
from ptychon.run.scans import Scans
from ptychon.run.until import Below

SIDE = 64
QUIET = {"judge": False, "say": None, "progress": False}


def world():
    return two_probes(SIDE, 20, 3.5, 7)


def scan(frames, counts=1e5, seed=3, probe=1, **how):
    return of_world(world(), frames, counts, seed, probe, **how)


def two(probe=2, **how):
    """Halves that overlap, of different dose, with probes of their own."""
    return [scan(slice(0, 28), 1e5, 3, **how), scan(slice(21, 49), 2e4, 4, probe=probe, **how)]


def error(result, data):
    """Of the object against the truth, percent of it, away from the rim, wherever it lies: object
    and probe may be moved together, by fractions of a pixel nearly so.
    """
    origin = np.round(Problem.from_dataset(data).origin).astype(int) + SIDE // 2
    y, x = (slice(o, o + n) for o, n in zip(origin, result.object.shape, strict=True))
    inner = (slice(10, -10), slice(10, -10))
    found = align(result.object, world()[0][y, x].astype("c8"), region=inner, subpixel=True)
    return 100 * 10 ** (-found.error_db / 20)


def same(a, b):
    for one, other in zip(a, b, strict=True):
        assert np.array_equal(one.object, other.object)
        assert np.array_equal(one.probe, other.probe)
        assert np.array_equal(one.errors, other.errors)
        assert np.array_equal(one.positions, other.positions)
        assert one.passes == other.passes


WAYS = (
    ("probe", "rpie", {}),
    ("both", "rpie", {"update": {"dose": True}}),
    ("object", "rpie", {"update": {"positions": True}, "constraints": ["centre:every=3"]}),
    ("object", "epie:3, rpie:5", {}),
)


@pytest.mark.parametrize(("share", "recipe", "how"), WAYS)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(share, recipe, how, tmp_path):
    data = two(probe=2 if share == "object" else 1)
    how = {**QUIET, **how, "share": share}
    how |= {} if ":" in recipe else {"passes": 8}
    whole = reconstruct(data, recipe, **how)
    for stop in (2, 5):
        place = tmp_path / f"{share}{stop}.h5"
        keeper = Checkpointer(place, every=stop)

        def ends(progress, stop=stop):
            return progress.passes == stop

        reconstruct(data, recipe, callbacks=[keeper, ends], **how)
        kept = load_checkpoint(place)
        assert len(kept.others) == (1 if share == "object" else 0)
        same(reconstruct(data, recipe, resume=kept, **how), whole)


def test_a_checkpoint_of_other_scans_is_refused(tmp_path):
    data, place = two(), tmp_path / "a.h5"
    how = {**QUIET, "share": "object", "passes": 3}
    reconstruct(data, callbacks=[Checkpointer(place, every=2)], **how)
    with pytest.raises(PtychonError, match="of 2 scans that share the object, and 3 are given"):
        reconstruct([*data, data[0]], resume=load_checkpoint(place), **{**how, "passes": 6})


@pytest.mark.parametrize("share", ["probe", "object", "both"])
def test_results_are_started_from(share):
    """Of no further pass to speak of they come back; they are no worse after more of them."""
    data = two(probe=2 if share == "object" else 1)
    how = {**QUIET, "share": share}
    first = reconstruct(data, passes=12, **how)
    still = {"passes": 1, "object_step": 1e-6, "probe_step": 1e-6}
    back = reconstruct(data, start=first, **still, **how)
    for a, b, part in zip(first, back, data, strict=True):
        lit = b.illuminated
        assert np.linalg.norm((a.object - b.object)[lit]) < 2e-3 * np.linalg.norm(a.object[lit])
        assert np.linalg.norm(a.probe - b.probe) < 2e-3 * np.linalg.norm(a.probe)
        assert b.passes == 13
        assert len(b.errors) == 13
        assert error(b, part) == pytest.approx(error(a, part), rel=0.02)
    more = reconstruct(data, start=first, passes=12, **how)
    assert sum(r.final_error for r in more) < sum(r.final_error for r in first)
    with pytest.raises(PtychonError, match="2 scans are given and one to start from"):
        reconstruct(data, start=first[0], passes=1, **how)


def test_a_rule_ends_scans_that_take_turns():
    """At the pass in which R of all of them falls below a number, and no later."""
    how = {**QUIET, "share": "object", "passes": 12}
    free = reconstruct(two(), **how)
    limit = float(free[0].errors[4])
    assert (free[0].errors[:4] > limit).all()
    ended = reconstruct(two(), until=Below(limit), **how)
    assert len(ended[0].errors) == 5
    assert ended[1].settings["ran"] == [["rpie", 5]]


@pytest.mark.parametrize(("share", "probe"), [("object", 2), ("both", 1)])
def test_scans_are_laid_on_each_other(share, probe):
    """The second scan has another origin of its positions. Found, its object is as good as with
    the true positions; with wrong ones it is not.
    """
    data, away = two(probe), np.array([8.3, -13.6])
    moved = [data[0], replace(data[1], positions=data[1].positions - away)]
    how = {**QUIET, "share": share, "passes": 25}
    found = reconstruct(moved, shift="search", **how)
    shift = np.array(found[1].settings["shared"]["shift"])
    np.testing.assert_allclose(shift, away, atol=0.3)
    given = reconstruct(moved, shift=away, **how)
    true = reconstruct(data, **how)
    wrong = reconstruct(moved, shift=away + np.array([2, -2]), **how)
    errors = [
        max(error(r, part) for r, part in zip(results, data, strict=True))
        for results in (true, found, given, wrong)
    ]
    assert max(errors[1:3]) < 1.25 * errors[0]
    assert errors[3] > 1.5 * errors[0]
    # a result lies where its own file says
    assert found[1].origin == Problem.from_dataset(moved[1]).origin


def test_scans_that_do_not_look_alike_are_not_laid_on_each_other():
    data = two()
    frames = data[1].patterns
    empty = replace(data[1], patterns=np.repeat(frames[:1], len(frames), axis=0))
    with pytest.raises(PtychonError, match="scan 2 was found nowhere"):
        reconstruct([data[0], empty], shift="search", share="object", passes=3, **QUIET)
    with pytest.raises(PtychonError, match="these share the probe only"):
        reconstruct(data, shift="search", share="probe", passes=3, **QUIET)
    with pytest.raises(PtychonError, match="give 'search', or dy, dx"):
        stated("find", 2)
    with pytest.raises(PtychonError, match="is for several scans, and one is given"):
        reconstruct(data[0], shift="search", passes=3, **QUIET)


def test_objects_of_scans_with_one_probe_begin_at_their_doses():
    """So that sharing does not make the weak one worse than it is by itself: from one level its
    error was a third larger.
    """
    world_ = world()
    errors = []
    for seed in (33, 43):
        data = [scan(slice(0, 21), 3e4, seed, 2), scan(slice(28, 49), 3e3, seed + 1, 2)]
        alone = reconstruct(data[1], passes=40, **QUIET)
        shared = reconstruct(data, passes=40, share="probe", **QUIET)
        errors.append([error(alone, data[1]), error(shared[1], data[1])])
    assert world_[3].shape == (49, 2)
    means = np.mean(errors, axis=0)
    assert means[1] < 1.05 * means[0]
    scans = Scans.of(data, "probe")
    flat = np.ones(scans.shape, "c8")
    levels = [np.abs(scans.level(flat)[tuple(c + 5 for c in corner)]) for corner in scans.corners]
    assert levels[0] / levels[1] == pytest.approx(np.sqrt(10), rel=0.05)


#: How much larger the least error of the strong half is than in a scan that is strong everywhere:
#: the exact information of both scans (`uncertainty.bound`), object and probe being unknown.
LEFT_AND_RIGHT, EVERY_OTHER = 1.14, 1.49


@pytest.mark.parametrize(
    ("halves", "limit"),
    [
        ((slice(0, 25), slice(25, 49)), LEFT_AND_RIGHT),
        ((slice(0, 49, 2), slice(1, 49, 2)), EVERY_OTHER),
    ],
)
def test_two_halves_of_different_dose_are_as_good_as_one_scan(halves, limit):
    """Stitched, the strong half is as much worse than in a whole scan of its dose as the
    information in the counts of the other half makes it, and no more; the weak one is better than
    in a whole scan of its own. One by one they are not.
    """
    data = [scan(halves[0], 3e4, 23), scan(halves[1], 3e3, 24)]
    how = {**QUIET, "recipe": "rpie:30, ml:6"}
    stitched = reconstruct(data, share="both", **how)
    whole = [whole_error(counts, part, how) for counts, part in zip((3e4, 3e3), data, strict=True)]
    found = [error(result, part) for result, part in zip(stitched, data, strict=True)]
    alone = error(reconstruct(data[1], **how), data[1])
    assert found[0] < 1.06 * limit * whole[0]
    assert found[1] < 0.95 * whole[1]
    assert alone > 1.4 * found[1]


def whole_error(counts, part, how):
    """Of a scan of all frames, where another one has its object."""
    one = scan(slice(0, 49), counts, 23)
    result, problem = reconstruct(one, **how), Problem.from_dataset(part)
    corner = np.array(problem.origin) - np.array(Problem.from_dataset(one).origin)
    (y, x), (h, w) = np.rint(corner).astype(int), problem.object_shape
    return error(replace(result, object=result.object[y : y + h, x : x + w]), part)


@pytest.mark.parametrize(("engine", "limit"), [("dm", 1.6), ("raar", 1.5)])
def test_frames_scaled_by_their_dose_keep_the_noise_of_their_counts(engine, limit):
    """The weak half, scaled up, has ten times the noise. Asked to come as near to its amplitudes
    as the strong one, the waves of dm never came to rest: 2.6 and 4.2 times the whole scan's error.
    """
    halves = slice(0, 25), slice(25, 49)
    data = [scan(halves[0], 3e4, 23), scan(halves[1], 3e3, 24)]
    how = {**QUIET, "passes": 60, "recipe": engine}
    stitched = reconstruct(data, share="both", **how)
    found = [error(result, part) for result, part in zip(stitched, data, strict=True)]
    whole = [whole_error(3e4, part, how) for part in data]
    assert found[0] < limit * whole[0]
    assert found[1] < 2.6 * whole[1]
