"""Boxes: overlap, matched and averaged as different papers do, and average precision."""

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

__all__ = [
    "AveragePrecision",
    "BoxScore",
    "average_precision",
    "box_iou",
    "boxes_of_labels",
    "boxes_of_masks",
    "matched_box_iou",
    "mean_best_box_overlap",
    "ocl_box_iou",
    "supair_box_score",
]
