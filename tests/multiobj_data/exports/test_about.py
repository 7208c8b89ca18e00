import json
from dataclasses import replace

import pytest

from multiobj_data.exports.about import About, field_text
from multiobj_data.exports.formats import export
from multiobj_data.loaders.conversion import convert
from multiobj_data.loaders.preparing import Selection
from multiobj_data.loaders.protocols import find_protocol, protocols
from multiobj_data.loaders.sets import PUBLIC_SETS, find_files, find_set
from multiobj_data.loaders.streams import RecordStream, Request
from multiobj_data.shards.manifest import CONVERTED, Manifest


@pytest.fixture(scope="module")
def converted(public_files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    public_files.tetrominoes(folder / "tetrominoes_train.tfrecords", 5)
    public = find_set("tetrominoes")
    request = Request(public, find_protocol("tetrominoes", "iodine"), Selection())
    convert(RecordStream(request, find_files(public, folder)), folder / "set")
    return folder / "set"


def test_somebody_elses_data_are_not_said_to_be_drawn(converted):
    about = About.of(Manifest.read(converted), converted)
    assert not about.drawn
    assert "seed" not in about.description + about.citation
    assert about.description.startswith("Tetrominoes (multi_object_datasets, Kabra et al. 2019)")
    assert "Converted by mobj" in about.citation
    assert "Kabra et al. (2019), Multi-Object Datasets" in about.citation
    assert about.licence == "Apache-2.0"


def test_the_card_and_croissant_say_what_fields_are_in_the_source(converted, tmp_path):
    export(converted, "parquet", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "hidden ones too" not in card
    assert (
        "- `factors/x` (float32[3]): X of each object; NaN or -1 where there is none; as in the source."
        in card
    )
    document = json.loads((tmp_path / "out" / "croissant.json").read_text())
    texts = {each["name"]: each["description"] for each in document["recordSet"][0]["field"]}
    assert texts["train/boxes"] == field_text("boxes", drawn=False) != field_text("boxes")
    assert texts["train/image"] == field_text("image")
    assert document["rai:dataCollectionType"] == ["Secondary Data Analysis"]


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_every_public_set_has_its_publisher(converted, name):
    manifest = replace(Manifest.read(converted), dataset=PUBLIC_SETS[name].id, generator=CONVERTED + name)
    about = About.of(manifest, converted)
    assert "Data: " in about.citation
    assert (about.licence is None) == ("see the publisher" in about.citation)
    assert protocols(PUBLIC_SETS[name].source)


def test_a_prepared_set_of_the_same_name_is_another_ones(converted):
    manifest = replace(Manifest.read(converted), dataset="clevr-v3", generator=CONVERTED + "tfds:clevr")
    about = About.of(manifest, converted)
    assert about.licence is None
    assert "Kabra" not in about.citation
