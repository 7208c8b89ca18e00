from dataclasses import replace

import numpy as np
import pytest

from multiobj_data.checks import check_generator, scene_problems
from multiobj_data.errors import InfeasibleError, UsageError
from multiobj_data.generation.plan import draw_scenes
from multiobj_data.generation.verification import differences
from multiobj_data.generators.multi_dsprites import MultiDSprites
from multiobj_data.generators.multi_mnist import MultiMNIST
from multiobj_data.generators.sprites import Sprites

DIGITS = MultiMNIST(digits="bundled")
DSPRITES = MultiDSprites()
SPRITES = Sprites()
VARIANTS = {
    "digits-noise": replace(DIGITS, background="noise", amodal=True),
    "digits-grid-black-on-white": replace(DIGITS, background="grid:7,0.3", polarity="black-on-white"),
    "digits-distinct": replace(DIGITS, counts="3", distinct="class"),
    "digits-held-out": replace(DIGITS, counts="1-3", holdout="class=7,9", overlap=False),
    "digits-ood": replace(DIGITS, counts="1,2", ood="counts=3-5; scale=0.5; background=noise"),
    "dsprites": DSPRITES,
    "dsprites-none": replace(DSPRITES, counts="0"),
    "dsprites-0-6": replace(DSPRITES, counts="0-6", scale="0.3..0.5", overlap=False),
    "dsprites-rare-count": replace(DSPRITES, counts="1:.995,5:.005"),
    "dsprites-boxes": replace(
        DSPRITES, counts="3", overlap=False, overlap_rule="boxes", margin=2, scale="0.4"
    ),
    "dsprites-iou": replace(DSPRITES, counts="3", overlap=False, overlap_rule="boxes", max_iou=0.3),
    "dsprites-rows": replace(
        DSPRITES, counts="2", overlap=False, overlap_rule="rows-and-columns", colours="white", ground="black"
    ),
    "dsprites-legacy": replace(DSPRITES, counts="2", overlap=False, overlap_rule="legacy", scale="0.5..1/6"),
    "dsprites-grid": replace(
        DSPRITES, counts="2", position="dsprites", colours="levels:5", ground="levels:5"
    ),
    "dsprites-grey": replace(DSPRITES, colours="white", ground="grey:0..0.5", background="noise:0.9,0,0.1"),
    "dsprites-wide": replace(DSPRITES, counts="2", canvas=160, scale="3", overlap=False, amodal=True),
    "dsprites-narrow": replace(DSPRITES, counts="1-2", canvas=28, scale="0.2..1", amodal=True),
    "dsprites-distinct": replace(
        DSPRITES, counts="3", shapes="heart", distinct="colour,scale", colours="named"
    ),
    "dsprites-held-out": replace(DSPRITES, counts="1-3", holdout="shape=heart & colour=red | scale=0.9..1"),
    "dsprites-ood": replace(DSPRITES, counts="1", ood="counts=0,2-4; scale=0.3; orientation=0"),
    "sprites": SPRITES,
    "sprites-rgb": replace(SPRITES, counts="3", colours="rgb", overlap=True, background="grid"),
    "sprites-rows": replace(SPRITES, counts="2", overlap_rule="rows-and-columns", canvas=40, sides=(5, 9)),
    "sprites-distinct": replace(SPRITES, counts="3", distinct="shape,side"),
    "sprites-odd": replace(SPRITES, counts="4", sides=(4, 4), canvas=17),
    "sprites-held-out": replace(
        SPRITES, counts="0-2", holdout="shape=circle & side=14..16", ood="counts=0-3"
    ),
}


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_keeps_the_contract(name):
    check_generator(VARIANTS[name])


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_splits_are_consistent_and_of_one_kind(name):
    generator = VARIANTS[name]
    drawn = {split: draw_scenes(generator, 0, split, 0, 60) for split in ("train", "val", "test", "ood")}
    kinds = set()
    for scenes in drawn.values():
        assert list(scene_problems(scenes)) == []
        columns = {**scenes.factors, **scenes.scene_factors}
        kinds.add(
            (
                scenes.image.shape,
                scenes.boxes.shape,
                scenes.amodal is None,
                tuple((key, values.dtype.str, values.shape[1:]) for key, values in scenes.factors.items()),
                tuple(sorted(columns.keys() - {"grid_offset"})),
            )
        )
    assert len(kinds) == 1
    assert differences(drawn["train"], drawn["val"])
    assert differences(drawn["train"], drawn["test"])


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_painting_is_not_random_and_amodal_masks_are_only_kept(name):
    generator = VARIANTS[name]
    arranged = generator.arrange(np.random.default_rng(5), 40)
    once, again = arranged.paint(), arranged.paint()
    assert differences(once, again) == []
    without = replace(generator, amodal=not generator.keeps_amodal)
    other = without.scenes(np.random.default_rng(5), 40)
    assert (other.amodal is None) != (once.amodal is None)
    assert [what for what in differences(once, other) if what != "amodal"] == []


