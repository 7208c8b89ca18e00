"""`mobj evaluate` with models that misbehave, damaged data, and results that cannot be written."""

import errno
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from multiobj_data.loading import open_dataset
from multiobj_data.shards.hdf5 import ImageLayout

N = 40
ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

MODELS = """
import sys
import numpy as np
from multiobj_data import Prediction

def model(predict):
    return lambda checkpoint, device: predict

@model
def good(images):
    return Prediction(count=np.full(len(images), 2))

@model
def writes_on_images(images):
    images[:] = 0
    return Prediction(reconstruction=images.astype(np.float32))

@model
def talks(images):
    print("a line from predict")
    return Prediction(count=np.full(len(images), 2))

@model
def fails(images):
    raise RuntimeError("boom")

@model
def lists(images):
    return Prediction(count=[2] * len(images))

@model
def scalar(images):
    return Prediction(count=2)

@model
def sure(images):
    return Prediction(presence=np.full((len(images), 1), 7.0))

def talks_when_loaded(checkpoint, device):
    print("a line from the loader")
    return good(checkpoint, device)

def fails_when_loaded(checkpoint, device):
    raise KeyError("state_dict")

def exits(checkpoint, device):
    sys.exit("goodbye")

def none(checkpoint, device):
    return None

number = 3
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from multiobj_data.generation.plan import Plan
    from multiobj_data.generation.running import generate

    folder = tmp_path_factory.mktemp("data") / "digits"
    generate(Plan.create("multi-mnist", {"digits": "bundled"}, splits={"train": 20, "test": N}), folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with a module of models; it is on no search path, as under a console script."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    for name in ("house_models", "broken_models", "needy_models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "house_models.py").write_text(MODELS)
    (tmp_path / "broken_models.py").write_text("def load(:\n")
    (tmp_path / "needy_models.py").write_text("import a_package_that_nobody_has\n")
    yield tmp_path
    for name in ("house_models", "broken_models", "needy_models"):
        sys.modules.pop(name, None)


@pytest.fixture
def score(mobj, data, here):
    """Evaluate a model of the current folder."""

    def run(name, *arguments):
        return mobj(
            "evaluate", "--model", f"house_models:{name}", "--data", data, "--device", "cpu", *arguments
        )

    return run


def test_a_module_in_the_current_folder_is_found(score):
    result = score("good", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["metrics"]["count_accuracy"]["n"] == N


def test_a_model_cannot_change_the_truth(score, data):
    result = score("writes_on_images", "--json")
    truth = open_dataset(data, "test").scenes(np.arange(N)).image / 255
    expected = (truth**2).mean()
    assert json.loads(result.out)["metrics"]["mse"]["mean"] == pytest.approx(expected)
    assert expected > 0


@pytest.mark.parametrize("name", ["talks", "talks_when_loaded"])
def test_what_a_model_prints_goes_to_stderr(score, name):
    result = score(name, "--json")
    assert json.loads(result.out)["schema_version"] == 1
    assert "a line from" in result.err


@pytest.mark.parametrize(
    ("model", "code", "says"),
    [
        ("house_models:fails", 1, "model house_models:fails raised RuntimeError: boom (*house_models.py:25)"),
        (
            "house_models:fails_when_loaded",
            1,
            "model house_models:fails_when_loaded raised KeyError: 'state_dict'",
        ),
        ("house_models:exits", 1, "model house_models:exits raised SystemExit: goodbye"),
        ("broken_models:load", 1, "model broken_models:load raised SyntaxError"),
        ("needy_models:load", 1, "raised ModuleNotFoundError: No module named 'a_package_that_nobody_has'"),
        ("house_models:lists", 3, "model 'house_models:lists': count: expected an array, got list"),
        ("house_models:scalar", 3, "model 'house_models:scalar': count: expected an array, got int"),
        ("house_models:sure", 3, "model 'house_models:sure': presence: expected values in [0, 1], got 7..7"),
        ("house_models:none", 2, "an object with predict(images), got NoneType"),
        ("house_models:number", 2, "expected loader(checkpoint, device), got int"),
        ("air", 2, "give its checkpoint: mobj evaluate CHECKPOINT"),
        ("reference_models.air:AIR", 2, "give its checkpoint: mobj evaluate CHECKPOINT"),
        (":x", 2, "expected package.module:attribute, got ':x'"),
        ("..:good", 2, "expected package.module:attribute, got '..:good'"),
        ("house_models:", 2, "expected package.module:attribute, got 'house_models:'"),
    ],
)
def test_bad_models_get_one_sentence_that_names_them(mobj, data, here, model, code, says):
    result = mobj("evaluate", "--model", model, "--data", data, "--device", "cpu")
    assert result.code == code, result.err
    assert len(result.err.strip().splitlines()) == 1
    start, _, end = says.partition("*")
    assert start in result.err
    assert end in result.err
    assert result.out == ""


def test_the_traceback_is_shown_on_demand(score, monkeypatch):
    assert "Traceback" not in score("fails").err
    monkeypatch.setenv("MOBJ_DEBUG", "1")
    result = score("fails")
    assert result.code == 1
    assert "Traceback" in result.err
    assert 'raise RuntimeError("boom")' in result.err


def test_a_checkpoint_that_is_not_there_is_missing_data(score):
    result = score("good", "--checkpoint", "nowhere.pt")
    assert result.code == 3
    assert "nowhere.pt: expected a file or folder" in result.err


def test_a_checkpoint_with_nan_weights_is_damaged_data(mobj, data, here):
    from reference_models.checkpoints import Checkpoint, build_model, save_checkpoint

    model = build_model("air", {"lstm_size": 8, "hidden_size": 8}, (50, 50, 1), seed=0)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    reference = open_dataset(data, "train").reference
    save_checkpoint(here / "nan.pt", Checkpoint("air", model, reference, step=1, seed=0))
    result = mobj("evaluate", here / "nan.pt", "--device", "cpu")
    assert result.code == 3
    assert "nan.pt: expected finite weights" in result.err


def test_damaged_scenes_are_not_scored(mobj, data, here):
    copy = shutil.copytree(data, here / "copy")
    shard = next(copy.glob("test-*.h5"))
    content = bytearray(shard.read_bytes())
    content[ImageLayout.of(shard).offset] ^= 255  # one pixel: the file still opens
    shard.write_bytes(content)
    arguments = ("evaluate", "--model", "house_models:good", "--data", copy, "--device", "cpu")
    result = mobj(*arguments)
    assert result.code == 4
    assert f"{shard}: expected the bytes that the manifest records" in result.err
    assert f"run `mobj verify --repair {copy}`" in result.err
    assert mobj("verify", "--repair", copy).code == 0
    assert mobj(*arguments).code == 0


def test_part_of_a_split_does_not_replace_the_whole(score, here):
    assert score("good").code == 0
    whole = here / "house_models-good-evaluation-test" / "evaluation.json"
    before = whole.read_bytes()
    assert score("good", "--limit", 5).code == 0
    assert whole.read_bytes() == before
    part = json.loads((here / "house_models-good-evaluation-test-first-5" / "evaluation.json").read_text())
    assert part["protocol"]["images"] == 5
    assert score("good", "--limit", N).code == 0  # all of it is the whole
    assert json.loads(whole.read_text())["protocol"]["limit"] == N


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--per-image", "scores.txt"), 2, "--per-image scores.txt: expected a name that ends in .csv"),
        (("--per-image", "nowhere/scores.csv"), 2, "nowhere is none"),
        (("--out", "a_file"), 1, "a file is in the way"),
    ],
)
def test_places_that_cannot_be_written_are_found_before_scoring(score, here, arguments, code, says):
    (here / "a_file").touch()
    result = score("talks", *arguments)
    assert result.code == code
    assert says in result.err
    assert "a line from predict" not in result.err


@pytest.mark.parametrize("arguments", [("--out", "out"), ("--per-image", "scores.csv")])
def test_folders_that_one_may_not_write_are_found_before_scoring(score, monkeypatch, arguments):
    """As under another user; root may write everywhere, so the refusal is played."""

    def refuse(**options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    result = score("talks", *arguments)
    assert result.code == 1
    assert "Permission denied; choose another folder." in result.err
    assert "a line from predict" not in result.err


def test_a_table_is_printed_even_if_its_files_cannot_be_written(score, here):
    assert score("good", "--out", "out").code == 0
    before = (here / "out" / "evaluation.json").read_bytes()
    (here / "out" / "report.html").unlink()
    (here / "out" / "report.html").mkdir()  # cannot be replaced by a file, by nobody
    result = score("good", "--out", "out", "--limit", 5)
    assert result.code == 1
    assert "report.html" in result.err
    assert "count_accuracy" in result.out
    assert (here / "out" / "evaluation.json").read_bytes() == before
    names = {path.name for path in (here / "out").iterdir()}
    assert names == {"evaluation.json", "per_image.csv.gz", "report.html"}


def test_chosen_metrics_and_conventions_do_not_replace_the_whole(score, here):
    assert score("good").code == 0
    whole = here / "house_models-good-evaluation-test" / "evaluation.json"
    before = whole.read_bytes()
    assert score("good", "--metric", "count_error", "--metric", "count_accuracy").code == 0
    assert score("good", "--convention", "deepmind").code == 0
    assert whole.read_bytes() == before
    part = here / "house_models-good-evaluation-test-only-count_accuracy+count_error" / "evaluation.json"
    assert list(json.loads(part.read_text())["metrics"]) == ["count_error", "count_accuracy"]
    other = here / "house_models-good-evaluation-test-deepmind" / "evaluation.json"
    assert json.loads(other.read_text())["protocol"]["convention"] == "deepmind"


def test_a_metric_of_ones_own_that_raises_is_one_sentence(score, here, monkeypatch):
    monkeypatch.delitem(sys.modules, "house_metrics", raising=False)
    (here / "house_metrics.py").write_text(
        "from metrics import MetricSpec\n"
        "def oops(scenes, prediction): return scenes.nothing\n"
        "mine = MetricSpec(oops, ('count',), '', None, 'none', 'a test')\n"
    )
    result = score("good", "--metric", "house_metrics:mine")
    assert result.code == 1
    assert "metric house_metrics:mine raised AttributeError: 'Scenes' object has no" in result.err
    assert "Traceback" not in result.err
    monkeypatch.setenv("MOBJ_DEBUG", "1")
    assert "Traceback" in score("good", "--metric", "house_metrics:mine").err
    sys.modules.pop("house_metrics", None)


def test_baselines_stand_beside_the_model(score, here):
    out = score("good").out
    header = out.splitlines()[0].split()
    assert header[-5:] == ["one-slot", "chance", "kmeans", "components", "truth"]
    accuracy = next(line for line in out.splitlines() if line.startswith("count_accuracy"))
    assert accuracy.split()[-1] == "1"
    document = json.loads(score("good", "--json").out)
    assert document["baselines"]["images"] == N
    assert document["baselines"]["model"]["count_accuracy"] == document["metrics"]["count_accuracy"]
    without = json.loads(score("good", "--no-baselines", "--json").out)
    assert without["baselines"] is None
    assert without["metrics"] == document["metrics"]


def test_a_baseline_is_scored_like_a_model(mobj, data, here):
    result = mobj("evaluate", "--baseline", "truth", "--data", data, "--json", "--per-image", "s.csv.gz")
    document = json.loads(result.out)
    assert document["model"] == "baseline truth"
    assert document["metrics"]["ari_fg"]["mean"] == document["metrics"]["count_accuracy"]["mean"] == 1
    out = here / "truth-evaluation-test"
    assert {path.name for path in out.iterdir()} == {"evaluation.json", "per_image.csv.gz", "report.html"}
    assert (here / "s.csv.gz").read_bytes() == (out / "per_image.csv.gz").read_bytes()
    assert json.loads((out / "evaluation.json").read_text()) == document
    assert "Inferred segments" in (out / "report.html").read_text()


def test_scores_by_difficulty_are_printed(score):
    result = score("good", "--by", "true_count", "--interval", "0.9")
    header = next(line for line in result.out.splitlines() if line.startswith("true_count"))
    assert header.split() == ["true_count", "0", "1", "2"]
    images = next(line for line in result.out.splitlines() if line.startswith("images"))
    assert sum(map(int, images.split()[1:])) == N
    assert "90 % interval" in result.out
    document = json.loads(score("good", "--by", "smallest_distance", "--json").out)
    bins = document["by_difficulty"]["smallest_distance"]
    pairs = int(images.split()[-1])  # others have no distance
    assert len(bins) == 5
    assert sum(each["images"] for each in bins) == pairs
    assert all(left["high"] < right["low"] for left, right in pairwise(bins))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--baseline", "kmean"), "no baseline named 'kmean'. Did you mean 'kmeans'"),
        (("--baseline", "kmeans", "--convention", "savvy"), "no convention 'savvy'. Did you mean 'savi'"),
        (("--baseline", "kmeans", "--by", "distance"), "Did you mean 'smallest_distance'"),
        (("--baseline", "kmeans", "--interval", "nan"), "level above 0 and below 1"),
        (("--baseline", "kmeans", "--metric", "mbo", "--convention", "savi"), "'savi' defines no"),
        (("--baseline", "kmeans", "--predictions", "p.h5"), "give one of"),
        (("--baseline", "kmeans", "--samples", "5"), "draws no images"),
        (("--baseline", "kmeans", "--features", "f.pt"), "--samples N"),
        (("--checkpoint", "w.pt", "--baseline", "kmeans"), "--checkpoint w.pt is what the loader of --model"),
        (("w.pt", "--checkpoint", "v.pt"), "mobj evaluate CHECKPOINT"),
    ],
)
def test_requests_that_make_no_sense_are_refused(mobj, data, here, arguments, says):
    result = mobj("evaluate", *arguments, "--data", data)
    assert result.code == 2, result.err
    assert says in result.err
    assert result.out == ""


def test_drawn_images_are_compared_with_the_split(mobj, data, here):
    features = here / "features.pt"
    mobj("metrics", "train-features", "--data", data, "--out", features, "--steps", 2, "--device", "cpu")
    assert features.exists()
    (here / "house_models.py").write_text(
        MODELS + "\nclass Draws:\n"
        "    def predict(self, images):\n        return good(None, None)(images)\n"
        "    def sample(self, n, generator):\n"
        "        import torch\n        return torch.rand(n, 50, 50, 1, generator=generator)\n"
        "def draws(checkpoint, device):\n    return Draws()\n"
    )
    arguments = ("--model", "house_models:draws", "--data", data, "--device", "cpu", "--samples", 20)
    result = mobj("evaluate", *arguments, "--features", features, "--json")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    assert document["generation"]["n"] == {"real": 20, "generated": 20}
    assert document["generation"]["fid"] > 0
    assert document["generation"]["stamp"]["features"]["network"] == "domain"
    assert mobj("evaluate", *arguments, "--features", features, "--json").out == result.out
    report = here / "house_models-draws-evaluation-test" / "report.html"
    assert "Images that the model draws" in report.read_text()
    small(mobj, here / "larger", "--canvas", 60)
    other = mobj("evaluate", *arguments, "--data", here / "larger", "--samples", 4, "--features", features)
    assert other.code == 2
    assert "was trained on images of [50, 50, 1], the data have [60, 60, 1]" in other.err


def test_a_metric_without_values_shows_a_dash(mobj, here):
    small(mobj, here / "empty", "--counts", "0")
    result = mobj("evaluate", "--baseline", "components", "--data", here / "empty")
    line = next(line for line in result.out.splitlines() if line.startswith("ari_fg"))
    assert line.split()[:5] == ["ari_fg", "–", "–", "0", "5"]
    assert "nan" not in result.out


def small(mobj, folder, *options):
    sizes = ("--train", "0", "--test", "5", "--no-sheet")
    made = mobj("generate", "multi-mnist", "--digits", "bundled", *sizes, *options, "--out", folder)
    assert made.code == 0, made.err


def test_an_evaluation_on_other_data_is_not_replaced(mobj, data, here):
    small(mobj, other := here / "other", "--seed", "9")
    score = ("evaluate", "--baseline", "one-slot", "--out", here / "scores")
    assert mobj(*score, "--data", data).code == mobj(*score, "--data", data).code == 0
    before = (here / "scores" / "evaluation.json").read_bytes()
    result = mobj(*score, "--data", other)
    assert result.code == 2
    assert "scores holds an evaluation on other data" in result.err
    assert (here / "scores" / "evaluation.json").read_bytes() == before


@pytest.mark.parametrize("option", ["--metric", "--convention"])
def test_a_misspelt_name_leaves_no_folder(mobj, data, here, option):
    result = mobj("evaluate", "--baseline", "one-slot", "--data", data, option, "nope")
    assert result.code == 2
    assert "nope" in result.err
    assert not list(here.glob("one-slot*"))


def test_whoever_stops_reading_loses_no_evaluation(data, here):
    command = [sys.executable, "-m", "cli.main", "evaluate", "--baseline", "one-slot", "--data", str(data)]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        subprocess.run(
            [*command, "--out", "scores"],
            stdout=writing,
            stderr=subprocess.PIPE,
            cwd=here,
            env=ENV,
            check=False,
        )
    finally:
        os.close(writing)
    found = {path.name for path in (here / "scores").iterdir()}
    assert found == {"evaluation.json", "per_image.csv.gz", "report.html"}


def test_evaluations_with_other_weights_lie_beside_these(mobj, data, here):
    for name in ("one.pt", "two.pt"):
        (here / name).touch()
        result = mobj("evaluate", "--model", "house_models:good", "--checkpoint", here / name, "--data", data)
        assert result.code == 0, result.err
    found = {path.name for path in here.glob("*-house_models-good-evaluation-test")}
    assert found == {"one-house_models-good-evaluation-test", "two-house_models-good-evaluation-test"}
