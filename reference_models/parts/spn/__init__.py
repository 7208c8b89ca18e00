"""Random sum-product networks (RAT-SPNs) over images: exact densities, marginals, completions and samples.

Peharz et al., "Random sum-product networks: a simple and effective approach to probabilistic deep learning"
(UAI 2019); as the object and background models of SuPAIR in Stelzner, Peharz & Kersting, "Faster
attend-infer-repeat with tractable probabilistic models" (ICML 2019).

Public::

    config = SPNConfig(pixels=784, replicas=6, depth=2, leaves=20, sums=20, min_variance=0.12, max_variance=0.35)
    network = SumProductNetwork(config)
    network.log_likelihood(x, visible)               # [B], exact; hidden pixels are integrated out
    network.mpe(x, visible)                          # [B, D], what the most probable tree paints
    network.sample(n, generator)                     # [n, D]
    network.sample_given(x, visible, generator)      # [B, D], hidden pixels drawn given the visible ones
    network.check(x, visible)                        # refuses NaN, where asked
    em_step(network, [(x, visible)])                 # one step of expectation-maximisation, instead of a gradient

Letters: B images, P pixels, C channels, D = C P values of an image, R replicas, I Gaussians of a leaf region,
S sums of an inner region, K = 2^depth leaf regions of a replica.

An image ``[C, H, W]`` is flattened as it lies: value ``c P + p`` is channel c of pixel p. All channels of a
pixel are visible or hidden together.
"""

from reference_models.parts.spn.config import SPNConfig
from reference_models.parts.spn.em import em_step
from reference_models.parts.spn.network import SumProductNetwork
from reference_models.parts.spn.regions import region_graph

__all__ = ["SPNConfig", "SumProductNetwork", "em_step", "region_graph"]
