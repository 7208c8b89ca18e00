import colorsys
import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from multiobj_data.composition.overlap import Overlap
from multiobj_data.errors import InfeasibleError, UsageError
from multiobj_data.generation.plan import draw_scenes
from multiobj_data.generators.multi_dsprites import MultiDSprites
from multiobj_data.plugins import resolve
from multiobj_data.presets import find_preset

GENESIS = MultiDSprites(**find_preset("genesis-multid").settings)
BEYOND = 20  # pixels around the frame in which nothing may be lit
LOOKS = {
    "default": MultiDSprites(),
    "genesis": GENESIS,
    "small": MultiDSprites(counts="3", canvas=40, scale="0.2..0.5", colours="named", ground="#102030"),
    "large": MultiDSprites(counts="1-2", canvas=64, scale="1.5..2.2", colours="rgb", ground="rgb"),
    "white": MultiDSprites(counts="0-3", colours="white", ground="black", overlap=False),
    "grey": MultiDSprites(
        counts="2", canvas=56, colours="grey:0.5..1", ground="grey:0..0.3", position="dsprites"
    ),
}


def present(scenes, name):
    return scenes.factors[name][scenes.present]


def to_bytes(colour):
    return np.rint(255 * np.asarray(colour, np.float64)).astype(np.uint8)


def repaint(scenes, b, size, geometry):
    """Paint scene b from its factors: image, label map, each object's lit pixels, and where it may be either way."""
    factors = {name: values[b] for name, values in scenes.factors.items()}
    image = np.tile(to_bytes(scenes.scene_factors["ground_colour"][b]), (size, size, 1))
    labels, either = np.zeros((size, size), int), np.zeros((size, size), bool)
    masks = {}
    frame = slice(BEYOND, BEYOND + size)
    for k in np.argsort(-factors["depth_order"][: scenes.count[b]]):  # the farthest first
        wide = range(-BEYOND, size + BEYOND)
        where = [factors[name][k] for name in ("shape", "scale", "orientation", "x", "y")]
        lit, unclear = geometry.inside(*where, wide, wide)
        assert (lit & ~unclear).sum() == (lit & ~unclear)[
            frame, frame
        ].sum()  # the whole shape is in the frame
        masks[k] = lit[frame, frame]
        either |= unclear[frame, frame]
        image[masks[k]] = to_bytes(factors["colour"][k])
        labels[masks[k]] = k + 1
    return image, labels, masks, either


@pytest.mark.parametrize("name", sorted(LOOKS))
def test_scenes_can_be_painted_again_from_their_factors(name, geometry):
    generator = replace(LOOKS[name], amodal=True)
    scenes = draw_scenes(generator, 1, "train", 0, 15)
    unclear_pixels = 0
    for b in range(len(scenes)):
        image, labels, masks, either = repaint(scenes, b, generator.canvas, geometry)
        channels = scenes.image.shape[-1]
        assert np.array_equal(scenes.image[b][~either], image[..., :channels][~either])
        assert np.array_equal(scenes.segments[b][~either], labels[~either])
        for k, mask in masks.items():
            assert np.array_equal(scenes.amodal[b, k][~either], mask[~either])
            own = scenes.amodal[b, k]
            seen = (scenes.segments[b] == k + 1).sum() / own.sum()
            assert np.isclose(scenes.factors["visible_fraction"][b, k], seen)
            rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
            assert scenes.boxes[b, k].tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        unclear_pixels += either.sum()
    assert unclear_pixels < 15


def test_the_last_object_is_in_front():
    scenes = draw_scenes(MultiDSprites(counts="1-4"), 0, "train", 0, 200)
    for depth, count in zip(scenes.factors["depth_order"], scenes.count, strict=True):
        assert depth.tolist() == [*range(count - 1, -1, -1), *[-1] * (4 - count)]
    front = present(scenes, "depth_order") == 0
    assert (present(scenes, "visible_fraction")[front] == 1).all()
    assert present(scenes, "visible_fraction").min() < 0.5


