import json
import subprocess
import sys

import numpy as np
import pytest

from multiobj_data.loading import open_dataset
from multiobj_data.presets import presets

TINY = ("--train", 40, "--test", 20)


@pytest.fixture
def forecast(mobj):
    """Run `mobj generate ... --dry-run --json`; return the document."""

    def run(*arguments):
        result = mobj("generate", *arguments, "--dry-run", "--json")
        assert result.code == 0, result.err
        return json.loads(result.out)

    return run


@pytest.fixture
def config(mobj, tmp_path):
    """Generate a few scenes; return the configuration in their manifest."""

    def run(*arguments):
        out = tmp_path / "data"
        result = mobj("generate", *arguments, *TINY, "--out", out, "--no-sheet", "--json")
        assert result.code == 0, result.err
        return json.loads((out / "dataset.json").read_text())["config"]

    return run


def test_a_preset_needs_no_name(forecast):
    named = forecast("sprites", "--preset", "supair-sprites")
    unnamed = forecast("--preset", "supair-sprites")
    assert unnamed["splits"] == named["splits"] == {"train": 40_000, "test": 10_000}
    assert set(unnamed["acceptance"]) == {"0", "1", "2"}


def test_options_override_a_preset(config):
    changed = config(
        "--preset",
        "genesis-multid",
        "--counts",
        "2",
        "--no-overlap",
        "--scale",
        "0.5",
        "--set",
        "ground=black",
    )
    assert (changed["counts"], changed["overlap"], changed["scale"], changed["ground"]) == (
        "2",
        False,
        "0.5",
        "black",
    )
    assert changed["position"] == "dsprites"  # the rest is the preset's


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--overlap-rule", "rows-and-columns"), ("rows-and-columns", False, 0, 0)),
        (("--margin", 2), ("boxes", False, 2, 0)),
        (("--max-iou", 0.2), ("boxes", False, 0, 0.2)),
        (("--set", "margin=3"), ("boxes", False, 3, 0)),
        (("--no-overlap",), ("pixels", False, 0, 0)),
        ((), ("pixels", True, 0, 0)),
    ],
)
def test_what_is_said_of_overlap_implies_the_rest(config, arguments, expected):
    found = config("multi-dsprites", "--counts", "2", *arguments)
    assert tuple(found[key] for key in ("overlap_rule", "overlap", "margin", "max_iou")) == expected


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "nothing to generate: give NAME (multi-dsprites, multi-mnist, "),
        (("--preset", "asr24"), "no preset named 'asr24'. Did you mean 'asr-24'?"),
        (("--preset", "multi-mnist"), "no preset named 'multi-mnist'"),
        (
            ("sprites", "--preset", "asr-24"),
            "'asr-24' belongs to multi-mnist, not to sprites: mobj generate --preset",
        ),
        (("multi-dsprits",), "Did you mean 'multi-dsprites'?"),
        (
            ("sprites", "--overlap", "--overlap-rule", "boxes"),
            "--overlap lets objects overlap freely, --overlap-rule",
        ),
        (("sprites", "--overlap", "--margin", 2), "--overlap lets objects overlap freely, --margin says"),
        (("sprites", "--set", "overlap=yes", "--margin", 2), "--overlap lets objects overlap freely"),
        (
            ("sprites", "--overlap-rule", "pixels", "--margin", 2),
            "max_iou and margin belong to overlap_rule=boxes",
        ),
        (
            ("sprites", "--counts", "1", "--set", "counts=2"),
            "--set counts=2 and --counts set the same; give one",
        ),
        (
            ("sprites", "--no-overlap", "--set", "overlap=1"),
            "--set overlap=1 and --overlap/--no-overlap set the same",
        ),
        (
            ("sprites", "--ood-set", "counts=3", "--set", "ood=counts=4"),
            "--set ood=counts=4 and --ood-set set the same",
        ),
        (("sprites", "--ood", 5), "--ood 5: nothing is out of distribution; give --holdout or --ood-set"),
        (("sprites", "--preset", "supair-sprites", "--ood", 5), "--ood 5: nothing is out of distribution"),
        (("sprites", "--scale", "0.5"), "Sprites has no setting 'scale'"),
        (("sprites", "--background", "gird"), "background: expected 'plain', 'noise'"),
        (("sprites", "--holdout", "shape=crcle"), "no shape is called 'crcle'. Did you mean 'circle'?"),
        (("sprites", "--holdout", "form=circle"), "no factor is called 'form'."),
        (("sprites", "--ood-set", "count=3"), "Did you mean 'counts'?"),
        (("sprites", "--counts", "0", "--holdout", "shape=circle"), "leaves nothing without 0"),
        (
            ("multi-dsprites", "--set", "shapes=heart,star"),
            "expected some of square, ellipse, heart, got 'star'",
        ),
    ],
)
def test_contradictions_get_one_sentence_and_leave_nothing(mobj, tmp_path, arguments, sentence):
    result = mobj("generate", *arguments, *TINY, "--out", tmp_path / "data")
    assert result.code == 2
    assert sentence in result.err
    assert result.err.count("\n") == 1
    assert result.out == ""
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("sprites", "--holdout", "shape=circle,square,diamond"), "the hold-out leaves nothing to draw"),
        (("sprites", "--holdout", "side=30..40"), "'side=30..40': none of the sprites drawn is of these"),
        (("sprites", "--counts", "14"), "14 sprites without overlap (rule 'pixels') in 50x50"),
        (("sprites", "--ood-set", "counts=14"), "14 sprites without overlap"),
        (("multi-dsprites", "--counts", "4", "--set", "distinct=shape"), "4 sprites distinct in shape"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_writing(mobj, tmp_path, arguments, sentence):
    for more in ((), ("--dry-run",)):
        result = mobj("generate", *arguments, *TINY, *more, "--out", tmp_path / "data")
        assert result.code == 5
        assert sentence in result.err
        assert not list(tmp_path.glob("data/*"))


def test_sprites_do_not_mind_where_digits_are(monkeypatch, config):
    monkeypatch.setenv("MOBJ_DIGITS_ROOT", "/nowhere/at/all")
    assert "digits_root" not in config("sprites")


def test_a_split_ood_is_written_verified_and_shown(mobj, tmp_path):
    out = tmp_path / "data"
    command = (
        "generate",
        "multi-dsprites",
        "--holdout",
        "shape=heart & colour=red",
        "--ood-set",
        "counts=5,6",
    )
    command = (*command, "--ood-set", "scale=0.5", "--counts", "1-3", "--out", out)
    result = mobj(*command, *TINY, "--ood", 30, "--set", "colours=named")
    assert result.code == 0, result.err
    ood, train = (open_dataset(out, split) for split in ("ood", "train"))
    assert (len(ood), len(train)) == (30, 40)
    scenes = ood.scenes(np.arange(30))
    assert set(scenes.count) == {5, 6}
    red_hearts = (scenes.factors["shape"] == 3) & (scenes.factors["colour"] == [1, 0, 0]).all(-1)
    assert red_hearts.any(1).all()
    assert np.allclose(scenes.factors["scale"][scenes.present], 0.5)
    first = train.scenes(np.arange(40))
    assert not ((first.factors["shape"] == 3) & (first.factors["colour"] == [1, 0, 0]).all(-1)).any()
    assert first.boxes.shape[1] == 6
    assert mobj("verify", out, "--regenerate", "100%").code == 0
    shown = json.loads(mobj("inspect", out, "--json").out)
    assert "ood" in json.dumps(shown)
    assert "ood" in mobj("inspect", out).out
    assert mobj("sheet", out, "--split", "ood", "--out", tmp_path / "ood.png").code == 0
    assert (tmp_path / "ood.png").stat().st_size > 1000
    shard = out / "ood-00000-of-00001.h5"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert mobj("verify", out).code == 4
    assert mobj("verify", "--repair", out).code == 0
    assert mobj("verify", out).code == 0


def test_as_many_ood_scenes_as_test_scenes_unless_said(forecast):
    splits = forecast("sprites", "--holdout", "shape=circle", *TINY)["splits"]
    assert splits == {"train": 40, "test": 20, "ood": 20}
    assert forecast("sprites", "--set", "ood=counts=3", *TINY)["splits"]["ood"] == 20
    assert "ood" not in forecast("sprites", "--holdout", "shape=circle", "--ood", 0, *TINY)["splits"]
    assert (
        forecast("--preset", "asr-24", "--digits", "bundled", "--holdout", "class=1")["splits"]["ood"] == 2000
    )


def test_help_lists_every_preset_with_its_paper_and_loads_nothing_heavy():
    script = (
        "import sys; sys.argv = ['mobj', 'generate', '--help']\n"
        "from cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'numpy', 'h5py', 'torch', 'scipy', 'matplotlib', 'sklearn', 'PIL'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    text = " ".join(done.stdout.split())
    for name, preset in presets().items():
        assert f"{name} " in text
        assert preset.about[:40] in text.replace("- ", "-")  # words may be broken at hyphens
    for paper in (
        "Eslami et al. 2016",
        "Xu et al.",
        "Stelzner et al.",
        "Engelcke et al. 2020",
        "Kabra et al. 2019",
    ):
        assert paper in text
