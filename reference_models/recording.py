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
        """Draw the ELBO and the count accuracy over the steps into ``curves.png``.

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
    """Plot minus the loss and, where measured, the count accuracy over the steps.

    Args:
        records: Lines of a log; those without a loss are passed over.
    """
    from matplotlib.figure import Figure  # half a second, and only wanted here
    from matplotlib.ticker import MaxNLocator

    measured = [record for record in records if "total" in record]
    figure = Figure(figsize=(7, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    steps = [record["step"] for record in measured]
    upper.plot(steps, [-record["total"] for record in measured], color="tab:blue", marker=".")
    upper.set_ylabel("minus the loss, training (nats)")
    counted = [record for record in measured if record["count_accuracy"] is not None]
    lower.plot(
        [record["step"] for record in counted],
        [100 * record["count_accuracy"] for record in counted],
        color="tab:orange",
        marker=".",
    )
    lower.set(ylabel="count accuracy, validation (%)", xlabel="training step", ylim=(-2, 102), xlim=(0, None))
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


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
    for name in ("total", "count_accuracy", "steps_per_s"):
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
