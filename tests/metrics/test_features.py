"""Feature extractors: protocols and the Inception network against other people's, the domain network by itself."""

import hashlib
import logging
import math

import numpy as np
import pytest
import torch
from PIL import Image

from metrics.generation.features import PROTOCOLS, extract, find_extractor
from metrics.generation.features.domain import DomainFeatures, DomainNetwork, save_domain
from metrics.generation.features.domain_targets import Targets
from metrics.generation.features.inception import ADDRESS, SHA256, InceptionFeatures
from metrics.generation.features.inception_network import InceptionNetwork
from metrics.generation.features.protocols import to_bytes
from metrics.generation.features.training import train_domain_features
from multiobj_data import open_dataset
from multiobj_data.errors import DataError, UsageError
from multiobj_data.scenes import Scenes

# -- from a model's floats to bytes


def test_floats_are_clamped_then_floored():
    values = np.array([-0.5, 0, 1 / 255, 0.5, 0.9999, 1, 1.004, 1.2], np.float32).reshape(1, 2, 4, 1)
    assert to_bytes(values).ravel().tolist() == [0, 0, 1, 127, 254, 255, 255, 255]
    assert to_bytes(torch.from_numpy(values)).ravel().tolist() == to_bytes(values).ravel().tolist()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_every_grey_level_survives_the_way_through_floats(kind):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(to_bytes(levels.astype(kind) / 255), levels)
    np.testing.assert_array_equal(to_bytes(levels), levels)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.full((1, 2, 2, 3), 200.0), "divide pixels in 0..255 by 255"),
        (np.full((1, 2, 2, 3), np.nan), "expected floats in"),
        (np.zeros((1, 2, 2, 4), np.uint8), "C = 1 or 3"),
        (np.zeros((1, 3, 64, 64), np.float32), "C = 1 or 3"),
        (np.zeros((1, 2, 2, 3), np.int64), "expected uint8, or floats"),
        (np.zeros((2, 2, 3), np.uint8), "expected shape"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(images, words):
    with pytest.raises(ValueError, match=words):
        to_bytes(images)


# -- protocols


@pytest.fixture
def pictures(rng):
    """Noise, gradients, and an image larger than the network's input in one direction would need downsampling."""
    return torch.from_numpy(rng.integers(0, 256, (2, 48, 64, 3), dtype=np.uint8))


def test_genesis_is_torch_bilinear_of_floats_in_0_1(pictures):
    floats = pictures.permute(0, 3, 1, 2).float() / 255
    want = 2 * torch.nn.functional.interpolate(floats, (299, 299), mode="bilinear", align_corners=False) - 1
    torch.testing.assert_close(PROTOCOLS["genesis"].input(pictures), want, rtol=0, atol=2e-6)


def test_clean_fid_is_antialiased_bicubic_of_floats(pictures):
    floats = pictures.permute(0, 3, 1, 2).float()
    want = torch.nn.functional.interpolate(
        floats, (299, 299), mode="bicubic", align_corners=False, antialias=True
    )
    got = PROTOCOLS["clean-fid"].input(pictures)
    torch.testing.assert_close(got, (want.clamp(0, 255) - 128) / 128, rtol=0, atol=1e-4)
    assert got.max() <= 127 / 128  # overshoot is clipped


def test_torchmetrics_averages_where_it_shrinks(rng):
    large = rng.integers(0, 256, (1, 640, 400, 1), dtype=np.uint8)
    plane = Image.fromarray(large[0, :, :, 0].astype(np.float32)).resize(
        (299, 299), Image.Resampling.BILINEAR
    )
    got = PROTOCOLS["torchmetrics"].input(torch.from_numpy(large))
    torch.testing.assert_close(got[0, 0], (torch.from_numpy(np.array(plane)) - 128) / 128, rtol=0, atol=1e-4)
    plain = PROTOCOLS["genesis"].input(torch.from_numpy(large))
    assert (got - plain).abs().mean() > 0.05


def test_torch_fidelity_is_torch_fidelity(pictures):
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x as resize,
    )

    want = resize(pictures.permute(0, 3, 1, 2).float(), size=(299, 299), align_corners=False)
    got = PROTOCOLS["torch-fidelity"].input(pictures)
    torch.testing.assert_close(got, (want - 128) / 128, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_grey_images_are_repeated_and_constant_ones_stay_constant(name):
    grey = torch.full((1, 20, 30, 1), 200, dtype=torch.uint8)
    got = PROTOCOLS[name].input(grey)
    assert got.shape == (1, 3, 299, 299)
    assert got.dtype == torch.float32
    value = 400 / 255 - 1 if name == "genesis" else 72 / 128
    torch.testing.assert_close(got, torch.full_like(got, value), rtol=0, atol=2e-6)


# -- Inception


@pytest.fixture(scope="session")
def inception_weights():
    """Random weights under the published names: torchvision's, which keep activations near 1."""
    torchvision = pytest.importorskip("torchvision")
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        network = torchvision.models.inception_v3(
            num_classes=1008, aux_logits=False, weights=None, init_weights=False
        )
    return {name: _random(name, weight.shape, generator) for name, weight in network.state_dict().items()}


def _random(name, shape, generator):
    draw = torch.randn(shape, generator=generator)
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var"):
        return 1 + draw.abs()
    fan = math.prod(shape[1:])
    return (
        draw * (2 / fan) ** 0.5 if name.endswith("conv.weight") else 0.1 * draw + name.endswith("bn.weight")
    )


@pytest.fixture(scope="session")
def weights_file(inception_weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(inception_weights, path)
    return path


@pytest.fixture
def patched_torchvision(inception_weights, monkeypatch):
    """torchvision's network, whose average pools are told not to count padding; the very last block's is a max."""
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        network = torchvision.models.inception_v3(
            num_classes=1008, aux_logits=False, weights=None, init_weights=False
        )
    network.load_state_dict(inception_weights, assign=True)
    average, where = torch.nn.functional.avg_pool2d, {"last": False}

    def pool(x, kernel_size, stride, padding):
        if where["last"]:
            return torch.nn.functional.max_pool2d(x, kernel_size, stride, padding)
        return average(x, kernel_size, stride, padding, count_include_pad=False)

    monkeypatch.setattr(torchvision.models.inception.F, "avg_pool2d", pool)
    network.Mixed_7c.register_forward_pre_hook(lambda *_: where.update(last=True))
    network.fc = torch.nn.Identity()
    network.dropout = torch.nn.Identity()
    return network.eval()


def test_inception_is_torchvisions_with_other_pools(weights_file, patched_torchvision, rng):
    images = rng.integers(0, 256, (1, 40, 40, 3), dtype=np.uint8)
    extractor = InceptionFeatures.load(weights_file, device="cpu")
    got = extractor(images)
    with torch.inference_mode():
        want = patched_torchvision(PROTOCOLS["genesis"].input(torch.from_numpy(images))).numpy()
    assert got.shape == (1, 2048)
    assert want.std() > 0.1
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * abs(want).max())


def test_inception_says_which_weights_it_has(weights_file, caplog):
    with caplog.at_level(logging.WARNING):
        stamp = InceptionFeatures.load(weights_file, PROTOCOLS["clean-fid"], "cpu").stamp
    assert stamp["weights_sha256"] == hashlib.sha256(weights_file.read_bytes()).hexdigest()
    assert stamp["published_weights"] is False
    assert stamp["protocol"]["name"] == "clean-fid"
    assert "is not the published file" in caplog.text
    assert ADDRESS.rpartition("-")[2].removesuffix(".pth") == SHA256[:8]


def test_inception_draws_no_random_numbers(weights_file):
    before = torch.random.get_rng_state()
    InceptionFeatures.load(weights_file, device="cpu")
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda w: w | {"fc.weight": torch.zeros(1000, 2048)},
            "not those of the FID Inception network: fc.weight",
        ),
        (lambda w: {n: t for n, t in w.items() if "Mixed_7c" not in n}, "and 42 more"),
        (lambda w: w | {"AuxLogits.fc.bias": torch.zeros(3)}, "AuxLogits.fc.bias"),
        (lambda w: [1, 2], "not those of the FID Inception network"),
    ],
)
def test_other_weights_are_refused_in_a_sentence(inception_weights, tmp_path, damage, words):
    torch.save(damage(dict(inception_weights)), tmp_path / "w.pth")
    with pytest.raises(DataError) as error:
        InceptionFeatures.load(tmp_path / "w.pth")
    assert words in str(error.value)


