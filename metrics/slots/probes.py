"""What probes share: factors as columns, splits by image, estimators with fixed seeds, and their scores.

scikit-learn is imported late.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from multiobj_data.errors import UsageError, did_you_mean
from multiobj_data.scenes import dtype_kind

Kind = Literal["regression", "classification"]

MOST_CLASSES = 50
"""A factor of whole numbers with more values is no set of classes; it is skipped unless it is said to be one."""

FEWEST_ROWS = 10
"""A factor known for fewer training or test rows than this is skipped."""


@dataclass(frozen=True, eq=False)
class Column:
    """One factor, ready to be predicted.

    Attributes:
        name: The factor's name; ``colour[1]`` for a component.
        kind: Whether it is a quantity or a class.
        values: float64 or int64 ``[N]``; NaN or negative where unknown.
        period: The factor is an angle or the like: ``values + period`` means the same; ``None`` if it is not.
        factor: The factor that this is a component of.
    """

    name: str
    kind: Kind
    values: np.ndarray
    period: float | None = None
    factor: str = ""

    @property
    def known(self) -> np.ndarray:
        """Which rows have a value: bool ``[N]``."""
        return np.isfinite(self.values) if self.kind == "regression" else self.values >= 0

    @property
    def targets(self) -> np.ndarray:
        """What an estimator learns: classes ``[N]``, quantities ``[N, 1]``, or ``[N, 2]`` cosine and sine."""
        if self.kind == "classification":
            return self.values
        if self.period is None:
            return self.values[:, None]
        angle = self.values * (2 * np.pi / self.period)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def decode(self, targets: np.ndarray) -> np.ndarray:
        """Return factor values ``[N]`` from predicted targets."""
        if self.kind == "classification":
            return targets
        if self.period is None:
            return targets[:, 0]
        return np.arctan2(targets[:, 1], targets[:, 0]) * (self.period / (2 * np.pi)) % self.period


def columns_of(
    factors: Mapping[str, np.ndarray],
    kinds: Mapping[str, Kind] | None = None,
    periods: Mapping[str, float] | None = None,
) -> list[Column]:
    """Return one column a factor and component.

    Args:
        factors: Name -> ``[N]`` or ``[N, M]``. Floats are quantities (NaN: unknown), whole numbers and bools are
            classes; a negative whole number is unknown, whatever its kind.
        kinds: Name -> kind, where the dtype does not tell.
        periods: Name -> period of a circular quantity.

    Raises:
        ValueError: If factors differ in length, or one has another rank or dtype.
        UsageError: If ``kinds`` or ``periods`` name no factor, or say something impossible.
    """
    kinds, periods = dict(kinds or {}), dict(periods or {})
    for name in (*kinds, *periods):
        if name not in factors:
            raise UsageError(f"no factor named {name!r}.{did_you_mean(name, factors)}")
    columns: list[Column] = []
    for name, given in factors.items():
        values = np.asarray(given)
        if values.ndim not in (1, 2) or dtype_kind(values) not in "biuf":
            raise ValueError(
                f"factor {name}: expected numbers [N] or [N, M], got {values.dtype} of shape {list(values.shape)}."
            )
        kind = kinds.get(name, "regression" if values.dtype.kind == "f" else "classification")
        columns += _components(name, values, kind, periods.get(name))
    lengths = {len(column.values) for column in columns}
    if len(lengths) > 1:
        raise ValueError(f"factors: expected one length, got {sorted(lengths)}.")
    return columns


def _components(name: str, values: np.ndarray, kind: Kind, period: float | None) -> Iterator[Column]:
    if kind not in ("regression", "classification"):
        raise UsageError(f"factor {name}: expected kind 'regression' or 'classification', got {kind!r}.")
    if period is not None and (kind == "classification" or not period > 0):
        raise UsageError(
            f"factor {name}: expected a period above 0 of a quantity, got {period!r} of a {kind}."
        )
    if kind == "regression":
        missing = (values < 0) if values.dtype.kind == "i" else np.zeros(values.shape, bool)
        values = np.where(missing, np.nan, values.astype(np.float64))
    else:
        whole = np.where(np.isfinite(values), values, -1)
        if (whole != np.rint(whole)).any():
            raise ValueError(f"factor {name}: expected whole numbers for classes, got fractions.")
        values = whole.astype(np.int64)
    if values.ndim == 1:
        yield Column(name, kind, values, period, name)
        return
    for i, component in enumerate(values.T):
        yield Column(f"{name}[{i}]", kind, component, period, name)


# -- which rows train, which test


def split_images(images: np.ndarray, test_share: float, seed: int) -> np.ndarray:
    """Choose images for the test: objects of one image look alike, none may be on both sides.

    Args:
        images: Whole numbers ``[N]``, the image of each row.
        test_share: Share of images, above 0 and below 1.
        seed: Decides which; neither the order of rows nor their number an image matters.

    Returns:
        bool ``[N]``, which rows are of the test.

    Raises:
        ValueError: If there are fewer than two images, or the share leaves a side empty.
    """
    distinct, where = np.unique(images, return_inverse=True)
    n = round(test_share * len(distinct)) if 0 < test_share < 1 else 0
    if not 0 < n < len(distinct):
        raise ValueError(
            f"expected images enough for both sides of a split, got {len(distinct)} with a test share of {test_share}."
        )
    chosen = np.zeros(len(distinct), bool)
    chosen[np.random.default_rng(seed).permutation(len(distinct))[:n]] = True
    return chosen[where.reshape(-1)]


def why_not(column: Column, test: np.ndarray) -> str | None:
    """Return why a factor cannot be learnt from these rows, ``None`` if it can.

    Args:
        column: The factor.
        test: bool ``[N]``, which rows are of the test.
    """
    train, held_out = column.known & ~test, column.known & test
    if min(train.sum(), held_out.sum()) < FEWEST_ROWS:
        return f"known for {train.sum()} training and {held_out.sum()} test objects, fewer than {FEWEST_ROWS} on a side"
    for side, name in ((train, "training"), (held_out, "test")):
        if (column.values[side] == column.values[side][0]).all():
            if side is held_out and column.kind == "classification":
                continue  # accuracy exists all the same; R^2 does not
            return f"the same for all {name} objects"
    if column.kind == "classification" and (n := len(np.unique(column.values[train]))) > MOST_CLASSES:
        return f"{n} different whole numbers, more than {MOST_CLASSES} classes (name its kind if it is a quantity)"
    return None


def reasons_of(skipped: Mapping[str, str]) -> str:
    """Return why factors were skipped, those of the same reason together."""
    names: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(which)}: {reason}" for reason, which in names.items())


# -- scores


def r_squared(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return 1 minus squared error over that of the mean of ``true``, pooled over columns; NaN if constant.

    Args:
        true: Floats ``[N, M]``.
        predicted: The same shape.
    """
    total = ((true - true.mean(0)) ** 2).sum()
    return float(1 - ((true - predicted) ** 2).sum() / total) if total > 0 else float("nan")


