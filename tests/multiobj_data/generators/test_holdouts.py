from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from multiobj_data.errors import InfeasibleError, UsageError
from multiobj_data.generation.plan import draw_scenes
from multiobj_data.generation.verification import differences
from multiobj_data.generators.multi_dsprites import MultiDSprites
from multiobj_data.generators.multi_mnist import MultiMNIST
from multiobj_data.generators.sprites import Sprites
from multiobj_data.sprites.digits import load_digits

SQUARE, ELLIPSE, HEART = 1, 2, 3
NINE = MultiDSprites(counts="2", colours="red,green,blue", canvas=48, amodal=False)  # nine kinds of objects
RED_HEARTS = replace(NINE, holdout="shape=heart & colour=red")
SPLITS = ("train", "val", "test")


def kinds(scenes):
    """Which of the nine kinds each object of two is: int [n, 2]; a red heart is 6."""
    colour = scenes.factors["colour"].argmax(-1)
    assert (scenes.factors["colour"].max(-1) == 1).all()
    return (scenes.factors["shape"] - 1) * 3 + colour


def table_of(pairs):
    return np.bincount(pairs @ [9, 1], minlength=81).reshape(9, 9)


def same_law(observed, allowed):
    """Whether a 9x9 table is uniform over the allowed cells and empty elsewhere."""
    assert not observed[~allowed].any()
    assert stats.chisquare(observed[allowed]).pvalue > 1e-4


@pytest.mark.parametrize("split", SPLITS)
def test_ordinary_splits_follow_the_full_law_given_no_held_out_object(split):
    pairs = kinds(draw_scenes(RED_HEARTS, 0, split, 0, 2000))
    first, second = np.indices((9, 9))
    same_law(table_of(pairs), (first != 6) & (second != 6))


def test_the_split_ood_follows_the_full_law_given_some():
    scenes = draw_scenes(RED_HEARTS, 0, "ood", 0, 2000)
    first, second = np.indices((9, 9))
    same_law(table_of(kinds(scenes)), (first == 6) | (second == 6))
    share = 1 - (8 / 9) ** 2
    attempts = scenes.scene_factors["attempts"].mean()
    assert abs(1 / attempts - share) < 5 * np.sqrt(share * (1 - share) / (2000 / share))


def test_without_a_hold_out_all_pairs_are_equally_frequent():
    for split in (*SPLITS, "ood"):
        same_law(table_of(kinds(draw_scenes(NINE, 0, split, 0, 2000))), np.ones((9, 9), bool))


def test_hold_outs_and_overlap_together_are_the_full_law_given_both():
    crowd = replace(NINE, overlap=False, scale="0.8..1", canvas=44)
    full = draw_scenes(crowd, 1, "train", 0, 12_000)
    has_one = (kinds(full) == 6).any(1)
    for split, of_full in (("train", full[~has_one]), ("ood", full[has_one])):
        found = draw_scenes(replace(crowd, holdout=RED_HEARTS.holdout), 0, split, 0, 1500)
        tables = np.stack([table_of(kinds(found)).ravel(), table_of(kinds(of_full)).ravel()])
        assert stats.chi2_contingency(tables[:, tables.any(0)]).pvalue > 1e-4
        for name in ("x", "y", "scale", "orientation"):
            assert (
                stats.ks_2samp(found.factors[name][:, 0], of_full.factors[name][:, 0], method="asymp").pvalue
                > 1e-4
            )


