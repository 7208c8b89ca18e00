"""`mobj metrics`: what the metrics mean, and what they need; its commands are `cli/metrics_NAME.py`."""

from __future__ import annotations

import importlib

import click

from multiobj_data.errors import did_you_mean

SUBCOMMANDS = ("explain", "probe", "fid", "train-features")


class _Subcommands(click.Group):
    """Loads ``cli/metrics_NAME.py`` when NAME is called, as `mobj` does with its commands."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in SUBCOMMANDS:
            context.fail(f"no command {name!r}.{did_you_mean(name, SUBCOMMANDS)}")
        module = name.replace("-", "_")
        return getattr(importlib.import_module(f"cli.metrics_{module}"), f"{module}_command")


@click.group(
    "metrics",
    cls=_Subcommands,
    short_help="FID, KID, probes of slots; conventions explained.",
)
def metrics_command() -> None:
    """Compare sets of images (FID, KID), probe slots, and explain how projects score differently.

    \b
    mobj metrics explain --case one-exact
    """
