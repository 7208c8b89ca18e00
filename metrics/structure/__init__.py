"""Stacks of blocks: whether a segmentation shows one that could stand."""

from metrics.structure.samples import SampleStructure, structure_of_samples, wilson_interval
from metrics.structure.verdicts import StructureReport, StructureRule, structure_accuracy, structure_report

__all__ = [
    "SampleStructure",
    "StructureReport",
    "StructureRule",
    "structure_accuracy",
    "structure_of_samples",
    "structure_report",
    "wilson_interval",
]
