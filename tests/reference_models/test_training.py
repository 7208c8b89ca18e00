from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multiobj_data.devices import resolve_device
from multiobj_data.errors import UsageError
from multiobj_data.loading import SceneSource
from multiobj_data.scenes import Prediction, Scenes
from reference_models import batches, runs
from reference_models.air import AIR
from reference_models.batches import Batches, noise_generator
from reference_models.checkpoints import build_model, load_checkpoint
from reference_models.training import Progress, TrainingResult
from reference_models.validation import SEGMENTED, Validation

STEPS = 20


def stop_at(step: int, error: type[BaseException]) -> Callable[[Progress], None]:
    def callback(progress: Progress) -> None:
        if progress.step == step:
            raise error

    return callback


def log_of(result: TrainingResult) -> list[dict[str, Any]]:
    lines = (result.checkpoint.parent / "log.jsonl").read_text().splitlines()
    timing = ("steps_per_s", "elapsed_s")
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]


def assert_same_run(one: TrainingResult, other: TrainingResult) -> None:
    assert log_of(one) == log_of(other)
    left, right = (torch.load(result.checkpoint, weights_only=True) for result in (one, other))
    assert left["weights"].keys() == right["weights"].keys()
    for name, weight in left["weights"].items():
        assert torch.equal(weight, right["weights"][name]), name
    states = (left["extras"]["optimiser"]["state"], right["extras"]["optimiser"]["state"])
    for parameter, state in states[0].items():
        for name, value in state.items():
            assert torch.equal(value, states[1][parameter][name]), (parameter, name)


def test_training_lowers_the_loss_and_leaves_its_files(
    run: Callable[..., TrainingResult], small: dict[str, Any]
) -> None:
    result = run(steps=60, evaluate_every=15, config=small | {"learning_rate": 0.01})
    totals = [record["total"] for record in log_of(result)]
    assert totals[-1] < totals[0] - 5
    assert (result.seed, result.steps, result.collapsed) == (5, 60, None)  # too early to judge
    assert log_of(result)[-1]["count_accuracy"] == result.count_accuracy
    curves = result.checkpoint.parent / "curves.png"
    assert curves.read_bytes().startswith(b"\x89PNG")
    assert load_checkpoint(result.checkpoint).step == 60


def test_log_terms_add_up_to_the_total(run: Callable[..., TrainingResult]) -> None:
    for record in log_of(run()):
        assert sum(record["terms"].values()) == pytest.approx(record["total"], rel=1e-5)


def test_a_log_line_has_the_mean_loss_since_the_last_one(
    run: Callable[..., TrainingResult], source: Any, small: dict[str, Any]
) -> None:
    each, pairs = (
        [record["total"] for record in log_of(run(str(every), steps=4, evaluate_every=every))]
        for every in (1, 2)
    )
    assert pairs == pytest.approx([sum(each[:2]) / 2, sum(each[2:]) / 2])
    cpu = torch.device("cpu")
    model = build_model("air", small, source.image_shape, seed=5).train()
    model.training_step = 1
    first = model.loss(Batches(source, 8, 5, cpu)[1], noise_generator(5, 1, cpu))
    assert each[0] == pytest.approx(first.total.item())


