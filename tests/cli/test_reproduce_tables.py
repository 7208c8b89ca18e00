import re
from dataclasses import replace

import numpy as np
import pytest

from cli.reproduce import reproduce_command
from cli.reproduction.cells import Cell, cells_of, chosen
from cli.reproduction.drawing import ink_overlaps, windows_overlap
from cli.reproduction.results import Summary, duration, figure, groups_of, main_rows
from cli.reproduction.tables import FORMS, find_table, table_names
from metrics import METRICS
from multiobj_data.errors import UsageError
from multiobj_data.presets import find_preset
from reference_models.presets import preset_settings

TABLES = [
    "asr-table1",
    "asr-table2",
    "air-report-table1",
    "supair-table1",
    "supair-table2",
    "supair-figure5",
]
SRI = ["sri-table2", "sri-table1", "sri-table3", "sri-table4"]  # see test_reproduce_sri.py
TRAINED = [name for name in TABLES if name != "supair-table1"]
UNPUBLISHED = ["SuPAIR-guided", "SuPAIR-without-background"]
CELLS = [
    pytest.param(name, cell, id=f"{name} {cell.name}")
    for name in TRAINED
    if not find_table(name).base  # of the same cells
    for cell in cells_of(find_table(name), find_table(name).scales["paper"], seeds=[0])
]


def test_help_names_every_table():
    assert table_names() == [*TABLES, *SRI]
    assert all(name in reproduce_command.help for name in table_names())


@pytest.mark.parametrize(("name", "cell"), CELLS)
def test_every_cell_can_be_built_for_its_data(name, cell):
    from reference_models.checkpoints import build_model

    table = find_table(name)
    preset = find_preset(table.columns[cell.column].data)
    side = preset.settings["canvas"]
    model = build_model(cell.model, cell.settings, (side, side, 1), seed=0)
    most = int(preset.settings["counts"].replace("-", ",").split(",")[-1])
    assert model.config.max_objects >= most  # or the true count could not be found
    if cell.row == "AIR-ASR":
        assert model.regulariser
    if allowed := getattr(model.config, "allowed_counts", ()):
        assert ",".join(map(str, allowed)) == preset.settings["counts"]
    enumerates = getattr(model.config, "estimator", "enumerate") == "enumerate"  # SuPAIR always does
    assert enumerates == (cell.form == "exact")


@pytest.mark.parametrize("name", TRAINED)
def test_every_figure_of_ours_exists_and_the_papers_are_complete(name):
    table = find_table(name)
    assert table.success["metric"] in table.metrics
    assert all(metric.of in METRICS for metric in table.metrics.values())
    for row in table.rows:
        assert row.published.keys() == ({} if row.name in UNPUBLISHED else table.columns).keys()
        for figures in row.published.values():
            if name != "air-report-table1":  # which has one accuracy, in its text
                assert figures.keys() == table.metrics.keys()
            if name.startswith("asr"):
                assert all(len(pair) == 2 and pair[1] >= 0 for pair in figures.values())
    for scale in table.scales.values():
        assert set(scale.forms) <= set(FORMS)
        assert scale.steps > 0 < scale.seeds
        words = {word.lower() for word in " ".join(scale.cell_steps).split()}
        named = {word for cell in cells_of(table, scale, seeds=[0]) for word in cell.name.lower().split()}
        assert words <= named  # or they would say nothing
        assert table.measure != "overlap" or scale.samples > 1
        assert table.measure != "variance" or scale.draws > 1 <= scale.baseline_steps


