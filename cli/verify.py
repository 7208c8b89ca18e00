"""`mobj verify`: is a data set still what its manifest says?"""

from __future__ import annotations

import shlex

import click

from cli.console import emit_json, progress, refuse_empty_options, resumable, same_command, start_logging
from cli.options import json_option
from cli.request import digits_root_for


@click.command("verify", short_help="Check every byte of a data set; repair it.")
@click.argument("folder", type=click.Path(path_type=str))
@click.option("--repair", is_flag=True, help="Write missing and changed shards again, and only those.")
@click.option(
    "--regenerate", metavar="SHARE", help="Also draw this share of the scenes anew and compare, e.g. 1%."
)
@click.option(
    "--digits-root",
    metavar="DIR",
    envvar="MOBJ_DIGITS_ROOT",
    help="Folder with MNIST's idx files, to draw from.",
)
@json_option
def verify_command(
    folder: str, repair: bool, regenerate: str | None, digits_root: str | None, as_json: bool
) -> None:
    """Compare the shards in FOLDER with its manifest; exit code 4 if anything is missing, changed or foreign.

    \b
    mobj verify data/digits --regenerate 1%
    """
    from dataclasses import asdict
    from pathlib import Path

    import numpy as np

    from multiobj_data.errors import VerificationError
    from multiobj_data.generation import verification
    from multiobj_data.generation.plan import plan_of
    from multiobj_data.generation.running import generate
    from multiobj_data.shards.manifest import CONVERTED, Manifest

    start_logging()
    refuse_empty_options({"regenerate": regenerate, "digits-root": digits_root})
    path = Path(folder)
    share = _share(regenerate) if regenerate else 0.0
    manifest = Manifest.read(path)
    if is_converted := manifest.generator.startswith(CONVERTED):
        _refuse_drawing(folder, manifest.generator, share)
    root = digits_root_for(manifest.generator, digits_root)
    total = sum(split.rows for split in manifest.splits.values())
    with progress("verify", total, "scenes") as advance:
        problems = verification.verify(path, manifest, advance)
    repaired = [p for p in problems if p.repairable and repair and not is_converted]
    if repaired:
        with resumable(same_command()), progress("repair", total, "scenes") as advance:
            generate(plan_of(manifest, digits_root=root), path, on_progress=advance)
        problems = verification.verify(path, manifest)
    compared = 0
    if share and not problems:
        plan = plan_of(manifest, digits_root=root)
        compared, problems = verification.regenerate(path, manifest, plan, share, np.random.default_rng())
    if as_json:
        facts = {"problems": [asdict(p) for p in problems], "repaired": [asdict(p) for p in repaired]}
        emit_json({"schema_version": 1, "folder": folder, "scenes": total, "compared": compared, **facts})
    else:
        for problem in repaired:
            click.echo(f"repaired {problem.file}: was {problem.kind} ({problem.detail})")
        for problem in problems:
            click.echo(f"{problem.kind}: {problem.file}: {problem.detail}")
    if problems:
        cure = _cure(folder, manifest.generator) if any(p.repairable for p in problems) else "see above"
        raise VerificationError(f"{folder}: {len(problems)} of its files are not as they should be; {cure}.")
    if not as_json:
        drawn = f"; {compared:,} scenes drawn anew are equal" if compared else ""
        click.echo(f"{folder}: {total:,} scenes, every byte as written{drawn}.")


def _cure(folder: str, generator: str) -> str:
    from multiobj_data.shards.manifest import CONVERTED

    if generator.startswith(CONVERTED):
        name = generator.removeprefix(CONVERTED)
        return (
            f"it was converted from the files of {name}, not generated: to write damaged shards again, run the same "
            f"`mobj convert {name} SOURCE --out {shlex.quote(folder)}`, with the options of then"
        )
    return f"run `mobj verify --repair {shlex.quote(folder)}`"


def _refuse_drawing(folder: str, generator: str, share: float) -> None:
    from multiobj_data.errors import UsageError
    from multiobj_data.shards.manifest import CONVERTED

    if share:
        raise UsageError(
            f"--regenerate: {folder} was converted from the files of {generator.removeprefix(CONVERTED)}, not "
            "generated, so that nothing can be drawn anew; leave it out."
        )


def _share(text: str) -> float:
    from multiobj_data.errors import UsageError, quoted

    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise UsageError(f"--regenerate: expected a share such as 1% or 0.01, got {quoted(text)}.")
    return value
