"""Segmentation: from label maps and masks to scores, by any project's convention."""

from metrics.segmentation.scores import (
    adjusted_rand_index,
    matched_mask_iou,
    mean_best_overlap,
    mean_segmentation_covering,
    segmentation_covering,
)

__all__ = [
    "adjusted_rand_index",
    "matched_mask_iou",
    "mean_best_overlap",
    "mean_segmentation_covering",
    "segmentation_covering",
]
