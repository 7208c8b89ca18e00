"""What a data set is, in words: name, source, licence, citation, the meaning of its fields."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from multiobj_data.configuration import build
from multiobj_data.errors import MobjError, UsageError
from multiobj_data.manifest import MANIFEST, Manifest
from multiobj_data.plugins import BUILT_IN, names, resolve
from multiobj_data.presets import Preset, presets

# What the holders of the source images state. MNIST: the site of LeCun, Cortes and Burges; scikit-learn's digits:
# the UCI repository; dSprites and the public sets: their home pages and repositories.
_SOURCE_LICENCES = {
    "idx3-ubyte": "CC-BY-SA-3.0",
    "sklearn.datasets.load_digits": "CC-BY-4.0",
    "dsprites_ndarray": "Apache-2.0",
}
_SET_LICENCES = {
    "clevr": "CC-BY-4.0",
    "objects-room": "Apache-2.0",
    "multi-dsprites-mod": "Apache-2.0",
    "tetrominoes": "Apache-2.0",
    "shapestacks": "GPL-3.0-only",
}
_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")

FIELDS = {
    "index": "Number of the scene in its split, from 0.",
    "image": "The scene.",
    "count": "Number of objects.",
    "segments": "Label map of visible pixels: labels below background_segments are background, then label "
    "background_segments + k is object k.",
    "background_segments": "How many labels of the label map are background.",
    "boxes": "Box of each object, x0 y0 x1 y1 in pixels, half-open, origin top left; tight around all of the "
    "object's own pixels, hidden ones too. NaN where there is no object.",
    "amodal": "Each object's own pixels, hidden or not; one mask an object.",
    "factors/class": "Class of each object; -1 where there is no object.",
    "factors/depth_order": "Order in depth of each object: 0 is in front; -1 where there is no object.",
    "factors/visible_fraction": "Visible share of each object's own pixels; NaN where there is no object.",
    "factors/x": "Where each object's centre is from the left, in pixels; NaN where there is no object.",
    "factors/y": "Where each object's centre is from the top, in pixels; NaN where there is no object.",
    "factors/scale": "Scale of each object; NaN where there is no object.",
    "factors/source_index": "Number of each object's source image; -1 where there is no object.",
    "scene_factors/attempts": "Candidate scenes tried until this one was accepted.",
}


def field_text(name: str) -> str:
    """Return what a field of the truth means, in a sentence."""
    group, _, factor = name.partition("/")
    words = factor.replace("_", " ")
    default = (
        f"{words[:1].upper()}{words[1:]} of each object; NaN or -1 where there is none."
        if group == "factors"
        else f"{words[:1].upper()}{words[1:]} of the scene."
    )
    return FIELDS.get(name, default)


@dataclass(frozen=True)
class About:
    """What a data set is, in words.

    Attributes:
        name: Id with version.
        version: As major.minor.patch, e.g. ``1.0.0``.
        description: A sentence or two.
        citation: How to cite it, with the sources of its settings.
        licence: SPDX identifier, or ``None`` where nothing is known.
        date: Day on which it was finished, YYYY-MM-DD.
        drawn: Whether a generator drew it; otherwise it is somebody else's data.
        words: Factor -> value -> word, for factors whose values have names.
    """

    name: str
    version: str
    description: str
    citation: str
    licence: str | None
    date: str
    drawn: bool = True
    words: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest, folder: Path, licence: str | None = None) -> About:
        """Gather what is known.

        Args:
            manifest: The data set's manifest.
            folder: The data set; its manifest's day counts, unless ``SOURCE_DATE_EPOCH`` is set.
            licence: SPDX identifier, where the publisher knows better.

        Raises:
            UsageError: If the licence is no SPDX identifier.
        """
        if licence is not None and not _SPDX.fullmatch(licence):
            raise UsageError(f"licence: expected an SPDX identifier such as CC-BY-4.0, got {licence!r}.")
        number = re.search(r"-v([0-9]+)$", manifest.dataset)
        return cls(
            name=manifest.dataset,
            version=f"{number[1] if number else 1}.0.0",
            description=_description(manifest),
            citation=_citation(manifest),
            licence=licence or _licence(manifest),
            date=_date(folder),
            drawn=_is_drawn(manifest),
            words=_words(manifest),
        )


def _date(folder: Path) -> str:
    seconds = os.environ.get("SOURCE_DATE_EPOCH") or (folder / MANIFEST).stat().st_mtime
    try:
        return datetime.fromtimestamp(float(seconds), UTC).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"SOURCE_DATE_EPOCH: expected seconds since 1970, got {seconds!r}.") from error


def _description(manifest: Manifest) -> str:
    # A module that a file names is not imported: only what is built in describes itself.
    text = ""
    if manifest.generator in BUILT_IN["generators"]:
        text = inspect.getdoc(resolve("generators", manifest.generator)) or ""
    summary = " ".join(text.split("\n\n")[0].split()) or f"Multi-object scenes, {manifest.dataset}."
    notes = "".join(f" NOTE: {note.rstrip('.')}." for note in manifest.notes)
    return f"{summary} {origin(manifest)}.{notes}"


def origin(manifest: Manifest) -> str:
    """Return where the scenes come from, without a full stop."""
    if _is_drawn(manifest):
        return f"Drawn by mobj {manifest.toolkit} with seed {manifest.seed}"
    return f"Stored as scenes by mobj {manifest.toolkit}"


def _is_drawn(manifest: Manifest) -> bool:
    return ":" in manifest.generator or manifest.generator in names("generators")


def _words(manifest: Manifest) -> dict[str, dict[int, str]]:
    """Return what built-in generators call the values of their factors."""
    if manifest.generator not in BUILT_IN["generators"]:
        return {}
    try:
        generator = build(resolve("generators", manifest.generator), manifest.config)
    except MobjError:  # drawn by another version, with settings that are no more
        return {}
    vocabulary = getattr(generator, "vocabulary", {})
    return {
        factor: {code: word for word, code in words.items()}
        for factor, words in vocabulary.items()
        if words and all(isinstance(code, int) for code in words.values())
    }


def _citation(manifest: Manifest) -> str:
    text = f"{manifest.dataset}. {origin(manifest)}."
    fitting = {name: preset.about for name, preset in presets().items() if _has_settings(manifest, preset)}
    return text + "".join(f" Settings of {name}: {about.rstrip('.')}." for name, about in fitting.items())


def _has_settings(manifest: Manifest, preset: Preset) -> bool:
    same = (manifest.config.get(key) == value for key, value in preset.settings.items())
    return preset.generator == manifest.generator and all(same)


def _licence(manifest: Manifest) -> str | None:
    found = {
        licence for source in manifest.sources for part, licence in _SOURCE_LICENCES.items() if part in source
    }
    found |= {
        licence
        for prefix, licence in _SET_LICENCES.items()
        if re.match(rf"{prefix}[0-9]*(-v[0-9]+)?$", manifest.dataset)
    }
    return found.pop() if len(found) == 1 else None


def licence_address(name: str | None) -> str:
    """Return the address of a licence's text, or the words "not stated"."""
    return f"https://spdx.org/licenses/{name}.html" if name else "not stated"
