"""The two types that cross packages: `Scenes`, what is true, and `Prediction`, what a model answers.

Letters: B images, K objects (padded), S slots, H W C pixels. Boxes are ``x0 y0 x1 y1`` in pixels, half-open,
origin top left. A number that does not exist is NaN (or -1 for whole numbers), never 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from multiobj_data.errors import DataError


class PredictionError(DataError, ValueError):
    """A model's answer is no valid `Prediction`; the message names the field."""


def expect(name: str, array: Any, shape: Sequence[int | None], kinds: str = "") -> None:
    """Raise ``ValueError`` unless ``array`` has this shape and one of these dtype kinds.

    Args:
        name: How the message calls the array.
        array: NumPy array or torch tensor.
        shape: Expected sizes; ``None`` stands for any.
        kinds: Allowed letters of ``numpy.dtype.kind`` (``"iu"``: whole numbers); empty allows all.
    """
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise ValueError(f"{name}: expected an array, got {type(array).__name__}.")
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(f"{name}: expected a plain array, got a masked one, whose mask would be overlooked.")
    got = tuple(array.shape)
    if len(got) != len(shape) or any(want not in (None, have) for want, have in zip(shape, got, strict=True)):
        raise ValueError(f"{name}: expected shape {_shape_text(shape)}, got {_shape_text(got)}.")
    if kinds and dtype_kind(array) not in kinds:
        words = " or ".join(_KIND_WORDS[k] for k in kinds)
        raise ValueError(f"{name}: expected {words}, got {array.dtype}.")


_KIND_WORDS = {"b": "bool", "i": "signed integers", "u": "unsigned integers", "f": "floats"}


def _shape_text(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"


def dtype_kind(array: Any) -> str:
    """Return ``numpy.dtype.kind`` of a NumPy array or a torch tensor; ``"V"`` for what torch can only store."""
    if isinstance(array.dtype, np.dtype):
        return array.dtype.kind
    name = str(array.dtype).removeprefix("torch.")
    if name.startswith(("float8", "float4", "q")):
        return "V"
    return {"b": "b", "u": "u", "i": "i", "c": "c"}.get(name[0] if name != "bfloat16" else "f", "f")


@dataclass(frozen=True)
class Scenes:
    """The truth about B images with at most K objects each; NumPy arrays, validated once.

    Attributes:
        image: uint8 ``[B, H, W, C]``.
        count: int64 ``[B]``, the number of objects.
        segments: uint8 ``[B, H, W]``, the label map of *visible* pixels: labels
            ``0 .. background_segments - 1`` are background, then one label an object.
        boxes: float32 ``[B, K, 4]``, tight around each object's own pixels, visible or not; NaN where absent.
        background_segments: How many labels are background (1; 4 for Objects Room).
        factors: Name -> ``[B, K, ...]``, one value an object (class, x, y, scale, depth order, ...).
        scene_factors: Name -> ``[B, ...]``, one value a scene (attempts, light, stability, ...).
        amodal: bool ``[B, K, H, W]``, each object's own pixels, hidden or not; ``None`` if not kept.
    """

    image: np.ndarray
    count: np.ndarray
    segments: np.ndarray
    boxes: np.ndarray
    background_segments: int = 1
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)
    scene_factors: Mapping[str, np.ndarray] = field(default_factory=dict)
    amodal: np.ndarray | None = None

    def __post_init__(self) -> None:
        expect("image", self.image, (None, None, None, None), "u")
        b, h, w, _ = self.image.shape
        for name in ("image", "segments"):
            if (dtype := getattr(self, name).dtype) != np.uint8:
                raise ValueError(f"{name}: expected uint8, got {dtype}.")
        if self.background_segments < 1:
            raise ValueError(f"background_segments: expected 1 or more, got {self.background_segments}.")
        expect("count", self.count, (b,), "iu")
        expect("segments", self.segments, (b, h, w), "u")
        expect("boxes", self.boxes, (b, None, 4), "f")
        k = self.boxes.shape[1]
        if b and (self.count.min() < 0 or self.count.max() > k):
            raise ValueError(f"count: expected values in 0..{k}, got {self.count.min()}..{self.count.max()}.")
        labels = self.background_segments + k
        if b and self.segments.max() >= labels:
            raise ValueError(
                f"segments: expected labels 0..{labels - 1} ({self.background_segments} of background, "
                f"{k} objects), got {self.segments.max()}."
            )
        for name, values in self.factors.items():
            if values.shape[:2] != (b, k):
                raise ValueError(
                    f"factors/{name}: expected [{b}, {k}, ...], got {_shape_text(values.shape)}."
                )
        for name, values in self.scene_factors.items():
            if values.shape[:1] != (b,):
                raise ValueError(
                    f"scene_factors/{name}: expected [{b}, ...], got {_shape_text(values.shape)}."
                )
        if self.amodal is not None:
            expect("amodal", self.amodal, (b, k, h, w), "b")

    def __len__(self) -> int:
        return len(self.image)

    @property
    def present(self) -> np.ndarray:
        """Which of the K places hold an object: bool ``[B, K]``."""
        return np.arange(self.boxes.shape[1]) < self.count[:, None]

    def __getitem__(self, index: slice | np.ndarray) -> Scenes:
        """Return the chosen scenes, still batched."""
        return replace(
            self,
            image=self.image[index],
            count=self.count[index],
            segments=self.segments[index],
            boxes=self.boxes[index],
            factors={name: values[index] for name, values in self.factors.items()},
            scene_factors={name: values[index] for name, values in self.scene_factors.items()},
            amodal=None if self.amodal is None else self.amodal[index],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Scenes]) -> Scenes:
        """Join batches of the same kind (equal K, H, W, C, factors)."""
        first = parts[0]
        if len(parts) == 1:
            return first
        return replace(
            first,
            image=np.concatenate([p.image for p in parts]),
            count=np.concatenate([p.count for p in parts]),
            segments=np.concatenate([p.segments for p in parts]),
            boxes=np.concatenate([p.boxes for p in parts]),
            factors={name: np.concatenate([p.factors[name] for p in parts]) for name in first.factors},
            scene_factors={
                name: np.concatenate([p.scene_factors[name] for p in parts]) for name in first.scene_factors
            },
            amodal=None if first.amodal is None else np.concatenate([known(p.amodal) for p in parts]),
        )