def test_factors_follow_their_laws(geometry):
    scenes = draw_scenes(MultiDSprites(counts="2", scale="0.5..1"), 0, "train", 0, 1500)
    shape, scale, orientation, x, y = (
        present(scenes, name).astype(np.float64) for name in ("shape", "scale", "orientation", "x", "y")
    )
    assert stats.chisquare(np.bincount(shape.astype(int))[1:]).pvalue > 1e-4
    assert stats.kstest(scale, stats.uniform(0.5, 0.5).cdf).pvalue > 1e-4
    assert stats.kstest(orientation, stats.uniform(0, 2 * np.pi).cdf).pvalue > 1e-4
    reach = np.array([geometry.extents(*each) for each in zip(shape, scale, orientation, strict=True)]).T
    place_x = (x - reach[0]) / (64 - reach[0] - reach[2])
    place_y = (y - reach[1]) / (64 - reach[1] - reach[3])
    for place in (place_x, place_y):
        assert -1e-3 < place.min() < 1e-2
        assert 1 - 1e-2 < place.max() < 1 + 1e-3
        assert stats.kstest(place, stats.uniform().cdf).pvalue > 1e-4
    columns = [shape, scale, orientation, place_x, place_y]
    for a, b in itertools.combinations(columns, 2):
        assert stats.pearsonr(a, b).pvalue > 1e-4
    first, second = place_x.reshape(-1, 2).T
    assert stats.pearsonr(first, second).pvalue > 1e-4


def test_dsprites_own_values_are_equally_frequent():
    scenes = draw_scenes(replace(GENESIS, counts="4"), 0, "train", 0, 2000)
    for name, values in (("scale", np.linspace(0.5, 1, 6)), ("orientation", np.linspace(0, 2 * np.pi, 40))):
        number = np.abs(present(scenes, name)[:, None] - values).argmin(1)
        assert np.allclose(present(scenes, name), values[number], atol=1e-6)
        assert stats.chisquare(np.bincount(number, minlength=len(values))).pvalue > 1e-4
    for name in "xy":
        number = np.rint((present(scenes, name) - 16) * 31 / 32).astype(int)
        assert np.allclose(present(scenes, name), 16 + 32 * number / 31, atol=1e-5)
        assert stats.chisquare(np.bincount(number, minlength=32)).pvalue > 1e-4


def test_dsprites_grid_scales_with_the_canvas():
    scenes = draw_scenes(MultiDSprites(canvas=80, position="dsprites"), 0, "train", 0, 300)
    x = present(scenes, "x")
    assert (x.min(), x.max()) == (20, 60)


def test_colours_are_those_of_the_levels_and_so_is_the_ground():
    scenes = draw_scenes(replace(GENESIS, counts="4"), 0, "train", 0, 2000)
    levels = [0, 63, 127, 191, 255]  # GENESIS
    for colour in (present(scenes, "colour"), scenes.scene_factors["ground_colour"]):
        number = np.searchsorted(levels, np.rint(255 * colour))
        assert np.array_equal(np.take(levels, number), np.rint(255 * colour))
        code = number @ [25, 5, 1]
        assert stats.chisquare(np.bincount(code, minlength=125)).pvalue > 1e-4
    assert set(np.unique(scenes.image)) == set(levels)


def test_hsv_is_that_of_rgb():
    scenes = draw_scenes(MultiDSprites(), 0, "train", 0, 300)
    rgb, hsv = present(scenes, "colour"), present(scenes, "colour_hsv")
    expected = np.array([colorsys.rgb_to_hsv(*each) for each in rgb.astype(float).tolist()])
    assert np.abs(hsv - expected).max() < 1e-5
    for number, axis in enumerate(hsv.T):  # the law of the default is uniform in all three
        assert stats.kstest(axis, stats.uniform().cdf).pvalue > 1e-4, number
    grey = scenes.scene_factors["ground_colour"]
    assert (grey == grey[:, :1]).all()
    assert stats.kstest(grey[:, 0], stats.uniform().cdf).pvalue > 1e-4


