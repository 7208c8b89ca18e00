"""`mobj train`: a model, several seeds, the success rate over all of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from typing import Any

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
from cli.live import SCORES, live_note, validation_of
from cli.options import device_option, json_option
from multiobj_data.errors import MobjError, UsageError


@click.command("train", short_help="Train a model, over several seeds.")
@click.argument("model")
@click.option("--data", required=True, metavar="DIR", help="Data set, as `mobj generate` writes it.")
@click.option(
    "--out", metavar="DIR", help="Folder of the runs; each seed has its own inside.  [default: runs/MODEL]"
)
@click.option(
    "--seeds",
    default="1",
    show_default=True,
    metavar="N|LIST",
    help="A number of seeds (3 means 0, 1, 2) or a list (0,4 or 7,).",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=4000,
    show_default=True,
    metavar="N",
    help="Optimiser steps.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="B",
    help="Images a step, of all processes together.",
)
@device_option
@click.option(
    "--preset", metavar="NAME", help="Settings of a paper or its code; `mobj ls model-presets` lists them."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the model (repeatable); `mobj ls settings MODEL` lists them.",
)
@click.option(
    "--validate-on",
    default="auto",
    show_default=True,
    metavar="SPLIT",
    help="Split for the live score; auto: val, else test.",
)
@click.option(
    "--evaluate-every",
    type=click.IntRange(min=1),
    default=250,
    show_default=True,
    metavar="N",
    help="Steps between lines of the log.",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    metavar="N",
    help="Steps between checkpoints.",
)
@click.option("--together", is_flag=True, help="Train all seeds in one process, step by step at once.")
@click.option(
    "--compile", "compile_", is_flag=True, help="Compile the loss: slow first steps, fast later ones."
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="bf16: compute in bfloat16 where PyTorch's autocast does; weights stay fp32.",
)
@click.option("--threads", type=click.IntRange(min=1), metavar="T", help="CPU threads.  [default: all cores]")
@click.option("--resume", is_flag=True, help="Go on where the runs in --out stopped.")
@json_option
def train_command(model: str, **options: Any) -> None:
    """Train MODEL on the train split of a data set.

    Leaves OUT/seed-S/checkpoint.pt, curves.png and log.jsonl. What a model has learnt is said by
    `mobj evaluate`; while it learns, the count accuracy is measured on the first 1,000 scenes of the validation
    split or, of models that do not count, ARI-FG on the first 200.

    On several devices, each takes its part of every batch:

    \b
    mobj train air --data data/digits --out runs/air --seeds 3
    torchrun --nproc-per-node 2 -m cli.main train air --data data/digits --out runs/air
    """
    from reference_models.parallel import launched

    with launched() as workers, _one_voice(workers):
        _train(model, workers, options)


@contextmanager
def _one_voice(workers: Any) -> Iterator[None]:
    """Let the first process alone speak: errors are the same in all, unless another is lost."""
    from reference_models.parallel import LostProcessError

    if workers.first:
        yield
        return
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    except LostProcessError:
        raise
    except MobjError as error:
        raise click.exceptions.Exit(error.exit_code) from error


def _train(model: str, workers: Any, options: Mapping[str, Any]) -> None:
    from multiobj_data.configuration import parse_assignments
    from multiobj_data.loading import open_dataset

    start_logging()
    with workers.unanimous():
        refuse_empty_options({name: text for name, text in options.items() if name != "settings"})
        seeds = parse_seeds(options["seeds"])
        together = options["together"] and len(seeds) > 1
        _refuse_beside_together(together, workers, options)
        settings = _settings(model, options["preset"], parse_assignments(options["settings"]))
        source = open_dataset(options["data"], "train")
        split, validation = _validation(options["data"], options["validate_on"], source.manifest.splits)
    _ready_for_computing(options["threads"])
    out = options["out"] or f"runs/{model.replace(':', '-')}"
    results: dict[int, Any] = {}
    failed: dict[int, str] = {}
    train_all = _train_together if together else partial(_train_in_turn, workers)
    with resumable(same_command("--resume"), sigterm=False):  # `train` ends the step and saves first
        for seed, outcome in train_all(model, source, validation, out, seeds, settings, options):
            if isinstance(outcome, MobjError):
                failed[seed] = str(outcome)
                say(f"seed {seed} failed: {outcome}")
            else:
                results[seed] = outcome
    _print_results(model, results, failed, split, options["as_json"])
    if failed:
        raise MobjError(f"{len(failed)} of {len(seeds)} seeds failed: {', '.join(map(str, failed))}.")


def _refuse_beside_together(together: bool, workers: Any, options: Mapping[str, Any]) -> None:
    """Refuse what stacked seeds cannot do.

    Raises:
        UsageError: Several processes, a compiled loss, or another precision.
    """
    asked = {
        "several processes": not workers.alone,
        "--compile": options["compile_"],
        "--precision bf16": options["precision"] != "fp32",
    }
    wrong = [name for name, is_asked in asked.items() if is_asked]
    if together and wrong:
        raise UsageError(
            f"--together trains all seeds in one process and single precision, not with {wrong[0]}; "
            "leave one of them out."
        )


def _validation(folder: str, split: str, splits: Any) -> tuple[str | None, Any]:
    """Return the split that live scores are measured on, and the validation on it."""
    from multiobj_data.loading import open_dataset
    from reference_models.validation import COUNTED, SEGMENTED

    found = next((name for name in ("val", "test") if name in splits), None) if split == "auto" else split
    if found is None:
        say("the data set has neither val nor test split: no live score.")
        return None, None
    source = open_dataset(folder, found)
    counted, segmented = (min(len(source), n) for n in (COUNTED, SEGMENTED))
    say(
        f"live score: count accuracy on the first {counted:,} scenes of the {found} split; of models that do not "
        f"count, ARI-FG on the first {segmented:,}."
    )
    return found, validation_of(source)


def _ready_for_computing(threads: int | None) -> None:
    from multiobj_data.composition.memory import keep_freed_memory

    keep_freed_memory()
    if threads:
        import torch

        torch.set_num_threads(threads)


def _settings(model: str, preset: str | None, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the preset's settings with those of ``--set`` over them."""
    if preset is None:
        return dict(given)
    from reference_models.presets import preset_settings

    return {**preset_settings(model, preset), **given}


