import json
import logging
import shutil

import numpy as np
import pytest

from multiobj_data.errors import DataError
from multiobj_data.exports.formats import export
from multiobj_data.loaders.conversion import convert
from multiobj_data.loaders.preparing import Selection
from multiobj_data.loaders.protocols import find_protocol
from multiobj_data.loaders.streams import Request
from multiobj_data.loaders.tfds_stream import Prebuilt, TfdsStream
from multiobj_data.loading import open_dataset

pytest.importorskip("array_record")
pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def prepared(small_dataset, tmp_path_factory):
    """`small_dataset` as `mobj export --to tfds` writes it: digits without overlap."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # it recommends OpenCV
    folder = tmp_path_factory.mktemp("tfds") / "prepared"
    export(small_dataset, "tfds", folder, limit=80)
    return folder


def run(folder, out, name="", limit=None, **selection):
    data = Prebuilt(name, folder)
    request = Request(data.public(), find_protocol("tfds", "default"), Selection(**selection), limit)
    return convert(TfdsStream(request, data), out, shard_rows=32)


def only(prepared, folder, *features):
    """A copy of a prepared set that has these features alone, and a split ``validation`` instead of ``test``."""
    shutil.copytree(prepared, folder)
    listed = json.loads((folder / "features.json").read_text())
    content = listed["featuresDict"]["features"]
    listed["featuresDict"]["features"] = {name: content[name] for name in features}
    (folder / "features.json").write_text(json.dumps(listed))
    info = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(info.replace('"test"', '"validation"'))
    old = next(folder.glob("*-test.*"))
    old.rename(folder / old.name.replace("-test.", "-validation."))
    return folder


def test_our_own_export_comes_back_as_it_was(small_dataset, prepared, tmp_path):
    manifest = run(prepared, tmp_path / "back", "multi_mnist")
    assert manifest.dataset == "multi_mnist-v1"
    assert manifest.generator == "convert:tfds:multi_mnist"
    assert list(manifest.sources) == sorted(path.name for path in prepared.glob("*.array_record*"))
    for split in ("train", "test"):
        ours, theirs = (
            open_dataset(folder, split).scenes(range(80)) for folder in (small_dataset, tmp_path / "back")
        )
        for name in ("image", "segments", "count"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
        assert np.array_equal(ours.boxes, theirs.boxes, equal_nan=True)
        for name, values in ours.factors.items():
            assert values.dtype == theirs.factors[name].dtype
            assert np.array_equal(values, theirs.factors[name], equal_nan=values.dtype.kind == "f"), name


def test_pictures_with_label_maps_alone_are_enough(small_dataset, prepared, tmp_path):
    folder = only(prepared, tmp_path / "plain", "image", "segments")
    manifest = run(folder, tmp_path / "set", limit=40, rule="visible", least=4)
    assert set(manifest.splits) == {"train", "val"}
    truth = open_dataset(small_dataset, "test").scenes(range(40))
    chosen = np.flatnonzero(truth.count >= 4)
    scenes = open_dataset(tmp_path / "set", "val").scenes(range(len(chosen)))
    assert np.array_equal(scenes.scene_factors["source_index"], chosen)
    assert np.array_equal(scenes.segments, truth.segments[chosen])
    assert np.array_equal(scenes.count, truth.count[chosen])


def test_an_interrupted_run_goes_on(prepared, tmp_path, monkeypatch):
    raw, count = Prebuilt.raw, iter(range(1000))

    def failing(data, split, index):
        if next(count) == 110:
            raise KeyboardInterrupt
        return raw(data, split, index)

    with monkeypatch.context() as patch:
        patch.setattr(Prebuilt, "raw", failing)
        with pytest.raises(KeyboardInterrupt):
            run(prepared, tmp_path / "set")
    assert len(list((tmp_path / "set").glob("part-*"))) == 2  # of the first split; the rest of it waited
    run(prepared, tmp_path / "set")
    run(prepared, tmp_path / "at-once")
    for path in (tmp_path / "at-once").iterdir():
        assert path.read_bytes() == (tmp_path / "set" / path.name).read_bytes()


def test_what_cannot_be_converted_is_one_sentence(prepared, tmp_path):
    with pytest.raises(DataError, match="tfds:multi_mnist has no label maps.*got count, image"):
        run(only(prepared, tmp_path / "a", "image", "count"), tmp_path / "set")
    with pytest.raises(DataError, match="expected the data set clevr, got multi_mnist; name that one"):
        run(prepared, tmp_path / "set", "clevr")
    with pytest.raises(DataError, match="expected a data set prepared by TensorFlow Datasets"):
        run(tmp_path, tmp_path / "set")


def test_a_damaged_file_of_records_is_one_sentence(prepared, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(prepared, folder)
    path = next(folder.glob("*-train.*"))
    data = bytearray(path.read_bytes())
    for place in range(70_000, len(data) - 70_000, 50):
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="cannot be read|expected"):
        run(folder, tmp_path / "set")
