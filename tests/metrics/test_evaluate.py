"""The harness end to end, with toy models on scenes made by hand."""

import csv
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from metrics import METRICS, MetricSpec, evaluate
from metrics.evaluation.answers import score
from metrics.evaluation.baselines import Truth
from metrics.evaluation.floors import BASELINE_NAMES, baseline_predictor
from metrics.evaluation.per_image import compressed, csv_bytes, expect_table_name, read_table
from metrics.evaluation.suspicion import SuspiciousDataWarning
from multiobj_data.errors import DataError, MobjError, UsageError
from multiobj_data.predictions import PredictionFile, write_predictions
from multiobj_data.scenes import Prediction


def test_the_truth_scores_perfectly(oracle, truth, batches, scenes):
    masks = (scenes.segments[:, None] == np.arange(4)[:, None, None]).astype(np.float32)
    whole = replace(truth, masks=masks, background_slots=(0,))
    result = evaluate(oracle(whole), batches(7), model="oracle")
    means = {name: summary["mean"] for name, summary in result.metrics.items()}
    assert means["count_accuracy"] == means["box_miou"] == 1
    for name in ("ari", "ari_fg", "sc_fg", "msc_fg", "mbo", "mask_miou"):
        assert means[name] == 1
    assert means["count_error"] == means["count_absolute_error"] == 0
    assert means["mse"] == pytest.approx(0, abs=1e-12)
    assert result.metrics.keys() | result.not_available.keys() == METRICS.keys()
    assert all("masks" in METRICS[name].needs for name in result.not_available)
    assert result.metrics["box_miou"]["skipped"] == (scenes.count == 0).sum()


@pytest.mark.parametrize("size", [1, 5, 24])
def test_figures_do_not_depend_on_the_batches(oracle, truth, batches, rng, size):
    noisy = replace(
        truth,
        count=rng.integers(0, 5, 24),
        boxes=(truth.boxes + rng.normal(size=(24, 3, 1))).astype(np.float32),
        log_likelihood=rng.normal(size=24),
    )
    whole, cut = (evaluate(oracle(noisy), batches(n)) for n in (24, size))
    assert cut.to_json() == whole.to_json()
    for name, values in whole.columns.items():
        np.testing.assert_array_equal(cut.columns[name], values)
    for end in ("worst", "best"):
        assert [e.index for e in getattr(cut, end)] == [e.index for e in getattr(whole, end)]


def test_scenes_that_come_twice_count_once(oracle, truth, batches):
    once, twice = (evaluate(oracle(truth), parts) for parts in (batches(8), batches(8) + batches(5)[::-1]))
    assert twice.metrics == once.metrics
    assert [e.index for e in twice.worst + twice.best] == [e.index for e in once.worst + once.best]
    assert twice.protocol["repeated_images_dropped"] == 24
    assert twice.protocol["images"] == 24


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_models_objects_and_functions_are_the_same(oracle, truth, batches, library):
    model = oracle(truth)

    def predict(images):
        answer = model.predict(images)
        if library == "torch":
            tensors = {
                name: torch.tensor(array).requires_grad_(array.dtype.kind == "f")
                for name, array in answer.arrays().items()
            }
            return replace(answer, **tensors)
        return answer

    figures = evaluate(predict, batches(8)).to_json()
    reference = evaluate(model, batches(8)).to_json()
    assert figures == reference


def test_a_file_of_predictions_scores_like_its_model(oracle, truth, batches, tmp_path):
    model = oracle(truth)
    write_predictions(tmp_path / "p.h5", ((index, model.predict(part.image)) for index, part in batches(5)))
    from_file = evaluate(PredictionFile(tmp_path / "p.h5"), batches(24)[::-1])
    assert from_file.metrics == evaluate(model, batches(8)).metrics


def test_models_see_images_only(batches):
    def peek(*arguments):
        (images,) = arguments
        assert isinstance(images, np.ndarray)
        return Prediction(count=np.zeros(len(images), int))

    evaluate(peek, batches(8))


