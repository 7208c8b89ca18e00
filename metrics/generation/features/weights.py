"""Files of weights, those of networks trained here among them, and arithmetic that is the same wherever it can be."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from multiobj_data.errors import DataError
from multiobj_data.files import write_atomically

_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    LookupError,
    EOFError,
    ValueError,
    AttributeError,
)


def read_weights(path: str | Path) -> Any:
    """Read a file of tensors and plain values onto the CPU; nothing in it is run.

    Raises:
        DataError: If there is no such file, or it is none of these, or damaged.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file of weights.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if archive.testzip() is not None:  # torch.load does not compare the checksums
                    raise DataError(f"{path}: is damaged: a checksum in it is wrong; copy it anew.")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: is no file of weights, or holds more than tensors and plain values."
        ) from error
    except _DAMAGE as error:
        raise DataError(f"{path}: is no file of weights, or is damaged; copy it anew.") from error


_FIELDS = {"schema": int, "config": dict, "weights": dict, "data": dict, "training": dict}


def write_trained(
    path: str | Path,
    schema: int,
    network: nn.Module,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    training: Mapping[str, Any],
) -> None:
    """Write a network with its config, what it was trained on, and how well it does.

    Raises:
        UsageError: If the folder does not exist.
        MobjError: If the file cannot be written.
    """
    buffer = io.BytesIO()
    content = {
        "schema": schema,
        "config": dict(config),
        "weights": {name: weight.detach().cpu() for name, weight in network.state_dict().items()},
        "data": dict(data),
        "training": dict(training),
    }
    torch.save(content, buffer)
    write_atomically(Path(path), buffer.getvalue(), "choose another --out.")


def read_trained(path: str | Path, schema: int, what: str) -> dict[str, Any]:
    """Read what `write_trained` wrote.

    Args:
        path: The file.
        schema: The only one that is known.
        what: It should be, with how to make one.

    Raises:
        DataError: If there is no such file, or it is another one, of another schema, or damaged.
    """
    content = read_weights(path)
    if not isinstance(content, dict) or content.keys() != _FIELDS.keys():
        raise DataError(f"{path}: is no {what}.")
    if content["schema"] != schema:
        raise DataError(
            f"{path}: has schema {content['schema']}, this version reads {schema}; train it anew."
        )
    for name, kind in _FIELDS.items():
        if not isinstance(content[name], kind):
            raise DataError(f"{path}: is damaged: {name} should be a {kind.__name__}; copy it anew.")
    return content


def refuse_other_weights(path: str | Path, wanted: Mapping[str, Any], found: Any, what: str) -> None:
    """Raise ``DataError`` unless ``found`` has the tensors of ``wanted``, by name and shape.

    Counters of batch normalisation (``num_batches_tracked``) do nothing in evaluation and may be missing.
    """
    shapes = (
        {name: getattr(weight, "shape", None) for name, weight in dict(found).items()}
        if isinstance(found, Mapping)
        else {}
    )
    wrong = [
        name
        for name in wanted.keys() | shapes.keys()
        if shapes.get(name) != (wanted[name].shape if name in wanted else ...)
        and not (name.endswith(".num_batches_tracked") and name not in shapes)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataError(
            f"{path}: the weights are not those of {what}: {', '.join(sorted(map(str, wrong))[:3])}{more} are missing, "
            "unknown or of another shape."
        )


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Compute features in full float32, without gradients: no TF32, no choice of kernels by timing."""
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
            torch.inference_mode(),
        ):
            yield
    finally:
        matmul.allow_tf32 = before


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: sums then come in one order on every machine, and small networks lose no time by it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
