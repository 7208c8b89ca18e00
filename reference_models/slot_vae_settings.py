"""Settings that the slot VAEs share, and the parts that they choose: likelihood, GECO, checks of sizes.

"GENESIS code" and "SRI code" are the released ones, "EMORL" is EfficientMORL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from multiobj_data.errors import UsageError
from reference_models.base import ImageShape, ModelConfig
from reference_models.parts.slots.geco import Convention, Geco
from reference_models.parts.slots.likelihood import SlotLikelihood
from reference_models.parts.slots.prior import SlotPrior
from reference_models.parts.slots.scene_encoder import SceneEncoder


@dataclass(frozen=True, kw_only=True)
class SlotVAEConfig(ModelConfig):
    """Settings of every slot VAE.

    Attributes:
        slots: K, one of them for the background.
        slot_size: Size of a slot's code.
        likelihood: A mixture of the slots' colours at each pixel, or one Gaussian around their blend.
        likelihood_sd: Standard deviation of a pixel.
        normalised: Whether the likelihood has its constant.
        per_channel: Of a mixture: of each colour channel by itself.
        geco: Whether reconstruction and KLs are balanced by a goal.
        goal: The goal, in nats a pixel and channel.
        goal_rmse: The goal as the error of a reconstruction, where `goal` is not given.
        geco_rate: How fast the multiplier moves.
        geco_speed_up: How much faster it moves once the goal is met.
        geco_decay: Of the running mean of the error.
        geco_least: Smallest weight of the KLs beside the error's.
        geco_most: Largest weight of the KLs beside the error's; EfficientMORL's is never above 1.
    """

    about: ClassVar[str] = "slot VAE"

    convention: ClassVar[Convention] = "beta"
    """Of GECO."""

    may_be_negative: ClassVar[tuple[str, ...]] = ("goal",)

    slots: int = 7  # GENESIS, SRI: 7 on Objects Room and CLEVR6, 9 on ShapeStacks; one is for the background
    slot_size: int = 64  # SRI, sec. 5: D
    # Likelihood
    likelihood: Literal["mixture", "gaussian"] = "mixture"  # GENESIS code
    likelihood_sd: float = 0.7  # GENESIS code
    normalised: bool = True  # GENESIS code; SRI-G and EMORL leave the constant out
    per_channel: bool = True  # all released codes; false: a mixture of colours, as the equations read
    # GECO
    geco: bool = True  # false: a plain ELBO
    goal: float | None = None  # nats a value (pixel and channel); none: the error at goal_rmse
    goal_rmse: float = 0.0564  # GENESIS code: 0.5655 nats a value, normalised at sd 0.7
    # A nat is worth more at a smaller likelihood_sd: at 0.1 instead of 0.7, divide the rate by 49.
    geco_rate: float = 1e-5  # GENESIS code, at 64 x 64 pixels; SRI: 1e-6
    geco_speed_up: float = 10.0  # GENESIS code
    geco_decay: float = 0.99  # GENESIS code
    geco_least: float = 1e-10  # GENESIS code: the smallest beta; 0.05 keeps codes from growing without end
    geco_most: float = (
        1e10  # GENESIS code; 1 keeps the loss an upper bound of the negative ELBO, and KLs alive
    )
    # Learning
    learning_rate: float = 1e-4  # GENESIS code, SRI A.4.1
    half_life: float = 1e9  # GENESIS code: a constant rate
    gradient_clip: float = 1e9  # GENESIS code: none

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_numbers()
        if not self.geco_least < self.geco_most:
            raise UsageError(
                f"{self.about}: geco_least must be below geco_most, got {self.geco_least} and {self.geco_most}."
            )
        if self.slots < 2:
            raise UsageError(
                f"{self.about}: slots must be at least 2, one of them for the background, got {self.slots}."
            )

    def build_likelihood(self) -> SlotLikelihood:
        """Return log p(x | slots)."""
        return SlotLikelihood(self.likelihood, self.likelihood_sd, self.normalised, self.per_channel)

    def build_density(self) -> SlotLikelihood:
        """Return the likelihood that answers are scored with: that of training, normalised in any case."""
        return SlotLikelihood(self.likelihood, self.likelihood_sd, True, self.per_channel)

    def build_geco(self, image_shape: ImageShape) -> Geco | None:
        """Return the controller for images ``(H, W, C)``, ``None`` for a plain ELBO.

        Raises:
            UsageError: The goal lies below the likelihood's floor.
        """
        if not self.geco:
            return None
        height, width, channels = image_shape
        likelihood = self.build_likelihood()
        goal = likelihood.error_at(self.goal_rmse, 1) if self.goal is None else self.goal
        return Geco(
            goal,
            height * width * channels,
            floor=likelihood.floor(1),
            convention=self.convention,
            speed_up=self.geco_speed_up,
            decay=self.geco_decay,
            **self._geco_pace(height * width),
        )

    def _geco_pace(self, pixels: int) -> dict[str, Any]:
        """Return rate and limits of the multiplier for images of so many pixels."""
        # Errors are sums over pixels: the rate per nat is smaller on larger images (GENESIS code).
        return {"rate": self.geco_rate * 64**2 / pixels, "limits": (self.geco_least, self.geco_most)}


@dataclass(frozen=True, kw_only=True)
class AutoregressiveConfig(SlotVAEConfig):
    """Settings of the slot VAEs whose prior makes one slot after the other: GENESIS and GENESIS-v2.

    Attributes:
        lstm_size: State of the prior's recurrent network.
        scene_variable: Whether one variable of the whole scene stands above the slots.
        scene_size: Its size.
        scene_layers: Layers of attention of the encoder that infers it.
        analytic_kl: KLs exact given the slots before, or estimated from their samples; under a scene variable those of
            slots (GENESIS: of masks) are estimated in any case.
        first_mean_gain: Factor of the first weights of the posteriors' means.
        first_sd: The posteriors' first standard deviation; none: about 1.
    """

    lstm_size: int = 256  # code
    scene_variable: bool = False  # true: "GEN", "GENv2 + scene variable" of SRI's Table 4
    scene_size: int = 128  # SRI A.4.1
    scene_layers: int = 3  # SRI A.4.1
    analytic_kl: bool = True  # ours: less noise; the code estimates each KL from its one sample
    # The first weights of the posteriors: PyTorch's own hide what slots say in noise, for thousands of steps.
    first_mean_gain: float = 1.0  # ours; more: slots tell more from the first step on
    first_sd: float | None = None  # ours; none: PyTorch's own, about 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first_sd is None and self.first_mean_gain != 1:
            raise UsageError(f"{self.about}: first_mean_gain goes with first_sd; set first_sd, such as 0.1.")

    @property
    def code_size(self) -> int:
        """Size of all that is said of a slot."""
        return self.slot_size

    def build_prior(self) -> SlotPrior:
        """Return p(z), or p(z | s) where there is a scene variable."""
        if self.scene_variable:
            return SlotPrior(self.slot_size, self.scene_size, "sri", self.lstm_size)
        return SlotPrior(self.slot_size, 0, "genesis", self.lstm_size)

    def build_scene_encoder(self) -> SceneEncoder | None:
        """Return q(s | z), if there is a scene variable."""
        if not self.scene_variable:
            return None
        return SceneEncoder(self.code_size, self.scene_size, self.scene_layers)


def require_multiple(about: str, image_shape: ImageShape, unit: int, least: int) -> None:
    """Refuse images whose sides are no multiples of ``unit``, or smaller than ``least``.

    Raises:
        UsageError: They are.
    """
    height, width, _ = image_shape
    if height % unit or width % unit or min(height, width) < least:
        raise UsageError(
            f"{about}: expected images whose sides are multiples of {unit} and at least {least} pixels, "
            f"got {height} x {width}; generate or convert the data at another size."
        )
