"""SRI's tables: complete, buildable, and measured by real runs at smoke scale."""

import json
import shutil

import numpy as np
import pytest

from cli.reproduction.cells import cells_of
from cli.reproduction.data import plan_of
from cli.reproduction.generation import FIGURES, generation_rows
from cli.reproduction.results import Group, groups_of, main_rows
from cli.reproduction.tables import find_table
from metrics import METRICS
from metrics.structure import StructureRule, structure_accuracy
from multiobj_data.errors import DataError
from multiobj_data.generation.plan import draw_scenes

TABLES = ["sri-table1", "sri-table2", "sri-table3", "sri-table4"]
SMOKE = ("--scale", "smoke", "--device", "cpu", "--threads", 1)
PUBLIC = {"CLEVR6", "Objects-Room", "ShapeStacks"}


def cells(name, scale):
    table = find_table(name)
    return cells_of(table, table.scales[scale], seeds=[0], forms=table.scales[scale].forms)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("scale", ["small", "paper"])
def test_every_cell_can_be_built_for_its_data(name, scale):
    import torch

    from reference_models.checkpoints import build_model

    table = find_table(name)
    for cell in cells(name, scale):
        column = table.columns[cell.column]
        assert (cell.column in PUBLIC) == (scale == "paper") == bool(column.convert)
        shape = column.image_shape or (column.settings["canvas"], column.settings["canvas"], 3)
        with torch.device("meta"):
            model = build_model(cell.model, cell.settings, tuple(shape), seed=0)
        objects = {"CLEVR6": 6, "Objects-Room": 3, "ShapeStacks": 6}.get(cell.column)
        objects = objects or int(column.settings["counts"].split("-")[-1])
        assert model.config.slots > objects  # one for the background
        mixture = model.config.likelihood == "mixture"
        if cell.row.startswith(("SRI-MoG", "SRI-SA", "GENv2-MoG", "GENv2-scene", "GEN-scene")):
            assert mixture
        if cell.row.startswith(("SRI-G", "GENv2-G", "a-", "b-", "c-")):
            assert not mixture


def test_the_rows_of_one_table_train_alike_at_small_scale():
    small = find_table("sri-table2").scales["small"]
    assert small.seeds == 3
    assert set(small.cell_steps) <= {"Sprites", "Rooms", "Towers"}  # whole columns, no rows
    rows = {cell.row: cell.settings for cell in cells("sri-table2", "small") if cell.column == "Sprites"}
    assert rows["SRI-G"]["width"] == rows["GENv2-G"]["width"] == rows["EMORL"]["decoder_channels"]
    for name in ("likelihood", "likelihood_sd", "goal_rmse", "slots", "slot_size"):
        assert rows["SRI-MoG"].get(name) == rows["GENv2-MoG"].get(name), name


def test_ablations_differ_from_sri_by_what_they_leave_out():
    settings = {cell.row: dict(cell.settings) for cell in cells("sri-table3", "paper")}
    whole = settings["SRI-G"]
    left_out = {
        "a-no-scene-variable": {"scene_variable": False},
        "b-no-order": {"align": False, "cross_loss": False},
        "c-no-auxiliary-KL": {"cross_loss": False},
    }
    for row, less in left_out.items():
        assert settings[row] == whole | less
    scene = {cell.row: dict(cell.settings) for cell in cells("sri-table4", "paper")}
    assert scene["GEN-scene"] == scene["GEN"] | {"scene_variable": True}
    assert scene["GENv2-scene"] == scene["GENv2-MoG"] | {"scene_variable": True}


def test_tables_share_the_runs_of_table_2(tmp_path):
    shared = {cell.name: cell for cell in cells("sri-table2", "small")}
    for name in ("sri-table1", "sri-table3", "sri-table4"):
        table = find_table(name)
        assert table.runs_of == "sri-table2"
        assert table.metrics == find_table("sri-table2").metrics
        both = [cell for cell in cells(name, "small") if cell.name in shared]
        assert {cell.row for cell in both} & {"SRI-MoG", "SRI-G"}
        assert all(cell == shared[cell.name] for cell in both)


