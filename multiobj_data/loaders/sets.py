"""The public sets that `mobj convert` reads: their ids, files and addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from multiobj_data.errors import DataError, UsageError, did_you_mean
from multiobj_data.loaders.download import OnBytes, fetch_any

DOWNLOAD = "download"
_HOST = "https://storage.googleapis.com/multi-object-datasets/"


@dataclass(frozen=True)
class PublicSet:
    """A public set.

    Attributes:
        name: As on the command line.
        id: Id of what is written, with version.
        source: Whose records they are, and whose protocols apply: ``clevr``, ``objects-room``, ...
        about: One line.
        slots: K: most objects in any of its scenes.
        shape: Height and width of its pictures.
        files: File name -> the split to which its scenes go, or ``None`` where the protocol decides.
        folder: Where the files lie at their publisher; "" for sets without single files.
        most: Most objects in a scene that is kept, by default; ``None`` keeps all.
    """

    name: str
    id: str
    source: str
    about: str
    slots: int
    shape: tuple[int, int]
    files: Mapping[str, str | None] = field(default_factory=dict)
    folder: str = ""
    most: int | None = None

    def addresses(self) -> list[str]:
        """Return where the files can be had."""
        return [f"{_HOST}{self.folder}/{file}" for file in self.files] if self.folder else []


_CLEVR: Mapping[str, str | None] = {"clevr_with_masks_train.tfrecords": None}
_SETS = (
    PublicSet(
        "clevr6",
        "clevr6-v1",
        "clevr",
        "CLEVR with masks (multi_object_datasets, Kabra et al. 2019), scenes of at most 6 objects",
        10,
        (240, 320),
        _CLEVR,
        "clevr_with_masks",
        most=6,
    ),
    PublicSet(
        "clevr",
        "clevr-v1",
        "clevr",
        "CLEVR with masks (multi_object_datasets, Kabra et al. 2019), 3-10 objects, 100,000 scenes",
        10,
        (240, 320),
        _CLEVR,
        "clevr_with_masks",
    ),
    PublicSet(
        "objects-room",
        "objects-room-v1",
        "objects-room",
        "Objects Room (multi_object_datasets, Kabra et al. 2019), 1-3 objects and three test conditions",
        6,
        (64, 64),
        {
            "objects_room_train.tfrecords": None,
            "objects_room_test_empty_room.tfrecords": "empty-room",
            "objects_room_test_six_objects.tfrecords": "six-objects",
            "objects_room_test_identical_color.tfrecords": "identical-color",
        },
        "objects_room",
    ),
    PublicSet(
        "multi-dsprites-mod",
        "multi-dsprites-mod-v1",
        "multi-dsprites-mod",
        "Multi-dSprites (multi_object_datasets, Kabra et al. 2019), one of its three files",
        5,
        (64, 64),
        dict.fromkeys(
            f"multi_dsprites_{kind}.tfrecords"
            for kind in ("colored_on_grayscale", "colored_on_colored", "binarized")
        ),
        "multi_dsprites",
    ),
    PublicSet(
        "tetrominoes",
        "tetrominoes-v1",
        "tetrominoes",
        "Tetrominoes (multi_object_datasets, Kabra et al. 2019), 3 pieces, 35x35",
        3,
        (35, 35),
        {"tetrominoes_train.tfrecords": None},
        "tetrominoes",
    ),
    PublicSet(
        "shapestacks",
        "shapestacks-v1",
        "shapestacks",
        "ShapeStacks (Groth et al. 2018), 2-6 blocks, stable or not, 16 cameras",
        6,
        (224, 224),
    ),
)
PUBLIC_SETS: Mapping[str, PublicSet] = {each.name: each for each in _SETS}


def find_set(name: str) -> PublicSet:
    """Return a public set by name.

    Raises:
        UsageError: If there is none.
    """
    if name not in PUBLIC_SETS:
        raise UsageError(f"no public set named {name!r}.{did_you_mean(name, PUBLIC_SETS)}")
    return PUBLIC_SETS[name]


def download(
    public: PublicSet,
    source: str,
    folder: Path,
    on_bytes: OnBytes = lambda name, done, total: None,
    mirrors: Sequence[str] = (),
) -> Path:
    """Download a set's files into ``folder``; return the one file, or the folder of several.

    Args:
        public: The set.
        source: ``download`` for the publisher's addresses, one file's address, or the address of a folder of them
            (ending in ``/``): a mirror.
        folder: Where they are kept.
        on_bytes: Told how it goes.
        mirrors: Addresses of folders that have the same files, asked in this order for what ``source`` does not give.

    Raises:
        UsageError: If it has to be said which file is meant, or the set cannot be downloaded like this.
        DataError: If a file is not to be had; see `multiobj_data.loaders.download.fetch`.
    """
    addresses = public.addresses() if source == DOWNLOAD else [source]
    if source.endswith("/"):
        addresses = [source + file for file in public.files]
    if not addresses:
        raise UsageError(
            f"{public.name} cannot be downloaded by mobj; get its files and give their folder as SOURCE."
        )
    if public.name == "multi-dsprites-mod" and len(addresses) > 1:
        raise UsageError(
            f"{public.name} has {len(addresses)} variants; give one address as SOURCE: {' '.join(addresses)}"
        )
    paths = []
    for address in addresses:
        others = [f"{mirror.rstrip('/')}/{address.rpartition('/')[2]}" for mirror in mirrors]
        paths.append(fetch_any([address, *others], folder / public.source, on_bytes))
    return paths[0] if len(paths) == 1 else folder / public.source


def find_files(public: PublicSet, source: Path) -> list[tuple[Path, str | None]]:
    """Return the files of a set with the split of each; ``source`` is one of them, or their folder.

    A file by another name is taken as it is: its content says what it holds.

    Raises:
        DataError: If there is none; the message says where they can be had.
    """
    if source.is_file():
        return [(source, public.files.get(source.name))]
    if source.exists() and not source.is_dir():
        raise DataError(
            f"{source}: expected a file on a disk, got a pipe or a device, and a source is read twice (for its "
            "SHA-256, then for its scenes) and again after an interruption; store it in a file first."
        )
    if source.is_dir():
        found = [(source / name, split) for name, split in public.files.items() if (source / name).is_file()]
        if public.name == "multi-dsprites-mod" and len(found) > 1:
            raise UsageError(
                f"{source} holds {len(found)} variants of {public.name} ({', '.join(path.name for path, _ in found)}); "
                "name the one file to convert."
            )
        if found:
            return found
    raise DataError(
        f"{source}: expected one of {', '.join(public.files)}, or a folder that holds it; found none. "
        f"`mobj convert {public.name} {DOWNLOAD}` gets them from {' '.join(public.addresses())}"
    )