@pytest.mark.parametrize("name", ["dsprites-0-6", "dsprites-iou", "sprites-distinct", "dsprites-distinct"])
def test_estimates_of_acceptance_agree_with_the_attempts(name):
    generator = VARIANTS[name]
    expected = generator.acceptance(np.random.default_rng(1))
    scenes = draw_scenes(generator, 0, "train", 0, 1400)
    for count, share in expected.items():
        attempts = scenes.scene_factors["attempts"][scenes.count == count]
        found = 1 / attempts.mean()
        error = 5 * found * np.sqrt((1 - found) / len(attempts)) + 5 * share * np.sqrt(
            (1 - share) * count / 4000
        )
        assert abs(found - share) <= error


def test_the_free_share_of_a_crowd_is_what_brute_force_finds():
    crowd = replace(DSPRITES, counts="3", scale="0.6", overlap=False, amodal=True)
    free = draw_scenes(replace(crowd, overlap=True), 0, "train", 0, 3000)
    share = (free.amodal.sum(1).max((1, 2)) == 1).mean()
    ruled = draw_scenes(crowd, 1, "train", 0, 3000)
    assert abs(1 / ruled.scene_factors["attempts"].mean() - share) < 5 * np.sqrt(
        2 * share * (1 - share) / 3000
    )


@pytest.mark.parametrize(
    ("generator", "noun"),
    [(replace(DSPRITES, scale="1"), "sprites"), (SPRITES, "sprites"), (DIGITS, "digits")],
)
def test_the_infeasible_is_refused_with_what_would_do(generator, noun):
    crowd = replace(generator, counts="12", overlap=False)
    with pytest.raises(
        InfeasibleError, match=f"12 {noun} .*Use at most (\\d+) {noun}, --canvas (\\d+) or"
    ) as error:
        crowd.acceptance(np.random.default_rng(0))
    words = str(error.value).split()
    fewer = replace(crowd, counts=words[words.index("most") + 1])
    larger = replace(crowd, canvas=int(words[words.index("--canvas") + 1]))
    for feasible in (fewer, larger):
        assert min(feasible.acceptance(np.random.default_rng(1)).values()) > 1e-4
    assert ("--scale" in str(error.value)) == hasattr(generator, "scale")


def test_no_canvas_is_advised_where_none_would_do():
    with pytest.raises(
        InfeasibleError, match=r"150 sprites .*Use at most \d sprites, smaller --set sides, or"
    ):
        replace(SPRITES, counts="150").acceptance(np.random.default_rng(0))
    near_the_largest = replace(SPRITES, counts="9", canvas=1000, sides=(380, 400), overlap_rule="boxes")
    with pytest.raises(InfeasibleError, match=r"Use at most \d sprites, smaller"):
        near_the_largest._shares(np.random.default_rng(0), "train")


def test_scenes_of_many_objects_that_would_not_fit_into_memory_are_refused():
    with pytest.raises(UsageError, match=r"each of 200 objects would take \d+ GB.*amodal=false"):
        replace(SPRITES, counts="200", canvas=400, overlap=True)
    replace(SPRITES, counts="200", canvas=400, overlap=True, amodal=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"counts": "two"}, "counts: expected whole numbers"),
        ({"canvas": 0}, "got 0|canvas .0."),
        ({"canvas": 2000}, "1 to 1024 pixels, got 2000"),
        ({"overlap": False, "overlap_rule": "pixel"}, "overlap_rule"),
        ({"overlap": False, "margin": 2}, "margin belong"),
        ({"distinct": "shape,size"}, "'size'"),
        ({"ood": "counts"}, "expected key=value"),
        ({"ood": "cuonts=3"}, "no setting 'cuonts'.*Did you mean 'counts'"),
        ({"ood": "counts=three"}, "expected whole numbers"),
        ({"ood": "holdout=shape=1"}, "holdout is the same for all splits"),
        ({"ood": "amodal=true"}, "amodal is the same for all splits"),
        ({"ood": "ood=counts=2"}, "ood is the same for all splits"),
    ],
)
@pytest.mark.parametrize("generator", [DSPRITES, SPRITES], ids=["dsprites", "sprites"])
def test_nonsense_is_refused_by_all(generator, settings, message):
    with pytest.raises(UsageError, match=message):
        replace(generator, **settings)


def test_factors_of_few_values_are_blamed_and_as_many_can_be_had():
    few = replace(DSPRITES, counts="8", colours="named", distinct="colour")
    with pytest.raises(InfeasibleError, match="8 sprites distinct in colour: it has only 7 values here"):
        few.acceptance(np.random.default_rng(0))
    scenes = draw_scenes(replace(few, counts="7"), 0, "train", 0, 20)  # most candidates die early
    for colours in scenes.factors["colour"]:
        assert len(np.unique(colours, axis=0)) == 7


def test_acceptance_of_ood_is_that_of_its_settings():
    generator = replace(SPRITES, counts="2", ood="counts=3")
    assert set(generator.acceptance(np.random.default_rng(0))) == {2}
    assert set(generator.ood_acceptance(np.random.default_rng(0))) == {3}
    assert SPRITES.ood_acceptance(np.random.default_rng(0)) == {}


@pytest.mark.parametrize("text", ["90", "0..7", "-0.5,7", "-2.1pi..0"])
def test_degrees_are_not_taken_for_radians(text):
    with pytest.raises(UsageError, match=r"orientation: expected radians from -2pi to 2pi, got -?[679]"):
        replace(DSPRITES, orientation=text)
    replace(DSPRITES, orientation="-2pi..2pi/40")
