"""What a model is measured on while it learns, and how that is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiobj_data.loading import SceneSource
    from reference_models.validation import Validation

SCORES = {"count_accuracy": "count accuracy", "ari_fg": "ARI-FG"}
"""Live scores, and how they are called; a model has one of them or none."""


def validation_of(source: SceneSource) -> Validation:
    """Return a validation that knows the ARI-FG of `metrics`."""
    from metrics import METRICS
    from reference_models.validation import Validation

    return Validation(source, METRICS["ari_fg"].function)


def live_note(record: Mapping[str, Any]) -> str:
    """Return what a line of the log says, in a few words."""
    parts = [f"loss {record['total']:.1f}"]
    parts += [f"{word} {record[name]:.3f}" for name, word in SCORES.items() if record.get(name) is not None]
    return ", ".join(parts)
