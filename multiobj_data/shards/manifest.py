"""``dataset.json``: what a folder of shards holds, how it was made, and the SHA-256 of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from multiobj_data.errors import DataError, VerificationError
from multiobj_data.files import to_json, write_atomically

MANIFEST = "dataset.json"
SCHEMA_VERSION = 1
CONVERTED = "convert:"
"""With this, and not with a generator's name, begins what made a data set of a public one."""


@dataclass(frozen=True)
class ShardRecord:
    """One finished shard."""

    file: str
    first_index: int
    rows: int
    sha256: str


@dataclass(frozen=True)
class SplitRecord:
    """The shards of a split, in order, and what rejection cost.

    ``acceptance`` maps a count to scenes, attempts (candidates tried) and their ratio.
    """

    rows: int
    shards: list[ShardRecord]
    acceptance: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """A data set.

    Attributes:
        dataset: Id with version.
        generator: Name that `multiobj_data.plugins.resolve` understands.
        config: The generator's settings.
        seed: Seed of every stream.
        image_shape: H, W, C.
        max_objects: K.
        sources: SHA-256 of every source file, by name.
        shard_rows: Scenes a shard; the last one of a split may hold fewer.
        splits: By name.
        toolkit: Version of this toolkit.
        notes: What a reader must know, e.g. that bundled digits stand in for MNIST.
    """

    dataset: str
    generator: str
    config: dict[str, Any]
    seed: int
    image_shape: tuple[int, int, int]
    max_objects: int
    sources: dict[str, str]
    shard_rows: int
    splits: dict[str, SplitRecord]
    toolkit: str
    notes: list[str] = field(default_factory=list)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the bytes of the shards, as `multiobj_data.generation.plan.Plan.identity`."""
        names = ("dataset", "generator", "config", "seed", "shard_rows", "sources")
        return {name: getattr(self, name) for name in names} | {
            "splits": {name: split.rows for name, split in self.splits.items()}
        }

    def document(self) -> dict[str, Any]:
        """Return the manifest as JSON-ready values, with a checksum over all the rest."""
        document = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        document["image_shape"] = list(self.image_shape)
        return {**document, "checksum": _checksum(document)}

    def write(self, folder: Path) -> None:
        """Write ``dataset.json``, atomically."""
        write_atomically(folder / MANIFEST, to_json(self.document()).encode())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read ``dataset.json``.

        Raises:
            DataError: If there is none, or it is not a manifest of this version.
        """
        path = folder / MANIFEST
        try:
            document = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(_why_missing(folder)) from error
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise DataError(
                f"{path} cannot be read as JSON ({error}); restore it, or delete the folder and run the "
                "command that made it again."
            ) from error
        return cls.from_document(document, str(path))

    @classmethod
    def from_document(cls, document: Mapping[str, Any], where: str) -> Manifest:
        """Build a manifest from parsed JSON; ``where`` names it in errors."""
        if not isinstance(document, Mapping) or document.get("schema_version") != SCHEMA_VERSION:
            raise DataError(
                f"{where} is no manifest of version {SCHEMA_VERSION}; was it written by another tool?"
            )
        values = {
            name: value for name, value in document.items() if name not in ("schema_version", "checksum")
        }
        if document.get("checksum") != _checksum({"schema_version": SCHEMA_VERSION, **values}):
            raise VerificationError(
                f"{where} was changed after it was written (its checksum does not fit); restore it, or delete the "
                "folder and run the command that made it again."
            )
        try:
            values["image_shape"] = tuple(values["image_shape"])
            values["splits"] = {
                name: SplitRecord(**{**split, "shards": [ShardRecord(**shard) for shard in split["shards"]]})
                for name, split in values["splits"].items()
            }
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{where} is damaged: {error}.") from error


def _checksum(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _why_missing(folder: Path) -> str:
    if folder.name == MANIFEST and folder.is_file():
        return f"{folder} is the manifest of a data set; give its folder, {folder.parent}."
    if not folder.exists():
        return f"there is no data set at {folder}: no such folder. Try `mobj generate multi-mnist --out {folder}`."
    if list(folder.glob(".progress-*.jsonl")):
        return (
            f"{folder} holds a part of a data set: run the `mobj generate` commands of the other shard ranges into it, "
            "or join the parts, where each has a folder of its own, by `mobj merge`."
        )
    if list(folder.glob(".progress*.jsonl")):
        return f"{folder} holds an unfinished data set; run the command that began it again, it continues."
    return f"{folder} has no {MANIFEST}: it is no data set of this toolkit, or its manifest was deleted."
