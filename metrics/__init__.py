"""Metrics of multi-object scene understanding: arrays in, one value an image out.

Every metric takes NumPy arrays or torch tensors on any device and answers in kind. `evaluate` runs them over
a model or a file of predictions. Importing this package loads neither torch nor SciPy.
"""

from metrics.boxes.average_precision import AveragePrecision, average_precision
from metrics.boxes.extents import boxes_of_labels, boxes_of_masks
from metrics.boxes.scores import (
    BoxScore,
    box_iou,
    matched_box_iou,
    mean_best_box_overlap,
    ocl_box_iou,
    supair_box_score,
)
from metrics.comparability import LikelihoodKind, require_comparable
from metrics.counting import (
    count_absolute_error,
    count_accuracy,
    count_accuracy_by_count,
    count_confusion,
    count_error,
    inferred_count,
    most_probable_count,
)
from metrics.estimators import gradient_variance
from metrics.evaluation.baselines import BASELINES, truth_prediction
from metrics.evaluation.report import write_report
from metrics.evaluation.result import Evaluation
from metrics.evaluation.suspicion import SuspiciousDataWarning, warn_if_mostly_empty
from metrics.generation.frechet import frechet_distance
from metrics.generation.gaussians import GaussianStatistics
from metrics.generation.kernel import kernel_distance
from metrics.harness import evaluate
from metrics.likelihood import (
    bits_per_dimension,
    floor_corrected,
    gaussian_floor,
    importance_weighted_bound,
    negative_log_likelihood,
)
from metrics.reconstruction import (
    mean_squared_error,
    peak_signal_to_noise,
    root_mean_squared_error,
    squared_error,
    structural_similarity,
)
from metrics.running import Mean
from metrics.segmentation.contingency import contingency_table
from metrics.segmentation.conventions import CONVENTIONS, Convention
from metrics.segmentation.labels import label_maps, labels_of_one_hot, labels_of_soft_masks
from metrics.segmentation.pairing import compact_labels
from metrics.segmentation.scores import (
    adjusted_rand_index,
    matched_mask_iou,
    mean_best_overlap,
    mean_segmentation_covering,
    segmentation_covering,
)
from metrics.slots.disentanglement import disentanglement
from metrics.slots.order import order_consistency, slot_order
from metrics.slots.probing import probe_slots
from metrics.structure.samples import structure_of_samples
from metrics.structure.verdicts import structure_accuracy, structure_report
from metrics.table import METRICS, MetricSpec, find_metrics

__all__ = [
    "BASELINES",
    "CONVENTIONS",
    "METRICS",
    "AveragePrecision",
    "BoxScore",
    "Convention",
    "Evaluation",
    "GaussianStatistics",
    "LikelihoodKind",
    "Mean",
    "MetricSpec",
    "SuspiciousDataWarning",
    "adjusted_rand_index",
    "average_precision",
    "bits_per_dimension",
    "box_iou",
    "boxes_of_labels",
    "boxes_of_masks",
    "compact_labels",
    "contingency_table",
    "count_absolute_error",
    "count_accuracy",
    "count_accuracy_by_count",
    "count_confusion",
    "count_error",
    "disentanglement",
    "evaluate",
    "find_metrics",
    "floor_corrected",
    "frechet_distance",
    "gaussian_floor",
    "gradient_variance",
    "importance_weighted_bound",
    "inferred_count",
    "kernel_distance",
    "label_maps",
    "labels_of_one_hot",
    "labels_of_soft_masks",
    "matched_box_iou",
    "matched_mask_iou",
    "mean_best_box_overlap",
    "mean_best_overlap",
    "mean_segmentation_covering",
    "mean_squared_error",
    "most_probable_count",
    "negative_log_likelihood",
    "ocl_box_iou",
    "order_consistency",
    "peak_signal_to_noise",
    "probe_slots",
    "require_comparable",
    "root_mean_squared_error",
    "segmentation_covering",
    "slot_order",
    "squared_error",
    "structural_similarity",
    "structure_accuracy",
    "structure_of_samples",
    "structure_report",
    "supair_box_score",
    "truth_prediction",
    "warn_if_mostly_empty",
    "write_report",
]