def test_counters_that_do_nothing_may_be_missing(inception_weights, tmp_path):
    kept = {name: weight for name, weight in inception_weights.items() if "num_batches_tracked" not in name}
    torch.save(kept, tmp_path / "w.pth")
    InceptionFeatures.load(tmp_path / "w.pth", device="cpu")


def test_offline_the_download_says_what_to_do(monkeypatch, tmp_path):
    import pooch

    def fail(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(pooch, "retrieve", fail)
    with pytest.raises(DataError, match=r"--weights FILE; or .*train-features"):
        find_extractor("inception")


def test_extractors_are_found_by_name(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'clean-fid'"):
        find_extractor("inception", protocol="cleanfid")
    with pytest.raises(UsageError, match="belong to the features 'inception'"):
        find_extractor(str(tmp_path / "f.pt"), protocol="genesis")
    with pytest.raises(DataError, match="no such file of weights"):
        find_extractor(str(tmp_path / "f.pt"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda images: np.zeros((len(images) + 1, 3)), r"floats \[2, D\] for 2 images"),
        (lambda images: np.zeros((len(images), 3), int), "got int64"),
        (lambda images: np.full((len(images), 3), np.nan), "finite"),
        (lambda images: np.zeros((2, int(images[0, 0, 0, 0]) + 2)), r"floats \[2, 2\] for 2 images"),
    ],
)
def test_what_an_extractor_answers_is_checked(answer, words):
    with pytest.raises(DataError, match=words):
        extract(answer, [np.zeros((2, 4, 4, 1), np.uint8), np.ones((2, 4, 4, 1), np.uint8)])


# -- the domain network


def test_targets_count_objects_of_each_kind():
    scenes = Scenes(
        image=np.zeros((2, 4, 4, 1), np.uint8),
        count=np.array([2, 1]),
        segments=np.zeros((2, 4, 4), np.uint8),
        boxes=np.zeros((2, 2, 4), np.float32),
        factors={
            "class": np.array([[7, 7], [3, 3]], np.int16),  # the last object is absent
            "shape": np.array([[1, 1], [1, -1]], np.int16),  # always the same: nothing to learn
            "colour": np.array([[[0.9, 0, 0], [0, 0.8, 0.7]], [[1, 0.1, 0], [np.nan] * 3]], np.float32),
            "x": np.array([[1, 2], [3, np.nan]], np.float32),
        },
    )
    targets = Targets.found_in([scenes[:1], scenes[1:]])
    assert targets.values == {"class": (3.0, 7.0), "colour": (1.0, 6.0)}
    assert targets.heads == {"count": 1, "class": 2, "colour": 2}
    assert targets.of(scenes).tolist() == [[2, 0, 2, 1, 1], [1, 1, 0, 1, 0]]
    with pytest.raises(DataError, match="nothing to learn"):
        Targets.found_in([scenes[:1]][:1] and [_without_kinds(scenes[:1])])


def _without_kinds(scenes):
    return Scenes(scenes.image, scenes.count, scenes.segments, scenes.boxes)


@pytest.fixture(scope="session")
def trained(sprites, tmp_path_factory):
    """One training that learns, and two short ones with another seed: name -> (file, result)."""
    folder = tmp_path_factory.mktemp("features")
    train, test = (open_dataset(sprites, split) for split in ("train", "test"))

    def run(name, seed, steps):
        path = folder / f"{name}.pt"
        return path, train_domain_features(train, test, path, data={"id": "sprites"}, seed=seed, steps=steps)

    return {
        "one": run("one", 0, 80),
        "other": run("other", 1, 2),
        "again": run("again", 1, 2),
        "third": run("third", 2, 2),
    }


def test_training_is_a_function_of_the_seed(trained):
    one, other, again = (
        torch.load(trained[name][0], weights_only=True) for name in ("one", "other", "again")
    )
    assert all(torch.equal(other["weights"][name], weight) for name, weight in again["weights"].items())
    third = torch.load(trained["third"][0], weights_only=True)
    first, second = (content["weights"]["features.weight"] for content in (other, third))
    assert (first - second).abs().max() > 0.02  # two steps move a weight by less: the first weights differ
    assert not torch.equal(one["weights"]["answer.weight"], other["weights"]["answer.weight"])


def test_training_learns_to_count_and_says_how_well(trained, sprites):
    accuracy = trained["one"][1]["accuracy"]
    assert accuracy["count"]["accuracy"] > 0.75 > 0.5 > accuracy["count"]["chance"]
    assert set(accuracy) == {"count", "shape"}
    extractor = DomainFeatures.load(trained["one"][0], "cpu")
    assert extractor.stamp["training"]["accuracy"] == accuracy
    assert extractor.stamp["trained_on"] == {"id": "sprites"}
    scenes = open_dataset(sprites, "test").scenes(np.arange(200))
    with torch.inference_mode():
        counted = extractor.network(torch.from_numpy(scenes.image))[:, 0].argmax(-1).numpy()
    assert (counted == scenes.count).mean() == pytest.approx(accuracy["count"]["accuracy"])


def test_domain_features_are_the_layer_before_the_answers(trained, sprites):
    extractor = DomainFeatures.load(trained["one"][0], "cpu")
    images = open_dataset(sprites, "test").images(np.arange(5))
    got = torch.from_numpy(extractor(images)) * extractor.network.scale
    assert got.shape == (5, 128)
    with torch.inference_mode():
        want = extractor.network(torch.from_numpy(images))
        torch.testing.assert_close(extractor.network.answer(got).unflatten(1, (-1, 3)), want)


def test_domain_features_vary_by_one_each_on_the_images_trained_on(trained, sprites):
    features = DomainFeatures.load(trained["one"][0], "cpu")(
        open_dataset(sprites, "train").images(np.arange(400))
    )
    assert features.var(0).sum() == pytest.approx(128, rel=1e-4)


def test_domain_features_refuse_images_of_another_size(trained):
    extractor = DomainFeatures.load(trained["one"][0], "cpu")
    with pytest.raises(ValueError, match="train one on data of this size"):
        extractor(np.zeros((1, 64, 64, 3), np.uint8))


def test_large_images_are_averaged_down(rng):
    network = DomainNetwork((128, 192, 3), 2, {"count": 1})
    small = rng.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    large = torch.from_numpy(small.repeat(2, 1).repeat(3, 2))
    same = DomainNetwork((64, 64, 3), 2, {"count": 1})
    same.load_state_dict(network.state_dict())
    torch.testing.assert_close(network.embed(large), same.embed(torch.from_numpy(small)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "this version reads 1"),
        ({"config": {}}, "cannot be built"),
        ({"config": {"image_shape": [50, 50, 1], "most": 4, "heads": {"count": 2}}}, "weights are not those"),
        ({"training": []}, "training should be a dict"),
        ({"more": 1}, "no feature network"),
    ],
)
def test_other_files_of_features_are_refused_in_a_sentence(tmp_path, change, words):
    network, path = DomainNetwork((50, 50, 1), 4, {"count": 1}), tmp_path / "f.pt"
    save_domain(path, network, (50, 50, 1), {}, {})
    torch.save(torch.load(path, weights_only=True) | change, path)
    with pytest.raises(DataError) as error:
        DomainFeatures.load(path)
    assert words in str(error.value)


def test_a_damaged_file_of_features_is_refused(tmp_path, trained):
    content = bytearray(trained["one"][0].read_bytes())
    content[len(content) // 2] ^= 0xFF
    for name, damaged in (("flipped", content), ("cut", content[: len(content) // 2]), ("text", b"hello")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match="damaged|no file of weights"):
            DomainFeatures.load(tmp_path / name)


def test_inception_network_has_the_published_number_of_entries():
    with torch.device("meta"):
        assert len(InceptionNetwork().state_dict()) == 566
