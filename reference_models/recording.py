"""What a training run leaves to look at: `log.jsonl`, `curves.png`, TensorBoard files if installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from multiobj_data.files import make_folder, write_atomically

Record = dict[str, Any]
"""A line of the log: ``step`` and what was measured there, or a ``note`` or ``warning``."""


class TrainingLog:
    """The log of one run, continued where its checkpoint is.

    Args:
        folder: Where ``log.jsonl`` is.
        step: Step of the checkpoint that the run goes on from (0: none); later lines are cut, because the
            run is about to write them again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        make_folder(folder)
        self.folder = folder
        self.path = folder / "log.jsonl"
        self.records = [record for record in _read(self.path) if record["step"] <= step]
        write_atomically(self.path, "".join(map(_line, self.records)).encode())
        self._tensorboard = _tensorboard(folder / "tensorboard", step)
        if self._tensorboard is None and not self.records:
            self.write({"step": step, "note": "tensorboard is not installed: no tensorboard files."})

    def write(self, record: Record) -> None:
        """Append a line, and its numbers to TensorBoard."""
        self.records.append(record)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(_line(record))
        if self._tensorboard is not None:
            for name, value in _numbers(record).items():
                self._tensorboard.add_scalar(name, value, record["step"])
            self._tensorboard.flush()

    def draw(self) -> None:
        """Draw the ELBO and the count accuracy over the steps into ``curves.png``."""
        draw_curves(self.records, self.folder / "curves.png")

    def close(self) -> None:
        """Close the TensorBoard files."""
        if self._tensorboard is not None:
            self._tensorboard.close()


def draw_curves(records: list[Record], path: Path) -> None:
    """Draw minus the loss and, where measured, the count accuracy over the steps.

    Args:
        records: Lines of a log; those without a loss are passed over.
        path: The PNG to write.
    """
    from matplotlib.figure import Figure  # half a second, and only wanted here

    measured = [record for record in records if "total" in record]
    if not measured:
        return
    figure = Figure(figsize=(7, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    steps = [record["step"] for record in measured]
    upper.plot(steps, [-record["total"] for record in measured], color="tab:blue", marker=".")
    upper.set_ylabel("ELBO, training (nats)")
    counted = [record for record in measured if record["count_accuracy"] is not None]
    lower.plot(
        [record["step"] for record in counted],
        [100 * record["count_accuracy"] for record in counted],
        color="tab:orange",
        marker=".",
    )
    lower.set(ylabel="count accuracy, validation (%)", xlabel="training step", ylim=(0, 102), xlim=(0, None))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _read(path: Path) -> list[Record]:
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:  # the last line of a run that was killed while it wrote
            break
    return records


def _line(record: Record) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _numbers(record: Record) -> dict[str, float]:
    numbers = {f"loss/{name}": value for name, value in record.get("terms", {}).items()}
    for name in ("total", "count_accuracy", "steps_per_s"):
        if record.get(name) is not None:
            numbers[name] = record[name]
    return numbers


def _tensorboard(folder: Path, step: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
