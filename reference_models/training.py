"""The one training loop, for every model.

A run is a function of (model, settings, data, seed, steps, batch size): on the CPU an interrupted and
resumed run ends with the same bits as one that was left alone.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiobj_data.errors import UsageError
from multiobj_data.files import make_folder
from multiobj_data.loading import SceneSource
from multiobj_data.shards.journal import hold_lock
from reference_models.batches import Batches
from reference_models.checkpoints import build_model
from reference_models.computing import PLAIN, Computing
from reference_models.denormals import flushed_denormals
from reference_models.parallel import ALONE, Workers
from reference_models.recording import Record
from reference_models.runs import Run, TrainingResult
from reference_models.validation import Validation

_STOPPING: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}
"""The signals that ask a run to stop, and their handlers as long as nobody has set another."""


@dataclass(frozen=True)
class Progress:
    """How far a run is, told after every step.

    Attributes:
        step: Steps done.
        steps: Steps to do in all.
        record: The log line written at this step, if any.
        warning: What the user should know, if anything.
    """

    step: int
    steps: int
    record: Record | None = None
    warning: str | None = None


def train(
    model_id: str,
    source: SceneSource,
    out: str | Path,
    *,
    seed: int,
    steps: int,
    batch_size: int = 64,
    device: str = "auto",
    config: Mapping[str, Any] | None = None,
    validation: Validation | None = None,
    resume: bool = False,
    checkpoint_every: int = 1000,
    evaluate_every: int = 250,
    workers: Workers = ALONE,
    computing: Computing = PLAIN,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> TrainingResult:
    """Train a model and leave ``checkpoint.pt``, ``log.jsonl`` and ``curves.png`` in ``OUT/seed-S``.

    Args:
        model_id: Built-in id, ``package.module:Class``, or installed name.
        source: Training data; only its images are used.
        out: Folder of the runs; each seed has its own folder in it.
        seed: Decides initial weights, order and noise.
        steps: Steps in all, those before a resume included.
        batch_size: Images a step, over all processes.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        config: Settings of the model that are not to be the defaults.
        validation: What the live scores are measured on; see `Validation`.
        resume: Go on from the checkpoint if there is one.
        checkpoint_every: Steps between checkpoints; there is one at the end and on interruption as well.
        evaluate_every: Steps between lines of the log.
        workers: The processes that train this one run, each of which calls this function.
        computing: How losses are computed.
        on_progress: Called after every step, in every process.

    Raises:
        UsageError: Malformed settings; a run is already there; or it is to be resumed with other settings.
        DataError: The checkpoint or the log to resume from is damaged.
        MobjError: The loss or the gradient is not finite, a file cannot be written, or another run trains in the
            same folder; in every process alike, unless one is lost.
        KeyboardInterrupt: On Ctrl-C, and on SIGTERM as clusters send it: after a checkpoint.
    """
    with workers.unanimous():
        check_counts(steps=steps, checkpoint_every=checkpoint_every, evaluate_every=evaluate_every)
        part = (workers.rank, workers.size)
        batches = Batches(source, batch_size, seed, workers.device(device), part)
    opened = open_run(
        model_id,
        batches,
        out,
        config or {},
        validation,
        resume=resume,
        workers=workers,
        computing=computing,
    )
    with (
        flushed_denormals(),
        opened as run,
        deferred_interrupt() as interrupted,
    ):  # nor is saving disturbed: launchers signal twice
        try:
            while run.step < steps:
                run.advance()
                last = run.step == steps
                record = run.evaluate() if last or run.step % evaluate_every == 0 else None
                if last or run.step % checkpoint_every == 0:
                    run.save()
                on_progress(Progress(run.step, steps, record, run.new_warning()))
                if workers.any(interrupted.is_set()):
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            run.save()
            raise
    return run.result()


def check_counts(**counts: int) -> None:
    """Refuse numbers of steps below 1.

    Raises:
        UsageError: One is.
    """
    for name, value in counts.items():
        if value < 1:
            raise UsageError(f"train: {name} must be at least 1, got {value}.")


@contextmanager
def open_run(
    model_id: str,
    batches: Batches,
    out: str | Path,
    config: Mapping[str, Any],
    validation: Validation | None,
    *,
    resume: bool,
    workers: Workers = ALONE,
    computing: Computing = PLAIN,
) -> Iterator[Run]:
    """Yield the run of ``batches.seed`` in its folder, which is locked and whose log is open meanwhile.

    Raises:
        UsageError, DataError, MobjError: As `train`.
    """
    source = batches.source
    folder = Path(out) / f"seed-{batches.seed}"
    with ExitStack() as opened:
        with workers.unanimous():
            model = build_model(model_id, config, source.image_shape, batches.seed).to(batches.device)
            if workers.first:
                make_folder(folder)
                opened.enter_context(hold_lock(folder, (0, 1)))
            run = Run(
                model_id,
                model,
                batches,
                folder,
                validation,
                resume=resume,
                workers=workers,
                computing=computing,
            )
            opened.callback(run.close)
        _refuse_other_steps(run)
        yield run


def _refuse_other_steps(run: Run) -> None:
    """Refuse processes that do not see the same checkpoint.

    Raises:
        UsageError: They would go on from different steps.
    """
    steps = sorted(set(run.workers.gather(run.step)))
    if len(steps) > 1:
        raise UsageError(
            f"{run.path}: the processes would go on from steps {', '.join(map(str, steps))}; give an --out that "
            "every machine sees."
        )


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into an event, so that no step is left half done (and saved so)."""
    asked = threading.Event()
    ours = []
    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        ours = [number for number, default in _STOPPING.items() if signal.getsignal(number) == default]
    for number in ours:
        signal.signal(number, lambda number, frame: asked.set())
    try:
        yield asked
    finally:
        for number in ours:
            signal.signal(number, _STOPPING[number])