REGIONS = {
    "number": (MultiDSprites(counts="1-3"), "scale=0.5..0.6", lambda f: f["scale"] <= 0.6 + 1e-6),
    "either": (
        MultiDSprites(counts="1-3", scale="0.5..1/6"),
        "shape=square & scale=0.5 | orientation=0..1",
        lambda f: ((f["shape"] == SQUARE) & np.isclose(f["scale"], 0.5)) | (f["orientation"] <= 1 + 1e-6),
    ),
    "not": (MultiDSprites(counts="1-3"), "shape!=square", lambda f: f["shape"] != SQUARE),
    "hue": (
        MultiDSprites(counts="1-3"),
        "hue=0.5..0.7 & saturation=0.5..1 & value=0.5..1",
        lambda f: (np.abs(f["colour_hsv"] - [0.6, 0.75, 0.75]) <= np.array([0.1, 0.25, 0.25]) + 1e-5).all(-1),
    ),
    "place": (
        MultiDSprites(counts="1-3", position="dsprites"),
        "pos_x=0..0.5 & pos_y=0..0.5",
        lambda f: (f["x"] <= 32) & (f["y"] <= 32),
    ),
    "sprites": (
        Sprites(counts="0-2"),
        "shape=circle & side=14..16",
        lambda f: (f["shape"] == 0) & (f["side"] >= 14),
    ),
    "corner": (
        Sprites(counts="1-2", sides=(12, 12)),
        "left=0..19 & shape=square",
        lambda f: (f["shape"] == 1) & (f["x"] <= 25),
    ),
    "digits": (
        MultiMNIST(digits="bundled", counts="1-3"),
        "class=3,7..8",
        lambda f: np.isin(f["class"], [3, 7, 8]),
    ),
    "wide digits": (
        MultiMNIST(digits="bundled", counts="1-3"),
        "class=1 & side=22..40 | scale=0.9..2",
        lambda f: ((f["class"] == 1) & (f["side"] >= 22)) | (f["scale"] >= 0.9 - 1e-6),
    ),
}


@pytest.mark.parametrize("name", sorted(REGIONS))
def test_held_out_objects_are_in_every_scene_of_ood_and_in_no_other(name):
    generator, text, inside = REGIONS[name]
    held = replace(generator, holdout=text)
    for split in SPLITS:
        scenes = draw_scenes(held, 0, split, 0, 300)
        assert not (inside(scenes.factors) & scenes.present).any()
    scenes = draw_scenes(held, 0, "ood", 0, 300)
    found = inside(scenes.factors) & scenes.present
    assert found.any(1).all()
    assert name == "not" or not found[scenes.present].all()  # the other objects are of the full law
    assert scenes.count.min() >= 1
    without = draw_scenes(generator, 0, "train", 0, 300)
    assert (inside(without.factors) & without.present).any()


def test_digits_of_ood_are_test_digits():
    scenes = draw_scenes(MultiMNIST(digits="bundled", counts="2", holdout="class=5"), 0, "ood", 0, 600)
    digits = load_digits("test", "bundled")
    assert np.array_equal(scenes.factors["class"], digits.labels[scenes.factors["source_index"]])


def test_settings_of_ood_come_out_in_ood_alone():
    generator = MultiDSprites(
        counts="1-3", scale="0.3..0.4", ood="counts=4-6; scale=0.5; colours=red", overlap=False
    )
    train, ood = (draw_scenes(generator, 0, split, 0, 300) for split in ("train", "ood"))
    assert np.bincount(train.count).tolist() == [0, 100, 100, 100]
    assert np.bincount(ood.count).tolist() == [0, 0, 0, 0, 100, 100, 100]
    assert train.boxes.shape[1] == ood.boxes.shape[1] == 6  # K of all splits
    assert np.nanmax(train.factors["scale"]) <= 0.4
    assert np.allclose(ood.factors["scale"][ood.present], 0.5)
    assert (ood.factors["colour"][ood.present] == [1, 0, 0]).all()
    assert (train.amodal is None) == (ood.amodal is None)


def test_hold_out_and_settings_of_ood_hold_together():
    generator = replace(RED_HEARTS, counts="0-2", ood="counts=0,3")
    scenes = draw_scenes(generator, 0, "ood", 0, 200)
    assert (scenes.count == 3).all()  # an empty scene holds no red heart
    hearts = (scenes.factors["shape"] == HEART) & (scenes.factors["colour"].argmax(-1) == 0)
    assert hearts.any(1).all()
    assert np.bincount(draw_scenes(generator, 0, "train", 0, 300).count).tolist() == [100, 100, 100]


