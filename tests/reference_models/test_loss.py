from __future__ import annotations

import pytest
import torch

from reference_models.base import Loss


def test_total_is_the_weighted_sum_averaged_over_images() -> None:
    loss = Loss({"fit": torch.tensor([1.0, 3.0]), "rule": torch.tensor([10.0, 20.0])}, {"rule": 0.1})
    torch.testing.assert_close(loss.per_image, torch.tensor([2.0, 5.0]))
    torch.testing.assert_close(loss.total, torch.tensor(3.5))
    torch.testing.assert_close(loss.means(), torch.tensor([2.0, 15.0]))


def test_sum_keeps_terms_and_weights_of_both() -> None:
    one, two = Loss({"a": torch.ones(2)}, {"a": 2.0}), Loss({"b": torch.ones(2)}, {"b": 3.0})
    torch.testing.assert_close((one + two).per_image, one.per_image + two.per_image)


def test_terms_cannot_collide() -> None:
    with pytest.raises(ValueError, match="both sides have a term 'a'"):
        Loss({"a": torch.ones(2)}) + Loss({"a": torch.ones(2)})


def test_a_weight_may_be_a_tensor_but_one_for_all_images() -> None:
    terms = {"fit": torch.tensor([1.0, 3.0]), "rule": torch.tensor([10.0, 20.0])}
    torch.testing.assert_close(Loss(terms, {"rule": torch.tensor(0.1)}).total, torch.tensor(3.5))
    with pytest.raises(ValueError, match=r"one weight for 'rule', got a tensor \(2,\)"):
        Loss(terms, {"rule": torch.ones(2)})


def test_unknown_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="'klwhere', which is no term of kl_where"):
        Loss({"kl_where": torch.ones(2)}, {"klwhere": 1.0})


@pytest.mark.parametrize("terms", [{}, {"a": torch.tensor(1.0)}, {"a": torch.ones(2), "b": torch.ones(3)}])
def test_terms_without_one_value_an_image_are_refused(terms: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="Loss: expected"):
        Loss(terms)
