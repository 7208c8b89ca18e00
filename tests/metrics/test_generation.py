"""FID and KID of generated images: laws of the figures, what the stamp holds, what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from metrics import GaussianStatistics, frechet_distance
from metrics.generation.image_sets import (
    ArrayImages,
    FolderImages,
    Samples,
    SceneImages,
    holds_statistics,
    open_images,
)
from metrics.generation.scoring import score_samples
from multiobj_data import open_dataset
from multiobj_data.errors import DataError, UsageError
from multiobj_data.loading import GeneratedScenes


class Patches:
    """Eight fixed random projections of the pixels, and their squares: sees means, noise and blur."""

    def __init__(self, size, name="patches"):
        self.projections = np.random.default_rng(7).normal(size=(size, 8)) / size**0.5
        self.stamp = {"network": name, "dimensions": 16}

    def __call__(self, images):
        assert images.dtype == np.uint8
        values = images.reshape(len(images), -1) / 255.0 @ self.projections
        return np.concatenate([values, 5 * values**2], 1)


@pytest.fixture
def noise(rng):
    return ArrayImages(rng.integers(0, 256, (400, 6, 6, 1), dtype=np.uint8))


@pytest.fixture
def darker(rng):
    return ArrayImages(rng.integers(0, 200, (400, 6, 6, 1), dtype=np.uint8))


def test_figures_are_those_of_the_features(noise, darker):
    got = score_samples(darker, noise, Patches(36), kid_subsets=5)
    sees = Patches(36)
    want = frechet_distance(*(sees(x.images(np.arange(400))).astype(np.float32) for x in (noise, darker)))
    assert got.fid == pytest.approx(want, rel=1e-6)
    assert got.n == {"real": 400, "generated": 400}
    assert got.floor_n == 200
    assert got.floor < got.fid / 5
    assert got.kid.mean > 10 * got.kid.stderr


def test_a_set_is_at_no_distance_from_itself(noise):
    got = score_samples(noise, noise, Patches(36), kid_subsets=2)
    assert got.fid == pytest.approx(0, abs=1e-9)  # drawn in another order
    assert got.floor > got.fid
    assert any("same images" in warning for warning in got.warnings)


def test_more_noise_is_farther_away(rng, sprites):
    source = SceneImages(open_dataset(sprites, "train"))
    clean = source.images(np.arange(400))
    sees, figures = Patches(32 * 32), []
    for share in (0, 0.03, 0.1, 0.3):
        hit = rng.random(clean.shape) < share
        worse = np.where(hit, rng.integers(0, 256, clean.shape), clean).astype(np.uint8)
        figures.append(score_samples(ArrayImages(worse), source, sees, kid_subsets=2))
    fids = [scores.fid for scores in figures]
    assert fids == sorted(fids)
    assert fids[1] > 0
    assert [s.kid.mean for s in figures] == sorted(s.kid.mean for s in figures)


def test_a_choice_of_images_is_seeded_and_of_equal_numbers(noise, darker):
    one, again, other = (
        score_samples(darker, noise, Patches(36), n=50, seed=s, kid_subsets=2) for s in (1, 1, 2)
    )
    assert one.n == {"real": 50, "generated": 50}
    assert one.floor_n == 50  # there are 400 real images: as many more as it takes
    assert one.fid == again.fid != other.fid
    assert one.kid == again.kid
    samples = Samples(lambda n: darker.images(np.arange(n)), {})
    assert (
        len({score_samples(samples, noise, Patches(36), n=50, seed=s, kid_subsets=1).fid for s in (1, 2)})
        == 2
    )


def test_samples_are_drawn_from_their_seed_in_batches():
    class Model:
        def sample(self, n, generator):
            return torch.rand((n, 6, 6, 1), generator=generator) * 1.2 - 0.1

    drawn = [
        np.concatenate(list(Samples.of(Model(), seed, temperature=0.5).batches(5, size)))
        for seed, size in ((0, 5), (0, 5), (1, 5))
    ]
    assert drawn[0].dtype == np.uint8
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    assert Samples.of(Model(), 3, temperature=0.5).stamp == {"kind": "samples", "seed": 3, "temperature": 0.5}


def test_stamp_says_all_that_moves_a_figure(noise, sprites):
    samples = Samples(lambda n: np.zeros((n, 32, 32, 1)), {"kind": "samples", "model": "black"})
    source = open_dataset(sprites, "test")
    got = score_samples(
        samples, SceneImages(source), Patches(1024), seed=4, facts={"temperature": 1}, kid_subsets=3
    )
    stamp = json.loads(json.dumps(got.to_json(), allow_nan=False))["stamp"]
    manifest = source.manifest.document()
    assert stamp["features"] == {"network": "patches", "dimensions": 16}
    assert stamp["quantisation"] == "clamp to [0, 1], floor(255 x)"
    assert stamp["n"] == {"real": 200, "generated": 200}
    assert stamp["real"] == {
        "kind": "data set",
        "split": "test",
        "id": "sprites-v1",
        "checksum": manifest["checksum"],
        "notes": [],
    }
    assert stamp["generated"] == {"kind": "samples", "model": "black", "temperature": 1}
    assert stamp["seed"] == 4
    assert stamp["kid"] == {"subsets": 3, "subset_size": 200, "degree": 3}


def test_scenes_drawn_on_the_spot_are_a_set_too(small_plan):
    drawn = SceneImages(GeneratedScenes(small_plan, "test"))
    assert drawn.images([0, 299]).shape == (2, 50, 50, 1)
    assert len(drawn.stamp["identity_sha256"]) == 64


def test_statistics_stand_in_for_real_images(noise, darker, tmp_path):
    direct = score_samples(darker, noise, Patches(36), kid_subsets=2)
    direct.real_statistics.save(tmp_path / "real.npz")
    kept = GaussianStatistics.load(tmp_path / "real.npz")
    got = score_samples(darker, kept, Patches(36))
    assert got.fid == pytest.approx(direct.fid, rel=1e-12)
    assert (got.kid, got.floor) == (None, None)
    assert got.stamp["real"] == direct.stamp["real"]
    drawn = score_samples(Samples(lambda n: darker.images(np.arange(n)), {}), kept, Patches(36))
    assert drawn.n == {"real": 400, "generated": 400}
    with pytest.raises(UsageError, match="other features \\(network differ"):
        score_samples(darker, kept, Patches(36, "others"))
    unsigned = GaussianStatistics(kept.mean[:5], kept.covariance[:5, :5])
    with pytest.raises(UsageError, match="5 dimensions, the features 16"):
        score_samples(darker, unsigned, Patches(36))


def test_statistics_of_nobody_knows_how_many_are_said_to_be(noise):
    kept = GaussianStatistics.of(Patches(36)(noise.images(np.arange(400))))
    got = score_samples(noise, GaussianStatistics(kept.mean, kept.covariance), Patches(36))
    assert got.n == {"real": None, "generated": 400}
    assert any("do not say of how many" in warning for warning in got.warnings)
    with pytest.raises(UsageError, match="say how many images to draw"):
        score_samples(Samples(np.zeros, {}), GaussianStatistics(kept.mean, kept.covariance), Patches(36))


def test_few_images_are_warned_of(noise):
    few = score_samples(noise, noise, Patches(36), n=10, kid_subsets=2).warnings
    assert any("FID of 10 images is biased" in warning for warning in few)
    assert any("do not span 16 features" in warning for warning in few)
    some = score_samples(noise, noise, Patches(36), kid_subsets=2).warnings
    assert not any("span" in warning for warning in some)
    assert any("floor is of halves of 200" in warning for warning in some)


@pytest.mark.parametrize(
    ("sizes", "more", "words"),
    [
        ((40, 50), {}, "as many generated images as real ones, got 50 and 40"),
        ((40, 50), {"n": 41}, "at most 40, the number of real images, got 41"),
        ((40, 50), {"n": 1}, "expected 2 or more"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(noise, sizes, more, words):
    real, generated = (ArrayImages(noise.images(np.arange(size))) for size in sizes)
    with pytest.raises(UsageError, match=words):
        score_samples(generated, real, Patches(36), **more)


def test_unequal_numbers_may_be_allowed(noise):
    real, generated = (ArrayImages(noise.images(np.arange(size))) for size in (40, 50))
    got = score_samples(generated, real, Patches(36), unequal=True, kid_subsets=2)
    assert got.n == {"real": 40, "generated": 50}
    assert any("differ in size" in warning for warning in got.warnings)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda n: np.zeros((n - 1, 6, 6, 1)), "expected 40 images, the model drew 39"),
        (lambda n: np.full((n, 6, 6, 1), np.nan), "expected floats in"),
        (lambda n: "images", "expected an array"),
    ],
)
def test_samples_that_are_none_are_refused(noise, draw, words):
    with pytest.raises(DataError, match=words):
        score_samples(Samples(draw, {}), noise, Patches(36), n=40)


# -- sets of images


def test_a_folder_of_pictures_is_what_was_saved(rng, tmp_path):
    grey, colour = (
        rng.integers(0, 256, (3, 5, 4), dtype=np.uint8),
        rng.integers(0, 256, (3, 5, 4, 3), dtype=np.uint8),
    )
    for name, stack in (("grey", grey), ("colour", colour)):
        (tmp_path / name).mkdir()
        for i, picture in enumerate(stack):
            Image.fromarray(picture).save(tmp_path / name / f"{i:02}.png")
    np.testing.assert_array_equal(open_images(tmp_path / "grey").images([2, 0]), grey[[2, 0], :, :, None])
    np.testing.assert_array_equal(open_images(tmp_path / "colour").images([1]), colour[[1]])
    before = open_images(tmp_path / "grey").stamp["sha256"]
    Image.fromarray(grey[0] ^ 1).save(tmp_path / "grey" / "00.png")
    assert open_images(tmp_path / "grey").stamp["sha256"] != before


def test_files_of_images(rng, tmp_path):
    grey = rng.integers(0, 256, (3, 5, 4), dtype=np.uint8)
    np.save(tmp_path / "a.npy", grey)
    np.savez(tmp_path / "b.npz", labels=np.zeros(3), images=grey[..., None] / 255)
    for name in ("a.npy", "b.npz"):
        images = open_images(tmp_path / name)
        np.testing.assert_array_equal(images.images([0, 2]), grey[[0, 2], :, :, None])
    assert not holds_statistics(tmp_path / "b.npz")
    assert open_images(tmp_path / "a.npy").stamp["file"] == "a.npy"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "none", "no such file or folder"),
        (lambda p: p / "none.npy", "no such file"),
        (lambda p: p, "found none"),
        (lambda p: _write(p / "x.npy", b"\x93NUMPY cut"), "cannot be read as images"),
        (lambda p: _write(p / "x.npz", b"PK cut"), "cannot be read as images"),
        (lambda p: _write(p / "x.png", b"cut"), "is none of these"),
        (lambda p: _save(p / "x.npy", np.zeros((3, 4, 4, 3)) + 255), "divide pixels"),
        (lambda p: _save(p / "x.npy", np.array([{}])), "cannot be read as images"),
    ],
)
def test_what_holds_no_images_is_refused(tmp_path, make, words):
    with pytest.raises(DataError) as error:
        open_images(make(tmp_path))
    assert words in str(error.value)


def test_pictures_that_do_not_fit_are_refused(tmp_path):
    for name, picture in (("a", np.zeros((4, 4), np.uint8)), ("b", np.zeros((4, 5), np.uint8))):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    with pytest.raises(DataError, match=r"b.png: expected \[4, 4, 1\]"):
        FolderImages(tmp_path).images([0, 1])
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:800])
    with pytest.raises(DataError, match="b.png: cannot be read"):
        FolderImages(tmp_path).images([0, 1])
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="expected 8 bits"):
        FolderImages(tmp_path).images([0, 1])


def _write(path, content):
    path.write_bytes(content)
    return path


def _save(path, array):
    np.save(path, array)
    return path
