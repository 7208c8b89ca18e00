import json
import math

import numpy as np
import pytest

from cli.reproduction.cells import cells_of
from cli.reproduction.curve_picture import draw_curves, median_curve
from cli.reproduction.curves import Reach, curve_of, ratio_of, ratio_rows, reach_rows, seconds_to
from cli.reproduction.parameters import count_parameters
from cli.reproduction.results import groups_of
from cli.reproduction.tables import find_table

SMOKE = ("--scale", "smoke", "--digits", "bundled", "--device", "cpu", "--threads", 1, "--steps", 3)


# --- table 1: parameters


def test_parameters_are_the_papers_or_differ_as_the_page_says():
    found = {(each.row, each.form): each for each in count_parameters(find_table("supair-table1"))}
    supair = found["SuPAIR", "faithful"]
    assert supair.parts == supair.published
    assert sum(supair.published.values()) == 3_213_145  # as printed, and 6,104,117 below
    air = found["AIR", "faithful"]
    assert sum(air.published.values()) == 6_104_117
    assert air.parts["object model"] == air.published["object model"]
    size, latents, pixels = 256, 3 + 50, 50 * 50
    theirs = 4 * size * (pixels + latents + 1 + size + 2)  # z_pres as input, two biases
    assert theirs == air.published["inference network"]
    assert theirs + size + 1 == air.published["baselines"]
    ours = 4 * size * (pixels + latents + size + 1)
    assert theirs - ours == 2048
    predicts, reads, first = 200 * (size + 1) + 7 * 201, 200 * (size + 1) + 201, 2 * size + latents
    assert air.parts["inference network"] == ours + predicts + first
    assert air.parts["baselines"] == ours + reads
    told = " ".join(find_table("supair-table1").differs)
    assert all(f"({number:,})" in told for number in (1024, predicts, first, reads, size + 1))
    assert "2,048" in told


def test_parameters_of_no_part_are_not_passed_over():
    from dataclasses import replace

    table = find_table("supair-table1")
    parts = {name: some for name, some in table.parameters["parts"].items() if name != "background model"}
    with pytest.raises(ValueError, match="background"):
        count_parameters(replace(table, parameters={**table.parameters, "parts": parts}))


