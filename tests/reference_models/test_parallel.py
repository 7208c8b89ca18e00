"""Two processes train as one does: same losses, same weights, same errors."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from multiobj_data.errors import UsageError
from reference_models.batches import Batches
from reference_models.parallel import ALONE, Workers, launched
from reference_models.recording import TrainingLog

HERE = Path(__file__).parent
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run `two_processes` once; return the folder that it fills."""
    from multiobj_data.generation.plan import Plan
    from multiobj_data.generation.running import generate

    folder = tmp_path_factory.mktemp("two")
    generate(
        Plan.create("multi-mnist", {"digits": "bundled"}, splits={"train": 16, "val": 4}), folder / "data"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = [str(HERE / "two_processes.py"), str(folder), str(folder / "data")]
    done = subprocess.run(
        [*launcher, *script],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    (folder / "err").write_text(done.stderr)
    assert (folder / "outcomes-0.json").exists(), done.stderr
    return folder


@pytest.fixture(params=[0, 1], ids=["first", "second"])
def outcomes(folder: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What became of each scenario in one of the processes."""
    outcomes: dict[str, Any] = json.loads((folder / f"outcomes-{request.param}.json").read_text())
    return outcomes


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Run a scenario of `two_processes` in this process; return its folder."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setattr(TrainingLog, "draw", lambda log: None)
    script = importlib.import_module("two_processes")
    torch.set_default_dtype(torch.float64)

    def train(kind: str, **changes: Any) -> Path:
        script.train_small(ALONE, tmp_path / "alone", getattr(script, kind), **changes)
        return tmp_path / "alone" / "seed-5"

    yield train
    torch.set_default_dtype(torch.float32)


def log_of(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line for line in lines if "total" in line]


def test_two_processes_compute_what_one_computes(folder: Path, alone: Callable[..., Path]) -> None:
    run = alone("Steep", steps=8)
    one, two = log_of(run)[:2], log_of(folder / "whole" / "seed-5")
    assert [line["step"] for line in two] == [3, 6]
    for left, right in zip(one, two, strict=True):
        assert right["total"] == pytest.approx(left["total"], rel=1e-12)
        assert right["terms"] == pytest.approx(left["terms"], rel=1e-9, abs=1e-11)
        assert right["count_accuracy"] == left["count_accuracy"]
    expected = torch.load(run / "checkpoint.pt", weights_only=True)["weights"]
    first, second = (torch.load(folder / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert expected["log_weight"].abs() > 0.1
    assert expected["early"] > 0
    for name, weight in expected.items():  # two steps after the checkpoint, which both have read
        torch.testing.assert_close(first[name], weight, rtol=1e-9, atol=1e-11, msg=name)
        assert torch.equal(first[name], second[name]), name


def test_what_one_process_finds_wrong_ends_both(outcomes: dict[str, Any]) -> None:
    for name, error, text in (
        ("poisoned", "MobjError", "the loss is not finite at step 3; no checkpoint was written"),
        ("refusing", "UsageError", "the second process refuses."),
        ("indivisible", "UsageError", "of all 2 processes together and must be a multiple of 2, got 9"),
        ("file/in", "MobjError", "a file is in the way"),
        ("stopped", "KeyboardInterrupt", ""),
    ):
        assert outcomes[name]["error"] == error, name
        assert text in outcomes[name]["text"]
    assert outcomes["whole"]["steps"] == 6
    assert outcomes["bf16"]["steps"] == 1


def test_a_signal_to_one_process_saves_and_ends_both(folder: Path) -> None:
    assert torch.load(folder / "stopped" / "seed-5" / "checkpoint.pt", weights_only=True)["step"] == 2


def test_the_end_of_one_process_ends_the_other(folder: Path) -> None:
    first = json.loads((folder / "outcomes-0.json").read_text())
    assert first["lost"]["error"] == "LostProcessError"
    assert "another process of this run has ended" in first["lost"]["text"]


def test_moments_of_batches_are_averaged_and_told(folder: Path) -> None:
    first, second = (torch.load(folder / f"moments-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["estimator.variance"] != 1
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert (folder / "err").read_text().count("keeps moments of its batches (estimator.mean") == 1


def test_the_first_process_alone_speaks(folder: Path) -> None:
    first, second = (json.loads((folder / f"outcomes-{rank}.json").read_text()) for rank in (0, 1))
    for name, code in (("command", 0), ("again", 2), ("together", 2)):
        assert first[name]["code"] == second[name]["code"] == code, first[name]
        assert (second[name]["out"], second[name]["err"]) == ("", "")
    assert "score a checkpoint with" in first["command"]["out"]
    assert "holds a run already" in first["again"]["err"]
    assert "--together trains all seeds in one process" in first["together"]["err"]


def test_a_part_of_a_batch_has_its_rows_of_the_noise(source: Any) -> None:
    whole = Batches(source, 8, 5, CPU)
    parts = [Batches(source, 8, 5, CPU, (rank, 4)) for rank in range(4)]
    noise = {"z": torch.arange(24.0).view(24, 1), "u": (torch.arange(8), None), "all": torch.tensor(3)}
    own = [part.own_rows(noise) for part in parts]
    assert torch.equal(torch.cat([part[7] for part in parts]), whole[7])
    assert torch.equal(torch.cat([rows["z"] for rows in own]), noise["z"])
    assert own[1]["z"].flatten().tolist() == [6, 7, 8, 9, 10, 11]
    assert own[3]["u"][0].tolist() == [6, 7]
    assert own[3]["u"][1] is None
    assert own[2]["all"] == 3
    with pytest.raises(UsageError, match=r"rows for each of 8 images.*\(9, 2\)"):
        parts[0].own_rows(torch.zeros(9, 2))


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # left over from something else: no address to meet at
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with launched() as workers:
        assert workers == ALONE
        assert workers.gather(3) == [3]


def test_each_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Workers(1, 2, 1).device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="a GPU of its own, and there are 1 for process 1"):
        Workers(1, 2, 1).device("cuda")
