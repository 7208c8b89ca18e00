"""Which likelihoods may stand in one column: what kind a figure is, and the refusal to mix kinds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from metrics.libraries import is_finite
from multiobj_data.errors import UsageError, quoted

Space = Literal["density", "dequantised", "discrete", "cross-entropy"]
Mixture = Literal["none", "per-channel", "joint"]


@dataclass(frozen=True)
class LikelihoodKind:
    """What must be known of a likelihood before it is compared; ``None`` where nobody said.

    Attributes:
        bound: ``"exact"``, ``"elbo"`` (one sample or more, averaged) or ``"iwae-k"``; ``"iwae-1"`` is an ELBO.
        space: ``"density"`` of pixels as they are, ``"dequantised"`` (density of pixels with uniform noise),
            ``"discrete"`` (probability of 256 grey levels), ``"cross-entropy"`` (Bernoulli terms of grey pixels,
            neither density nor probability: AIR-ASR's code).
        normalised: Whether constants such as ``ln(2 pi) / 2`` a dimension count; EfficientMORL and SRI-G drop it.
        sd: Standard deviation of a pixel; only matters where ``normalised`` is ``False``.
        mixture: ``"none"``, ``"per-channel"`` (the mixture over slots is taken for each colour channel alone, as in
            GENESIS', EfficientMORL's and SRI's code) or ``"joint"`` (for all channels of a pixel at once, as their
            papers read).
        pixel_range: Largest minus smallest pixel value; a density of pixels in [0, 255] is lower by ln 255 a dimension
            than that of the same pixels in [0, 1].
        extra_terms: Terms beyond likelihood and KLs that the figure holds, e.g. ``("kl_rollout",)`` of SRI's logs.

    Raises:
        UsageError: If a value is none of these.
    """

    bound: str
    space: Space | None = None
    normalised: bool | None = None
    sd: float | None = None
    mixture: Mixture | None = None
    pixel_range: float | None = None
    extra_terms: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch("exact|elbo|iwae-[1-9][0-9]*", str(self.bound)):
            raise UsageError(
                f"likelihood bound: expected 'exact', 'elbo' or 'iwae-<k>', got {quoted(self.bound)}."
            )
        for name, known in (("space", get_args(Space)), ("mixture", get_args(Mixture))):
            if (value := getattr(self, name)) is not None and value not in known:
                raise UsageError(
                    f"likelihood {name}: expected one of {', '.join(known)}, got {quoted(value)}."
                )
        for name in ("sd", "pixel_range"):
            if (value := getattr(self, name)) is not None and not (is_finite(value) and value > 0):
                raise UsageError(f"likelihood {name}: expected a finite number above 0, got {quoted(value)}.")

        if self.normalised not in (None, True, False):
            raise UsageError(f"likelihood normalised: expected True or False, got {quoted(self.normalised)}.")
        terms = self.extra_terms
        if terms is not None and not (
            isinstance(terms, tuple) and all(isinstance(term, str) for term in terms)
        ):
            raise UsageError(f"likelihood extra_terms: expected a tuple of names, got {quoted(terms)}.")

    def __str__(self) -> str:
        facts: list[str] = [self.bound]
        if self.space:
            facts.append(f"density over pixels of range {self.pixel_range:g}" if self._ranged else self.space)
        if self.normalised is not None:
            facts.append("normalised" if self.normalised else "without constants")
        if self.sd is not None and not self.normalised:
            facts.append(f"sd {self.sd:g}")
        if self.mixture not in (None, "none"):
            facts.append(f"mixture {self.mixture}")
        facts += [f"with {term}" for term in self.extra_terms or ()]
        return ", ".join(facts)

    @classmethod
    def parse(cls, text: str) -> LikelihoodKind:
        """Read what `Prediction.likelihood_kind` says: ``"elbo; space=density; normalised=true; sd=0.3"``.

        Raises:
            UsageError: If a fact has another name, or a value that it cannot have.
        """
        bound, *facts = (part.strip() for part in text.split(";"))
        given = dict(fact.partition("=")[::2] for fact in facts)
        if unknown := given.keys() - _READERS.keys():
            raise UsageError(
                f"likelihood kind: no fact {quoted(min(unknown))}; known are {', '.join(_READERS)}."
            )
        try:
            return cls(bound, **{name: _READERS[name](value) for name, value in given.items()})
        except (KeyError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"likelihood kind: {quoted(text)} cannot be read.") from error

    @property
    def _ranged(self) -> bool:
        return self.space == "density" and self.pixel_range is not None

    def facts(self) -> dict[str, object]:
        """Return what decides whether two figures compare, by name; ``None`` where nobody said."""
        facts: dict[str, object] = {f.name: getattr(self, f.name) for f in fields(self)}
        facts["bound"] = "elbo" if self.bound == "iwae-1" else self.bound
        if self.space == "discrete" or self.space == "cross-entropy":
            facts["pixel_range"] = "any"  # no volume, so that stretching the pixels changes nothing
        if self.normalised is not False:
            facts["sd"] = "any"  # of normalised densities any two compare
        if self.mixture == "none":
            facts["mixture"] = "any"  # a plain Gaussian stands beside either mixture
        return facts


_READERS: dict[str, Callable[[str], Any]] = {
    "space": str,
    "normalised": {"true": True, "false": False}.__getitem__,
    "sd": float,
    "mixture": str,
    "pixel_range": float,
    "extra_terms": lambda text: tuple(text.split("+")),
}
"""How each fact of `LikelihoodKind` is read from text."""


def require_comparable(kinds: Mapping[str, LikelihoodKind | str]) -> tuple[str, ...]:
    """Raise ``UsageError`` unless the likelihoods of these runs measure the same thing.

    Refused are: an exact value beside a bound, bounds of another k, densities beside probabilities of grey levels
    or cross-entropies, figures with and without constants (or without them and of another sd), mixtures per channel
    beside joint ones, pixels of another range, and figures with other extra terms. What one side leaves unsaid cannot
    be refused, but is reported.

    Args:
        kinds: Name of a run -> its kind, or the text of one as in `Prediction.likelihood_kind`; of ``"elbo"`` nothing
            else is known.

    Returns:
        The facts that are not known of every run, in order, for a remark beside the comparison.

    Raises:
        UsageError: If two kinds contradict each other, in one sentence that names both runs and what differs.
    """
    known = {
        name: kind if isinstance(kind, LikelihoodKind) else LikelihoodKind.parse(kind)
        for name, kind in kinds.items()
    }
    names = list(known)
    facts = {name: kind.facts() for name, kind in known.items()}
    for place, second in enumerate(names):
        for first in names[:place]:
            different = [
                fact
                for fact, value in facts[first].items()
                if not {"any", None} & {value, facts[second][fact]} and value != facts[second][fact]
            ]
            if different:
                raise UsageError(
                    f"likelihoods of {first} ({known[first]}) and {second} ({known[second]}) cannot be compared: "
                    f"{'; '.join(_WHY[fact] for fact in different)}."
                )
    return tuple(fact for fact in _WHY if any(of[fact] is None for of in facts.values()))


_WHY = {
    "bound": "an exact value, an ELBO and bounds of different k differ by more than the models do",
    "space": "a density, a probability of grey levels and a cross-entropy have different units "
    "(a dequantised density is comparable to probabilities only after adding 8 bits a dimension)",
    "normalised": "one leaves out the constants, ln(2 pi) / 2 a dimension for a Gaussian",
    "sd": "without constants, figures of different sd differ by ln sd a dimension",
    "mixture": "a mixture taken per channel and one taken jointly over channels are different models' sums",
    "pixel_range": "densities over pixels of different range differ by the log of their ratio a dimension",
    "extra_terms": "one holds terms that the other does not",
}
