"""Seeds that are trained together: each must come to what it comes to alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from multiobj_data.errors import MobjError, UsageError
from multiobj_data.files import temporary_of
from reference_models.air import AIR
from reference_models.base import Loss, SceneModel
from reference_models.batches import Batches, noise_generator
from reference_models.recording import TrainingLog
from reference_models.together import train_together
from reference_models.training import Progress, TrainingResult, train
from reference_models.validation import Validation

SEEDS, STEPS = (3, 1, 4), 8
TOLERANCE = 1e-11
"""In float64. Weights have moved by some 0.01, and differ by 1 between seeds."""


@pytest.fixture(autouse=True)
def _double_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(TrainingLog, "draw", lambda log: None)  # a second each; the command's tests see them
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def runs(source: Any, small: dict[str, Any], tmp_path: Path) -> Callable[..., dict[int, Any]]:
    """Train small models with all of `SEEDS`, together or one after the other, with what the test changes."""

    def train_with(out: str, together: bool, model: str = "air", **changes: Any) -> dict[int, Any]:
        config = small | changes.pop("config", {})
        settings: dict[str, Any] = {
            "steps": STEPS,
            "batch_size": 8,
            "device": "cpu",
            "validation": Validation(source),
        }
        settings |= {"config": config, "checkpoint_every": 5, "evaluate_every": 3, **changes}
        seeds = settings.pop("seeds", SEEDS)
        if together:
            return train_together(model, source, tmp_path / out, seeds=seeds, **settings)
        return {seed: train(model, source, tmp_path / out, seed=seed, **settings) for seed in seeds}

    return train_with


def log_of(result: TrainingResult) -> list[dict[str, Any]]:
    lines = (result.checkpoint.parent / "log.jsonl").read_text().splitlines()
    timing = ("steps_per_s", "elapsed_s")
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]


def assert_same(one: Any, other: Any, path: str = "") -> None:
    """Assert that nested dicts and lists hold the same, and numbers up to rounding."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key, value in one.items():
            assert_same(value, other[key], f"{path}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), path
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{path}/{i}")
    elif isinstance(one, torch.Tensor):
        assert one.stride() == other.stride(), path
        torch.testing.assert_close(one, other, rtol=1e-9, atol=TOLERANCE, msg=path)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-9), path
    else:
        assert one == other, path


def assert_same_runs(one: dict[int, Any], other: dict[int, Any]) -> None:
    assert [*one] == [*other]
    for left, right in zip(one.values(), other.values(), strict=True):
        assert isinstance(left, TrainingResult)
        assert isinstance(right, TrainingResult), right
        assert_same(log_of(left), log_of(right))
        contents = [torch.load(result.checkpoint, weights_only=True) for result in (left, right)]
        for content in contents:
            del content["extras"]["seconds"]
        assert_same(*contents)
        sizes = [result.checkpoint.stat().st_size for result in (left, right)]
        assert sizes[1] == pytest.approx(sizes[0], rel=0.01)  # no seed carries the others' numbers along


ASR = {"allowed_counts": "1,2", "gradient_clip": 0.5}


