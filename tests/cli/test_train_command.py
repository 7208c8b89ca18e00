import json
import shlex
import signal
import time

import pytest

from cli.console import parse_seeds
from multiobj_data.errors import UsageError

TINY = ("--set", "lstm_size=16", "--set", "hidden_size=16", "--set", "what_size=4", "--set", "window_size=8")
COMMON = ("--batch-size", 16, "--evaluate-every", 3, "--checkpoint-every", 3, "--device", "cpu", *TINY)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from multiobj_data.generation.plan import Plan
    from multiobj_data.generation.running import generate

    folder = tmp_path_factory.mktemp("data") / "digits"
    generate(Plan.create("multi-mnist", {"digits": "bundled"}, splits={"train": 64, "test": 20}), folder)
    return folder


@pytest.fixture
def train(mobj, data):
    """Run `mobj train air` on the small data."""

    def run(*arguments, model="air"):
        return mobj("train", model, "--data", data, *COMMON, *arguments)

    return run


def test_the_split_of_the_live_accuracy_is_named(train, tmp_path):
    result = train("--steps", 3, "--out", tmp_path / "run")
    assert "live score: count accuracy on the first 20 scenes of the test split" in result.err
    assert "count accuracy (live, test)" in result.out


def test_a_slot_model_has_a_live_ari_in_its_place(mobj, tmp_path):
    data, out = tmp_path / "data", tmp_path / "run"
    made = mobj(
        *(
            "generate",
            "multi-dsprites",
            "--set",
            "canvas=32",
            "--train",
            8,
            "--test",
            6,
            "--out",
            data,
            "--no-sheet",
        )
    )
    assert made.code == 0, made.err
    small = ("slots=3", "slot_size=8", "width=8", "lstm_size=8")
    settings = [argument for setting in small for argument in ("--set", setting)]
    result = mobj(
        "train", "genesis-v2", "--data", data, "--steps", 2, "--batch-size", 4, "--out", out, *settings
    )
    assert result.code == 0, result.err
    assert "ARI-FG (live, test)" in result.out
    assert "not judged" not in result.out
    score = json.loads((out / "seed-0" / "log.jsonl").read_text().splitlines()[-1])["ari_fg"]
    assert f"ARI-FG {score:.3f}" in result.err
    evaluated = mobj("evaluate", out / "seed-0" / "checkpoint.pt", "--metric", "ari_fg", "--json")
    assert json.loads(evaluated.out)["metrics"]["ari_fg"]["mean"] == pytest.approx(score, abs=1e-6)


def test_short_runs_are_not_judged(train, tmp_path):
    result = train("--steps", 3, "--out", tmp_path / "a")
    assert "did not collapse" not in result.out
    assert "not judged before step 2,000" in result.out
    document = json.loads(train("--steps", 3, "--out", tmp_path / "b", "--json").out)
    assert document["seeds"][0]["collapsed"] is None
    assert document["not_collapsed"] is None


def test_a_finished_run_says_that_there_is_nothing_to_do(train, tmp_path):
    train("--steps", 6, "--out", tmp_path / "run")
    result = train("--steps", 5, "--out", tmp_path / "run", "--resume")
    assert result.code == 0, result.err
    assert "seed 0: nothing to do, 6 steps are done" in result.err


def test_suggested_commands_can_be_pasted(train, tmp_path):
    out = tmp_path / "a run; echo $HOME"
    (line,) = [row for row in train("--steps", 3, "--out", out).out.splitlines() if "mobj evaluate" in row]
    assert shlex.split(line)[-1] == str(out / "seed-0" / "checkpoint.pt")


def test_a_failing_seed_does_not_end_the_others(train, tmp_path):
    out = tmp_path / "run"
    train("--steps", 3, "--seeds", "1,", "--out", out)
    (out / "seed-1" / "checkpoint.pt").write_bytes(b"damaged")
    result = train("--steps", 3, "--seeds", 3, "--out", out, "--resume")
    assert result.code == 1
    assert "seed 1 failed: " in result.err
    assert "checkpoint.pt: is no checkpoint" in result.err
    assert result.err.splitlines()[-1] == "error: 1 of 3 seeds failed: 1."
    rows = [line.split() for line in result.out.splitlines()]
    assert [row[0] for row in rows if row and row[0].isdecimal()] == ["0", "1", "2"]
    assert "FAILED" in result.out
    again = train("--steps", 3, "--seeds", 3, "--out", out, "--resume", "--json")
    document = json.loads(again.out)
    assert [row["seed"] for row in document["seeds"]] == [0, 2]
    assert [row["seed"] for row in document["failed"]] == [1]
    assert "is no checkpoint" in document["failed"][0]["error"]


def test_every_seed_that_diverges_is_named(train, tmp_path):
    result = train("--steps", 30, "--seeds", 2, "--out", tmp_path / "run", "--set", "learning_rate=1e30")
    assert result.code == 1
    for seed in (0, 1):
        assert f"seed {seed} failed: the " in result.err
    assert "2 of 2 seeds failed: 0, 1." in result.err


