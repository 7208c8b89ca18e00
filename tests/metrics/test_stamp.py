"""The protocol stamp: equal where figures compare, and a sentence that names what differs where they do not."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from metrics import evaluate
from metrics.evaluation.stamp import differences, same_scenes, scene_digests, sentence, stamp_hash
from multiobj_data.scenes import Prediction

DATA = {
    "id": "clevr6-v1",
    "split": "test",
    "seed": 0,
    "config": {"protocol": {"name": "genesis", "crop": [29, 221, 64, 256]}, "limit": None},
    "sources": {"a.tfrecord": "0" * 64},
    "folder": "/somewhere",
}


@pytest.fixture
def facts(oracle, truth, batches):
    def stamp(parts=None, answer=truth, **more):
        return evaluate(oracle(answer), parts or batches(8), **({"dataset": DATA} | more)).stamp["facts"]

    return stamp


ALL = ("count_accuracy", "box_miou", "log_likelihood_nats")


def test_the_same_protocol_has_the_same_stamp_whatever_the_model_the_folder_or_the_batches(
    facts, batches, truth
):
    moved = {**DATA, "folder": "/elsewhere", "notes": ["copied"]}
    other = replace(truth, count=truth.count + 1)
    stamps = [facts(), facts(batches(5)[::-1] + batches(7), dataset=moved), facts(answer=other)]
    assert len({stamp_hash(each) for each in stamps}) == 1
    assert differences(stamps, ALL) == []


def test_the_hash_is_that_of_the_facts_in_any_order(oracle, truth, batches):
    stamp = evaluate(oracle(truth), batches(8), dataset=DATA).stamp
    turned = {name: stamp["facts"][name] for name in reversed(stamp["facts"])}
    assert stamp["sha256"] == stamp_hash(turned)
    changed = copy.deepcopy(stamp["facts"])
    changed["rules"]["presence"] = 0.4
    assert stamp_hash(changed) != stamp["sha256"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda d: d["config"]["protocol"].update(name="slot-attention"),
            "protocol genesis and slot-attention",
        ),
        (lambda d: d.update(id="clevr-v1"), "data set clevr6-v1 and clevr-v1"),
        (lambda d: d.update(split="val"), "split test and val"),
        (lambda d: d.update(seed=3), "seed 0 and 3"),
        (lambda d: d["config"].update(background="noise"), "background none and noise"),
        (
            lambda d: d["config"]["protocol"].update(crop=[24, 216, 64, 256]),
            "protocol.crop [29, 221, 64, 256] and",
        ),
    ],
)
def test_other_data_are_named(facts, change, says):
    other = copy.deepcopy(DATA)
    change(other)
    (phrase,) = differences([facts(), facts(dataset=other)], ALL)
    assert phrase.startswith(says)


def test_fewer_images_are_named(facts, batches):
    part = differences([facts(), facts(batches(8)[:2])], ALL)
    assert part == ["number of images 24 and 16", "index range [100, 123] and [100, 115]"]
    assert same_scenes([facts(), facts(batches(8)[:2])])


@pytest.mark.parametrize("field", ["image", "segments", "boxes", "count"])
def test_one_changed_value_of_the_truth_is_another_protocol(facts, batches, field):
    parts = batches(8)
    index, scenes = parts[1]
    changed = getattr(scenes, field).copy()
    place = (scenes.count.argmax(), 0) if field == "boxes" else (0,)
    changed[place] = np.where(changed[place] != 1, 1, 2)
    first, second = (
        facts(p, answer=None)
        for p in (parts, [parts[0], (index, replace(scenes, **{field: changed})), parts[2]])
    )
    assert differences([first, second], ALL) == ["the scenes themselves (images or truth are other bytes)"]


def test_how_scenes_are_stored_is_no_part_of_the_protocol(scenes):
    more = np.full((len(scenes), 2, 4), np.nan)
    padded = replace(
        scenes,
        boxes=np.concatenate([scenes.boxes.astype(np.float64), more], axis=1),
        factors={},
        amodal=None,
    )
    assert np.array_equal(scene_digests(padded), scene_digests(scenes))


def test_one_kind_of_likelihood_is_no_difference_whatever_it_says(facts, truth):
    odd = replace(truth, likelihood_kind="elbo; decoder=mog")
    assert "log_likelihood_nats" in facts(answer=odd)["metrics"]
    assert differences([facts(answer=odd), facts(answer=odd)], ALL) == []


@pytest.fixture
def oracle():
    """Answers anything alike, so that changed images are answered too."""

    def make(answer):
        def predict(images):
            kind = None if answer is None else answer.likelihood_kind
            likelihood = None if kind is None else np.zeros(len(images))
            return Prediction(
                count=np.zeros(len(images), int), log_likelihood=likelihood, likelihood_kind=kind
            )

        return predict

    return make


def test_likelihoods_of_other_kinds_are_refused_only_where_they_are_compared(facts, truth):
    kinds = [facts(answer=replace(truth, likelihood_kind=kind)) for kind in ("exact", "elbo")]
    assert differences(kinds, ALL) == ["likelihood kind exact and elbo"]
    assert differences(kinds, ("count_accuracy",)) == []
    none = facts(answer=replace(truth, log_likelihood=None, likelihood_kind=None))
    assert differences([kinds[0], none], ALL) == []


def test_versions_and_conventions_of_compared_metrics_are_named(facts):
    one, other = facts(), copy.deepcopy(facts())
    other["metrics"]["box_miou"]["version"] = 2
    assert differences([one, other], ALL) == ["version of metric box_miou: 1 and 2"]
    assert differences([one, other], ("count_accuracy",)) == []
    genesis = facts(convention="genesis")
    assert differences([one, genesis], ("ari_fg",)) == ["convention of metric ari_fg: mobj and genesis"]


def test_a_metric_that_one_run_was_not_asked_for_is_no_difference(facts):
    assert differences([facts(), facts(metrics=["count_accuracy"])], ALL) == []


def test_a_sentence_names_the_first_few():
    assert sentence(["a", "b"]) == "a; b"
    assert sentence(list("abcde")) == "a; b; c and 2 more"


def test_digests_depend_on_each_scene_alone(scenes):
    whole = scene_digests(scenes)
    np.testing.assert_array_equal(
        np.concatenate([scene_digests(scenes[i : i + 5]) for i in range(0, 24, 5)]), whole
    )
    assert len(np.unique(whole[scenes.count > 0], axis=0)) == (scenes.count > 0).sum()