def test_the_papers_figures_are_as_printed_and_complete():
    published = {(name, row.name): row.published for name in TABLES for row in find_table(name).rows}
    assert published["sri-table2", "SRI-MoG"]["ShapeStacks"] == {
        "FID": [70.4],
        "ARI-FG": [0.78],
        "S-Acc %": [80.7],
    }
    assert published["sri-table2", "EMORL"]["Objects-Room"] == {"FID": [178.3], "ARI-FG": [0.47]}
    assert published["sri-table2", "SRI-EMORL"] == {"CLEVR6": {"FID": [48.9]}}  # of the text
    assert published["sri-table1", "SRI-MoG"]["ShapeStacks"]["nELBO bpd"] == [0.829]
    assert published["sri-table1", "SRI-SA"] == {}  # lost
    assert "lost" in find_table("sri-table1").differs[0]
    complete = {"FID", "ARI-FG"}
    for row in ("EMORL", "GEN", "GENv2-G", "SRI-G", "GENv2-MoG", "SRI-MoG"):
        assert published["sri-table2", row].keys() == PUBLIC
        assert all(complete <= figures.keys() for figures in published["sri-table2", row].values())
    # What the text says of the figures, as a check against one in the wrong row or column.
    fid = {
        row: [published["sri-table2", row][column]["FID"][0] for column in sorted(PUBLIC)]
        for row in ("GENv2-G", "SRI-G", "GENv2-MoG", "SRI-MoG")
    }
    for kind in ("G", "MoG"):
        gains = [1 - sri / gen for sri, gen in zip(fid[f"SRI-{kind}"], fid[f"GENv2-{kind}"], strict=True)]
        assert np.mean(gains) == pytest.approx({"G": 0.24, "MoG": 0.19}[kind], abs=0.015)
    rows = [row.name for row in find_table("sri-table3").rows]
    steps = [published["sri-table3", row]["ShapeStacks"] for row in rows]
    assert [each["FID"][0] for each in steps] == [132.9, 123.2, 106.3, 75.0]
    assert [each["S-Acc %"][0] for each in steps] == [31.7, 43.7, 61.3, 72.0]
    assert [each["nELBO bpd"][0] for each in steps] == [0.836, 0.845, 0.833, 0.829]
    four = [published["sri-table4", row.name]["ShapeStacks"] for row in find_table("sri-table4").rows]
    assert [each["FID"][0] for each in four] == [233.3, 217.5, 107.4, 84.5, 71.0]
    assert [each["nELBO bpd"][0] for each in four] == [0.832, 1.051, 0.821, 0.823, 0.829]


def test_every_figure_of_ours_exists():
    for name in TABLES:
        table = find_table(name)
        assert table.success["metric"] in table.metrics
        assert all(metric.of in METRICS or metric.of in FIGURES for metric in table.metrics.values())
        assert all(
            figures.keys() <= table.metrics.keys() for row in table.rows for figures in row.published.values()
        )
        for scale in ("smoke", "small", "paper"):
            assert len({cell.name for cell in cells(name, scale)}) == len(cells(name, scale)) > 0
        for column in table.columns.values():
            assert column.of_paper in ({""} if column.convert else PUBLIC)


@pytest.mark.parametrize("column", ["Sprites", "Rooms", "Towers"])
def test_columns_of_ours_can_be_drawn_and_have_the_kinds_that_order_asks_for(column):
    table = find_table("sri-table2")
    about = table.columns[column]
    plan = plan_of(about, table.scales["small"], {})
    assert plan.splits == {"train": 20000, "test": 2000}
    scenes = draw_scenes(plan.generator, 0, "test", 0, 64)
    assert scenes.image.shape[1:] == (32, 32, 3)
    assert scenes.factors[about.kind].dtype.kind == "i"
    if about.structure is not None:
        rule = StructureRule(**{**about.structure, "blocks": tuple(about.structure["blocks"])})
        assert structure_accuracy(scenes.segments, rule=rule).mean() > 0.97


