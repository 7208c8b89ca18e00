"""What samples are judged by, learnt once for all cells of a column: features for FID, and a segmenter of stacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.reproduction.tables import Column, Scale

if TYPE_CHECKING:
    from metrics.generation.features import FeatureExtractor
    from metrics.generation.features.domain import DomainFeatures
    from metrics.structure.judge import Judge

_SEED = 0


def features_path(out: Path, column: str) -> Path:
    """Return where the features of a column are kept."""
    return out / "features" / f"{column.lower()}.pt"


def judge_beside(features: Path) -> Path:
    """Return where the judge of a column is kept, whose features are at ``features``."""
    return features.with_name(f"{features.stem}-judge.pt")


def ready_judge(
    column: Column,
    scale: Scale,
    folder: Path,
    path: Path,
    device: str,
    on_progress: Callable[[int, float], None],
) -> None:
    """Learn the segmenter that judges all samples of a column, unless it is there.

    Args:
        column: The column; it has a ``judge``.
        scale: For how many steps.
        folder: The data set.
        path: Where the judge is kept.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        on_progress: Called after every step with its number and the loss.

    Raises:
        DataError: There is nothing to learn.
    """
    from metrics.generation.image_sets import SceneImages
    from metrics.structure.judge import Judge, train_judge
    from multiobj_data.files import make_folder
    from multiobj_data.loading import open_dataset

    source = open_dataset(folder, "train")
    data = SceneImages(source).stamp | {"held_out": "test"}
    if _learnt(Judge, path, data, scale.feature_steps):
        return
    make_folder(path.parent)
    train_judge(
        source,
        open_dataset(folder, "test"),
        path,
        data=data,
        factor=column.judge or "",
        seed=_SEED,
        steps=scale.feature_steps,
        device=device,
        on_progress=on_progress,
    )


def ready_features(
    scale: Scale, folder: Path, path: Path, device: str, on_progress: Callable[[int, float], None]
) -> None:
    """Learn a column's features, unless they are there; of Inception's, see that the weights are to be had.

    Args:
        scale: Which features, and for how many steps.
        folder: The data set.
        path: Where the features are kept.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        on_progress: Called after every step with its number and the loss.

    Raises:
        DataError: Inception's weights cannot be had, or there is nothing to learn.
    """
    from metrics.generation.features.domain import DomainFeatures
    from metrics.generation.features.training import train_domain_features
    from metrics.generation.image_sets import SceneImages
    from multiobj_data.files import make_folder
    from multiobj_data.loading import open_dataset

    if scale.features != "domain":
        extractor_of(scale, path, device)
        return
    source = open_dataset(folder, "train")
    data = SceneImages(source).stamp | {"held_out": "test"}
    if _learnt(DomainFeatures, path, data, scale.feature_steps):
        return
    make_folder(path.parent)
    train_domain_features(
        source,
        open_dataset(folder, "test"),
        path,
        data=data,
        seed=_SEED,
        steps=scale.feature_steps,
        device=device,
        on_progress=on_progress,
    )


def _learnt(
    network: type[DomainFeatures] | type[Judge], path: Path, data: dict[str, Any], steps: int
) -> bool:
    """Return whether the file holds such a network, learnt from these data in so many steps."""
    from multiobj_data.errors import DataError

    try:
        stamp = network.load(path, "cpu").stamp
    except DataError:
        return False
    return stamp["trained_on"] == data and stamp["training"]["steps"] == steps


def extractor_of(scale: Scale, path: Path, device: str) -> FeatureExtractor:
    """Return the features of a column.

    Raises:
        DataError: They cannot be had; of Inception, it says what else there is.
    """
    from metrics.generation.features import find_extractor
    from multiobj_data.errors import DataError

    try:
        return find_extractor(str(path) if scale.features == "domain" else scale.features, device=device)
    except DataError as error:
        if scale.features == "domain":
            raise
        raise DataError(
            f"{error} Or compare by features of the data's own labels: --features domain."
        ) from error
