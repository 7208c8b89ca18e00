"""DCI: whether each code speaks of one factor (D), each factor is in one code (C), and how well (I)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from metrics.slots.probes import Kind, columns_of, fit, guess, reasons_of, score, split_images, why_not
from multiobj_data.arrays import Array, to_numpy
from multiobj_data.errors import UsageError
from multiobj_data.scenes import expect

Estimator = Literal["forest", "boosting", "lasso"]


@dataclass(frozen=True, eq=False)
class Disentanglement:
    """D, C and I, and what they are made of.

    Attributes:
        disentanglement: D, the mean of ``by_code`` weighted by each code's share of all importance; NaN if there is no
            importance at all, or a single factor.
        completeness: C, the mean of ``by_factor`` over factors of any importance; NaN likewise, or for a single code.
        informativeness: I, the mean of ``informed`` over factors.
        importance: float64 ``[D, F]``, each factor's column summing to 1, or all 0 where no code was of use.
        factors: Names of the F factors, components apart.
        by_code: float64 ``[D]``; NaN for a code of no importance, of which nothing can be said.
        by_factor: Factor -> completeness; NaN for a factor of which no code speaks.
        informed: Factor -> R^2 or accuracy on the test images.
        chance: Factor -> the same for the training mean, or the commonest class.
        kinds: Factor -> ``"regression"`` or ``"classification"``.
        skipped: Factor -> why it has no figure.
        estimator: Which estimator gave the importance.
        rows: Number of training and of test rows.
        images: Number of training and of test images.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: np.ndarray
    factors: tuple[str, ...]
    by_code: np.ndarray
    by_factor: Mapping[str, float]
    informed: Mapping[str, float]
    chance: Mapping[str, float]
    kinds: Mapping[str, Kind]
    skipped: Mapping[str, str]
    estimator: str
    rows: tuple[int, int]
    images: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as strict JSON values: NaN becomes ``None``."""
        from metrics.evaluation.result import strict

        return strict(dict(vars(self)))


def disentanglement(
    codes: Array,
    factors: Mapping[str, Array],
    images: Array | None = None,
    *,
    estimator: Estimator = "forest",
    kinds: Mapping[str, Kind] | None = None,
    test_share: float = 0.5,
    seed: int = 0,
) -> Disentanglement:
    """Return disentanglement, completeness and informativeness of codes (Eastwood and Williams, ICLR 2018).

    One estimator a factor is fitted, and R[c, f] is how much code c counts in it. With P the rows (columns) of R
    made to sum to 1, code c scores ``1 - H(P[c, :]) / ln F`` and factor f ``1 - H(P[:, f]) / ln D``. D weights codes by
    their share of R. Each column of R sums to 1 first, so that factors count alike whatever estimator speaks for them.

    Read the three together: a factor of which the codes say nothing has importance all the same, spread over all of
    them, and lowers D and C. `Disentanglement.informed` beside ``chance`` shows which factors these are.

    Differs from the usual code (disentanglement_lib): the split is by image, so that no object of a training image is
    tested; an empty row or column of R is left out instead of counting as a uniform one, and an empty R gives NaN
    instead of 0, since importance that is not there is shared neither well nor badly; quantities are scored by R^2, not
    by equality. A circular factor should be given as its cosine and sine.

    Args:
        codes: Floats ``[N, D]``, one row an object.
        factors: Name -> ``[N]`` or ``[N, M]``. Floats are quantities, whole numbers classes; NaN or a negative
            class says that a row's value is unknown, and the row is left out for this factor.
        images: Whole numbers ``[N]``, the image of each object; by default each row is an image of its own.
        estimator: ``"forest"``, ``"boosting"`` (as the field's code, slower), or ``"lasso"`` (linear, L1 penalty).
        kinds: Name -> ``"regression"`` or ``"classification"``, where the dtype does not tell.
        test_share: Share of images that are held out.
        seed: Of the split and of the estimators.

    Raises:
        ValueError: If shapes disagree, a code is not finite, there are too few images, or no factor can be learnt.
        UsageError: If a name is unknown.
    """
    x, where = _checked(codes, images)
    columns = columns_of({name: to_numpy(values) for name, values in factors.items()}, kinds)
    if estimator not in get_args(Estimator):
        raise UsageError(f"estimator: expected one of {', '.join(get_args(Estimator))}, got {estimator!r}.")
    if not columns or len(columns[0].values) != len(x):
        raise ValueError(f"factors: expected at least one, of {len(x)} values as the codes.")
    test = split_images(where, test_share, seed)
    skipped = {column.name: why for column in columns if (why := why_not(column, test)) is not None}
    learnt = [column for column in columns if column.name not in skipped]
    if not learnt:
        raise ValueError(f"factors: none can be learnt: {reasons_of(skipped)}.")
    importance, informed, chance = [], {}, {}
    for column in learnt:
        train, held_out = column.known & ~test, column.known & test
        fitted = fit(estimator, column, train, x, seed)  # its kind is the column's own, whatever came before
        importance.append(fitted.importance)
        informed[column.name] = score(column, held_out, fitted.predict(x[held_out]))
        chance[column.name] = score(column, held_out, guess(column, train, held_out))
    table = _shares(np.stack(importance, axis=1), axis=0)
    d, c, by_code, by_factor = disentanglement_of(table)
    names = tuple(column.name for column in learnt)
    return Disentanglement(
        disentanglement=d,
        completeness=c,
        informativeness=float(np.mean(list(informed.values()))),
        importance=table,
        factors=names,
        by_code=by_code,
        by_factor=dict(zip(names, by_factor.tolist(), strict=True)),
        informed=informed,
        chance=chance,
        kinds={column.name: column.kind for column in learnt},
        skipped=skipped,
        estimator=estimator,
        rows=(int((~test).sum()), int(test.sum())),
        images=(len(np.unique(where[~test])), len(np.unique(where[test]))),
    )


def disentanglement_of(importance: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Return D, C, each code's and each factor's score from a table of importance.

    Args:
        importance: Floats ``[D, F]``, 0 or more; code by factor.

    Returns:
        D and C, NaN where they cannot be said; scores ``[D]`` and ``[F]``, NaN for empty rows and columns. D is
        the mean weighted by rows, C by columns.
    """
    expect("importance", importance, (None, None), "f")
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        raise ValueError("importance: expected finite values of 0 or more.")
    by_code, by_factor = _peaked(importance), _peaked(importance.T)
    d = _weighted(by_code, importance.sum(1))
    c = _weighted(by_factor, importance.sum(0))
    return d, c, by_code, by_factor


def _peaked(table: np.ndarray) -> np.ndarray:
    """Return 1 minus each row's entropy over its largest possible one; NaN for empty rows or a single column."""
    if table.shape[1] < 2:
        return np.full(len(table), np.nan)
    p = _shares(table, axis=1)
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(1)
    return np.where(table.sum(1) > 0, 1 - entropy / np.log(table.shape[1]), np.nan)


def _weighted(scores: np.ndarray, weights: np.ndarray) -> float:
    said = ~np.isnan(scores)
    total = weights[said].sum()
    return float((scores[said] * weights[said]).sum() / total) if total > 0 else float("nan")


def _shares(table: np.ndarray, axis: int) -> np.ndarray:
    total = table.sum(axis, keepdims=True)
    return np.divide(table, total, out=np.zeros(table.shape), where=total > 0)


def _checked(codes: Array, images: Array | None) -> tuple[np.ndarray, np.ndarray]:
    expect("codes", codes, (None, None), "f")
    x = to_numpy(codes).astype(np.float64)
    if not x.size:
        raise ValueError(f"codes: expected at least one row and one code, got {list(x.shape)}.")
    if not np.isfinite(x).all():
        raise ValueError("codes: expected finite values, got NaN or infinity.")
    if images is None:
        return x, np.arange(len(x))
    expect("images", images, (len(x),), "iu")
    return x, to_numpy(images)
