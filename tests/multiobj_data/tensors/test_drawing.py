from __future__ import annotations

import itertools
import multiprocessing
import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from multiobj_data.composition.arrangement import Arrangement
from multiobj_data.composition.backgrounds import Background
from multiobj_data.composition.drawing import Blend, Layer
from multiobj_data.composition.placement import place
from multiobj_data.errors import UsageError
from multiobj_data.generation.plan import Plan
from multiobj_data.generation.running import generate
from multiobj_data.generation.verification import differences
from multiobj_data.generators.flat import FlatGenerator
from multiobj_data.generators.multi_mnist import MultiMNIST
from multiobj_data.loading import GeneratedScenes, open_dataset
from multiobj_data.plugins import BUILT_IN
from multiobj_data.randomness import BLOCK, block_rng
from multiobj_data.scenes import Scenes
from multiobj_data.sprites.bank import Sprites
from multiobj_data.tensors.datasets import SceneStream, TensorStream
from multiobj_data.tensors.drawing import paint_on, painted, unpainted
from multiobj_data.tensors.parcel import Parcel

CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
    ),
]


def arrangement(
    *,
    channels: int = 3,
    colours: Sequence[int] = (1, 2, 4),
    blend: Blend = "over",
    background: str = "plain",
    tone: bool = False,
    tiles: Sequence[int] = (7,),
) -> Arrangement:
    """Scenes of up to 4 overlapping objects; the layers' tiles may differ in size, one layer is empty."""
    rng = np.random.default_rng(0)
    n, k, canvas = 37, 5, 17
    layers = []
    for number in range(k):
        size = tiles[number % len(tiles)]
        patches = rng.integers(1, 256, (20, size, size), np.uint8) * (rng.random((20, size, size)) < 0.6)
        patches[:, size // 2, size // 2] = 1
        sprites = Sprites.cut(patches.astype(np.uint8))
        scene = np.flatnonzero(rng.random(n) < (0.7 if number != 3 else 0))
        placed = place(rng, sprites, rng.integers(20, size=len(scene)), canvas)
        colour = rng.random((len(scene), channels), np.float32)
        layers.append(Layer(scene, placed, colour if number in colours else None))
    return Arrangement(
        count=rng.integers(0, k + 1, n),
        layers=layers,
        factors={"class": rng.integers(0, 9, (n, k)).astype(np.int16), "pose": rng.random((n, k, 3))},
        scene_factors={"attempts": rng.integers(0, 9, n), "stable": rng.random(n) < 0.5},
        ground=rng.integers(0, 120, (n, channels), np.uint8),
        canvas=canvas,
        blend=blend,
        amodal=True,
        tone=rng.permutation(256).astype(np.uint8) if tone else None,
        backdrop=Background(background).draw(rng, n, canvas, channels),
    )


def expect_equal(got: Scenes, expected: Scenes) -> None:
    """Every array is equal in its bits, dtype included."""
    assert differences(got, expected) == []
    assert got.background_segments == expected.background_segments
    for one, other in ((got.factors, expected.factors), (got.scene_factors, expected.scene_factors)):
        assert {name: values.dtype for name, values in one.items()} == {
            name: values.dtype for name, values in other.items()
        }
    for name in ("image", "count", "segments", "boxes"):
        assert getattr(got, name).dtype == getattr(expected, name).dtype


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("background", ["plain", "noise", "noise:1.3,0,0.7", "grid", "grid:2,0.9"])
@pytest.mark.parametrize("blend", ["over", "add"])
@pytest.mark.parametrize(("channels", "tone"), [(1, False), (1, True), (3, False), (3, True)])
def test_a_device_paints_the_very_same_scenes(
    device: str, background: str, blend: Blend, channels: int, tone: bool
) -> None:
    colours = (1, 2, 4) if channels == 3 else ()
    scenes = arrangement(channels=channels, colours=colours, blend=blend, background=background, tone=tone)
    expect_equal(paint_on(scenes, device).numpy(), scenes.paint())


@pytest.mark.parametrize("background", ["noise", "grid"])
@pytest.mark.parametrize("blend", ["over", "add"])
def test_all_is_done_on_the_device_and_no_shape_depends_on_what_is_painted(
    background: str, blend: Blend
) -> None:
    scenes = arrangement(background=background, blend=blend, tone=True)
    painted = paint_on(scenes, "meta")  # has shapes but no content, and mixes with no other device
    expected = paint_on(scenes, "cpu")
    for name in ("image", "count", "segments", "boxes", "amodal", "present"):
        tensor, other = getattr(painted, name), getattr(expected, name)
        assert (tensor.device.type, tensor.shape, tensor.dtype) == ("meta", other.shape, other.dtype)
    assert painted.factors["visible_fraction"].device.type == "meta"


@pytest.mark.parametrize("blend", ["over", "add"])
def test_colours_may_be_grey_levels(blend: Blend) -> None:
    scenes = arrangement(channels=1, blend=blend)
    expect_equal(paint_on(scenes, "cpu").numpy(), scenes.paint())


@pytest.mark.parametrize("tiles", [(1,), (5, 9), (17,)])
def test_layers_may_have_tiles_of_any_size(tiles: Sequence[int]) -> None:
    scenes = arrangement(tiles=tiles)
    expect_equal(paint_on(scenes, "cpu").numpy(), scenes.paint())


def test_scenes_without_objects_are_ground() -> None:
    some = arrangement(background="grid")
    for layers in ([], [some.layers[3]]):
        k = len(layers)
        scenes = replace(some, layers=layers, count=np.zeros_like(some.count), factors={})
        painted = paint_on(scenes, "cpu")
        assert painted.boxes.shape[1] == k
        expect_equal(painted.numpy(), scenes.paint())


def test_amodal_masks_can_be_left_out() -> None:
    scenes = arrangement()
    assert unpainted(scenes, amodal=False).on(CPU).amodal is None
    assert painted(scenes.paint(), amodal=False).on(CPU).amodal is None
    assert paint_on(replace(scenes, amodal=False), "cpu").amodal is None


def test_painted_scenes_travel_unchanged() -> None:
    scenes = replace(arrangement().paint(), background_segments=4)
    there = painted(scenes).on(CPU)
    expect_equal(there.numpy(), scenes)
    assert np.array_equal(there.present.numpy(), scenes.present)


def test_an_arrangement_travels_with_only_the_sprites_that_it_shows() -> None:
    scenes = arrangement()
    shown = sum(len(layer.scene) for layer in scenes.layers)
    assert unpainted(scenes).parcel.table["tile"][1] == (shown, 7, 7)


@pytest.mark.parametrize("place", [-1, 17])
def test_objects_outside_the_canvas_are_refused(place: int) -> None:
    scenes = arrangement()
    scenes.layers[0].placed.x[2] = place
    with pytest.raises(ValueError, match="inside the canvas of 17 pixels"):
        paint_on(scenes, "cpu")


def test_a_parcel_gives_back_what_was_packed() -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "bool": rng.random((3, 5)) < 0.5,
        "bytes": rng.integers(0, 256, 7, np.uint8),
        "none": np.zeros((0, 4), np.float32),
        "turned": rng.random((4, 6)).T,
        "number": np.array(3, np.int16),
    }
    tensors = Parcel.of(arrays).on(CPU)
    for name, array in arrays.items():
        back = tensors[name].numpy()
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        assert np.array_equal(back, array)
    assert Parcel.of({}).on(CPU) == {}
    with pytest.raises(TypeError):
        Parcel.of({"text": np.array(["a"])})


