"""Checkpoints: one file with weights, settings, and all that a run needs to go on.

A file holds tensors, texts, numbers, lists and dicts, nothing that could run code, and is read with
``weights_only=True``.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from multiobj_data import plugins
from multiobj_data.errors import DataError, UsageError
from multiobj_data.files import write_atomically
from reference_models.base import ImageShape, SceneModel

SCHEMA = 1
"""Version of what a checkpoint holds; a reader refuses any other."""

_FIELDS = {
    "schema": int,
    "model_id": str,
    "config": dict,
    "image_shape": list,
    "data": dict,
    "step": int,
    "seed": int,
    "weights": dict,
    "extras": dict,
}


@dataclass(frozen=True)
class Checkpoint:
    """A model with where it comes from.

    Attributes:
        model_id: Its name for `multiobj_data.plugins.resolve`.
        model: The model; as loaded, in evaluation mode.
        data: The reference of the data that it was trained on.
        step: Training steps done.
        seed: Of the run.
        extras: What else was saved: the optimiser's state, running sums.
    """

    model_id: str
    model: SceneModel
    data: dict[str, Any]
    step: int
    seed: int
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        """All settings of the model, by name."""
        return asdict(self.model.config)

    @property
    def image_shape(self) -> ImageShape:
        """``(H, W, C)`` of the model's images."""
        return self.model.image_shape


def build_model(model_id: str, config: Mapping[str, Any], image_shape: ImageShape, seed: int) -> SceneModel:
    """Build a model by name, with initial weights that ``seed`` alone decides.

    Raises:
        UsageError: No such model, no such setting, or not a model of this toolkit.
    """
    kind = plugins.resolve("models", model_id)
    if not (isinstance(kind, type) and issubclass(kind, SceneModel)):
        raise UsageError(f"{model_id}: expected a subclass of reference_models.base.SceneModel, got {kind}.")
    # torch's layers draw their first weights from its global generator: lend it to them, then put it back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind.from_config(config, image_shape)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that ``path`` always holds a whole one, the old or the new.

    Raises:
        MobjError: The file cannot be written (no space, no permission); the old one is untouched.
    """
    content = {
        "schema": SCHEMA,
        "model_id": checkpoint.model_id,
        "config": checkpoint.config,
        "image_shape": list(checkpoint.image_shape),
        "data": checkpoint.data,
        "step": checkpoint.step,
        "seed": checkpoint.seed,
        "weights": checkpoint.model.state_dict(),
        "extras": checkpoint.extras,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint and rebuild its model.

    Args:
        path: The file.
        device: Where the model and the saved tensors go.

    Raises:
        DataError: There is no such file, it is no checkpoint, it is damaged, or its weights do not fit.
    """
    content = _read(Path(path), device)
    height, width, channels = content["image_shape"]
    try:
        model = build_model(content["model_id"], content["config"], (height, width, channels), seed=0)
        model.to(device).load_state_dict(content["weights"])
    except UsageError as error:
        raise DataError(f"{path}: the checkpoint's model cannot be built: {error}") from error
    except (RuntimeError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: the weights are not those of a {content['model_id']!r}: {error}") from error
    return Checkpoint(
        model_id=content["model_id"],
        model=model.eval(),
        data=content["data"],
        step=content["step"],
        seed=content["seed"],
        extras=content["extras"],
    )


def _read(path: Path, device: torch.device | str) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such checkpoint; give the path of a checkpoint.pt.")
    if not zipfile.is_zipfile(path):  # what torch.save writes; its older formats are not read at all
        raise DataError(
            f"{path}: is no checkpoint, or was cut short; copy it anew or train with `mobj train`."
        )
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    except pickle.UnpicklingError as error:
        raise DataError(f"{path}: is no checkpoint: it holds more than tensors and plain values.") from error
    except (RuntimeError, LookupError, EOFError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: is no checkpoint, or is damaged; copy it anew.") from error
    if not isinstance(content, dict) or content.keys() != _FIELDS.keys():
        raise DataError(f"{path}: is no checkpoint of this toolkit; train a model with `mobj train`.")
    if content["schema"] != SCHEMA:
        raise DataError(f"{path}: has schema {content['schema']}, this version reads {SCHEMA}; train anew.")
    for name, kind in _FIELDS.items():
        if not isinstance(content[name], kind):
            raise DataError(f"{path}: is damaged: {name} should be a {kind.__name__}.")
    if len(content["image_shape"]) != 3:
        raise DataError(f"{path}: is damaged: image_shape should be three numbers.")
    return content
