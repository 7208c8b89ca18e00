import json
import pickle
import shutil
import sys

import numpy as np
import pytest

from cli.main import mobj as mobj_group
from multiobj_data import Prediction
from multiobj_data.loading import batches, open_dataset
from multiobj_data.predictions import write_predictions

# Small enough for a second, large enough to be the real thing.
TINY = ("--set", "lstm_size=16", "--set", "hidden_size=16", "--set", "what_size=4", "--set", "window_size=8")
SHORT = (
    "--steps",
    6,
    "--batch-size",
    16,
    "--evaluate-every",
    3,
    "--checkpoint-every",
    3,
    "--device",
    "cpu",
    *TINY,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from multiobj_data.generation.plan import Plan
    from multiobj_data.generation.running import generate

    folder = tmp_path_factory.mktemp("data") / "digits"
    generate(Plan.create("multi-mnist", {"digits": "bundled"}, splits={"train": 300, "test": 90}), folder)
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A trained run of two seeds."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    arguments = ("train", "air", "--data", data, "--out", folder, "--seeds", 2, *SHORT)
    mobj_group.main([str(argument) for argument in arguments], standalone_mode=False)
    return folder


def test_train_leaves_checkpoints_curves_and_logs(run):
    for seed in (0, 1):
        names = {path.name for path in (run / f"seed-{seed}").iterdir()}
        assert {"checkpoint.pt", "curves.png", "log.jsonl"} <= names
        lines = [json.loads(line) for line in (run / f"seed-{seed}" / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "total" in line] == [3, 6]
        assert all(0 <= line["count_accuracy"] <= 1 for line in lines if "total" in line)


def test_evaluate_takes_everything_from_the_checkpoint(mobj, run, data, tmp_path):
    checkpoint = run / "seed-0" / "checkpoint.pt"
    result = mobj("evaluate", checkpoint, "--json", "--per-image", tmp_path / "scores.csv", "--device", "cpu")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    assert document["schema_version"] == 1
    assert document["dataset"]["split"] == "test"
    metrics = document["metrics"]
    for name in ("count_accuracy", "box_miou", "squared_error", "log_likelihood_nats", "bits_per_dimension"):
        assert set(metrics[name]) == {"mean", "stderr", "n", "skipped"}
        assert metrics[name]["n"] + metrics[name]["skipped"] == 90
    assert metrics["count_accuracy"]["n"] == 90
    assert sum(map(sum, document["confusion"]["table"])) == 90
    out = run / "seed-0" / "evaluation-test"
    assert json.loads((out / "evaluation.json").read_text())["metrics"] == metrics
    assert "<html" in (out / "report.html").read_text()
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 91
    table = mobj("evaluate", checkpoint, "--limit", 20, "--device", "cpu")
    assert "count_accuracy" in table.out
    assert "report.html" in table.out


def test_evaluate_draws_lost_test_data_again(mobj, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "copy")
    mobj("train", "air", "--data", moved, "--out", tmp_path / "run", *SHORT)
    checkpoint = tmp_path / "run" / "seed-0" / "checkpoint.pt"
    there = mobj("evaluate", checkpoint, "--json", "--device", "cpu")
    shutil.rmtree(moved)
    gone = mobj("evaluate", checkpoint, "--json", "--device", "cpu")
    assert gone.code == 0, gone.err
    assert "is gone" in gone.err
    assert json.loads(gone.out)["metrics"] == json.loads(there.out)["metrics"]


def test_any_object_with_predict_is_evaluated_by_the_same_path(mobj, data, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pt").touch()
    (tmp_path / "own_model.py").write_text(
        "import numpy as np\nfrom multiobj_data import Prediction\n"
        "class Two:\n"
        "    def predict(self, images):\n"
        "        return Prediction(count=np.full(len(images), 2), reconstruction=images / 255)\n"
        "def load(checkpoint, device):\n    assert checkpoint == 'w.pt'\n    return Two()\n"
    )
    common = ("--data", data, "--json", "--device", "cpu", "--out", tmp_path / "out")
    result = mobj("evaluate", "--model", "own_model:load", "--checkpoint", "w.pt", *common)
    assert result.code == 0, result.err
    document = json.loads(result.out)
    truth = open_dataset(data, "test").scenes(np.arange(90)).count
    assert document["metrics"]["count_accuracy"]["mean"] == pytest.approx((truth == 2).mean())
    assert document["metrics"]["squared_error"]["mean"] == pytest.approx(0)
    assert "boxes" in document["not_available"]["box_miou"]


def test_a_file_of_predictions_is_evaluated_by_the_same_path(mobj, data, tmp_path):
    path = tmp_path / "predictions.h5"
    answers = (
        (index, Prediction(count=scenes.count)) for index, scenes in batches(open_dataset(data, "test"), 32)
    )
    write_predictions(path, answers)
    result = mobj("evaluate", "--predictions", path, "--data", data, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["metrics"]["count_accuracy"]["mean"] == 1
    path.write_bytes(path.read_bytes()[:1000])
    assert mobj("evaluate", "--predictions", path, "--data", data).code == 3


def test_resumed_training_ends_with_the_same_bits(mobj, data, tmp_path):
    import torch

    mobj("train", "air", "--data", data, "--out", tmp_path / "straight", *SHORT)
    half = ("train", "air", "--data", data, "--out", tmp_path / "halved", *SHORT)
    mobj(*(3 if argument == 6 else argument for argument in half))
    refused = mobj(*half)
    assert refused.code == 2
    assert "--resume" in refused.err
    assert mobj(*half, "--resume").code == 0
    one, two = (
        torch.load(tmp_path / name / "seed-0" / "checkpoint.pt", weights_only=True)["weights"]
        for name in ("straight", "halved")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


class Malicious:
    def __reduce__(self):
        import os

        return os.mkdir, ("executed-by-pickle",)


def test_bad_checkpoints_get_one_sentence_and_run_no_code(mobj, run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = (run / "seed-0" / "checkpoint.pt").read_bytes()
    files = {
        "text.pt": b"no checkpoint",
        "cut.pt": good[: len(good) // 2],
        "code.pt": pickle.dumps(Malicious()),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        result = mobj("evaluate", tmp_path / name, "--data", data, "--device", "cpu")
        assert result.code == 3, name
        assert name in result.err
        assert "Traceback" not in result.err
    assert not (tmp_path / "executed-by-pickle").exists()
    assert mobj("evaluate", tmp_path / "nowhere.pt", "--data", data).code == 3


def test_data_of_another_size_is_refused(mobj, run, tmp_path):
    mobj(
        "generate",
        "multi-mnist",
        "--digits",
        "bundled",
        "--canvas",
        64,
        "--train",
        10,
        "--test",
        10,
        "--out",
        tmp_path / "d",
    )
    result = mobj("evaluate", run / "seed-0" / "checkpoint.pt", "--data", tmp_path / "d", "--device", "cpu")
    assert result.code == 2
    assert "trained on images of (50, 50, 1)" in result.err
    assert "(64, 64, 1)" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("train", "air", "--data", "NOWHERE"), 3, "no such folder"),
        (("train", "aire", "--data", "DATA"), 2, "Did you mean 'air'"),
        (("train", "air", "--data", "DATA", "--seeds", "x"), 2, "--seeds"),
        (("train", "air", "--data", "DATA", "--set", "max_objekts=4"), 2, "Did you mean 'max_objects'"),
        (("train", "air", "--data", "DATA", "--steps", "0"), 2, "--steps"),
        (("evaluate",), 2, "give one of"),
        (("evaluate", "--model", "json:loads"), 2, "--data DIR"),
    ],
)
def test_bad_requests_get_one_sentence(mobj, data, tmp_path, arguments, code, sentence):
    places = {"NOWHERE": tmp_path / "nowhere", "DATA": data}
    out = () if arguments[0] == "evaluate" else ("--out", tmp_path / "run")
    result = mobj(*(places.get(argument, argument) for argument in arguments), *out)
    assert result.code == code, result.err
    assert sentence in result.err
    assert not (tmp_path / "run").exists()


def test_cuda_without_cuda_is_a_usage_error(mobj, data, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    result = mobj("train", "air", "--data", data, "--out", tmp_path / "run", "--device", "cuda")
    assert result.code == 2
    assert "no CUDA device" in result.err


def test_a_nan_stops_training_and_keeps_the_last_good_checkpoint(mobj, data, tmp_path):
    arguments = ("train", "air", "--data", data, "--out", tmp_path / "run", *SHORT)
    mobj(*arguments)
    path = tmp_path / "run" / "seed-0" / "checkpoint.pt"
    good = path.read_bytes()
    longer = [12 if argument == 6 else argument for argument in arguments]
    result = mobj(*longer, "--set", "learning_rate=1e30", "--resume")
    assert result.code == 2  # other settings: refused before anything happens
    assert path.read_bytes() == good
    result = mobj(
        "train",
        "air",
        "--data",
        data,
        "--out",
        tmp_path / "wild",
        *SHORT,
        "--steps",
        200,
        "--set",
        "learning_rate=1e30",
    )
    assert result.code == 1
    assert "not finite" in result.err or "NaN" in result.err


def test_inspect_shows_a_checkpoints_settings_and_data(mobj, run):
    result = mobj("inspect", run / "seed-0" / "checkpoint.pt")
    assert result.code == 0, result.err
    assert "lstm_size" in result.out
    assert "multi-mnist-v1" in result.out
    document = json.loads(mobj("inspect", run / "seed-0" / "checkpoint.pt", "--json").out)
    assert (document["kind"], document["model"], document["dataset"]) == (
        "checkpoint",
        "air",
        "multi-mnist-v1",
    )
    assert document["config"]["lstm_size"] > 0
    assert all(key.isidentifier() for key in document)


def test_an_own_model_is_trained_and_evaluated_but_never_imported_by_its_checkpoint(
    mobj, data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "house_air.py").write_text(
        "from reference_models.air import AIR\nclass Own(AIR):\n    pass\n"
    )
    trained = mobj("train", "house_air:Own", "--data", data, "--out", tmp_path / "run", *SHORT)
    assert trained.code == 0, trained.err
    checkpoint = tmp_path / "run" / "seed-0" / "checkpoint.pt"
    del sys.modules["house_air"]
    assert "house_air:Own" in mobj("inspect", checkpoint).out
    refused = mobj("evaluate", checkpoint, "--device", "cpu")
    assert refused.code == 2
    assert "--model" in refused.err
    assert "house_air" not in sys.modules
    allowed = mobj("evaluate", checkpoint, "--model", "house_air:Own", "--device", "cpu", "--json")
    del sys.modules["house_air"]
    assert allowed.code == 0, allowed.err
    assert json.loads(allowed.out)["metrics"]["count_accuracy"]["n"] == 90
