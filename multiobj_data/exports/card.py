"""The dataset card: README.md with a YAML header that the Hugging Face Hub reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from multiobj_data.exports.about import About, field_text, origin
from multiobj_data.exports.subset import Subset

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
_HUB_LICENCES = [  # those that the Hub knows by name and that data have
    *("apache-2.0", "bsd-3-clause", "gpl-3.0", "mit", "odc-by", "pddl"),
    *("cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    *("cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
]


def card(subset: Subset, about: About, reading: str, front: Mapping[str, Any], format_name: str) -> str:
    """Return the text of README.md.

    Args:
        subset: What is exported.
        about: What it is, in words.
        reading: Markdown: how to read the files, and what of the data is where.
        front: What the YAML header says beside licence, tags and size.
        format_name: For the line that says how the folder was made.
    """
    manifest = subset.manifest
    header = {
        **_licence(about.licence),
        "task_categories": ["object-detection", "image-segmentation"],
        "tags": ["multi-object", "object-centric", "synthetic", "mobj"],
        "size_categories": [next((text for size, text in _SIZES if subset.total < size), "n>1M")],
        **front,
    }
    height, width, channels = manifest.image_shape
    rows = "\n".join(f"| {split} | {subset.rows(split):,} |" for split in subset.splits)
    fields = "\n".join(_field_lines(subset, about))
    sources = "\n".join(f"- {name}: SHA-256 `{digest}`" for name, digest in manifest.sources.items())
    text = f"""---
{yaml(header)}---

# {about.name}

{about.description}

Images are {height} x {width} with {channels} channel{"s" if channels > 1 else ""}, of up to \
{manifest.max_objects} objects. Licence: {about.licence or "not stated"}. Cite as: {about.citation}

| split | scenes |
|---|---|
{rows}

## Reading

{reading.strip()}

## Fields

{fields}

A value that does not exist is NaN, or -1 for whole numbers; in JSON, NaN is `null`. Objects fill the first
`count` places.

## How it was made

`mobj export --to {format_name}` wrote this folder from shards; `croissant.json` describes it for machines.
{origin(manifest)}, with these settings:

```json
{json.dumps(manifest.config, indent=2, sort_keys=True)}
```

{"Files that it was made from:" if sources else ""}

{sources}
"""
    return text.rstrip() + "\n"


def _field_lines(subset: Subset, about: About) -> list[str]:
    names = ["image", "segments", *(["amodal"] if subset.has_amodal else []), *subset.columns]
    lines = []
    for name in names:
        values = subset.columns.get(name)
        kind = "" if values is None else f" ({values.dtype}{list(values.shape[1:]) or ''})"
        words = about.words.get(name.removeprefix("factors/"), {})
        if values is None or values.dtype.kind not in "iu" or values.ndim != 2:
            words = {}
        codes = ", ".join(f"{value} {word}" for value, word in sorted(words.items()))
        lines.append(
            f"- `{name}`{kind}: {field_text(name, drawn=about.drawn)}{f' Values: {codes}.' if codes else ''}"
        )
    return lines


def _licence(name: str | None) -> dict[str, Any]:
    """Return the header's licence: the Hub knows only some by name."""
    if name is None:
        return {"license": "unknown"}
    known = name.lower().removesuffix("-only")
    return (
        {"license": known} if known in _HUB_LICENCES else {"license": "other", "license_name": name.lower()}
    )


def yaml(value: Any, indent: int = 0) -> str:
    """Return nested dicts and lists as YAML; texts are quoted as JSON, which YAML contains."""
    pad, lines = " " * indent, []
    items = value.items() if isinstance(value, Mapping) else ((None, item) for item in value)
    for key, item in items:
        head = f"{pad}-" if key is None else f"{pad}{key}:"
        if isinstance(item, Mapping | list) and item:
            body = yaml(item, indent + 2)
            lines.append(f"{head} {body.lstrip()}" if key is None else f"{head}\n{body}")
        else:
            lines.append(f"{head} {json.dumps(item)}\n")
    return "".join(lines)
