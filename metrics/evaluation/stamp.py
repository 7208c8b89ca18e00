"""The protocol stamp: everything that must be equal before two figures may stand side by side.

Which scenes were scored (down to their bytes), by which rules, by which version of each metric, under which
convention: one canonical document and its SHA-256. Equal hashes are comparable; of unequal ones, `differences` says
what stands between them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metrics.comparability import LikelihoodKind, require_comparable
from metrics.segmentation.conventions import DEFAULT
from metrics.table import PRESENT, MetricSpec
from multiobj_data.errors import UsageError, shortened
from multiobj_data.scenes import Scenes

STAMP_SCHEMA = 1
_ABOUT_DATA = ("id", "split", "config", "seed", "sources")
_MOST_NAMED = 3


def scene_digests(scenes: Scenes) -> np.ndarray:
    """Return a digest of each scene's image and truth, uint8 ``[B, 16]``; blind to how scenes are stored."""
    image, segments = (np.ascontiguousarray(a) for a in (scenes.image, scenes.segments))
    boxes = np.ascontiguousarray(scenes.boxes, np.float32)
    counts = scenes.count.astype(np.int64)
    digests = np.empty((len(scenes), 16), np.uint8)
    for i in range(len(scenes)):
        digest = hashlib.blake2b(counts[i].tobytes(), digest_size=16)
        for array in (image, segments):
            digest.update(array[i])
        digest.update(boxes[i, : counts[i]].tobytes())
        digests[i] = np.frombuffer(digest.digest(), np.uint8)
    return digests


def protocol_stamp(
    *,
    dataset: Mapping[str, Any],
    index: np.ndarray,
    digests: np.ndarray,
    image_shape: Sequence[int],
    background_segments: int,
    specs: Mapping[str, MetricSpec],
    likelihood_kind: str | None,
) -> dict[str, Any]:
    """Return ``{"sha256", "facts"}``.

    Args:
        dataset: Facts about the data; ``id``, ``split``, ``config`` (with a converted set's protocol), ``seed`` and
            ``sources`` count.
        index: Indices of the scored scenes, int64 ``[N]``, increasing.
        digests: `scene_digests` of these scenes, uint8 ``[N, 16]``.
        image_shape: H, W, C.
        background_segments: How many labels of the truth are background.
        specs: The metrics asked for, whether or not the model allows them.
        likelihood_kind: What `log_likelihood` is.
    """
    facts = {
        "schema": STAMP_SCHEMA,
        "data": facts_of_data(dataset),
        "scenes": {
            "images": len(index),
            "index_range": [int(index[0]), int(index[-1])],
            "indices_sha256": hashlib.sha256(index.astype("<i8").tobytes()).hexdigest(),
            "content_sha256": hashlib.sha256(digests.tobytes()).hexdigest(),
            "image_shape": list(image_shape),
            "background_segments": background_segments,
        },
        "rules": {"masks": "argmax over slots", "presence": PRESENT},
        "metrics": {name: _metric_facts(spec) for name, spec in sorted(specs.items())},
        "likelihood_kind": likelihood_kind,
    }
    return {"sha256": stamp_hash(facts), "facts": facts}


