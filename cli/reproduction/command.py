"""What `mobj reproduce` does: from the request to the printed table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.console import (
    emit_json,
    emit_table,
    parse_seeds,
    progress,
    refuse_empty_options,
    resumable,
    same_command,
    say,
    start_logging,
)
from cli.reproduction import data as data_sets
from cli.reproduction.cells import Cell, cells_of, chosen
from cli.reproduction.dry_run import print_forecast
from cli.reproduction.results import Group, figure, groups_of, main_rows
from cli.reproduction.running import Tell, Work, failure_of, result_of
from cli.reproduction.tables import FORMS, Column, Scale, Table, find_table
from cli.reproduction.writing import (
    extras,
    markdown,
    plain_document,
    plain_markdown,
    table_document,
    write_files,
)
from multiobj_data.errors import MobjError, UsageError
from multiobj_data.files import make_folder, to_json, write_atomically

if TYPE_CHECKING:
    from multiobj_data.shards.manifest import Manifest

ABOUT = "reproduction.json"


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        table: The table.
        scale_name: At which scale.
        seeds: Of each cell.
        forms: Which are trained.
        out: Folder of everything.
        options: The command's.
    """

    table: Table
    scale_name: str
    seeds: Sequence[int]
    forms: Sequence[str]
    out: Path
    options: Mapping[str, Any]

    @property
    def scale(self) -> Scale:
        """How much is done."""
        scale = self.table.scales[self.scale_name]
        return replace(scale, features=self.options["features"] or scale.features)

    def cells(self, forms: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
        """Return the cells of some forms and seeds, whether they are to be run or not."""
        return cells_of(self.table, self.scale, seeds=seeds, forms=forms, steps=self.options["steps"])


def reproduce(name: str, options: Mapping[str, Any]) -> None:
    """Do it, or with ``--dry-run`` say what would be done.

    Raises:
        UsageError: The request makes no sense, or the folder holds something else.
        MobjError: Cells failed; the table of the others has been printed.
    """
    start_logging()
    refuse_empty_options(options)
    request = _request(name, options)
    if request.table.measure == "parameters":
        _refuse_foreign(request)
        _count_parameters(request)
        return
    cells = chosen(request.cells(request.forms, request.seeds), options["only"])
    if not cells:
        raise UsageError(f"--form: {name} has no cell in the form {' or '.join(request.forms)}.")
    _refuse_foreign(request)
    if options["dry_run"]:
        print_forecast(request.table, request.scale, cells, options)
        return
    if options["device"] != "auto":
        from multiobj_data.devices import resolve_device

        resolve_device(options["device"])  # refused once, not cell by cell
    if not options["data"]:
        _refuse_public(request, cells)
    _claim(request)
    with resumable(same_command()):
        found = _data(request, sorted({cell.column for cell in cells}, key=list(request.table.columns).index))
        if request.table.measure == "generation":
            _ready_features(request, found)
    works = {cell.name: _work(request, cell, found) for cell in cells}
    failed = _run(request, list(works.values()))
    _finish(request, found, cells, failed)
    if failed:
        raise MobjError(f"{len(failed)} of {len(cells)} cells failed: {', '.join(failed)}.")


def _request(name: str, options: Mapping[str, Any]) -> Request:
    table = find_table(name)
    scale = table.scales[options["scale"]]
    seeds = list(range(scale.seeds)) if options["seeds"] is None else parse_seeds(options["seeds"])
    form = options["form"]
    forms = tuple(scale.forms) if form is None else FORMS if form == "both" else (form,)
    out = Path(options["out"] or f"reproduction/{name}-{options['scale']}")
    if options["features"] and table.measure != "generation":
        raise UsageError(f"--features: {name} has no FID; leave it out.")
    if table.measure == "curves" and options["jobs"] > 1:
        raise UsageError(
            f"--jobs: {name} measures seconds of training, so that its cells run one after the other."
        )
    return Request(table, options["scale"], seeds, forms, out, options)


def _refuse_foreign(request: Request) -> None:
    """Raise unless the folder is empty, missing, or of this table and scale."""
    import json

    out = request.out
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        about = json.loads((out / ABOUT).read_text(encoding="utf-8"))
        table, scale = about["table"], about["scale"]
    except (OSError, ValueError, LookupError, TypeError):
        raise UsageError(f"{out} holds something else than a reproduction; choose another --out.") from None
    if (table, scale) != (request.table.runs_of, request.scale_name):
        raise UsageError(
            f"{out} holds {table} at scale {scale}, not {request.table.runs_of} at "
            f"{request.scale_name}; choose another --out."
        )


def _refuse_public(request: Request, cells: Sequence[Cell]) -> None:
    """Raise if a cell needs a public set: that must be given."""
    for column in {cell.column: request.table.columns[cell.column] for cell in cells}.values():
        if column.convert:
            raise UsageError(
                f"{column.about} is a public set: convert it with `mobj convert {column.convert} --out "
                f"DATA/{column.data}`, and give --data DATA."
            )


def _claim(request: Request) -> None:
    """Make the folder, and leave in it whose it is."""
    make_folder(request.out)
    about = {"schema_version": 1, "table": request.table.runs_of, "scale": request.scale_name}
    write_atomically(request.out / ABOUT, to_json(about).encode())


def _count_parameters(request: Request) -> None:
    """Print and leave a table that takes no training."""
    from cli.reproduction.parameters import count_parameters, parameter_document, parameter_rows

    counted = count_parameters(request.table)
    header, lines = parameter_rows(request.table, counted)
    content = plain_document(request.table, same_command(), parameter_document(counted))
    if not request.options["dry_run"]:
        _claim(request)
        page = plain_markdown(request.table, same_command(), (header, lines))
        write_files(request.out, request.table.stem, page, content)
    if request.options["as_json"]:
        emit_json(content)
        return
    emit_table(lines, header)
    click.echo("\n" + "\n".join(request.table.differs))


# --- data -----------------------------------------------------------------------------------------------


def _data(request: Request, columns: Sequence[str]) -> dict[str, tuple[Path, Manifest]]:
    """Return each column's data set, drawn if need be."""
    found = {}
    for column in columns:
        found[column] = _data_of(request, column)
        for note in found[column][1].notes:
            say(f"WARNING: {request.table.columns[column].data}: {note}")
    return found


def _data_of(request: Request, column: str) -> tuple[Path, Manifest]:
    about = request.table.columns[column]
    if request.options["data"]:
        return _own(request, about)
    plan = data_sets.plan_of(about, request.scale, request.options)
    folder = request.out / "data" / about.data
    return folder, data_sets.draw(plan, folder, about.data)


def _own(request: Request, column: Column) -> tuple[Path, Manifest]:
    folder = Path(request.options["data"])
    if column.convert:
        return data_sets.converted(folder, column)
    unresolved = {**request.options, "digits": "bundled"}  # of whatever digits the data are
    return data_sets.own(folder, column, data_sets.plan_of(column, request.scale, unresolved))


def _ready_features(request: Request, found: Mapping[str, tuple[Path, Manifest]]) -> None:
    """Learn what FID is to compare, and who judges structure, once for all cells of a column."""
    from cli.reproduction.judging import features_path, judge_beside, ready_features, ready_judge

    scale, device = request.scale, request.options["device"]
    for name, (folder, _) in found.items():
        path, column = features_path(request.out, name), request.table.columns[name]
        with progress(f"features {name}", scale.feature_steps, "steps") as advance:
            ready_features(scale, folder, path, device, lambda step, loss: advance(1, f"loss {loss:.3f}"))
        if column.structure is not None and column.judge:
            with progress(f"judge {name}", scale.feature_steps, "steps") as advance:
                ready_judge(
                    column,
                    scale,
                    folder,
                    judge_beside(path),
                    device,
                    lambda step, loss: advance(1, f"loss {loss:.3f}"),
                )


def _work(request: Request, cell: Cell, data: Mapping[str, tuple[Path, Manifest]]) -> Work:
    folder, manifest = data[cell.column]
    threads = request.options["threads"] or (1 if request.options["jobs"] > 1 else None)
    return Work(
        table=request.table.name,
        scale=request.scale,
        cell=cell,
        out=request.out,
        data=folder,
        data_identity=manifest.identity,
        device=request.options["device"],
        threads=threads,
        jobs=request.options["jobs"],
    )


# --- running --------------------------------------------------------------------------------------------


def _run(request: Request, works: Sequence[Work]) -> dict[str, str]:
    """Run what is not finished; return why cells failed, by name: a process that was killed leaves no word of it."""
    from cli.reproduction.scheduling import run_here, run_in_processes

    left = [work for work in works if result_of(work) is None]
    if len(left) < len(works):
        say(f"{len(works) - len(left)} of {len(works)} cells are finished already.")
    failed: dict[str, str] = {}
    jobs = min(request.options["jobs"], len(left))
    # In this process, training deals with SIGTERM itself: it ends the step and saves first.
    with (
        resumable(same_command(), sigterm=jobs > 1),
        progress(request.table.name, sum(work.cell.steps for work in left), "steps") as advance,
    ):

        def tell(work: Work) -> Tell:
            return lambda steps, note: advance(steps, None if note is None else f"{work.cell.name}: {note}")

        def ended(work: Work, failure: str | None) -> None:
            if failure is not None:
                failed[work.cell.name] = failure
            say(f"{work.cell.name}: " + (f"FAILED: {failure}" if failure else _in_short(request.table, work)))

        if jobs > 1:
            run_in_processes(left, jobs, tell, ended)
        else:
            run_here(left, tell, ended)
    return failed


def _in_short(table: Table, work: Work) -> str:
    (group,) = groups_of(table, [(work.cell, result_of(work), None)])
    figures = ((name, group.summary(metric), metric.digits) for name, metric in table.metrics.items())
    return ", ".join(f"{name} {figure(summary, digits)}" for name, summary, digits in figures)


# --- the result -----------------------------------------------------------------------------------------


def _finish(
    request: Request,
    data: Mapping[str, tuple[Path, Manifest]],
    asked: Sequence[Cell],
    failed: Mapping[str, str],
) -> None:
    groups = _groups(request, data, asked, failed)
    notes = [
        f"{request.table.columns[column].data}: {note}."
        for column, (_, each) in data.items()
        for note in each.notes
    ]
    command = same_command()
    content = table_document(request.table, request.scale_name, groups, command, notes)
    page = markdown(request.table, request.scale_name, request.scale, groups, command, notes, request.out)
    stem = request.table.stem
    write_files(request.out, stem, page, content)
    shown = request.out / "runs"
    if request.table.measure == "curves":
        from cli.reproduction.curve_picture import draw_curves

        shown = request.out / f"{stem}.png"
        draw_curves(request.table, groups, shown)
    if request.options["as_json"]:
        emit_json(content)
        return
    header, lines = main_rows(request.table, groups)
    emit_table(lines, header)
    for title, text, (more_header, more) in extras(request.table, groups):
        click.echo(f"\n{title}. {text}")
        emit_table(more, more_header)
    click.echo(f"\ntable: {request.out / stem}.md; pictures: {shown}")


def _groups(
    request: Request,
    data: Mapping[str, tuple[Path, Manifest]],
    asked: Sequence[Cell],
    failed: Mapping[str, str],
) -> list[Group]:
    """Return what is known of every cell: those asked for, and whatever was finished before with these settings.

    Seeds that were run before are in the table as well, whatever --seeds says now: all of them, or it says nothing.
    """
    names = {cell.name for cell in asked}
    cells = request.cells(FORMS, _seeds_there(request))
    for column in {cell.column for cell in cells} - data.keys():
        data = {**data, **_data_there(request, column)}
    outcomes = []
    for cell in cells:
        if cell.column not in data:
            continue
        work = _work(request, cell, data)
        result, failure = result_of(work), failure_of(work) or failed.get(cell.name)
        if cell.name in names or result or failure:
            outcomes.append((cell, result, failure))
    return groups_of(request.table, outcomes)


def _data_there(request: Request, column: str) -> dict[str, tuple[Path, Manifest]]:
    """Return the data set of a column that is not asked for now, if it was drawn or is given."""
    from multiobj_data.shards.manifest import MANIFEST, Manifest

    about = request.table.columns[column]
    if request.options["data"]:
        try:
            return {column: _own(request, about)}
        except MobjError:  # not there, or another set: nothing of it is asked for
            return {}
    folder = request.out / "data" / about.data
    return {column: (folder, Manifest.read(folder))} if (folder / MANIFEST).exists() else {}


def _seeds_there(request: Request) -> list[int]:
    found = (re.fullmatch(r"seed-(\d+)", path.name) for path in request.out.glob("runs/*/*/seed-*"))
    return sorted({*request.seeds, *(int(match[1]) for match in found if match)})