def test_what_a_model_does_not_give_has_a_reason_and_no_figure(batches, scenes):
    result = evaluate(lambda images: Prediction(count=np.zeros(len(images), int)), batches(8))
    assert list(result.metrics) == ["count_accuracy", "count_error", "count_absolute_error"]
    assert result.not_available["box_miou"] == "model gives no boxes and no presence"
    assert result.not_available["mse"] == "model gives no reconstruction"
    assert result.metrics["count_accuracy"]["mean"] == (scenes.count == 0).mean()
    assert result.likelihood_kind is None


def test_without_counts_present_slots_are_counted(batches):
    presence = np.array([0.9, 0.5, 0.49], np.float32)
    result = evaluate(lambda images: Prediction(presence=np.tile(presence, (len(images), 1))), batches(8))
    assert (result.columns["predicted_count"] == 2).all()
    assert result.protocol["count_from"] == "slots with presence >= 0.5"


def test_groups_by_true_count_make_up_the_whole(oracle, truth, batches, rng):
    noisy = replace(truth, count=rng.integers(0, 5, 24))
    result = evaluate(oracle(noisy), batches(8))
    assert list(result.by_count) == [0, 1, 2, 3]
    for name, summary in result.metrics.items():
        groups = [group[name] for group in result.by_count.values()]
        for part in ("n", "skipped"):
            assert sum(group[part] for group in groups) == summary[part]
        total = sum(group["mean"] * group["n"] for group in groups if group["n"])
        assert total / summary["n"] == pytest.approx(summary["mean"])
    table = np.array(result.confusion["table"])
    assert table.sum() == 24
    assert np.trace(table) / 24 == pytest.approx(result.metrics["count_accuracy"]["mean"])


def test_examples_are_the_extremes(oracle, truth, batches, rng, scenes):
    shift = rng.uniform(0, 3, (24, 1, 1)).astype(np.float32)
    result = evaluate(oracle(replace(truth, boxes=truth.boxes + shift)), batches(5), examples=4)
    scores = result.columns["box_miou"]
    order = [100 + i for i in np.argsort(scores, kind="stable") if not np.isnan(scores[i])]
    assert result.ranked_by == "box_miou"
    assert [e.index for e in result.worst] == order[:4]
    assert [e.index for e in result.best] == order[::-1][:4]
    for example in result.worst + result.best:
        row = example.index - 100
        np.testing.assert_array_equal(example.image, scenes.image[row])
        np.testing.assert_array_equal(example.true_boxes, scenes.boxes[row, : scenes.count[row]])
        assert len(example.predicted_boxes) == example.predicted_count == example.true_count
        assert example.scores["box_miou"] == scores[row]


def test_no_scene_is_both_best_and_worst(oracle, truth, batches):
    result = evaluate(oracle(truth), batches(24), examples=15)
    shown = [example.index for example in result.worst + result.best]
    assert len(shown) == len(set(shown)) == (~np.isnan(result.columns["box_miou"])).sum()


def test_json_is_strict_and_nan_is_null(oracle, truth, batches):
    only_empty = [(np.array([100]), batches(1)[0][1])]
    result = evaluate(
        oracle(truth),
        only_empty,
        dataset={"id": "toy-v1", "rate": np.float32(0.5)},
        protocol={"split": "test"},
    )
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["schema_version"] == 1
    assert document["metrics"]["box_miou"] == {"mean": None, "stderr": None, "n": 0, "skipped": 1}
    assert document["by_count"]["0"]["count_accuracy"]["mean"] == 1
    assert document["dataset"] == {"id": "toy-v1", "rate": 0.5}
    assert document["protocol"]["split"] == "test"
    assert document["protocol"]["index_range"] == [100, 100]
    assert document["protocol"]["definitions"]["box_miou"]["version"] == METRICS["box_miou"].version
    assert document["likelihood_kind"] == "exact"


def test_values_per_image_read_back_exactly(oracle, truth, batches, tmp_path, rng):
    result = evaluate(oracle(replace(truth, log_likelihood=rng.normal(size=24))), batches(8))
    result.write_per_image(tmp_path / "images.csv")
    with open(tmp_path / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(100, 124))
    for name, values in result.per_image.items():
        read = [float(row[name]) if row[name] else np.nan for row in rows]
        np.testing.assert_array_equal(read, values)