def test_distinct_colours_differ_from_each_other_and_from_the_ground():
    generator = MultiDSprites(counts="4", colours="levels:2", ground="levels:2", distinct="colour")
    scenes = draw_scenes(generator, 0, "train", 0, 400)
    all_five = np.concatenate([scenes.factors["colour"], scenes.scene_factors["ground_colour"][:, None]], 1)
    code = np.rint(all_five).astype(int) @ [4, 2, 1]  # [n, 5] of the 8 corners of the cube
    assert (np.diff(np.sort(code, 1)) > 0).all()
    for column in code.T:
        assert stats.chisquare(np.bincount(column, minlength=8)).pvalue > 1e-4
    equal = draw_scenes(replace(generator, distinct=""), 0, "train", 0, 400)
    assert (np.diff(np.sort(np.rint(equal.factors["colour"]).astype(int) @ [4, 2, 1], 1)) == 0).any()


def test_distinct_shapes_and_scales_differ():
    scenes = draw_scenes(MultiDSprites(counts="3", distinct="shape"), 0, "train", 0, 300)
    assert (np.sort(scenes.factors["shape"], 1) == [1, 2, 3]).all()
    with pytest.raises(InfeasibleError, match="4 sprites distinct in shape"):
        MultiDSprites(counts="4", distinct="shape").acceptance(np.random.default_rng(0))
    with pytest.raises(InfeasibleError, match="none is left for the ground"):
        MultiDSprites(counts="1", colours="red", ground="red", distinct="colour").scenes(
            np.random.default_rng(0), 4
        )


# -- overlap


RULES = {
    "pixels": ({}, "0.5..1"),
    "boxes": ({"margin": 3}, "0.4..0.6"),
    "boxes-iou": ({"max_iou": 0.15}, "0.5..1"),
    "rows-and-columns": ({}, "0.3..0.5"),
    "legacy": ({}, "0.5..1"),
}


def layouts(rule, **more):
    options, scale = RULES[rule]
    contract = {"overlap": False, "overlap_rule": rule.removesuffix("-iou"), **options}
    return MultiDSprites(**{"counts": "3", "scale": scale, "amodal": True, **contract, **more})


@pytest.mark.parametrize("rule", sorted(RULES))
def test_no_scene_breaks_its_rule(rule):
    scenes = draw_scenes(layouts(rule), 0, "train", 0, 400)
    rows, columns = scenes.amodal.any(3), scenes.amodal.any(2)  # [n, 3, 64]
    boxes = scenes.boxes
    seen_close = False
    for i, j in itertools.combinations(range(3), 2):
        shared = np.minimum(boxes[:, i, 2:], boxes[:, j, 2:]) - np.maximum(boxes[:, i, :2], boxes[:, j, :2])
        if rule in ("pixels", "legacy"):
            assert not (scenes.amodal[:, i] & scenes.amodal[:, j]).any()
            seen_close |= (shared > 0).all(1).any()  # boxes may cross
        elif rule == "boxes":
            assert (-shared.min(1) >= 3).all()
            seen_close |= (shared.min(1) == -3).any()
        elif rule == "rows-and-columns":
            assert not (rows[:, i] & rows[:, j]).any()
            assert not (columns[:, i] & columns[:, j]).any()
            seen_close |= (shared.max(1) == 0).any()
        else:
            both = np.maximum(shared, 0).prod(1)
            areas = [(boxes[:, k, 2:] - boxes[:, k, :2]).prod(1) for k in (i, j)]
            iou = both / (areas[0] + areas[1] - both)
            assert iou.max() <= 0.15
            seen_close |= iou.max() > 0.1
    assert seen_close  # nothing stricter than the rule was asked


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize(("scale", "canvas"), [("0.2..0.3", 20), ("0.5..1", 64)])
def test_the_early_test_rejects_only_what_the_exact_one_does(rule, scale, canvas):
    options = RULES[rule][0]
    source = MultiDSprites(scale=scale, canvas=canvas)._source("train", None)
    rng = np.random.default_rng(3)
    a, b = source.propose(rng, 15_000), source.propose(rng, 15_000)
    contract = Overlap(rule.removesuffix("-iou"), **options)
    early = b.rejected([a], contract)
    exact = contract.rejects([a.settle(rng)], b.settle(rng))
    assert not (early & ~exact).any()
    assert rule == "boxes-iou" or early.sum() > (0.6 if canvas == 64 else 0.4) * exact.sum()  # it is of use


