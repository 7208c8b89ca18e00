from __future__ import annotations

import pytest
import torch

from multiobj_data.errors import UsageError
from multiobj_data.plugins import names
from reference_models.checkpoints import build_model
from reference_models.presets import model_presets, preset_settings

ALL = [(model, preset) for model in names("models") for preset in model_presets(model)]

AIR = {"lstm_size": 8, "hidden_size": 8, "what_size": 4, "window_size": 6, "code_sizes": "8"}
SMALL = {
    "emorl": {"slots": 3, "slot_size": 8, "encoder_channels": 8, "decoder_channels": 8},
    "supair": {"lstm_size": 8, "hidden_size": 8, "patch_size": 6},
    "genesis": {"slots": 3, "slot_size": 8, "component_size": 4, "width": 4, "features": 16, "lstm_size": 8},
    "genesis-v2": {"slots": 3, "slot_size": 8, "width": 8, "lstm_size": 8},
    "sri": {"slots": 3, "slot_size": 8, "width": 8, "lstm_size": 8, "scene_size": 8},
    "sri-sa": {"slots": 3, "slot_size": 8, "width": 8, "lstm_size": 8, "scene_size": 8},
}
"""What makes a model quick, whatever the preset; `AIR` for those not named."""


@pytest.mark.parametrize(("model", "preset"), ALL)
def test_every_preset_is_one_of_its_model_and_trains(model: str, preset: str) -> None:
    shape = (16, 16, 1)
    built = build_model(model, {**preset_settings(model, preset), **SMALL.get(model, AIR)}, shape, seed=0)
    images = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    loss = built.loss(images, torch.Generator().manual_seed(0)).total
    loss.backward()
    assert torch.isfinite(loss)


def test_unknown_presets_are_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="air has no preset named 'pyra'.*Did you mean 'pyro'"):
        preset_settings("air", "pyra")
    with pytest.raises(UsageError, match="It has none"):
        preset_settings("my_package:Model", "pyro")