# -- streams


@pytest.fixture(scope="module")
def quick_plan() -> Plan:
    return Plan.create("sprites", {"amodal": True}, seed=5, splits={"train": 700, "test": 300})


def defaults(name: str) -> dict[str, Any]:
    return {"digits": "bundled"} if name == "multi-mnist" else {}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", BUILT_IN["generators"])
def test_stored_generated_and_streamed_scenes_are_the_same(name: str, device: str, tmp_path: Any) -> None:
    plan = Plan.create(name, defaults(name), seed=3, splits={"train": 40})
    generate(plan, tmp_path / "data")
    stored, generated = open_dataset(tmp_path / "data", "train"), GeneratedScenes(plan, "train")
    for i in (39, 0, 7):
        expect_equal(generated.scenes([i]), stored.scenes([i]))
    everything = stored.scenes(np.arange(40))
    fields = ["image", "count", "segments", "boxes", "present", *everything.factors]
    fields += list(everything.scene_factors) + ["amodal"] * (everything.amodal is not None)
    items = list(itertools.islice(SceneStream(plan, "train", fields), 40))
    (batch,) = TensorStream(plan, "train", fields, batch_size=40, device=device, length=40)
    for field in fields:
        expected = everything.factors.get(field, everything.scene_factors.get(field))
        if expected is None:
            expected = getattr(everything, field)
        assert batch[field].device.type == device
        assert same(batch[field].cpu().numpy(), expected), field
        assert same(np.stack([item[field] for item in items]), expected), field
    if isinstance(plan.generator, FlatGenerator):
        arranged = plan.generator.arrange(block_rng(3, "train", 0), BLOCK, split="train", first=0)
        expect_equal(paint_on(arranged, device).numpy()[:40], everything)


