"""What a training run leaves to look at: `log.jsonl`, `curves.png`, TensorBoard files if installed."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multiobj_data.errors import DataError
from multiobj_data.files import explain_os_errors, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

RESUME = "put that right and go on with --resume."
"""What to do after a file of a run could not be written."""

Record = dict[str, Any]
"""A line of the log: ``step`` and what was measured there, or a ``note`` or ``warning``."""


class TrainingLog:
    """The log of one run, continued where its checkpoint is.

    Args:
        folder: An existing folder, where ``log.jsonl`` is.
        step: Step of the checkpoint that the run goes on from (0: none); later lines are cut, because the
            run is about to write them again.

    Raises:
        DataError: The log from before is damaged.
        MobjError: The log cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self.path = folder / "log.jsonl"
        self.records = [record for record in _read(self.path) if record["step"] <= step]
        write_atomically(self.path, "".join(map(_line, self.records)).encode(), RESUME)
        self._tensorboard = _TensorBoard(folder / "tensorboard", step)
        if not self._tensorboard.installed and not self.records:
            self.write({"step": step, "note": "tensorboard is not installed: no tensorboard files."})

    def write(self, record: Record) -> None:
        """Append a line, and its numbers to TensorBoard.

        Raises:
            MobjError: The line cannot be written.
        """
        self.records.append(record)
        with explain_os_errors(self.path, RESUME), open(self.path, "a", encoding="utf-8") as file:
            file.write(_line(record))
        self._tensorboard.write(record)

    def draw(self) -> None:
        """Draw minus the loss and the live score over the steps into ``curves.png``.

        Raises:
            MobjError: The file cannot be written; the one from before is untouched.
        """
        if any("total" in record for record in self.records):
            buffer = io.BytesIO()
            plot_curves(self.records).savefig(buffer, dpi=150)
            write_atomically(self.folder / "curves.png", buffer.getvalue(), RESUME)

    def close(self) -> None:
        """Close the TensorBoard files."""
        self._tensorboard.close()


def plot_curves(records: list[Record]) -> Figure:
    """Plot minus the loss and, where measured, the count accuracy or ARI-FG over the steps.

    Args:
        records: Lines of a log; those without a loss are passed over.
    """
    from matplotlib.figure import Figure  # half a second, and only wanted here
    from matplotlib.ticker import MaxNLocator

    measured = [record for record in records if "total" in record]
    curves = [
        ("minus the loss, training (nats)", None, [(r["step"], -r["total"]) for r in measured]),
        ("count accuracy, validation (%)", (-2, 102), _scores(measured, "count_accuracy", 100)),
        ("ARI-FG, validation", (-0.05, 1.02), _scores(measured, "ari_fg")),
    ]
    shown = [curve for curve in curves if curve[2]]
    figure = Figure(figsize=(7, 2.5 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, colour, (label, limits, points) in zip(panels, ("tab:blue", "tab:orange"), shown, strict=False):
        axes.plot(*zip(*points, strict=True), color=colour, marker=".")
        axes.set(ylabel=label, ylim=limits)
    panels[-1].set(xlabel="training step", xlim=(0, None))
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _scores(records: list[Record], name: str, factor: float = 1) -> list[tuple[int, float]]:
    """Return (step, score) of the records that have it."""
    return [(record["step"], factor * record[name]) for record in records if record.get(name) is not None]


def _read(path: Path) -> list[Record]:
    if not path.exists():
        return []
    with explain_os_errors(path, RESUME):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records = [_record(line) for line in lines]
    if records and records[-1] is None:  # of a run that was killed while it wrote
        records.pop()
    if None in records:
        raise DataError(
            f"{path}, line {records.index(None) + 1}: expected a JSON record with a step; "
            "delete the line and go on with --resume."
        )
    return [record for record in records if record]


def _record(line: str) -> Record | None:
    """Return the record on a line; ``None`` if there is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _line(record: Record) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _numbers(record: Record) -> dict[str, float]:
    numbers = {f"loss/{name}": value for name, value in record.get("terms", {}).items()}
    for name in ("total", "count_accuracy", "ari_fg", "steps_per_s"):
        if record.get(name) is not None:
            numbers[name] = record[name]
    return numbers


class _TensorBoard:
    """TensorBoard files if it is installed: an extra, whose failure is told but ends no run."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self.installed = importlib.util.find_spec("tensorboard") is not None
        self._writer: Any = None
        if self.installed:
            from torch.utils.tensorboard import SummaryWriter

            with self._giving_up():
                self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, record: Record) -> None:
        if self._writer is not None:
            with self._giving_up():
                for name, value in _numbers(record).items():
                    self._writer.add_scalar(name, value, record["step"])
                self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            with self._giving_up():
                self._writer.close()

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._writer = None
            logger.warning(
                "cannot write to %s (%s); training goes on without TensorBoard files.", self.folder, error
            )