def _train_in_turn(
    workers: Any,
    model: str,
    source: Any,
    validation: Any,
    out: str,
    seeds: list[int],
    settings: Any,
    options: Any,
) -> Iterator[tuple[int, Any]]:
    """Yield each seed with its result, or with the error that ended it."""
    from reference_models.computing import Computing
    from reference_models.parallel import LostProcessError
    from reference_models.training import train

    computing = Computing(options["compile_"], options["precision"])
    for seed in seeds:
        try:
            with _progress_of(f"{model} seed {seed}", options["steps"]) as show:
                result = train(
                    model,
                    source,
                    out,
                    seed=seed,
                    config=settings,
                    validation=validation,
                    on_progress=partial(show, seed),
                    workers=workers,
                    computing=computing,
                    **_loop(options),
                )
            _say_if_nothing_was_done(result, show.done)
            yield seed, result
        except LostProcessError:
            raise
        except MobjError as error:
            if len(seeds) == 1 or (isinstance(error, UsageError) and seed == seeds[0]):
                raise  # there are no others, or they would be refused as well
            yield seed, error


def _train_together(
    model: str, source: Any, validation: Any, out: str, seeds: list[int], settings: Any, options: Any
) -> Iterator[tuple[int, Any]]:
    """Yield each seed with its result, or with the error that ended it, after all have been trained."""
    from reference_models.together import train_together

    with _progress_of(f"{model}, {len(seeds)} seeds", options["steps"] * len(seeds)) as show:
        outcomes = train_together(
            model,
            source,
            out,
            seeds=seeds,
            config=settings,
            validation=validation,
            on_progress=show,
            **_loop(options),
        )
    for outcome in outcomes.values():
        if not isinstance(outcome, MobjError):
            _say_if_nothing_was_done(outcome, show.done)
    yield from outcomes.items()