def alike(a, b):
    return stats.ks_2samp(a, b, method="asymp").pvalue > 1e-4


@pytest.mark.parametrize("rule", ["pixels", "rows-and-columns"])
def test_the_early_test_does_not_change_the_law(monkeypatch, rule):
    generator = layouts(rule, amodal=False)
    with_it = draw_scenes(generator, 0, "train", 0, 1024)
    never = lambda self, distance, *more: np.zeros(distance.shape, bool)  # noqa: E731
    monkeypatch.setattr(Overlap, "surely_rejects", never)
    without = draw_scenes(generator, 1, "train", 0, 1024)
    attempts = [scenes.scene_factors["attempts"] for scenes in (with_it, without)]
    assert attempts[0].mean() > 1.5
    assert alike(*attempts)
    for name in ("x", "y", "scale", "shape"):
        first = with_it.factors[name][:, 0]
        for k in range(3):  # also, no object is favoured for coming first
            assert alike(with_it.factors[name][:, k], without.factors[name][:, k])
            assert alike(first, without.factors[name][:, k])


# -- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shapes": "square,hart"}, "'hart'.*Did you mean 'heart'"),
        ({"scale": "0.1"}, "at least 0.2"),
        ({"scale": "0.9..0.5"}, "increasing order"),
        ({"scale": "3"}, "canvas 64 is too small: sprites of these sizes need 82 pixels"),
        ({"position": "dsprites", "scale": "1.3"}, "canvas 64 is too small"),
        ({"colours": "hvs"}, "Did you mean 'hsv'"),
        ({"ground": "reed"}, "Did you mean 'red'"),
        ({"distinct": "color"}, "Did you mean 'colour'"),
        ({"orientation": "up"}, "orientation"),
        ({"sprites": "file"}, "canvas 64 and position=dsprites"),
        ({"ood": "canvas=80"}, "canvas is the same for all splits"),
        ({"ood": "sprites=file"}, "sprites is the same for all splits"),
        ({"colours": "white", "ground": "black", "ood": "colours=red"}, "3 channel.*1"),
        ({"colours": "#ff0000", "ground": "red"}, "no object could be seen; use another --set ground"),
        ({"colours": "grey:1", "ground": "white"}, "no object could be seen"),
        ({"colours": "white", "ground": "black", "ood": "ground=white"}, "no object could be seen"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        resolve("generators", "multi-dsprites")(**settings)


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({}, 0),
        ({"colours": "named", "ground": "#ffff00"}, 1 / 7),
        ({"colours": "named", "ground": "black", "ood": "ground=white"}, 1 / 7),
        ({"colours": "red,green", "ground": "red,#102030"}, 1 / 4),
        ({"colours": "red,green", "ground": "red,#102030", "distinct": "colour"}, 0),
    ],
)
def test_objects_that_have_the_colour_of_their_ground_are_noted(settings, share):
    notes = MultiDSprites(counts="1", **settings).notes()
    if not share:
        assert notes == []
    else:
        (note,) = notes
        assert "cannot be seen" in note
        assert int(note.split("%")[0]) / 100 == pytest.approx(share, abs=0.02)
    assert MultiDSprites(counts="0", colours="red", ground="red").notes()  # allowed: there is no object
