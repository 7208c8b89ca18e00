"""The settings of SuPAIR, and the parts that they choose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from multiobj_data.errors import UsageError
from reference_models.base import ImageShape, ModelConfig
from reference_models.parts.objects import count_priors
from reference_models.parts.objects.backgrounds import BlackBackground
from reference_models.parts.objects.guide import Guide
from reference_models.parts.objects.occlusion import Orders, any_objects, first_objects
from reference_models.parts.objects.poses import PosePrior
from reference_models.parts.spn import SPNConfig, SumProductNetwork

LARGEST_SUM_OVER_SETS = 5
"""Objects up to which all sets of them are summed over: 31 patches an image and 32 backgrounds."""

LARGEST_SUM_OVER_ORDERS = 4
"""Objects up to which all orders are summed over: 32 patches an image instead of 4, and growing as K 2^(K-1)."""


@dataclass(frozen=True, kw_only=True)
class SuPAIRConfig(ModelConfig):
    """Settings of `SuPAIR`. "SuPAIR code" is what the paper's authors released, in our units.

    Attributes:
        max_objects: K, the most objects that can be found.
        count_prior: p(N): geometric, equal odds each step, categorical, or learnt.
        count_ratio: p(n + 1) / p(n) of geometric; the odds of one more object of per-step.
        count_weights: Of categorical: p(0), p(1), ..., not normalised.
        count: Which objects are there: inferred by Bayes' rule, or guided by a learnt q(N | x).
        count_rule: The answer: the most probable number, or each of the guide's decisions rounded.
        side_range: Least and largest width of an object over the canvas' shorter side.
        aspect_range: Least and largest height over width.
        position_range: Part of the canvas' sides up to which left and top edges may lie.
        side_sd: Largest standard deviation of the posterior's sides, over the canvas' side.
        position_sd: Largest standard deviation of the posterior's places, over the canvas' side.
        pose_of: Whether the poses of objects that are not there cost anything.
        mask: How far a rectangle covers a pixel: its share, or scattered weights.
        order: Whose rectangle lies in front: the first one's, or all orders summed over.
        occlusion_rate: What a hidden object costs in nats.
        patch_size: Side in pixels of the patch that an object's network models.
        shared_objects: One network for all objects, or one for each step of the guide.
        object_replicas: Random partitions of an object's network.
        object_depth: Times that its regions are split.
        object_leaves: Gaussians of each leaf region.
        object_sums: Sums of each inner region.
        object_min_variance: Least variance of its pixels.
        object_max_variance: Largest variance of its pixels.
        object_structure: Whether regions are random sets of pixels, or rectangles.
        background: A sum-product network, or black with noise (the ablation, which wants pose_of=present).
        background_sd: Of the black background's pixels.
        background_replicas: As of objects.
        background_depth: As of objects.
        background_leaves: As of objects.
        background_sums: As of objects.
        background_min_variance: As of objects.
        background_max_variance: As of objects.
        background_structure: As of objects.
        structure_seed: Which random regions the networks have.
        lstm_size: State of the guide's recurrent network.
        hidden_size: Hidden layer between that state and a pose.
        filters: Output channels of the guide's convolutions; empty: it reads pixels.
        sees: What the guide sees in each step: the image, or also what its objects leave of it.
        margin: Part of its sides by which an object covers more of that at first.
        margin_steps: Over how many steps the margin falls to 0.
        feedback: Whether a step of the guide knows the last pose.
        boxes: The rectangle, or tight around what differs from the background.
        mask_level: By which grey it differs.
        guide_learning_rate: Step size of the guide.
    """

    about: ClassVar[str] = "supair"
    may_be_zero: ClassVar[tuple[str, ...]] = ("margin", "structure_seed", "warm_up")

    max_objects: int = 3  # paper, sec. 4.3
    # How many there are
    count_prior: Literal["geometric", "per-step", "categorical", "learned"] = "geometric"  # paper, sec. 3.1
    count_ratio: float = 0.4966  # SuPAIR code: log p(n) falls by 0.7 an object
    count_weights: tuple[float, ...] = ()  # of categorical: p(0), p(1), ..., not normalised
    # Inferred: which of the K are there by Bayes' rule, summed over (ours); guided: the first N, with a guide's
    # q(N | x) (paper, eq. 9). Once that rules a second object out, nothing teaches the guide any more where it is: on
    # a grid this takes epochs, or for ever.
    count: Literal["inferred", "guided"] = "inferred"
    # The answer: the most probable number, or the paper's, each of the guide's decisions rounded by itself.
    count_rule: Literal["mode", "rounded"] = "mode"
    # Where they are; sides and places are fractions of the canvas, so that they fit any image size
    side_range: tuple[float, float] = (0.168, 0.504)  # SuPAIR code: 8.4 to 25.2 of 50 pixels
    aspect_range: tuple[float, float] = (0.75, 1.25)  # SuPAIR code: height over width
    position_range: float = 0.9  # SuPAIR code: top left corners at 0 to 45 of 50 pixels
    side_sd: float = 0.168  # SuPAIR code: the posterior's largest sd, 8.4 of 50 pixels
    position_sd: float = 0.006  # SuPAIR code: 0.3 of 50 pixels
    # Whether objects beyond the N-th have a posterior pose that counts (eq. 9), or none as in AIR.
    pose_of: Literal["all", "present"] = "all"
    # What hides what
    mask: Literal["soft", "scatter"] = "soft"  # ours: shares of pixels; SuPAIR code: scattered weights
    order: Literal["fixed", "inferred"] = "fixed"  # paper; inferred: all orders summed over, up to 4 objects
    occlusion_rate: float = 120.0  # SuPAIR code: Gamma(1, 120) over the share of an object that is hidden
    # What they look like
    patch_size: int = 28  # SuPAIR code: the side A of an object's SPN
    shared_objects: bool = True  # paper, sec. 3.1; false: a network for each step of the guide
    object_replicas: int = 6  # SuPAIR code, as all sizes and bounds of the networks
    object_depth: int = 2
    object_leaves: int = 20
    object_sums: int = 20
    object_min_variance: float = 0.12
    object_max_variance: float = 0.35
    object_structure: Literal["random", "structured"] = "random"  # paper, sec. 4
    background: Literal["spn", "black"] = "spn"  # black: the paper's ablation
    background_sd: float = 0.35  # SuPAIR code: of the ablation's pixels
    background_replicas: int = 3
    background_depth: int = 1
    background_leaves: int = 6
    background_sums: int = 3
    background_min_variance: float = 0.002
    background_max_variance: float = 0.12
    background_structure: Literal["random", "structured"] = "random"
    structure_seed: int = 0  # of the random region graphs; SuPAIR code: another in each run
    # The guide
    lstm_size: int = 256  # paper, sec. 3.4
    hidden_size: int = 50  # paper, sec. 3.4
    filters: tuple[int, ...] = (8, 16, 32)  # ours: of convolutions before the LSTM; paper: none
    # Remaining: beside the whole image, in each step what no object covers yet (ours), so that to find the second is to
    # find the first again; image: that alone (paper), where all objects may stay on one digit for a thousand steps.
    sees: Literal["image", "remaining"] = "remaining"
    # Ours: the part of its sides by which an object covers more at first, so that its edges do not remain; falls to 0
    # in so many steps, since a digit that touches another has its own edges there.
    margin: float = 0.25
    margin_steps: int = 1000
    feedback: bool = True  # ours: each step knows the last pose, as in AIR; SuPAIR code: nothing
    # The answer
    boxes: Literal["window", "tight"] = "window"  # tight: around what differs from the background
    mask_level: float = 0.1  # ours: by which grey it differs
    # Learning
    learning_rate: float = 4e-3  # ours, for 64 images a step; SuPAIR code: 1e-3, constant, for 256
    # Of the guide, as SuPAIR code: it reads thousands of numbers, and at 4e-3 the first steps, when the background is
    # not known yet, may drive its gates so far that it answers alike for all images for ever (grid, seed 2).
    guide_learning_rate: float = 1e-3
    half_life: float = 800.0
    gradient_clip: float = 1e9  # SuPAIR code: none

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_numbers()
        if min(self.filters, default=1) < 1:
            raise UsageError(f"supair: filters: expected sizes of 1 or more, got {self.filters}.")
        self._check_ranges()
        self._check_count_prior()
        if self.count_rule == "rounded" and self.count != "guided":
            raise UsageError(
                "supair: count_rule rounded rounds the guide's decisions, and count inferred has none; "
                "set count=guided, or count_rule=mode."
            )
        if self.count == "inferred" and self.max_objects > LARGEST_SUM_OVER_SETS:
            raise UsageError(
                f"supair: count inferred sums over all sets of up to {LARGEST_SUM_OVER_SETS} objects, "
                f"max_objects is {self.max_objects}; set count=guided."
            )
        if self.order == "inferred" and self.max_objects > LARGEST_SUM_OVER_ORDERS:
            raise UsageError(
                f"supair: order inferred sums over the orders of up to {LARGEST_SUM_OVER_ORDERS} objects, "
                f"max_objects is {self.max_objects}; use order fixed."
            )

    def _check_ranges(self) -> None:
        for name in ("side_range", "aspect_range"):
            low, high = getattr(self, name)
            if not 0 < low < high < math.inf:
                raise UsageError(f"supair: {name}: expected 0 < low < high, got {low}, {high}.")
        for name in ("object", "background"):
            low, high = getattr(self, f"{name}_min_variance"), getattr(self, f"{name}_max_variance")
            if low >= high:
                raise UsageError(
                    f"supair: {name}_min_variance must be below {name}_max_variance, got {low} and {high}."
                )

    def _check_count_prior(self) -> None:
        if self.count_prior == "categorical":
            count_priors.check_weights(self.about, self.max_objects, self.count_weights)

    def build_decision_prior(self) -> Tensor:
        """Return the decisions' prior logits ``[K]``; a parameter where they are learned."""
        if self.count_prior == "learned":
            return torch.nn.Parameter(torch.zeros(self.max_objects))
        if self.count_prior == "categorical":
            return count_priors.categorical(self.max_objects, self.count_weights)
        kind = count_priors.per_step if self.count_prior == "per-step" else count_priors.geometric
        return kind(self.max_objects, self.count_ratio)

    def build_pose_prior(self, image_shape: ImageShape) -> PosePrior:
        """Return where objects may be in ``(H, W, C)`` images."""
        height, width, _ = image_shape
        return PosePrior(height, width, self.side_range, self.aspect_range, self.position_range)

    def build_guide(self, image_shape: ImageShape, poses: PosePrior) -> Guide:
        """Return what finds objects at ``poses`` in ``(H, W, C)`` images."""
        shorter = min(image_shape[:2])
        return Guide(
            image_shape,
            poses,
            [sd * shorter for sd in (self.side_sd, self.side_sd, self.position_sd, self.position_sd)],
            filters=self.filters,
            lstm_size=self.lstm_size,
            hidden_size=self.hidden_size,
            remaining=self.sees == "remaining",
            feedback=self.feedback,
        )

    def build_orders(self) -> Orders:
        """Return which objects may be there, and the orders in which they may lie."""
        sets = any_objects if self.count == "inferred" else first_objects
        return Orders(sets(self.max_objects), every=self.order == "inferred")

    def build_objects(self, channels: int) -> torch.nn.ModuleList:
        """Return the models of what objects look like: one, or one for each step of the guide."""
        size = self.patch_size
        config = self._spn("object", (size, size), channels)
        return torch.nn.ModuleList(
            SumProductNetwork(config) for _ in range(1 if self.shared_objects else self.max_objects)
        )

    def build_background(self, image_shape: ImageShape) -> SumProductNetwork | BlackBackground:
        """Return the model of the background of ``(H, W, C)`` images."""
        height, width, channels = image_shape
        if self.background == "black":
            return BlackBackground(height * width, channels, self.background_sd)
        return SumProductNetwork(self._spn("background", (height, width), channels))

    def _spn(self, name: str, canvas: tuple[int, int], channels: int) -> SPNConfig:
        sizes = ("replicas", "depth", "leaves", "sums", "min_variance", "max_variance", "structure")
        return SPNConfig(
            **{size: getattr(self, f"{name}_{size}") for size in sizes},
            pixels=canvas[0] * canvas[1],
            channels=channels,
            canvas=canvas,
            seed=self.structure_seed + (name == "background"),
        )
