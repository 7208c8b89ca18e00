"""From the options of `mobj generate` to a plan: presets, settings, and what contradicts itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiobj_data.generation.plan import Plan
    from multiobj_data.presets import Preset

_SETTINGS = (
    "counts",
    "canvas",
    "scale",
    "overlap",
    "overlap_rule",
    "max_iou",
    "margin",
    "background",
    "holdout",
    "digits",
    "digits_root",
)  # options that are settings of the generator, by the same name
_ABOUT_OVERLAP = ("overlap_rule", "max_iou", "margin")


def plan_of_request(name: str | None, options: Mapping[str, Any]) -> Plan:
    """Return the plan that the options describe.

    Raises:
        UsageError: Unknown names, or options that contradict each other.
    """
    from multiobj_data.generation.plan import Plan

    name, preset = _generator_and_preset(name, options["preset"])
    settings = dict(preset.settings) if preset else {}
    given = _given_settings(name, options)
    if given.keys() & set(_ABOUT_OVERLAP) and "overlap" not in given and has_setting(name, "overlap"):
        given["overlap"] = False
        if "overlap_rule" not in given and "overlap_rule" not in settings:
            given["overlap_rule"] = "boxes"  # the one rule that has a margin or an IoU
        _refuse_other_rule(given, settings, options["preset"])
    splits = {"train": 10000, "val": 0, "test": 1000, "ood": 0} | (dict(preset.splits) if preset else {})
    splits |= {split: options[split] for split in splits if options[split] is not None}
    if options["ood"] is None and (given.get("holdout") or given.get("ood")):
        splits["ood"] = splits["test"]
    settings |= given
    _refuse_empty_ood(splits, settings)
    return Plan.create(name, settings, seed=options["seed"], splits=splits, shard_rows=options["shard_rows"])


def _generator_and_preset(name: str | None, preset_name: str | None) -> tuple[str, Preset | None]:
    from multiobj_data.errors import UsageError
    from multiobj_data.plugins import names
    from multiobj_data.presets import find_preset, presets

    if preset_name is not None:
        preset = find_preset(preset_name, name)
        return preset.generator, preset
    if name is None:
        raise UsageError(
            f"nothing to generate: give NAME ({', '.join(sorted(names('generators')))}) or --preset "
            f"({', '.join(presets())})."
        )
    return name, None


def _given_settings(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the command line says of the generator's settings; nothing may be said twice."""
    from multiobj_data.configuration import parse_assignments
    from multiobj_data.errors import UsageError, shortened

    given = {key: options[key] for key in _SETTINGS if options[key] is not None}
    assigned = parse_assignments(options["settings"])
    if _from_environment("digits_root") and (
        "digits_root" in assigned or not has_setting(name, "digits_root")
    ):
        given.pop("digits_root", None)
    if options["ood_set"]:
        given["ood"] = "; ".join(options["ood_set"])
    for key, value in assigned.items():
        if key in given:
            raise UsageError(
                f"--set {shortened(f'{key}={value}')} and {_option(key)} set the same; give one of the two."
            )
        given[key] = value
    about = [key for key in _ABOUT_OVERLAP if key in given]
    if about and str(given.get("overlap", False)).lower() in ("true", "yes", "1"):
        raise UsageError(
            f"--overlap lets objects overlap freely, {_option(about[0])} says how they may not; give one of the two."
        )
    return given


def _from_environment(option: str) -> bool:
    import click

    context = click.get_current_context(silent=True)
    return (
        context is not None and context.get_parameter_source(option) is click.core.ParameterSource.ENVIRONMENT
    )


def _option(key: str) -> str:
    if key == "overlap":
        return "--overlap/--no-overlap"
    return "--ood-set" if key == "ood" else f"--{key.replace('_', '-')}"


def has_setting(generator: str, key: str) -> bool:
    """Return whether a generator has a setting of this name.

    Raises:
        UsageError: There is no such generator.
    """
    from multiobj_data.plugins import resolve

    return key in getattr(resolve("generators", generator), "__dataclass_fields__", {})


def digits_root_for(generator: str, root: str | None) -> str | None:
    """Return where MNIST's files are if a data set's generator has use for them: the variable may be set anyway."""
    from multiobj_data.errors import MobjError

    try:
        return root if root is not None and has_setting(generator, "digits_root") else None
    except MobjError:  # converted, or by a generator that is not installed here: no digits of ours
        return None


def _refuse_other_rule(
    given: Mapping[str, Any], preset_settings: Mapping[str, Any], preset: str | None
) -> None:
    """Refuse a margin or an IoU beside a rule that has none, where it was not the user who chose the rule."""
    from multiobj_data.errors import UsageError

    rule = preset_settings.get("overlap_rule", "boxes")
    numbers = [key for key in ("max_iou", "margin") if str(given.get(key, 0)) not in ("0", "0.0")]
    if "overlap_rule" not in given and rule != "boxes" and numbers:
        raise UsageError(
            f"{_option(numbers[0])} belongs to the rule boxes, but the preset {preset} sets overlap_rule={rule}; give "
            "--overlap-rule boxes as well, or leave it out."
        )


def _refuse_empty_ood(splits: Mapping[str, int], settings: Mapping[str, Any]) -> None:
    from multiobj_data.errors import UsageError

    if splits["ood"] and not (settings.get("holdout") or settings.get("ood")):
        raise UsageError(
            f"--ood {splits['ood']}: nothing is out of distribution; give --holdout or --ood-set as well, or leave it "
            "out."
        )
