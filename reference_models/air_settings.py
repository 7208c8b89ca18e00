"""The settings of the AIR family, and the parts that each setting chooses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from multiobj_data import plugins
from multiobj_data.errors import UsageError
from reference_models.base import ImageShape, ModelConfig
from reference_models.parts.objects import count_priors, estimators
from reference_models.parts.objects.autoregressive_prior import AutoregressivePrior
from reference_models.parts.objects.baselines import NeuralBaseline
from reference_models.parts.objects.constraints import parse_constraint
from reference_models.parts.objects.likelihoods import BernoulliLikelihood, GaussianLikelihood, Likelihood
from reference_models.parts.objects.placing import LogNormalScale, Placing, Squashed
from reference_models.parts.objects.regulariser import StructuralRegulariser

ESTIMATORS: dict[str, Callable[[AIRConfig], estimators.Estimator]] = {
    "enumerate": lambda config: estimators.Enumeration(),
    "score-function": lambda config: estimators.ScoreFunction(),
    "baseline": lambda config: estimators.ScoreFunction(),
    "nvil": lambda config: estimators.Nvil(),
    "vimco": lambda config: estimators.Vimco(config.particles),
    "mvd": lambda config: estimators.MeasureValued(),
    "concrete": lambda config: estimators.Concrete(config.temperature, config.stop, config.straight_through),
}
"""Setting ``estimator`` -> what it builds; ``baseline`` and ``nvil`` come with the neural baseline."""


@dataclass(frozen=True, kw_only=True)
class AIRConfig(ModelConfig):
    """Settings of `AIR`. "Pyro" is the AIR example of that library, which reaches 98 % with these sizes.

    Attributes:
        max_objects: K, the most objects that can be found.
        estimator: How the gradient gets through the number of objects.
        particles: Samples of N an image; of vimco.
        temperature: Of concrete: the lower, the closer presences are to 0 or 1.
        stop: Of concrete: how much absence has to add up before no further object is looked for.
        straight_through: Of concrete: presences are rounded on the way forward.
        baseline_learning_rate: Step size of the score function's neural baseline.
        count_prior: p(N): geometric, equal odds each step, categorical, or learnt.
        count_ratio: p(n + 1) / p(n) of geometric; the odds of one more object of per-step.
        count_weights: Of categorical: p(0), p(1), ..., not normalised.
        anneal: How the odds of one more object fall from their start to `count_ratio`.
        anneal_start: The odds of one more object at first.
        anneal_begin: The step at which they begin to fall.
        anneal_steps: Over how many steps they fall.
        relaxed_ratio: What `count_ratio` rises to in the end; 0: nothing.
        relax_begin: The step at which it begins to rise.
        relax_steps: Over how many steps it rises.
        doubt: The least probability of either answer to "is there one more?" early in training.
        doubt_steps: Steps for which the doubt stays; over twice as many it then falls to 0.
        prior: p(z_where): standard normal, or given the objects before.
        learn_scale_prior: Of the autoregressive prior: whether it expects sizes, too.
        placing: How z_where becomes a window: its scale log-normal, or squashed into (0, 1).
        object_scale: Median side of a window over the canvas' side.
        object_scale_sd: Standard deviation of a window's scale, of its log or before it is squashed.
        position_sd: Standard deviation of a window's centre; the canvas reaches from -1 to 1.
        what_size: Size of the code of what an object looks like.
        window_size: Side in pixels of the patch that is read and painted.
        likelihood: Of a pixel.
        likelihood_sd: Standard deviation of the Gaussian likelihood.
        filters: Output channels of the convolutions before the recurrent network; empty: it reads pixels.
        lstm_size: State of the recurrent network.
        difference_pool: Side in pixels of the squares over which what is still unexplained is averaged; 0: not read.
        hidden_size: Hidden layer of the networks that predict presence and place.
        code_sizes: Hidden layers of the encoder, in the decoder reversed; empty: one of `hidden_size`.
        activation: Of encoder and decoder.
        decoder_bias: First bias of the decoder's logits; below 0 the canvas begins dark.
        presence_bias: First bias of "is there one more?"; above 0 training begins with every object there.
        where_raw_sd: First bias of the standard deviation of z_where, before softplus.
        mask_level: The grey above which a pixel is an object's, in masks and tight boxes.
        boxes: Tight around the ink, or the window.
        allowed_counts: Numbers of objects that occur; empty: not known.
        number_form: How the number is regularised: exactly, or step by step.
        number_weight: lambda_1, how much the probability of other numbers costs.
        margin_weight: lambda_2, how much an uncertain number costs.
        constraints: On the layout, each ``name*coefficient``: overlap, inside, size, same-size, or ``module:function``.
        size_range: Least and largest side of an object in pixels, for the constraint ``size``.
        size_tolerance: By how many pixels sizes may differ, for ``same-size``.
    """

    about: ClassVar[str] = "air"
    may_be_negative: ClassVar[tuple[str, ...]] = ("decoder_bias", "presence_bias", "where_raw_sd")
    may_be_zero: ClassVar[tuple[str, ...]] = (
        "difference_pool",
        "doubt",
        "warm_up",
        "anneal_begin",
        "relaxed_ratio",
        "relax_begin",
        "number_weight",
        "margin_weight",
        "size_tolerance",
    )

    max_objects: int = 3  # Pyro
    # How many there are
    estimator: Literal["enumerate", "score-function", "baseline", "nvil", "vimco", "mvd", "concrete"] = (
        "enumerate"  # ours: exact over N; the paper samples N
    )
    particles: int = 5  # of vimco; Mnih & Rezende 2016 try 2 to 50
    temperature: float = 1.0  # of concrete: Akhundov's AIR
    stop: float = 0.99  # of concrete: Akhundov's AIR
    straight_through: bool = False  # of concrete
    baseline_learning_rate: float = 1e-3  # Eslami et al. 2016; Pyro and Drelich: 0.1, with another scale
    count_prior: Literal["geometric", "per-step", "categorical", "learned", "autoregressive"] = "geometric"
    count_ratio: float = 1e-4  # ours: with Pyro's 0.01 some seeds keep drawing an empty first window
    count_weights: tuple[float, ...] = ()  # of categorical: p(0), p(1), ..., not normalised
    # Of geometric and per-step priors. Without it, one seed in several puts two digits into one window for good.
    anneal: Literal["none", "linear", "exponential", "log-linear"] = "log-linear"  # Akhundov's AIR
    anneal_start: float = (
        10.0  # ours: odds of one more object at first; from 0.1 some seeds do not find the third
    )
    anneal_begin: int = 0
    anneal_steps: int = 1000  # ours
    # The strict prior makes each window hold one digit, but merges digits that touch: in the end it is relaxed.
    relaxed_ratio: float = 1.0  # ours: below, more objects are merged than split; 0: count_ratio to the end
    relax_begin: int = 1500  # ours
    relax_steps: int = 2000  # ours
    # Early on, either answer to "one more?" keeps this probability. Without it, some windows stay blank for good where
    # counts between those that occur are unlikely: from "four, two of them blank", no small step leads to "two".
    doubt: float = 0.0
    doubt_steps: int = 1000  # ours: then it falls for twice as many, linearly
    # Where and what they are
    prior: Literal["standard", "autoregressive"] = "standard"
    learn_scale_prior: bool = False  # ASR code
    placing: Literal["log-normal", "squashed"] = "log-normal"
    object_scale: float = (
        0.38  # ours: median window side over canvas side, 19 of 50 pixels; Pyro: inverse scale 3
    )
    object_scale_sd: float = (
        0.1  # ours: of the log scale; at 0.2, some seeds learn windows of two digits that touch
    )
    position_sd: float = 0.5  # ours: of the centre; the canvas reaches from -1 to 1
    what_size: int = 50  # Pyro
    window_size: int = 28  # Pyro: the size of an MNIST digit
    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"  # bernoulli: the ASR code
    likelihood_sd: float = 0.3  # Pyro
    # Networks
    filters: tuple[int, ...] = (8, 16, 32)  # ours: of convolutions before the recurrent network; Pyro: none
    lstm_size: int = 256  # Pyro
    # In every step also read what is still unexplained ("DAIR", Eslami et al. 2016, sec. 4.1), averaged over squares
    # of so many pixels; 0: the image alone
    difference_pool: int = 2  # ours
    hidden_size: int = 200  # Pyro: of the step predictor and, without code_sizes, of encoder and decoder
    code_sizes: tuple[int, ...] = ()  # hidden layers of the encoder; the decoder has them reversed
    activation: Literal["relu", "softplus"] = "relu"  # of encoder and decoder; softplus: the ASR code
    decoder_bias: float = -2.0  # Pyro: a bright first canvas makes "no object" the best answer for good
    presence_bias: float = 2.0  # ours: begin with every object there, so that decoder and windows learn
    where_raw_sd: float = -2.0  # ours: softplus gives 0.13; wide windows blur the first objects away
    mask_level: float = 0.1  # ours: the grey above which a pixel is an object's agrees best with the digits
    boxes: Literal["tight", "window"] = "tight"  # ours: around the ink above mask_level, as the truth is
    # What is known of the scenes (Xu et al. 2019)
    allowed_counts: tuple[int, ...] = ()  # L; empty: no regulariser of the number
    number_form: Literal["exact", "per-step"] = "exact"  # per-step: the ASR code
    number_weight: float = 10.0  # ASR, sec. 6.1: lambda_1
    margin_weight: float = 100.0  # ASR, sec. 6.1: lambda_2
    constraints: tuple[
        str, ...
    ] = ()  # name*coefficient; names as in `parts.objects.constraints`, or module:function
    size_range: tuple[float, float] | None = None  # pixels, none: any size; ASR code: 11,15 for digits
    size_tolerance: float = 3.0  # pixels; ASR code
    # Learning
    learning_rate: float = 1e-3  # ours: twice as fast as 5e-4 and no less safe; Pyro has 1e-4
    half_life: float = 2500.0  # ours: at a constant rate, touching digits are more and more often merged
    gradient_clip: float = 100.0  # ours: norms are some hundred (sums over pixels); Adam forgives the scale

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_numbers()
        if any(isinstance(size, bool) or size < 1 for size in (*self.filters, *self.code_sizes)):
            raise UsageError(
                f"air: filters and code_sizes: expected sizes of 1 or more, got {self.filters}, {self.code_sizes}."
            )
        impossible = [n for n in self.allowed_counts if not 0 <= n <= self.max_objects]
        if impossible:
            raise UsageError(f"air: allowed_counts: {impossible[0]} is not in 0..{self.max_objects}.")
        low, high = self.size_range or (0.0, math.inf)
        if not 0 <= low <= high:
            raise UsageError(f"air: size_range: expected 0 <= low <= high in pixels, got {low}, {high}.")
        if self.placing == "squashed" and self.object_scale >= 1:
            raise UsageError("air: object_scale must be below 1 where placing is squashed.")
        if self.estimator == "vimco" and self.particles < 2:
            raise UsageError(f"air: vimco needs at least 2 particles, got {self.particles}.")
        if self.doubt >= 0.5:
            raise UsageError(f"air: doubt must be below 0.5, where any answer is as good, got {self.doubt}.")
        self._check_count_prior()
        self.build_regulariser()

    def _check_count_prior(self) -> None:
        if (self.count_prior == "autoregressive") and self.prior != "autoregressive":
            raise UsageError("air: count_prior autoregressive needs prior autoregressive.")
        if self.count_prior == "categorical":
            count_priors.check_weights(self.about, self.max_objects, self.count_weights)

    @property
    def code_layers(self) -> tuple[int, ...]:
        """Hidden layers of the encoder."""
        return self.code_sizes or (self.hidden_size,)

    def difference_features(self, image_shape: ImageShape) -> int:
        """Return how many numbers describe what is unexplained of an image."""
        if not self.difference_pool:
            return 0
        height, width, channels = image_shape
        return channels * math.ceil(height / self.difference_pool) * math.ceil(width / self.difference_pool)

    def build_estimator(self) -> estimators.Estimator:
        """Return the estimator of the gradient with respect to N."""
        return ESTIMATORS[self.estimator](self)

    def build_baseline(self, pixels: int, latents: int) -> NeuralBaseline | None:
        """Return the score function's baseline for images of so many values, if it has one."""
        if self.estimator not in ("baseline", "nvil"):
            return None
        return NeuralBaseline(pixels, latents, self.lstm_size, self.hidden_size, typical=pixels / 10)

    def build_prior(self, latents: int) -> AutoregressivePrior | None:
        """Return the prior that each object's place has given those before it; ``None``: standard normal."""
        if self.prior == "standard":
            return None
        return AutoregressivePrior(latents, self.lstm_size, self.hidden_size, self.learn_scale_prior)

    def build_decision_prior(self) -> torch.nn.Parameter | None:
        """Return the logits ``[K]`` of a learned prior on the number of objects."""
        return torch.nn.Parameter(torch.zeros(self.max_objects)) if self.count_prior == "learned" else None

    def decision_prior_at(self, step: float) -> Tensor:
        """Return the decisions' prior logits ``[K]`` at a training step, float64, where they are not learned."""
        c = self
        falling = count_priors.Annealing(c.anneal, c.anneal_start, c.anneal_begin, c.anneal_steps)
        odds = falling.odds(c.count_ratio, step)
        if c.relaxed_ratio:
            rising = count_priors.Annealing("log-linear", odds, c.relax_begin, c.relax_steps)
            odds = rising.odds(c.relaxed_ratio, step)
        if self.count_prior == "categorical":
            return count_priors.categorical(self.max_objects, self.count_weights)
        kind = count_priors.per_step if self.count_prior == "per-step" else count_priors.geometric
        return kind(self.max_objects, odds)

    def doubt_at(self, step: float) -> float:
        """Return how much doubt a training step leaves to each decision."""
        return self.doubt * min(max((3 * self.doubt_steps - step) / (2 * self.doubt_steps), 0.0), 1.0)

    def build_placing(self) -> Placing:
        """Return the map from z_where to windows."""
        kind = LogNormalScale if self.placing == "log-normal" else Squashed
        return kind(self.object_scale, self.object_scale_sd, self.position_sd)

    def build_likelihood(self) -> Likelihood:
        """Return log p(x | canvas)."""
        return (
            GaussianLikelihood(self.likelihood_sd) if self.likelihood == "gaussian" else BernoulliLikelihood()
        )

    def build_regulariser(self) -> StructuralRegulariser:
        """Return what the posterior is asked for beside the ELBO."""
        parsed = dict(parse_constraint(text) for text in self.constraints)
        if len(parsed) < len(self.constraints):
            raise UsageError(f"air: constraints: {', '.join(self.constraints)} names one twice.")
        if "size" in parsed and self.size_range is None:
            raise UsageError(
                "air: constraint size needs size_range, the least and largest side in pixels, e.g. 11,15."
            )
        return StructuralRegulariser(
            {name: (plugins.resolve("constraints", name), weight) for name, weight in parsed.items()},
            self.allowed_counts,
            self.number_form,
            self.number_weight,
            self.margin_weight,
        )
