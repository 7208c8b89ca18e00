"""The tables as data: ``tables.toml``, read into plain types."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files
from typing import Any

from multiobj_data.errors import UsageError, did_you_mean, quoted
from multiobj_data.presets import Preset, find_preset

FORMS = ("exact", "faithful")
"""The number of objects enumerated; or all as in the paper's code."""

FILES = ("tables.toml", "sri_tables.toml")

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """A column of figures in a paper's table.

    Attributes:
        of: Our metric's name, or that of a figure of `cli.reproduction.generation`.
        digits: After the point in our figures.
        published: After the point in the paper's.
        sign: Factor on our metric.
    """

    of: str
    digits: int
    published: int
    sign: int = 1


@dataclass(frozen=True)
class Column:
    """One data set of a table.

    Attributes:
        about: What is in it.
        data: Preset of `multiobj_data.presets`, or a name for the set that ``generator`` draws, or a public set.
        generator: Id of the generator, where no preset says it all.
        settings: Of the generator.
        convert: The public set's arguments of `mobj convert`; such a column needs ``--data``.
        image_shape: Of the public set.
        of_paper: Column of the paper whose figures stand beside it; itself if not given.
        scales: Where it is trained; empty: everywhere.
        kind: Factor that names kinds of objects, for the order of slots; none: all objects are one kind.
        structure: Thresholds of `metrics.structure.StructureRule`, where structure accuracy is measured; else `None`.
        judge: Factor that counts the blocks of a stack from below, for one segmenter that judges all models' samples;
            none: each model's own segmentation alone.
    """

    about: str
    data: str
    generator: str = ""
    settings: Settings = field(default_factory=dict)
    convert: str = ""
    image_shape: Sequence[int] = ()
    of_paper: str = ""
    scales: Sequence[str] = ()
    kind: str | None = None
    structure: Settings | None = None
    judge: str | None = None

    @property
    def preset(self) -> Preset:
        """What the data set is drawn by, unless it is public."""
        return (
            Preset(self.generator, self.about, {}, self.settings)
            if self.generator
            else find_preset(self.data)
        )


@dataclass(frozen=True)
class Form:
    """One way to train a row: a model's preset, or one for each column, with settings over it."""

    preset: str | Mapping[str, str] | None = None
    settings: Settings = field(default_factory=dict)

    def preset_of(self, column: str) -> str | None:
        """Return the preset of a column."""
        return self.preset.get(column) if isinstance(self.preset, Mapping) else self.preset


@dataclass(frozen=True)
class Row:
    """One model of a table.

    Attributes:
        name: As in the paper.
        model: Our id.
        forms: Form -> how it is trained.
        published: Column -> metric -> mean and, if given, standard deviation; empty: the paper has none.
        settings: In every form and column.
        columns: Column -> settings there.
        only: The columns in which it is trained; empty: all.
    """

    name: str
    model: str
    forms: Mapping[str, Form]
    published: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)
    columns: Mapping[str, Settings] = field(default_factory=dict)
    only: Sequence[str] = ()


@dataclass(frozen=True)
class Scale:
    """How much of a table's work is done.

    Attributes:
        about: For the user.
        batch_size: Images a step.
        seeds: How many, from 0.
        forms: Which are trained unless the user says otherwise.
        steps: Training steps.
        cell_steps: Words as in ``--only`` -> steps of the cells that have them in their names; of several, the last.
        log_lines: How often the count accuracy is measured during training.
        train: Training scenes; 0: as many as the preset has.
        test: Test scenes, likewise.
        samples: Images drawn from each model: whether objects overlap in them; FID and structure of slot models.
        draws: Gradients drawn for each estimator.
        baseline_steps: Steps by which a baseline learns what a trained model costs.
        features: What FID compares: ``"inception"``, or ``"domain"``: learnt from the column's own labels.
        feature_steps: Steps by which these are learnt.
        settings: Of every model, over all others but those of row and column.
        models: The same, by model.
        exact: The same, of models in their exact form.
        name: On the command line.
    """

    about: str
    batch_size: int
    seeds: int
    forms: Sequence[str]
    steps: int = 0
    cell_steps: Mapping[str, int] = field(default_factory=dict)
    log_lines: int = 20
    train: int = 0
    test: int = 0
    samples: int = 0
    draws: int = 0
    baseline_steps: int = 0
    features: str = "domain"
    feature_steps: int = 2000
    settings: Settings = field(default_factory=dict)
    models: Mapping[str, Settings] = field(default_factory=dict)
    exact: Settings = field(default_factory=dict)
    name: str = ""

    def steps_of(self, words: Set[str]) -> int:
        """Return the steps of the cell with these words, in small letters, in its name."""
        steps = self.steps
        for wanted, own in self.cell_steps.items():
            if set(wanted.lower().split()) <= words:
                steps = own
        return steps


@dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes:
        name: On the command line.
        title: What it is about.
        source: The paper.
        differs: What we do otherwise, one sentence each.
        rows: Its models.
        scales: How much of it can be asked for.
        base: The table whose runs it shares, in one folder. What it does not say is the base's; of its columns it
            names those that it has; a row of the base's needs no more than its name, one ``like`` it what differs.
        success: ``metric`` and the value ``at_least`` that a successful seed has.
        metrics: Its figures, by the paper's names.
        columns: Its data sets.
        measure: What is measured beside the metrics: nothing, ``"overlap"`` of samples, ``"variance"`` of gradients,
            ``"curves"`` of learning, ``"generation"``: what slot models draw, and in which order; or instead of them
            and without training, ``"parameters"``.
        settings: Of every model.
        variance: ``groups`` of parameters, and ``published`` figures by estimator and group.
        curves: ``levels`` of the count accuracy, ``ratios`` of pairs (method, form), ``hardware`` of the paper, and its
            ``published`` points (seconds, count accuracy) by row and column.
        parameters: ``image_shape``, ``parts`` (part -> beginnings of the parameters' names), and ``published`` numbers
            by row and part.
    """

    name: str
    title: str
    source: str
    differs: Sequence[str]
    rows: Sequence[Row]
    scales: Mapping[str, Scale]
    base: str = ""
    success: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)
    measure: str = ""
    settings: Settings = field(default_factory=dict)
    variance: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runs_of(self) -> str:
        """Name of the table whose cells it has."""
        return self.base or self.name

    @property
    def stem(self) -> str:
        """Name, without suffix, of the files that show it: another one than that of the table whose runs it has."""
        if self.measure == "curves":
            return "figure"
        return self.name if self.base else "table"

    def columns_of(self, scale: Scale) -> list[str]:
        """Return the columns that are trained at one of its scales."""
        return [
            key for key, column in self.columns.items() if not column.scales or scale.name in column.scales
        ]

    def row(self, name: str) -> Row:
        """Return the row of this name."""
        return next(row for row in self.rows if row.name == name)


@cache
def _document() -> dict[str, Any]:
    texts = [(files("cli.reproduction") / name).read_text(encoding="utf-8") for name in FILES]
    return {name: table for text in texts for name, table in tomllib.loads(text).items()}


def table_names() -> list[str]:
    """Return the names of all tables."""
    return [name for name in _document() if name != "scales"]


def find_table(name: str) -> Table:
    """Return the table of this name.

    Raises:
        UsageError: There is none.
    """
    if name not in table_names():
        raise UsageError(f"no table named {quoted(name)}.{did_you_mean(name, table_names())}")
    values = _document()[name]
    values = _over(_document().get(values.get("base"), {}), values)
    own = values.get("scales", {})
    return Table(
        name=name,
        metrics={key: Metric(**metric) for key, metric in values.get("metrics", {}).items()},
        columns={key: Column(**column) for key, column in values.get("columns", {}).items()},
        rows=tuple(_row(row) for row in values["rows"]),
        scales={
            key: Scale(name=key, **(scale | own.get(key, {}))) for key, scale in _document()["scales"].items()
        },
        **{key: values[key] for key in _plain_fields() if key in values},
    )


def _over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table's values over those of its base.

    A row of the same name, or one that is ``like`` another, is the base's but for what it says itself; published
    figures are the table's own.
    """
    values = {**base, **own}
    rows = {row["name"]: {**row, "published": {}} for row in base.get("rows", ())}
    if "rows" in own:
        values["rows"] = [rows.get(row.get("like", row["name"]), {}) | row for row in own["rows"]]
    if isinstance(own.get("columns"), list):
        values["columns"] = {key: base["columns"][key] for key in own["columns"]}
    return values


def _plain_fields() -> set[str]:
    return {each.name for each in fields(Table)} - {"name", "metrics", "columns", "rows", "scales"}


def _row(values: Mapping[str, Any]) -> Row:
    values = {name: value for name, value in values.items() if name != "like"}
    return Row(**{**values, "forms": {name: Form(**form) for name, form in values["forms"].items()}})
