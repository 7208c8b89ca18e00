"""`mobj compare` on real evaluations, and on files that are none."""

import json
import shutil

import pytest

from multiobj_data.generation.plan import Plan
from multiobj_data.generation.running import generate

N = 60


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("sprites", "others")):
        plan = Plan.create("multi-dsprites", {"counts": "0-3", "canvas": 32}, seed=seed, splits={"test": N})
        generate(plan, folder / name)
    return folder


@pytest.fixture(scope="module")
def evaluated(data, tmp_path_factory):
    """Folders of evaluations: two baselines, one of fewer scenes, one of other data."""
    from cli.main import mobj

    out = tmp_path_factory.mktemp("out")
    for name, baseline, more in (
        ("chance", "chance", ()),
        ("components", "components", ()),
        ("fewer", "components", ("--limit", "20")),
        ("runs/air/seed-0", "components", ()),
        ("runs/air/seed-1", "components", ()),
    ):
        arguments = ["--baseline", baseline, "--data", str(data / "sprites"), "--out", str(out / name), *more]
        mobj.main(["evaluate", *arguments], standalone_mode=False)
    arguments = ["--baseline", "chance", "--data", str(data / "others"), "--out", str(out / "others")]
    mobj.main(["evaluate", *arguments], standalone_mode=False)
    return out


def test_a_table_has_figures_differences_and_what_they_mean(mobj, evaluated):
    result = mobj("compare", evaluated / "chance", evaluated / "components" / "evaluation.json")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].split() == ["metric", "baseline", "chance", "baseline", "components"]
    accuracy = next(line for line in lines if line.startswith("count_accuracy ↑"))
    assert accuracy.rstrip().endswith("*")
    assert "paired bootstrap over the same images" in result.out
    assert "Protocol stamp of every run: " in result.out


def test_json_holds_the_means_that_evaluate_wrote(mobj, evaluated):
    result = mobj("compare", evaluated / "chance", evaluated / "components", "--json")
    document = json.loads(result.out)
    for row in document["rows"]:
        for label, name in (("baseline chance", "chance"), ("baseline components", "components")):
            written = json.loads((evaluated / name / "evaluation.json").read_text())["metrics"][row["metric"]]
            assert row["cells"][label]["mean"] == pytest.approx(written["mean"])
            assert row["cells"][label]["spread"] == pytest.approx(written["stderr"])
            assert row["cells"][label]["n"] == written["n"]


@pytest.mark.parametrize(("ending", "begins"), [("md", "| metric |"), ("tex", "% needs"), ("json", "{\n")])
def test_the_ending_of_out_says_the_format(mobj, evaluated, tmp_path, ending, begins):
    result = mobj(
        "compare", evaluated / "chance", evaluated / "components", "--out", tmp_path / f"t.{ending}"
    )
    assert result.code == 0, result.err
    assert (tmp_path / f"t.{ending}").read_text().startswith(begins)
    assert result.out.strip() == str(tmp_path / f"t.{ending}")


def test_unequal_protocols_are_refused_and_forced(mobj, evaluated):
    runs = (evaluated / "chance", evaluated / "fewer")
    result = mobj("compare", *runs)
    assert result.code == 2
    assert f"number of images {N} and 20; index range [0, {N - 1}] and [0, 19]; evaluate them" in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert result.out == ""
    forced = mobj("compare", *runs, "--force", "--metric", "count_accuracy", "--json")
    document = json.loads(forced.out)
    assert forced.code == 0
    assert "not scored alike" in forced.err
    assert document["unequal"]
    assert document["rows"][0]["differences"]["baseline components"]["n"] == 20
    assert document["rows"][0]["differences"]["baseline components"]["paired"]


def test_other_data_are_refused_by_what_differs(mobj, evaluated):
    result = mobj("compare", evaluated / "chance", evaluated / "others")
    assert result.code == 2
    assert "not scored alike: seed 0 and 1;" in result.err


def test_seeds_share_a_column(mobj, evaluated):
    runs = [evaluated / "runs" / "air" / f"seed-{i}" for i in (0, 1)]
    document = json.loads(mobj("compare", evaluated / "chance", *runs, "--json").out)
    assert sorted(document["seeds"].values()) == [1, 2]
    assert mobj("compare", *runs).code == 2
    assert len(json.loads(mobj("compare", *runs, "--no-seeds", "--json").out)["groups"]) == 2


def spoil(folder, how):
    file, table = folder / "evaluation.json", folder / "per_image.csv.gz"
    if how == "no table":
        table.unlink()
    elif how == "short table":
        table.write_bytes(table.read_bytes()[:-10])
    elif how == "table of another run":
        shutil.copy(folder.parent / "whole" / "per_image.csv.gz", table)
    elif how == "short json":
        file.write_text(file.read_text()[:-100])
    elif how == "changed stamp":
        file.write_text(file.read_text().replace('"seed": 0', '"seed": 7'))
    elif how == "old":
        document = json.loads(file.read_text())
        del document["stamp"]
        file.write_text(json.dumps(document))
    elif how == "another document":
        file.write_text("[1]")
    elif how == "gone":
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no table", "per_image.csv.gz is missing"),
        ("short table", "per_image.csv.gz: expected the values that its evaluation.json names"),
        ("table of another run", "per_image.csv.gz: expected the values that its evaluation.json names"),
        ("short json", "cannot be read as JSON"),
        ("changed stamp", "intact protocol stamp"),
        ("old", "intact protocol stamp"),
        ("another document", "expected an evaluation of schema version 1"),
        ("gone", "there is no such file"),
    ],
)
def test_missing_and_damaged_files_are_data_errors(mobj, evaluated, tmp_path, how, says):
    shutil.copytree(evaluated / "chance", tmp_path / "whole")
    shutil.copytree(evaluated / "components", tmp_path / "bad")
    spoil(tmp_path / "bad", how)
    result = mobj("compare", tmp_path / "whole", tmp_path / "bad")
    assert result.code == 3, result.err
    assert says in result.err
    assert len(result.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--out", "t.txt"), "ends in .md, .tex or .json"),
        (("--out", "t.md", "--format", "latex"), "what --format latex is"),
        (("--json", "--format", "latex"), "contradict each other"),
        (("--metric", "count_acuracy"), "Did you mean 'count_accuracy'"),
        (("--interval", "95"), "level above 0 and below 1"),
        (("--out", ""), "--out: expected a text"),
        (("--out", "nowhere/t.md"), "nowhere is none"),
    ],
)
def test_contradictions_are_usage_errors(mobj, evaluated, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    result = mobj("compare", evaluated / "chance", evaluated / "components", *arguments)
    assert result.code == 2
    assert says in result.err
    assert not list(tmp_path.iterdir())
