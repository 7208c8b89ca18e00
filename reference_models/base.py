"""What every model is: named losses, a prediction, samples, and one dataclass of settings.

Letters: B images, K object slots, H W C pixels. Images are uint8 ``[B, H, W, C]`` at the door and scaled
to [0, 1] inside; how they are laid out in between is each model's own business.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from types import UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from multiobj_data.configuration import build
from multiobj_data.errors import UsageError, did_you_mean, quoted
from multiobj_data.scenes import Prediction
from reference_models.denormals import flushed_denormals

ImageShape = tuple[int, int, int]
"""``(H, W, C)`` of the images that a model is built for."""

PREDICT_CHUNK = 250
"""Images that `SceneModel.predict` works on at once; bounds its memory, not its answer."""

M = TypeVar("M", bound="SceneModel")


@dataclass(frozen=True)
class Loss:
    """What training minimises, as named terms with one value an image.

    Keeping the images apart lets means, logs and per-image reports come from the same numbers.

    Attributes:
        terms: Name -> float ``[B]``.
        weights: Name -> factor in the total, a number or a 0-d tensor; 1 where not named.
    """

    terms: Mapping[str, Tensor]
    weights: Mapping[str, float | Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("Loss: expected at least one term, got none.")
        for name in self.weights:
            if name not in self.terms:
                raise ValueError(f"Loss: a weight for {name!r}, which is no term of {', '.join(self.terms)}.")
        for name, weight in self.weights.items():
            if isinstance(weight, Tensor) and weight.dim():
                raise ValueError(
                    f"Loss: expected one weight for {name!r}, got a tensor {tuple(weight.shape)}; weigh images "
                    "in the term itself."
                )
        shapes = {name: tuple(term.shape) for name, term in self.terms.items()}
        if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
            raise ValueError(f"Loss: expected every term to be [B], got {shapes}.")

    def __add__(self, other: Loss) -> Loss:
        """Return the loss with the terms of both, which may not share a name."""
        shared = sorted(set(self.terms) & set(other.terms))
        if shared:
            raise ValueError(f"Loss: both sides have a term {', '.join(map(repr, shared))}; rename one.")
        return Loss({**self.terms, **other.terms}, {**self.weights, **other.weights})

    @property
    def per_image(self) -> Tensor:
        """The weighted sum of the terms, ``[B]``."""
        return torch.stack([self.weights.get(name, 1.0) * term for name, term in self.terms.items()]).sum(0)

    @property
    def total(self) -> Tensor:
        """The mean of `per_image`: the scalar to minimise."""
        return self.per_image.mean()

    def means(self) -> Tensor:
        """Return the unweighted mean of each term, in the order of `terms`: ``[terms]``, detached."""
        return torch.stack([term.detach() for term in self.terms.values()]).mean(1)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The settings that every model has; each model's own dataclass adds its own and gives the defaults.

    Attributes:
        learning_rate: Step size of Adam at the first step.
        half_life: Steps after which the step size is half of what it was; it falls smoothly.
        gradient_clip: Largest norm of the gradient over a group of parameters; longer ones are shortened.
        clip_each: Clip the gradient of each tensor by itself instead.
        warm_up: Steps over which the step size rises linearly to what it would be without; 0: none.
    """

    about: ClassVar[str] = "model"
    """How error messages call the model."""

    may_be_zero: ClassVar[tuple[str, ...]] = ("warm_up",)
    """Numbers that need not be above 0."""

    may_be_negative: ClassVar[tuple[str, ...]] = ()
    """Numbers of any sign."""

    learning_rate: float
    half_life: float
    gradient_clip: float
    clip_each: bool = False
    warm_up: int = 0

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for each in fields(self):
            _check_choice(f"{self.about}: {each.name}", getattr(self, each.name), hints[each.name])
        self.check_numbers(tuple(each.name for each in fields(ModelConfig)))

    def check_numbers(self, names: tuple[str, ...] | None = None) -> None:
        """Raise unless all numbers, or those named, are above 0, or what `may_be_zero` and `may_be_negative` allow.

        Raises:
            UsageError: One is not.
        """
        for name in names or tuple(each.name for each in fields(self)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            least, kind = 0.0, "a positive number"
            if name in self.may_be_negative:
                least, kind = -math.inf, "a number"
            elif name in self.may_be_zero:
                kind = "0 or more"
            if not (math.isfinite(value) and (value > least or (value == 0 and name in self.may_be_zero))):
                raise UsageError(f"{self.about}: {name} must be {kind}, got {value}.")


def _check_choice(what: str, value: object, hint: Any) -> None:
    """Raise unless a value whose type names its choices is one of them."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    choices = [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]
    others = [part for part in parts if get_origin(part) is not Literal]
    if choices and value not in choices and not (value is None and type(None) in others):
        expected = ", ".join(map(str, choices))
        raise UsageError(
            f"{what}: expected one of {expected}, got {quoted(value)}.{did_you_mean(str(value), choices)}"
        )


class SceneModel(nn.Module, ABC):
    """A generative model of images of several objects that can be trained, asked and sampled.

    A model implements `predict_batch`, `sample` and either `loss` or, better, the pair `draw` and `objective`:
    with its noise apart from its loss, several seeds can be trained as one (`reference_models.together`). It
    names its settings in `config_type`.

    Args:
        config: The settings.
        image_shape: ``(H, W, C)`` of its images.
    """

    config_type: ClassVar[type[ModelConfig]]

    training_step: int = 0
    """The step that the training loop is at, from 1: what is annealed is a function of it."""

    def __init__(self, config: ModelConfig, image_shape: ImageShape) -> None:
        super().__init__()
        self.config: Any = config
        self.image_shape = image_shape

    @classmethod
    def from_config(cls: type[M], config: Mapping[str, Any], image_shape: ImageShape) -> M:
        """Build the model from its settings by name.

        Args:
            config: Setting -> value; texts are read as the setting's type, what is absent has its default.
            image_shape: ``(H, W, C)``.

        Raises:
            UsageError: An unknown setting, or a value that the model cannot take.
        """
        height, width, channels = (int(size) for size in image_shape)
        return cls(build(cls.config_type, config, cls.__name__), (height, width, channels))

    def loss(self, images: Tensor, generator: torch.Generator) -> Loss:
        """Return the training loss of uint8 ``images [B, H, W, C]``, with noise from ``generator``."""
        return self.objective(self.as_float(images), self.draw(len(images), generator))

    def draw(self, n: int, generator: torch.Generator) -> Any:
        """Draw the noise of one training step on ``n`` images.

        Returns:
            A tensor on the model's device, or a tuple or dict of such; ``None`` for what is not drawn. The rows
            of each belong to the images, image by image, as many to each; a 0-d tensor is every image's.
        """
        raise NotImplementedError(f"{type(self).__name__}: implement loss, or draw and objective.")

    def objective(self, images: Tensor, noise: Any) -> Loss:
        """Return the training loss as a function of its noise alone.

        Where several seeds are trained as one, it runs under `torch.func.vmap`: it may not ask for a value
        (``.item()``, ``if tensor``), and changes buffers in place or not at all. It may be compiled: then what
        it reads of `training_step` belongs into a method under ``torch.compiler.disable``.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: As `draw` returns it.
        """
        raise NotImplementedError(f"{type(self).__name__}: implement loss, or draw and objective.")

    def after_step(self, means: Mapping[str, Tensor]) -> None:
        """Change what is learnt, but not by gradient: called after each step of the optimiser, without gradients.

        Such state lies in buffers, so that a resumed run has it; it may not ask for a value, as `objective` may not.

        Args:
            means: Term of the loss -> its unweighted mean over the batch, a 0-d tensor on the model's device.
        """

    @property
    def has_after_step(self) -> bool:
        """Whether anything is learnt without gradients, in `after_step`."""
        return type(self).after_step is not SceneModel.after_step

    @property
    def has_objective(self) -> bool:
        """Whether the training loss is `objective`, with all that is random drawn before by `draw`."""
        kind = type(self)
        return kind.loss is SceneModel.loss and kind.objective is not SceneModel.objective

    @abstractmethod
    def predict_batch(self, images: Tensor) -> Prediction:
        """Answer for uint8 ``images [B, H, W, C]`` on the model's device; called without gradients.

        Each image's answer may depend on that image alone.
        """

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` images from the model: float ``[n, H, W, C]`` in [0, 1]."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's parameter groups; one with ``config.learning_rate`` unless overridden."""
        return [{"params": list(self.parameters()), "lr": self.config.learning_rate}]

    def predict(self, images: np.ndarray | Tensor) -> Prediction:
        """Answer for any number of images, deterministically and in evaluation mode.

        Args:
            images: uint8 ``[B, H, W, C]``, NumPy or torch on any device.

        Returns:
            The prediction; NumPy arrays for NumPy images, else tensors on the model's device.

        Raises:
            UsageError: The images are not uint8 or not of the model's size.
        """
        self._check_images(images)
        batch = torch.as_tensor(images).to(self.device)
        some = batch if len(batch) else batch.new_zeros((1, *self.image_shape))  # torch has its limits at 0
        # Some answers need gradients on the way, which inference mode would not allow.
        with torch.inference_mode(False), torch.no_grad(), evaluating(self), flushed_denormals():
            some = some.clone() if some.is_inference() else some
            parts = [self.predict_batch(part) for part in some.split(PREDICT_CHUNK)]
        return _join(parts, len(batch), as_numpy=isinstance(images, np.ndarray))

    def _check_images(self, images: np.ndarray | Tensor) -> None:
        name = type(self).__name__
        if str(images.dtype).removeprefix("torch.") != "uint8":
            raise UsageError(f"{name}: expected uint8 images with values 0..255, got {images.dtype}.")
        if tuple(images.shape[1:]) != self.image_shape or images.ndim != 4:
            raise UsageError(
                f"{name}: expected images {_sizes(('B', *self.image_shape))}, got {_sizes(images.shape)}; "
                "use data of the size that the model was built for."
            )

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def as_float(self, images: Tensor) -> Tensor:
        """Scale uint8 ``[B, H, W, C]`` to the model's floats in [0, 1], channels first: ``[B, C, H, W]``."""
        return images.movedim(-1, 1).to(next(self.parameters()).dtype).div(255)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for a while: schedules are at their end, normalisation uses running averages."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def noise_of(images: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return standard normal noise ``[B, *shape]`` that each image alone decides.

    It is keyed by the image's bytes: a sampled answer is the same on every call and in every batch, and yet
    different images get independent noise.

    Args:
        images: uint8 ``[B, H, W, C]``.
        shape: Shape of one image's noise.
        like: Gives type and device.
    """
    noise = np.empty((len(images), *shape))
    for row, image in zip(noise, images.cpu().numpy(), strict=True):
        np.random.default_rng(zlib.crc32(image.tobytes())).standard_normal(out=row)
    return torch.as_tensor(noise, dtype=like.dtype, device=like.device)


def _join(parts: list[Prediction], n: int, as_numpy: bool) -> Prediction:
    arrays = {name: torch.cat([part.arrays()[name] for part in parts])[:n] for name in parts[0].arrays()}
    first = parts[0]
    return Prediction(
        **{name: array.cpu().numpy() if as_numpy else array for name, array in arrays.items()},
        background_slots=first.background_slots,
        likelihood_kind=first.likelihood_kind,
    )


def _sizes(shape: Any) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
