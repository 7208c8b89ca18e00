"""What a data set is, in words: name, source, licence, citation, the meaning of its fields."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from multiobj_data.configuration import build, recorded
from multiobj_data.errors import MobjError, UsageError
from multiobj_data.loaders.sets import PUBLIC_SETS, PublicSet
from multiobj_data.plugins import BUILT_IN, names, resolve
from multiobj_data.presets import Preset, presets
from multiobj_data.shards.manifest import CONVERTED, MANIFEST, Manifest

# What the holders of the source images state. MNIST: the site of LeCun, Cortes and Burges; scikit-learn's digits:
# the UCI repository; dSprites: its repository.
_SOURCE_LICENCES = {
    "idx3-ubyte": "CC-BY-SA-3.0",
    "sklearn.datasets.load_digits": "CC-BY-4.0",
    "dsprites_ndarray": "Apache-2.0",
}

# Public sets by the source of their records: licence and whom to cite. The repository of multi_object_datasets, which
# publishes the data, is under Apache-2.0 as a whole (its CLEVR pictures were rendered anew, so that CLEVR's own licence
# is not theirs). ShapeStacks' pages state no licence of the data.
_KABRA = (
    "Data: Kabra et al. (2019), Multi-Object Datasets, https://github.com/deepmind/multi_object_datasets."
)
_PUBLIC: Mapping[str, tuple[str | None, str]] = {
    **dict.fromkeys(("clevr", "objects-room", "multi-dsprites-mod", "tetrominoes"), ("Apache-2.0", _KABRA)),
    "shapestacks": (
        None,
        "Data: Groth et al. (2018), ShapeStacks: Learning Vision-Based Physical Intuition for Generalised Object "
        "Stacking, arXiv:1804.08018; for their licence, see the publisher.",
    ),
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

_FIELDS_OF_OTHERS = {
    "boxes": "Box of each object, x0 y0 x1 y1 in pixels, half-open, origin top left; tight around what is visible of "
    "it in the label map. NaN where there is no object.",
    "factors/pixels": "Visible pixels of each object; -1 where there is no object.",
    "factors/source_entity": "Number of each object among the source's masks; -1 where there is no object.",
    "scene_factors/source_index": "Number of the scene in its source file, from 0.",
    "scene_factors/source_count": "Number of objects that the source states, visible here or not.",
    "scene_factors/unclear_pixels": "Pixels that none or several of the source's masks claim.",
    "scene_factors/background_repaired": "1: objects were moved up by one label, since only three masks were "
    "background; -1: that is doubtful, and they are as stored; 0: four masks were.",
    "scene_factors/segments_source": "Label map of the crop before it was resized.",
    "scene_factors/stray_pixels": "Pixels of labels that antialiasing left in the source's label map.",
}


def field_text(name: str, *, drawn: bool = True) -> str:
    """Return what a field of the truth means, in a sentence.

    Args:
        name: The field.
        drawn: Whether a generator drew the scenes; a converted set's factors mean what its publisher says.
    """
    group, _, factor = name.partition("/")
    words = factor.replace("_", " ")
    default = (
        f"{words[:1].upper()}{words[1:]} of each object; NaN or -1 where there is none."
        if group == "factors"
        else f"{words[:1].upper()}{words[1:]} of the scene."
    )
    if drawn or name in ("image", "index", "count", "segments", "background_segments"):
        return FIELDS.get(name, default)
    return _FIELDS_OF_OTHERS.get(name, f"{default.removesuffix('.')}; as in the source.")


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
    public = _public(manifest)
    summary = " ".join(text.split("\n\n")[0].split()) or f"Multi-object scenes, {manifest.dataset}."
    summary = f"{public.about}." if public else summary
    notes = "".join(f" NOTE: {note.rstrip('.')}." for note in manifest.notes)
    return f"{summary} {origin(manifest)}.{notes}"


def origin(manifest: Manifest) -> str:
    """Return where the scenes come from, without a full stop."""
    if manifest.generator.startswith(CONVERTED):
        name = manifest.generator.removeprefix(CONVERTED)
        return f"Converted by mobj {manifest.toolkit} from the public set {name}"
    if _is_drawn(manifest):
        return f"Drawn by mobj {manifest.toolkit} with seed {manifest.seed}"
    return f"Stored as scenes by mobj {manifest.toolkit}"


def _public(manifest: Manifest) -> PublicSet | None:
    """Return the public set that a data set was converted from; ``None`` if it is none that is built in."""
    is_converted = manifest.generator.startswith(CONVERTED)
    return PUBLIC_SETS.get(manifest.generator.removeprefix(CONVERTED)) if is_converted else None


def _is_drawn(manifest: Manifest) -> bool:
    if manifest.generator.startswith(CONVERTED):
        return False
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
    if public := _public(manifest):
        return f"{text} {_PUBLIC[public.source][1]}"
    fitting = {name: preset.about for name, preset in presets().items() if _has_settings(manifest, preset)}
    return text + "".join(f" Settings of {name}: {about.rstrip('.')}." for name, about in fitting.items())


def _has_settings(manifest: Manifest, preset: Preset) -> bool:
    """Whether a preset's settings, defaults included, are the data set's, wherever its source images come from."""
    if preset.generator != manifest.generator:
        return False
    kind = resolve("generators", preset.generator)
    expected = recorded(build(kind, preset.settings))
    elsewhere = {*getattr(kind, "per_machine", ())}
    return all(manifest.config.get(name) == expected[name] for name in expected.keys() - elsewhere)


def _licence(manifest: Manifest) -> str | None:
    if public := _public(manifest):
        return _PUBLIC[public.source][0]
    found = {
        licence for source in manifest.sources for part, licence in _SOURCE_LICENCES.items() if part in source
    }
    return found.pop() if len(found) == 1 else None


def licence_address(name: str | None) -> str:
    """Return the address of a licence's text, or the words "not stated"."""
    return f"https://spdx.org/licenses/{name}.html" if name else "not stated"
