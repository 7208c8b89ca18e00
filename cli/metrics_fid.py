"""`mobj metrics fid`: two sets of images compared as sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.console import emit_json, emit_table, progress, refuse_empty_options, start_logging
from cli.options import device_option, json_option


@click.command("fid", short_help="FID and KID between two sets of images.")
@click.argument("real")
@click.argument("generated")
@click.option(
    "--features",
    default="inception",
    show_default=True,
    metavar="inception|FILE",
    help="FID's Inception network, or a file of `mobj metrics train-features`.",
)
@click.option(
    "--protocol",
    type=click.Choice(["genesis", "clean-fid", "torchmetrics", "torch-fidelity"]),
    help="How images reach Inception.  [default: genesis]",
)
@click.option("--weights", metavar="FILE", help="Inception's weights.  [default: downloaded once]")
@click.option("--split", default="test", show_default=True, help="Which split of a data set.")
@click.option(
    "--n", type=click.IntRange(min=2), metavar="N", help="Images of each set.  [default: all, equally many]"
)
@click.option(
    "--unequal", is_flag=True, help="Allow sets of different sizes; the figure compares with no others."
)
@click.option(
    "--floor/--no-floor", default=True, show_default=True, help="Also two halves of REAL against each other."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which images, which subsets."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=250,
    show_default=True,
    metavar="B",
    help="Images at a time.",
)
@click.option(
    "--save-statistics", metavar="FILE", help="Keep those of REAL as .npz, to be given as REAL later."
)
@device_option
@json_option
def fid_command(real: str, generated: str, **options: Any) -> None:
    """Compare GENERATED with REAL: FID, KID, and the FID of real against real.

    Each is a data set folder, a folder of PNG files, a file of images (.npy, .npz), or feature statistics (.npz).

    \b
    mobj metrics fid data/digits samples/ --features features.pt
    mobj metrics fid data/digits samples.npy --n 10000 --protocol genesis
    mobj metrics fid statistics.npz samples.npy --weights pt_inception-2015-12-05-6726825d.pth
    """
    start_logging()
    refuse_empty_options(options)
    if options["save_statistics"]:
        _expect_folder(Path(options["save_statistics"]))
    result = _score(real, generated, options)
    if options["as_json"]:
        emit_json({"schema_version": 1, **result.to_json()})
    else:
        _print(result)
    if options["save_statistics"]:
        result.real_statistics.save(options["save_statistics"])


def _expect_folder(path: Path) -> None:
    """Raise before anything is computed that could not be saved."""
    from multiobj_data.errors import UsageError

    if not path.parent.is_dir():
        raise UsageError(
            f"--save-statistics {path}: expected an existing folder, {path.parent} is none; create it first."
        )


def _score(real: str, generated: str, options: dict[str, Any]) -> Any:
    from metrics.generation.features import find_extractor
    from metrics.generation.gaussians import GaussianStatistics
    from metrics.generation.image_sets import holds_statistics, open_images
    from metrics.generation.scoring import score_samples
    from multiobj_data.errors import DataError

    sides: list[Any] = [
        GaussianStatistics.load(path) if holds_statistics(path) else open_images(path, options["split"])
        for path in (real, generated)
    ]
    extractor = find_extractor(
        options["features"],
        protocol=options["protocol"],
        weights=options["weights"],
        device=options["device"],
    )
    with progress("features", _images(sides, options), "images") as advance:
        try:
            return score_samples(
                sides[1],
                sides[0],
                extractor,
                n=options["n"],
                seed=options["seed"],
                unequal=options["unequal"],
                floor=options["floor"],
                batch_size=options["batch_size"],
                on_progress=advance,
            )
        except ValueError as error:
            raise DataError(f"{real} and {generated}: {error}") from error


def _images(sides: list[Any], options: dict[str, Any]) -> int:
    """Return how many images there are to pass through the network."""
    there = [len(side) if hasattr(side, "images") else 0 for side in sides]
    taken = [min(options["n"] or count, count) for count in there]
    more = min(taken[0], there[0] - taken[0]) if options["floor"] else 0
    return sum(taken) + more


def _print(result: Any) -> None:
    n = result.n["generated"] or result.n["real"]
    rows = [("FID", f"{result.fid:.4f}", "", f"{n:,}" if n else "unknown")]
    if result.kid is not None:
        part = result.kid.subset_size < max(result.n.values())  # else all subsets are the same images
        error = f"{result.kid.stderr:.2g}" if result.kid.subsets > 1 and part else ""
        rows.append(
            ("KID", f"{result.kid.mean:.6f}", error, f"{result.kid.subsets} x {result.kid.subset_size:,}")
        )
    if result.floor is not None:
        rows.append(("FID, real against real", f"{result.floor:.4f}", "", f"{result.floor_n:,}"))
    emit_table(rows, ("", "value", "std. error", "images of each"))
    features = result.stamp["features"]
    protocol = features.get("protocol", {})
    how = f"protocol {protocol['name']}" if protocol else "trained on labels of the data"
    click.echo(f"features: {features['network']}, {how}; weights {str(features.get('weights_sha256'))[:12]}")
