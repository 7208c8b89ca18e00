"""Training several seeds in one process, step by step at once (see `reference_models.stacking`).

Each seed leaves the folder that `reference_models.training.train` leaves, and goes on from it: begun together
and resumed alone, or the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from multiobj_data.devices import resolve_device
from multiobj_data.errors import MobjError, UsageError
from multiobj_data.loading import SceneSource
from reference_models.base import SceneModel
from reference_models.batches import Batches
from reference_models.checkpoints import build_model
from reference_models.denormals import flushed_denormals
from reference_models.runs import Run, TrainingResult
from reference_models.stacking import Stack
from reference_models.training import Progress, check_counts, deferred_interrupt, open_run
from reference_models.validation import Validation


def train_together(
    model_id: str,
    source: SceneSource,
    out: str | Path,
    *,
    seeds: Sequence[int],
    steps: int,
    batch_size: int = 64,
    device: str = "auto",
    config: Mapping[str, Any] | None = None,
    validation: Validation | None = None,
    resume: bool = False,
    checkpoint_every: int = 1000,
    evaluate_every: int = 250,
    on_progress: Callable[[int, Progress], None] = lambda seed, progress: None,
) -> dict[int, TrainingResult | MobjError]:
    """Train a model with several seeds at once; what each leaves is what `train` leaves, up to rounding.

    A seed that fails (its loss is not finite, its checkpoint is damaged, its folder is in use) ends; the others go
    on. Seeds that are resumed at different steps catch up with each other first.

    Args:
        model_id: See `reference_models.training.train`, as for all that is not named here.
        source: Training data, held once.
        out: Folder of the runs.
        seeds: All different.
        steps: Steps in all.
        batch_size: Images a step and a seed.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        config: Settings of the model.
        validation: What the live scores are measured on; see `Validation`.
        resume: Go on from the checkpoints that there are.
        checkpoint_every: Steps between checkpoints.
        evaluate_every: Steps between lines of the logs.
        on_progress: Called with the seed after every step of each.

    Returns:
        What became of each seed: its result, or the error that ended it. Its seconds are those of the clock on
        the wall, which all seeds share.

    Raises:
        UsageError: Malformed settings; what the first seed is refused for, the others would be as well; or a model
            whose noise is not apart from its loss.
        DataError: The training data cannot be read.
        KeyboardInterrupt: On Ctrl-C and SIGTERM: after checkpoints.
    """
    check_counts(steps=steps, checkpoint_every=checkpoint_every, evaluate_every=evaluate_every)
    if not seeds or len(set(seeds)) < len(seeds):
        raise UsageError(f"train: expected seeds that are all different, got {', '.join(map(str, seeds))}.")
    batches = Batches(source, batch_size, seeds[0], resolve_device(device))
    _refuse_inseparable(model_id, build_model(model_id, config or {}, source.image_shape, seeds[0]))
    with ExitStack() as folders:
        team = _Team(steps, checkpoint_every, evaluate_every, on_progress)
        for seed in seeds:
            with team.errors_of(seed, fatal=(UsageError,) if seed == seeds[0] else ()):
                opened = open_run(
                    model_id, batches.of_seed(seed), out, config or {}, validation, resume=resume
                )
                team.runs[seed] = folders.enter_context(opened)
        with flushed_denormals(), deferred_interrupt() as interrupted:
            team.train(interrupted)
    return {seed: team.errors.get(seed) or team.runs[seed].result() for seed in seeds}


def _refuse_inseparable(model_id: str, model: SceneModel) -> None:
    """Refuse a model whose noise is not apart from its loss.

    Raises:
        UsageError: It implements `SceneModel.loss` itself.
    """
    if not model.has_objective:
        raise UsageError(
            f"{model_id}: its noise is not apart from its loss, as training seeds together needs it "
            "(`draw` and `objective`); train the seeds one after the other."
        )


class _Team:
    """The runs of one call, and the errors of those that ended early."""

    def __init__(
        self,
        steps: int,
        checkpoint_every: int,
        evaluate_every: int,
        on_progress: Callable[[int, Progress], None],
    ) -> None:
        self.steps, self.checkpoint_every, self.evaluate_every = steps, checkpoint_every, evaluate_every
        self.on_progress = on_progress
        self.runs: dict[int, Run] = {}
        self.errors: dict[int, MobjError] = {}

    @contextmanager
    def errors_of(self, seed: int, fatal: tuple[type[MobjError], ...] = ()) -> Iterator[None]:
        """Note the error that ends a seed instead of raising it."""
        try:
            yield
        except fatal:
            raise
        except MobjError as error:
            self.errors[seed] = error

    def train(self, interrupted: Event) -> None:
        """Train until every run is done or has failed."""
        while behind := self._furthest_behind():
            others = [run.step for run in self._unfinished() if run.step > behind[0].step]
            self._advance(Stack(behind), min([*others, self.steps]), interrupted)

    def _unfinished(self) -> list[Run]:
        return [run for seed, run in self.runs.items() if seed not in self.errors and run.step < self.steps]

    def _furthest_behind(self) -> list[Run]:
        runs = self._unfinished()
        return [run for run in runs if run.step == min(other.step for other in runs)]

    def _advance(self, stack: Stack, until: int, interrupted: Event) -> None:
        """Do steps up to ``until``, or until a run fails: then the others go on in a stack of their own."""
        for run in stack.runs:
            run.start_clock()
        try:
            while stack.step < until and not self._failed(stack):
                for run, error in stack.advance().items():
                    self.errors[run.batches.seed] = error
                self._after_step(stack)
                if interrupted.is_set():
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            stack.write_back(self._alive(stack))
            for run in self._alive(stack):
                run.save()
            raise
        stack.write_back(self._alive(stack))
        for run in stack.runs:
            if run.step < self.steps:  # it may have to wait
                run.stop_clock()

    def _after_step(self, stack: Stack) -> None:
        step, last = stack.step, stack.step == self.steps
        evaluates, saves = last or step % self.evaluate_every == 0, last or step % self.checkpoint_every == 0
        alive = self._alive(stack)
        if evaluates or saves:
            stack.write_back(alive)
        records: dict[int, Any] = {}
        for run in alive:
            seed = run.batches.seed
            with self.errors_of(seed):
                records[seed] = run.evaluate() if evaluates else None
                if saves:
                    run.save()
        for run in self._alive(stack):
            seed = run.batches.seed
            self.on_progress(seed, Progress(step, self.steps, records[seed], run.new_warning()))

    def _alive(self, stack: Stack) -> list[Run]:
        return [run for run in stack.runs if run.batches.seed not in self.errors]

    def _failed(self, stack: Stack) -> bool:
        return len(self._alive(stack)) < len(stack.runs)
