"""Time of AIR to 95 % count accuracy: ours, trained in this run, beside an AIR in Pyro, whose steps are timed.

    pip install pyro-ppl
    python benchmarks/air_time.py DATASET [--seeds 3] [--batch-size 32] [--threads 1] [--pyro-steps-needed 9000]

DATASET is made by `mobj generate --preset air-0-2`. The AIR in Pyro is written here with that library's own means
(`TraceGraph_ELBO`, neural baselines, masked samples) and the sizes of its AIR example; it is not trained, as that takes
hours. How many steps of 64 images it needs is an argument: 9,000 to 95 % is what a run of the example took. Turns
alternate: some steps of Pyro before, and some after, each seed of ours.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pyro
import torch
from air_step import CANVAS, LSTM, STEPS, WHAT, WINDOW, crop, paste, perceptron
from pyro.distributions import Bernoulli, Normal
from pyro.infer import SVI, TraceGraph_ELBO
from torch import Tensor, nn
from torch.nn.functional import softplus

from multiobj_data import open_dataset
from reference_models.batches import Batches, noise_generator
from reference_models.checkpoints import build_model
from reference_models.validation import COUNTED

PYRO_BATCH = 64
GOAL = 0.95


class PyroAIR(nn.Module):
    """AIR as two Pyro programs: three Bernoulli presences, a neural baseline each, everything masked by presence."""

    def __init__(self) -> None:
        super().__init__()
        inputs = CANVAS**2 + 3 + WHAT + 1  # image, z_where, z_what, z_pres
        self.lstm, self.find = nn.LSTMCell(inputs, LSTM), perceptron(LSTM, 7)
        self.encode, self.decode = perceptron(WINDOW**2, 2 * WHAT), perceptron(WHAT, WINDOW**2)
        self.baseline_lstm, self.baseline = nn.LSTMCell(inputs, LSTM), perceptron(LSTM, 1)

    def model(self, x: Tensor) -> None:
        """The generative program of images ``[B, 1, H, W]``."""
        pyro.module("decode", self.decode)
        present, canvas = x.new_ones(len(x), 1), torch.zeros_like(x)
        with pyro.plate("images", len(x)):
            for t in range(STEPS):
                present = pyro.sample(f"present_{t}", Bernoulli(0.01 * present).to_event(1))
                where = pyro.sample(f"where_{t}", standard(x, 3).mask(present).to_event(1))
                what = pyro.sample(f"what_{t}", standard(x, WHAT).mask(present).to_event(1))
                drawn = paste(torch.sigmoid(self.decode(what) - 2), where)
                canvas = canvas + drawn * present[:, :, None, None]
            pyro.sample("x", Normal(canvas, 0.3).to_event(3), obs=x)

    def guide(self, x: Tensor) -> None:
        """The recurrent recognition program."""
        for name in ("lstm", "find", "encode", "baseline_lstm", "baseline"):
            pyro.module(name, getattr(self, name))
        state = baseline_state = None
        where, what, present = x.new_zeros(len(x), 3), x.new_zeros(len(x), WHAT), x.new_ones(len(x), 1)
        with pyro.plate("images", len(x)):
            for t in range(STEPS):
                inputs = torch.cat([x.flatten(1), where, what, present], dim=1)
                state = self.lstm(inputs, state)
                baseline_state = self.baseline_lstm(inputs.detach(), baseline_state)
                value = (self.baseline(baseline_state[0]) * present)[:, 0]
                logit, loc, raw_sd = self.find(state[0]).split([1, 3, 3], dim=1)
                present = pyro.sample(
                    f"present_{t}",
                    Bernoulli(torch.sigmoid(logit) * present).to_event(1),
                    infer={"baseline": {"baseline_value": value}},
                )
                q_where = Normal(loc, softplus(raw_sd)).mask(present).to_event(1)
                where = pyro.sample(f"where_{t}", q_where)
                loc, raw_sd = self.encode(crop(x, where)).chunk(2, dim=1)
                what = pyro.sample(f"what_{t}", Normal(loc, softplus(raw_sd)).mask(present).to_event(1))


def standard(x: Tensor, size: int) -> Normal:
    return Normal(x.new_zeros(len(x), size), 1.0)


def rate(name: str) -> dict[str, float]:
    return {"lr": 1e-1 if name.startswith("baseline") else 1e-4}


def pyro_steps_per_second(images: Tensor, steps: int) -> float:
    """Time some steps of the AIR in Pyro on uint8 ``images [N, H, W, 1]``."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    air = PyroAIR()
    svi = SVI(air.model, air.guide, pyro.optim.Adam(rate), TraceGraph_ELBO())
    x = images[:PYRO_BATCH].movedim(-1, 1).float() / 255
    svi.step(x)
    start = time.perf_counter()
    for _ in range(steps):
        svi.step(x)
    return steps / (time.perf_counter() - start)


def seconds_to_goal(folder: Path, seed: int, batch_size: int) -> tuple[float, int]:
    """Train ours until the first test scenes are counted well enough, as `mobj train` does; return seconds and steps.

    The accuracy is looked at every 100 steps; that time is not counted.
    """
    train, test = open_dataset(folder, "train"), open_dataset(folder, "test")
    truth = test.scenes(range(COUNTED))
    batches = Batches(train, batch_size, seed, torch.device("cpu"))
    model: Any = build_model("air", {}, train.image_shape, seed)
    optimiser = torch.optim.Adam(model.parameter_groups(), fused=True)
    seconds = 0.0
    for step in range(1, 20_001):
        start = time.perf_counter()
        model.train()
        model.training_step = step
        loss = model.loss(batches[step], noise_generator(seed, step, torch.device("cpu"))).total
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), model.config.gradient_clip)
        optimiser.step()
        seconds += time.perf_counter() - start
        if step % 100 == 0 and (model.predict(truth.image).count == truth.count).mean() >= GOAL:
            return seconds, step
    raise SystemExit(f"ours did not reach {GOAL:.0%} within 20,000 steps.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="of ours, from 0")
    parser.add_argument("--batch-size", type=int, default=32, help="of ours")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=10, help="steps of Pyro before and after")
    parser.add_argument("--pyro-steps-needed", type=int, default=9000)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = torch.as_tensor(open_dataset(args.dataset, "train").scenes(range(PYRO_BATCH)).image)
    ratios = []
    for seed in range(args.seeds):
        before = pyro_steps_per_second(images, args.turns)
        ours, steps = seconds_to_goal(args.dataset, seed, args.batch_size)
        after = pyro_steps_per_second(images, args.turns)
        theirs = args.pyro_steps_needed / ((before + after) / 2)
        ratios.append(theirs / ours)
        print(f"seed {seed}: {GOAL:.0%} after {steps} steps of {args.batch_size}, {ours:.0f} s")
        print(f"  Pyro: {before:.2f} and {after:.2f} steps/s; {args.pyro_steps_needed} take {theirs:.0f} s")
        print(f"  ratio: {ratios[-1]:.1f}", flush=True)
    print(f"mean ratio: {sum(ratios) / len(ratios):.1f}")


if __name__ == "__main__":
    main()
