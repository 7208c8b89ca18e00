"""What every model must do, as code that its author can run: ``check_model(model, image_shape)``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from multiobj_data.errors import UsageError, VerificationError
from multiobj_data.scenes import Prediction
from reference_models.base import ImageShape, SceneModel
from reference_models.checkpoints import Checkpoint, load_checkpoint, save_checkpoint

TOLERANCE = 1e-3
"""Largest difference between answers that should be equal; matrix products differ a little by batch size."""


def check_model(
    model: SceneModel | Callable[[], SceneModel], image_shape: ImageShape, model_id: str | None = None
) -> None:
    """Check a model against the contract of `SceneModel` and `Prediction`.

    Args:
        model: A model for images of ``image_shape``, or what builds one.
        image_shape: ``(H, W, C)``.
        model_id: By which a checkpoint finds the class again; ``module:Class`` of the model if absent.

    Raises:
        VerificationError: The first thing that does not hold.
    """
    if not isinstance(model, SceneModel):
        model = model()
    kind = type(model)
    model_id = model_id or f"{kind.__module__}:{kind.__qualname__}"
    images = np.random.default_rng(0).integers(0, 256, (5, *image_shape), dtype=np.uint8)
    _check_prediction(model, images)
    _check_batches(model, images)
    _check_door(model, images)
    _check_gradients(model, images)
    _check_samples(model)
    _check_checkpoint(model, images, model_id)


def _check_prediction(model: SceneModel, images: np.ndarray) -> None:
    prediction = model.predict(images)  # Prediction itself checks that its fields agree
    b, h, w, _ = images.shape
    for name, array in prediction.arrays().items():
        _require(isinstance(array, np.ndarray), f"{name} must be NumPy for NumPy images, got {type(array)}")
        _require(len(array) == b, f"{name} must answer for {b} images, got {len(array)}")
    if prediction.masks is not None:
        _require(
            prediction.masks.shape[2:] == (h, w), f"masks must be {h} x {w}, got {prediction.masks.shape}"
        )
    if prediction.reconstruction is not None:
        shape = prediction.reconstruction.shape
        _require(shape == images.shape, f"reconstruction must be {images.shape}, got {shape}")
    if prediction.presence is not None and prediction.count is not None:
        sure = (prediction.presence >= 0.5).sum(1)
        _require(
            bool((sure == prediction.count).all()), "count must be the number of slots with presence >= 0.5"
        )
    _require_equal(prediction, model.predict(images), "two calls of predict")


def _check_batches(model: SceneModel, images: np.ndarray) -> None:
    whole = model.predict(images)
    for part in (slice(0, 2), slice(2, None)):
        expected = {name: array[part] for name, array in whole.arrays().items()}
        _require_equal(replace(whole, **expected), model.predict(images[part]), "a batch and a part of it")
    _require(len(model.predict(images[:0])) == 0, "predict must answer for an empty batch")
    was_training = model.training
    model.train()
    _require_equal(whole, model.predict(images), "predict in training mode and in evaluation mode")
    _require(model.training, "predict must leave the model in the mode that it was in")
    model.train(was_training)


def _check_door(model: SceneModel, images: np.ndarray) -> None:
    for wrong in (images[:, :-1], images.astype(np.float32)):
        try:
            model.predict(wrong)
        except UsageError:
            continue
        raise VerificationError(
            f"predict must refuse images {wrong.shape} of {wrong.dtype} with a UsageError."
        )


def _check_gradients(model: SceneModel, images: np.ndarray) -> None:
    model.zero_grad()
    generator = torch.Generator(model.device).manual_seed(0)
    loss = model.loss(torch.as_tensor(images).to(model.device), generator)
    for name, term in loss.terms.items():
        _require(term.shape == images.shape[:1], f"loss term {name} must be [B], got {tuple(term.shape)}")
        _require(bool(term.isfinite().all()), f"loss term {name} must be finite")
    loss.total.backward()
    without = [name for name, parameter in model.named_parameters() if not _has_gradient(parameter)]
    _require(not without, f"every parameter must get a gradient, not so {', '.join(without)}")
    model.zero_grad()


def _has_gradient(parameter: torch.nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.isfinite().all() and parameter.grad.any())


def _check_samples(model: SceneModel) -> None:
    first, second = (model.sample(3, torch.Generator(model.device).manual_seed(1)) for _ in range(2))
    _require(tuple(first.shape) == (3, *model.image_shape), f"sample must be [3, H, W, C], got {first.shape}")
    _require(bool(((first >= 0) & (first <= 1)).all()), "sample must lie in [0, 1]")
    _require(torch.equal(first, second), "sample must depend on its generator alone")


def _check_checkpoint(model: SceneModel, images: np.ndarray, model_id: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        save_checkpoint(path, Checkpoint(model_id, model, data={}, step=0, seed=0))
        loaded = load_checkpoint(path, model.device).model
    _require_equal(model.predict(images), loaded.predict(images), "predict before saving and after loading")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise VerificationError(f"check_model: {what}.")


def _require_equal(one: Prediction, other: Prediction, what: str) -> None:
    for name, left, right in _pairs(one, other):
        close = left.shape == right.shape and np.allclose(
            left,
            right,
            rtol=TOLERANCE,
            atol=TOLERANCE,
            equal_nan=True,  # NaN: a slot without box or code
        )
        _require(close, f"{name} must be the same for {what}")


def _pairs(one: Prediction, other: Prediction) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    left, right = one.arrays(), other.arrays()
    _require(
        left.keys() == right.keys(), f"predict must always fill the same fields, got {[*left]} and {[*right]}"
    )
    for name in left:
        yield name, left[name], right[name]
