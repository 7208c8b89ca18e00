from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from multiobj_data.checks import check_generator, scene_problems
from multiobj_data.composition.scale import Scale
from multiobj_data.configuration import build
from multiobj_data.errors import InfeasibleError, UsageError
from multiobj_data.generation.plan import draw_scenes
from multiobj_data.generation.verification import differences
from multiobj_data.generators import multi_mnist
from multiobj_data.generators.multi_mnist import MultiMNIST
from multiobj_data.plugins import BUILT_IN, resolve
from multiobj_data.sprites import scaled
from multiobj_data.sprites.digits import load_digits
from multiobj_data.sprites.scaled import ScaledSprites

BUNDLED = MultiMNIST(digits="bundled")
VARIANTS = {
    "free": {"counts": "0-3"},
    "legacy": {"counts": "0-2", "overlap": False, "overlap_rule": "legacy"},
    "pixels": {"counts": "2,4", "overlap": False},
    "boxes": {"counts": "1-3", "overlap": False, "overlap_rule": "boxes", "margin": 1},
    "rows": {"counts": "2", "overlap": False, "overlap_rule": "rows-and-columns", "scale": "0.5"},
    "range": {"counts": "1,2", "scale": "0.6..0.9", "canvas": 64, "resize_filter": "bicubic", "amodal": True},
    "black": {
        "counts": "1-2",
        "polarity": "black-on-white",
        "value_range": (40, 200),
        "resize_filter": "nearest",
    },
    "wide": {"counts": "2", "scale": "3", "canvas": 200, "overlap": False},
    "none": {"counts": "0"},
    "rare": {"counts": "1:.995,5:.005"},
}


@pytest.mark.parametrize("name", sorted(BUILT_IN["generators"]))
def test_every_registered_generator_keeps_the_contract(name):
    generator = resolve("generators", name)
    check_generator(build(generator, {"digits": "bundled"} if name == "multi-mnist" else {}))


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_gives_consistent_scenes(name):
    scenes = draw_scenes(replace(BUNDLED, **VARIANTS[name]), 0, "train", 0, 300)
    assert list(scene_problems(scenes)) == []


@pytest.mark.parametrize("name", ["free", "legacy", "pixels", "range", "black", "wide"])
def test_scenes_can_be_pasted_together_again_from_their_factors(name):
    generator = replace(BUNDLED, **VARIANTS[name])
    scenes = draw_scenes(generator, 3, "train", 0, 40)
    digits = load_digits("train", "bundled")
    kind = Image.Resampling[generator.resize_filter.upper()]
    for b in range(len(scenes)):
        canvas = np.zeros((generator.canvas,) * 2, int)
        for k in range(scenes.count[b]):
            source, side = scenes.factors["source_index"][b, k], int(scenes.factors["side"][b, k])
            patch = np.asarray(Image.fromarray(digits.images[source]).resize((side, side), kind))
            left, top = (int(scenes.factors[axis][b, k] - side / 2) for axis in "xy")
            canvas[top : top + side, left : left + side] += patch
            assert scenes.factors["class"][b, k] == digits.labels[source]
        low, high = generator.value_range
        grey = low + np.ceil(np.minimum(canvas, 255) * (high - low) / 255).astype(int)
        expected = 255 - grey if generator.polarity == "black-on-white" else grey
        assert np.array_equal(scenes.image[b, :, :, 0], expected)


def test_no_pixel_is_lit_twice_without_overlap():
    scenes = draw_scenes(replace(BUNDLED, counts="2,4", overlap=False, amodal=True), 0, "train", 0, 1000)
    assert scenes.amodal is not None
    assert scenes.amodal.sum(1).max() == 1
    assert (scenes.count == 2).sum() == (scenes.count == 4).sum() == 500
    free = draw_scenes(replace(BUNDLED, counts="2,4", amodal=True), 0, "train", 0, 1000)
    assert free.amodal is not None
    assert free.amodal.sum(1).max() > 1


def test_legacy_scenes_may_share_grey_pixels_but_never_saturate():
    scenes = draw_scenes(
        replace(BUNDLED, counts="2", overlap=False, overlap_rule="legacy"), 0, "train", 0, 1000
    )
    assert scenes.amodal is not None
    assert (scenes.amodal.sum(1) > 1).any()