def test_per_image_values_are_csv_or_parquet(oracle, truth, batches, tmp_path):
    with pytest.raises(UsageError, match=r"ends in \.csv, \.csv\.gz or \.parquet"):
        evaluate(oracle(truth), batches(8)).write_per_image(tmp_path / "images.txt")


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"pip install 'mobj\[export\]'"):
        expect_table_name("scores.parquet")


def test_parquet_and_gzipped_csv_hold_the_same_values(oracle, truth, batches, tmp_path, rng):
    parquet = pytest.importorskip("pyarrow.parquet")
    result = evaluate(oracle(replace(truth, log_likelihood=rng.normal(size=24))), batches(8))
    for name in ("images.parquet", "images.csv.gz"):
        result.write_per_image(tmp_path / name)
    table = parquet.read_table(tmp_path / "images.parquet")
    text = read_table(tmp_path / "images.csv.gz", (tmp_path / "images.csv.gz").read_bytes())
    assert table.column_names == list(text) == list(result.columns)
    assert {"smallest_visible_fraction", "smallest_distance", "smallest_contrast"} <= set(text)
    assert table["box_miou"].null_count == np.isnan(result.columns["box_miou"]).sum() > 0
    for name, values in result.columns.items():
        np.testing.assert_array_equal(text[name], values)
        np.testing.assert_array_equal(table[name].to_pandas().to_numpy(float, na_value=np.nan), values)


def test_gzipped_values_are_the_same_bytes_every_time(oracle, truth, batches):
    columns = evaluate(oracle(truth), batches(8)).columns
    assert compressed(csv_bytes(columns)) == compressed(csv_bytes(columns))


@pytest.mark.parametrize("content", [b"", b"no gzip", compressed(b""), compressed(b"index,x\n1\n")])
def test_a_damaged_table_is_missing_data(content, tmp_path):
    with pytest.raises(DataError, match="is damaged"):
        read_table(tmp_path / "t.csv.gz", content)


def test_intervals_hold_the_mean_and_come_only_when_asked_for(oracle, truth, batches, rng):
    noisy = replace(truth, log_likelihood=rng.normal(size=24))
    plain, asked = (evaluate(oracle(noisy), batches(8), interval=level) for level in (None, 0.9))
    assert plain.metrics["log_likelihood_nats"].keys() == {"mean", "stderr", "n", "skipped"}
    summary = asked.metrics["log_likelihood_nats"]
    assert summary["low"] < summary["mean"] < summary["high"]
    assert asked.protocol["interval"] == 0.9
    with pytest.raises(UsageError, match="expected a level above 0 and below 1"):
        evaluate(oracle(noisy), batches(8), interval=95)


def test_a_metric_by_a_convention(oracle, truth, batches):
    spec = replace(
        brightness,
        conventional=lambda name: lambda scenes, prediction: np.full(len(scenes), float(len(name))),
    )
    assert spec.under(None).function is spec.function
    assert (spec.under("savi").function([0, 0], None) == 4).all()
    assert spec.under("savi").definition()["convention"] == "savi"
    assert spec.definition()["convention"] == "mobj"
    assert brightness.under("savi") is brightness


def test_an_unknown_convention_is_refused(oracle, truth, batches):
    with pytest.raises(UsageError, match="no convention 'deepmnd'. Did you mean 'deepmind'"):
        evaluate(oracle(truth), batches(8), convention="deepmnd")


def test_the_convention_is_recorded_and_scores_differ_by_it(batches):
    model = Truth()
    ours, theirs = (evaluate(model, batches(8), convention=name) for name in (None, "sklearn"))
    assert theirs.protocol["convention"] == "sklearn"
    assert theirs.metrics["ari_fg"]["skipped"] == 0 < ours.metrics["ari_fg"]["skipped"]  # no object: 1 there
    assert theirs.stamp["facts"]["metrics"]["ari_fg"]["convention"] == "sklearn"
    assert "sklearn" in theirs.not_available["mbo"]
    with pytest.raises(UsageError, match="sklearn"):
        evaluate(model, batches(8), metrics=["mbo"], convention="sklearn")


