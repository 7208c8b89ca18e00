"""Evaluations read back from their folders: figures, protocol stamp and one value an image."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metrics.evaluation.per_image import PER_IMAGE, read_table
from metrics.evaluation.result import SCHEMA_VERSION
from metrics.evaluation.stamp import stamp_hash
from multiobj_data.errors import DataError, UsageError

_SEED = re.compile(r"seed[-_]?(\d+)")


@dataclass(frozen=True, eq=False)
class Recorded:
    """One evaluation that `mobj evaluate` wrote.

    Attributes:
        path: Its ``evaluation.json``.
        document: What that holds.
        columns: ``index [N]`` and each metric, float64 ``[N]``, NaN where skipped; by increasing index.
    """

    path: Path
    document: Mapping[str, Any]
    columns: Mapping[str, np.ndarray]

    @property
    def model(self) -> str:
        """How the model was called."""
        return str(self.document["model"])

    @property
    def stamp(self) -> Mapping[str, Any]:
        """The facts of the protocol stamp."""
        return self.document["stamp"]["facts"]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that were scored."""
        return tuple(self.document["metrics"])


def read_evaluation(path: str | os.PathLike[str]) -> Recorded:
    """Read an evaluation and the values an image that belong to it.

    Args:
        path: ``evaluation.json``, or the folder that it lies in.

    Raises:
        DataError: A file is missing or damaged, or was written by another version.
    """
    path = Path(path)
    path = path / "evaluation.json" if path.is_dir() else path
    document = _document(path)
    try:
        about, facts = document["per_image"], document["stamp"]["facts"]
        whole = (
            document["stamp"]["sha256"] == stamp_hash(facts)
            and {"model", "metrics", "protocol"} <= document.keys()
            and {"data", "scenes", "rules", "metrics", "likelihood_kind"} <= facts.keys()
            and isinstance(about["sha256"], str)
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        whole = False
    if not whole:
        raise DataError(
            f"{path}: expected an evaluation with an intact protocol stamp, got something else; was it changed, or "
            "written by an older version? Run `mobj evaluate` again."
        )
    columns = _columns(path.with_name(PER_IMAGE), about["sha256"])
    return Recorded(path, document, _checked(path, document, columns))


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{path}: expected an evaluation.json of `mobj evaluate`, there is no such file."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON; run `mobj evaluate` again.") from error
    if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"{path}: expected an evaluation of schema version {SCHEMA_VERSION}; is it one?")
    return document


def _columns(path: Path, sha256: str) -> dict[str, np.ndarray]:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing: runs are compared image by image; keep it beside its evaluation.json, or run "
            "`mobj evaluate` again."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(
            f"{path}: expected the values that its evaluation.json names by their SHA-256, got others; run "
            "`mobj evaluate` again."
        )
    return read_table(path, content)


def _checked(
    path: Path, document: Mapping[str, Any], columns: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    if missing := {"index", *document["metrics"]} - columns.keys():
        raise DataError(f"{path.with_name(PER_IMAGE)}: expected a column {min(missing)!r}, there is none.")
    return columns


# -- which runs are seeds of one model


@dataclass(frozen=True, eq=False)
class Group:
    """One column of a comparison: a run, or several seeds of the same model.

    Attributes:
        label: Its title; unique.
        runs: The runs, by seed.
    """

    label: str
    runs: tuple[Recorded, ...]


def group_runs(runs: Sequence[Recorded], *, by_seed: bool = True) -> list[Group]:
    """Put seeds of one model together and give every group a short title of its own.

    Runs belong together if their paths differ in nothing but the number of a ``seed-N`` and so do their models'
    names: ``runs/air/seed-0`` and ``runs/air/seed-1``.

    Args:
        runs: In the order of the columns.
        by_seed: Whether to group at all.

    Raises:
        UsageError: If one run is given twice.
    """
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise UsageError(f"{twice} is given twice; a run is compared with others.")
    grouped: dict[Any, list[Recorded]] = {}
    for run, path in zip(runs, paths, strict=True):
        key = (_SEED.sub("seed-*", str(path)), re.sub(r"seed \d+", "seed *", run.model)) if by_seed else path
        grouped.setdefault(key, []).append(run)
    members = [sorted(group, key=_seed_of) for group in grouped.values()]
    return [Group(label, tuple(group)) for label, group in zip(_labels(members), members, strict=True)]


def _seed_of(run: Recorded) -> int:
    found = _SEED.findall(str(run.path))
    return int(found[-1]) if found else 0


def _labels(groups: Sequence[Sequence[Recorded]]) -> list[str]:
    """Return the shortest titles that tell the groups apart: the model's, else folders, else whole paths."""
    for title in (_model_title, _folder_title, lambda group: str(group[0].path)):
        labels = [title(group) for group in groups]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{label} {number}" for number, label in enumerate(labels, 1)]


def _model_title(group: Sequence[Recorded]) -> str:
    if len(group) == 1:
        return group[0].model or _folder_title(group)
    return re.sub(r",? ?seed \d+", "", group[0].model) or _folder_title(group)


def _folder_title(group: Sequence[Recorded]) -> str:
    """Return the folder that names the run: above ``seed-N`` and ``evaluation-...``."""
    parts = [part for part in group[0].path.parent.parts if not part.startswith("evaluation")]
    if len(group) > 1:
        parts = [part for part in parts if not _SEED.fullmatch(part)]
    return "/".join(parts[-2:]) if len(group) == 1 else parts[-1]
