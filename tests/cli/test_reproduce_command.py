import json
import re
import shutil
import signal
import time

import pytest

SMOKE = ("--scale", "smoke", "--digits", "bundled", "--device", "cpu", "--threads", 1)
STEPS = 80  # enough to be killed in between
RUN = (*SMOKE, "--steps", STEPS)
TWO = ("--only", "mnist air", "--only", "mnist air-asr")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished reproduction of two cells; tests must not change it."""
    from cli.main import mobj as group

    out = tmp_path_factory.mktemp("reproduction") / "table2"
    arguments = ("reproduce", "asr-table2", *RUN, *TWO, "--out", out)
    group.main([str(argument) for argument in arguments], standalone_mode=False)
    return out


@pytest.fixture
def out(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "table2")


def checkpoints(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("checkpoint.pt")}


def test_a_reproduction_leaves_a_page_a_document_and_pictures(finished):
    page = (finished / "table.md").read_text()
    assert "| 3 digits | AIR-ASR | paper | 337.3 ± 55.1 | 36.5 ± 3.9 | 0.67 ± 0.05 |" in page
    assert "| 3 digits | AIR-ASR | ours, exact |" in page
    assert "Samples without overlap" in page
    assert "bundled with scikit-learn, not MNIST" in page
    assert "Made with CPU " in page
    assert "torch " in page
    document = json.loads((finished / "table.json").read_text())
    assert [row["method"] for row in document["rows"]] == ["AIR", "AIR-ASR"]
    for row in document["rows"]:
        assert row["metrics"]["mIoU"]["ours"].keys() == {"mean", "sd"}
        found = row["overlap"]["0"]
        assert found["samples"] == found["with_windows"] == 32  # always three objects
        assert found["windows_apart"] <= 32
        assert found["ink_apart"] <= found["with_ink"] <= 32
        assert row["seeds"] == 1
    for row in ("air-exact", "air-asr-exact"):
        folder = finished / "runs" / "mnist" / row / "seed-0"
        for name in ("reconstructions.png", "samples.png"):
            assert (folder / name).read_bytes()[:4] == b"\x89PNG"
            assert f"](runs/mnist/{row}/seed-0/{name})" in page


def test_our_figures_are_those_that_evaluate_finds(mobj, finished):
    folder = finished / "runs" / "mnist" / "air-asr-exact" / "seed-0"
    found = json.loads(
        mobj("evaluate", folder / "checkpoint.pt", "--json", "--device", "cpu", "--no-baselines").out
    )
    (row,) = [
        each
        for each in json.loads((finished / "table.json").read_text())["rows"]
        if each["method"] == "AIR-ASR"
    ]
    shutil.rmtree(folder / "evaluation-test")
    assert row["metrics"]["mIoU"]["ours"]["mean"] == pytest.approx(
        found["metrics"]["box_miou"]["mean"], rel=1e-6
    )
    nats = found["metrics"]["log_likelihood_nats"]["mean"]
    assert row["metrics"]["nELBO"]["ours"]["mean"] == pytest.approx(-nats, rel=1e-6)


def test_finished_cells_are_not_run_again_and_all_seeds_count(mobj, out):
    before = checkpoints(out)
    again = mobj("reproduce", "asr-table2", *RUN, *TWO, "--out", out)
    assert again.code == 0, again.err
    assert "2 of 2 cells are finished already." in again.err
    assert "WARNING: asr-mnist-3: digits are the 1,797 bundled" in again.err
    assert checkpoints(out) == before
    more = mobj(
        "reproduce", "asr-table2", *RUN, "--only", "mnist air", "--seeds", "3,", "--out", out, "--json"
    )
    assert more.code == 0, more.err
    rows = {row["method"]: row for row in json.loads(more.out)["rows"]}
    assert rows["AIR"]["metrics"]["SE"]["seeds"].keys() == {
        "0",
        "3",
    }  # seed 0 was not asked for, and is not dropped
    assert rows["AIR-ASR"]["seeds"] == 1
    assert before.items() <= checkpoints(out).items()


def test_other_steps_go_on_or_are_refused(mobj, out):
    only = ("--only", "mnist air", "--out", out)
    more = mobj("reproduce", "asr-table2", *SMOKE, *only, "--steps", STEPS + 2)
    assert more.code == 0, more.err
    fewer = mobj("reproduce", "asr-table2", *SMOKE, *only, "--steps", 4)
    assert fewer.code == 1
    assert "was trained for 82 steps, not 4" in fewer.err


def test_a_cell_that_fails_is_told_and_counted_and_the_others_go_on(mobj, out):
    shutil.rmtree(out / "runs" / "mnist" / "air-asr-exact")
    folder = out / "runs" / "mnist" / "air-exact" / "seed-0"
    (folder / "evaluation.json").unlink()
    (folder / "checkpoint.pt").write_bytes(b"damaged")
    result = mobj("reproduce", "asr-table2", *RUN, *TWO, "--out", out)
    assert result.code == 1
    assert re.search(r"MNIST AIR exact seed-0: FAILED: .*checkpoint.pt: is no checkpoint", result.err)
    assert result.err.splitlines()[-1] == "error: 1 of 2 cells failed: MNIST AIR exact seed-0."
    assert "0 of 1 (1 failed)" in result.out
    assert (out / "runs" / "mnist" / "air-asr-exact" / "seed-0" / "evaluation.json").exists()
    (folder / "checkpoint.pt").unlink()
    mended = mobj("reproduce", "asr-table2", *RUN, *TWO, "--out", out)
    assert mended.code == 0, mended.err
    assert "failed" not in mended.out


def test_a_cell_whose_process_dies_counts_as_a_seed_that_failed(mobj, out, monkeypatch):
    def dies(work, tell):
        raise RuntimeError("out of memory")

    shutil.rmtree(out / "runs" / "mnist" / "air-exact")
    monkeypatch.setattr("cli.reproduction.scheduling.run_cell", dies)
    result = mobj("reproduce", "asr-table2", *RUN, *TWO, "--out", out, "--json")
    assert result.code == 1
    air, asr = json.loads(result.out)["rows"]
    assert (air["seeds"], air["failed"]) == (1, {"0": "RuntimeError: out of memory"})
    assert asr["failed"] == {}


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "jobs", "cells"), [(signal.SIGKILL, 2, TWO), (signal.SIGINT, 1, TWO[:2])])
def test_interrupted_it_goes_on_to_the_same_figures(mobj, start_mobj, finished, out, number, jobs, cells):
    arguments = ("reproduce", "asr-table2", *RUN, *cells, "--out", out)
    shutil.rmtree(out / "runs")
    process = start_mobj(*arguments, "--jobs", jobs)
    wait_for(out / "runs" / "mnist" / "air-exact" / "seed-0" / "checkpoint.pt", process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130, err
        assert "To continue: mobj reproduce asr-table2 --scale smoke" in err
    assert not list(out.rglob("evaluation.json"))
    again = mobj(*arguments)
    deadline = time.monotonic() + 30
    while "another mobj run is writing" in again.err and time.monotonic() < deadline:
        again = mobj(*arguments)  # workers save before they follow the killed command
    assert again.code == 0, again.err
    expected = {row["method"]: row for row in json.loads((finished / "table.json").read_text())["rows"]}
    for row in json.loads((out / "table.json").read_text())["rows"]:
        assert row["metrics"] == expected[row["method"]]["metrics"]
        assert row["overlap"] == expected[row["method"]]["overlap"]


def test_variances_of_all_estimators_stand_beside_the_reports(mobj, tmp_path):
    result = mobj("reproduce", "air-report-table1", *SMOKE, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    lines = {line.split()[1]: line for line in result.out.splitlines() if line.startswith("exact")}
    assert set(lines) == {"enumerate", "score-function", "baseline", "nvil", "vimco", "mvd", "concrete"}
    assert "5.83e-02" in lines["score-function"]
    assert "2.03e+04" in lines["score-function"]
    assert "6.47e+02" in lines["baseline"]
    (row,) = json.loads((tmp_path / "out" / "table.json").read_text())["rows"]
    found = row["variance"]["0"]
    assert (found["draws"], found["batch"]) == (4, 16)
    trace = {name: groups["inference"]["trace"] for name, groups in found["estimators"].items()}
    assert trace["enumerate"] < trace["score-function"]
    of_n = {name: groups["inference"].get("count_trace") for name, groups in found["estimators"].items()}
    assert of_n.pop("vimco") is None
    assert of_n.pop("enumerate") < 1e-9 * trace["enumerate"]  # rounding
    assert max(of_n.values()) == of_n["score-function"] > 0
    # Estimators of the same sampled N agree on the decoder, whose gradient no estimator of N touches.
    decoder = [found["estimators"][name]["generative"]["trace"] for name in ("score-function", "nvil", "mvd")]
    assert decoder[1:] == pytest.approx(decoder[:1] * 2, rel=1e-5)


def test_the_variance_of_z_and_that_of_n_add_up():
    import torch

    from cli.reproduction.variance import beyond_enumeration
    from metrics.estimators import gradient_variance, parameters_by_prefix
    from reference_models.checkpoints import build_model

    tiny = {
        "lstm_size": 8,
        "hidden_size": 8,
        "what_size": 2,
        "window_size": 4,
        "filters": (),
        "presence_bias": 0.0,
    }
    model = build_model("air", {"estimator": "score-function", **tiny}, (12, 12, 1), seed=0).eval()
    images = torch.randint(256, (4, 12, 12, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    chosen = parameters_by_prefix(model, {"inference": ["find", "lstm"]})

    def trace(loss):
        return gradient_variance(loss, chosen, draws=200)["inference"]

    def exact(generator):
        x = model.as_float(images)
        return model.negative_elbo(x, model.draw(len(x), generator).z).total

    whole = trace(lambda generator: model.loss(images, generator).total)
    of_z, of_n = trace(exact), trace(lambda generator: beyond_enumeration(model, images, generator))
    assert of_n.trace > 4 * of_n.trace_stderr
    assert whole.trace == pytest.approx(of_z.trace + of_n.trace, abs=4 * whole.trace_stderr)


def test_baselines_learn_and_the_model_stays_as_it_is(finished):
    import torch

    from cli.reproduction.variance import learn_baseline, with_estimator
    from multiobj_data.loading import open_dataset
    from reference_models.checkpoints import load_checkpoint

    trained = load_checkpoint(finished / "runs" / "mnist" / "air-exact" / "seed-0" / "checkpoint.pt").model
    model = with_estimator("air", trained, "nvil")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    learn_baseline(model, open_dataset(finished / "data" / "asr-mnist-3", "train"), 16, 3)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(("baseline.", "estimator.")) for name in changed)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_data_of_ones_own_are_used(mobj, finished, tmp_path):
    data = finished / "data"
    common = (*SMOKE, "--only", "mnist air", "--steps", 2)
    result = mobj("reproduce", "asr-table2", *common, "--out", tmp_path / "a", "--data", data)
    assert result.code == 0, result.err
    assert not (tmp_path / "a" / "data").exists()
    wrong = mobj(
        "reproduce",
        "asr-table1",
        *SMOKE,
        "--only",
        "13",
        "--out",
        tmp_path / "b",
        "--data",
        data / "asr-mnist-3",
    )
    assert wrong.code == 2
    assert "is not asr-13: " in wrong.err
    missing = mobj("reproduce", "asr-table1", *SMOKE, "--only", "13", "--out", tmp_path / "c", "--data", data)
    assert missing.code == 3, missing.err


def test_a_dry_run_lists_cells_and_writes_nothing(mobj, tmp_path):
    result = mobj(
        "reproduce",
        "asr-table1",
        "--only",
        "13 air-asr",
        "--dry-run",
        "--out",
        tmp_path / "none",
        "--device",
        "cpu",
    )
    assert result.code == 0, result.err
    assert re.search(r"13 AIR-ASR exact seed-2 +4,000 +about \d+ ", result.out)
    assert "3 cells, about " in result.out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("asr-tabel1",), 2, "no table named 'asr-tabel1'. Did you mean 'asr-table"),
        (("asr-table1", "--seeds", 0), 2, "--seeds: expected a number of seeds"),
        (("asr-table1", "--scale", "medium"), 2, "'medium' is not one of"),
        (("asr-table1", "--only", "mnst"), 2, "--only: no cell has 'mnst' in its name"),
        (("asr-table2", "--only", "mnst"), 2, "Did you mean 'mnist'?"),
        (("asr-table1", "--only", ""), 2, "--only: expected a text, got an empty one"),
        (("asr-table1", "--jobs", 0), 2, "--jobs"),
        (("asr-table1", "--data", "nowhere", "--scale", "smoke"), 3, "nowhere"),
    ],
)
def test_bad_requests_get_one_sentence(mobj, tmp_path, monkeypatch, arguments, code, says):
    monkeypatch.chdir(tmp_path)
    result = mobj("reproduce", *arguments)
    assert result.code == code, result.err
    assert says in result.err
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_a_device_that_is_not_there_is_refused_once(mobj, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    result = mobj(
        "reproduce", "asr-table1", "--scale", "smoke", "--device", "cuda", "--out", tmp_path / "out"
    )
    assert result.code == 2
    assert "no CUDA device" in result.err
    assert not (tmp_path / "out").exists()


def test_folders_of_something_else_are_left_alone(mobj, finished, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    foreign = mobj("reproduce", "asr-table1", *SMOKE, "--out", tmp_path)
    assert foreign.code == 2
    assert "holds something else than a reproduction" in foreign.err
    other = mobj("reproduce", "asr-table1", *SMOKE, "--out", finished)
    assert other.code == 2
    assert "holds asr-table2 at scale smoke, not asr-table1 at smoke" in other.err
    in_the_way = mobj("reproduce", "asr-table1", *SMOKE, "--out", tmp_path / "thesis.txt")
    assert in_the_way.code == 2, in_the_way.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