def test_the_papers_figures_stand_beside_ours_under_their_own_sets_name():
    table = find_table("sri-table2")
    (cell,) = [each for each in cells("sri-table2", "small") if each.name.startswith("Towers SRI-MoG")]
    means = {"ari_fg": {"mean": 0.7}, "msc_fg": {"mean": 0.6}, "mse": {"mean": 0.01}}
    result = {
        "evaluation": {"metrics": means},
        "seconds": 60.0,
        "generation": {"fid": 12.5, "judged_structure": 0.25, "structure": 0.75},
    }
    (group,) = groups_of(table, [(cell, result, None)])
    header, (paper, ours) = main_rows(table, [group])
    assert paper[2:6] == ["paper, ShapeStacks", "70.4", "0.78", "80.7"]
    assert ours[2:7] == ["ours, faithful", "12.5", "0.700", "25.0", "75.0"]
    assert ours[header.index("order")] == "–"


# --- measuring


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two finished cells of table 2: one on towers, one on sprites."""
    from cli.main import mobj as group

    out = tmp_path_factory.mktemp("reproduction") / "sri"
    only = ("--only", "towers sri-g", "--only", "sprites genv2-mog")
    arguments = ("reproduce", "sri-table2", *SMOKE, *only, "--out", out)
    group.main([str(argument) for argument in arguments], standalone_mode=False)
    return out


def result_at(out, column, row):
    path = out / "runs" / column / f"{row}-faithful" / "seed-0" / "evaluation.json"
    return json.loads(path.read_text())


def test_a_reproduction_leaves_figures_and_pictures(finished):
    page = (finished / "table.md").read_text()
    assert "| paper, ShapeStacks | 74.7 | 0.70 | 72.0 |" in page
    assert "### What is drawn, and in which order" in page
    assert "FID by `domain` features, of 16 samples" in page
    towers, sprites = (
        result_at(finished, *name)["generation"] for name in (("towers", "sri-g"), ("sprites", "genv2-mog"))
    )
    assert towers["structure_of_truth"] > 0.9
    assert sum(towers["reasons"].values()) == sum(towers["judged_reasons"].values()) == towers["judged"] == 16
    assert towers["judge"]["training"]["steps"] == 4
    assert sprites["structure"] is sprites["judged_structure"] is None
    assert sprites["bits_with_rollout"] is None  # no SRI
    assert towers["bits_with_rollout"] > towers["bits_of_these"]
    assert {"background 0", "level 0", "level 1"} <= towers["order_by_kind"].keys()
    assert towers["stamp"]["features"]["training"]["steps"] == 4
    folder = finished / "runs" / "towers" / "sri-g-faithful" / "seed-0"
    for name in ("reconstructions.png", "samples.png", "rollouts.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    assert (folder / "walk.gif").read_bytes()[:6] == b"GIF89a"
    assert not (finished / "runs" / "sprites" / "genv2-mog-faithful" / "seed-0" / "walk.gif").exists()


def test_fid_is_the_one_that_evaluate_finds(mobj, finished, tmp_path):
    folder = finished / "runs" / "sprites" / "genv2-mog-faithful" / "seed-0"
    features = finished / "features" / "sprites.pt"
    found = mobj(
        *("evaluate", folder / "checkpoint.pt", "--json", "--device", "cpu", "--no-baselines"),
        *("--samples", 16, "--features", features, "--metric", "ari_fg", "--out", tmp_path / "evaluation"),
    )
    assert found.code == 0, found.err
    document, ours = json.loads(found.out), result_at(finished, "sprites", "genv2-mog")
    assert document["generation"]["fid"] == pytest.approx(ours["generation"]["fid"], rel=1e-6)
    mean = document["metrics"]["ari_fg"]["mean"]
    assert ours["evaluation"]["metrics"]["ari_fg"]["mean"] == pytest.approx(mean, rel=1e-6)


def test_table_3_takes_the_run_of_table_2(mobj, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "sri")
    table = mobj("reproduce", "sri-table3", *SMOKE, "--only", "sri-g", "--out", out, "--json")
    assert table.code == 0, table.err
    assert "1 of 1 cells are finished already." in table.err
    (row,) = json.loads(table.out)["rows"]
    assert row["metrics"]["FID"]["paper"]["mean"] == 75.0
    assert (
        row["metrics"]["FID"]["ours"]["mean"] == result_at(finished, "towers", "sri-g")["generation"]["fid"]
    )
    assert f"table: {out / 'sri-table3'}.md" in mobj("reproduce", "sri-table3", *SMOKE, "--out", out).out
    assert (out / "table.md").read_text() == (
        finished / "table.md"
    ).read_text()  # table 2's own is still there


def test_columns_that_are_not_asked_for_stay_in_the_table_of_given_data(mobj, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "sri")
    (out / "data").rename(tmp_path / "data")
    arguments = ("--only", "towers sri-g", "--data", tmp_path / "data", "--out", out, "--json")
    table = mobj("reproduce", "sri-table2", *SMOKE, *arguments)
    assert table.code == 0, table.err
    assert {row["method"] for row in json.loads(table.out)["rows"]} == {"SRI-G", "GENv2-MoG"}


def test_features_are_learnt_once_and_anew_for_other_steps(finished, tmp_path):
    from dataclasses import replace

    from cli.reproduction.judging import ready_features

    scale = replace(find_table("sri-table2").scales["smoke"], feature_steps=4)
    data, path = finished / "data" / "sri-sprites", tmp_path / "features" / "a.pt"
    steps = []
    for each in (scale, scale, replace(scale, feature_steps=2)):
        ready_features(each, data, path, "cpu", lambda step, loss: steps.append(step))
    assert steps == [1, 2, 3, 4, 1, 2]


def test_the_judge_is_learnt_once_and_anew_for_other_steps(finished, tmp_path):
    from dataclasses import replace

    from cli.reproduction.judging import judge_beside, ready_judge

    table = find_table("sri-table2")
    scale, path = (
        replace(table.scales["smoke"], feature_steps=2),
        judge_beside(tmp_path / "features" / "a.pt"),
    )
    steps = []
    for each in (scale, scale, replace(scale, feature_steps=1)):
        data = finished / "data" / "sri-towers"
        ready_judge(table.columns["Towers"], each, data, path, "cpu", lambda step, loss: steps.append(step))
    assert steps == [1, 2, 1]


def test_inception_that_cannot_be_had_says_what_else_there_is(monkeypatch, finished, tmp_path):
    from dataclasses import replace

    from cli.reproduction.judging import ready_features
    from metrics.generation.features import inception

    def refuse():
        raise DataError("the weights cannot be downloaded.")

    monkeypatch.setattr(inception, "download", refuse)
    scale = replace(find_table("sri-table2").scales["paper"])
    assert scale.features == "inception"
    with pytest.raises(DataError, match="downloaded. Or compare .* --features domain"):
        ready_features(
            scale, finished / "data" / "sri-sprites", tmp_path / "a.pt", "cpu", lambda step, loss: None
        )


def test_models_without_masks_of_a_stack_have_no_structure():
    rows = generation_rows(
        find_table("sri-table2"), [Group("Rooms", find_table("sri-table2").row("GEN"), "faithful")]
    )
    assert rows[1] == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ("sri-table2", "--scale", "paper"),
            2,
            "CLEVR6, 96x96 is a public set: convert it with `mobj convert clevr6",
        ),
        (("sri-table1", "--scale", "paper", "--data", "nowhere"), 3, "there is no data set at nowhere"),
        (("sri-table1", "--form", "exact"), 2, "--form: sri-table1 has no cell in the form exact"),
        (("asr-table1", "--features", "domain"), 2, "--features: asr-table1 has no FID"),
    ],
)
def test_bad_requests_get_one_sentence(mobj, tmp_path, arguments, code, says):
    result = mobj("reproduce", *arguments, "--out", tmp_path / "out")
    assert result.code == code, result.err
    assert says in result.err
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_data_of_another_set_are_refused(mobj, finished, tmp_path):
    data = finished / "data" / "sri-towers"
    public = mobj("reproduce", "sri-table1", "--scale", "paper", "--data", data, "--out", tmp_path / "a")
    assert public.code == 2
    assert "holds towers-v1, not shapestacks; make it with: mobj convert shapestacks SOURCE" in public.err
    other = mobj(
        "reproduce", "sri-table2", *SMOKE, "--only", "rooms gen", "--data", data, "--out", tmp_path / "b"
    )
    assert other.code == 2
    assert "make it with: mobj generate rooms --set counts=2-3 --set canvas=32" in other.err
