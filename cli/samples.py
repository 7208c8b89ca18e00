"""`mobj evaluate --samples N`: FID and KID of images that the model draws against the split's images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli.console import emit_table, progress
from cli.subjects import Subject

_SEED = 0  # of the samples, and of which real images they are compared with


def ready_samples(subject: Subject, source: Any, options: dict[str, Any]) -> Callable[[], Any]:
    """Check what can be checked before anything is computed; return what draws and scores the samples.

    Raises:
        UsageError: The model draws no images, the split has too few, or options contradict each other.
        DataError: The features cannot be had.
    """
    from metrics.generation.features import find_extractor
    from multiobj_data.errors import UsageError

    n = options["samples"]
    if n is None:
        if options["features"] or options["inception_weights"]:
            raise UsageError(
                "--features and --weights are what --samples N are compared by; say how many samples."
            )
        return lambda: None
    if not getattr(subject.predictor, "can_sample", False):
        raise UsageError(f"--samples: {subject.name} draws no images; a model needs sample(n, generator).")
    if n > len(source):
        raise UsageError(
            f"--samples {n:,}: FID compares equally many images, the split {options['split']} has {len(source):,}."
        )
    features, weights = options["features"] or "inception", options["inception_weights"]
    extractor = find_extractor(features, weights=weights, device=options["device"])
    if (trained := extractor.stamp.get("image_shape")) not in (None, list(source.image_shape)):
        raise UsageError(
            f"--features: {features} was trained on images of {trained}, the data have {list(source.image_shape)}; "
            "train features on such data (mobj metrics train-features)."
        )
    return lambda: _score(subject, source, extractor, n)


def _score(subject: Subject, source: Any, extractor: Any, n: int) -> Any:
    from metrics.generation.image_sets import Samples, SceneImages
    from metrics.generation.scoring import score_samples

    samples = Samples.of(subject.predictor, _SEED, subject.device, drawn_by=subject.name)
    with progress("samples", 2 * n + min(n, len(source) - n), "images") as advance:
        return score_samples(samples, SceneImages(source), extractor, n=n, seed=_SEED, on_progress=advance)


def print_samples(generation: dict[str, Any] | None) -> None:
    """Print FID, KID and the floor; nothing without samples."""
    if generation is None:
        return
    kid, floor = generation["kid"], generation["floor"]
    rows = [("FID", f"{generation['fid']:.4f}", "", f"{generation['n']['generated']:,}")]
    if kid is not None:
        part = kid["subset_size"] < max(generation["n"].values())  # else all subsets are the same images
        error = f"{kid['stderr']:.2g}" if kid["stderr"] is not None and part else ""
        rows.append(("KID", f"{kid['mean']:.6f}", error, f"{kid['subsets']} x {kid['subset_size']:,}"))
    if floor is not None:
        rows.append(("FID, real against real", f"{floor['fid']:.4f}", "", f"{floor['n']:,}"))
    emit_table(rows, ("samples", "value", "std. error", "images of each"))
