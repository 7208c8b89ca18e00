import os
from pathlib import Path

import pytest

from multiobj_data.generation import generate
from multiobj_data.plan import Plan

for name in ("MOBJ_DIGITS_ROOT", "MOBJ_DSPRITES_FILE"):
    os.environ.pop(name, None)  # tests use the bundled digits; those that want real files ask for them


@pytest.fixture(scope="session")
def mnist_root() -> str:
    """A folder with the real MNIST, or skip."""
    root = os.environ.get("MOBJ_TEST_MNIST")
    if not root:
        pytest.skip("real MNIST is not at hand (set MOBJ_TEST_MNIST to its folder)")
    return root


@pytest.fixture(scope="session")
def small_plan() -> Plan:
    """700 train and 300 test scenes of 2 or 4 digits without overlap, in shards of 256."""
    settings = {"counts": "2,4", "overlap": False, "digits": "bundled", "amodal": True}
    return Plan.create("multi-mnist", settings, seed=5, splits={"train": 700, "test": 300}, shard_rows=256)


@pytest.fixture(scope="session")
def small_dataset(small_plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `small_plan`; tests must not change it."""
    folder = tmp_path_factory.mktemp("data") / "small"
    generate(small_plan, folder)
    return folder
