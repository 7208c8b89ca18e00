"""What slot models draw, and in which order their slots come (SRI, tables 1 to 4).

FID compares samples with the test split, by features learnt from the column's own labels or by Inception. Structure
accuracy is automatic: the paper's is of 100 samples labelled by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.reproduction.judging import extractor_of, judge_beside
from cli.reproduction.results import Group, Summary, figure
from cli.reproduction.tables import Column, Scale, Table

if TYPE_CHECKING:
    from multiobj_data.loading import SceneSource

FIGURES = (
    "fid",
    "kid",
    "judged_structure",
    "structure",
    "structure_of_test",
    "order_place",
    "order_before",
    "bits_with_rollout",
)
"""What is measured beside the metrics of `metrics.METRICS`: numbers; `None` for what a model or a column has not."""

GENERATION = (
    "FID by `{features}` features, of {samples:,} samples and as many test images; here real against real, of "
    "{floor_n:,} each. {structure}Order: the same kind in the same slot, and who comes before "
    "whom, in two random test images; 0 by chance, 1 always (`metrics.slots.order`). nELBO with rollout: with SRI's "
    "auxiliary KL, which is no part of the bound."
)
STRUCTURE = (
    "S-Acc: share of {judged:,} samples that show a stack of blocks that touch, automatically; "
    "judged: by one segmenter for all models, which was taught the data's own label maps; own: by the model's own "
    "segmentation, where who segments badly cannot be told from who draws badly. Here the same of test images, and "
    "of their true label maps. "
)
_SEED = 0
_JUDGED = 1000  # samples whose structure is judged
_AT_ONCE = 64


def measure_generation(
    model: Any, source: SceneSource, column: Column, scale: Scale, features: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Measure what `FIGURES` names.

    Args:
        model: A slot VAE.
        source: The test split.
        column: Says what is judged.
        scale: How many samples, and which features.
        features: The column's features.
        tell: Is told what is going on.

    Returns:
        The figures, and what explains them: floor of FID, reasons of structure, order by kind.
    """
    tell("FID of samples")
    found = _distances(model, source, scale, features)
    if column.structure is not None:
        tell("structure of samples")
        found |= _structure(model, source, column, scale, judge_beside(features))
    tell("order of slots")
    found |= _order(model, source, column)
    found |= _bits(model, source)
    return {**dict.fromkeys(FIGURES), **found}


def _samples(model: Any) -> Any:
    from metrics.generation.image_sets import Samples

    model.eval()
    return Samples.of(model, _SEED, str(model.device))


def _distances(model: Any, source: SceneSource, scale: Scale, features: Path) -> dict[str, Any]:
    from metrics.generation.image_sets import SceneImages
    from metrics.generation.scoring import score_samples

    n = min(scale.samples, len(source))
    extractor = extractor_of(scale, features, str(model.device))
    scores = score_samples(_samples(model), SceneImages(source), extractor, n=n, seed=_SEED).to_json()
    return {
        "fid": scores["fid"],
        "kid": (scores["kid"] or {}).get("mean"),
        "floor": scores["floor"],
        "samples": n,
        "stamp": scores["stamp"],
    }


def _structure(model: Any, source: SceneSource, column: Column, scale: Scale, judge: Path) -> dict[str, Any]:
    from metrics.structure import StructureRule, structure_accuracy, structure_of_samples

    rule = StructureRule(**{**(column.structure or {}), "blocks": _blocks(column)})
    n = min(scale.samples, len(source), _JUDGED)
    scenes = source.scenes(np.arange(n))
    drawn = np.concatenate(list(_samples(model).batches(n, _AT_ONCE)))
    ours, real = (structure_of_samples(model, images, rule=rule) for images in (drawn, scenes.image))
    background = range(scenes.background_segments)
    true = structure_accuracy(scenes.segments, background=background, rule=rule)
    found = {
        "structure": ours.accuracy,
        "structure_of_test": real.accuracy,
        "structure_of_truth": float(np.nan_to_num(true).mean()),
        "judged": n,
        "reasons": ours.reasons,
    }
    return found | (_judged(judge, drawn, scenes.image, rule, str(model.device)) if column.judge else {})


