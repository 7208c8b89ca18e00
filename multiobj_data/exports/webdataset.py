"""WebDataset: tar files in which a scene is ``KEY.png``, ``KEY.seg.png``, ``KEY.json`` and, if kept, masks."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multiobj_data.exports.about import About
from multiobj_data.exports.croissant_fields import field, field_id, image_field, record_set
from multiobj_data.exports.subset import Subset, columns_of, json_values, nested, png, word
from multiobj_data.scenes import Scenes

_KEY = 9  # digits: more than `multiobj_data.generation.plan.MOST_SCENES` needs


def write(subset: Subset, about: About, folder: Path, advance: Callable[[int], None]) -> None:
    """Write ``SPLIT-00000-of-00008.tar``; times and owners are 0, so that equal scenes give equal bytes."""
    for split in subset.splits:
        for part in subset.parts(split):
            with tarfile.open(folder / part.file("tar"), "w", format=tarfile.USTAR_FORMAT) as archive:
                for indices, scenes in subset.batches(part):
                    for name, content in _members(indices, scenes):
                        member = tarfile.TarInfo(name)
                        member.size = len(content)
                        archive.addfile(member, io.BytesIO(content))
                    advance(len(indices))


def reading(subset: Subset) -> str:
    """See `multiobj_data.exports.formats.Format`."""
    last = len(subset.parts(subset.splits[0])) - 1
    total, name = f"{last + 1:05d}", word(subset.splits[0])
    amodal = """
`amodal.png` holds each object's own pixels as a 1-bit image, one object below the other:
`np.asarray(picture).reshape(K, H, W)` after `PIL.Image.open`.
"""
    return f"""
```python
import io, json, numpy as np, PIL.Image, webdataset

for row in webdataset.WebDataset("{name}-{{00000..{last:05d}}}-of-{total}.tar", shardshuffle=False):
    image = np.asarray(PIL.Image.open(io.BytesIO(row["png"])))
    segments = np.asarray(PIL.Image.open(io.BytesIO(row["seg.png"])))
    truth = json.loads(row["json"])  # count, boxes, factors, ...
```

`segments` holds small whole numbers: decode it as above, not with `.decode("rgb")`, which makes floats of them.
{amodal if subset.has_amodal else ""}"""


def front_matter(subset: Subset) -> Mapping[str, Any]:
    """See `multiobj_data.exports.formats.Format`."""
    files = [{"split": word(split), "path": f"{word(split)}-*.tar"} for split in subset.splits]
    return {"configs": [{"config_name": "default", "data_files": files}]}


def croissant(subset: Subset) -> Mapping[str, list[dict[str, Any]]]:
    """Describe the members of each kind as a record set; a scene's members share their key."""
    file_sets, record_sets = [], []
    for split in subset.splits:
        archives = [{"@id": part.file("tar")} for part in subset.parts(split)]
        for name, ending, kind in _kinds(subset):
            files = f"{word(split)}-{name}-files"
            file_sets.append(
                {
                    "@type": "cr:FileSet",
                    "@id": files,
                    "containedIn": archives,
                    "encodingFormat": kind,
                    "includes": f"{'?' * _KEY}.{ending}",
                }
            )
            record_sets.append(_record_set(f"{word(split)}-{name}", name, files, kind))
    return {"file_sets": file_sets, "record_sets": record_sets}


def _kinds(subset: Subset) -> list[tuple[str, str, str]]:
    kinds = [("image", "png", "image/png"), ("segments", "seg.png", "image/png")]
    if subset.has_amodal:
        kinds.append(("amodal", "amodal.png", "image/png"))
    return [*kinds, ("truth", "json", "application/json")]


def _record_set(records: str, name: str, files: str, kind: str) -> dict[str, Any]:
    def source(what: str) -> dict[str, Any]:
        return {"fileSet": {"@id": files}, "extract": {"fileProperty": what}}

    key = source("filename") | {"transform": {"regex": r"^(\d+)\."}}
    fields = [field(field_id(records, "key"), "sc:Text", key, description="Number of the scene.")]
    if name == "truth":
        text = "The scene's numbers, as a JSON object."
        fields.append(field(field_id(records, name), "sc:Text", source("content"), description=text))
    else:
        fields.append(image_field(records, name, source("content")))
    return record_set(records, fields)


def _members(indices: np.ndarray, scenes: Scenes) -> Iterator[tuple[str, bytes]]:
    columns = columns_of(indices, scenes)
    for row, index in enumerate(indices):
        key = f"{index:0{_KEY}d}"
        yield f"{key}.png", png(scenes.image[row])
        yield f"{key}.seg.png", png(scenes.segments[row])
        if scenes.amodal is not None:
            yield f"{key}.amodal.png", png(scenes.amodal[row].reshape(-1, scenes.amodal.shape[-1]))
        truth = nested({name: json_values(values[row]) for name, values in columns.items()})
        yield f"{key}.json", json.dumps(truth, allow_nan=False).encode()
