from __future__ import annotations

import io
import logging
import threading
from pathlib import Path

import numpy as np
import pytest

from multiobj_data.errors import DataError
from reference_models.recording import TrainingLog, plot_curves

LINES = ['{"step": 1, "total": 3.0}', '{"step": 2, "total": 2.0}', '{"step": 3, "total": 1.0}']


def reopen(folder: Path, text: str) -> list[int]:
    """Return the steps that a log of this content still has."""
    (folder / "log.jsonl").write_text(text)
    log = TrainingLog(folder, step=9)
    log.close()
    return [record["step"] for record in log.records]


@pytest.mark.parametrize("garbage", ["garbage", '{"step": 1, "to', "5", "{}", '{"step": "one"}'])
def test_only_the_last_line_may_be_torn(tmp_path: Path, garbage: str) -> None:
    assert reopen(tmp_path, "\n".join([*LINES, garbage])) == [1, 2, 3]
    for place in range(3):
        lines = [*LINES[:place], garbage, *LINES[place:]]
        with pytest.raises(DataError, match=rf"log\.jsonl, line {place + 1}: expected a JSON record"):
            reopen(tmp_path, "\n".join(lines))
        assert (tmp_path / "log.jsonl").read_text() == "\n".join(lines)  # nothing was dropped


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own
def test_failing_tensorboard_is_told_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard")
    before = set(threading.enumerate())
    log = TrainingLog(tmp_path, step=0)
    (events,) = (tmp_path / "tensorboard").iterdir()
    (full := tmp_path / "full").symlink_to("/dev/full")
    full.replace(
        events
    )  # at once: TensorBoard opens its file anew for every piece, and would make it where none is
    with caplog.at_level(logging.WARNING, "reference_models"):
        for step in (1, 2, 3):
            log.write({"step": step, "total": 1.0})
        log.close()
    again = TrainingLog(tmp_path, step=9)
    assert [record["step"] for record in again.records] == [1, 2, 3]
    again.close()
    (message,) = caplog.messages
    assert "No space left" in message
    assert "goes on without TensorBoard" in message
    for thread in set(threading.enumerate()) - before:  # TensorBoard's own may raise long after the test
        thread.join(timeout=30)


def test_curves_show_accuracy_zero_and_whole_steps() -> None:
    figure = plot_curves(
        [{"step": step, "total": 1.0, "count_accuracy": accuracy} for step, accuracy in ((1, 0.0), (2, 1.0))]
    )
    figure.savefig(io.BytesIO())  # lays the ticks out
    _, lower = figure.axes
    low, high = lower.get_ylim()
    assert low < 0
    assert high > 100
    ticks = np.array(lower.get_xticks())
    np.testing.assert_array_equal(ticks, ticks.round())
