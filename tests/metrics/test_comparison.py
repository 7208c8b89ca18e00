"""Runs side by side: pairing, intervals, ties, seeds, and what is refused."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.comparison.paired import compare
from metrics.comparison.recorded import Recorded, group_runs
from metrics.comparison.resampling import Resampling, seed_weights
from metrics.comparison.tables import legend, to_latex, to_markdown
from multiobj_data.errors import UsageError

N = 60


def recorded(path, columns, *, model=None, index=None, kind=None, baselines=None, higher=True, **data):
    """An evaluation as `read_evaluation` returns it, with these values an image."""
    columns = {name: np.asarray(values, float) for name, values in columns.items()}
    n = len(next(iter(columns.values())))
    facts = {
        "data": {"id": "toy-v1", **data},
        "scenes": {"images": n, "content_sha256": f"{index} {data.get('seed')}"},
        "rules": {},
        "metrics": {name: {"version": 1, "likelihood": name.startswith("log")} for name in columns},
        "likelihood_kind": kind,
    }
    document = {
        "model": path if model is None else model,
        "stamp": {"sha256": "s" if kind is None else kind, "facts": facts},
        "protocol": {"definitions": {name: {"higher_is_better": higher, "unit": ""} for name in columns}},
        "metrics": {name: {} for name in columns},
        "baselines": baselines,
    }
    index = np.arange(n) if index is None else np.asarray(index)
    return Recorded(Path(f"/runs/{path}/evaluation.json"), document, {"index": index, **columns})


@pytest.fixture
def pair(rng):
    easy = rng.normal(size=N)  # the images' own level, shared by both
    return easy, easy + 0.2 + 0.1 * rng.normal(size=N)


def test_the_difference_is_paired(pair):
    a, b = pair
    (row,) = compare([recorded("a", {"m": a}), recorded("b", {"m": b})]).rows
    found = row.differences["b"]
    d = b - a
    half = 1.96 * d.std(ddof=1) / math.sqrt(N)
    assert found.mean == pytest.approx(d.mean())
    assert found.paired
    assert found.resolved
    assert found.low == pytest.approx(d.mean() - half, abs=0.2 * half)
    assert found.high == pytest.approx(d.mean() + half, abs=0.2 * half)
    assert half < 0.1 < 1.96 * a.std() / math.sqrt(N)  # unpaired, it would not be resolved
    assert row.cells["a"].mean == pytest.approx(a.mean())
    assert row.cells["a"].spread == pytest.approx(a.std(ddof=1) / math.sqrt(N))


def test_images_are_joined_by_index_and_skipped_ones_left_out(pair, rng):
    a, b = (values.copy() for values in pair)
    a[:5], b[3:9] = math.nan, math.nan
    kept = np.sort(rng.permutation(N)[:50])
    runs = [recorded("a", {"m": a}), recorded("b", {"m": b[kept]}, index=kept)]
    (row,) = compare(runs, force=True).rows
    both = [i for i in kept if not math.isnan(a[i] - b[i])]
    assert row.differences["b"].n == len(both)
    assert row.differences["b"].mean == pytest.approx(np.mean([b[i] - a[i] for i in both]))
    assert row.cells["b"].skipped == np.isnan(b[kept]).sum()
    assert row.cells["b"].n + row.cells["b"].skipped == 50


def test_intervals_hold_the_true_difference_as_often_as_they_say():
    rng, held = np.random.default_rng(3), 0
    for _ in range(200):
        a, b = rng.normal(size=(2, 40)) + np.array([[0], [0.3]])
        (row,) = compare([recorded("a", {"m": a}), recorded("b", {"m": b})], level=0.9).rows
        held += row.differences["b"].low <= 0.3 <= row.differences["b"].high
    assert 0.83 <= held / 200 <= 0.95  # 0.9, within three standard errors and a small set's shortfall


def test_every_image_is_drawn_equally_often():
    means = np.concatenate([Resampling(seed).image_means(np.eye(7)) for seed in range(10)])
    assert means.shape == (20_000, 7)
    np.testing.assert_allclose(means.sum(1), 1)
    np.testing.assert_allclose(means.mean(0), 1 / 7, rtol=0.05)
    np.testing.assert_allclose(means.var(0), (1 / 7) * (6 / 7) / 7, rtol=0.1)


def test_equal_runs_differ_by_nothing(pair):
    (row,) = compare([recorded("a", {"m": pair[0]}), recorded("b", {"m": pair[0]})]).rows
    found = row.differences["b"]
    assert (found.mean, found.low, found.high, found.resolved) == (0, 0, 0, False)
    assert not any(cell.best for cell in row.cells.values())


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_are_marked_with_those_that_are_not_resolved_to_be_worse(rng, higher):
    easy = rng.normal(size=N)
    sign = 1 if higher else -1
    values = {
        "poor": easy - 2 * sign,
        "good": easy + 0.001 * rng.normal(size=N),
        "alike": easy + 0.001 * rng.normal(size=N),
    }
    (row,) = compare([recorded(name, {"m": v}, higher=higher) for name, v in values.items()]).rows
    assert {name for name, cell in row.cells.items() if cell.best} == {"good", "alike"}


def test_neither_way_is_better_of_an_error_with_a_sign(pair):
    runs = [recorded(name, {"m": values}, higher=None) for name, values in zip("ab", pair, strict=True)]
    assert not any(cell.best for cell in compare(runs).rows[0].cells.values())


def test_a_metric_that_one_run_lacks_has_a_gap(pair):
    a, b = pair
    comparison = compare([recorded("a", {"m": a}), recorded("b", {"m": b, "x": b})])
    assert [row.metric for row in comparison.rows] == ["m", "x"]
    row = comparison.rows[1]
    assert row.cells["a"] is None
    assert row.differences["b"] is None
    assert "| x ↑ | n/a |" in to_markdown(comparison)


@pytest.mark.parametrize("values", [[math.nan] * 3, [math.nan, math.nan, 1.0]])
def test_what_cannot_be_said_is_nan_and_unresolved(values):
    (row,) = compare([recorded("a", {"m": values}), recorded("b", {"m": [1.0, 2.0, 3.0]})]).rows
    found = row.differences["b"]
    assert not found.resolved
    assert math.isnan(found.low)
    assert found.n == np.isfinite(values).sum()


# -- seeds


def seeds_of(name, rows, steps=10):
    return [
        recorded(f"{name}/seed-{i}/evaluation-test", {"m": row}, model=f"air, seed {i}, {steps} steps")
        for i, row in enumerate(rows)
    ]


def test_seeds_of_one_model_share_a_column(rng):
    rows = rng.normal(size=(3, N)) + np.array([[0], [1], [2]])
    comparison = compare([*seeds_of("air", rows), recorded("other", {"m": rng.normal(size=N)})])
    assert comparison.groups == ("air, 10 steps", "other")
    cell = comparison.rows[0].cells["air, 10 steps"]
    assert cell.seeds == 3
    assert cell.mean == pytest.approx(rows.mean())
    assert cell.spread == pytest.approx(rows.mean(1).std(ddof=1))
    assert "air, 10 steps (3 seeds)" in to_markdown(comparison)
    assert any(line.startswith("Fewer than 5 seeds (air, 10 steps)") for line in legend(comparison, "*"))


def test_seeds_widen_the_interval_as_their_variance_says(rng):
    rows = 0.01 * rng.normal(size=(6, N)) + rng.normal(size=(6, 1))
    other = recorded("other", {"m": np.zeros(N)})
    (row,) = compare([other, *seeds_of("air", rows)]).rows
    found = row.differences["air, 10 steps"]
    expected = 2 * 1.96 * rows.mean(1).std(ddof=1) / math.sqrt(6)
    assert found.high - found.low == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("seeds", [1, 2, 3, 7])
def test_weights_of_drawn_seeds_sum_to_one_and_have_the_unbiased_variance(seeds, rng):
    weights = seed_weights(seeds, rng, 60_000)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    values = rng.normal(size=seeds)
    expected = values.var(ddof=1) / seeds if seeds > 1 else 0
    assert (weights @ values).var() == pytest.approx(expected, rel=0.04)


def test_runs_are_grouped_by_path_and_name_and_labelled_apart():
    def groups(*runs, **options):
        return [(g.label, len(g.runs)) for g in group_runs(list(runs), **options)]

    a, b = seeds_of("air", np.zeros((2, 3)))
    c, d = seeds_of("late", np.zeros((2, 3)))
    assert groups(b, a) == [("air, 10 steps", 2)]
    assert [run.path for run in group_runs([b, a])[0].runs] == [a.path, b.path]
    assert groups(a, b, c, d) == [("air", 2), ("late", 2)]  # one model's name: the folders tell them apart
    assert [n for _, n in groups(a, b, by_seed=False)] == [1, 1]
    (longer,) = seeds_of("air", np.zeros((1, 3)), steps=99)
    assert len(groups(b, longer)) == 2  # trained for longer: no seed of the same
    labels = [label for label, _ in groups(a, c, recorded("x", {"m": [1]}))]
    assert len(set(labels)) == 3


def test_a_run_is_not_compared_with_itself(pair):
    with pytest.raises(UsageError, match="is given twice"):
        compare([recorded("a", {"m": pair[0]})] * 2)
    with pytest.raises(UsageError, match="seeds of one model: give --no-seeds"):
        compare(seeds_of("air", pair))
    with pytest.raises(UsageError, match="got one; give another one"):
        compare([recorded("a", {"m": pair[0]})])
    assert len(compare(seeds_of("air", pair), by_seed=False).groups) == 2


# -- protocols


def test_unequal_protocols_are_refused_in_one_sentence(pair):
    runs = [
        recorded(name, {"m": values}, config={"protocol": {"name": protocol}})
        for name, values, protocol in zip("ab", pair, ("slot-attention", "genesis"), strict=True)
    ]
    with pytest.raises(UsageError, match="not scored alike: protocol slot-attention and genesis; evaluate"):
        compare(runs)
    comparison = compare(runs, force=True)
    assert comparison.unequal == ("protocol slot-attention and genesis",)
    assert comparison.stamp == "s"
    assert "NOT SCORED ALIKE (--force): protocol slot-attention and genesis." in to_markdown(comparison)


def test_scenes_that_are_others_are_not_paired(pair):
    a, b = pair
    runs = [recorded("a", {"m": a}, seed=0), recorded("b", {"m": b}, seed=1)]
    found = compare(runs, force=True).rows[0].differences["b"]
    half = 1.96 * math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / N)
    assert not found.paired
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)


def test_kinds_of_likelihood_are_not_mixed(pair):
    runs = [
        recorded(kind, {"log_likelihood_nats": values, "m": values}, kind=kind)
        for kind, values in zip(("exact", "elbo"), pair, strict=True)
    ]
    with pytest.raises(UsageError, match="likelihood kind exact and elbo"):
        compare(runs)
    assert [row.metric for row in compare(runs, metrics=["m"]).rows] == ["m"]


def test_what_only_some_runs_say_of_their_likelihood_is_remarked(pair):
    said = "elbo; space=density; normalised=true; pixel_range=1"
    runs = [
        recorded(name, {"log_likelihood_nats": values, "m": values}, kind=kind)
        for name, kind, values in zip("ab", (said, "elbo"), pair, strict=True)
    ]
    found = compare(runs, by_seed=False)
    assert found.unsaid == ("space", "normalised", "pixel_range")
    assert "Not every run says of its likelihood: space, normalised, pixel_range" in " ".join(
        legend(found, "*")
    )
    assert compare(runs, metrics=["m"], by_seed=False).unsaid == ()
    alike = recorded("other", {"log_likelihood_nats": pair[0], "m": pair[0]}, kind=said)
    assert compare([runs[0], alike], by_seed=False).unsaid == ()


def test_an_unknown_metric_and_level_are_refused(pair):
    runs = [recorded(name, {"mine": values}) for name, values in zip("ab", pair, strict=True)]
    with pytest.raises(UsageError, match="no run has a metric 'mime'. Did you mean 'mine'"):
        compare(runs, metrics=["mime"])
    with pytest.raises(UsageError, match="level above 0 and below 1"):
        compare(runs, level=95)


# -- tables


BASELINES = {
    "images": 32,
    "model": {},
    "baselines": {"one-slot": {"m": {"mean": 0.5}}, "truth": {"m": {"mean": 1.0}}},
}


@pytest.fixture
def comparison(pair):
    a, b = pair
    runs = [recorded("a_1", {"m_x": a, "m": a}, baselines=BASELINES), recorded("b|{$}\\", {"m_x": b, "m": b})]
    return compare(runs)


def test_markdown_has_as_many_cells_in_every_row(comparison):
    lines = [line for line in to_markdown(comparison).splitlines() if line.startswith("|")]
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    assert cells == [6] * 4 + [7] * 4
    assert lines[0] == "| metric | a_1 | b\\|{$}\\\\ | one-slot | truth |"
    assert lines[2].count("**") == 2
    assert lines[2].index("**") > lines[2].index("|", 10)  # b is better


def test_latex_is_escaped_and_balanced(comparison):
    text = to_latex(comparison)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert r"a\_1 & b\textbar{}\{\$\}\textbackslash{} & one-slot & truth \\" in text
    assert r"m\_x $\uparrow$ & " in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [4] * 3 + [5] * 3
    assert "\0" not in text
    assert text.count(r"\textbf{") == 2
    body = "".join(line for line in text.splitlines() if not line.startswith("%"))
    assert body.isascii()


def test_json_is_strict(comparison):
    import json

    document = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert document["rows"][0]["differences"].keys() == {"b|{$}\\"}
    assert document["baseline_images"] == 32


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-5, 5))
def test_scaling_and_shifting_a_metric_scales_the_differences(seed, scale, shift):
    a, b = np.random.default_rng(seed).normal(size=(2, 30))
    plain, other = (
        compare([recorded("a", {"m": f(a)}), recorded("b", {"m": f(b)})]).rows[0].differences["b"]
        for f in (lambda v: v, lambda v: scale * v + shift)
    )
    for end in ("mean", "low", "high"):
        assert getattr(other, end) == pytest.approx(scale * getattr(plain, end), abs=1e-9)


def test_the_legend_says_that_runs_skipped_different_images(pair):
    a, b = pair
    some = np.where(np.arange(N) < 20, np.nan, b)
    comparison = compare([recorded("a", {"m": a, "k": a}), recorded("b", {"m": some, "k": b})])
    assert any(line.startswith("Runs skip different images (m):") for line in legend(comparison, "*"))
    both = compare([recorded("a", {"m": np.where(np.isnan(some), some, a)}), recorded("b", {"m": some})])
    assert not any("skip different" in line for line in legend(both, "*"))


def test_as_many_images_but_others_are_different_images_too(pair):
    a, b = pair
    first, last = np.arange(N) < 20, np.arange(N) >= N - 20
    comparison = compare(
        [recorded("a", {"m": np.where(first, np.nan, a)}), recorded("b", {"m": np.where(last, np.nan, b)})]
    )
    assert any("skip different" in line for line in legend(comparison, "*"))


def test_runs_without_a_common_metric_have_no_table_of_differences(pair):
    a, b = pair
    comparison = compare([recorded("a", {"m": a}), recorded("b", {"k": b})])
    assert any(line.startswith("No run has a metric in common with a") for line in legend(comparison, "*"))
    assert "| difference |" not in to_markdown(comparison)
    assert to_latex(comparison).count("tabular") == 2
    assert "no differences" not in to_markdown(compare([recorded("a", {"m": a}), recorded("b", {"m": b})]))