@pytest.mark.parametrize("split", ["train", "ood"])
def test_shares_of_counts_stay_exact(split):
    generator = replace(RED_HEARTS, counts="0:2,1:1,3:3")
    counts = np.bincount(draw_scenes(generator, 0, split, 0, 600).count, minlength=4)
    assert counts.tolist() == ([200, 100, 0, 300] if split == "train" else [0, 150, 0, 450])


def test_what_is_rare_is_neither_refused_nor_called_empty():
    rare = MultiDSprites(counts="1-2", holdout="scale=0.5..0.5005 & shape=heart", amodal=False)  # 1 in 3,000
    for seed in range(3):
        assert set(rare.acceptance(np.random.default_rng(seed))) == {1, 2}
    scenes = draw_scenes(rare, 0, "ood", 0, 60)
    assert ((scenes.factors["scale"] <= 0.5005 + 1e-6) & (scenes.factors["shape"] == HEART)).any(1).all()


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        (replace(NINE, holdout="shape=square,ellipse,heart"), "hold-out leaves nothing to draw"),
        (replace(NINE, holdout="scale=2..3"), "'scale=2..3': none of the sprites drawn is of these"),
        (replace(NINE, holdout="colour=yellow"), "'colour=yellow': none of the sprites drawn is of these"),
        (Sprites(holdout="side=20..30"), "none of the sprites drawn is of these"),
        (MultiMNIST(digits="bundled", holdout="class=0..9"), "hold-out leaves nothing to draw"),
        (MultiMNIST(digits="bundled", holdout="class=12"), "none of the digits drawn is of these"),
    ],
)
def test_hold_outs_of_all_or_nothing_are_refused_before_drawing(generator, message):
    with pytest.raises(InfeasibleError, match=message) as error:
        generator.acceptance(np.random.default_rng(0))
    assert error.value.exit_code == 5


@pytest.mark.parametrize(
    ("generator", "text", "message"),
    [
        (NINE, "shap=heart", "no factor is called 'shap'. Did you mean 'shape'"),
        (NINE, "shape=hart", "no shape is called 'hart'. Did you mean 'heart'"),
        (NINE, "shape=heart & color=red", "no factor is called 'color'. Did you mean 'colour'"),
        (NINE, "colour=crimson", "no colour is called 'crimson'"),
        (NINE, "shape", "expected terms name=value"),
        (NINE, "class=3", "no factor is called 'class'"),
        (Sprites(), "shape=heart", "no shape is called 'heart'.*circle"),
        (MultiMNIST(digits="bundled"), "shape=heart", "no factor is called 'shape'.*class"),
        (MultiMNIST(digits="bundled"), "class=seven", "class takes numbers"),
    ],
)
def test_unknown_factors_and_words_are_refused_with_a_suggestion(generator, text, message):
    with pytest.raises(UsageError, match=message) as error:
        replace(generator, holdout=text)
    assert error.value.exit_code == 2


def test_every_factor_of_the_vocabulary_can_be_held_out():
    ranges = {"scale": "0.5..0.7", "orientation": "0..1", "shape": "ellipse", "colour": "green", "class": "4"}
    for generator in (
        MultiDSprites(counts="2"),
        Sprites(counts="2"),
        MultiMNIST(digits="bundled", counts="2"),
    ):
        for name, words in generator.vocabulary.items():
            spec = ranges.get(name, "0..0.3") if words is None or name in ranges else next(iter(words))
            if isinstance(generator, Sprites):
                spec = {"shape": "diamond", "side": "13", "left": "3..9", "top": "3..9"}[name]
            if name in ("side", "scale") and isinstance(generator, MultiMNIST):
                spec = {"side": "21,22", "scale": "0.7..0.8"}[name]
            held = replace(generator, holdout=f"{name}={spec}")
            assert min(held.acceptance(np.random.default_rng(0)).values()) > 0.5
            assert len(draw_scenes(held, 0, "ood", 0, 20)) == 20


def test_a_shifted_ood_does_not_touch_the_other_splits():
    plain, held = (
        draw_scenes(generator, 0, "train", 0, 50) for generator in (NINE, replace(NINE, ood="scale=0.6"))
    )
    assert differences(plain, held) == []