def test_the_papers_figures_are_as_printed():
    rows = {(t, row.name): row.published for t in TABLES for row in find_table(t).rows}
    assert rows["asr-table1", "AIR-ASR"]["24"] == {
        "nELBO": [495.73, 35.80],
        "ACC": [0.98, 0.01],
        "SE": [48.54, 5.60],
        "mIoU": [0.54, 0.08],
    }
    # The paper's bold claims, as a check against figures in the wrong row or column.
    for column in ("13", "14", "24"):
        assert (
            max(("AIR", "AIR-pPrior", "AIR-ASR"), key=lambda r: rows["asr-table1", r][column]["ACC"][0])
            == "AIR-ASR"
        )
    for column in ("MNIST", "dSprites"):
        order = sorted(
            ("AIR-ASR", "AIR-pPrior", "AIR"), key=lambda r: rows["asr-table2", r][column]["mIoU"][0]
        )
        assert order == ["AIR", "AIR-pPrior", "AIR-ASR"]
    assert rows["supair-table2", "SuPAIR"]["Noisy-MNIST"] == {"ACC": [0.938], "ELBO": [1047]}
    assert all(rows["supair-table2", "AIR"][c]["ACC"] == [0.0] for c in ("Noisy-MNIST", "Grid-MNIST"))
    published = find_table("air-report-table1").variance["published"]
    assert published["score-function"] == {"generative": 5.83e-2, "inference": 2.03e4}
    assert published["baseline"] == {"inference": 6.47e2}


def test_settings_go_before_each_other_in_order():
    table = find_table("asr-table2")
    cells = {(c.row, c.form, c.column): c for c in cells_of(table, table.scales["smoke"], seeds=[0])}
    settings = cells["AIR-ASR", "faithful", "dSprites"].settings
    assert settings["estimator"] == "concrete"  # preset
    assert settings["max_objects"] == 3  # table
    assert settings["lstm_size"] == 16  # scale
    assert settings["size_tolerance"] == 3  # row
    assert settings["size_range"] == [12, 15]  # column of the row
    assert cells["AIR", "faithful", "MNIST"].settings["anneal"] == "none"  # form, over the preset


def test_steps_are_those_of_the_last_words_that_a_cell_has():
    own = {"Sprites": 7, "faithful": 9, "sprites AIR faithful": 11}
    table = find_table("supair-table2")
    scale = replace(table.scales["smoke"], steps=5, cell_steps=own)
    steps = {cell.group: cell.steps for cell in cells_of(table, scale, seeds=[0])}
    assert steps["Sprites", "SuPAIR", "exact"] == 7
    assert steps["Sprites", "AIR", "faithful"] == 11
    assert steps["Grid-MNIST", "SuPAIR", "exact"] == 5
    assert steps["Grid-MNIST", "AIR", "faithful"] == 9
    assert {cell.steps for cell in cells_of(table, scale, seeds=[0], steps=3)} == {3}


def test_each_data_set_of_supair_has_its_own_preset():
    table = find_table("supair-table2")
    settings = {
        (cell.column, cell.row): cell.settings
        for cell in cells_of(table, table.scales["paper"], seeds=[0], forms=["exact"])
    }
    for column, preset in (
        ("Sprites", "sprites"),
        ("Multi-MNIST", "multi-mnist"),
        ("Grid-MNIST", "grid-mnist"),
    ):
        assert settings[column, "SuPAIR"] == preset_settings("supair", preset)
    ablation = settings["Noisy-MNIST", "SuPAIR-without-background"]
    black = {"background": "black", "pose_of": "present", "occlusion_rate": 120}
    assert ablation == {**settings["Noisy-MNIST", "SuPAIR"], **black}
    assert settings["Noisy-MNIST", "SuPAIR"]["object_min_variance"] == 0.25


def cells(names=("13 AIR", "13 AIR-ASR", "24 AIR-ASR"), seeds=(0, 1)):
    return [
        Cell(*name.split(), form="exact", seed=seed, model="air", settings={}, steps=1, batch_size=1)
        for name in names
        for seed in seeds
    ]


@pytest.mark.parametrize(
    ("only", "left"),
    [
        ((), 6),
        (("13",), 4),
        (("AIR",), 2),  # not AIR-ASR
        (("air-asr seed-1",), 2),
        (("13 air-asr", "24"), 4),
        (("seed-0 24 AIR-ASR exact",), 1),
    ],
)
def test_only_takes_whole_words_of_the_name(only, left):
    assert len(chosen(cells(), only)) == left


@pytest.mark.parametrize(
    ("only", "says"), [("13 arr-asr", "Did you mean 'air-asr'?"), ("24 air", "no cell is all of '24 air'")]
)
def test_only_that_names_nothing_is_refused(only, says):
    with pytest.raises(UsageError, match=re.escape(says)):
        chosen(cells(), [only])


# --- summing up


