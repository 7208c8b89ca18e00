"""Croissant 1.1: the data set described for machines, as JSON-LD that ``mlcroissant`` validates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multiobj_data.errors import UsageError
from multiobj_data.exports.about import About, field_text, licence_address, origin
from multiobj_data.exports.croissant_fields import field, field_id, record_set
from multiobj_data.exports.folder import Exported
from multiobj_data.exports.subset import Subset
from multiobj_data.files import make_folder, sha256_of, to_json, write_atomically
from multiobj_data.shards.manifest import MANIFEST
from multiobj_data.version import __version__

FILE = "croissant.json"
_CARD = "README.md"
_MARK = "`mobj export --to croissant` wrote"  # in every card of ours
_MARK_JSON = "Described by mobj"
_ENCODINGS = {
    ".h5": "application/x-hdf5",
    ".json": "application/json",
    ".parquet": "application/x-parquet",
    ".tar": "application/x-tar",
    ".npz": "application/zip",
    ".png": "image/png",
}

# As the specification of Croissant 1.1 gives it.
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def document(
    subset: Subset,
    about: About,
    files: Sequence[dict[str, Any]],
    parts: Mapping[str, Sequence[dict[str, Any]]],
) -> dict[str, Any]:
    """Return the JSON-LD.

    Args:
        subset: What is described.
        about: What it is, in words.
        files: As `file_objects` returns them.
        parts: ``file_sets`` and ``record_sets``.
    """
    manifest = subset.manifest
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": about.name,
        "description": about.description,
        "citeAs": about.citation,
        "license": licence_address(about.licence),
        "version": about.version,
        "datePublished": about.date,
        "creator": {
            "@type": "sc:Organization",
            "name": f"mobj {manifest.toolkit}",
        },
        "keywords": ["multi-object scenes", "object-centric learning", "synthetic", manifest.generator],
        "rai:dataCollection": f"{origin(manifest)}: {manifest.generator}; the same settings give the same bytes.",
        "rai:dataCollectionType": ["Software Collection" if about.drawn else "Secondary Data Analysis"],
        "rai:dataAnnotationProtocol": [
            "Exact by construction: the truth is what was drawn." if about.drawn else "As in the original."
        ],
        "rai:dataLimitations": ["Synthetic scenes; nothing follows for natural images.", *manifest.notes],
        "rai:dataBiases": ["Counts, classes and places have the distribution that the settings state."],
        "rai:dataUseCases": ["Training and testing models that find, count and segment objects."],
        "rai:personalSensitiveInformation": ["None."],
        "rai:dataReleaseMaintenancePlan": f"{_MARK_JSON} {__version__}; a changed data set has another version.",
        "distribution": [*files, *parts.get("file_sets", ())],
        "recordSet": [_as_of(about, records) for records in parts.get("record_sets", ())],
    }


def _as_of(about: About, records: dict[str, Any]) -> dict[str, Any]:
    """Return a record set whose fields say what they mean in somebody else's data, if that is what they are."""
    if about.drawn:
        return records
    fields = []
    for each in records["field"]:
        name = each["name"].partition("/")[2]
        is_ours = each["description"] == field_text(name)
        fields.append({**each, "description": field_text(name, drawn=False)} if is_ours else each)
    return {**records, "field": fields}


def file_objects(folder: Path) -> list[dict[str, Any]]:
    """Describe every file below ``folder`` with its SHA-256, but PNG files: they are many, and sets describe them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".png")
    return [
        file_object(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_of(path))
        for path in paths
    ]


def file_object(name: str, size: int, sha256: str) -> dict[str, Any]:
    """Describe one file; ``name`` is its path beside the description."""
    ending = Path(name).suffix
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{size} B",
        "encodingFormat": _ENCODINGS.get(ending, "application/octet-stream"),
        "sha256": sha256,
    }


def write_beside_shards(subset: Subset, about: About, out: Path) -> Exported:
    """Write ``croissant.json`` and a card for the shards themselves; what is not ours is not overwritten.

    Raises:
        UsageError: If there is a limit, or a card or a description of another origin in ``out``.
    """
    from multiobj_data.exports.card import card

    if subset.limit is not None:
        raise UsageError("croissant describes whole shards; leave the limit out.")
    subset.check_shards()
    make_folder(out)
    described = document(subset, about, _shard_objects(subset), {"record_sets": [_shard_list()]})
    texts = {FILE: to_json(described), _CARD: card(subset, about, _reading(subset), {}, "croissant")}
    for name, mark in ((FILE, _MARK_JSON), (_CARD, _MARK)):
        path = out / name
        if path.exists() and mark not in path.read_text(errors="replace"):
            raise UsageError(
                f"{path} was not written by this command; move it away, or choose another --out."
            )
    files = {}
    for name, text in texts.items():
        write_atomically(out / name, text.encode())
        files[name] = sha256_of(out / name)
    return Exported(str(out), subset.request | {"format": "croissant", "licence": about.licence}, files)


def _shard_objects(subset: Subset) -> list[dict[str, Any]]:
    manifest = subset.folder / MANIFEST
    files = [file_object(MANIFEST, manifest.stat().st_size, sha256_of(manifest))]
    for split in subset.splits:
        for shard in subset.manifest.splits[split].shards:
            size = (subset.folder / shard.file).stat().st_size
            files.append(file_object(shard.file, size, shard.sha256))
    return files


def _shard_list() -> dict[str, Any]:
    """Readers of Croissant know no HDF5; what they can iterate over is the list of shards in the manifest."""
    fields = []
    for name, kind in (("file", "sc:Text"), ("rows", "cr:Int64"), ("sha256", "sc:Text")):
        source = {"fileObject": {"@id": MANIFEST}, "extract": {"jsonPath": f"$.splits.*.shards[*].{name}"}}
        fields.append(field(field_id("shards", name), kind, source, description=_SHARD[name]))
    return record_set("shards", fields)


_SHARD = {
    "file": "Name of the shard's file.",
    "rows": "Scenes in it.",
    "sha256": "SHA-256 of the file.",
}


def _reading(subset: Subset) -> str:
    return f"""
The scenes are in HDF5 shards; `dataset.json` lists them with settings and SHA-256.

```python
from multiobj_data import open_dataset

scenes = open_dataset("path/of/this/folder", "{subset.splits[0]}").scenes([0, 1, 2])
scenes.image, scenes.count, scenes.segments, scenes.boxes, scenes.factors
```

Without mobj: `h5py.File(shard)` holds `image`, `segments`, `count`, `boxes`, `factors/NAME`, `scene_factors/NAME`
and, where kept, `amodal` (bits packed along the width, attribute `width`); `background_segments` is an attribute.
"""
