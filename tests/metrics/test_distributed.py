"""Two processes score half the images each and must find what one process finds."""

import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from metrics import AveragePrecision, Mean, mean_squared_error

pytest.importorskip("torchmetrics")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    values = rng.normal(7000, 3, 41) * 10.0 ** rng.integers(-3, 4, 41)
    values[[3, 17]] = np.nan
    corner = rng.uniform(0, 20, (41, 3, 2))
    true = np.concatenate([corner, corner + 8], -1)
    return {
        "values": values,
        "images": rng.integers(0, 256, (41, 6, 6, 1), dtype=np.uint8),
        "guesses": rng.random((41, 6, 6, 1)),
        "true": true,
        "count": rng.integers(0, 4, 41),
        "predicted": true + rng.normal(0, 0.7, true.shape),
        "confidence": np.round(rng.random((41, 3)), 1),
    }


@pytest.fixture(scope="module")
def found(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    np.savez(folder / "data.npz", **data)
    script = Path(__file__).parent / "two_processes.py"
    command = [sys.executable, "-W", "ignore", str(script)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    both = [
        subprocess.Popen([*command, str(rank), str(folder)], env=env, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=100)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in (0, 1)]


def one_pass(values, ids=None):
    mean = Mean()
    mean.update(values, ids)
    return mean.summary()


def test_both_processes_find_the_same(found):
    assert {k: v for k, v in found[0].items() if k != "rows"} == {
        k: v for k, v in found[1].items() if k != "rows"
    }
    assert set(found[0]["rows"]) & set(found[1]["rows"]) == {0}  # the sampler repeated the first image


@pytest.mark.parametrize("name", ["plain", "by_id", "lonely", "module_ids"])
def test_the_mean_is_that_of_one_process_bit_for_bit(data, found, name):
    assert found[0][name] == one_pass(data["values"])


def test_average_precision_is_that_of_one_process_bit_for_bit(data, found):
    precision = AveragePrecision()
    precision.update(*(data[name] for name in ("true", "count", "predicted", "confidence")))
    assert found[0]["ap"] == precision.summary()
    assert 0.1 < found[0]["ap"]["mean"] < 0.9


def test_sums_are_those_of_one_process(data, found):
    want = one_pass(data["values"])
    assert found[0]["module_sums"] == pytest.approx(want, rel=1e-11)
    assert found[0]["module_half"] == pytest.approx(want["mean"], rel=1e-13)
    assert found[0]["module_mse"] == pytest.approx(mean_squared_error(data["images"], data["guesses"]).mean())


def test_a_process_without_images_does_not_disturb(data, found):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found[0]["module_none"] == one_pass(data["values"][:3])
        late = found[0]["module_late"]
    assert (late["n"], late["mean"]) == (1, data["values"][1])
    assert math.isnan(late["stderr"])
