"""`mobj metrics train-features` and `mobj metrics fid` on real files; FID grows with everything that goes wrong."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from multiobj_data import open_dataset
from multiobj_data.generation.plan import Plan
from multiobj_data.generation.running import generate

SETTINGS = {"counts": "0,1,2", "canvas": 32, "overlap": False}


@pytest.fixture(scope="module")
def sprites(tmp_path_factory):
    """300 + 300 scenes of none to two sprites, 32x32."""
    folder = tmp_path_factory.mktemp("data") / "sprites"
    generate(Plan.create("sprites", SETTINGS, seed=3, splits={"train": 300, "test": 300}), folder)
    return folder


@pytest.fixture(scope="module")
def features(sprites, tmp_path_factory):
    """A file of features, trained by the command."""
    from click.testing import CliRunner

    from cli.metrics_train_features import train_features_command

    out = tmp_path_factory.mktemp("features") / "features.pt"
    arguments = ["--data", str(sprites), "--out", str(out), "--steps", "60", "--json"]
    done = CliRunner().invoke(train_features_command, arguments, catch_exceptions=False)
    assert json.loads(done.stdout)["accuracy"]["count"]["accuracy"] > 0.6
    return out


@pytest.fixture
def fid(mobj, features):
    """Run the command; return its document."""

    def run(*arguments):
        done = mobj("metrics", "fid", *arguments, "--features", features, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    return run


def test_the_features_say_what_they_were_trained_on(features, sprites):
    content = torch.load(features, weights_only=True)
    manifest = open_dataset(sprites, "train").manifest.document()
    assert content["data"]["checksum"] == manifest["checksum"]
    assert content["data"]["held_out"] == "test"
    assert content["training"]["seed"] == 0
    assert content["training"]["targets"] == {"shape": [0.0, 1.0, 2.0]}


def test_fid_grows_with_noise_blur_and_wrong_counts(fid, sprites, tmp_path):
    images = open_dataset(sprites, "train").images(np.arange(300))
    rng = np.random.default_rng(0)

    np.save(tmp_path / "images.npy", images)
    apart = fid(sprites, tmp_path / "images.npy")["fid"]  # two splits of one data set

    def noisy(sd):
        return np.clip(images + rng.normal(0, sd, images.shape), 0, 255).astype(np.uint8)

    def blurred(radius):
        pictures = [
            Image.fromarray(image[:, :, 0]).filter(ImageFilter.GaussianBlur(radius)) for image in images
        ]
        return np.stack(pictures)[..., None]

    def miscounted(share):
        plan = Plan.create(
            "sprites", SETTINGS | {"counts": "2"}, seed=9, splits={"train": 300}, shard_rows=300
        )
        generate(plan, tmp_path / f"two-{share}")
        wrong = open_dataset(tmp_path / f"two-{share}", "train").images(np.arange(300))
        return np.where(np.arange(300)[:, None, None, None] < share * 300, wrong, images)

    for worse, grades in ((noisy, (20, 100)), (blurred, (0.7, 3)), (miscounted, (0.4, 1))):
        figures = []
        for grade in grades:
            np.save(tmp_path / "worse.npy", worse(grade))
            figures.append(fid(sprites, tmp_path / "worse.npy")["fid"])
        assert apart < figures[0] < figures[1], worse


def test_figures_are_printed_as_a_table(mobj, features, sprites, tmp_path, caplog):
    np.save(tmp_path / "images.npy", open_dataset(sprites, "train").images(np.arange(300)))
    done = mobj("metrics", "fid", sprites, tmp_path / "images.npy", "--features", features)
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.split("  ")[0] for line in lines[2:5]] == ["FID", "KID", "FID, real against real"]
    assert "150" in lines[4]  # 300 test images make halves of 150
    assert "trained on labels" in lines[-1]
    assert "FID of 300 images is biased" in caplog.text


def test_statistics_and_pictures_are_taken_too(fid, mobj, features, sprites, tmp_path):
    images = open_dataset(sprites, "train").images(np.arange(300))
    for i, image in enumerate(images):
        Image.fromarray(image[:, :, 0]).save(tmp_path / f"{i:03}.png")
    direct = fid(sprites, tmp_path, "--save-statistics", tmp_path / "real.npz")
    from_statistics = fid(tmp_path / "real.npz", tmp_path)
    assert from_statistics["fid"] == pytest.approx(direct["fid"], rel=1e-9)
    assert from_statistics["kid"] is None
    assert from_statistics["stamp"]["real"] == direct["stamp"]["real"]
    assert direct["stamp"]["generated"]["kind"] == "folder of pictures"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{data}", "{data}/none", "--features", "{features}"], 3, "no such file or folder"),
        (["{data}", "{data}", "--split", "tset", "--features", "{features}"], 2, "Did you mean 'test'"),
        (["{data}", "{data}", "--features", "none.pt"], 3, "no such file of weights"),
        (
            ["{data}", "{data}", "--features", "{features}", "--protocol", "genesis"],
            2,
            "belong to the features",
        ),
        (["{data}", "{data}", "--features", "{data}/dataset.json"], 3, "no file of weights"),
        (["{data}", "{data}", "--features", "{features}", "--n", "301"], 2, "at most 300"),
        (["{data}", "{small}", "--features", "{features}"], 3, "expected [32, 32, 1]"),
        (["{data}", "{data}", "--weights", "none.pth"], 3, "none.pth: there is no such file"),
    ],
)
def test_fid_refuses_in_a_sentence(mobj, sprites, small_dataset, features, arguments, code, words):
    places = {"data": sprites, "small": small_dataset, "features": features}
    done = mobj("metrics", "fid", *(argument.format(**places) for argument in arguments))
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--data", "{data}", "--out", "{tmp}/none/f.pt"], 2, "expected an existing folder"),
        (["--data", "{tmp}", "--out", "{tmp}/f.pt"], 3, "dataset.json"),
        (["--data", "{data}", "--out", "{tmp}/f.pt", "--split", "trian"], 2, "Did you mean 'train'"),
    ],
)
def test_training_refuses_in_a_sentence(mobj, sprites, tmp_path, arguments, code, words):
    done = mobj("metrics", "train-features", *(a.format(data=sprites, tmp=tmp_path) for a in arguments))
    assert (done.code, done.out) == (code, "")
    assert words in done.err


def test_help_of_both_loads_no_torch(mobj):
    import subprocess
    import sys

    for name in ("fid", "train-features"):
        code = (
            "import sys, cli.main\n"
            f"try: cli.main.mobj.main(['metrics', '{name}', '--help'], standalone_mode=False)\n"
            "finally: print([m for m in ('torch', 'numpy', 'h5py') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip().endswith("[]")
