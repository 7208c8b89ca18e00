"""What spares drawing most candidates must say what drawing them would have said."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from multiobj_data.composition.overlap import Collisions, Overlap
from multiobj_data.composition.placement import Rules, lay_out
from multiobj_data.factors.colours import parse_colours
from multiobj_data.generators.multi_dsprites import MultiDSprites
from multiobj_data.generators.sprites import PlacedSprites, SpriteLaw, all_sprites
from multiobj_data.sprites import shapes
from multiobj_data.sprites.rendered import PlacedShapes

RULES = [
    Overlap("pixels"),
    Overlap("boxes"),
    Overlap("boxes", margin=3),
    Overlap("boxes", max_iou=0.2),
    Overlap("rows-and-columns"),
]


def breaks(overlap, a, b):
    """Decide from two whole canvases."""
    if overlap.rule == "pixels":
        return bool((a & b).any())
    (rows_a, rows_b), (columns_a, columns_b) = ([np.flatnonzero(m.any(k)) for m in (a, b)] for k in (1, 0))
    gaps = [
        max(p.min() - q.max() - 1, q.min() - p.max() - 1)
        for p, q in ((rows_a, rows_b), (columns_a, columns_b))
    ]
    if overlap.rule == "rows-and-columns":
        return min(gaps) < 0
    if overlap.max_iou:
        shared = np.prod([len(np.intersect1d(*pair)) for pair in ((rows_a, rows_b), (columns_a, columns_b))])
        union = len(rows_a) * len(columns_a) + len(rows_b) * len(columns_b) - shared
        return shared / union > overlap.max_iou
    return max(gaps) < overlap.margin


@pytest.mark.parametrize("overlap", RULES, ids=str)
def test_tabulated_pairs_are_judged_as_whole_canvases(overlap):
    canvas, n = 30, 300
    source = PlacedSprites(SpriteLaw((5, 8), canvas), (5, 8), 1)
    assert source.nothing().sprites.tables is not None
    rng = np.random.default_rng(0)
    a, b = source.propose(rng, n), source.propose(rng, n)
    bad = overlap.rejects([a], b)
    for i in range(n):
        masks = []
        for placed in (a, b):
            tile = placed.sprites.tile[placed.index[i]] > 0
            mask = np.zeros((canvas + 8, canvas + 8), bool)
            mask[placed.y[i] : placed.y[i] + len(tile), placed.x[i] : placed.x[i] + len(tile)] = tile
            masks.append(mask)
        assert bad[i] == breaks(overlap, *masks)
    assert 0.02 < bad.mean() < 0.98
    many = [source.propose(rng, 20_000) for _ in range(2)]
    assert np.array_equal(overlap.rejects(many[:1], many[1]), overlap._rejects_anew(many[:1], many[1]))


def test_tables_are_made_once_and_only_for_few_sprites():
    few, many = all_sprites((20, 20)), all_sprites((4, 30))
    assert many.tables is None
    source = PlacedSprites(SpriteLaw((20, 20), 50), (20, 20), 1)
    rng = np.random.default_rng(0)
    for _ in range(2):
        lay_out(rng, source, 2, Rules(Overlap("pixels")), 5)
    table = few.tables[Overlap("pixels")]
    assert isinstance(table, Collisions)
    lay_out(rng, source, 2, Rules(Overlap("pixels")), 5)
    assert few.tables[Overlap("pixels")] is table
    apart = Overlap("boxes", margin=900)
    lay_out(rng, PlacedSprites(SpriteLaw((20, 20), 1000), (20, 20), 1), 2, Rules(apart), 5)
    assert apart not in few.tables  # its table would take gigabytes


@pytest.mark.parametrize("name", sorted(shapes.CODES))
def test_discs_lie_inside_their_shapes(name):
    n, size = 300, 44
    rng = np.random.default_rng(1)
    code = np.full(n, shapes.CODES[name], np.int16)
    scale = rng.uniform(0.3, 1.3, n).astype(np.float32)
    orientation = rng.uniform(-7, 14, n).astype(np.float32)
    centre = (size / 2 + rng.uniform(-2, 2, (n, 2))).astype(np.float32)
    lit = shapes.rasterise(code, scale, orientation, centre, size) > 0
    at = np.arange(size) + 0.5
    covered = np.zeros_like(lit)
    for dx, dy, radius in zip(*shapes.discs(code, scale, orientation), strict=True):
        x, y = centre[:, 0] + dx, centre[:, 1] + dy
        disc = np.hypot(at - x[:, None, None], at[:, None] - y[:, None, None]) < radius[:, None, None] - 0.01
        assert disc.any((1, 2)).all()
        assert not (disc & ~lit).any()
        covered |= disc
    assert covered.sum() > 0.7 * lit.sum()


def test_colours_come_late_only_where_nothing_depends_on_them():
    def source(**settings):
        found = MultiDSprites(**settings)._source("train", None)
        assert isinstance(found, PlacedShapes)
        return found

    assert source().looks == parse_colours("hsv")
    assert source(distinct="shape").looks is not None
    assert source(distinct="shape, colour").looks is None
    held_out = MultiDSprites(holdout="colour=red")
    assert all(held_out._stage(split, 4).source.looks is None for split in ("train", "ood"))


def test_late_colours_have_their_law_whatever_was_rejected():
    generator = MultiDSprites(counts="3", scale="1", canvas=50, overlap=False, colours="hsv:0..0.5,1..1,1..1")
    scenes = generator.scenes(np.random.default_rng(5), 700)
    hue = scenes.factors["colour_hsv"][..., 0]  # [n, 3]
    for k, j in itertools.combinations(range(3), 2):
        assert stats.kstest(hue[:, k] * 2, "uniform").pvalue > 1e-4
        assert abs(stats.pearsonr(hue[:, k], hue[:, j]).statistic) < 4 / np.sqrt(700)
    assert scenes.scene_factors["attempts"].mean() > 10


def test_keeping_freed_memory_changes_no_scene():
    script = (
        "import numpy as np; from multiobj_data.composition.memory import keep_freed_memory; {};"
        "from multiobj_data.generators.sprites import Sprites;"
        "print(int(Sprites().scenes(np.random.default_rng(0), 256).image.astype(np.int64).sum()))"
    )
    ends = [
        subprocess.run(
            [sys.executable, "-c", script.format(call)], capture_output=True, text=True, check=True
        )
        for call in ("keep_freed_memory(); keep_freed_memory()", "pass")
    ]
    assert ends[0].stdout == ends[1].stdout != ""
    assert not ends[0].stderr
