"""Metrics of multi-object scene understanding: arrays in, one value an image out.

Every metric takes NumPy arrays or torch tensors on any device and answers in kind. `evaluate` runs them over
a model or a file of predictions. Importing this package loads neither torch nor SciPy.
"""

from metrics.boxes import box_iou, matched_box_iou
from metrics.counting import count_absolute_error, count_accuracy, count_confusion, count_error
from metrics.evaluation import Evaluation
from metrics.harness import evaluate
from metrics.likelihood import bits_per_dimension, negative_log_likelihood
from metrics.reconstruction import mean_squared_error, squared_error
from metrics.report import write_report
from metrics.running import Mean
from metrics.table import METRICS, MetricSpec, find_metrics

__all__ = [
    "METRICS",
    "Evaluation",
    "Mean",
    "MetricSpec",
    "bits_per_dimension",
    "box_iou",
    "count_absolute_error",
    "count_accuracy",
    "count_confusion",
    "count_error",
    "evaluate",
    "find_metrics",
    "matched_box_iou",
    "mean_squared_error",
    "negative_log_likelihood",
    "squared_error",
    "write_report",
]
