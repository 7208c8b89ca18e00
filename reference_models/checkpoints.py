"""Checkpoints: one file with weights, settings, and all that a run needs to go on.

A file holds tensors, texts, numbers, lists and dicts, nothing that could run code, and is read with
``weights_only=True``.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from multiobj_data import plugins
from multiobj_data.errors import DataError, MobjError, UsageError
from multiobj_data.files import write_atomically
from reference_models.base import ImageShape, SceneModel
from reference_models.recording import RESUME

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

_REFERENCE = {"folder": str, "split": str, "manifest": dict, "identity": dict}
"""Type of what the data's reference may hold."""

DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    LookupError,
    EOFError,
    ValueError,
    AttributeError,
)
"""What the readers of zip files and of tensors raise where a file is damaged."""


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
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed those of GPUs, too
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
    write_atomically(path, buffer.getvalue(), RESUME)


def load_checkpoint(
    path: str | Path, device: torch.device | str = "cpu", trusted: Collection[str] = ()
) -> Checkpoint:
    """Read a checkpoint and rebuild its model.

    Reading a file imports nothing that only the file names: a model is built if it is built-in, installed
    (an entry point), or a ``module:Class`` that is imported already or trusted.

    Args:
        path: The file.
        device: Where the model goes; the other tensors stay on the CPU.
        trusted: Ids ``module:Class`` that may be imported, because the user gave them himself.

    Raises:
        DataError: There is no such file, it is no checkpoint, it is damaged, or its weights do not fit.
        UsageError: Its model is code of somebody's own that is neither imported nor trusted.
        MobjError: There is not enough memory for the model.
    """
    content = read_checkpoint(path)
    _refuse_foreign(path, content["model_id"], trusted)
    return Checkpoint(
        model_id=content["model_id"],
        model=_rebuild(path, content, device).eval(),
        data=content["data"],
        step=content["step"],
        seed=content["seed"],
        extras=content["extras"],
    )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what a checkpoint holds, by name, without building its model; tensors are on the CPU.

    Raises:
        DataError: There is no such file, it is no checkpoint, or it is damaged.
    """
    try:
        file = io.BytesIO(Path(path).read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such checkpoint; give the path of a checkpoint.pt.") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; give the path of a checkpoint.pt in it.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    content = _unpack(path, file)
    _check(path, content)
    return content


def _unpack(path: str | Path, file: io.BytesIO) -> Any:
    if not zipfile.is_zipfile(file):  # what torch.save writes; its older formats are not read at all
        raise DataError(
            f"{path}: is no checkpoint, or was cut short; copy it anew or train with `mobj train`."
        )
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()  # torch.load does not compare the checksums
        if damaged is None:
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(f"{path}: is no checkpoint: it holds more than tensors and plain values.") from error
    except DAMAGE as error:
        raise DataError(f"{path}: is no checkpoint, or is damaged; copy it anew.") from error
    raise DataError(f"{path}: is damaged: the checksum of {damaged} is wrong; copy it anew.")


def _check(path: str | Path, content: Any) -> None:
    if not isinstance(content, dict) or content.keys() != _FIELDS.keys():
        raise DataError(f"{path}: is no checkpoint of this toolkit; train a model with `mobj train`.")
    if content["schema"] != SCHEMA:
        raise DataError(f"{path}: has schema {content['schema']}, this version reads {SCHEMA}; train anew.")
    reference = content["data"] if isinstance(content["data"], dict) else {}
    present = {name: kind for name, kind in _REFERENCE.items() if name in reference}
    for values, kinds in ((content, _FIELDS), (reference, present)):
        for name, kind in kinds.items():
            if not isinstance(values[name], kind):
                raise DataError(f"{path}: is damaged: {name} should be a {kind.__name__}; copy it anew.")
    sizes = content["image_shape"]
    if len(sizes) != 3 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise DataError(f"{path}: is damaged: image_shape should be three numbers, is {sizes}; copy it anew.")
    name = content["model_id"]
    if ":" in name and not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        raise DataError(
            f"{path}: is damaged: model_id should be a name or module:Class, is {name!r}; copy it anew."
        )


def _refuse_foreign(path: str | Path, model_id: str, trusted: Collection[str]) -> None:
    module, colon, _ = model_id.partition(":")
    if colon and model_id not in trusted and module not in sys.modules:
        raise UsageError(
            f"{path}: its model is {model_id}, code that is not of this toolkit and that loading would run; "
            f"if you trust it, name it yourself: --model {model_id}."
        )


def _rebuild(path: str | Path, content: dict[str, Any], device: torch.device | str) -> SceneModel:
    height, width, channels = content["image_shape"]
    try:
        model = build_model(content["model_id"], content["config"], (height, width, channels), seed=0)
        model = model.to(device)
    except (UsageError, TypeError, ValueError) as error:
        raise DataError(f"{path}: the checkpoint's model cannot be built: {error}") from error
    except (RuntimeError, MemoryError) as error:  # what torch raises where it cannot allocate
        reason = str(error).partition("\n")[0]
        raise MobjError(f"{path}: the checkpoint's model cannot be put on {device}: {reason}") from error
    _refuse_other_weights(path, model, content)
    model.load_state_dict(content["weights"])
    return model


def _refuse_other_weights(path: str | Path, model: SceneModel, content: dict[str, Any]) -> None:
    expected, found = (
        {name: getattr(weight, "shape", None) for name, weight in weights.items()}
        for weights in (model.state_dict(), content["weights"])
    )
    wrong = [name for name in expected | found if expected.get(name, ...) != found.get(name, ...)]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataError(
            f"{path}: the weights are not those of a {content['model_id']!r}: {', '.join(map(str, wrong[:3]))}"
            f"{more} are missing, unknown or of another shape; train anew."
        )
