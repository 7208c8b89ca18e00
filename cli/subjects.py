"""What `mobj evaluate` scores: a checkpoint, a model of someone else's, or a file of predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Subject:
    """What predicts, its name, the data it was trained on, the start of the default folder's name, and its device."""

    predictor: Any
    name: str
    reference: dict[str, Any] | None
    beside: Path
    device: str = "cpu"


@dataclass(frozen=True)
class Guarded:
    """A model, or a function of images, whose errors become one sentence that names it."""

    model: Any
    who: str

    def predict(self, images: Any) -> Any:
        """Return the model's answer; raise `MobjError` for whatever it raises."""
        from multiobj_data.plugins import foreign_code

        with foreign_code(self.who):
            return getattr(self.model, "predict", self.model)(images)

    @property
    def can_sample(self) -> bool:
        """Whether the model draws images: ``sample(n, generator)``."""
        return callable(getattr(self.model, "sample", None))

    def sample(self, n: int, generator: Any) -> Any:
        """Return ``n`` images that the model draws, in evaluation mode; raise `MobjError` for whatever it raises."""
        from multiobj_data.plugins import foreign_code

        with foreign_code(self.who):
            if callable(getattr(self.model, "eval", None)):
                self.model.eval()
            return self.model.sample(n, generator)

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """``(H, W, C)`` of the only images that the model takes, if it says so."""
        return getattr(self.model, "image_shape", None)


def find_subject(checkpoint: str | None, options: dict[str, Any]) -> Subject:
    """Load what the arguments of `mobj evaluate` name.

    Raises:
        UsageError: They name nothing, several things, or what cannot be evaluated.
        DataError: A file is missing or damaged.
        MobjError: The model's own code raises.
    """
    from multiobj_data.errors import UsageError

    model, predictions, baseline = options["model"], options["predictions"], options.get("baseline")
    kinds = [kind for kind in (checkpoint or model, predictions, baseline) if kind]
    if len(kinds) != 1:
        raise UsageError(
            "give one of: a CHECKPOINT of `mobj train` (with --model MODULE:CLASS if the model is your own), "
            "--model MODULE:LOADER, or --predictions FILE."
            + (" Or --baseline NAME." if "baseline" in options else "")
        )
    if (weights := options.get("weights")) and (checkpoint or not model):
        raise UsageError(
            f"--checkpoint {weights} is what the loader of --model MODULE:LOADER is given; a checkpoint of `mobj "
            "train` is named without it: mobj evaluate CHECKPOINT."
        )
    if not checkpoint and not options["data"]:
        raise UsageError("which data? Give --data DIR; only checkpoints of `mobj train` know theirs.")
    if predictions:
        from multiobj_data.predictions import PredictionFile

        path = Path(predictions)
        return Subject(PredictionFile(path), path.name, None, path.with_name(path.stem + "-evaluation"))
    if baseline:
        from metrics.evaluation.floors import baseline_predictor

        return Subject(
            baseline_predictor(baseline), f"baseline {baseline}", None, Path(f"{baseline}-evaluation")
        )
    from multiobj_data.devices import resolve_device

    device = resolve_device(options["device"])
    if checkpoint:
        return _trained_model(Path(checkpoint), device, trusted=(model,) if model else ())
    return _own_model(model, options["weights"], str(device))


def _own_model(name: str, weights: str | None, device: str) -> Subject:
    from multiobj_data.errors import DataError, UsageError
    from multiobj_data.plugins import foreign_code, resolve
    from reference_models.base import SceneModel

    load = resolve("models", name)
    if isinstance(load, type) and issubclass(load, SceneModel):
        raise UsageError(
            f"--model {name} is trained by `mobj train`; give its checkpoint: mobj evaluate CHECKPOINT."
        )
    if not callable(load):
        raise UsageError(f"--model {name}: expected loader(checkpoint, device), got {type(load).__name__}.")
    if weights is not None and not Path(weights).exists():
        raise DataError(f"--checkpoint {weights}: expected a file or folder, there is none; check the path.")
    who = f"model {name}"
    with foreign_code(who):
        model = load(weights, device)
    if not callable(getattr(model, "predict", model)):
        raise UsageError(
            f"--model {name}: expected the loader to return an object with predict(images), "
            f"got {type(model).__name__}."
        )
    plain = f"{name}-evaluation".replace(":", "-").replace(".", "-")
    beside = Path(plain) if weights is None else Path(weights).parent / f"{Path(weights).stem}-{plain}"
    return Subject(Guarded(model, who), name, None, beside, device)


def _trained_model(path: Path, device: Any, trusted: tuple[str, ...]) -> Subject:
    from multiobj_data.errors import DataError
    from reference_models.checkpoints import load_checkpoint

    loaded = load_checkpoint(path, device, trusted)
    if not all(bool(weights.isfinite().all()) for weights in loaded.model.parameters()):
        raise DataError(f"{path}: expected finite weights, some are NaN or infinite; train the model again.")
    name = f"{loaded.model_id}, seed {loaded.seed}, {loaded.step:,} steps"
    guarded = Guarded(loaded.model, f"model {loaded.model_id}")
    return Subject(guarded, name, loaded.data, path.parent / "evaluation", str(device))