def test_a_malformed_request_is_refused_once(train, tmp_path):
    result = train("--seeds", 3, "--out", tmp_path / "run", "--batch-size", 1000)
    assert result.code == 2
    assert "failed" not in result.err


def test_seeds_trained_together_leave_what_they_leave_alone(train, tmp_path):
    import torch

    common = ("--steps", 4, "--seeds", "2,0", "--json")
    alone = train(*common, "--out", tmp_path / "alone")
    together = train(*common, "--out", tmp_path / "together", "--together")
    assert together.code == 0, together.err
    one, other = (json.loads(result.out)["seeds"] for result in (alone, together))
    assert [row["seed"] for row in one] == [row["seed"] for row in other] == [2, 0]
    for seed in (0, 2):
        assert (tmp_path / "together" / f"seed-{seed}" / "curves.png").exists()
    for left, right in zip(one, other, strict=True):
        weights = [torch.load(row["checkpoint"], weights_only=True)["weights"] for row in (left, right)]
        for name, weight in weights[0].items():
            torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=1e-3)
    again = train("--steps", 3, "--seeds", "2,0", "--out", tmp_path / "alone", "--resume", "--together")
    assert again.err.count("nothing to do, 4 steps are done") == 2


def test_seeds_that_fail_together_are_named_one_by_one(train, tmp_path):
    out = tmp_path / "run"
    train("--steps", 3, "--seeds", "1,", "--out", out, "--together")
    (out / "seed-1" / "checkpoint.pt").write_bytes(b"damaged")
    result = train("--steps", 3, "--seeds", 3, "--out", out, "--resume", "--together")
    assert result.code == 1
    assert "seed 1 failed: " in result.err
    assert result.err.splitlines()[-1] == "error: 1 of 3 seeds failed: 1."
    diverged = train(
        "--steps", 9, "--seeds", 2, "--out", tmp_path / "b", "--together", "--set", "learning_rate=1e30"
    )
    assert diverged.code == 1
    for seed in (0, 1):
        assert f"seed {seed} failed: the " in diverged.err
    refused = train("--seeds", 3, "--out", tmp_path / "c", "--batch-size", 1000, "--together")
    assert refused.code == 2


def test_how_losses_are_computed_is_asked_for_and_kept(train, tmp_path):
    first = train("--steps", 3, "--out", tmp_path / "run", "--precision", "bf16")
    assert first.code == 0, first.err
    other = train("--steps", 6, "--out", tmp_path / "run", "--resume")
    assert other.code == 2
    assert "precision bf16, not fp32" in other.err
    assert train("--steps", 6, "--out", tmp_path / "run", "--resume", "--precision", "bf16").code == 0
    for option in ("--compile", "--precision=bf16"):
        together = train("--steps", 3, "--seeds", 2, "--out", tmp_path / "b", "--together", option)
        assert together.code == 2
        assert "leave one of them out" in together.err


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_is_alone_until_it_ends_however_it_ends(train, start_mobj, data, tmp_path, number):
    out = tmp_path / "run"
    process = start_mobj("train", "air", "--data", data, *COMMON, "--steps", 10**6, "--out", out)
    wait_for(out / "seed-0" / "checkpoint.pt", process)
    refused = train("--steps", 3, "--out", out, "--resume")
    assert refused.code == 1
    assert "another mobj run is writing to" in refused.err
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert process.returncode == 130, err
        assert f"--out {out} --resume" in err
    resumed = train("--steps", 1, "--out", out, "--resume")
    assert resumed.code == 0, resumed.err
    assert "nothing to do" in resumed.err


def test_a_model_of_ones_own_is_trained_resumed_and_not_imported_by_its_file(
    train, start_mobj, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_squares.py").write_text(
        "from pathlib import Path\nfrom reference_models.air import AIR\n"
        "Path(__file__).with_name('imported').touch()\nclass Own(AIR): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert train("--steps", 3, "--out", "run", model="own_squares:Own").code == 0
    result = train("--steps", 6, "--out", "run", "--resume", model="own_squares:Own")
    assert result.code == 0, result.err
    assert "--model own_squares:Own" in result.out
    (tmp_path / "imported").unlink()
    process = start_mobj("evaluate", tmp_path / "run" / "seed-0" / "checkpoint.pt", "--device", "cpu")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "--model own_squares:Own" in err
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("text", ["²", "x", "0", "-1", "", "1001", "9" * 30, "9" * 5000 + ",", "4294967296,"])
def test_seeds_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match="--seeds: expected"):
        parse_seeds(text)


def test_seeds_are_a_number_or_a_list():
    assert parse_seeds("3") == [0, 1, 2]
    assert parse_seeds("7,") == [7]
    assert parse_seeds("4294967295,0") == [4294967295, 0]
