"""One training step of a slot VAE, ours beside the usual way to write it, in one process, with the same weights.

    python benchmarks/slot_vaes.py [--model genesis-v2|emorl|sri] [--slots 9] [--size 64] [--batch-size 8]
        [--threads 1] [--turns 3] [--device cpu]

GENESIS-v2's usual structure: the head that reads features runs again for each slot, seeds are looked up image by
image, slots are decoded one by one, and KLs and prior go step by step. EfficientMORL's: the decoder convolves the
latent at every pixel, and each refinement keeps its graph until the end. SRI has no peer here, only its floor.

Both run as `mobj train` runs, keeping the memory that they free. Both losses are compared first. The floor is the
operations of our step at the speed of this machine's matrix product, measured in the same run; memory is what a step
keeps for its backward pass (and, on a GPU, its peak).
"""

from __future__ import annotations

import argparse
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from unittest import mock

import torch
from floors import Work, products_per_second, step_of, timed
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.functional import linear, softplus

from multiobj_data.composition.memory import keep_freed_memory
from reference_models import emorl
from reference_models.base import SceneModel
from reference_models.checkpoints import build_model
from reference_models.genesis_v2 import GenesisV2, Noise
from reference_models.parts.slots.colouring import LEAST, MOST
from reference_models.parts.slots.encoders import ColouringEncoder
from reference_models.parts.slots.pixel_broadcast import PixelBroadcastDecoder

Step = Callable[[], Tensor]


# --- the usual GENESIS-v2 -----------------------------------------------------------------------------


def usual_genesis_v2(model: GenesisV2, x: Tensor, noise: Noise) -> Tensor:
    """Return the negative ELBO of images ``[B, C, H, W]``."""
    encoder = model.encoder
    assert isinstance(encoder, ColouringEncoder)
    seen = encoder.unet(x)
    log_masks = usual_colouring(encoder, seen, noise.grouping, model.config.slots)
    zs, posteriors, painted, logits = [], [], [], []
    for k, log_mask in enumerate(log_masks):
        posterior = usual_slot(encoder, seen, log_mask)
        z = posterior.loc + posterior.scale * noise.z[:, k]
        colours, logit = model.decoder(z[:, None])
        zs.append(z)
        posteriors.append(posterior)
        painted.append(colours[:, 0])
        logits.append(logit[:, 0])
    masks = torch.stack(logits, dim=1).log_softmax(1)
    sd = model.config.likelihood_sd
    densities = [(masks[:, k] + Normal(colours, sd).log_prob(x)).exp() for k, colours in enumerate(painted)]
    error = -torch.stack(densities, dim=1).sum(1).log().sum((1, 2, 3))
    return (error + usual_kl(model, zs, posteriors)).mean()