@pytest.mark.parametrize("size", [5, 24])
def test_baselines_are_scored_on_the_first_images(oracle, truth, batches, size):
    result = evaluate(oracle(truth), batches(size) + batches(7), baselines=BASELINE_NAMES, baseline_images=10)
    found = result.baselines
    assert found.images == 10
    assert list(found.metrics) == list(BASELINE_NAMES)
    alone = evaluate(oracle(truth), [(np.arange(100, 110), batches(24)[0][1][:10])])
    for name, summary in found.model.items():
        assert summary == alone.metrics[name]
    for name in ("chance", "truth"):
        own = evaluate(baseline_predictor(name), [(np.arange(100, 110), batches(24)[0][1][:10])])
        for metric, summary in found.metrics[name].items():
            assert summary == own.metrics[metric]
    assert found.metrics["truth"]["box_miou"]["mean"] == 1
    assert not {"log_likelihood_nats", "bits_per_dimension"} & found.model.keys()


def test_a_model_that_shares_no_metric_has_no_baselines(batches):
    def predict(images):
        return Prediction(log_likelihood=np.zeros(len(images)), likelihood_kind="exact")

    assert evaluate(predict, batches(8), baselines=BASELINE_NAMES).baselines is None


def test_a_set_without_objects_warns(batches):
    index, scenes = batches(24)[0]
    blank = replace(scenes, segments=np.zeros_like(scenes.segments))  # as label maps cut to 0 leave them
    with pytest.warns(SuspiciousDataWarning, match="24 of 24 images"):
        result = evaluate(lambda images: Prediction(count=np.zeros(len(images), int)), [(index, blank)])
    assert "24 of 24 images" in result.to_json()["warnings"][0]


def test_a_metric_that_breaks_is_named(batches):
    """Not `ValueError`, which says that the answer does not fit: a bug of the metric's own."""

    def broken(scenes, prediction):
        raise KeyError("oops")

    spec = replace(brightness, function=broken)
    prediction = Prediction(count=np.zeros(24, int))
    with pytest.raises(MobjError, match=r"metric mine raised KeyError: 'oops' \(.*test_evaluate.py"):
        score("the model", "mine", spec, batches(24)[0][1], prediction)


def test_examples_of_masks_show_matched_labels(batches, scenes):
    result = evaluate(Truth(), batches(24), examples=24)
    shown = {e.index: e for e in result.worst + result.best}
    for index, example in shown.items():
        np.testing.assert_array_equal(example.true_labels, scenes.segments[index - 100])
        np.testing.assert_array_equal(example.predicted_labels, example.true_labels)


def test_slots_in_any_order_and_too_many_get_matched_colours(batches):
    index, some = batches(24)[0]
    chosen = np.flatnonzero(some.count == 3)
    slots = np.array([2, 0, 3, 1])[:, None, None]

    def predict(images):
        masks = (some.segments[chosen][:, None] == slots).astype(np.float32)
        left = masks[:, 1:2] * (np.arange(12) < 6)  # the background in two slots
        return Prediction(masks=np.concatenate([masks[:, :1], left, masks[:, 2:], masks[:, 1:2] - left], 1))

    result = evaluate(predict, [(index[chosen], some[chosen])], examples=24)
    example = (result.worst + result.best)[0]
    objects = example.true_labels > 0
    np.testing.assert_array_equal(example.predicted_labels[objects], example.true_labels[objects])
    assert len(np.unique(example.predicted_labels[~objects])) == 2


def test_progress_is_told_in_scenes(oracle, truth, batches):
    seen = []
    evaluate(oracle(truth), batches(10), on_progress=seen.append)
    assert seen == [10, 10, 4]


brightness = MetricSpec(
    lambda scenes, prediction: scenes.image.mean((1, 2, 3)),
    needs=("count",),
    unit="",
    higher_is_better=None,
    description="how bright the image is",
    source="a test",
)


