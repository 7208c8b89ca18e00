"""One training run: its state, its steps, and how it is saved and taken up again."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multiobj_data.errors import DataError, MobjError, UsageError
from reference_models.base import SceneModel
from reference_models.batches import Batches
from reference_models.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from reference_models.computing import PLAIN, Computing, StepLoss
from reference_models.parallel import ALONE, Workers
from reference_models.recording import Record, TrainingLog
from reference_models.validation import LiveScores, Validation

WARM_UP = 2000
"""Steps before a model may be called collapsed: AIR sees one object in every image for some hundred steps."""


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to.

    Attributes:
        seed: Of the run.
        steps: Steps done.
        seconds: Time spent, over all sessions of the run.
        count_accuracy: On the validation scenes, at the end; ``None`` without them, and of a model that does not count.
        ari_fg: The same, of a model that segments and does not count.
        collapsed: Whether the model calls every validation scene empty, or every one full; ``None`` if that
            was not judged: before step `WARM_UP`, without validation data, or of a model that does not count.
        checkpoint: The file.
    """

    seed: int
    steps: int
    seconds: float
    count_accuracy: float | None
    ari_fg: float | None
    collapsed: bool | None
    checkpoint: Path


_STATE = {
    "batch_size": int,
    "optimiser": dict,
    "seconds": float,
    "count_accuracy": float | None,
    "ari_fg": float | None,
    "collapsed": bool | None,
    "sums": dict,
}
"""What a run saves beside the model: name -> type."""


