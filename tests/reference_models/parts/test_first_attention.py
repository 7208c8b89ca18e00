"""EfficientMORL's first weights: what slots are given, and say, before anything is learnt."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multiobj_data.errors import UsageError
from reference_models.emorl import EfficientMORL
from reference_models.parts.slots.prior import softplus_normal

SIDE, SLOTS = 16, 4


def model(**settings: Any) -> EfficientMORL:
    torch.manual_seed(3)
    small = {
        "slots": SLOTS,
        "slot_size": 16,
        "encoder_channels": 16,
        "decoder_channels": 8,
        "initial_gain": None,
    }
    return EfficientMORL.from_config({**small, "gru_sd": None, **settings}, (SIDE, SIDE, 3)).eval()


def images() -> Tensor:
    return torch.as_tensor(np.random.default_rng(0).integers(0, 256, (32, SIDE, SIDE, 3), dtype=np.uint8))


@torch.no_grad()
def first_look(emorl: EfficientMORL) -> tuple[Tensor, Tensor, Tensor]:
    """Return the slot that each pixel chooses first ``[B, H, W]``, and means and sds of the slots ``[B, K, D]``."""
    x, noise = emorl.as_float(images()), emorl.fixed_noise(images())
    features, hierarchy = emorl.encoder(2 * x - 1), emorl.hierarchy
    queries = hierarchy.ask(noise[:, 0] * softplus_normal(hierarchy.first).base_dist.scale)
    chosen = torch.bmm(queries, hierarchy.keys(features).mT).argmax(1).unflatten(-1, (SIDE, SIDE))
    q = softplus_normal(hierarchy(features, noise[:, : 1 + emorl.config.layers]).parameters[-1]).base_dist
    return chosen, q.loc, q.scale


def neighbours_agree(chosen: Tensor) -> float:
    pairs = [chosen[:, 1:] == chosen[:, :-1], chosen[:, :, 1:] == chosen[:, :, :-1]]
    return float(torch.cat([pair.flatten() for pair in pairs]).float().mean())


def test_slots_begin_as_connected_parts_of_the_picture_that_differ() -> None:
    chosen, mean, sd = first_look(model(first_attention="places"))
    assert neighbours_agree(chosen) > 0.85  # 0.25 in a partition at random
    shares = torch.nn.functional.one_hot(chosen, SLOTS).float().mean((1, 2)).amax(1)
    assert float(shares.mean()) < 0.8  # no slot has it all
    assert float(mean.std(1).mean()) > 2 * float(sd.mean())  # noise does not hide which slot is which
    assert 0.01 < float(sd.mean()) < 0.15
    assert float(mean.mean(1).std(0).mean()) > 0.02  # nor are pictures alike


def test_without_it_slots_begin_alike() -> None:
    _, mean, sd = first_look(model(first_attention="even"))
    assert float(mean.std(1).mean()) < 0.1 * float(sd.mean())


def test_the_first_attention_changes_no_layer_but_its_own() -> None:
    even, places = (model(first_attention=first).state_dict() for first in ("even", "places"))
    assert even.keys() == places.keys()
    for name, weights in even.items():
        if not name.startswith(("encoder.", "hierarchy.")):
            torch.testing.assert_close(weights, places[name], rtol=0, atol=0)


def test_an_unknown_first_attention_is_refused() -> None:
    with pytest.raises(UsageError, match="first_attention"):
        model(first_attention="colours")
