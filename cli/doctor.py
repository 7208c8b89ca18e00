"""`mobj doctor`: versions and machine, for bug reports."""

from __future__ import annotations

from typing import Any

import click

from cli.console import emit_json, emit_table
from cli.options import json_option


@click.command("doctor", short_help="Show versions, devices and data folders, for bug reports.")
@json_option
def doctor_command(as_json: bool) -> None:
    """Show what this installation consists of and what it can reach.

    \b
    mobj doctor
    """
    facts = {**_versions(), **_machine(), **_data()}
    if as_json:
        emit_json({"schema_version": 1, **facts})
    else:
        emit_table([(name, str(value)) for name, value in facts.items()], ("", ""))


def _versions() -> dict[str, Any]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from multiobj_data.version import __version__

    packages = (
        "numpy",
        "scipy",
        "h5py",
        "pillow",
        "scikit-learn",
        "torch",
        "torchvision",
        "click",
        "rich",
        "tensorboard",
    )
    found: dict[str, Any] = {
        "mobj": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _machine() -> dict[str, Any]:
    import os
    import shutil

    import h5py
    import torch

    cuda = torch.cuda.is_available()
    return {
        "HDF5": h5py.version.hdf5_version,
        "cores": os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "CUDA": f"{torch.version.cuda}, {torch.cuda.get_device_name()}" if cuda else "no device",
        "free disk here": f"{shutil.disk_usage('.').free / 1e9:.0f} GB",
    }


def _data() -> dict[str, Any]:
    import os

    import pooch

    cache = os.path.join(pooch.os_cache("mobj"), "MNIST", "raw")
    there = sorted(os.listdir(cache)) if os.path.isdir(cache) else []
    return {
        "MNIST cache": f"{cache} ({len(there)} files)",
        "MOBJ_DIGITS_ROOT": os.environ.get("MOBJ_DIGITS_ROOT", "not set"),
    }