def result(**metrics):
    means = {name: {"mean": value} for name, value in metrics.items()}
    return {"evaluation": {"metrics": means}, "seconds": 60.0, "overlap": None, "variance": None}


def test_all_seeds_are_in_the_mean_and_failed_ones_in_the_success_rate():
    table = find_table("asr-table1")
    run = [
        each
        for each in cells_of(table, table.scales["small"], seeds=range(4))
        if each.group == ("13", "AIR", "exact")
    ]
    outcomes = [
        (run[0], result(count_accuracy=0.98, log_likelihood_nats=-300.0), None),
        (run[1], result(count_accuracy=0.96, log_likelihood_nats=-400.0), None),
        (run[2], result(count_accuracy=0.40, log_likelihood_nats=None), None),
        (run[3], None, "the loss is not finite"),
    ]
    (group,) = groups_of(table, outcomes)
    assert group.successes(table) == (2, 4)
    assert group.summary(table.metrics["ACC"]).mean == pytest.approx(0.78)
    assert group.summary(table.metrics["ACC"]).sd == pytest.approx(np.std([0.98, 0.96, 0.4], ddof=1))
    assert group.values(table.metrics["nELBO"]) == [300, 400]
    header, (paper, ours) = main_rows(table, [group])
    assert paper[:5] == ["1 or 3 digits", "AIR", "paper", "404.41 ± 4.58", "0.81 ± 0.23"]
    assert ours[2:5] == ["ours, exact", "350.00 ± 70.71", "0.780 ± 0.329"]
    assert ours[-2:] == ["2 of 4 (1 failed)", "60 s"]
    assert len(header) == len(paper) == len(ours)


def test_a_figure_of_one_seed_has_no_spread():
    assert figure(Summary.of([0.5]), 3) == "0.500"
    assert figure(Summary.of([]), 3) == "–"


@pytest.mark.parametrize(("seconds", "says"), [(41.2, "41 s"), (720, "12 min"), (12600, "3.5 h")])
def test_durations_read_well(seconds, says):
    assert duration(seconds) == says


# --- samples


def test_windows_overlap_as_found_pixel_by_pixel():
    rng = np.random.default_rng(0)
    corner = rng.integers(-3, 20, (200, 4, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 7, (200, 4, 1))], axis=-1)
    count = rng.integers(0, 5, 200)
    expected = []
    for row, n in zip(boxes, count, strict=True):
        painted = np.zeros((40, 40), int)
        for x0, y0, x1, y1 in row[:n] + 5:
            painted[y0:y1, x0:x1] += 1
        expected.append((painted > 1).any())
    found = windows_overlap(boxes.astype(float), count)
    assert 0 < np.sum(found) < 200
    np.testing.assert_array_equal(found, expected)


def test_ink_overlaps_where_two_objects_share_a_pixel():
    ink = np.zeros((2, 3, 4, 4), bool)
    ink[:, 0, 0, 0] = ink[:, 1, 3, 3] = True
    ink[1, 2, 3, 3] = True
    assert ink_overlaps(ink).tolist() == [False, True]


def test_samples_are_counted_by_hand_too():
    from cli.reproduction.drawing import drawn, overlap_of_samples
    from reference_models.checkpoints import build_model

    settings = {"lstm_size": 8, "hidden_size": 8, "what_size": 2, "decoder_bias": 0, "count_prior": "learned"}
    model = build_model("air", settings, (20, 20, 1), seed=0)
    found = overlap_of_samples(model, 300)  # more than are drawn at once
    parts = list(drawn(model, 300))
    assert [len(part.images) for part in parts] == [250, 50]
    windows = ink = pairs = 0
    for part in parts:
        for boxes, masks, count in zip(part.windows, part.ink, part.count, strict=True):
            assert not masks[count:].any()  # objects that are not there paint nothing
            clear = [
                a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
                for i, a in enumerate(boxes[:count])
                for b in boxes[:i]
            ]
            pairs += count >= 2
            windows += count >= 2 and all(clear)
            ink += sum(mask.any() for mask in masks) >= 2 and masks.sum(0).max() == 1
    assert (found["with_windows"], found["windows_apart"], found["ink_apart"]) == (pairs, windows, ink)
    assert 0 < windows < pairs < 300