def test_table_1_is_told_and_left_at_once(mobj, tmp_path):
    result = mobj("reproduce", "supair-table1", "--scale", "smoke", "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    rows = json.loads(result.out)["rows"]
    assert rows[0]["parameters"]["total"] == rows[0]["paper"]["total"] == 3_213_145
    page = (tmp_path / "out" / "table.md").read_text()
    assert "| SuPAIR | ours, faithful | 2,836,477 | 286,560 | 90,108 | 0 | 3,213,145 |" in page
    assert "| AIR | ours, faithful: more | +51,324 | +0 | +0 | +49,296 | +100,620 |" in page
    assert page.count("| AIR | paper |") == 1
    only = mobj("reproduce", "supair-table1", "--scale", "paper", "--dry-run", "--out", tmp_path / "none")
    assert only.code == 0, only.err
    assert "3,213,145" in only.out
    assert not (tmp_path / "none").exists()


# --- table 2: how much is trained


def test_the_scales_have_all_scenes_and_the_papers_epochs():
    from cli.reproduction.data import plan_of
    from multiobj_data.presets import find_preset

    table = find_table("supair-table2")
    for column in table.columns.values():
        scenes = find_preset(column.data).splits
        for name in ("small", "paper"):
            assert plan_of(column, table.scales[name], {"digits": "bundled"}).splits == scenes
    paper = table.scales["paper"]
    for cell in cells_of(table, paper, seeds=[0]):
        epoch = find_preset(table.columns[cell.column].data).splits["train"]
        batch = paper.batch_size if cell.form == "exact" else 64
        assert 0 <= cell.steps * batch - 20 * epoch < batch


# --- figure 5: seconds to an accuracy


def test_a_curve_gets_to_a_level_when_it_is_first_there():
    curve = [[1.0, 0.2], [2.0, 0.9], [3.0, 0.7], [4.0, 0.95]]
    assert [seconds_to(curve, level) for level in (0.2, 0.3, 0.9, 0.91)] == [1, 2, 2, 4]
    assert math.isinf(seconds_to(curve, 0.96))
    assert math.isinf(seconds_to([], 0.1))


def curve(reached, trained=100.0):
    """A curve that has 60 % from some time on, or never."""
    return [[10.0, 0.1], *([] if reached is None else [[reached, 0.6]]), [trained, 0.6 if reached else 0.1]]


@pytest.mark.parametrize(
    ("reached", "expected"),
    [
        ([20, 30, 40], Reach(30, False, 3, 3)),
        ([20, 50, None], Reach(50, False, 2, 3)),
        ([20, None, None], Reach(100, True, 1, 3)),
        ([20, 30, None, None], Reach(65, True, 2, 4)),  # the median is between 30 and what is above 100
        ([None], Reach(100, True, 0, 1)),
        ([], None),
    ],
)
def test_seeds_that_do_not_get_there_count_as_latest(reached, expected):
    assert Reach.of_curves([curve(seconds) for seconds in reached], 0.5) == expected


def test_a_bound_is_never_above_the_median_that_longer_training_gives():
    rng = np.random.default_rng(0)
    for _ in range(200):
        times = rng.uniform(10.5, 300, rng.integers(1, 6))
        cut = [curve(t if t < 100 else None) for t in times]
        found = Reach.of_curves(cut, 0.5)
        truth = np.median(times)
        assert found.seconds <= truth * (1 + 1e-12)
        if not found.bound:
            assert found.seconds == pytest.approx(truth)


def test_ratios_say_what_is_only_a_bound_and_nothing_where_nothing_is_known():
    fast, slow, never = Reach(20, False, 5, 5), Reach(110, False, 5, 5), Reach(90, True, 1, 5)
    assert ratio_of(slow, fast) == (5.5, False)
    assert ratio_of(never, fast) == (4.5, True)
    assert ratio_of(slow, never) is None
    assert ratio_of(None, fast) is ratio_of(slow, None) is None


def groups(reached, failed=()):
    """Groups of Sprites, with when each seed got to 60 %."""
    table = find_table("supair-figure5")
    outcomes = []
    for cell in cells_of(table, table.scales["small"], seeds=range(3)):
        seconds = reached.get((cell.row, cell.form))
        if cell.column == "Sprites" and seconds:
            result = {"curve": curve(seconds[cell.seed]), "jobs": 1}
            crashed = (cell.row, cell.seed) in failed
            outcomes.append((cell, None, "crashed") if crashed else (cell, result, None))
    return table, groups_of(table, outcomes)


SEEDS = {
    ("SuPAIR", "exact"): [20, 21, 22],
    ("AIR", "exact"): [42, 43, 41],
    ("AIR", "faithful"): [84, None, None],
}


def test_rows_stand_below_each_other_and_ratios_are_over_the_first():
    table, found = groups(SEEDS)
    _, lines = reach_rows(table, found)
    assert [line[:4] for line in lines] == [
        ["Sprites", "SuPAIR", "exact", "21 s (3 of 3)"],
        ["Sprites", "AIR", "exact", "42 s (3 of 3)"],
        ["Sprites", "AIR", "faithful", "> 100 s (1 of 3)"],
    ]
    assert lines[0][4] == "> 100 s (0 of 3)"
    _, ratios = ratio_rows(table, found)
    assert ratios == [
        ["Sprites", "AIR faithful over SuPAIR", "> 4.8", "–", "–"],
        ["Sprites", "AIR exact over SuPAIR", "2.0", "–", "–"],
    ]


def test_a_seed_that_failed_never_gets_there():
    table, found = groups(SEEDS, failed=[("SuPAIR", 0)])
    assert reach_rows(table, found)[1][0][3] == "22 s (2 of 3)"


def test_the_median_of_curves_lasts_as_long_as_all_of_them():
    curves = [[[1, 0.0], [3, 1.0]], [[2, 0.5], [5, 0.5]], [[1, 0.2], [4, 0.8]]]
    at, median = median_curve(curves)
    assert at.tolist() == [2, 3]
    assert median == pytest.approx([0.5, 0.6])


def test_the_picture_has_a_panel_for_each_data_set_and_all_that_the_paper_shows(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: drawn.append(self) or save(self, *a, **k))
    draw_curves(*groups(SEEDS), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    (figure,) = drawn
    (panel,) = figure.axes
    assert panel.get_title() == "Sprites"
    assert len(panel.lines) == 3 * (3 + 1) + 2  # of the ablation on sprites nothing was read off
    points = panel.lines[-1]
    assert points.get_xydata()[0].tolist() == [70, 39]


def test_points_that_were_read_off_rise_and_are_of_known_rows():
    table = find_table("supair-figure5")
    for row, columns in table.curves["published"].items():
        assert row in [each.name for each in table.rows]
        for column, points in columns.items():
            assert column in table.columns
            assert points == sorted(points)
            assert all(0 <= accuracy <= 1 for _, accuracy in points)
            assert [accuracy for _, accuracy in points] == sorted(accuracy for _, accuracy in points)
    for name, form in table.curves["ratios"]:
        assert form in table.row(name).forms


# --- the commands


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Two finished cells of figure 5."""
    from cli.main import mobj as group

    out = tmp_path_factory.mktemp("reproduction") / "supair"
    only = ("--only", "multi-mnist supair", "--only", "multi-mnist air faithful")
    arguments = ("reproduce", "supair-figure5", *SMOKE, *only, "--out", out)
    group.main([str(argument) for argument in arguments], standalone_mode=False)
    return out


def test_figure_5_leaves_its_picture_and_the_seconds_of_the_logs(out):
    document = json.loads((out / "figure.json").read_text())
    assert [each["method"] for each in document["curves"]] == ["SuPAIR", "AIR"]
    log = (out / "runs" / "multi-mnist" / "supair-exact" / "seed-0" / "log.jsonl").read_text().splitlines()
    measured = [record for record in map(json.loads, log) if "count_accuracy" in record]
    expected = [[record["elapsed_s"], record["count_accuracy"]] for record in measured]
    assert len(expected) == 3  # after each step
    assert document["curves"][0]["curves"] == {"0": expected}
    assert curve_of(out / "runs" / "multi-mnist" / "supair-exact" / "seed-0") == expected
    assert (out / "figure.png").read_bytes()[:4] == b"\x89PNG"
    page = (out / "figure.md").read_text()
    assert "](figure.png)" in page
    assert "### Seconds to a count accuracy" in page
    for row in ("supair-exact", "air-faithful"):
        for name in ("reconstructions.png", "samples.png"):
            assert (out / "runs" / "multi-mnist" / row / "seed-0" / name).exists()


def test_table_2_takes_the_runs_of_figure_5_and_tells_of_those_side_by_side(mobj, out):
    before = (out / "runs" / "multi-mnist" / "supair-exact" / "seed-0" / "checkpoint.pt").stat().st_mtime_ns
    common = ("--only", "multi-mnist supair", "--out", out)
    table = mobj("reproduce", "supair-table2", *SMOKE, *common, "--jobs", 2, "--json")
    assert table.code == 0, table.err
    assert "1 of 1 cells are finished already." in table.err
    rows = json.loads(table.out)["rows"]
    assert rows[0]["metrics"]["ACC"]["paper"]["mean"] == 0.983
    assert set(rows[0]["metrics"]["ELBO"]["seeds"]) == {"0"}
    assert "curves" not in json.loads(table.out)
    path = out / "runs" / "multi-mnist" / "supair-exact" / "seed-0"
    assert (path / "checkpoint.pt").stat().st_mtime_ns == before
    evaluation = json.loads((path / "evaluation.json").read_text())
    assert evaluation["jobs"] == 1
    (path / "evaluation.json").write_text(json.dumps(evaluation | {"jobs": 2}))
    figure = mobj("reproduce", "supair-figure5", *SMOKE, *common)
    (path / "evaluation.json").write_text(json.dumps(evaluation))
    assert figure.code == 0, figure.err
    assert "1 of 2 runs were trained side by side with others" in figure.out


def test_seconds_are_not_measured_side_by_side(mobj, tmp_path):
    result = mobj("reproduce", "supair-figure5", "--jobs", 2, "--out", tmp_path / "out")
    assert result.code == 2
    assert "--jobs: supair-figure5 measures seconds" in result.err
    assert not (tmp_path / "out").exists()