@pytest.mark.parametrize("step", [3, 10, 12, 19])
def test_interrupted_and_resumed_run_equals_the_straight_one(
    run: Callable[..., TrainingResult], step: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run("resumed", on_progress=stop_at(step, KeyboardInterrupt))
    assert_same_run(run("straight"), run("resumed", resume=True))


def test_killed_and_resumed_run_equals_the_straight_one(
    run: Callable[..., TrainingResult], tmp_path: Path
) -> None:
    with pytest.raises(SystemError):
        run("resumed", on_progress=stop_at(13, SystemError))  # after the checkpoint of 7, the log of 12
    with open(tmp_path / "resumed" / "seed-5" / "log.jsonl", "a") as log:
        log.write('{"step": 13, "to')
    assert_same_run(run("straight"), run("resumed", resume=True))


def test_run_killed_before_its_first_checkpoint_starts_over(run: Callable[..., TrainingResult]) -> None:
    with pytest.raises(SystemError):
        run("resumed", on_progress=stop_at(5, SystemError))
    assert_same_run(run("straight"), run("resumed", resume=True))


def test_resuming_a_finished_run_changes_nothing(run: Callable[..., TrainingResult]) -> None:
    first = run()
    before = first.checkpoint.read_bytes()
    again = run(resume=True)
    assert again == first
    assert first.checkpoint.read_bytes() == before


def test_a_finished_run_can_be_lengthened(run: Callable[..., TrainingResult]) -> None:
    run("longer", steps=12)
    assert_same_run(run("straight"), run("longer", resume=True))


def test_step_size_halves_as_the_settings_say(
    run: Callable[..., TrainingResult], small: dict[str, Any]
) -> None:
    rates = {}
    for steps in (3, 8):
        result = run(f"{steps}", steps=steps, config=small | {"half_life": 5, "learning_rate": 0.01})
        (group,) = load_checkpoint(result.checkpoint).extras["optimiser"]["param_groups"]
        rates[steps] = group["lr"]
    assert rates[3] == pytest.approx(2 * rates[8])
    assert rates[3] == pytest.approx(0.01 * 2 ** (-2 / 5))


def test_seeds_differ_and_no_global_stream_moves(run: Callable[..., TrainingResult]) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert log_of(run(seed=1)) != log_of(run(seed=2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seed": 5, "batch_size": 4}, "batch size 8, not 4"),
        ({"config": {"lstm_size": 16, "max_objects": 3}}, "max_objects 2, not 3"),
    ],
)
def test_resuming_with_other_settings_is_refused(
    run: Callable[..., TrainingResult], change: dict[str, Any], small: dict[str, Any], complaint: str
) -> None:
    run(steps=2)
    if "config" in change:
        change = {"config": small | change["config"]}
    with pytest.raises(UsageError, match=complaint):
        run(resume=True, **change)


def test_resuming_with_other_data_is_refused_but_data_may_move(
    run: Callable[..., TrainingResult], source: Any
) -> None:
    run(steps=2)
    source.reference = source.reference | {"folder": "/elsewhere"}
    assert run(steps=3, resume=True).steps == 3
    source.reference = source.reference | {"squares": 41}
    with pytest.raises(UsageError, match="trained with other data"):
        run(steps=4, resume=True)


def test_resuming_another_seed_in_the_same_folder_is_refused(
    run: Callable[..., TrainingResult], tmp_path: Path
) -> None:
    run(steps=2)
    (tmp_path / "run" / "seed-5").rename(tmp_path / "run" / "seed-6")
    with pytest.raises(UsageError, match="seed 5, not 6"):
        run(seed=6, resume=True)


def test_starting_over_an_old_run_is_refused(run: Callable[..., TrainingResult]) -> None:
    run(steps=2)
    with pytest.raises(UsageError, match="--resume"):
        run(steps=2)


@pytest.mark.parametrize(("warm_up", "collapsed"), [(21, None), (20, True)])
def test_collapse_is_not_judged_during_the_warm_up(
    run: Callable[..., TrainingResult],
    small: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    warm_up: int,
    collapsed: bool | None,
) -> None:
    monkeypatch.setattr(runs, "WARM_UP", warm_up)
    assert run(config=small | {"presence_bias": -60.0}).collapsed is collapsed
    assert run("unseen", validation=None).collapsed is None


@pytest.mark.parametrize(("bias", "counted"), [(-60.0, 0), (60.0, 2)])
def test_collapse_is_told_once(
    run: Callable[..., TrainingResult],
    small: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    bias: float,
    counted: int,
) -> None:
    monkeypatch.setattr(runs, "WARM_UP", 5)
    told: list[Progress] = []
    result = run(config=small | {"presence_bias": bias}, on_progress=told.append)
    assert result.collapsed
    (warning,) = [progress for progress in told if progress.warning]
    assert f"counts {counted} objects" in str(warning.warning)
    assert [record["step"] for record in log_of(result) if "warning" in record] == [warning.step] == [8]


def test_every_step_is_told_and_the_log_lines_with_it(run: Callable[..., TrainingResult]) -> None:
    told: list[Progress] = []
    result = run(on_progress=told.append)
    assert [progress.step for progress in told] == list(range(1, STEPS + 1))
    assert [progress.record["step"] for progress in told if progress.record] == [4, 8, 12, 16, 20]
    assert {record["step"] for record in log_of(result)} == {4, 8, 12, 16, 20}


def test_training_without_truth_measures_no_accuracy(run: Callable[..., TrainingResult]) -> None:
    result = run(validation=None)
    assert result.count_accuracy is None
    assert log_of(result)[-1]["count_accuracy"] is None


def _blind(masks: bool) -> Callable[..., Prediction]:
    """Return the answers of a model that does not count."""

    def predict(model: Any, images: np.ndarray) -> Prediction:
        slots = np.stack([images < 128, images >= 128], axis=1).astype(np.float32)[..., 0]
        return Prediction(reconstruction=images / 255, masks=slots if masks else None)

    return predict


def test_a_model_that_counts_nothing_has_no_accuracy(
    run: Callable[..., TrainingResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AIR, "predict", _blind(masks=False))
    result = run()
    assert (result.count_accuracy, result.ari_fg) == (None, None)
    assert log_of(result)[-1]["count_accuracy"] is None


def test_a_model_that_segments_and_does_not_count_has_a_live_ari(
    run: Callable[..., TrainingResult], source: SceneSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def share(scenes: Scenes, prediction: Prediction) -> np.ndarray:
        asked.append(len(scenes.image))
        return np.array([0.25, np.nan, 0.75])  # a scene without objects has none

    monkeypatch.setattr(AIR, "predict", _blind(masks=True))
    assert run(validation=Validation(source)).ari_fg is None
    result = run("ari", validation=Validation(source, share))
    assert (result.count_accuracy, result.ari_fg, result.collapsed) == (None, 0.5, None)
    assert [record["ari_fg"] for record in log_of(result)] == [0.5] * 5
    assert set(asked) == {min(SEGMENTED, len(source))}
    empty = Validation(source, lambda scenes, prediction: np.array([np.nan, np.nan]))
    assert run("empty", validation=empty).ari_fg is None


def test_every_epoch_shows_every_scene_once_in_another_order(source: Any) -> None:
    order = Batches(source, batch_size=8, seed=0, device=torch.device("cpu"))
    first, second = (np.concatenate([order.indices(e * 5 + i) for i in range(1, 6)]) for e in range(2))
    assert sorted(first) == sorted(second) == list(range(40))
    assert (first != second).any()


def test_batches_are_the_same_resident_or_not(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    resident = Batches(source, batch_size=8, seed=0, device=torch.device("cpu"))
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 0)
    fetched = Batches(source, batch_size=8, seed=0, device=torch.device("cpu"))
    for step in (1, 5, 6, 17):
        assert torch.equal(resident[step], fetched[step])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"batch_size": 41}, "between 1 and the 40 scenes"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"device": "gpu"}, "expected auto, cpu or cuda, got 'gpu'"),
        ({"config": {"learning_rat": 1}}, "Did you mean 'learning_rate'"),
    ],
)
def test_malformed_requests_are_refused(
    run: Callable[..., TrainingResult], change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=complaint):
        run(**change)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="take --device cpu"):
        resolve_device("cuda")
    assert resolve_device("auto").type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_run_moves_between_devices(run: Callable[..., TrainingResult]) -> None:
    run(steps=10, device="cuda")
    assert run(resume=True, device="cpu").steps == STEPS
