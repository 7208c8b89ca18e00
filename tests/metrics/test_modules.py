"""The torchmetrics wrappers in one process; two are in test_distributed."""

import math
import pickle

import numpy as np
import pytest
import torch

from metrics import (
    Mean,
    adjusted_rand_index,
    count_accuracy,
    matched_box_iou,
    mean_segmentation_covering,
    squared_error,
)

torchmetrics = pytest.importorskip("torchmetrics")

from metrics import modules  # noqa: E402
from metrics.modules import PerImage, PerImageById  # noqa: E402

READY = sorted(
    name
    for name, value in vars(modules).items()
    if isinstance(value, type)
    and value.__module__ == modules.__name__
    and name not in ("_OfImages", "PerImage", "PerImageById")
)


def identity(scores):
    return scores


@pytest.fixture
def scores(rng):
    values = rng.normal(7000, 1, 40)
    values[[2, 31]] = np.nan
    return torch.tensor(values)


def summary_of(values, ids=None):
    mean = Mean()
    mean.update(values, ids)
    return mean.summary()


def numbers(answer):
    return {key: value.item() for key, value in answer.items()}


def test_batches_add_up_to_the_mean_of_all(scores):
    metric = PerImage(identity, summary=True)
    for part in scores.split(7):
        metric.update(part)
    assert numbers(metric.compute()) == pytest.approx(summary_of(scores), rel=1e-6)
    assert metric.compute()["mean"].item() == pytest.approx(summary_of(scores)["mean"], rel=1e-14)
    metric.reset()
    metric.update(scores[:1])
    assert metric.compute()["n"] == 1
    assert math.isnan(metric.compute()["stderr"])


def test_by_id_an_image_counts_once(scores):
    metric = PerImageById(identity, summary=True)
    metric.update(torch.arange(25), scores[:25])
    metric.update(torch.arange(15, 40), scores[15:])
    assert numbers(metric.compute()) == summary_of(scores)
    metric.reset()
    metric.update(torch.zeros(4, dtype=torch.int32), torch.ones(4))
    assert metric.compute()["n"] == 1


def test_forward_answers_for_the_batch_and_remembers_all(scores):
    calls = []

    def counted(values):
        calls.append(len(values))
        return values

    metric = PerImage(counted)
    first, second = metric(scores[:10]), metric(scores[10:])
    assert first.item() == pytest.approx(np.nanmean(scores[:10]))
    assert second.item() == pytest.approx(np.nanmean(scores[10:]))
    assert metric.compute().item() == pytest.approx(np.nanmean(scores))
    assert calls == [10, 30]  # once a batch, not twice


@pytest.mark.parametrize(
    "cast",
    [
        lambda m: m.half(),
        lambda m: m.to(torch.float16),
        lambda m: m.set_dtype(torch.half),
        lambda m: torch.nn.ModuleList([m]).half()[0],
    ],
)
@pytest.mark.parametrize("kind", [PerImage, PerImageById])
def test_a_model_in_half_precision_keeps_its_metrics(scores, cast, kind):
    metric = kind(identity)
    arguments = (scores,) if kind is PerImage else (torch.arange(40), scores)
    metric.update(*arguments)
    metric = cast(metric)
    if kind is PerImage:
        metric.update(*arguments)
        assert metric.total.dtype == metric.squares.dtype == torch.float64
    assert metric.compute().item() == pytest.approx(np.nanmean(scores), rel=1e-14)


def test_nothing_scored_has_no_mean():
    metric = PerImage(identity, summary=True)
    metric.update(torch.full((3,), math.nan))
    answer = numbers(metric.compute())
    assert math.isnan(answer["mean"])
    assert (answer["n"], answer["skipped"]) == (0, 3)


def test_a_saved_state_goes_on_where_it_was(scores):
    metric = PerImage(identity, summary=True)
    metric.persistent(True)
    metric.update(scores[:20])
    again = PerImage(identity, summary=True)
    again.persistent(True)
    again.load_state_dict(metric.state_dict())
    for one in (metric, again):
        one.update(scores[20:])
    assert numbers(metric.compute()) == numbers(again.compute())


def test_arguments_reach_the_function_and_the_base_class():
    nothing = torch.zeros(2, 1, 4), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 1, 4)
    absent = torch.zeros(2, 1, dtype=torch.bool)
    metric = PerImage(matched_box_iou, empty="one", sync_on_compute=False)
    metric.update(*nothing, absent)
    assert metric.compute() == 1
    assert metric.sync_on_compute is False


@pytest.mark.parametrize("name", READY)
def test_ready_classes_say_what_they_are(name):
    metric = getattr(modules, name)()
    assert isinstance(metric, PerImage)
    assert type(metric).__doc__.startswith("Mean over images of `metrics.")
    assert type(metric).higher_is_better in (True, False, None)
    assert isinstance(pickle.loads(pickle.dumps(metric)), getattr(modules, name))


def test_ready_classes_score_as_their_functions(rng):
    true, predicted = torch.tensor(rng.integers(0, 3, (2, 20)))
    images = torch.tensor(rng.random((2, 20, 4, 4, 1)))
    together = torchmetrics.MetricCollection(
        {"acc": modules.CountAccuracy(), "err": modules.CountAbsoluteError()}
    )
    together.update(true, predicted)
    assert together.compute()["acc"] == count_accuracy(true, predicted).mean()
    assert together.compute()["err"] == (true - predicted).abs().double().mean()
    assert modules.SquaredError()(*images).item() == pytest.approx(squared_error(*images).mean().item())
    assert modules.CountAccuracy.higher_is_better
    assert modules.SquaredError.higher_is_better is False


def test_segmentation_classes_score_label_maps(rng):
    true, slots = torch.tensor(rng.integers(0, 4, (2, 6, 8, 8)))
    for kind, want in (
        (modules.ForegroundARI, adjusted_rand_index(true, slots, foreground_only=True)),
        (modules.AdjustedRandIndex, adjusted_rand_index(true, slots)),
        (modules.MeanSegmentationCovering, mean_segmentation_covering(true, slots, foreground_only=True)),
    ):
        assert kind()(true, slots).item() == pytest.approx(want.nanmean().item(), rel=1e-12)
    both = modules.ForegroundARI(background=(0, 1), summary=True)
    both.update(torch.ones(3, 4, 4, dtype=torch.int64), slots[:3, :4, :4])
    assert both.compute()["skipped"] == 3  # nothing but background
    assert "foreground_only=True" in modules.ForegroundARI.__doc__


def test_functions_may_answer_in_numpy_and_a_batch_may_require_gradients(rng):
    metric = PerImage(lambda a: a.detach().numpy() * 2.0)
    metric.update(torch.ones(3, requires_grad=True))
    assert metric.compute() == 2
    assert not metric.compute().requires_grad


def test_what_is_no_score_an_image_is_refused(scores):
    with pytest.raises(ValueError, match=r"identity: expected one value an image, \[B\], got \[2, 20\]"):
        PerImage(identity).update(scores.reshape(2, 20))
    for ids in (torch.arange(39), torch.ones(40), torch.ones(40, dtype=torch.bool)):
        with pytest.raises(ValueError, match="ids: expected 40 whole numbers"):
            PerImageById(identity).update(ids, scores)