def score(column: Column, rows: np.ndarray, predicted: np.ndarray) -> float:
    """Return R^2 of a quantity (pooled over cosine and sine if circular), accuracy of a class.

    Args:
        column: The factor.
        rows: bool ``[N]``, the rows that were predicted.
        predicted: Targets for these rows, in their order.
    """
    true = column.targets[rows]
    if column.kind == "classification":
        return float((true == predicted).mean())
    return r_squared(true, predicted)


def guess(column: Column, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return what knowing no code predicts: the training mean, or the commonest training class."""
    targets = column.targets[train]
    if column.kind == "regression":
        return np.repeat(targets.mean(0, keepdims=True), rows.sum(), axis=0)
    values, counts = np.unique(targets, return_counts=True)
    return np.full(rows.sum(), values[counts.argmax()])


# -- estimators


def _linear(kind: Kind, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    return Ridge(alpha=1.0) if kind == "regression" else LogisticRegression(max_iter=1000)


def _mlp(kind: Kind, seed: int) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    family = MLPRegressor if kind == "regression" else MLPClassifier
    # so much weight decay that a factor of which codes say nothing scores about 0, not far below
    size = {"hidden_layer_sizes": (128,), "max_iter": 100}
    return family(**size, alpha=5.0, learning_rate_init=3e-3, random_state=seed)


def _forest(kind: Kind, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    family = RandomForestRegressor if kind == "regression" else RandomForestClassifier
    # Every split may use any code: were the right one left out of a draw, a wrong one would get its importance.
    # Leaves of one object are told apart by chance alone, which would give every code some.
    return family(100, max_features=None, min_samples_leaf=5, random_state=seed, n_jobs=1)


def _boosting(kind: Kind, seed: int) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    family = GradientBoostingRegressor if kind == "regression" else GradientBoostingClassifier
    return family(random_state=seed)


def _lasso(kind: Kind, seed: int) -> Any:
    from sklearn.linear_model import Lasso
    from sklearn.svm import LinearSVC

    if kind == "regression":
        return Lasso(alpha=0.01, max_iter=10_000)
    return LinearSVC(penalty="l1", dual=False, C=0.1, max_iter=10_000, random_state=seed)


_ESTIMATORS: dict[str, Callable[[Kind, int], Any]] = {
    "linear": _linear,
    "mlp": _mlp,
    "forest": _forest,
    "boosting": _boosting,
    "lasso": _lasso,
}


@dataclass(frozen=True, eq=False)
class Fitted:
    """An estimator of one factor: `predict` takes codes as they are and returns targets as `Column` has them."""

    estimator: Any
    codes_mean: np.ndarray
    codes_sd: np.ndarray
    targets_mean: Any
    targets_sd: Any

    def predict(self, codes: np.ndarray) -> np.ndarray:
        """Return targets for float ``codes [N, D]``."""
        answer = self.estimator.predict((codes - self.codes_mean) / self.codes_sd)
        if self.targets_sd is None:
            return answer
        return answer.reshape(len(codes), -1) * self.targets_sd + self.targets_mean

    @property
    def importance(self) -> np.ndarray:
        """How much each code counts, floats ``[D]``, 0 or more: the forest's own figure, or |coefficients|."""
        if hasattr(self.estimator, "feature_importances_"):
            return self.estimator.feature_importances_
        return np.abs(np.atleast_2d(self.estimator.coef_)).sum(0)


def fit(name: str, column: Column, train: np.ndarray, codes: np.ndarray, seed: int) -> Fitted:
    """Fit a fresh estimator of one factor, codes and quantities scaled to mean 0 and standard deviation 1.

    Args:
        name: ``"linear"``, ``"mlp"``, ``"forest"``, ``"boosting"`` or ``"lasso"``.
        column: The factor; its own kind alone decides between regression and classification.
        train: bool ``[N]``, rows to learn from.
        codes: Floats ``[N, D]``.
        seed: Of the estimator.
    """
    x, y = codes[train], column.targets[train]
    mean, sd = _scale(x)
    y_mean, y_sd = (None, None) if column.kind == "classification" else _scale(y)
    if y_sd is not None:
        y = (y - y_mean) / y_sd
    # scikit-learn takes one target as [N], several as [N, M]
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    with _quiet():
        estimator = _ESTIMATORS[name](column.kind, seed).fit((x - mean) / sd, y)
    return Fitted(estimator, mean, sd, y_mean, y_sd)


def _scale(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sd = values.std(0)
    return values.mean(0), np.where(sd > 0, sd, 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Take an estimator as it is after its last round: that it could go on is no news to the user."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