def _judged(judge: Path, drawn: np.ndarray, real: np.ndarray, rule: Any, device: str) -> dict[str, Any]:
    """Return structure accuracy by the column's judge, of samples and of test images."""
    from metrics.structure import structure_of_samples
    from metrics.structure.judge import Judge

    segment = Judge.load(judge, device)
    ours, theirs = (
        structure_of_samples(segment, images, background=(0,), rule=rule) for images in (drawn, real)
    )
    return {
        "judged_structure": ours.accuracy,
        "judged_structure_of_test": theirs.accuracy,
        "judged_reasons": ours.reasons,
        "judge": segment.stamp,
    }


def _blocks(column: Column) -> tuple[int, int] | None:
    given = (column.structure or {}).get("blocks")
    return None if given is None else (given[0], given[1])


def _order(model: Any, source: SceneSource, column: Column) -> dict[str, Any]:
    from metrics.slots.order import slot_order
    from multiobj_data.loading import batches

    # At 64 pixels, 10; in proportion on smaller images.
    least = max(2, round(10 * source.image_shape[0] * source.image_shape[1] / 64**2))
    found = slot_order(model, batches(source, 250, _JUDGED), kind=column.kind, min_pixels=least).to_json()
    return {
        "order_place": found["place"],
        "order_before": found["before"],
        "order_by_kind": found["by_kind"],
    }


def _bits(model: Any, source: SceneSource) -> dict[str, float]:
    """Return the mean nELBO without and with SRI's auxiliary KL, in bits a dimension; nothing of other models."""
    import torch

    from metrics.likelihood import bits_per_dimension
    from multiobj_data.loading import batches

    generator = torch.Generator(model.device).manual_seed(_SEED)
    costs, bits = [], []
    model.eval()
    for _, scenes in batches(source, _AT_ONCE, _JUDGED):
        with torch.no_grad():
            terms = model.loss(torch.as_tensor(scenes.image, device=model.device), generator).terms
        if "kl_rollout" not in terms:
            return {}
        costs.append(terms["kl_rollout"].cpu().numpy())
        bits.append(bits_per_dimension(model.predict(scenes.image).log_likelihood, source.image_shape))
    extra = float(np.concatenate(costs).mean()) / (math.prod(source.image_shape) * math.log(2))
    mean = float(np.concatenate(bits).mean())
    return {"bits_of_these": mean, "bits_with_rollout": mean + extra}


def generation_sentence(groups: Sequence[Group]) -> str | None:
    """Return how it was measured; ``None`` if nothing was."""
    found = _measured(groups)
    if not found:
        return None
    first, floor = found[0], next((each["floor"] for each in found if each["floor"]), None)
    network = first["stamp"]["features"]["network"]
    judged = max((each.get("judged", 0) for each in found), default=0)
    return GENERATION.format(
        features="domain" if network == "domain" else "inception",
        samples=first["samples"],
        floor_n=floor["n"] if floor else 0,
        structure=STRUCTURE.format(judged=judged) if judged else "",
    )


def generation_rows(table: Table, groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Return header and lines: what explains FID, structure and order."""
    header = [
        "data",
        "method",
        "FID, real against real",
        "S-Acc %, test images, judged",
        "own",
        "true label maps",
    ]
    header += ["order: same slot", "order: who is first", "nELBO bpd, with rollout"]
    lines = []
    for group in groups:
        found = _measured([group])
        if not found:
            continue
        floors = [{"floor": each["floor"]["fid"]} for each in found if each["floor"]]
        line = [table.columns[group.column].about, group.row.name, _figure(floors, "floor", 1)]
        structures = ("judged_structure_of_test", "structure_of_test", "structure_of_truth")
        line += [_figure(found, name, 1, 100) for name in structures]
        line += [_figure(found, f"order_{what}", 3) for what in ("place", "before")]
        line.append(_figure(found, "bits_with_rollout", 4))
        lines.append(line)
    return header, lines


def _measured(groups: Sequence[Group]) -> list[dict[str, Any]]:
    results = (result.get("generation") for group in groups for result in group.results.values())
    return [found for found in results if found]


def _figure(found: Sequence[dict[str, Any]], name: str, digits: int, factor: float = 1) -> str:
    values = [factor * each[name] for each in found if each.get(name) is not None]
    return figure(Summary.of(values), digits)