def facts_of_data(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells a data set from others, of all that is said about it."""
    return {name: dataset[name] for name in _ABOUT_DATA if dataset.get(name) is not None}


def _metric_facts(spec: MetricSpec) -> dict[str, Any]:
    facts: dict[str, Any] = {"version": spec.version}
    if spec.conventional is not None:
        facts["convention"] = spec.convention or DEFAULT
    if "log_likelihood" in spec.needs:
        facts["likelihood"] = True
    return facts


def stamp_hash(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a stamp's facts, written as canonical JSON."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def differences(stamps: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[str]:
    """Return in what stamps differ as far as these metrics are concerned, the most telling first; [] if in nothing.

    Args:
        stamps: The ``facts`` of at least one stamp.
        metrics: The metrics that are to be compared.

    Returns:
        Phrases such as ``"protocol slot-attention and genesis"``.
    """
    asked = [name for name in metrics if sum(name in facts["metrics"] for facts in stamps) > 1]
    flat = [_flattened(facts, asked) for facts in stamps]
    paths = list(dict.fromkeys(path for facts in flat for path in facts))
    unequal = [path for path in paths if len(_values(path, flat)) > 1]
    if _kinds_differ(stamps, metrics):
        unequal.append("likelihood_kind")
    telling = [path for path in unequal if "sha256" not in path]
    if not telling and "scenes.content_sha256" in unequal:
        return ["the scenes themselves (images or truth are other bytes)"]
    return [_phrase(path, flat) for path in telling or unequal]


def unsaid(stamps: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[str]:
    """Return the facts of likelihoods that some runs state and others do not, if one is compared at all."""
    kinds = {facts["likelihood_kind"] for facts in stamps} - {None}
    if len(kinds) < 2 or not _likelihood_asked(stamps, metrics) or _kinds_differ(stamps, metrics):
        return []  # one kind, whatever its own facts are; or kinds that are known to differ
    known = [LikelihoodKind.parse(kind).facts() for kind in kinds]
    names = list(dict.fromkeys(name for facts in known for name in facts))
    return [name for name in names if 0 < sum(facts[name] is None for facts in known) < len(known)]


def same_scenes(stamps: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether scenes of equal index are the same: equal bytes, or parts of one split."""
    content = {stamp_hash(facts["scenes"]) for facts in stamps}
    data = {stamp_hash(facts["data"]) for facts in stamps}
    return len(content) == 1 or (len(data) == 1 and bool(stamps[0]["data"]))


def sentence(unequal: Sequence[str]) -> str:
    """Join what `differences` returned, the first few by name."""
    more = f" and {len(unequal) - _MOST_NAMED} more" if len(unequal) > _MOST_NAMED else ""
    return "; ".join(unequal[:_MOST_NAMED]) + more


def _kinds_differ(stamps: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> bool:
    kinds = {facts["likelihood_kind"] for facts in stamps} - {None}
    if len(kinds) < 2:
        return False
    try:
        require_comparable(
            {kind: kind for kind in sorted(kinds)} if _likelihood_asked(stamps, metrics) else {}
        )
    except UsageError:
        return True
    return False


def _likelihood_asked(stamps: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> bool:
    return any(facts["metrics"].get(name, {}).get("likelihood") for facts in stamps for name in metrics)


def _flattened(facts: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, str]:
    """Return dotted path -> value as text, the data's facts first, of metrics the chosen ones."""
    kept = {name: facts[name] for name in ("data", "scenes", "rules")}
    kept["metrics"] = {name: facts["metrics"][name] for name in metrics if name in facts["metrics"]}
    return dict(_leaves("", kept | {"likelihood_kind": facts["likelihood_kind"]}))


def _values(path: str, flat: Sequence[Mapping[str, str]]) -> dict[str, None]:
    """Return the different values at a path, in order; a run that was not asked for a metric has none."""
    if path == "likelihood_kind":
        return {}  # a model without a likelihood goes with all: see `_kinds_differ`
    metric = path.rsplit(".", 1)[0] + "."
    if path.startswith("metrics."):
        flat = [facts for facts in flat if any(other.startswith(metric) for other in facts)]
    return dict.fromkeys(facts.get(path, "none") for facts in flat)


def _leaves(path: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [leaf for name, item in value.items() for leaf in _leaves(f"{path}.{name}".strip("."), item)]
    text = value if isinstance(value, str) else json.dumps(value, default=_plain)
    return [(path, text)]


def _phrase(path: str, flat: Sequence[Mapping[str, str]]) -> str:
    """Name one difference: ``data.config.protocol.name`` is simply "protocol"."""
    name = re.sub(r"^(data\.config|data|scenes|rules|metrics)\.", "", path)
    name = {"id": "data set", "images": "number of images"}.get(name, name.removesuffix(".name"))
    name = name.replace("_", " ") if not path.startswith("metrics.") else _of_metric(name)
    if path == "likelihood_kind":
        values = dict.fromkeys(facts[path] for facts in flat if facts[path] != "null")
    else:
        values = dict.fromkeys(map(shortened, _values(path, flat)))
    return f"{name} {' and '.join(values)}"


def _of_metric(path: str) -> str:
    name, _, fact = path.rpartition(".")
    return f"{fact} of metric {name}:"