def _loop(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the training loop takes as they are."""
    names = ("steps", "batch_size", "device", "resume", "checkpoint_every", "evaluate_every")
    return {name: options[name] for name in names}


@contextmanager
def _progress_of(label: str, steps: int) -> Iterator[_Show]:
    with progress(label, steps, "steps") as advance:
        yield _Show(advance)


class _Show:
    """Shows the progress of some seeds in one bar.

    Attributes:
        done: Seed -> the step that it is at.
    """

    def __init__(self, advance: Callable[..., None]) -> None:
        self._advance = advance
        self.done: dict[int, int] = {}

    def __call__(self, seed: int, state: Any) -> None:
        note = None if state.record is None else live_note(state.record)
        self._advance(state.step - self.done.get(seed, 0), note)
        self.done[seed] = state.step
        if state.warning:
            say(f"WARNING: seed {seed}: {state.warning}")


def _say_if_nothing_was_done(result: Any, done: Mapping[int, int]) -> None:
    if result.seed not in done:
        say(f"seed {result.seed}: nothing to do, {result.steps:,} steps are done; ask for more with --steps.")


def _print_results(
    model: str, results: Mapping[int, Any], failed: Mapping[int, str], split: str | None, as_json: bool
) -> None:
    judged = [result.collapsed for result in results.values() if result.collapsed is not None]
    good = judged.count(False)
    if as_json:
        emit_json(
            {
                "schema_version": 1,
                "validation_split": split,
                "seeds": [_row(result) for result in results.values()],
                "failed": [{"seed": seed, "error": error} for seed, error in failed.items()],
                "not_collapsed": good if judged else None,
            }
        )
        return
    cells = {seed: _cells(result) for seed, result in results.items()}
    cells |= {seed: (str(seed), "", "", "", "FAILED", "") for seed in failed}
    live = _live_name(results.values()) + (f" (live, {split})" if split else " (live)")
    emit_table([cells[seed] for seed in sorted(cells)], ("seed", "steps", "seconds", live, "", "checkpoint"))
    if judged:
        click.echo(f"{good} of {len(judged)} seeds did not collapse.")
    if results:
        click.echo(f"score a checkpoint with: {_evaluate(model, next(iter(results.values())).checkpoint)}")


def _live_name(results: Iterable[Any]) -> str:
    """Return how the live score of all results is called."""
    return SCORES["ari_fg" if any(result.ari_fg is not None for result in results) else "count_accuracy"]


def _row(result: Any) -> dict[str, Any]:
    return {**vars(result), "checkpoint": str(result.checkpoint)}


def _cells(result: Any) -> tuple[str, ...]:
    from reference_models.runs import WARM_UP

    early = result.ari_fg is None and result.steps < WARM_UP  # models that do not count are never judged
    unjudged = f"collapse: not judged before step {WARM_UP:,}" if early else ""
    score = result.ari_fg if result.count_accuracy is None else result.count_accuracy
    verdict = {True: "COLLAPSED", False: "", None: unjudged}
    return (
        str(result.seed),
        f"{result.steps:,}",
        f"{result.seconds:.0f}",
        "-" if score is None else f"{score:.4f}",
        verdict[result.collapsed],
        str(result.checkpoint),
    )


def _evaluate(model: str, checkpoint: Any) -> str:
    own = ["--model", model] if ":" in model else []  # a file alone may not name code to run
    return shlex.join(["mobj", "evaluate", str(checkpoint), *own])