def test_on_other_devices_than_a_cpu_a_stream_paints_there(quick_plan: Plan) -> None:
    fields = ("image", "amodal", "count")
    batches = {
        device: next(iter(TensorStream(quick_plan, "train", fields, batch_size=300, device=device)))
        for device in ("cpu", "meta")
    }
    for field in fields:
        assert batches["meta"][field].device.type == "meta"
        assert batches["meta"][field].shape == batches["cpu"][field].shape


def test_an_arrangement_may_be_sent_to_another_process() -> None:
    scenes = arrangement(background="noise")
    sent = pickle.loads(pickle.dumps(unpainted(scenes)))
    expect_equal(sent.on(CPU).numpy(), scenes.paint())


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


@pytest.mark.parametrize("background", ["plain", "noise", "grid"])
def test_settings_of_the_generators_are_drawn_alike(background: str) -> None:
    generators = [
        MultiMNIST(digits="bundled", counts="0-4", background=background, value_range=(30, 200)),
        MultiMNIST(
            digits="bundled", counts="2", overlap=False, background=background, polarity="black-on-white"
        ),
    ]
    for generator in generators:
        scenes = generator.arrange(block_rng(1, "train", 0), 64)
        expect_equal(paint_on(scenes, "cpu").numpy(), scenes.paint())


@pytest.mark.parametrize(("size", "start"), [(64, 0), (100, 0), (300, 250), (700, 300), (7, 511)])
def test_batches_of_any_size_follow_one_another_from_any_start(
    quick_plan: Plan, size: int, start: int
) -> None:
    stream = TensorStream(quick_plan, "test", ("image", "count"), batch_size=size, start=start)
    batches = list(itertools.islice(stream, 2))
    expected = GeneratedScenes(quick_plan, "test", length=10**6).scenes(np.arange(start, start + 2 * size))
    assert [len(batch["image"]) for batch in batches] == [size, size]
    assert np.array_equal(torch.cat([batch["image"] for batch in batches]).numpy(), expected.image)
    assert np.array_equal(torch.cat([batch["count"] for batch in batches]).numpy(), expected.count)