@pytest.mark.parametrize(("name", "value"), [("_MEMORY", 0), ("_BULK", 0.001)])
def test_how_resized_digits_are_kept_does_not_change_the_scenes(monkeypatch, name, value):
    generator = replace(BUNDLED, counts="1-3", overlap=False)
    expected = draw_scenes(generator, 0, "train", 0, 3000)
    monkeypatch.setattr(scaled, name, value)
    multi_mnist._sprites.cache_clear()
    again = draw_scenes(generator, 0, "train", 0, 3000)
    room = generator._source("train", None).sprites.sprites.room
    multi_mnist._sprites.cache_clear()
    assert differences(again, expected) == []
    assert (room == 1437 * 16) == (name == "_BULK")  # with little memory, digits are forgotten on the way


def test_more_digits_than_are_kept_can_be_asked_for_at_once(monkeypatch):
    images = load_digits("train", "bundled").images
    expected, indices = ScaledSprites(images, Scale("0.3..0.9"), "bilinear").find(*(every := all_of(images)))
    monkeypatch.setattr(scaled, "_MEMORY", 0)
    sprites, few = ScaledSprites(images, Scale("0.3..0.9"), "bilinear").find(*every)
    assert len(few) > 1 << 14
    assert np.array_equal(sprites.tile[few], expected.tile[indices])
    with pytest.raises(ValueError, match="sides: expected 8 to 25, got 26 to 26"):
        ScaledSprites(images, Scale("0.3..0.9"), "bilinear").find(np.zeros(1, int), np.full(1, 26))


def all_of(images):
    sides = range(8, 26)
    return np.tile(np.arange(len(images)), len(sides)), np.repeat(sides, len(images))


def test_digits_of_which_nothing_is_left_are_refused():
    images = np.zeros((1, 28, 28), np.uint8)
    images[0, 1, 1] = 255
    with pytest.raises(
        UsageError, match="at 4 pixels picture 0 has none left that shows anything; use a larger"
    ):
        ScaledSprites(images, Scale("0.15"), "nearest").find(np.zeros(1, int), np.full(1, 4))


def test_ink_is_never_the_colour_of_the_canvas():
    scenes = draw_scenes(replace(BUNDLED, counts="2", value_range=(0, 1)), 0, "train", 0, 20)
    assert np.array_equal(scenes.image[..., 0] > 0, scenes.segments > 0)


def test_test_scenes_are_made_of_test_digits():
    scenes = {split: draw_scenes(BUNDLED, 0, split, 0, 2000) for split in ("train", "val", "test")}
    for split, part in (("train", "train"), ("val", "train"), ("test", "test")):
        digits = load_digits(part, "bundled")
        present = scenes[split].present
        source = scenes[split].factors["source_index"][present]
        assert source.max() < len(digits.images)
        assert np.array_equal(scenes[split].factors["class"][present], digits.labels[source])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"canvas": 20}, "canvas 20 is too small: digits of these sizes need 31"),
        ({"canvas": 20, "scale": "1"}, "canvas 20 is too small: digits of these sizes need 28"),
        ({"value_range": (200, 10)}, "value_range"),
        ({"overlap": False, "overlap_rule": "boxes", "margin": -1}, "margin"),
        (
            {"overlap": False, "overlap_rule": "boxes", "margin": 50},
            "margin: expected fewer pixels than the canvas",
        ),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        replace(BUNDLED, **settings)


def test_infeasible_contracts_are_refused_with_what_would_do():
    generator = replace(BUNDLED, counts="9", overlap=False)
    with pytest.raises(
        InfeasibleError, match=r"9 digits .* 50x50.*Use at most (\d) digits, --canvas (\d+)"
    ) as error:
        generator.acceptance(np.random.default_rng(0))
    words = str(error.value).split()
    fewer = replace(generator, counts=words[words.index("most") + 1])
    larger = replace(generator, canvas=int(words[words.index("--canvas") + 1]))
    for feasible in (fewer, larger):
        assert min(feasible.acceptance(np.random.default_rng(1)).values()) > 1e-5