class Run:
    """The state of one run: model, optimiser, and the loss summed since the last line of its log.

    Args:
        model_id: The model's name.
        model: The model, on the device of the batches.
        batches: Training data.
        folder: Where the run's files are; it exists, and no other run writes to it.
        validation: Data with truth for the live count accuracy.
        resume: Go on from the checkpoint if there is one.
        workers: The processes of the run; the first alone writes.
        computing: How losses are computed.

    Raises:
        UsageError: There is a checkpoint, and it is not to be resumed or is of another run; or the model cannot be
            trained in this way.
        DataError: The checkpoint or the log is damaged.
    """

    def __init__(
        self,
        model_id: str,
        model: SceneModel,
        batches: Batches,
        folder: Path,
        validation: Validation | None,
        *,
        resume: bool,
        workers: Workers = ALONE,
        computing: Computing = PLAIN,
    ) -> None:
        self.model_id, self.model, self.batches = model_id, model, batches
        self.workers, self.computing = workers, computing
        self._loss = StepLoss(model, batches, computing, workers, model_id)
        self.path = folder / "checkpoint.pt"
        self.optimiser = torch.optim.Adam(model.parameter_groups(), fused=True)
        self._first_rates = [group["lr"] for group in self.optimiser.param_groups]
        self.step, self.seconds = 0, 0.0
        self.scores = LiveScores()
        self.collapsed: bool | None = None
        self.sums: dict[str, float] = {}
        if self.path.exists():
            self._load(resume)
        self.validation = validation if workers.first else None
        self._log = TrainingLog(folder, self.step) if workers.first else None
        self._warning: str | None = None
        self._logged = (self.step, self.seconds)
        self.start_clock()

    def start_clock(self) -> None:
        """Count time from now on as the run's."""
        self._started = time.perf_counter() - self.seconds

    def stop_clock(self) -> None:
        """Add the time since `start_clock` to the run's, up to now."""
        self.seconds = time.perf_counter() - self._started

    def advance(self) -> None:
        """Do one training step.

        Raises:
            MobjError: The loss or the gradient is not finite; the weights and what `SceneModel.after_step` keeps
                are left as they were.
        """
        step = self.step + 1
        self.model.train()
        self.model.training_step = step
        self.set_learning_rate(step)
        with self.workers.unanimous():
            terms, total, means = self._backward(step)
        if not self.workers.alone:
            self._average(total, means)
        norm = self._clip()
        mean, length, *values = torch.cat([torch.stack([total, norm]), means]).tolist()
        self.refuse_infinite(step, loss=mean, gradient=length)
        self.optimiser.step()
        with torch.no_grad():
            self.model.after_step(dict(zip(terms, means, strict=True)))
        self.count_step(step, {"total": mean, **dict(zip(terms, values, strict=True))})

    def _backward(self, step: int) -> tuple[list[str], Tensor, Tensor]:
        """Compute the gradients; return the names of the terms, the total and the terms' means ``[terms]``."""
        loss = self._loss(step)
        self.optimiser.zero_grad()
        total = loss.total
        total.backward()
        return list(loss.terms), total.detach(), loss.means()

    def _average(self, total: Tensor, means: Tensor) -> None:
        """Average over the processes what they computed on their parts of the batch."""
        parameters = [p for group in self.optimiser.param_groups for p in group["params"] if p.requires_grad]
        has = total.new_tensor([parameter.grad is not None for parameter in parameters])
        for parameter in parameters:
            if parameter.grad is None:  # the others may have one
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self.workers.average([total, means, has, *gradients, *self._loss.moments()])
        for parameter, share in zip(parameters, has.tolist(), strict=True):
            if not share:  # in no process: Adam lets it rest, which with a gradient of 0 it would not
                parameter.grad = None

    def count_step(self, step: int, means: Mapping[str, float]) -> None:
        """Take note that step ``step`` is done, at which the total and the terms had these means."""
        self.step = step
        for name, value in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.sums["steps"] = self.sums.get("steps", 0.0) + 1

    def _clip(self) -> Tensor:
        """Shorten long gradients, group by group or tensor by tensor; return the longest norm found."""
        parts = [[p for p in group["params"] if p.grad is not None] for group in self.optimiser.param_groups]
        if self.model.config.clip_each:
            parts = [[parameter] for part in parts for parameter in part]
        clip = self.model.config.gradient_clip
        return torch.stack([torch.nn.utils.clip_grad_norm_(part, clip) for part in parts if part]).amax()

    def refuse_infinite(self, step: int, **numbers: float) -> None:
        """Raise the error that ends the run if a number is not finite.

        Raises:
            MobjError: One is not.
        """
        kept = f"{self.path} holds the last checkpoint" if self.path.exists() else "no checkpoint was written"
        for name, number in numbers.items():
            if not math.isfinite(number):
                raise MobjError(
                    f"the {name} is not finite at step {step}; {kept}; try a smaller learning_rate."
                )

    def set_learning_rate(self, step: int) -> None:
        """Set the optimiser to what it is to learn with at step ``step``."""
        # A function of the step alone, so that neither a resume nor the length of the run changes it.
        config = self.model.config
        factor = 0.5 ** ((step - 1) / config.half_life)
        if step < config.warm_up:
            factor *= step / config.warm_up
        for group, rate in zip(self.optimiser.param_groups, self._first_rates, strict=True):
            group["lr"] = rate * factor

    def evaluate(self) -> Record:
        """Measure the live scores and write a line of the log (its loss: mean since the last line)."""
        measured = self.workers.on_first(self._measure)
        record, self.scores, self.collapsed, self._warning = measured
        self.sums, self._logged = {}, (self.step, self.seconds)
        return record

    def _measure(self) -> tuple[Record, LiveScores, bool | None, str | None]:
        if self.validation is not None:
            self.scores = self.validation.score(self.model)
            self._judge()
        self.stop_clock()
        step, seconds = self._logged
        n = self.sums.pop("steps")
        means = {name: value / n for name, value in self.sums.items()}
        record = {
            "step": self.step,
            "total": means.pop("total"),
            "terms": means,
            "count_accuracy": self.scores.count_accuracy,
            "ari_fg": self.scores.ari_fg,
            "steps_per_s": round((self.step - step) / (self.seconds - seconds), 3),
            "elapsed_s": round(self.seconds, 3),
        }
        self._write_log(record)
        return record, self.scores, self.collapsed, self._warning

    def _write_log(self, record: Record) -> None:
        if self._log is not None:
            self._log.write(record)

    def new_warning(self) -> str | None:
        """Return the warning that came up since the last call, if any."""
        warning, self._warning = self._warning, None
        return warning

    def _judge(self) -> None:
        """Say whether the model has collapsed, and warn when that begins."""
        if self.scores.count_accuracy is None or self.step < WARM_UP:
            return
        stuck = self.scores.stuck
        was_collapsed, self.collapsed = self.collapsed, stuck is not None
        if self.collapsed and not was_collapsed:
            self._warning = f"the model has collapsed: it counts {stuck} objects in every image."
            self._write_log({"step": self.step, "warning": self._warning})

    def save(self) -> None:
        """Write the checkpoint and draw the curves.

        Raises:
            MobjError: A file cannot be written; the checkpoint from before is untouched.
        """
        self.stop_clock()
        self.workers.on_first(self._write)

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()

    def _write(self) -> None:
        extras = {
            "batch_size": self.batches.batch_size,
            "optimiser": self.optimiser.state_dict(),
            "seconds": self.seconds,
            "count_accuracy": self.scores.count_accuracy,
            "ari_fg": self.scores.ari_fg,
            "collapsed": self.collapsed,
            "sums": dict(self.sums),
            **self.computing.facts(),
        }
        data = self.batches.source.reference
        checkpoint = Checkpoint(self.model_id, self.model, data, self.step, self.batches.seed, extras)
        save_checkpoint(self.path, checkpoint)
        if self._log is not None:
            self._log.draw()

    def result(self) -> TrainingResult:
        """Return what the run came to."""
        return TrainingResult(
            seed=self.batches.seed,
            steps=self.step,
            seconds=self.seconds,
            count_accuracy=self.scores.count_accuracy,
            ari_fg=self.scores.ari_fg,
            collapsed=self.collapsed,
            checkpoint=self.path,
        )

    def _load(self, resume: bool) -> None:
        if not resume:
            raise UsageError(
                f"{self.path.parent} holds a run already; go on with --resume, or give another --out."
            )
        saved = load_checkpoint(self.path, self.batches.device, trusted=(self.model_id,))
        for name, kind in _STATE.items():
            if not isinstance(saved.extras.get(name, ...), kind):
                raise DataError(
                    f"{self.path}: has no {name.replace('_', ' ')} to go on from; it can be evaluated, but not "
                    "resumed: train anew with another --out."
                )
        self._refuse_other(saved)
        self.model.load_state_dict(saved.model.state_dict())
        self._load_optimiser(saved.extras["optimiser"])
        self.step, self.seconds = saved.step, saved.extras["seconds"]
        self.scores = LiveScores(saved.extras["count_accuracy"], saved.extras["ari_fg"])
        self.collapsed = saved.extras["collapsed"]
        self.sums = dict(saved.extras["sums"])

    def _load_optimiser(self, state: dict[str, Any]) -> None:
        try:
            self.optimiser.load_state_dict(state)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{self.path}: the optimiser's state is not that of a {self.model_id!r}; train anew with "
                "another --out."
            ) from error

    def _refuse_other(self, saved: Checkpoint) -> None:
        this = Checkpoint(
            self.model_id, self.model, self.batches.source.reference, self.step, self.batches.seed
        )
        how = self.computing.facts()
        before = _identity(saved) | {"batch size": saved.extras["batch_size"]}
        before |= {name: saved.extras.get(name, usual) for name, usual in PLAIN.facts().items()}
        now = _identity(this) | {"batch size": self.batches.batch_size, **how}
        for name in before.keys() | now.keys():
            if before.get(name) != now.get(name):
                was = "other data" if name == "data" else f"{name} {before.get(name)}"
                got = "" if name == "data" else f", not {now.get(name)}"
                raise UsageError(
                    f"{self.path} was trained with {was}{got}; resume with the same settings, "
                    "or give another --out."
                )


def _identity(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what must not change when a run is resumed, by name."""
    data = {name: value for name, value in checkpoint.data.items() if name != "folder"}  # data may move
    return {"model": checkpoint.model_id, "seed": checkpoint.seed, "data": data, **checkpoint.config}