@pytest.mark.parametrize(
    ("model", "config"),
    [
        ("air", {"gradient_clip": 50.0, "half_life": 3}),
        ("air", {"estimator": "baseline", "gradient_clip": 50.0}),  # two groups, each with its own rate
        ("air", {"estimator": "concrete", "anneal": "exponential", "anneal_steps": 5}),
        ("air", {"estimator": "nvil"}),  # has buffers that change
        ("air", {"estimator": "vimco", "particles": 2}),
        ("air", {"estimator": "mvd"}),
        ("air-asr", ASR),
        ("air-asr", ASR | {"clip_each": True, "number_form": "per-step", "estimator": "concrete"}),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("estimator", "enumerate"),
)
def test_each_seed_comes_to_what_it_comes_to_alone(
    runs: Callable[..., Any], model: str, config: dict[str, Any]
) -> None:
    alone, together = (runs(str(way), way, model, config=config) for way in (False, True))
    assert_same_runs(alone, together)
    first, second = (
        torch.load(result.checkpoint, weights_only=True)["weights"] for result in [*together.values()][:2]
    )
    assert (first["find.0.weight"] - second["find.0.weight"]).abs().max() > 0.01


@pytest.mark.parametrize("first", [False, True])
def test_begun_one_way_and_resumed_the_other(runs: Callable[..., Any], first: bool) -> None:
    config = {"estimator": "nvil"}
    runs("mixed", first, steps=3, config=config)
    mixed = runs("mixed", not first, resume=True, config=config)
    assert_same_runs(runs("straight", first, config=config, steps=STEPS), mixed)


def test_seeds_at_different_steps_catch_up_with_each_other(runs: Callable[..., Any]) -> None:
    for seed, steps in ((3, 6), (1, 3), (4, STEPS)):
        runs("mixed", False, seeds=(seed,), steps=steps)
    told: list[tuple[int, int]] = []
    mixed = runs("mixed", True, resume=True, on_progress=lambda seed, state: told.append((seed, state.step)))
    assert_same_runs(runs("straight", False), mixed)
    assert told == [(1, 4), (1, 5), (1, 6), (3, 7), (1, 7), (3, 8), (1, 8)]


def test_an_interruption_saves_every_seed(runs: Callable[..., Any], tmp_path: Path) -> None:
    def stop(seed: int, progress: Progress) -> None:
        if progress.step == 7 and seed == SEEDS[-1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs("run", True, on_progress=stop)
    for seed in SEEDS:
        path = tmp_path / "run" / f"seed-{seed}" / "checkpoint.pt"
        assert torch.load(path, weights_only=True)["step"] == 7
    assert_same_runs(runs("straight", False), runs("run", True, resume=True))


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_seed_that_diverges_ends_and_the_others_go_on(
    runs: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    draw, objective = AIR.draw, AIR.objective
    hit = noise_generator(1, 7, torch.device("cpu")).initial_seed()

    def marked(model: AIR, n: int, generator: torch.Generator) -> Any:
        return {"noise": draw(model, n, generator), "bad": torch.tensor(generator.initial_seed() == hit)}

    def diverging(model: AIR, images: torch.Tensor, noise: Any) -> Loss:
        zero, bad = 0 * model.first.sum(), noise["bad"].to(torch.float64)
        spoil = zero + torch.log(1 - bad) if where == "loss" else (zero + 1 - bad).sqrt()  # root at 0
        return objective(model, images, noise["noise"]) + Loss({"spoil": spoil.expand(len(images))})

    monkeypatch.setattr(AIR, "draw", marked)
    monkeypatch.setattr(AIR, "objective", diverging)
    outcomes = runs("run", True)
    error = outcomes.pop(1)
    assert isinstance(error, MobjError)
    assert str(error).startswith(f"the {where} is not finite at step 7; ")
    assert torch.load(str(error).split()[8], weights_only=True)["step"] == 5
    assert_same_runs(runs("straight", False, seeds=(3, 4)), outcomes)


def test_a_seed_whose_files_fail_ends_and_the_others_go_on(runs: Callable[..., Any], tmp_path: Path) -> None:
    runs("run", True, steps=3)
    damaged, full = (tmp_path / "run" / f"seed-{seed}" / "checkpoint.pt" for seed in (1, 4))
    damaged.write_bytes(b"damaged")
    temporary_of(full).symlink_to("/dev/full")
    outcomes = runs("run", True, resume=True)
    assert "is no checkpoint" in str(outcomes.pop(1))
    assert "no space left" in str(outcomes.pop(4))
    assert_same_runs(runs("straight", False, seeds=(3,)), outcomes)
    assert_same_runs(runs("straight", False, seeds=(4,)), runs("run", True, seeds=(4,), resume=True))


def test_what_the_first_seed_is_refused_for_is_raised(runs: Callable[..., Any], tmp_path: Path) -> None:
    finished = runs("run", True, steps=1)
    with pytest.raises(UsageError, match="seed-3 holds a run already"):
        runs("run", True)
    assert runs("run", True, steps=1, resume=True) == finished
    for change, complaint in (
        ({"seeds": (1, 1)}, "all different, got 1, 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"config": {"lstm_siz": 1}}, "Did you mean 'lstm_size'"),
    ):
        with pytest.raises(UsageError, match=complaint):
            runs("refused", True, **change)
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("in_place", [True, False])
def test_what_is_learnt_without_gradients_is_each_seed_own(
    runs: Callable[..., Any], governed: Any, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    def assigned(model: Any, means: dict[str, torch.Tensor]) -> None:
        model.log_weight = model.log_weight + 1e-3 * (next(iter(means.values())) + 300)

    if not in_place:
        monkeypatch.setattr(governed, "after_step", assigned)
    alone, together = (runs(str(way), way) for way in (False, True))
    assert_same_runs(alone, together)
    learnt = {
        float(torch.load(result.checkpoint, weights_only=True)["weights"]["log_weight"])
        for result in together.values()
    }
    assert len(learnt) == len(SEEDS)


class OwnLoss(AIR):
    """Draws its noise where it computes its loss."""

    def loss(self, images: torch.Tensor, generator: torch.Generator) -> Loss:
        return Loss({"doubled": 2 * super().loss(images, generator).per_image})


class Peeking(AIR):
    """Asks for a value while it computes its loss."""

    def objective(self, images: torch.Tensor, noise: Any) -> Loss:
        loss = super().objective(images, noise)
        return loss if loss.total.item() != 0 else Loss({})


class Asking(AIR):
    """Asks for a value after each step."""

    def after_step(self, means: Mapping[str, torch.Tensor]) -> None:
        self.last = sum(mean.item() for mean in means.values())


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (Asking, "its after_step cannot be computed for several seeds at once"),
        (OwnLoss, "noise is not apart from its loss"),
        (Peeking, "its objective cannot be computed for several seeds at once"),
    ],
)
def test_a_model_that_cannot_be_stacked_is_refused(
    runs: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kind: type[SceneModel], complaint: str
) -> None:
    monkeypatch.setattr("reference_models.air.AIR", kind)
    with pytest.raises(UsageError, match=f"{complaint}.*one after the other"):
        runs("run", True)
    assert len(runs("alone", False)) == len(SEEDS)


def test_seeds_share_the_images_and_not_their_order(source: Any) -> None:
    device = torch.device("cpu")
    first = Batches(source, batch_size=8, seed=0, device=device)
    first.indices(1)  # it has an order by now
    second = first.of_seed(7)
    assert second._resident is first._resident
    fresh = Batches(source, batch_size=8, seed=7, device=device)
    for step in (1, 4, 6):
        assert torch.equal(second[step], fresh[step])
        assert not torch.equal(second[step], first[step])
