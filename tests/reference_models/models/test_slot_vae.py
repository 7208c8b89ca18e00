"""What every slot VAE promises of its samples: scenes can be given, and only where there is a scene variable."""

from __future__ import annotations

import pytest
import torch

from multiobj_data.errors import UsageError
from reference_models.checkpoints import build_model

NARROW = {"slots": 3, "slot_size": 8}
V2 = NARROW | {"width": 8, "lstm_size": 8, "scene_size": 6, "scene_layers": 1}
GENESIS = NARROW | {"width": 4, "component_size": 4, "features": 16, "lstm_size": 8, "scene_size": 6}
EMORL = NARROW | {"encoder_channels": 8, "decoder_channels": 8, "prior_size": 8, "refinement_size": 8}
WITH_SCENE = {
    "genesis": GENESIS | {"scene_variable": True},
    "genesis-v2": V2 | {"scene_variable": True},
    "sri": V2,
    "sri-sa": V2,
}
WITHOUT = {"genesis": GENESIS, "genesis-v2": V2, "sri": V2 | {"scene_variable": False}, "emorl": EMORL}
SHAPE = (16, 16, 3)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", WITH_SCENE)
def test_samples_are_those_of_the_given_scenes(name: str) -> None:
    model = build_model(name, WITH_SCENE[name], SHAPE, seed=0).double()
    scene = torch.randn(1, 6, generator=rng(), dtype=torch.float64)
    one, same, other = model.sample(3, rng(), temperature=0.0, scene=torch.cat([scene, scene, -scene]))
    torch.testing.assert_close(one, same)
    assert not torch.equal(one, other)
    colours, log_masks = model.sample_slots(1, rng(), temperature=0.0, scene=scene)
    blended = (colours * log_masks.exp()).sum(1).movedim(1, -1)
    torch.testing.assert_close(blended[0], one)
    assert model.training, "sampling left the model in evaluation mode"


@pytest.mark.parametrize("name", WITH_SCENE)
def test_scenes_of_another_shape_are_refused(name: str) -> None:
    model = build_model(name, WITH_SCENE[name], SHAPE, seed=0)
    with pytest.raises(UsageError, match=r"expected a scene \[2, 6\], got \[2, 5\]"):
        model.sample(2, rng(), scene=torch.zeros(2, 5))


@pytest.mark.parametrize("name", WITHOUT)
def test_models_without_a_scene_variable_refuse_scenes(name: str) -> None:
    model = build_model(name, WITHOUT[name], SHAPE, seed=0)
    with pytest.raises(UsageError, match="having no scene variable"):
        model.sample(2, rng(), scene=torch.zeros(2, 6))
