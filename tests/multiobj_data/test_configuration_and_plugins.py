from dataclasses import dataclass, field
from typing import Literal

import pytest

from multiobj_data.configuration import UNRECORDED, build, parse_assignments, recorded
from multiobj_data.errors import UsageError
from multiobj_data.plugins import names, resolve
from multiobj_data.presets import find_preset, presets


@dataclass(frozen=True)
class Settings:
    size: int = 3
    rate: float = 0.5
    on: bool = False
    kind: Literal["a", "b"] = "a"
    pair: tuple[int, int] = (0, 1)
    limit: int | None = None
    where: str | None = field(default=None, metadata=UNRECORDED)


def test_texts_become_values_of_the_fields_types():
    texts = parse_assignments(
        ["size=7", "rate=1e-3", "on=true", "kind=b", "pair=4,5", "limit=none", "where=/x=y"]
    )
    assert build(Settings, texts) == Settings(7, 1e-3, True, "b", (4, 5), None, "/x=y")
    assert build(Settings, {"limit": "12"}).limit == 12
    assert build(Settings, {"size": "1e4"}).size == 10_000


def test_what_defines_the_data_survives_and_paths_are_left_out():
    settings = Settings(pair=(8, 9), where="/here")
    assert recorded(settings) == {
        "size": 3,
        "rate": 0.5,
        "on": False,
        "kind": "a",
        "pair": [8, 9],
        "limit": None,
    }
    assert build(Settings, recorded(settings)) == Settings(pair=(8, 9))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sise": "1"}, "no setting 'sise'. Did you mean 'size'"),
        ({"size": "many"}, "size must be a whole number, got 'many'"),
        ({"size": "1.5"}, "size must be a whole number"),
        ({"rate": "fast"}, "rate must be a number, got 'fast'"),
        ({"on": "maybe"}, "on must be true or false"),
        ({"kind": "c"}, "kind must be one of a, b, got 'c'"),
        ({"pair": "1"}, "pair must be numbers such as 0,0"),
        ({"limit": "x"}, "limit must be a whole number or none"),
    ],
)
def test_unreadable_values_name_the_field(values, message):
    with pytest.raises(UsageError, match=message):
        build(Settings, values)


@pytest.mark.parametrize("text", ["size", "=3", ""])
def test_assignments_need_a_key_and_a_value(text):
    with pytest.raises(UsageError, match="expected key=value"):
        parse_assignments([text])


def test_names_resolve_to_built_in_and_own_things():
    assert resolve("generators", "multi-mnist").id == "multi-mnist-v1"
    assert resolve("generators", "multiobj_data.generators.multi_mnist:MultiMNIST") is resolve(
        "generators", "multi-mnist"
    )
    assert "multi-mnist" in names("generators")


def test_installed_entry_points_are_found_but_cannot_shadow(monkeypatch):
    from importlib.metadata import EntryPoint

    from multiobj_data import plugins

    points = [
        EntryPoint("multi-mnist", "json:loads", "mobj.generators"),
        EntryPoint("fruits", "json:dumps", "mobj.generators"),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    import json

    assert resolve("generators", "fruits") is json.dumps
    assert resolve("generators", "multi-mnist").id == "multi-mnist-v1"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("multi-mnits", "no generator named 'multi-mnits'. Did you mean 'multi-mnist'"),
        ("no_such_package.x:Y", "cannot import 'no_such_package.x'"),
        ("json:lods", "json has no attribute 'lods'. Did you mean 'loads'"),
    ],
)
def test_unknown_names_get_a_suggestion(name, message):
    with pytest.raises(UsageError, match=message):
        resolve("generators", name)


def test_every_preset_builds():
    for name, preset in presets().items():
        build(resolve("generators", preset.generator), preset.settings)
        assert find_preset(name, preset.generator) is preset
        assert set(preset.splits) <= {"train", "val", "test"}
    with pytest.raises(UsageError, match="Did you mean 'air-0-2'"):
        find_preset("air-02", "multi-mnist")
    with pytest.raises(UsageError, match="belongs to multi-mnist"):
        find_preset("air-0-2", "sprites")
