"""Scenes and predictions made by hand, small enough to reason about."""

from collections.abc import Callable

import numpy as np
import pytest

from multiobj_data.generation.plan import Plan
from multiobj_data.generation.running import generate
from multiobj_data.scenes import Prediction, Scenes

SIZE, MOST = 12, 3


def draw(count: np.ndarray, rng: np.random.Generator) -> Scenes:
    """Scenes of grey rectangles, the i-th of `count[i]`."""
    b = len(count)
    image = np.zeros((b, SIZE, SIZE, 1), np.uint8)
    segments = np.zeros((b, SIZE, SIZE), np.uint8)
    boxes = np.full((b, MOST, 4), np.nan, np.float32)
    for i in range(b):
        for k in range(count[i]):
            x, y = rng.integers(0, SIZE - 4, 2)
            w, h = rng.integers(2, 5, 2)
            image[i, y : y + h, x : x + w] = rng.integers(60, 256)
            segments[i, y : y + h, x : x + w] = k + 1
            boxes[i, k] = x, y, x + w, y + h
    return Scenes(image=image, count=count.astype(np.int64), segments=segments, boxes=boxes)


def perfect(scenes: Scenes) -> Prediction:
    """The truth as a prediction."""
    present = scenes.present
    return Prediction(
        presence=present.astype(np.float32),
        count=scenes.count,
        boxes=np.where(present[..., None], scenes.boxes, 0).astype(np.float32),
        reconstruction=(scenes.image / 255).astype(np.float32),
        log_likelihood=np.zeros(len(scenes)),
        likelihood_kind="exact",
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def scenes(rng: np.random.Generator) -> Scenes:
    return draw(np.arange(24) % (MOST + 1), rng)


@pytest.fixture
def truth(scenes: Scenes) -> Prediction:
    return perfect(scenes)


@pytest.fixture
def batches(scenes: Scenes) -> Callable[[int], list[tuple[np.ndarray, Scenes]]]:
    """Cut the scenes into batches; indices start at 100, so that they differ from rows."""

    def cut(size: int) -> list[tuple[np.ndarray, Scenes]]:
        return [
            (100 + np.arange(start, min(start + size, len(scenes))), scenes[start : start + size])
            for start in range(0, len(scenes), size)
        ]

    return cut


class Oracle:
    """Knows the answers: looks each image up among the scenes."""

    def __init__(self, scenes: Scenes, answer: Prediction) -> None:
        self.rows = {image.tobytes(): i for i, image in enumerate(scenes.image)}
        self.answer = answer

    def predict(self, images: np.ndarray) -> Prediction:
        rows = np.array([self.rows[image.tobytes()] for image in images], dtype=int)
        cut = {name: array[rows] for name, array in self.answer.arrays().items()}
        return Prediction(
            **cut, background_slots=self.answer.background_slots, likelihood_kind=self.answer.likelihood_kind
        )


@pytest.fixture
def oracle(scenes: Scenes) -> Callable[[Prediction], Oracle]:
    return lambda answer: Oracle(scenes, answer)


@pytest.fixture(scope="session")
def sprites(tmp_path_factory):
    """400 + 200 scenes of none to two sprites, 32x32."""
    folder = tmp_path_factory.mktemp("data") / "sprites"
    settings = {"counts": "0,1,2", "canvas": 32, "overlap": False}
    generate(Plan.create("sprites", settings, seed=3, splits={"train": 400, "test": 200}), folder)
    return folder
