"""The generator's contract as code: call it on your own generator, as our tests call it on ours."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np

from multiobj_data.configuration import build, recorded
from multiobj_data.generation.plan import draw_scenes
from multiobj_data.generation.verification import differences
from multiobj_data.generators.base import Generator
from multiobj_data.randomness import BLOCK, block_rng
from multiobj_data.scenes import Scenes


def check_generator(generator: Generator) -> None:
    """Test everything that `multiobj_data.generators.base.Generator` says of a generator.

    Raises:
        AssertionError: With a sentence that says what does not hold.
    """
    for check in (_check_configuration, _check_scenes, _check_determinism, _check_slicing):
        check(generator)


def _check_configuration(generator: Generator) -> None:
    if isinstance(generator, type):
        name = generator.__name__
        raise AssertionError(f"expected a generator, got the class {name} itself; give {name}().")
    _require(dataclasses.is_dataclass(generator), "a generator is a dataclass")
    frozen = getattr(type(generator), "__dataclass_params__").frozen  # noqa: B009  # mypy does not know it
    _require(frozen, "a generator is a *frozen* dataclass")
    _require(
        isinstance(getattr(generator, "id", None), str), "a generator has an `id`, a text such as fruits-v1"
    )
    _require(callable(getattr(generator, "scenes", None)), "a generator has a method `scenes`")
    name, _, version = generator.id.rpartition("-v")
    _require(bool(name) and version.isdigit(), f"id {generator.id!r} ends in a version such as -v1")
    again = build(type(generator), json.loads(json.dumps(recorded(generator))))
    _require(recorded(again) == recorded(generator), "the configuration survives JSON")
    _require(pickle.loads(pickle.dumps(generator)) == generator, "a generator can be pickled")


def _check_scenes(generator: Generator) -> None:
    scenes: Any = generator.scenes(block_rng(0, "train", 0), BLOCK, split="train", first=0)
    _require(
        isinstance(scenes, Scenes), f"`scenes` returns multiobj_data.Scenes, got {type(scenes).__name__}"
    )
    _require(len(scenes) == BLOCK, f"asked for {BLOCK} scenes, there come as many, got {len(scenes)}")
    for problem in scene_problems(scenes):
        raise AssertionError(problem)


def _check_determinism(generator: Generator) -> None:
    one = generator.scenes(block_rng(0, "train", 1), BLOCK, split="train", first=BLOCK)
    two = generator.scenes(block_rng(0, "train", 1), BLOCK, split="train", first=BLOCK)
    _require(not differences(one, two), f"equal streams give equal scenes; differ in {differences(one, two)}")
    other = generator.scenes(block_rng(1, "train", 1), BLOCK, split="train", first=BLOCK)
    _require(bool(differences(one, other)), "another seed gives other scenes")
    before = repr(np.random.get_state())  # noqa: NPY002
    generator.scenes(block_rng(0, "test", 0), 8, split="test", first=0)
    _require(repr(np.random.get_state()) == before, "the global random state is left alone")  # noqa: NPY002


def _check_slicing(generator: Generator) -> None:
    whole = draw_scenes(generator, 3, "train", 0, 2 * BLOCK)
    part = draw_scenes(generator, 3, "train", BLOCK - 5, 10)
    bad = differences(whole[BLOCK - 5 : BLOCK + 5], part)
    _require(not bad, f"scene i does not depend on which scenes are asked for; differ in {bad}")


def scene_problems(scenes: Scenes) -> Iterator[str]:
    """Yield what is inconsistent within a batch of scenes."""
    present = scenes.present
    if np.isnan(scenes.boxes[present]).any() or not np.isnan(scenes.boxes[~present]).all():
        yield "boxes are numbers where an object is present and NaN elsewhere"
    labels = scenes.background_segments + np.arange(scenes.boxes.shape[1])
    shown = (scenes.segments[:, None] == labels[:, None, None]).any((2, 3))  # [B, K]
    if (shown & ~present).any():
        yield "the label map shows an object that is not present"
    for name, values in scenes.factors.items():
        absent = values[~present]
        missing = np.isnan(absent) if values.dtype.kind == "f" else absent == -1
        if values.dtype.kind in "if" and not missing.all():
            yield f"factor {name!r} is NaN or -1 where no object is"
    if scenes.amodal is not None:
        yield from _amodal_problems(scenes, scenes.amodal, labels)


def _amodal_problems(scenes: Scenes, amodal: np.ndarray, labels: np.ndarray) -> Iterator[str]:
    visible = scenes.segments[:, None] == labels[:, None, None]  # [B, K, H, W]
    if (visible & ~amodal).any():
        yield "an object is visible where its amodal mask says it is not"
    if (amodal.any(1) != (scenes.segments >= scenes.background_segments)).any():
        yield "the label map and the amodal masks disagree on what is background"
    b, k = np.nonzero(scenes.present)
    for axis, (low, high) in ((2, (0, 2)), (1, (1, 3))):
        line = np.asarray(amodal[b, k].any(3 - axis))  # [n, W or H]
        first, last = line.argmax(1), line.shape[1] - line[:, ::-1].argmax(1)
        boxes = scenes.boxes[b, k]
        if (boxes[:, low] != first).any() or (boxes[:, high] != last).any():
            yield "boxes are tight around the amodal masks"


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(f"expected that {what}.")