def usual_colouring(encoder: ColouringEncoder, seen: Tensor, uniform: Tensor, slots: int) -> list[Tensor]:
    """Return the slots' log masks, each ``[B, 1, H, W]``."""
    colouring = encoder.colouring
    colours = colouring.colours(encoder.cluster(seen))
    b, _, height, width = colours.shape
    log_scope = torch.zeros(b, 1, height, width, device=seen.device)
    log_masks = []
    for _ in range(slots - 1):
        scores = uniform[:, None] * log_scope.exp()
        seeds = torch.zeros(b, colours.shape[1], device=seen.device)
        for image in range(b):
            place = int(scores[image].flatten().argmax())
            seeds[image] = colours[image, :, place // width, place % width]
        distance = (colours - seeds[:, :, None, None]).square().sum(1, keepdim=True)
        claim = (-distance / colouring.log_width.exp()).exp()
        claim = claim + (claim.clamp(LEAST, MOST) - claim).detach()
        log_masks.append(log_scope + claim.log())
        log_scope = log_scope + (1 - claim).log()
    return [*log_masks, log_scope]


def usual_slot(encoder: ColouringEncoder, seen: Tensor, log_mask: Tensor) -> Normal:
    """Return one slot's posterior, batch ``[B, D]``."""
    weight = encoder.gather.weight[:, :, None, None]  # the head's last layer, for every pixel
    features = nn.functional.conv2d(encoder.features(seen), weight, encoder.gather.bias)
    mask = log_mask.exp()
    read = (mask * features).sum((2, 3)) / (mask.sum((2, 3)) + 1e-5)
    loc, raw_scale = encoder.head(read).chunk(2, dim=1)
    return Normal(loc, softplus(raw_scale + 0.5) + 1e-8)


def usual_kl(model: GenesisV2, zs: list[Tensor], posteriors: list[Normal]) -> Tensor:
    """Return the divergences estimated from the sample, ``[B]``."""
    assert model.prior is not None
    lstm, read = model.prior.lstm, model.prior.read
    kl = torch.zeros(len(zs[0]), device=zs[0].device)
    state = lstm.begin(zs[0])
    for k, (z, posterior) in enumerate(zip(zs, posteriors, strict=True)):
        prior = Normal(torch.zeros_like(z), torch.ones_like(z))
        if k:
            state = lstm.step(zs[k - 1], state)
            loc, raw = linear(state[0], read.weight, read.bias).chunk(2, dim=1)
            prior = Normal(loc.tanh(), torch.sigmoid(raw + 4) + 1e-4)
        kl = kl + (posterior.log_prob(z) - prior.log_prob(z)).sum(1)
    return kl


# --- the usual EfficientMORL --------------------------------------------------------------------------


@contextmanager
def usual_emorl() -> Iterator[None]:
    """Convolve latents at every pixel, and keep each refinement's graph, in this context."""

    def maps(decoder: PixelBroadcastDecoder, z: Tensor) -> Tensor:
        where = decoder.project(decoder.positions.movedim(1, -1)).movedim(-1, 1)
        return decoder.rest(decoder.first(z[:, :, None, None] + where))

    with (
        mock.patch.object(PixelBroadcastDecoder, "maps", maps),
        mock.patch.object(emorl, "differentiated", lambda function, z, parameters: function(z)),
    ):
        yield


# --- measuring ----------------------------------------------------------------------------------------


def losses(model: SceneModel, batch_size: int) -> dict[str, Step]:
    """Return our loss and the usual one, as functions of nothing."""
    height, width, channels = model.image_shape
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch_size, channels, height, width, generator=generator).to(model.device)
    noise = model.draw(batch_size, generator)
    found: dict[str, Step] = {"ours": lambda: model.objective(x, noise).total}
    if isinstance(model, GenesisV2):
        found["usual"] = lambda: usual_genesis_v2(model, x, noise)
    if isinstance(model, emorl.EfficientMORL):

        def usual() -> Tensor:
            with usual_emorl():
                return model.objective(x, noise).total

        found["usual"] = usual
    return found


class Held:
    """A tensor that is kept for a backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def kept_for_backward(loss: Step) -> int:
    """Return the most bytes that are kept at once for a loss' backward pass, each storage once, weights included."""
    held: Counter[int] = Counter()  # address of a storage -> how often it is kept; kept, it is not used anew
    sizes: dict[int, int] = {}
    most = 0

    def release(address: int) -> None:
        held[address] -= 1
        if not held[address]:
            sizes.pop(address)

    def keep(tensor: Tensor) -> Held:
        nonlocal most
        storage, item = tensor.untyped_storage(), Held(tensor)
        held[storage.data_ptr()] += 1
        sizes[storage.data_ptr()] = storage.nbytes()
        weakref.finalize(item, release, storage.data_ptr())
        most = max(most, sum(sizes.values()))
        return item

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda item: item.tensor):
        loss()
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("genesis-v2", "emorl", "sri"), default="genesis-v2")
    parser.add_argument("--slots", type=int, default=9)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    settings = {"slots": options.slots} | ({"analytic_kl": False} if options.model == "genesis-v2" else {})
    model = build_model(options.model, settings, (options.size, options.size, 3), seed=0)
    model = model.to(options.device).train()
    report(model, losses(model, options.batch_size), options.turns)


def report(model: SceneModel, ways: dict[str, Step], turns: int) -> None:
    values = {name: float(loss().detach()) for name, loss in ways.items()}
    print("loss  " + "  ".join(f"{name} {value:.6g}" for name, value in values.items()))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.0, fused=True)  # the weights stay the same
    steps = {name: step_of(model, loss, optimiser) for name, loss in ways.items()}
    with Work() as work:
        steps["ours"]()
    floor = work.operations / products_per_second(model.device)
    times: dict[str, list[float]] = {name: [timed(step)] for name, step in steps.items()}  # warms up
    for _ in range(turns):  # in turns, so that a busy machine slows all alike
        for name, step in steps.items():
            times[name].append(timed(step))
    ours = median(times["ours"][1:])
    for name, seconds in times.items():
        middle = median(seconds[1:])
        kept = kept_for_backward(ways[name]) / 1e9
        peak = "" if model.device.type == "cpu" else f"  peak {peak_of(steps[name]) / 1e9:.2f} GB"
        print(
            f"{name:6s} {1e3 * middle:9.1f} ms a step  {middle / ours:5.2f} x ours  keeps {kept:.2f} GB{peak}"
        )
    print(f"floor  {1e3 * floor:9.1f} ms: {work.operations / 1e9:.0f} GFLOP at the speed of a matrix product")


def peak_of(step: Callable[[], None]) -> int:
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated()


if __name__ == "__main__":
    main()
