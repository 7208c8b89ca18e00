"""Features of the FID Inception network, from a local file of its weights or downloaded once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metrics.generation.features.inception_network import InceptionNetwork
from metrics.generation.features.protocols import PROTOCOLS, FidProtocol, to_bytes
from metrics.generation.features.weights import (
    exact_arithmetic,
    read_weights,
    refuse_other_weights,
)
from multiobj_data.devices import resolve_device
from multiobj_data.errors import DataError
from multiobj_data.files import sha256_of

logger = logging.getLogger(__name__)

ADDRESS = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_AT_ONCE = 32  # images: 299x299 takes 9 MB an image in the first layers


class InceptionFeatures:
    """An extractor (see `metrics.generation.features`): the 2,048 features of the last pool.

    Args:
        network: The network with its weights; put into evaluation mode.
        weights: SHA-256 of the file that they are from.
        protocol: How images become its input.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
    """

    def __init__(
        self,
        network: InceptionNetwork,
        weights: str,
        protocol: FidProtocol = PROTOCOLS["genesis"],
        device: str = "auto",
    ) -> None:
        self.device = resolve_device(device)
        self.network = network.to(self.device).eval().requires_grad_(False)
        self.protocol = protocol
        self.stamp: dict[str, Any] = {
            "network": "FID Inception-v3 (TensorFlow, 2015-12-05), last pool",
            "dimensions": 2048,
            "weights_sha256": weights,
            "published_weights": weights == SHA256,
            "protocol": protocol.stamp(),
        }

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        protocol: FidProtocol = PROTOCOLS["genesis"],
        device: str = "auto",
    ) -> InceptionFeatures:
        """Load the weights from a local file, or download them once into the user's cache.

        A file other than the published one is taken with a warning; the stamp records it.

        Raises:
            DataError: If the file is missing, damaged or not of this network, or the download fails.
            UsageError: If there is no such device.
        """
        path = download() if path is None else Path(path)
        weights = read_weights(path)
        with torch.device("meta"):  # no memory, and no random numbers, for weights that are replaced at once
            network = InceptionNetwork()
        refuse_other_weights(path, network.state_dict(), weights, "the FID Inception network")
        for name, counter in network.state_dict().items():
            if name.endswith(".num_batches_tracked"):
                weights.setdefault(name, torch.zeros_like(counter, device="cpu"))
        network.load_state_dict(weights, assign=True)
        sha256 = sha256_of(path)
        if sha256 != SHA256:
            logger.warning(
                "%s is not the published file of FID's Inception weights (SHA-256 %s..., expected %s...): figures "
                "made with it compare with no others.",
                path,
                sha256[:8],
                SHA256[:8],
            )
        return cls(network, sha256, protocol, device)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return features, float32 ``[B, 2048]``, of uint8 ``[B, H, W, C]`` with C = 1 or 3."""
        pixels = torch.from_numpy(np.array(to_bytes(images)))  # a copy: arrays may be read-only
        parts = [torch.empty(0, 2048)]
        with exact_arithmetic():
            for chunk in pixels.split(_AT_ONCE):
                parts.append(self.network(self.protocol.input(chunk.to(self.device))).cpu())
        return torch.cat(parts).numpy()


def download() -> Path:
    """Return the published weights (96 MB), from the user's cache or downloaded into it and checked.

    Raises:
        DataError: If they cannot be downloaded, or are not the published ones.
    """
    import os

    import pooch

    folder = Path(pooch.os_cache("mobj")) / "inception"
    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=os.isatty(2), timeout=15)
    try:
        return Path(
            pooch.retrieve(
                ADDRESS, f"sha256:{SHA256}", ADDRESS.rpartition("/")[2], folder, downloader=downloader
            )
        )
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
        raise DataError(
            f"the weights of FID's Inception network cannot be downloaded ({type(error).__name__}). Get {ADDRESS} on "
            "another machine and give it as --weights FILE; or take features of your own data, which need no network: "
            "mobj metrics train-features --data DIR --out features.pt, then --features features.pt."
        ) from error
