"""One of two processes that share the images of a file: run as ``two_processes.py RANK FOLDER`` by a test."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from metrics import AveragePrecision, Mean
from metrics.modules import MeanSquaredError, PerImage, PerImageById


def own(ids, rank):
    """Every second image, padded by a repetition as DistributedSampler does."""
    mine = ids[rank::2]
    return np.append(mine, ids[0]) if len(mine) < len(ids[0::2]) else mine


def identity(scores):
    return scores


def run(rank, folder):
    data = np.load(folder / "data.npz")
    values, images, guesses = data["values"], data["images"], data["guesses"]
    rows = own(np.arange(len(values)), rank)
    found = {"rows": rows.tolist()}

    plain, by_id, lonely = Mean(), Mean(), Mean()
    plain.update(values[rank::2])
    by_id.update(values[rows], rows)
    if rank == 1:
        lonely.update(values, np.arange(len(values)))
    precision = AveragePrecision()
    precision.update(*(data[name][rank::2] for name in ("true", "count", "predicted", "confidence")))
    for name, mean in (("plain", plain), ("by_id", by_id), ("lonely", lonely), ("ap", precision)):
        found[name] = mean.gather().summary()

    sums, ids, half = (
        PerImage(identity, summary=True),
        PerImageById(identity, summary=True),
        PerImage(identity),
    )
    sums.update(torch.tensor(values[rank::2]))
    half.half().update(torch.tensor(values[rank::2]))
    ids.update(torch.tensor(rows), torch.tensor(values[rows]))
    late = PerImageById(identity, summary=True)
    late.update(torch.tensor(rows[:rank]), torch.tensor(values[rows[:rank]]))  # rank 0: no image
    none = PerImageById(identity, summary=True)
    if rank == 1:
        none.update(torch.arange(3), torch.tensor(values[:3]))
    ready = MeanSquaredError()
    ready.update(torch.tensor(images[rank::2]), torch.tensor(guesses[rank::2]))
    for name, metric in (("sums", sums), ("ids", ids), ("late", late), ("none", none)):
        found[f"module_{name}"] = {key: value.item() for key, value in metric.compute().items()}
    found["module_half"], found["module_mse"] = half.compute().item(), ready.compute().item()
    (folder / f"found-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    run(rank, folder)
    dist.destroy_process_group()