def test_a_metric_of_ones_own_is_found_by_name(oracle, truth, batches, scenes, tmp_path, monkeypatch):
    (tmp_path / "my_metrics.py").write_text(
        "from metrics import MetricSpec\n"
        "double = MetricSpec(lambda s, p: 2.0 * p.count, ('count',), '', None, 'twice the count', 'a test')\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = evaluate(oracle(truth), batches(8), metrics=["count_error", "my_metrics:double"])
    assert list(result.metrics) == ["count_error", "my_metrics:double"]
    np.testing.assert_array_equal(result.per_image["my_metrics:double"], 2 * scenes.count)
    with pytest.raises(UsageError, match=r"expected a metrics\.MetricSpec, got int"):
        evaluate(oracle(truth), batches(8), metrics=["my_metrics:number"])


def test_an_unknown_metric_gets_a_suggestion(oracle, truth, batches):
    with pytest.raises(UsageError, match=r"no metric named 'box_mIou'\. Did you mean 'box_miou'"):
        evaluate(oracle(truth), batches(8), metrics=["box_mIou"])


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda images: images, "expected predict to return a Prediction, got ndarray"),
        (lambda images: Prediction(count=np.zeros(3, int)), "expected answers for 8 images, got 3"),
        (
            lambda images: Prediction(reconstruction=np.zeros((8, 6, 6, 1))),
            "reconstruction .* does not fit images",
        ),
        (lambda images: Prediction(masks=np.ones((8, 1, 6, 6))), "masks .* does not fit images"),
        (
            lambda images: Prediction(boxes=np.full((8, 1, 4), np.nan), presence=np.ones((8, 1))),
            "metric box_miou: predicted_boxes: expected finite",
        ),
        (
            lambda images: Prediction(log_likelihood=np.full(8, -np.inf), likelihood_kind="elbo"),
            "log_likelihood: expected finite nats",
        ),
        (
            lambda images: Prediction(log_likelihood=np.full(8, np.nan), likelihood_kind="elbo"),
            "log_likelihood: expected finite nats",
        ),
    ],
)
def test_answers_that_do_not_fit_name_the_model(batches, answer, says):
    with pytest.raises(DataError, match=says) as caught:
        evaluate(answer, batches(8), model="broken")
    assert "model 'broken'" in str(caught.value)


def test_counts_beyond_any_table_are_scored_without_one(batches):
    result = evaluate(lambda images: Prediction(count=np.full(len(images), 10**12)), batches(8))
    assert result.confusion is None
    assert result.metrics["count_accuracy"]["mean"] == 0


def test_only_the_truth_itself_is_shown_the_truth(batches):
    class Peeks:
        def predict_scenes(self, scenes):
            raise AssertionError

        def predict(self, images):
            return Prediction(count=np.zeros(len(images), int))

    assert evaluate(Peeks(), batches(8)).metrics["count_error"]["mean"] < 0


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"protocol": {"images": 3}}, "protocol: 'images' is filled in by evaluate"),
        ({"dataset": {"config": {"a": {1, 2}}}}, "dataset: expected values that JSON can hold"),
        ({"metrics": "count_accuracy"}, "metrics: expected a list of names, got the text 'count_accuracy'"),
        ({"baselines": "truth"}, "baselines: expected a list of names, got the text 'truth'"),
    ],
)
def test_what_could_not_be_reported_is_refused_before_anything_is_scored(facts, says):
    def never():
        raise AssertionError
        yield

    with pytest.raises(UsageError, match=says):
        evaluate(lambda images: None, never(), **facts)


def test_batches_without_scenes_are_passed_over(batches, truth, scenes):
    def answers(images):
        return Prediction(count=np.zeros(len(images), int))

    empty = (np.zeros(0, int), scenes[:0])
    one, other = (evaluate(answers, parts).metrics for parts in (batches(8), [empty, *batches(8), empty]))
    assert one == other