@pytest.mark.parametrize(("start", "length"), [(0, 0), (9, 0), (0, 256), (200, 130), (256, 1)])
def test_a_stream_may_end(quick_plan: Plan, start: int, length: int) -> None:
    stream = TensorStream(quick_plan, "test", ("count",), batch_size=100, start=start, length=length)
    sizes = [len(batch["count"]) for batch in stream]
    assert sizes == [100] * (length // 100) + [length % 100] * (length % 100 > 0)
    assert sizes == [len(batch["count"]) for batch in stream]  # again from its start


def test_workers_change_nothing_and_end_with_the_stream(quick_plan: Plan) -> None:
    alone = TensorStream(quick_plan, "train", ("image", "amodal"), batch_size=200)
    together = TensorStream(quick_plan, "train", ("image", "amodal"), batch_size=200, workers=2)
    others = set(multiprocessing.active_children())  # of joblib's pool, should an earlier test have made one
    torch.manual_seed(0)
    before = torch.get_rng_state()
    stream = iter(together)
    for one, other in zip(itertools.islice(alone, 4), stream, strict=False):
        assert all(torch.equal(one[name], other[name]) for name in ("image", "amodal"))
    assert torch.equal(torch.get_rng_state(), before)
    stream.close()  # type: ignore[attr-defined]
    assert set(multiprocessing.active_children()) <= others


def test_ranks_share_the_stream_out(quick_plan: Plan) -> None:
    shares = [
        TensorStream(quick_plan, "train", batch_size=256, rank=rank, ranks=2, length=512) for rank in (0, 1)
    ]
    parts = [list(share) for share in shares]
    woven = torch.cat([parts[i % 2][i // 2]["image"] for i in range(4)]).numpy()
    expected = GeneratedScenes(quick_plan, "train", length=4 * BLOCK).images(np.arange(4 * BLOCK))
    assert np.array_equal(woven, expected)
    later = TensorStream(quick_plan, "train", batch_size=256, rank=1, ranks=2, start=256, length=256)
    assert torch.equal(next(iter(later))["image"], parts[1][1]["image"])


class Dimmed(MultiMNIST):
    """Someone's generator that does more than paint what it arranges."""

    def scenes(self, rng: np.random.Generator, n: int, *, split: str = "train", first: int = 0) -> Scenes:
        scenes = super().scenes(rng, n, split=split, first=first)
        return replace(scenes, image=scenes.image // 2)


def test_generators_that_paint_otherwise_are_streamed_as_they_paint() -> None:
    plan = Plan("dimmed", Dimmed(digits="bundled"), seed=0, splits={"train": 1})
    batch = next(iter(TensorStream(plan, batch_size=256)))
    assert np.array_equal(batch["image"].numpy(), GeneratedScenes(plan, "train", 256).images(np.arange(256)))
    assert 0 < batch["image"].max() < 128


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"split": "trian"}, "no split 'trian'. Did you mean 'train'"),
        ({"fields": "image"}, r"a sequence of names such as \('image',\), got 'image'"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"start": -1}, "start, length and workers >= 0"),
        ({"rank": 2, "ranks": 2}, "rank < ranks"),
        ({"device": "gpu"}, "expected auto, cpu or cuda, got 'gpu'"),
        ({"device": "cuda:99"}, "no CUDA device 'cuda:99'"),
    ],
)
def test_streams_that_cannot_be_are_refused(quick_plan: Plan, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        TensorStream(quick_plan, **wrong)


@pytest.mark.parametrize("workers", [0, 1])
def test_unknown_fields_are_refused_in_one_sentence(quick_plan: Plan, workers: int) -> None:
    stream = TensorStream(quick_plan, fields=("digit",), workers=workers)
    with pytest.raises(UsageError, match=r"^these scenes have no field 'digit'; they have: amodal, attempts"):
        next(iter(stream))


def test_masks_that_are_not_kept_are_no_field() -> None:
    plan = Plan.create("sprites", {"amodal": False}, splits={"train": 1})
    with pytest.raises(UsageError, match="no field 'amodal'; they have: attempts"):
        next(iter(TensorStream(plan, fields=("amodal",))))
    with pytest.raises(UsageError, match="no field 'amodal'; they have: attempts"):
        next(iter(SceneStream(plan, fields=("amodal",))))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
def test_painting_waits_for_nothing() -> None:
    block = unpainted(arrangement(background="noise")).pin_memory()
    block.on(torch.device("cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        block.on(torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
