"""Variance of every estimator's gradient at the same trained parameters (AIR report, table 1).

Two draws differ in z, which is reparameterised, and in N, which estimators treat in their different ways. By the law of
total variance the trace is the sum of both shares. An estimator without bias has the enumerated gradient as its
mean given z, so that the share of N is the trace of its difference from that one at the same z.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.reproduction.tables import Scale
from multiobj_data.files import to_json, write_atomically

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from multiobj_data.loading import SceneSource
    from reference_models.air import AIR

_BATCH = 0  # seed of the draws; the batch itself is the first scenes of the test split
_WARM = "baseline"  # prefix of what a baseline learns


def measure_variance(
    model_id: str,
    trained: AIR,
    train_source: SceneSource,
    images: Tensor,
    scale: Scale,
    groups: Mapping[str, Sequence[str]],
    folder: Path,
    identity: Mapping[str, Any],
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Measure each estimator, and keep each result as soon as it is there.

    Args:
        model_id: The model's name.
        trained: The model; its parameters are those of every estimator.
        train_source: What baselines learn from.
        images: The one batch, uint8 ``[B, H, W, C]`` on the model's device.
        scale: Gives draws, and the steps that baselines learn.
        groups: Group -> beginnings of the parameters' names.
        folder: Where the results are kept.
        identity: What must be equal for a result to be taken again.
        tell: Is told the estimator that is measured.

    Returns:
        ``draws``, ``batch``, ``baseline_steps``, and the figures by estimator and group.
    """
    from reference_models.air_settings import ESTIMATORS

    result: dict[str, Any] = {
        "draws": scale.draws,
        "batch": len(images),
        "baseline_steps": scale.baseline_steps,
    }
    prefixes = {name: list(those) for name, those in groups.items()}
    key = {**identity, **result, "groups": prefixes, "shares": ["count"]}
    found: dict[str, Any] = {}
    for estimator in ESTIMATORS:
        path = folder / f"variance-{estimator}.json"
        kept = read_kept(path, key)
        if kept is None:
            tell(estimator)
            model = with_estimator(model_id, trained, estimator)
            kept = _of_estimator(model, train_source, images, scale, groups)
            write_atomically(path, to_json({"key": key, "found": kept}).encode())
        found[estimator] = kept
    return result | {"estimators": found}


def read_kept(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a file found under the same key; ``None`` if it is another's, or there is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        same = document["key"] == json.loads(json.dumps(key))
        return document["found"] if same else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _of_estimator(
    model: AIR,
    train_source: SceneSource,
    images: Tensor,
    scale: Scale,
    groups: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    from metrics.estimators import gradient_variance, parameters_by_prefix

    if model.baseline is not None:
        learn_baseline(model, train_source, len(images), scale.baseline_steps)
    model.eval()  # no annealing, and NVIL's moments stay
    chosen = parameters_by_prefix(model, groups)
    whole = gradient_variance(
        lambda generator: model.loss(images, generator).total, chosen, scale.draws, _BATCH
    )
    figures = {name: asdict(found) for name, found in whole.items()}
    if model.estimator.particles == 1:  # several have another mean
        of_count = gradient_variance(
            lambda generator: beyond_enumeration(model, images, generator), chosen, scale.draws, _BATCH
        )
        for name, found in of_count.items():
            figures[name] |= {"count_trace": found.trace, "count_trace_stderr": found.trace_stderr}
    return figures


def beyond_enumeration(model: AIR, images: Tensor, generator: Generator) -> Tensor:
    """Return a loss whose gradient is the estimate less the exact expectation over N, given one sample of z.

    Args:
        model: With any estimator of one particle.
        images: uint8 ``[B, H, W, C]``.
        generator: Draws z and N.
    """
    x = model.as_float(images)
    noise = model.draw(len(images), generator)
    return model.objective(x, noise).total - model.negative_elbo(x, noise.z).total


def with_estimator(model_id: str, trained: AIR, estimator: str) -> AIR:
    """Return a model with the same parameters and another estimator; a baseline is new if there was none."""
    from reference_models.checkpoints import build_model

    config = {**asdict(trained.config), "estimator": estimator}
    model: Any = build_model(model_id, config, trained.image_shape, seed=0)
    own = model.state_dict()
    model.load_state_dict({**own, **{name: w for name, w in trained.state_dict().items() if name in own}})
    found: AIR = model.to(trained.device)
    return found


def learn_baseline(model: AIR, source: SceneSource, batch_size: int, steps: int) -> None:
    """Let the baseline learn the costs of a model that stays as it is, moments of NVIL included."""
    import torch

    from reference_models.batches import Batches, noise_generator

    assert model.baseline is not None
    batches = Batches(source, batch_size, seed=0, device=model.device)
    optimiser = torch.optim.Adam(model.baseline.parameters(), lr=model.config.baseline_learning_rate)
    model.train()
    model.training_step = 10**9  # where what is annealed has arrived
    with _only_the_baseline(model):
        for step in range(1, steps + 1):
            optimiser.zero_grad()
            model.loss(batches[step], noise_generator(0, step, model.device)).total.backward()
            torch.nn.utils.clip_grad_norm_(model.baseline.parameters(), model.config.gradient_clip)
            optimiser.step()


@contextmanager
def _only_the_baseline(model: AIR) -> Iterator[None]:
    fixed = [p for name, p in model.named_parameters() if not name.startswith(f"{_WARM}.")]
    for parameter in fixed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in fixed:
            parameter.requires_grad_(True)
