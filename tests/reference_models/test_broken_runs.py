"""What a run leaves when something ends it: a signal, a full disk, a loss that is not finite."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from multiobj_data.errors import DataError, MobjError
from multiobj_data.files import temporary_of
from reference_models.air import AIR
from reference_models.base import Loss
from reference_models.checkpoints import load_checkpoint
from reference_models.training import Progress, TrainingResult


@pytest.fixture
def usual_signals() -> Iterator[None]:
    """Listen to Ctrl-C even if whoever runs the tests in the background has switched it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_saves(
    run: Callable[..., TrainingResult], tmp_path: Path, number: signal.Signals
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.step == 5:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        run(on_progress=interrupt)
    assert load_checkpoint(tmp_path / "run" / "seed-5" / "checkpoint.pt").step == 5
    assert signal.getsignal(number) == handler


def test_two_runs_never_write_to_one_folder(run: Callable[..., TrainingResult], tmp_path: Path) -> None:
    def second(progress: Progress) -> None:
        if progress.step == 9:  # there is a checkpoint
            with pytest.raises(MobjError, match="another mobj run is writing to .*seed-5"):
                run(resume=True)

    first = run(on_progress=second)
    assert first.steps == 20
    assert run(resume=True) == first  # the lock is gone


def test_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    run: Callable[..., TrainingResult], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(steps=7)
    monkeypatch.setattr(
        AIR, "loss", lambda self, x, rng: Loss({"nll": self.first.sum() * torch.nan * x[:, 0, 0, 0]})
    )
    path = tmp_path / "run" / "seed-5" / "checkpoint.pt"
    before = path.read_bytes()
    with pytest.raises(MobjError, match=r"loss is not finite at step 8; .*checkpoint\.pt holds"):
        run(resume=True)
    assert path.read_bytes() == before


def test_gradient_that_is_not_finite_stops_the_run(
    run: Callable[..., TrainingResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def root_at_zero(model: AIR, images: torch.Tensor, generator: torch.Generator) -> Loss:
        return Loss({"nll": (model.first.sum() * 0).sqrt().expand(len(images))})

    monkeypatch.setattr(AIR, "loss", root_at_zero)
    with pytest.raises(MobjError, match="gradient is not finite at step 1; no checkpoint was written"):
        run()


@pytest.mark.parametrize("name", ["optimiser", "seconds", "batch_size"])
@pytest.mark.parametrize("value", ["gone", "text"])
def test_resuming_a_checkpoint_without_training_state_is_refused(
    run: Callable[..., TrainingResult], name: str, value: str
) -> None:
    path = run(steps=2).checkpoint
    content = torch.load(path, weights_only=True)
    content["extras"][name] = value
    if value == "gone":
        del content["extras"][name]
    torch.save(content, path)
    with pytest.raises(DataError, match=f"has no {name.replace('_', ' ')} to go on from"):
        run(resume=True)
    assert load_checkpoint(path).step == 2  # it can be evaluated


def test_resuming_with_the_state_of_another_optimiser_is_refused(run: Callable[..., TrainingResult]) -> None:
    path = run(steps=2).checkpoint
    content = torch.load(path, weights_only=True)
    content["extras"]["optimiser"] = {"state": {}}
    torch.save(content, path)
    with pytest.raises(DataError, match="optimiser's state is not that of a 'air'"):
        run(resume=True)


FULL = Path("/dev/full")
needs_full_disk = pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")


@needs_full_disk
@pytest.mark.parametrize("file", ["checkpoint.pt", "curves.png", "log.jsonl"])
def test_full_disk_is_one_sentence_and_the_run_can_be_resumed(
    run: Callable[..., TrainingResult], tmp_path: Path, file: str
) -> None:
    folder = tmp_path / "run" / "seed-5"

    def fill(progress: Progress) -> None:
        if progress.step == 10:
            if file == "log.jsonl":
                (folder / file).rename(tmp_path / "log")
                (folder / file).symlink_to(FULL)
            else:
                temporary_of(folder / file).symlink_to(FULL)

    with pytest.raises(MobjError, match=rf"no space left .*{file}; .*--resume"):
        run(on_progress=fill)
    if file == "log.jsonl":
        (tmp_path / "log").replace(folder / file)
    assert run(resume=True).steps == 20
