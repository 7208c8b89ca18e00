"""The formats by name, and the one way from a folder of shards to a folder of a format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from multiobj_data.errors import MobjError, UsageError, did_you_mean
from multiobj_data.exports.about import About
from multiobj_data.exports.folder import Exported, finished_export, new_folder
from multiobj_data.exports.names import FORMATS
from multiobj_data.exports.subset import Subset

Advance = Callable[[int], None]


class Format(Protocol):
    """What a module of a format has."""

    def write(self, subset: Subset, about: About, folder: Path, advance: Advance) -> None:
        """Write the data's files into ``folder``, calling ``advance(n)`` after every n scenes."""
        ...

    def reading(self, subset: Subset) -> str:
        """Return Markdown for the card: how to read the files, and what of the data is where."""
        ...

    def front_matter(self, subset: Subset) -> Mapping[str, Any]:
        """Return what the card's YAML header says beside licence, tags and size."""
        ...

    def croissant(self, subset: Subset) -> Mapping[str, list[dict[str, Any]]]:
        """Return Croissant's ``file_sets`` and ``record_sets``."""
        ...


def export(
    source: str | Path,
    format_name: str,
    out: str | Path | None = None,
    *,
    splits: Sequence[str] = (),
    limit: int | None = None,
    licence: str | None = None,
    on_progress: Advance = lambda n: None,
) -> Exported:
    """Write a stored data set in another format, with a card (README.md) and Croissant metadata.

    The folder appears under its name once it is whole. The same export into the same folder changes nothing;
    anything else that is there already is an error.

    Args:
        source: Folder of the data set.
        format_name: One of `FORMATS`.
        out: Folder to write; for ``"croissant"`` the data set's own, unless given.
        splits: Which splits; all if empty.
        limit: At most so many scenes a split.
        licence: SPDX identifier of the data's licence; default: what is known of its source images.
        on_progress: Called with the number of scenes that are done since the last call.

    Returns:
        What was written.

    Raises:
        UsageError: For an unknown format or split, or if ``out`` holds anything else.
        DataError: If the data set is missing or cannot be read.
        VerificationError: If a shard is not what the manifest says.
        MobjError: If a library is missing, or the disk is full.
    """
    subset = Subset.of(Path(source), splits, limit)
    about = About.of(subset.manifest, subset.folder, licence)
    writer = format_named(format_name)
    if format_name == "croissant":
        from multiobj_data.exports.croissant import write_beside_shards

        done = write_beside_shards(subset, about, Path(out) if out else subset.folder)
        on_progress(subset.total)
        return done
    if not out:
        raise UsageError("expected a folder to write to, got none; give one with --out.")
    target = Path(out)
    if subset.folder.resolve() in target.resolve().parents:
        raise UsageError(
            f"--out {target} lies inside the data set {subset.folder}; choose a folder outside it."
        )
    request = subset.request | {"format": format_name, "licence": about.licence}
    if (there := finished_export(target, request)) is not None:
        on_progress(subset.total)
        return there
    subset.check_shards()
    with new_folder(target, request) as folder, needs_libraries(format_name):
        writer.write(subset, about, folder, on_progress)
        _describe(subset, about, writer, format_name, folder)
    return Exported.read(target)


def format_named(name: str) -> Format:
    """Return the module of a format."""
    if name not in FORMATS:
        raise UsageError(f"no format named {name!r}.{did_you_mean(name, FORMATS)}")
    return cast(Format, import_module(f"multiobj_data.exports.{name}"))


def _describe(subset: Subset, about: About, writer: Format, name: str, folder: Path) -> None:
    """Write the card and Croissant metadata beside the data's files."""
    from multiobj_data.exports.card import card
    from multiobj_data.exports.croissant import document, file_objects
    from multiobj_data.files import to_json, write_atomically

    files = file_objects(folder)
    parts = writer.croissant(subset)
    write_atomically(folder / "croissant.json", to_json(document(subset, about, files, parts)).encode())
    text = card(subset, about, writer.reading(subset), writer.front_matter(subset), name)
    write_atomically(folder / "README.md", text.encode())


@contextmanager
def needs_libraries(format_name: str) -> Iterator[None]:
    """Turn a missing library into one sentence that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "?").split(".")[0]
        raise MobjError(
            f"--to {format_name} needs the library {library}, which is not installed; "
            "run `pip install 'mobj[export]'`."
        ) from error
