"""The structural regularisers of a model, all together: the number of objects, and constraints on their layout.

Amortized structural regularisation (Xu et al., NeurIPS 2019, eq. 10); the terms themselves are in `constraints`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from reference_models.base import Loss
from reference_models.parts.objects.constraints import Constraint, Layout, number_terms


@dataclass(frozen=True)
class StructuralRegulariser:
    """What the posterior is asked for beside the ELBO; false where that is nothing.

    Args:
        constraints: Name -> constraint and its coefficient.
        allowed_counts: L, the counts that occur; empty: any.
        number_form: See `number_terms`.
        number_weight: lambda_1, of an image's count.
        margin_weight: lambda_2, of the counts of a batch.
    """

    constraints: Mapping[str, tuple[Constraint, float]]
    allowed_counts: tuple[int, ...]
    number_form: str
    number_weight: float
    margin_weight: float

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.constraints or self.allowed_counts)

    def __call__(self, layout: Layout, decisions: Tensor) -> Loss:
        """Return the terms, ``[B]`` each: what q does against what is known.

        Args:
            layout: Where q puts the objects.
            decisions: Its logits of "there is one more", ``[B, K]``.
        """
        terms = {name: constraint(layout).relu() for name, (constraint, _) in self.constraints.items()}
        weights = {name: weight for name, (_, weight) in self.constraints.items()}
        if self.allowed_counts:
            terms["number"], margin = number_terms(decisions, self.allowed_counts, self.number_form)
            terms["number_margin"] = margin.expand(len(decisions))
            weights |= {"number": self.number_weight, "number_margin": self.margin_weight}
        return Loss(terms, weights)
