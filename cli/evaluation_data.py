"""On which data a model or a file of predictions is scored, and what makes them unfit for it."""

from __future__ import annotations

from typing import Any

from cli.console import say
from cli.request import digits_root_for


def evaluation_data(reference: dict[str, Any] | None, options: dict[str, Any]) -> Any:
    """Open the split that ``--data`` names, or the one that belongs to a checkpoint: a context of a `SceneSource`."""
    from contextlib import nullcontext

    from multiobj_data.loading import find_split, open_dataset

    if options["data"]:
        return nullcontext(open_dataset(options["data"], options["split"]))
    manifest = (reference or {}).get("manifest")
    generator = manifest.get("generator") if isinstance(manifest, dict) else None
    root = digits_root_for(str(generator), options["digits_root"])
    return find_split(reference or {}, options["split"], say, digits_root=root)


def refuse_damage(source: Any) -> None:
    """Compare the split's bytes with the manifest: figures of damaged scenes look like any others."""
    from multiobj_data.errors import VerificationError, repair_hint
    from multiobj_data.shards.journal import is_whole

    for shard in source.shards:
        if not is_whole(source.folder, shard):
            raise VerificationError(
                f"{source.folder / shard.file}: expected the bytes that the manifest records, got others; "
                f"{repair_hint(source.folder)}."
            )


def refuse_other_size(predictor: Any, source: Any, options: dict[str, Any]) -> None:
    """Raise ``UsageError`` if the model takes images of another size than the data's."""
    from multiobj_data.errors import UsageError

    wanted = getattr(predictor, "image_shape", None)
    if wanted is not None and tuple(wanted) != tuple(source.image_shape):
        raise UsageError(
            f"the model was trained on images of {tuple(wanted)}, {options['data']} has {tuple(source.image_shape)} "
            "(height, width, channels); evaluate it on data of its own size."
        )
