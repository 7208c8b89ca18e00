import json
import subprocess
import sys

import numpy as np
import pytest

from cli.request import digits_root_for
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
        (("sprites", "--scale", "0.5"), "sprites has no setting 'scale'"),
        (("sprites", "--background", "gird"), "background: expected 'plain', 'noise'"),
        (("sprites", "--holdout", "shape=crcle"), "no shape is called 'crcle'. Did you mean 'circle'?"),
        (("sprites", "--holdout", "form=circle"), "no factor is called 'form'."),
        (("sprites", "--ood-set", "count=3"), "Did you mean 'counts'?"),
        (
            ("sprites", "--counts", "0", "--holdout", "shape=circle"),
            "a scene of the split ood must hold an object of the hold-out, got '0'",
        ),
        (
            ("sprites", "--set", "counts=1", "--set", "counts=2"),
            "--set counts=1 and --set counts=2 set the same",
        ),
        (
            ("sprites", "--ood-set", "counts=3", "--ood-set", "counts=4"),
            "--ood-set counts=3 and --ood-set counts=4 set the same",
        ),
        (("sprites", "--ood-set", "counts"), "--ood-set: expected key=value, got 'counts'"),
        (("sprites", "--scheduler", ""), "--scheduler: expected a text, got an empty one"),
        (("sprites", "--holdout", "", "--ood", 8), "--holdout: expected a text, got an empty one"),
        (("sprites", "--ood-set", " "), "--ood-set: expected a text, got an empty one"),
        (("sprites", "--dry-run", "--shard-range", "x"), "--shard-range: expected i/n"),
        (("sprites", "--dry-run", "--shard-range", "3/3"), "--shard-range: expected i/n"),
        (("sprites", "--shard-range", "1/" + "9" * 5000), "--shard-range: expected i/n"),
        (("sprites", "--set", "sides=12"), "sides must be numbers such as 12,16, got '12'"),
        (("towers", "--set", "margin=0.1"), "margin: expected 0.01 to 0.06 units of length, got 0.1"),
        (
            ("--preset", "asr-13", "--margin", 2),
            "--margin belongs to the rule boxes, but the preset asr-13 sets overlap_rule=pixels; give --overlap-rule",
        ),
        (
            ("multi-dsprites", "--holdout", "x=0..20"),
            "no factor is called 'x'. Did you mean 'pos_x', from 0 to 1",
        ),
        (
            ("multi-dsprites", "--set", "orientation=90"),
            "expected radians from -2pi to 2pi, got 90; 90 degrees are 0.5pi",
        ),
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
        (
            ("sprites", "--counts", "4", "--set", "distinct=shape"),
            "4 sprites distinct in shape: it has only 3 values here; ask for at most 3 sprites",
        ),
        (
            ("sprites", "--counts", "14", "--set", "distinct=side", "--set", "sides=5,25"),
            "14 sprites distinct in side and without overlap (rule 'pixels') in 50x50",
        ),
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


def test_where_digits_are_can_be_said_over_the_environment(mobj, monkeypatch, tmp_path):
    monkeypatch.setenv("MOBJ_DIGITS_ROOT", str(tmp_path / "environment"))
    arguments = (
        "generate",
        "multi-mnist",
        "--digits",
        "mnist",
        "--set",
        f"digits_root={tmp_path / 'set'}",
        *TINY,
    )
    result = mobj(*arguments, "--out", tmp_path / "data")
    assert (result.code, f"found no idx file in {tmp_path / 'set'}" in result.err) == (3, True)
    assert mobj(*arguments, "--digits-root", tmp_path).code == 2


def test_only_generators_of_digits_are_told_where_digits_are(mobj, monkeypatch, config, tmp_path):
    assert digits_root_for("multi-mnist", "/there") == "/there"
    for generator in ("rooms", "sprites", "convert:clevr", "no_such_package.x:Y", "None"):
        assert digits_root_for(generator, "/there") is None
    config("sprites")
    monkeypatch.setenv("MOBJ_DIGITS_ROOT", "/nowhere/at/all")
    verified = mobj("verify", tmp_path / "data", "--regenerate", "10%")
    assert (verified.code, "drawn anew are equal" in verified.out) == (0, True)


def test_a_margin_of_towers_is_theirs(config):
    assert config("towers", "--set", "margin=0.05")["margin"] == 0.05


def test_an_empty_folder_name_is_refused(mobj, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = mobj("generate", "sprites", *TINY, "--out", "")
    assert (result.code, "--out: expected a text" in result.err) == (2, True)
    assert not list(tmp_path.iterdir())


def test_a_forecast_is_of_the_range_and_of_ood_too(mobj, forecast):
    arguments = ("sprites", "--holdout", "side=16", "--ood-set", "counts=1-3", *TINY, "--shard-rows", 10)
    whole, part = forecast(*arguments), forecast(*arguments, "--shard-range", "7/8")
    assert (whole["shards"], part["shards"]) == (8, 1)
    assert part["splits"] == {"ood": 10}
    assert part["bytes"] < whole["bytes"] / 4
    assert forecast(*arguments, "--shard-range", "99/100")["splits"] == {}
    assert set(whole["ood_acceptance"]) == {"1", "2", "3"}
    assert whole["ood_acceptance"]["1"] < 0.5 < whole["acceptance"]["1"]
    table = mobj("generate", *arguments, "--dry-run", "--shard-range", "7/8").out
    assert "range 7/8" in table
    assert "ood, 3 objects: about" in table
    assert forecast("sprites", *TINY)["ood_acceptance"] == {}


def test_settings_are_listed_with_what_a_holdout_can_speak_of(mobj):
    shown = json.loads(mobj("ls", "settings", "multi-dsprites", "--json").out)["holdout"]
    assert shown["shape"] == ["square", "ellipse", "heart"]
    assert shown["pos_x"] is None
    text = mobj("ls", "settings", "multi-dsprites").out
    assert "shape         square, ellipse, heart\n" in text
    assert "positions in 0..1" in text
    for name in ("towers", "air", "multiobj_data.generators.towers:Towers", "reference_models.air:AIR"):
        result = mobj("ls", "settings", name, "--json")
        assert result.code == 0, result.err
        assert "holdout" not in json.loads(result.out)


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
    assert shown["splits"]["ood"]["rows"] == 30
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
    assert "[default: 0, or the preset's: some bring 5,000 or 10,000]" in text
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
