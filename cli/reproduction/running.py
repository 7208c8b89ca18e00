"""One cell from data to figures: trained, scored, pictured, each part taken up where it was left."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.live import live_note, validation_of
from cli.reproduction.cells import EVALUATION, FAILURE, Cell
from cli.reproduction.generation import FIGURES, measure_generation
from cli.reproduction.judging import features_path
from cli.reproduction.tables import Scale, Table, find_table
from multiobj_data.composition.memory import keep_freed_memory
from multiobj_data.errors import MobjError, UsageError
from multiobj_data.files import to_json, write_atomically

Tell = Callable[[int, str | None], None]
"""Is told training steps just done, and what is going on, if that is new."""

_CHECKPOINTS, _MOST_BETWEEN = 2, 1000
_SCORED_AT_ONCE = 250
_SHOWN, _SAMPLED = 8, 24  # images of the pictures


@dataclass(frozen=True)
class Work:
    """A cell with all that it takes to run it, in this process or another.

    Attributes:
        table: Name of the table.
        scale: How much is measured.
        cell: The cell.
        out: Folder of the reproduction.
        data: Folder of its data set.
        data_identity: What decides the data set's bytes.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        threads: CPU threads; ``None``: PyTorch's choice.
        jobs: How many cells are run side by side.
    """

    table: str
    scale: Scale
    cell: Cell
    out: Path
    data: Path
    data_identity: Mapping[str, Any]
    device: str
    threads: int | None
    jobs: int = 1

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.cell.folder(self.out)

    @property
    def identity(self) -> dict[str, Any]:
        """What a finished result must agree with."""
        names = ["samples", "draws", "baseline_steps"]
        if find_table(self.table).measure == "generation":
            names += ["features", "feature_steps"]
        measured = {name: getattr(self.scale, name) for name in names}
        plain: dict[str, Any] = json.loads(json.dumps(self.cell.identity(self.data_identity) | measured))
        return plain


def result_of(work: Work) -> dict[str, Any] | None:
    """Return the result of a cell that is finished with these very settings, or ``None``."""
    document = _read(work.folder / EVALUATION)
    return document if document.get("cell") == work.identity else None


def failure_of(work: Work) -> str | None:
    """Return why the cell failed with these very settings, if it did and was not finished since."""
    document = _read(work.folder / FAILURE)
    return document.get("error") if document.get("cell") == work.identity else None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def run_cell(work: Work, tell: Tell) -> None:
    """Train, score and picture one cell; leave its checkpoint, ``evaluation.json`` and two pictures.

    Raises:
        MobjError: It cannot be done; if the fault is the cell's own, the reason is kept in ``failure.json``.
        KeyboardInterrupt: On Ctrl-C, and on SIGTERM during training: after a checkpoint.
    """
    keep_freed_memory()
    if work.threads:
        import torch

        torch.set_num_threads(work.threads)
    try:
        seconds = _train(work, tell)
        _measure(work, seconds, tell)
    except MobjError as error:
        outside = isinstance(error, UsageError) or isinstance(error.__cause__, OSError)
        if not outside:  # of the request, the disk, or a lock (a timeout)
            failure = {"cell": work.identity, "error": str(error)}
            write_atomically(work.folder / FAILURE, to_json(failure).encode())
        raise
    (work.folder / FAILURE).unlink(missing_ok=True)


def _train(work: Work, tell: Tell) -> float:
    from multiobj_data.loading import open_dataset
    from reference_models.training import Progress, train

    cell, done = work.cell, 0

    def show(state: Progress) -> None:
        nonlocal done
        tell(state.step - done, live_note(state.record) if state.record else None)
        done = state.step

    result = train(
        cell.model,
        open_dataset(work.data, "train"),
        work.folder.parent,
        seed=cell.seed,
        steps=cell.steps,
        batch_size=cell.batch_size,
        device=work.device,
        config=cell.settings,
        validation=validation_of(open_dataset(work.data, "test")),
        resume=True,
        checkpoint_every=min(_MOST_BETWEEN, math.ceil(cell.steps / _CHECKPOINTS)),
        evaluate_every=math.ceil(cell.steps / work.scale.log_lines),
        on_progress=show,
    )
    if result.steps > cell.steps:
        raise UsageError(
            f"{work.folder} was trained for {result.steps:,} steps, not {cell.steps:,}; ask for as many with --steps, "
            "or give another --out."
        )
    if done == 0:
        tell(cell.steps, None)
    return result.seconds


def _measure(work: Work, seconds: float, tell: Tell) -> None:
    from cli.reproduction.curves import curve_of
    from multiobj_data.devices import resolve_device
    from multiobj_data.loading import open_dataset
    from reference_models.checkpoints import load_checkpoint

    table = find_table(work.table)
    tell(0, "scoring")
    model = load_checkpoint(
        work.folder / "checkpoint.pt", resolve_device(work.device), trusted=(work.cell.model,)
    ).model
    source = open_dataset(work.data, "test")
    evaluation = _score(work, table, model, source)
    if table.measure == "generation":
        _draw_slots(work, model, source)
    else:
        _draw(work, model, source)
    document = {
        "schema_version": 1,
        "cell": work.identity,
        "seconds": seconds,
        "jobs": work.jobs,
        "curve": curve_of(work.folder),
        "evaluation": evaluation.to_json(),
        "overlap": _overlap(work, table, model, tell),
        "variance": _variance(work, table, model, source, tell),
        "generation": _generation(work, table, model, source, tell),
    }
    write_atomically(work.folder / EVALUATION, to_json(document).encode())


def _score(work: Work, table: Table, model: Any, source: Any) -> Any:
    from metrics import evaluate
    from multiobj_data.loading import batches

    return evaluate(
        model,
        batches(source, _SCORED_AT_ONCE),
        metrics=[metric.of for metric in table.metrics.values() if metric.of not in FIGURES],
        model=work.cell.name,
        dataset={"id": source.manifest.dataset, "split": source.split, "scenes": len(source)},
        examples=0,
    )


def _draw(work: Work, model: Any, source: Any) -> None:
    import numpy as np

    from cli.reproduction.drawing import drawn_at_once
    from cli.reproduction.pictures import draw_reconstructions, draw_samples

    scenes = source.scenes(np.arange(min(_SHOWN, len(source))))
    about = f"{work.cell.name}, {work.cell.steps:,} steps"
    draw_reconstructions(
        scenes,
        model.predict(scenes.image),
        work.folder / "reconstructions.png",
        f"{about}: scenes with true boxes, reconstructions with inferred ones",
    )
    # A geometric prior is a penalty: nearly all that it draws is empty. Its samples get the data's counts.
    believes = model.config.count_prior not in ("geometric", "per-step")
    counts = None if believes else source.scenes(np.arange(min(_SAMPLED, len(source)))).count
    part = drawn_at_once(model, _SAMPLED if counts is None else len(counts), counts)
    how = "samples" + ("" if believes else " given the counts of test scenes")
    how += ", with their windows" if part.windows.shape[1] else ""
    draw_samples(part.images, part.windows, part.count, work.folder / "samples.png", f"{about}: {how}")


def _draw_slots(work: Work, model: Any, source: Any) -> None:
    import numpy as np

    from cli.slot_pictures import draw_slot_model

    images = source.images(np.arange(min(_SHOWN, len(source))))
    draw_slot_model(model, images, work.folder)


def _generation(work: Work, table: Table, model: Any, source: Any, tell: Tell) -> dict[str, Any] | None:
    if table.measure != "generation":
        return None
    column = table.columns[work.cell.column]
    path = features_path(work.out, work.cell.column)
    return measure_generation(model, source, column, work.scale, path, lambda note: tell(0, note))


def _overlap(work: Work, table: Table, model: Any, tell: Tell) -> dict[str, Any] | None:
    from cli.reproduction.drawing import overlap_of_samples

    if table.measure != "overlap":
        return None
    tell(0, "drawing samples")
    return overlap_of_samples(model, work.scale.samples)


def _variance(work: Work, table: Table, model: Any, source: Any, tell: Tell) -> dict[str, Any] | None:
    import numpy as np
    import torch

    from cli.reproduction.variance import measure_variance
    from multiobj_data.loading import open_dataset

    if table.measure != "variance":
        return None
    images = source.images(np.arange(min(work.cell.batch_size, len(source))))
    return measure_variance(
        work.cell.model,
        model,
        open_dataset(work.data, "train"),
        torch.as_tensor(images, device=model.device),
        work.scale,
        table.variance["groups"],
        work.folder,
        work.identity,
        lambda estimator: tell(0, f"variance of {estimator}"),
    )
