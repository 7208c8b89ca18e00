"""The settings of EfficientMORL, and the parts that each setting chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from multiobj_data.errors import UsageError
from reference_models.base import ImageShape
from reference_models.parts.nets import inverse_softplus
from reference_models.parts.slots.broadcast import BroadcastDecoder
from reference_models.parts.slots.geco import ZETA_OF_ONE, Convention
from reference_models.parts.slots.hierarchy import PriorKind
from reference_models.parts.slots.pixel_broadcast import GridBroadcastDecoder, PixelBroadcastDecoder
from reference_models.slot_vae_settings import SlotVAEConfig, require_multiple


@dataclass(frozen=True, kw_only=True)
class EfficientMORLConfig(SlotVAEConfig):
    """Settings of `EfficientMORL`. "Code" is the authors' released code, with its settings for Multi-dSprites.

    Attributes:
        layers: L, of the hierarchy of latents.
        prior: Which layers' latents the prior links, and in which direction.
        prior_size: Hidden layer of the network that links them.
        refinement_steps: I, how often slots are refined by gradients.
        late_from: The step from which on fewer refinements are done.
        late_refinement_steps: How many from then on.
        answer_refinement_steps: How many in answers; none: as many as late in training.
        refinement_size: State of the refinement's recurrent network.
        refinement_weights: How much each refinement's loss counts: as in the code, or in the paper.
        encoder_channels: Of the convolutions that read the image.
        encoder_layers: How many there are.
        decoder: Which spatial broadcast decoder paints slots.
        decoder_channels: Of its convolutions.
        initial_gain: Of the first weights (Xavier); none: PyTorch's own.
        gru_sd: Of the first weights of the DualGRU; none: PyTorch's own.
        first_attention: even: at first all slots are given the mean of the picture, as `initial_gain` and `gru_sd` have
            it; places: each a part of it, by other first weights of encoder and hierarchy.
        geco_begin: Steps with a plain ELBO first.
    """

    about: ClassVar[str] = "emorl"
    convention: ClassVar[Convention] = "zeta"
    may_be_zero: ClassVar[tuple[str, ...]] = (
        "warm_up",
        "refinement_steps",
        "late_refinement_steps",
        "answer_refinement_steps",
        "geco_begin",
    )

    slots: int = 6  # code: Multi-dSprites; 4: Tetrominoes, 7: CLEVR6, 11: CLEVR10
    slot_size: int = 64  # code; 32: Tetrominoes
    # Posterior and prior
    layers: int = 3  # sec. 5: L
    prior: PriorKind = "reversed++"  # sec. 3.3
    prior_size: int = 128  # code: hidden layer of the network that links the layers' priors
    refinement_steps: int = 3  # sec. 5: I; 2: SRI's first stage
    late_from: int = 100_000  # code: the step from which on late_refinement_steps are done
    late_refinement_steps: int = 1  # code; 2: CLEVR10
    answer_refinement_steps: int | None = None  # in predict; none: as many as late_refinement_steps
    refinement_size: int = 128  # code
    refinement_weights: Literal["code", "paper"] = "code"  # paper: 1, then less and less; see `EfficientMORL`
    # Networks
    encoder_channels: int = 64  # code
    encoder_layers: int = 4  # code
    decoder: Literal["plain", "small", "big", "upsampling"] = "plain"  # code; upsampling: that of GENESIS-v2
    decoder_channels: int = 64  # code; small: 32
    initial_gain: float | None = 0.02  # code: of Xavier's normal weights; none: PyTorch's own first weights
    gru_sd: float | None = 1.0  # code: of the DualGRU's first weights and biases; none: PyTorch's
    first_attention: Literal["even", "places"] = (
        "even"  # code; places, ours: slots differ from the first step on
    )
    # Likelihood and objective
    likelihood: Literal["mixture", "gaussian"] = (
        "gaussian"  # code; mixture: CLEVR, where it finds the background
    )
    likelihood_sd: float = 0.1  # code; 0.3: Tetrominoes
    normalised: bool = False  # code: the goals are so; answers are normalised in any case
    geco: bool = False  # code: not on Multi-dSprites
    goal_rmse: float = 0.03  # ours: near CLEVR6's in the code, 0.044
    geco_rate: float = 1e-6  # code: at any image size
    geco_speed_up: float = 1.0  # code; 5: CLEVR10
    geco_begin: int = 1000  # code: steps with a plain ELBO first
    # Learning
    learning_rate: float = 4e-4  # code
    warm_up: int = 10_000  # code
    half_life: float = 100_000.0  # code
    gradient_clip: float = 5.0  # code

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior == "reversed++" and self.refinement_steps and self.layers < 2:
            raise UsageError(
                "emorl: prior reversed++ takes the prior of refined slots from the second layer; "
                f"expected layers of 2 or more, got {self.layers}; or choose prior reversed."
            )
        late = max(self.late_refinement_steps, self.answer_refinement_steps or 0)
        if late and not self.refinement_steps:
            raise UsageError(
                f"emorl: {late} late or answering refinement steps, but refinement_steps is 0, so that none is "
                "learnt; set all three to 0."
            )

    def refinements_at(self, step: int) -> int:
        """Return I at a training step."""
        return self.refinement_steps if step < self.late_from else self.late_refinement_steps

    @property
    def answer_refinements(self) -> int:
        """How often an answer is refined."""
        given = self.answer_refinement_steps
        return self.late_refinement_steps if given is None else given

    def step_weights(self, refinements: int) -> list[float]:
        """Return how much each step's loss counts: of the first guess, then of each refinement.

        The paper has 1, then ``(I - (i - 1)) / (I + 1)``; its code has ``(I + 3 - i) / (I + 1)`` for all of them.
        """
        total = refinements
        if self.refinement_weights == "code":
            return [(total + 3 - i) / (total + 1) for i in range(total + 1)]
        return [1.0, *((total - (i - 1)) / (total + 1) for i in range(1, total + 1))]

    def _geco_pace(self, pixels: int) -> dict[str, Any]:
        # zeta weighs the error, beta the KLs: a weight of 1 / 20 of the KLs is one of 20 of the error.
        limits = (
            max(ZETA_OF_ONE, inverse_softplus(1 / self.geco_most)),
            inverse_softplus(1 / self.geco_least),
        )
        return {"rate": self.geco_rate, "begin": self.geco_begin, "limits": limits}

    def build_decoder(self, image_shape: ImageShape) -> nn.Module:
        """Return the decoder for images ``(H, W, C)``.

        Raises:
            UsageError: It cannot make images of that size.
        """
        d, width = self.slot_size, self.decoder_channels
        if self.decoder == "plain":
            return PixelBroadcastDecoder(d, image_shape, width)
        if self.decoder == "small":
            return PixelBroadcastDecoder(
                d, image_shape, width, layers=3, kernel=5, padding=1, last_padding=1, activation=nn.ReLU
            )
        require_multiple(f"emorl: decoder {self.decoder}", image_shape, 16, 16)
        if self.decoder == "big":
            return GridBroadcastDecoder(d, image_shape, width)
        if width % 8 or d % 8:
            raise UsageError(
                "emorl: decoder upsampling normalises groups of 8 channels; expected decoder_channels and "
                f"slot_size to be multiples of 8, got {width} and {d}."
            )
        return BroadcastDecoder(d, image_shape, width)
