"""COCO: instances JSON with run-length masks of visible pixels, images and label maps as PNG."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from multiobj_data.exports import croissant_fields as fields
from multiobj_data.exports.about import About, licence_address
from multiobj_data.exports.rle import encode
from multiobj_data.exports.subset import Subset, columns_of, json_values, png, word
from multiobj_data.scenes import Scenes
from multiobj_data.shards.hdf5 import open_shard

_CLASSES = ("factors/class", "factors/shape")  # the first that there is gives the categories


def write(subset: Subset, about: About, folder: Path, advance: Callable[[int], None]) -> None:
    """Write ``annotations/instances_SPLIT.json``, ``images/SPLIT/*.png`` and ``segments/SPLIT/*.png``."""
    (folder / "annotations").mkdir()
    categories = _categories(subset, about)
    for split in subset.splits:
        pictures = [folder / kind / word(split) for kind in ("images", "segments")]
        for place in pictures:
            place.mkdir(parents=True)
        with _Instances(folder / _file(split), _head(about), list(categories.values())) as document:
            for indices, scenes in subset.batches(subset.whole(split)):
                for row, index in enumerate(indices):
                    (pictures[0] / _picture(index)).write_bytes(png(scenes.image[row]))
                    (pictures[1] / _picture(index)).write_bytes(png(scenes.segments[row]))
                _describe(document, indices, scenes, categories)
                advance(len(indices))


def reading(subset: Subset) -> str:
    """See `multiobj_data.exports.formats.Format`."""
    split = word(subset.splits[0])
    amodal = ", `amodal_segmentation` those pixels themselves" if subset.has_amodal else ""
    return f"""
```python
from pycocotools.coco import COCO

coco = COCO("annotations/instances_{split}.json")
image = coco.loadImgs(0)[0]  # pixels: images/{split}/ + image["file_name"]
for annotation in coco.loadAnns(coco.getAnnIds(imgIds=0)):
    mask, box = coco.annToMask(annotation), annotation["bbox"]
```

`segmentation` and `bbox` (x, y, width, height) are of an object's visible pixels, as everywhere in COCO.
`amodal_bbox` is the box around all of its own pixels, hidden or not{amodal}.
`object` is its place in the scene, `factors` its factors. An object without a visible pixel would break COCO's tools:
it stands in the list `hidden_annotations` instead. A category's id is the class (or shape) + 1.

The id of an image is the number of the scene in its split; `count`, `background_segments` and `scene_factors` stand
beside it. `segments/` holds the label maps under the images' names: background of several parts has no other place.
"""


def front_matter(subset: Subset) -> Mapping[str, Any]:
    """See `multiobj_data.exports.formats.Format`."""
    return {}


def croissant(subset: Subset) -> Mapping[str, list[dict[str, Any]]]:
    """Describe images, label maps and annotations as record sets."""
    file_sets, record_sets = [], []
    for split in map(word, subset.splits):
        for kind in ("images", "segments"):
            files, records = f"{split}-{kind}-files", f"{split}-{kind}"
            file_sets.append(
                {
                    "@type": "cr:FileSet",
                    "@id": files,
                    "encodingFormat": "image/png",
                    "includes": f"{kind}/{split}/*.png",
                }
            )
            record_sets.append(_picture_records(records, kind, files))
        record_sets.append(_annotation_records(f"{split}-annotations", _file(split).as_posix()))
    return {"file_sets": file_sets, "record_sets": record_sets}


def _picture_records(records: str, kind: str, files: str) -> dict[str, Any]:
    def source(what: str) -> dict[str, Any]:
        return {"fileSet": {"@id": files}, "extract": {"fileProperty": what}}

    name = "image" if kind == "images" else "segments"
    file = fields.field(
        f"{records}/file_name", "sc:Text", source("filename"), description="Name of the file."
    )
    return fields.record_set(records, [file, fields.image_field(records, name, source("content"))])


def _annotation_records(records: str, file: str) -> dict[str, Any]:
    def column(name: str, kind: str, text: str, **more: Any) -> dict[str, Any]:
        path = f"$.annotations[*].{name}"
        source = {"fileObject": {"@id": file}, "extract": {"jsonPath": path}}
        return fields.field(f"{records}/{name}", kind, source, description=text, **more)

    box = {"isArray": True, "arrayShape": "4"}
    return fields.record_set(
        records,
        [
            column("image_id", "cr:Int64", "Number of the scene in its split."),
            column("category_id", "cr:Int64", "Class + 1."),
            column("bbox", "cr:Float64", "Box of the visible pixels: x, y, width, height.", **box),
            column("amodal_bbox", "cr:Float64", "Box of all of the object's own pixels.", **box),
            column("area", "cr:Int64", "Number of visible pixels."),
        ],
    )


def _file(split: str) -> Path:
    return Path("annotations") / f"instances_{word(split)}.json"


def _picture(index: int) -> str:
    return f"{index:09d}.png"


def _head(about: About) -> dict[str, Any]:
    info = {"description": about.description, "version": about.version, "date_created": about.date}
    licences = [{"id": 1, "name": about.licence, "url": licence_address(about.licence)}]
    return {
        "info": {**info, "year": int(about.date[:4]), "contributor": about.citation},
        "licenses": licences if about.licence else [],
    }


def _class_factor(columns: Mapping[str, np.ndarray]) -> str | None:
    """Return the name of the factor that says what an object is: one whole number an object."""
    for name in _CLASSES:
        if name in columns and columns[name].ndim == 2 and columns[name].dtype.kind in "iu":
            return name
    return None


def _categories(subset: Subset, about: About) -> dict[int, dict[str, Any]]:
    """Return value -> category for each class of the whole data set, so that parts of it agree; else ``object``.

    An object of unknown class (below 0) is of a category of its own, under the key -1.
    """
    factor = _class_factor(subset.columns)
    if factor is None:
        return {-1: _category(1, "object")}
    found: set[int] = set()
    for record in subset.manifest.splits.values():
        for shard in record.shards:
            with open_shard(subset.folder / shard.file) as file:
                values = file[factor][...]
                found |= set(values[np.arange(values.shape[1]) < file["count"][...][:, None]].tolist())
    known = sorted(value for value in found if value >= 0)
    words = about.words.get(factor.removeprefix("factors/"), {})
    categories = {value: _category(value + 1, words.get(value, str(value))) for value in known}
    if len(known) < len(found):
        categories[-1] = _category(max(known, default=0) + 2, "unknown")
    return categories


def _category(number: int, name: str) -> dict[str, Any]:
    return {"id": number, "name": name, "supercategory": "object"}


@dataclass
class _Instances:
    """A COCO file whose lists grow side by side: each in a file of its own until the end."""

    path: Path
    head: Mapping[str, Any]
    categories: list[dict[str, Any]]
    lists: dict[str, IO[str]] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> _Instances:
        for name in ("images", "annotations", "hidden_annotations"):
            self.lists[name] = open(self._spool(name), "w+")
            self.lengths[name] = 0
        return self

    def add(self, name: str, entry: Mapping[str, Any]) -> None:
        """Append to a list."""
        self.lists[name].write(",\n" if self.lengths[name] else "\n")
        self.lists[name].write(json.dumps(entry, allow_nan=False))
        self.lengths[name] += 1

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self._assemble()
        for name, file in self.lists.items():
            file.close()
            self._spool(name).unlink()

    def _assemble(self) -> None:
        with open(self.path, "w") as out:
            out.write(json.dumps({**self.head, "categories": self.categories})[:-1])
            for name, file in self.lists.items():
                out.write(f',\n"{name}": [')
                file.seek(0)
                while block := file.read(1 << 20):
                    out.write(block)
                out.write("]")
            out.write("}\n")

    def _spool(self, name: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{name}")


def _describe(
    document: _Instances, indices: np.ndarray, scenes: Scenes, categories: Mapping[int, dict[str, Any]]
) -> None:
    """Add a batch of scenes to a file."""
    columns = columns_of(indices, scenes)
    h, w = scenes.segments.shape[1:]
    for row, index in enumerate(indices.tolist()):
        document.add(
            "images",
            {
                "id": index,
                "file_name": _picture(index),
                "height": h,
                "width": w,
                "count": int(scenes.count[row]),
                "background_segments": scenes.background_segments,
                "scene_factors": _values(columns, "scene_factors", (row,)),
            },
        )
        for annotation in _annotations(scenes, columns, row, categories):
            name = "annotations" if annotation["area"] else "hidden_annotations"
            number = sum(document.lengths[key] for key in ("annotations", "hidden_annotations")) + 1
            document.add(name, {"id": number, "image_id": index, **annotation})


def _annotations(
    scenes: Scenes, columns: Mapping[str, np.ndarray], row: int, categories: Mapping[int, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    factor = _class_factor(columns)
    for k in range(int(scenes.count[row])):
        value = int(columns[factor][row, k]) if factor else -1
        mask = scenes.segments[row] == scenes.background_segments + k
        x0, y0, x1, y1 = scenes.boxes[row, k].astype(np.float64)
        yield {
            "object": k,
            "category_id": categories[max(value, -1)]["id"],
            "segmentation": encode(mask),
            "area": int(mask.sum()),
            "bbox": _visible_box(mask),
            "iscrowd": 0,
            "amodal_bbox": json_values(np.array([x0, y0, x1 - x0, y1 - y0])),
            **({} if scenes.amodal is None else {"amodal_segmentation": encode(scenes.amodal[row, k])}),
            "factors": _values(columns, "factors", (row, k)),
        }


def _values(columns: Mapping[str, np.ndarray], group: str, place: tuple[int, ...]) -> dict[str, Any]:
    """Return the factors of a scene or of an object, JSON-ready."""
    prefix = f"{group}/"
    return {
        name.removeprefix(prefix): json_values(np.asarray(values[place]))
        for name, values in columns.items()
        if name.startswith(prefix)
    }


def _visible_box(mask: np.ndarray) -> list[float]:
    """Return x, y, width, height of the smallest box around the true pixels; all 0 if there is none."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return [0.0, 0.0, 0.0, 0.0]
    return [float(v) for v in (xs[0], ys[0], xs[-1] + 1 - xs[0], ys[-1] + 1 - ys[0])]
