"""`mobj reproduce`: a paper's table, measured again."""

from __future__ import annotations

from typing import Any

import click

from cli.options import device_option, json_option


@click.command("reproduce", short_help="Measure a paper's table again: data, training, scores, pictures.")
@click.argument("table")
@click.option(
    "--scale",
    type=click.Choice(["smoke", "small", "paper"]),
    default="small",
    show_default=True,
    help="smoke: seconds, to see that it runs; small: hours on a CPU; paper: its scenes and steps, for a GPU.",
)
@click.option("--out", metavar="DIR", help="Folder of everything.  [default: reproduction/TABLE-SCALE]")
@click.option("--seeds", metavar="N|LIST", help="Seeds of each cell.  [default: the scale's, 1 to 5]")
@click.option(
    "--form",
    type=click.Choice(["exact", "faithful", "both"]),
    help="exact: the number of objects enumerated; faithful: as the paper's code, the only form of slot models.  "
    "[default: the scale's]",
)
@click.option(
    "--only",
    multiple=True,
    metavar="TEXT",
    help="Only cells with all these words in their name, e.g. '13 air-asr' (repeatable); --dry-run lists the names.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), metavar="N", help="Training steps.  [default: the scale's]"
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Cells trained side by side, each in a process.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="T",
    help="CPU threads of a cell.  [default: all cores; 1 with several --jobs]",
)
@device_option
@click.option(
    "--data",
    metavar="DIR",
    help="Data sets of your own, made with `mobj generate --preset NAME` or `mobj convert NAME`: DIR/NAME, or DIR "
    "itself.  [default: drawn into --out; public sets must be given]",
)
@click.option(
    "--digits",
    type=click.Choice(["auto", "mnist", "bundled"]),
    default="auto",
    show_default=True,
    help="Source of digits; auto is MNIST where it can be had.",
)
@click.option(
    "--digits-root",
    metavar="DIR",
    envvar="MOBJ_DIGITS_ROOT",
    help="Folder with MNIST's idx files; otherwise they are downloaded.",
)
@click.option(
    "--features",
    type=click.Choice(["domain", "inception"]),
    help="What FID compares, where a table has it: features learnt from the data's own labels, or Inception's.  "
    "[default: domain; inception at paper scale]",
)
@click.option("--dry-run", is_flag=True, help="Only list the cells, with a guess of the time that they take.")
@json_option
def reproduce_command(table: str, **options: Any) -> None:
    """Train and score every cell of TABLE and print the paper's figures with ours beside them.

    TABLE is asr-table1, asr-table2 (AIR, AIR-pPrior, AIR-ASR), air-report-table1 (variance of estimators),
    supair-table1 (parameters, without training), supair-table2 (SuPAIR and AIR on four data sets), supair-figure5
    (their accuracy over the seconds of training, for which cells run one after the other; with the --out of
    supair-table2, from its runs), sri-table1, sri-table2, sri-table3, sri-table4 (slot VAEs: FID, structure,
    segmentation, order; with one --out, tables 1, 3 and 4 take the runs of table 2). Leaves table.md, table.json
    (or figure.md, .json, .png) and every run with its pictures in --out. The same command goes on where it was
    interrupted; finished cells are not run again.

    \b
    mobj reproduce asr-table1 --scale smoke --out reproduction/try
    mobj reproduce asr-table1 --jobs 4 --only "13 air-asr"
    mobj reproduce supair-figure5 --threads 1 --only multi-mnist
    mobj reproduce sri-table3 --only towers --out reproduction/sri
    """
    from cli.reproduction.command import reproduce

    reproduce(table, options)
