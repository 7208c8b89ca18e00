"""Generated images against real ones: Frechet and kernel distances on features.

`metrics.generation.scoring` draws the images, extracts the features and stamps the figures with their protocol.
"""

from metrics.generation.frechet import frechet_distance, frechet_floor
from metrics.generation.gaussians import FeatureMoments, GaussianStatistics
from metrics.generation.kernel import kernel_distance

__all__ = [
    "FeatureMoments",
    "GaussianStatistics",
    "frechet_distance",
    "frechet_floor",
    "kernel_distance",
]
