import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from multiobj_data.checks import scene_problems
from multiobj_data.configuration import build, recorded
from multiobj_data.errors import UsageError
from multiobj_data.generation.plan import draw_scenes
from multiobj_data.plugins import resolve
from multiobj_data.presets import find_preset, presets

# From the papers and their code, by hand: generator, counts, canvas, channels, scenes a split, how overlap is ruled.
AIR = ("multi-mnist", 50, 1, {"train": 60_000, "test": 10_000}, "legacy")
ASR_COUNT = ("multi-mnist", 50, 1, {"train": 40_000, "test": 2_000}, "pixels")
ASR_THREE = {"train": 20_000, "test": 1_000}
DEEPMIND = {"train": 90_000, "val": 5_000, "test": 5_000}
PUBLISHED = {
    "air-0-2": ([0, 1, 2], *AIR),
    "air-0-3": ([0, 1, 2, 3], *AIR),
    "asr-13": ([1, 3], *ASR_COUNT),
    "asr-14": ([1, 4], *ASR_COUNT),
    "asr-24": ([2, 4], *ASR_COUNT),
    "asr-mnist-3": ([3], "multi-mnist", 50, 1, ASR_THREE, "rows-and-columns"),
    "asr-dsprites-3": ([3], "multi-dsprites", 64, 1, ASR_THREE, "rows-and-columns"),
    "supair-mnist": ([0, 1, 2], *AIR),
    "supair-noisy": ([0, 1, 2], *AIR),
    "supair-grid": ([0, 1, 2], *AIR),
    "supair-sprites": ([0, 1, 2], "sprites", 50, 1, {"train": 40_000, "test": 10_000}, "pixels"),
    "genesis-multid": (
        [1, 2, 3, 4],
        "multi-dsprites",
        64,
        3,
        {"train": 50_000, "val": 10_000, "test": 10_000},
        None,
    ),
    "mod-colored-on-grayscale": ([2, 3, 4, 5], "multi-dsprites", 64, 3, DEEPMIND, None),
    "mod-colored-on-colored": ([1, 2, 3, 4], "multi-dsprites", 64, 3, DEEPMIND, None),
    "mod-binarized": ([2, 3], "multi-dsprites", 64, 1, DEEPMIND, None),
}


def generator_of(name):
    preset = find_preset(name)
    here = {"digits": "bundled"} if preset.generator == "multi-mnist" else {}
    return build(resolve("generators", preset.generator), {**preset.settings, **here})


@pytest.fixture(scope="module")
def drawn():
    """Scenes of every preset, drawn once."""
    return {name: draw_scenes(generator_of(name), 0, "train", 0, 240) for name in PUBLISHED}


def test_every_published_set_is_here():
    assert set(PUBLISHED) <= set(presets())


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_presets_are_as_published(name, drawn):
    counts, generator, canvas, channels, splits, rule = PUBLISHED[name]
    preset, scenes = find_preset(name, generator), drawn[name]
    assert preset.splits == splits
    assert scenes.image.shape == (240, canvas, canvas, channels)
    assert Counter(scenes.count.tolist()) == dict.fromkeys(
        counts, 240 // len(counts)
    )  # equal shares, exactly
    built = generator_of(name)
    assert (None if built.overlap else built.overlap_rule) == rule
    assert list(scene_problems(scenes)) == []


@pytest.mark.parametrize("name", sorted(presets()))
def test_a_presets_settings_survive_being_recorded(name):
    preset = find_preset(name)
    generator = generator_of(name)
    on_disk = json.loads(json.dumps(recorded(generator)))
    assert build(type(generator), on_disk) == generator
    for key, value in preset.settings.items():
        assert on_disk[key] == value, key
    assert set(preset.splits) <= {"train", "val", "test"}


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_names_its_paper_and_sizes(name):
    preset = find_preset(name)
    sizes = " / ".join(f"{n:,}" for n in preset.splits.values())
    assert sizes in preset.about or all(f"{n:,}" in preset.about for n in preset.splits.values())
    assert any(f"{year}" in preset.about for year in range(2016, 2025))


def test_digits_of_air_are_a_noisy_scale(drawn):
    side = drawn["air-0-3"].factors["side"]
    assert 15 <= side[side > 0].min() < 19
    assert 23 < side.max() <= 31  # int(28 / s), s around 1.3 by 0.1


def test_digits_of_asr_are_their_squares(drawn):
    assert set(np.unique(drawn["asr-24"].factors["side"])) == {-1, 20}
    assert set(np.unique(drawn["asr-mnist-3"].factors["side"])) == {12}


@pytest.mark.parametrize("name", ["asr-mnist-3", "asr-dsprites-3"])
def test_asrs_objects_share_no_row_and_no_column(name, drawn):
    boxes = drawn[name].boxes
    for low, high in ((0, 2), (1, 3)):
        order = np.sort(boxes[..., [low, high]], 1)  # intervals that are disjoint can be sorted by either end
        assert (order[:, 1:, 0] >= order[:, :-1, 1]).all()


def test_asrs_digits_share_no_pixel():
    scenes = draw_scenes(replace(generator_of("asr-24"), amodal=True), 0, "train", 0, 200)
    assert scenes.amodal.sum(1).max() == 1


def test_supairs_backgrounds(drawn):
    plain, noisy, grid = (drawn[f"supair-{kind}"] for kind in ("mnist", "noisy", "grid"))
    assert np.array_equal(plain.segments, noisy.segments)
    empty = plain.segments == 0
    assert 0.1 < noisy.image[empty].mean() / 255 < 0.15
    assert set(np.unique(grid.image[empty])) == {0, 102}


def test_asrs_sprites_are_white_and_at_one_scale(drawn):
    scenes = drawn["asr-dsprites-3"]
    assert set(np.unique(scenes.image)) == {0, 255}
    assert np.allclose(scenes.factors["scale"], 0.6)


@pytest.mark.parametrize(
    "name",
    [
        "genesis-multid",
        *(f"mod-{kind}" for kind in ("colored-on-grayscale", "colored-on-colored", "binarized")),
    ],
)
def test_dsprites_values(name, drawn):
    scenes = drawn[name]
    scale, orientation, x = (scenes.factors[key][scenes.present] for key in ("scale", "orientation", "x"))
    assert np.allclose(np.unique(scale), [0.5, 0.6, 0.7, 0.8, 0.9, 1])
    assert np.allclose(orientation * 39 / (2 * np.pi), np.rint(orientation * 39 / (2 * np.pi)), atol=1e-4)
    assert np.allclose((x - 16) * 31 / 32, np.rint((x - 16) * 31 / 32), atol=1e-4)
    ground = np.rint(255 * scenes.scene_factors["ground_colour"])
    if name == "genesis-multid":
        assert set(np.unique(ground)) == {0, 63, 127, 191, 255}
    elif name == "mod-colored-on-grayscale":
        assert (ground == ground[:, :1]).all()
        assert len(np.unique(ground[:, 0])) > 100
    elif name == "mod-colored-on-colored":
        assert (ground != ground[:, :1]).any(1).mean() > 0.9
    else:
        assert set(np.unique(scenes.image)) == {0, 255}


def test_an_unknown_preset_gets_a_suggestion():
    with pytest.raises(UsageError, match=r"no preset named 'air-02'\. Did you mean 'air-0-2'"):
        find_preset("air-02")
    with pytest.raises(
        UsageError, match=r"'asr-24' belongs to multi-mnist, not to sprites: .*--preset asr-24"
    ):
        find_preset("asr-24", "sprites")
