"""The judge of stacks: learnt from label maps of our own towers, small."""

import numpy as np
import pytest
import torch

from metrics.structure import StructureRule, structure_accuracy, structure_of_samples
from metrics.structure.judge import Judge, JudgeNetwork, train_judge
from multiobj_data import open_dataset
from multiobj_data.errors import DataError, UsageError

TOWERS = ("--counts", "2-3", "--train", 400, "--test", 100, "--no-sheet", "--workers", 1)
PLAIN = (
    "canvas=32",
    "stable=1",
    "shapes=box",
    "textures=plain",
    "light=fixed",
    "camera=fixed",
    "amodal=false",
)


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    from cli.main import mobj as group

    out = tmp_path_factory.mktemp("towers") / "data"
    settings = [part for setting in PLAIN for part in ("--set", setting)]
    group.main(["generate", "towers", *map(str, TOWERS), *settings, "--out", str(out)], standalone_mode=False)
    return out


@pytest.fixture(scope="module")
def trained(towers, tmp_path_factory):
    """Three files: of one seed for long, of another twice and shortly."""
    folder = tmp_path_factory.mktemp("judges")
    splits = open_dataset(towers, "train"), open_dataset(towers, "test")
    found = {}
    for name, seed, steps in (("one", 0, 150), ("other", 1, 2), ("again", 1, 2)):
        path = folder / name
        training = train_judge(*splits, path, data={"id": "towers"}, seed=seed, steps=steps, device="cpu")
        found[name] = path, training
    return found


def test_training_is_a_function_of_the_seed(trained):
    other, again = (torch.load(trained[name][0], weights_only=True)["weights"] for name in ("other", "again"))
    assert all(torch.equal(other[name], weight) for name, weight in again.items())


def test_judge_finds_the_blocks_of_scenes_it_has_not_seen(trained, towers):
    path, training = trained["one"]
    assert training["accuracy"] > 0.75
    judge = Judge.load(path, "cpu")
    assert judge.stamp["training"] == training
    assert judge.stamp["trained_on"] == {"id": "towers"}
    scenes = open_dataset(towers, "test").scenes(np.arange(100))
    true = np.where(scenes.segments >= scenes.background_segments, scenes.segments, 0)
    levels = np.take_along_axis(
        np.pad(scenes.factors["level"] + 1, ((0, 0), (scenes.background_segments, 0))),
        true.reshape(100, -1).astype(int),
        axis=1,
    ).reshape(true.shape)
    found = judge(scenes.image)
    assert found.dtype == np.int64
    assert (found == levels)[levels > 0].mean() == pytest.approx(training["accuracy"])


def test_judge_passes_towers_and_no_block_that_hangs_in_the_air(trained, towers):
    rule = StructureRule(blocks=(2, 4), smallest=4, contact=1)
    judge = Judge.load(trained["one"][0], "cpu")
    scenes = open_dataset(towers, "test").scenes(np.arange(100))
    assert structure_accuracy(scenes.segments, rule=rule).mean() > 0.97
    good = structure_of_samples(judge, scenes.image, background=(0,), rule=rule)
    lifted = structure_of_samples(judge, with_lifted_tops(scenes, 5), background=(0,), rule=rule)
    assert good.accuracy > 0.7 > 0.3 > lifted.accuracy


def with_lifted_tops(scenes, by):
    """Cut the highest block out of every image, and put it back so many pixels higher."""
    images = scenes.image.copy()
    for image, before, labels, count in zip(images, scenes.image, scenes.segments, scenes.count, strict=True):
        top = labels == scenes.background_segments + count - 1
        image[top] = np.median(before[labels < scenes.background_segments], axis=0)
        image[np.roll(top, -by, axis=0)] = before[top]
    return images


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "this version reads 1"),
        ({"config": {}}, "cannot be built"),
        ({"config": {"image_shape": [32, 32, 3], "classes": 9}}, "weights are not those"),
        ({"more": 1}, "is no judge of this toolkit"),
    ],
)
def test_other_files_are_refused_in_a_sentence(trained, tmp_path, change, words):
    path = tmp_path / "judge.pt"
    torch.save(torch.load(trained["other"][0], weights_only=True) | change, path)
    with pytest.raises(DataError, match=words):
        Judge.load(path)


def test_images_of_another_size_are_refused():
    judge = Judge(JudgeNetwork(3, 4), (32, 32, 3), device="cpu")
    with pytest.raises(ValueError, match="train one on data of this size"):
        judge(np.zeros((1, 64, 64, 3), np.uint8))
    assert judge(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, 32, 32)


def test_what_cannot_be_learnt_is_said(towers, tmp_path):
    train, out = open_dataset(towers, "train"), tmp_path / "judge.pt"
    with pytest.raises(UsageError, match="steps >= 1"):
        train_judge(train, train, out, data={}, steps=0)
    with pytest.raises(DataError, match="objects with the factor storey, the data set has"):
        train_judge(train, train, out, data={}, factor="storey")
    assert not out.exists()
