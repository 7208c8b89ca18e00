"""`mobj sheet CHECKPOINT`: pictures of slot models show what they should, and other things are refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from cli.slot_pictures import _around, can_walk, draw_slot_model, mosaic, reconstruction_rows, walk
from multiobj_data.generation.plan import Plan
from multiobj_data.generation.running import generate
from multiobj_data.scenes import Prediction
from reference_models.checkpoints import build_model

TINY = {"slots": 3, "slot_size": 8, "width": 8, "lstm_size": 8, "scene_size": 8}


@pytest.fixture(scope="module")
def sri():
    model = build_model("sri", TINY, (16, 16, 3), seed=0)
    with torch.no_grad():  # a decoder at its first weights hardly tells one slot from another
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    return model


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def test_tiles_stand_where_they_belong_enlarged():
    rows = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4, 1)
    page = mosaic(rows)
    assert page.shape == (2 * 66 - 2, 3 * 66 - 2, 3)  # 16 times as large, and gaps
    for i in range(2):
        for j in range(3):
            tile = page[66 * i : 66 * i + 64, 66 * j : 66 * j + 64]
            np.testing.assert_array_equal(tile[8::16, 8::16], rows[i, j].repeat(3, -1))


def test_a_row_shows_image_reconstruction_owners_and_slots_in_order():
    image = np.full((1, 4, 4, 1), 200, np.uint8)
    masks = np.zeros((1, 2, 4, 4), np.float32)
    masks[:, 0, :2] = masks[:, 1, 2:] = 1
    prediction = Prediction(masks=masks, reconstruction=np.full((1, 4, 4, 1), 0.5, np.float32))
    ((original, made, owners, first, second),) = reconstruction_rows(image, prediction)
    assert (original == 200).all()
    assert (made == 127).all()
    assert len(np.unique(owners.reshape(-1, 3), axis=0)) == 2
    assert (owners[0] == owners[1]).all()
    assert (first[:2] == 200).all()
    assert (first[2:] == 96).all()
    assert (second[:2] == 96).all()
    assert (second[2:] == 200).all()


def test_a_walk_passes_its_ends_and_keeps_their_length():
    ends = torch.randn(3, 2, 4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    path = _around(ends, 5)
    assert path.shape == (15, 2, 4000)
    torch.testing.assert_close(path[::5], ends)
    lengths = path.square().mean(-1)
    assert (lengths - 1).abs().max() < 0.15  # a straight line would have 0.5 in the middle
    before_last = path[-1] @ ends[0].T
    assert (before_last.diagonal() > 0.9 * 4000 * np.sin(0.8 * np.pi / 2)).all()  # near the first again


def test_frames_are_what_the_scene_decodes_to(sri):
    frames = walk(sri, walks=2, anchors=3, frames=4)
    assert frames.shape == (12, 2, 16, 16, 3)
    generator = torch.Generator().manual_seed(0)
    ends = torch.randn(3, 2, 8, generator=generator)
    with torch.no_grad():
        z = sri.prior.rollout(torch.zeros(3, 3, 8), ends[:, 1])[1]
        colours, log_masks = sri.decode(z)
        expected = (colours * log_masks.exp()).sum(1).clamp(0, 1).movedim(1, -1)
    np.testing.assert_allclose(frames[::4, 1] / 255, expected, atol=1.01 / 255)
    assert (frames[0] != frames[4]).any()
    np.testing.assert_array_equal(frames, walk(sri, walks=2, anchors=3, frames=4))


@pytest.mark.parametrize(
    ("model", "settings", "walks", "imagines"),
    [
        ("sri", {}, True, True),
        ("sri", {"scene_variable": False}, False, True),
        (
            "sri",
            {"first_gain": 3.0, "segregation": "slot-attention"},
            True,
            True,
        ),  # a scene changes what is drawn
        ("sri-sa", {}, True, False),
        ("genesis-v2", {}, False, False),
        ("genesis-v2", {"scene_variable": True, "scene_size": 8}, True, False),
        ("genesis", {"scene_variable": True, "scene_size": 8, "strides": "1,2,1,2,1"}, True, False),
    ],
)
def test_each_model_gives_the_pictures_that_it_can(tmp_path, images, model, settings, walks, imagines):
    built = build_model(model, TINY | settings, (16, 16, 3), seed=0)
    assert can_walk(built) == walks
    written = {path.name for path in draw_slot_model(built, images, tmp_path)}
    expected = {"reconstructions.png", "samples.png"}
    expected |= {"rollouts.png"} if imagines else set()
    expected |= {"walk.gif"} if walks else set()
    assert written == expected == {path.name for path in tmp_path.iterdir()}
    with Image.open(tmp_path / "reconstructions.png") as picture:
        assert picture.size == ((3 + 3) * 66 - 2, 5 * 66 - 2)
    if walks:
        with Image.open(tmp_path / "walk.gif") as picture:
            assert picture.is_animated


# --- the command


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sheet") / "sprites"
    settings = {"counts": "1", "canvas": 32, "scale": "0.5"}
    generate(Plan.create("multi-dsprites", settings, splits={"train": 8, "test": 4}), folder)
    return folder


def train(mobj, model, data, out, *settings):
    command = ("train", model, "--data", data, "--out", out, "--seeds", "0,", "--steps", 1, "--batch-size", 2)
    done = mobj(*command, "--device", "cpu", *(word for text in settings for word in ("--set", text)))
    assert done.code == 0, done.err
    return out / "seed-0" / "checkpoint.pt"


def test_sheet_draws_a_slot_model_on_images_of_its_data(mobj, data, tmp_path):
    tiny = (f"{name}={value}" for name, value in TINY.items())
    checkpoint = train(mobj, "sri", data, tmp_path / "sri", *tiny)
    done = mobj("sheet", checkpoint, "--device", "cpu")
    assert done.code == 0, done.err
    names = ["reconstructions.png", "samples.png", "rollouts.png", "walk.gif"]
    assert done.out.splitlines() == [str(checkpoint.parent / name) for name in names]
    assert all((checkpoint.parent / name).exists() for name in names)
    elsewhere = mobj("sheet", checkpoint, "--device", "cpu", "--first", 2, "--out", tmp_path / "new")
    assert elsewhere.code == 0, elsewhere.err
    with Image.open(tmp_path / "new" / "rollouts.png") as picture:
        assert picture.size[0] == 2 * 66 - 2  # two images left
    late = mobj("sheet", checkpoint, "--device", "cpu", "--first", 4)
    assert late.code == 2
    assert "--first: the split test has 4 scenes, got 4" in late.err


def test_what_is_no_slot_model_is_refused(mobj, data, tmp_path):
    checkpoint = train(mobj, "air", data, tmp_path / "air", "lstm_size=8", "hidden_size=8")
    refused = mobj("sheet", checkpoint, "--device", "cpu")
    assert refused.code == 2
    assert "air has no slots to draw; sheet takes a data set or a slot model." in refused.err
    of_data = mobj("sheet", data, "--data", data)
    assert of_data.code == 2
    assert "--data belongs to a checkpoint" in of_data.err
    nothing = mobj("sheet", tmp_path / "nothing")
    assert nothing.code == 3
