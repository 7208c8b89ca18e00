"""Property prediction: what can be read off a slot's code about the object that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics.slots.disentanglement import Disentanglement, Estimator, disentanglement
from metrics.slots.objects import SlotObjects, collect_slots
from metrics.slots.probes import (
    Column,
    Kind,
    columns_of,
    fit,
    guess,
    reasons_of,
    score,
    split_images,
    why_not,
)
from multiobj_data.errors import DataError, UsageError, did_you_mean
from multiobj_data.scenes import Scenes

SCHEMA_VERSION = 1

PROBES = ("linear", "mlp")
"""Ridge or logistic regression, and a network of one hidden layer of 128 units."""

NO_PROPERTIES = ("source_index",)
"""Factors that tell where an object was taken from; no property of what it is."""

PLACES = ("x", "y", "z", "pixel_coords", "depth_order", "visible_fraction", "visibility")
"""Factors that say where an object is, not what it is."""

PERIODS = {"orientation": 2 * np.pi}
"""Factors that are angles, and what a full turn is; they are predicted as cosine and sine."""

FOUND = 0.5
"""An object is found by a slot whose IoU with it is at least this."""

TOLERANCE = 0.1
"""A predicted quantity is right within this share of the factor's range (of its period, if it has one)."""


@dataclass(frozen=True, eq=False)
class SlotProbes:
    """How well properties of objects are predicted from the codes of slots, on held-out images.

    Attributes:
        model: How the model is called.
        scores: Factor -> ``"linear"``, ``"mlp"``, ``"chance"`` -> R^2 or accuracy. Chance knows no code: it answers
            with the training mean or the commonest class.
        ceiling: Factor -> probe -> what it scores when it is given the true factors themselves, on the same objects:
            less than 1 is the probe's or the number of objects' fault, not the codes'.
        kinds: Factor -> ``"regression"`` (R^2) or ``"classification"`` (accuracy).
        rows: Factor -> number of training and of test objects.
        skipped: Factor -> why it has no figure.
        where_and_what: Probe, or ``"chance"`` -> ``where``, the share of held-out objects found (IoU >= 0.5);
            ``what``, the share of a found object's properties that are right (a class exactly, a quantity within a
            tenth of its range); ``joint``, the mean over all objects of found times share right: what one can know
            of a scene that way. NaN where nothing is found, or no factor is a property.
        objects: Counts: ``images``, ``test_images`` (those with objects), ``objects`` (large enough), ``too_small``,
            ``unmatched`` (no slot of IoU >= ``min_iou``; not probed, but missed in ``where_and_what``), ``probed``.
        protocol: Settings of this run.
        dci: Disentanglement of the same codes, if asked for.
    """

    model: str
    scores: Mapping[str, Mapping[str, float]]
    ceiling: Mapping[str, Mapping[str, float]]
    kinds: Mapping[str, Kind]
    rows: Mapping[str, tuple[int, int]]
    skipped: Mapping[str, str]
    where_and_what: Mapping[str, Mapping[str, float]]
    objects: Mapping[str, int]
    protocol: Mapping[str, Any]
    dci: Disentanglement | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the figures as strict JSON values: NaN becomes ``None``."""
        from metrics.evaluation.result import strict

        fields = dict(vars(self)) | {"dci": None if self.dci is None else self.dci.to_json()}
        return strict({"schema_version": SCHEMA_VERSION, **fields})


def probe_slots(
    predict: Any,
    batches: Iterable[tuple[np.ndarray, Scenes]],
    *,
    factors: Sequence[str] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    periods: Mapping[str, float] = PERIODS,
    probes: Sequence[str] = PROBES,
    dci: Estimator | None = None,
    min_pixels: int = 10,
    min_iou: float = 0.1,
    test_share: float = 0.5,
    most_objects: int = 20_000,
    seed: int = 0,
    model: str = "",
    on_progress: Callable[[int], None] | None = None,
) -> SlotProbes:
    """Match slots to objects, learn to predict each factor from the slot's code, and score it on held-out images.

    Args:
        predict: As `metrics.evaluate` takes it; its answers have ``slots``, and ``masks`` or ``boxes`` and
            ``presence``.
        batches: Pairs of scene indices and `Scenes` with factors.
        factors: Which; by default all but `NO_PROPERTIES`.
        kinds: Factor -> ``"regression"`` or ``"classification"``, where the dtype does not tell (floats are
            quantities, whole numbers classes).
        periods: Circular factor -> its period; names that the scenes do not have are ignored.
        probes: Which of `PROBES`.
        dci: Also return `disentanglement` by this estimator.
        min_pixels: Objects of fewer visible pixels are left out.
        min_iou: An object whose slot overlaps less is not probed: nobody can say which code is its.
        test_share: Share of images held out.
        most_objects: Stop collecting after so many, which bounds memory and time.
        seed: Of the split and the estimators.
        model: How messages call the model.
        on_progress: Called after each batch with the number of its scenes.

    Raises:
        UsageError: If an argument names nothing or is out of range.
        DataError: If answers lack what is needed, or there is too little to learn from.
    """
    _check_arguments(factors, probes, min_pixels, min_iou, test_share, most_objects)
    who = f"model {model!r}" if model else "the model"
    found = collect_slots(
        predict,
        batches,
        factors=(*(factors or ()), *(kinds or ())),
        min_pixels=min_pixels,
        most_objects=most_objects,
        who=who,
        on_progress=on_progress,
    )
    chosen = _choose(found.factors, factors)
    said = {name: kind for name, kind in (kinds or {}).items() if name in chosen}
    named = {
        name: period
        for name, period in periods.items()
        if name in chosen and said.get(name) != "classification"  # classes have no period
    }
    columns = columns_of(chosen, said, named)
    probed = found.iou >= min_iou
    try:
        test = split_images(found.image, test_share, seed)
        codes_say = _dci(found, columns, probed, dci, test_share, seed) if dci else None
    except ValueError as error:
        raise DataError(f"{who}: {error}") from error
    reasons = {column.name: _reason(column, probed, test) for column in columns}
    skipped = {name: reason for name, reason in reasons.items() if reason is not None}
    learnt = [column for column in columns if column.name not in skipped]
    if not learnt:
        raise DataError(f"{who}: no factor can be probed: {reasons_of(skipped)}.")
    run = _Run(found, learnt, probed, test, probes, seed, min_iou)
    return SlotProbes(
        model=model,
        scores=run.scores,
        ceiling=run.ceiling,
        kinds={column.name: column.kind for column in learnt},
        rows=run.rows,
        skipped=skipped,
        where_and_what=run.where_and_what(),
        objects={
            "images": found.images,
            "test_images": len(np.unique(found.image[test])),
            "objects": len(found.iou),
            "too_small": found.too_small,
            "unmatched": int((~probed).sum()),
            "probed": int(probed.sum()),
        },
        protocol={
            "matched_by": found.matched_by,
            "min_pixels": min_pixels,
            "min_iou": min_iou,
            "test_share": test_share,
            "split_by": "image",
            "most_objects": most_objects,
            "seed": seed,
            "code_size": found.codes.shape[1],
            "found_from_iou": FOUND,
            "right_within": TOLERANCE,
            "periods": named,
        },
        dci=codes_say,
    )


class _Run:
    """Fits every probe of every factor; keeps what held-out objects are predicted to be."""

    def __init__(
        self,
        found: SlotObjects,
        learnt: list[Column],
        probed: np.ndarray,
        test: np.ndarray,
        probes: Sequence[str],
        seed: int,
        min_iou: float,
    ) -> None:
        self.found, self.test, self.learnt, self.min_iou = found, test, learnt, min_iou
        self.scores: dict[str, dict[str, float]] = {}
        self.ceiling: dict[str, dict[str, float]] = {}
        self.rows: dict[str, tuple[int, int]] = {}
        self.right: dict[str, dict[str, np.ndarray]] = {name: {} for name in (*probes, "chance")}
        codes, truth = found.codes.astype(np.float64), _as_codes(learnt, probed & ~test)
        for column in self.learnt:
            train, held_out = column.known & probed & ~test, column.known & probed & test
            answers = {
                name: fit(name, column, train, codes, seed).predict(codes[held_out]) for name in probes
            }
            answers["chance"] = guess(column, train, held_out)
            best = {name: fit(name, column, train, truth, seed).predict(truth[held_out]) for name in probes}
            self.scores[column.name] = {name: score(column, held_out, a) for name, a in answers.items()}
            self.ceiling[column.name] = {name: score(column, held_out, a) for name, a in best.items()}
            self.rows[column.name] = (int(train.sum()), int(held_out.sum()))
            for name, answer in answers.items():
                self.right[name][column.name] = _right(column, train, held_out, answer)

    def where_and_what(self) -> dict[str, dict[str, float]]:
        """Return what is known of held-out objects, all of them, by probe."""
        seen = (self.found.iou >= max(FOUND, self.min_iou))[self.test]  # [T]
        return {name: _joint(seen, self._what(right)) for name, right in self.right.items()}

    def _what(self, right: dict[str, np.ndarray]) -> np.ndarray | None:
        """Return the share of each held-out object's properties that are right ``[T]``; NaN if none is known.

        A factor of several components is right if all of them are.
        """
        factors: dict[str, np.ndarray] = {}  # name -> [T]
        for column in self.learnt:
            if column.factor in PLACES:
                continue
            values = right[column.name][self.test]
            factors[column.factor] = np.minimum(factors.get(column.factor, values), values)
        if not factors:
            return None
        table = np.stack(list(factors.values()))  # [F, T], NaN where unknown
        known = ~np.isnan(table)
        total = np.where(known, table, 0).sum(0)
        return np.divide(total, known.sum(0), out=np.full(len(total), np.nan), where=known.any(0))


def _joint(seen: np.ndarray, what: np.ndarray | None) -> dict[str, float]:
    """Return ``where``, ``what`` and ``joint`` from which objects are found and the share that is right."""
    if what is None:
        return {"where": float(seen.mean()), "what": float("nan"), "joint": float("nan")}
    value = np.where(seen, what, 0.0)  # of an object that is not found, nothing is right
    return {"where": float(seen.mean()), "what": _mean(what[seen]), "joint": _mean(value)}


def _mean(values: np.ndarray) -> float:
    """Return the mean of what is known, NaN if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _right(column: Column, train: np.ndarray, held_out: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Return 1 or 0 for predicted rows, NaN for all others: ``[N]``."""
    right = np.full(len(column.values), np.nan)
    if column.kind == "classification":
        right[held_out] = column.values[held_out] == answer
        return right
    off = np.abs(column.values[held_out] - column.decode(answer))
    if column.period is not None:
        off = off % column.period
        off = np.minimum(off, column.period - off)
    width = column.period or np.ptp(column.values[train])
    right[held_out] = off <= TOLERANCE * width
    return right


def _reason(column: Column, probed: np.ndarray, test: np.ndarray) -> str | None:
    rows = np.flatnonzero(probed)
    part = Column(column.name, column.kind, column.values[rows], column.period, column.factor)
    return why_not(part, test[rows])


def _as_codes(columns: list[Column], train: np.ndarray) -> np.ndarray:
    """Return the true factors as codes ``[N, D]``: quantities, and classes one-hot; the mean where unknown."""
    blocks = []
    for column in columns:
        if column.kind == "classification":
            classes = np.unique(column.values[column.known & train])
            blocks.append((column.values[:, None] == classes).astype(np.float64))
            continue
        block = column.targets.copy()
        usual = block[column.known & train].mean(0) if (column.known & train).any() else 0.0
        blocks.append(np.where(column.known[:, None], block, usual))
    return np.concatenate(blocks, axis=1)


def _dci(
    found: SlotObjects,
    columns: list[Column],
    probed: np.ndarray,
    estimator: Estimator,
    test_share: float,
    seed: int,
) -> Disentanglement:
    values: dict[str, np.ndarray] = {}
    for column in columns:
        if column.period is None:
            values[column.name] = column.values[probed]
            continue
        cosine, sine = column.targets[probed].T
        values |= {f"cos {column.name}": cosine, f"sin {column.name}": sine}
    return disentanglement(
        found.codes[probed],
        values,
        found.image[probed],
        estimator=estimator,
        test_share=test_share,
        seed=seed,
    )


def _choose(given: Mapping[str, np.ndarray], names: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Return the chosen factors ``[N]`` or ``[N, M]``, components side by side."""
    chosen = [name for name in given if name not in NO_PROPERTIES] if names is None else names
    flat = {name: given[name] for name in chosen}
    return {
        name: values.reshape(len(values), -1) if values.ndim > 2 else values for name, values in flat.items()
    }


def _check_arguments(
    factors: Sequence[str] | None,
    probes: Sequence[str],
    min_pixels: int,
    min_iou: float,
    test_share: float,
    most_objects: int,
) -> None:
    for name in probes:
        if name not in PROBES:
            raise UsageError(f"no probe named {name!r}.{did_you_mean(name, PROBES)}")
    if factors is not None and not len(factors):
        raise UsageError("factors: expected at least one name, got none; leave them out for all.")
    if not probes:
        raise UsageError("probes: expected at least one, got none.")
    if not 0 < min_iou <= 1:
        raise UsageError(f"min_iou: expected a value above 0 and up to 1, got {min_iou}.")
    if not 0 < test_share < 1:
        raise UsageError(f"test_share: expected a value above 0 and below 1, got {test_share}.")
    if min_pixels < 1 or most_objects < 1:
        raise UsageError(f"min_pixels, most_objects: expected 1 or more, got {min_pixels}, {most_objects}.")
