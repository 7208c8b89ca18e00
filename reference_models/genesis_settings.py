"""The settings of GENESIS, and the parts that each setting chooses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from multiobj_data.errors import UsageError
from reference_models.base import ImageShape
from reference_models.slot_vae_settings import AutoregressiveConfig, require_multiple

_LAYERS = 5  # code: gated convolutions on the way in, and out


@dataclass(frozen=True, kw_only=True)
class GenesisConfig(AutoregressiveConfig):
    """Settings of `Genesis`. "Code" is the authors' released code.

    Attributes:
        two_stage: A latent for the mask and one for the colours, or one for both (GENESIS-S).
        component_size: Size of the latent of the colours.
        width: Channels of the first convolutions.
        strides: Of the gated convolutions on the way in.
        features: What is read from the image.
        attention_size: State of the posterior's recurrent network.
        component_hidden: Hidden layers of the encoder of components and of their prior.
    """

    about: ClassVar[str] = "genesis"

    slots: int = 5  # code: Multi-dSprites with 1 to 4 objects; 7: GQN rooms, 9: ShapeStacks
    two_stage: bool = True  # code; false: GENESIS-S, one latent a slot for both mask and colours
    slot_size: int = 64  # code: of a mask's latent or, in one stage, of a slot's
    component_size: int = 16  # code: of the latent that says the colours
    # Networks
    width: int = (
        32  # code: channels of the first convolutions, doubled further in; ours: 16 is practical on a CPU
    )
    strides: tuple[int, ...] = (1, 2, 1, 2, 1)  # code: 32 and 64 pixels; 2,2,2,1,1: 128; 2,2,2,2,1: 256
    features: int = 256  # code: what is read from the image
    attention_size: int = 128  # code: of the posterior's LSTM
    component_hidden: int = 256  # code: of the encoder of components and of their prior

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.strides) != _LAYERS or min(self.strides) < 1:
            raise UsageError(
                f"{self.about}: strides: expected {_LAYERS} whole numbers of 1 or more, got {self.strides}."
            )

    def grid(self, image_shape: ImageShape) -> tuple[int, int]:
        """Return the ``(h, w)`` that the gated convolutions reduce an image to.

        Raises:
            UsageError: An image of this size could not be written again.
        """
        height, width, _ = image_shape
        factor = math.prod(self.strides)
        require_multiple(self.about, image_shape, factor, least=factor)
        return height // factor, width // factor

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """Channels of the gated convolutions that read the image."""
        return (*(self.width,) * 2, *(2 * self.width,) * 3)

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Channels of the gated convolutions that write masks."""
        return (2 * self.width, *(self.width,) * 4)

    @property
    def code_size(self) -> int:
        """Size of all that is said of a slot."""
        return self.slot_size + self.component_size * self.two_stage
