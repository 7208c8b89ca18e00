"""The files of a reproduction: ``table.md``, ready for a page of results, and ``table.json``; or ``figure``'s."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.reproduction.cells import runs_folder
from cli.reproduction.curves import curve_document, curve_extras
from cli.reproduction.generation import generation_rows, generation_sentence
from cli.reproduction.results import (
    Group,
    document,
    main_rows,
    overlap_rows,
    variance_protocol,
    variance_rows,
)
from cli.reproduction.tables import Scale, Table
from multiobj_data.files import to_json, write_atomically

OVERLAP = (
    "Samples of the model in which objects keep apart, all seeds together, with 95 % Wilson intervals (which know "
    "nothing of the spread between seeds). Windows overlap where they share area: of samples of two objects or more. "
    "Ink overlaps where two objects both paint a pixel brighter than `mask_level`: of samples with two or more that "
    "paint any such."
)


def variance_sentence(protocol: Mapping[str, int]) -> str:
    """Return how the variances were measured."""
    batch, draws, learnt = protocol["batch"], protocol["draws"], protocol["baseline_steps"]
    return (
        f"Gradients at the same trained parameters on one batch of {batch} test scenes, {draws:,} draws each, of the "
        f"loss's mean over the batch (of its sum: times {batch**2:,}). `baseline` and `nvil`: their baseline learnt "
        f"{learnt:,} steps at these parameters first; it is in no group. Var of norm is the report's figure; the trace "
        "of the covariance is the estimator's true variance; what of it comes from drawing N is the trace of the "
        "difference from the enumerated gradient at the same z (of `concrete`, which is biased, that of its "
        "relaxation; of `vimco` not known, as its mean is another)."
    )


PICTURES = ("reconstructions.png", "samples.png", "rollouts.png")


def markdown(
    table: Table,
    scale_name: str,
    scale: Scale,
    groups: Sequence[Group],
    command: str,
    notes: Sequence[str],
    out: Path,
) -> str:
    """Return the page: the table, what belongs to it, how it was made, and pictures of each first seed in ``out``."""
    parts = [
        f"## {table.title}\n",
        f"{table.source}. Scale `{scale_name}`: {scale.about}. Ours: mean ± standard deviation over all seeds, "
        "none left out; a seed that failed counts as unsuccessful.\n",
        f"```bash\n{command}\n```\n",
        markdown_table(*main_rows(table, groups)),
    ]
    if table.measure == "curves":
        parts.append(f"![{table.title}]({table.stem}.png)\n")
    for title, text, rows in extras(table, groups):
        parts += [f"### {title}\n", f"{text}\n", markdown_table(*rows)]
    told = [*table.differs, *notes]
    told += [
        f"{group.name}, seed {seed}: {reason}" for group in groups for seed, reason in group.failed.items()
    ]
    return "\n".join([*parts, _ending(told), *_gallery(groups, out)])


def _gallery(groups: Sequence[Group], out: Path) -> list[str]:
    """Return links to the pictures of each group's first seed, as paths below ``out``."""
    lines = []
    for group in groups:
        for seed in sorted(group.results)[:1]:
            folder = runs_folder(out, group.column, group.row.name, group.form) / f"seed-{seed}"
            for picture in (folder / name for name in PICTURES):
                if picture.exists():
                    alt = f"{group.name}, seed {seed}: {picture.stem}"
                    lines.append(f"**{alt}**\n\n![{alt}]({picture.relative_to(out).as_posix()})\n")
    return ["### Pictures\n", *lines] if lines else []


def plain_markdown(table: Table, command: str, rows: tuple[Sequence[str], Sequence[Sequence[str]]]) -> str:
    """Return the page of a table that takes no training."""
    parts = [f"## {table.title}\n", f"{table.source}.\n", f"```bash\n{command}\n```\n", markdown_table(*rows)]
    return "\n".join([*parts, _ending(table.differs)])


def _ending(told: Sequence[str]) -> str:
    """Return the end of a page: what there is to be said, and what it was made with."""
    listed = "\n".join(f"- {sentence}" for sentence in told)
    tools = "; ".join(f"{name} {value}" for name, value in made_with().items())
    return f"{listed}\n\nMade with {tools}.\n"


def extras(table: Table, groups: Sequence[Group]) -> list[tuple[str, str, Any]]:
    """Return what is measured beside the table: title, how, header and lines."""
    found: list[tuple[str, str, Any]] = []
    if (rows := overlap_rows(table, groups))[1]:
        found.append(("Samples without overlap", OVERLAP, rows))
    if (protocol := variance_protocol(groups)) is not None:
        found.append(("Variance by estimator", variance_sentence(protocol), variance_rows(table, groups)))
    if (sentence := generation_sentence(groups)) is not None:
        found.append(("What is drawn, and in which order", sentence, generation_rows(table, groups)))
    if table.measure == "curves":
        found += curve_extras(table, groups)
    return found


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows) + "\n"
    )


def made_with() -> dict[str, str]:
    """Return hardware and versions."""
    import torch

    from metrics.evaluation.environment import environment

    hardware = {"CPU": _processor(), "cores": str(os.cpu_count())}
    if torch.cuda.is_available():
        hardware["GPU"] = torch.cuda.get_device_name()
    return hardware | environment()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def table_document(
    table: Table, scale_name: str, groups: Sequence[Group], command: str, notes: Sequence[str]
) -> dict[str, Any]:
    """Return what ``--json`` prints and ``table.json`` holds."""
    return {
        "schema_version": 1,
        "table": table.name,
        "source": table.source,
        "scale": scale_name,
        "command": command,
        "success": dict(table.success),
        "rows": document(table, groups),
        **({"curves": curve_document(table, groups)} if table.measure == "curves" else {}),
        "notes": [*table.differs, *notes],
        "made_with": made_with(),
    }


def plain_document(table: Table, command: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what ``--json`` prints and ``table.json`` holds of a table that takes no training."""
    return {
        "schema_version": 1,
        "table": table.name,
        "source": table.source,
        "command": command,
        "rows": list(rows),
        "notes": list(table.differs),
        "made_with": made_with(),
    }


def write_files(out: Path, stem: str, page: str, content: Mapping[str, Any]) -> None:
    """Write ``STEM.md`` and ``STEM.json``."""
    write_atomically(out / f"{stem}.md", page.encode())
    write_atomically(out / f"{stem}.json", to_json(dict(content)).encode())