@dataclass(frozen=True)
class Prediction:
    """A model's answer for B images with S slots; ``None`` means that the model has no such notion.

    Fields are NumPy arrays or torch tensors. Models see images only, so nothing here can hold the truth.

    Attributes:
        presence: float ``[B, S]`` in [0, 1], how sure the model is that a slot holds an object.
        count: whole numbers ``[B]``, the inferred number of objects.
        masks: float ``[B, S', H, W]`` in [0, 1], summing to 1 over S'.
        background_slots: Which of the S' masks are background; empty if the model does not tell.
        boxes: float ``[B, S, 4]``, ``x0 <= x1`` and ``y0 <= y1``; slots with ``presence < 0.5`` are not
            scored and may hold NaN.
        reconstruction: float ``[B, H, W, C]`` in [0, 1].
        slots: float ``[B, S', D]``, the slots' codes: one row a mask or, without masks, one a presence. Finite, but
            for background slots without a code of their own, which hold NaN.
        log_likelihood: float ``[B]`` in nats.
        likelihood_kind: ``"exact"``, ``"elbo"`` or ``"iwae-5"`` and the like; required with `log_likelihood`. What
            else decides whether it can be compared may follow: ``"elbo; space=density; normalised=true; sd=0.3"``
            (`metrics.LikelihoodKind` has the names).

    Raises:
        PredictionError: A field has the wrong type, shape or values; it is a ``ValueError`` too.
    """

    presence: Any = None
    count: Any = None
    masks: Any = None
    background_slots: tuple[int, ...] = ()
    boxes: Any = None
    reconstruction: Any = None
    log_likelihood: Any = None
    likelihood_kind: str | None = None
    slots: Any = None

    def __post_init__(self) -> None:
        try:
            self._check_shapes()
            self._check_ranges()
            self._check_masks()
            self._check_codes()
            self._check_likelihood()
        except ValueError as error:
            raise PredictionError(str(error)) from None

    def _check_shapes(self) -> None:
        given = self.arrays()
        if not given:
            raise ValueError("Prediction: expected at least one field, got none.")
        for name, array in given.items():
            expect(name, array, *_form(name))
        b = len(next(iter(given.values())))
        s = next((given[name].shape[1] for name in ("presence", "boxes") if name in given), None)
        for name, array in given.items():
            expect(name, array, *_form(name, b, s))

    def _check_ranges(self) -> None:
        for name in ("presence", "masks", "reconstruction"):
            array = getattr(self, name)
            if array is None or not _size(array):
                continue
            low, high = array.min().item(), array.max().item()
            if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
                raise ValueError(f"{name}: expected values in [0, 1], got {low:.4g}..{high:.4g}.")
        if self.count is not None and _size(self.count) and self.count.min() < 0:
            raise ValueError(f"count: expected 0 or more, got {int(self.count.min())}.")
        if self.boxes is not None and _size(self.boxes):
            if bool((self.boxes[..., :2] > self.boxes[..., 2:]).any()):  # NaN: no box
                raise ValueError("boxes: expected x0 <= x1 and y0 <= y1, got a box with its corners swapped.")
            if bool((abs(self.boxes) == float("inf")).any()):
                raise ValueError(
                    "boxes: expected finite corners, or NaN where there is no box, got infinity."
                )

    def _check_masks(self) -> None:
        if self.masks is None:
            if len(self.background_slots):
                raise ValueError(
                    f"background_slots: expected none without masks, got {self.background_slots}."
                )
            return
        off = abs(self.masks.sum(1) - 1).max().item() if _size(self.masks) else 0.0
        if not off <= _TOLERANCE:
            raise ValueError(f"masks: expected to sum to 1 over slots, got sums off by up to {off:.3g}.")
        slots = self.masks.shape[1]
        if any(not 0 <= slot < slots for slot in self.background_slots):
            raise ValueError(
                f"background_slots: expected indices below {slots}, got {self.background_slots}."
            )

    def _check_codes(self) -> None:
        if self.slots is None:
            return
        rows = self.slots.shape[1]
        for name in ("masks", "presence", "boxes"):  # the first that is given says how many slots there are
            if (array := getattr(self, name)) is not None:
                if rows != array.shape[1]:
                    raise ValueError(
                        f"slots: expected one row for each of {array.shape[1]} {name}, got {rows}."
                    )
                break
        objects = [slot for slot in range(rows) if slot not in self.background_slots]
        codes = self.slots[:, objects]
        if not bool((abs(codes) < float("inf")).all()):  # False for NaN too
            raise ValueError(
                "slots: expected finite codes, got NaN or infinity in a slot that is not background."
            )

    def _check_likelihood(self) -> None:
        kind = self.likelihood_kind
        if (kind is None) != (self.log_likelihood is None):
            raise ValueError("log_likelihood and likelihood_kind: expected both or neither.")
        if kind is not None and not re.fullmatch(_LIKELIHOOD_KIND, str(kind)):
            raise ValueError(
                "likelihood_kind: expected one of 'exact', 'elbo', 'iwae-<k>', with facts such as '; sd=0.3' after "
                f"it or none, got {kind!r}."
            )
        values = self.log_likelihood
        if values is not None and not bool((abs(values) < float("inf")).all()):  # False for NaN too
            raise ValueError("log_likelihood: expected finite nats, got NaN or infinity.")

    def arrays(self) -> dict[str, Any]:
        """Return the fields that hold arrays, by name."""
        return {
            f.name: value
            for f in fields(self)
            if f.name not in ("background_slots", "likelihood_kind")
            and (value := getattr(self, f.name)) is not None
        }

    def __len__(self) -> int:
        return len(next(iter(self.arrays().values())))


_LIKELIHOOD_KIND = r"(exact|elbo|iwae-[0-9]+)(; [a-z_]+=[^;=]+)*"
_TOLERANCE = 1e-3  # of values in [0, 1] and of masks' sums: what half precision leaves


def _form(name: str, b: int | None = None, s: int | None = None) -> tuple[tuple[int | None, ...], str]:
    """Return the shape and the dtype kinds of a field of `Prediction`; ``None`` stands for any size."""
    return {
        "presence": ((b, s), "f"),
        "count": ((b,), "iu"),
        "masks": ((b, None, None, None), "f"),
        "boxes": ((b, s, 4), "f"),
        "reconstruction": ((b, None, None, None), "f"),
        "log_likelihood": ((b,), "f"),
        "slots": ((b, None, None), "f"),
    }[name]


def _size(array: Any) -> int:
    return int(np.prod(array.shape))


def known(array: np.ndarray | None) -> np.ndarray:
    """Return the amodal masks of a batch in which they are required."""
    if array is None:
        raise ValueError("amodal: expected in every part or in none.")
    return array
