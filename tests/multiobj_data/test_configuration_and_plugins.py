import re
import sys
from dataclasses import dataclass, field, fields
from typing import Literal

import pytest

from multiobj_data.checks import check_generator
from multiobj_data.composition.backgrounds import Background
from multiobj_data.composition.counts import Counts
from multiobj_data.composition.scale import Scale
from multiobj_data.configuration import UNRECORDED, build, parse_assignments, recorded
from multiobj_data.errors import MobjError, UsageError
from multiobj_data.factors import parse_law
from multiobj_data.factors.colours import parse_colours
from multiobj_data.factors.regions import Region
from multiobj_data.generation.plan import Plan
from multiobj_data.generation.running import generate
from multiobj_data.generators.sprites import Sprites
from multiobj_data.plugins import BUILT_IN, names, resolve
from multiobj_data.presets import find_preset, presets
from multiobj_data.settings import settings_of


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
        ({"pair": "1"}, "pair must be numbers such as 0,1, got '1'"),  # the default
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


def test_an_assignment_given_twice_is_refused_by_the_name_of_its_option():
    with pytest.raises(UsageError, match="--ood-set a=1 and --ood-set a=2 set the same; give one of the two"):
        parse_assignments(["a=1", "b=1", " a = 2 "], "--ood-set")
    with pytest.raises(UsageError, match="^--ood-set: expected key=value, got 'a'"):
        parse_assignments(["a"], "--ood-set")


@pytest.mark.parametrize(
    "refused",
    [
        lambda text: build(Settings, {"size": text}),
        lambda text: build(Settings, {text: "1"}),
        lambda text: parse_assignments([text]),
        lambda text: parse_assignments([f"{text}=1", f"{text}=2"]),
        find_preset,
        Counts,
        lambda text: Counts(f"1:{text}"),
        Scale,
        Background,
        parse_colours,
        lambda text: parse_law("scale", text),
        lambda text: Region.parse(text, {}),
        lambda text: Region.parse(f"{text}=1", {"side": None}),
        lambda text: Region.parse(f"side={text}", {"side": None}),
        lambda text: Region.parse(f"side=3..{text}", {"side": None}),
    ],
)
@pytest.mark.parametrize("text", ["a" * 5000, "9" * 5000])
def test_errors_do_not_repeat_long_texts_whole(refused, text):
    with pytest.raises(UsageError, match=r"\.\.\.|above 0|factors") as error:
        refused(text)
    assert len(str(error.value)) < 400


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
        EntryPoint("air", "json:loads", "mobj.models"),
        EntryPoint("fruits", "json:dumps", "mobj.models"),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    import json

    assert resolve("models", "fruits") is json.dumps
    assert resolve("models", "air").__name__ == "AIR"


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


# -- generators of other people that do not keep the contract


@dataclass(frozen=True)
class Fruits:
    id = "fruits-v1"

    def scenes(self, rng, n, *, split, first):
        return Sprites().scenes(rng, n, split=split, first=first)


class TooFew(Fruits):
    def scenes(self, rng, n, *, split, first):
        return super().scenes(rng, n - 1, split=split, first=first)


class Nothing(Fruits):
    def scenes(self, rng, n, *, split, first):
        return None


class Raises(Fruits):
    def scenes(self, rng, n, *, split, first):
        raise ZeroDivisionError("by nought")


@dataclass(frozen=True)
class Exits(Fruits):
    def __post_init__(self):
        sys.exit("bye")


class Notes(Fruits):
    def notes(self):
        raise KeyError("n")


@dataclass(frozen=True)
class NoId:
    def scenes(self, rng, n, *, split, first): ...


@dataclass(frozen=True)
class NoScenes:
    id = "no-scenes-v1"


class NoDataclass:
    id = "no-dataclass-v1"


def function(): ...


INSTANCE = Fruits()


def plan_of(name):
    return Plan.create(f"{__name__}:{name}", {}, splits={"train": 600}, shard_rows=256)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TooFew", "the generator fruits-v1 was asked for 256 scenes, gave 255"),
        ("Nothing", "was asked for 256 scenes, gave NoneType; expected multiobj_data.Scenes"),
        ("Raises", "the generator fruits-v1 raised ZeroDivisionError: by nought .*MOBJ_DEBUG=1"),
        ("Notes", "the generator fruits-v1 raised KeyError: 'n'"),
    ],
)
def test_a_generator_that_breaks_its_contract_is_named_and_stores_nothing(tmp_path, name, message):
    with pytest.raises(MobjError, match=message):
        generate(plan_of(name), tmp_path, workers=1 if name == "Notes" else 2)
    assert not list(tmp_path.glob("*.h5"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Exits", "generator .*Exits raised SystemExit: bye"),
        ("NoId", "expected a class attribute `id` such as 'fruits-v1', NoId has none"),
        ("NoScenes", "expected a method `scenes"),
        ("NoDataclass", "expected a dataclass .*NoDataclass is none"),
        ("function", "expected a class, got <function function"),
        ("INSTANCE", "expected a class, got Fruits"),
    ],
)
def test_what_is_no_generator_is_refused_before_anything_is_drawn(name, message):
    with pytest.raises(MobjError, match=message):
        plan_of(name)


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        (Fruits, "got the class Fruits itself; give Fruits()"),
        (NoId(), "has an `id`"),
        (NoScenes(), "has a method `scenes`"),
        (Nothing(), "returns multiobj_data.Scenes, got NoneType"),
        (TooFew(), "asked for 256 scenes, there come as many, got 255"),
        (NoDataclass(), "a generator is a dataclass"),
    ],
)
def test_the_check_says_in_a_sentence_what_does_not_hold(generator, message):
    check_generator(INSTANCE)
    with pytest.raises(AssertionError, match=re.escape(message)):
        check_generator(generator)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in ("generators", "models") for name in BUILT_IN[kind]]
)
def test_every_setting_says_what_it_means(kind, name):
    thing = resolve(kind, name)
    config = getattr(thing, "config_type", thing)
    assert [setting.name for setting in settings_of(config) if not setting.about] == []
    documented = set(re.findall(r"^ {8}([a-z_]+): ", config.__doc__ or "", re.M))
    assert documented <= {field.name for field in fields(config)}
