"""What each of two processes does in `test_parallel`, which starts them with PyTorch's launcher; no test itself.

Everything is in double precision, so that a difference in kind cannot hide behind one of rounding.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from conftest import SMALL, Governed, InMemory
from torch import Tensor, nn

from multiobj_data.errors import MobjError, UsageError
from reference_models import parallel
from reference_models.air import AIR
from reference_models.air_settings import AIRConfig
from reference_models.base import Loss
from reference_models.batches import Batches
from reference_models.computing import Computing
from reference_models.parallel import Workers
from reference_models.recording import TrainingLog
from reference_models.training import Progress, open_run, train
from reference_models.validation import Validation

CONFIG = SMALL | {"estimator": "vimco", "particles": 2, "warm_up": 4}
STEPS = 6
COMMON: dict[str, Any] = {
    "seed": 5,
    "batch_size": 8,
    "device": "cpu",
    "checkpoint_every": 3,
    "evaluate_every": 3,
}


class Steep(Governed):
    """Takes a gradient inside its objective, and has a weight that learns in the first three steps alone."""

    def __init__(self, config: AIRConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__(config, image_shape)
        self.early = nn.Parameter(torch.zeros(()))

    def objective(self, images: Tensor, noise: Any) -> Loss:
        z = noise.z.detach().requires_grad_()  # [B * particles, K, 3 + what_size]
        loss = super().objective(images, noise._replace(z=z))
        (slope,) = torch.autograd.grad(loss.terms["negative_bound"].sum(), z, retain_graph=True)
        size = slope.square().view(len(images), -1).sum(-1)  # [B]
        early = self.early if self.training_step <= 3 else self.early.detach()
        loss = loss + Loss({"early": (early - 1).square().expand(len(images))})
        return loss + Loss({"steep": size * (1 + self.first).square().sum()}, {"steep": 1e-6})


class Poisoned(AIR):
    """Has a loss that is not a number, at the third step of the second process."""

    def objective(self, images: Tensor, noise: Any) -> Loss:
        loss = super().objective(images, noise)
        bad = self.training_step == 3 and os.environ["RANK"] == "1"
        return Loss({**loss.terms, "bad": loss.per_image.detach() * (torch.nan if bad else 0)})


class Refusing(AIR):
    """Raises an error at the second step of the second process."""

    def objective(self, images: Tensor, noise: Any) -> Loss:
        if self.training_step == 2 and os.environ["RANK"] == "1":
            raise UsageError("the second process refuses.")
        return super().objective(images, noise)


def train_small(workers: Workers, out: Path, kind: type[AIR], **changes: Any) -> Any:
    """Train a small model for some steps on scenes in memory."""
    source = InMemory(40, seed=0)
    settings = {**COMMON, "steps": STEPS, "config": CONFIG, "validation": Validation(source), **changes}
    name = f"{kind.__module__.replace('__main__', 'two_processes')}:{kind.__name__}"
    return train(name, source, out, workers=workers, **settings)


def weights_after(workers: Workers, out: Path, model: str, steps: int, **config: Any) -> dict[str, Tensor]:
    """Return what this process holds some steps after the checkpoint, if there is one."""
    device, part = torch.device("cpu"), (workers.rank, workers.size)
    batches = Batches(InMemory(40, seed=0), 8, 5, device, part)
    with open_run(model, batches, out, CONFIG | config, None, resume=True, workers=workers) as run:
        for _ in range(steps):
            run.advance()
        return {name: value.clone() for name, value in run.model.state_dict().items()}


def outcome(work: Callable[[], Any]) -> dict[str, Any]:
    """Return what came of it, as JSON can hold it."""
    try:
        result = work()
    except (MobjError, KeyboardInterrupt) as error:
        return {"error": type(error).__name__, "text": str(error)}
    return {"steps": result.steps, "count_accuracy": result.count_accuracy}


def stop_second(progress: Progress) -> None:
    """Send SIGTERM to the second process at its second step."""
    if progress.step == 2 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)


def end_second(progress: Progress) -> None:
    """End the second process at its second step, as a crash would."""
    if progress.step == 2 and os.environ["RANK"] == "1":
        os._exit(1)


def run_command(workers: Workers, *arguments: str) -> dict[str, Any]:
    """Run the command line, in processes that know each other already."""
    from cli import main as cli_main

    parallel.launched = lambda: nullcontext(workers)  # type: ignore[assignment]
    sys.argv = ["mobj", *arguments]
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli_main._run()
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def main(folder: Path, data: str) -> None:
    """Run every scenario."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    TrainingLog.draw = lambda log: None  # type: ignore[method-assign]
    outcomes: dict[str, Any] = {}
    with parallel.launched() as workers:
        note = folder / f"outcomes-{workers.rank}.json"

        def scenario(name: str, kind: type[AIR], **changes: Any) -> None:
            outcomes[name] = outcome(lambda: train_small(workers, folder / name, kind, **changes))

        scenario("whole", Steep)
        weights = weights_after(workers, folder / "whole", "two_processes:Steep", 2)
        torch.save(weights, folder / f"weights-{workers.rank}.pt")
        moments = weights_after(workers, folder / "nvil", "air", 2, estimator="nvil")
        torch.save(moments, folder / f"moments-{workers.rank}.pt")
        scenario("poisoned", Poisoned)
        scenario("refusing", Refusing)
        scenario("indivisible", Governed, batch_size=9)
        scenario("bf16", Governed, steps=1, computing=Computing(precision="bf16"))
        (folder / "file").touch()
        scenario("file/in", Governed)  # which the first process alone finds out
        scenario("stopped", Governed, on_progress=stop_second)
        torch.set_default_dtype(torch.float32)
        sizes = [f"--set={name}={value}" for name, value in SMALL.items()]
        options = ["--data", data, "--batch-size", "8", "--steps", "2", *sizes]
        for name, *more in (("command",), ("again",), ("together", "--together", "--seeds", "2")):
            out = str(folder / name.replace("again", "command"))
            outcomes[name] = run_command(workers, "train", "air", *options, "--out", out, *more)
        note.write_text(json.dumps(outcomes))  # the second process does not live to do it later
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher ends who is left
        scenario("lost", Governed, on_progress=end_second)
        note.write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