def test_models_get_images_that_are_theirs(batches, scenes):
    def paint(images):
        images[:] = 255 - images
        return Prediction(reconstruction=images / 255)

    before = scenes.image.copy()
    result = evaluate(paint, batches(8))
    np.testing.assert_array_equal(scenes.image, before)
    expected = ((255 - 2 * before.astype(float)) / 255) ** 2
    assert result.metrics["mse"]["mean"] == pytest.approx(expected.mean())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"count": [1] * 8}, "count: expected an array, got list"),
        ({"count": 1}, "count: expected an array, got int"),
        ({"count": np.int64(1)}, r"count: expected shape \[any\], got \[\]"),
        ({"presence": np.ones(8)}, r"presence: expected shape \[any, any\], got \[8\]"),
        ({"presence": [[1.0]] * 8}, "presence: expected an array, got list"),
        (
            {"masks": np.tile([[[-1.0]], [[2.0]]], (8, 1, 1, 1))},
            r"masks: expected values in \[0, 1\], got -1..2",
        ),
        ({"boxes": np.tile([5.0, 0, 2, 3], (8, 1, 1))}, "boxes: expected x0 <= x1 and y0 <= y1"),
        ({"boxes": torch.tensor([[[0.0, 3, 2, 1]]] * 8)}, "boxes: expected x0 <= x1 and y0 <= y1"),
        (
            {"count": np.ones(8, int), "background_slots": (0,)},
            "background_slots: expected none without masks",
        ),
        ({"log_likelihood": np.zeros(8), "likelihood_kind": "7"}, "likelihood_kind: .* got '7'"),
        ({"log_likelihood": np.zeros(8), "likelihood_kind": "iwae-"}, "likelihood_kind: .* got 'iwae-'"),
        ({"log_likelihood": np.zeros(8), "likelihood_kind": 5}, "likelihood_kind: .* got 5"),
    ],
)
def test_an_answer_that_is_no_prediction_names_the_model(batches, fields, says):
    with pytest.raises(DataError, match=f"model 'broken': {says}"):
        evaluate(lambda images: Prediction(**fields), batches(8), model="broken")


@pytest.mark.parametrize("kind", ["exact", "elbo", "iwae-5", "iwae-5000"])
def test_kinds_of_likelihood(kind):
    assert Prediction(log_likelihood=np.zeros(2), likelihood_kind=kind).likelihood_kind == kind


def test_slots_without_a_box_may_hold_nan():
    boxes = np.full((1, 2, 4), np.nan)
    boxes[0, 0] = 1, 2, 1, 5  # no width is a box too
    assert len(Prediction(boxes=boxes)) == 1


def test_a_model_must_answer_alike_in_every_batch(batches):
    kinds = iter(["elbo", "exact", "elbo"])

    def predict(images):
        return Prediction(log_likelihood=np.zeros(len(images)), likelihood_kind=next(kinds))

    with pytest.raises(
        DataError,
        match=r"like the first \(images \[12, 12, 1\] answered by log_likelihood \(elbo\)\), got .* \(exact\)",
    ):
        evaluate(predict, batches(8))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("a path", []), UsageError, r"expected a model with predict\(images\)"),
        ((lambda images: None, []), DataError, "at least one scene"),
    ],
)
def test_nothing_to_evaluate_is_an_error(arguments, error, says):
    with pytest.raises(error, match=says):
        evaluate(*arguments)


def test_batches_need_one_index_a_scene(oracle, truth, batches):
    with pytest.raises(DataError, match="one whole-number index a scene"):
        evaluate(oracle(truth), [(np.arange(3), batches(8)[0][1])])


def test_facts_of_the_run_cannot_be_overwritten(oracle, truth, batches):
    with pytest.raises(UsageError, match="'images' is filled in by evaluate"):
        evaluate(oracle(truth), batches(8), protocol={"images": 5})


def test_metrics_with_values_of_the_wrong_number_are_refused(oracle, truth, batches, monkeypatch):
    monkeypatch.setitem(METRICS, "one", replace(brightness, function=lambda scenes, prediction: np.ones(1)))
    with pytest.raises(DataError, match="expected 8 values, one an image"):
        evaluate(oracle(truth), batches(8))
