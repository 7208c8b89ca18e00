"""Small SuPAIRs of every kind, and images for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from reference_models.checkpoints import build_model
from reference_models.supair import SuPAIR

SHAPE = (12, 10, 1)
SMALL: dict[str, Any] = {
    "patch_size": 4,
    "lstm_size": 8,
    "hidden_size": 6,
    "object_replicas": 2,
    "object_leaves": 3,
    "object_sums": 3,
    "background_replicas": 2,
    "background_leaves": 2,
    "side_range": "0.3,0.6",
}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"order": "inferred"},
    {"count": "guided", "sees": "image", "filters": (), "feedback": False},
    {"shared_objects": False, "order": "inferred", "feedback": True},
    {"background": "black", "count_prior": "learned", "pose_of": "present", "mask": "scatter"},
    {
        "object_structure": "structured",
        "background_structure": "structured",
        "count": "guided",
        "count_rule": "rounded",
    },
]


def supair(shape: tuple[int, int, int] = SHAPE, **config: Any) -> SuPAIR:
    model = build_model("supair", {**SMALL, **config}, shape, seed=0).double()
    assert isinstance(model, SuPAIR)
    return model


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 3, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.as_tensor(np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8))


def decide(model: SuPAIR, logit: float) -> SuPAIR:
    """Let the guide say at every step, whatever it sees, that there is one more, or not."""
    with torch.no_grad():
        last = model.guide.find[-1]
        assert isinstance(last, torch.nn.Linear)
        last.weight[0] = 0
        last.bias[0] = logit
    return model
