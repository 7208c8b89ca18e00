"""Prediction files: what is written is read, and what is damaged says so in one sentence."""

import contextlib
import errno
import pickle
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from multiobj_data.errors import DataError, UsageError
from multiobj_data.predictions import PredictionFile, write_predictions
from multiobj_data.scenes import Prediction


@pytest.fixture
def everything(rng):
    """A prediction with every field, for scenes 7, 3, 5, 0."""
    masks = rng.dirichlet(np.ones(3), (4, 6, 5)).astype(np.float32)  # [B, H, W, S']
    return Prediction(
        presence=rng.random((4, 2), dtype=np.float32),
        count=np.array([2, 0, 1, 2]),
        masks=np.moveaxis(masks, -1, 1),
        background_slots=(0,),
        boxes=np.sort(rng.random((4, 2, 4), dtype=np.float32), axis=-1),
        reconstruction=rng.random((4, 6, 5, 3), dtype=np.float32),
        log_likelihood=rng.normal(size=4),
        likelihood_kind="iwae-5",
        slots=rng.normal(size=(4, 3, 7)).astype(np.float32),
    )


INDEX = np.array([7, 3, 5, 0])


@pytest.fixture
def path(tmp_path, everything):
    path = tmp_path / "p.h5"
    write_predictions(path, [(INDEX, everything)])
    return path


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 2, 1, 0], [2], [1, 1, 3], []])
def test_any_rows_are_read_back_as_written(path, everything, rows):
    got = PredictionFile(path).predict_indices(INDEX[rows])
    assert got.arrays().keys() == everything.arrays().keys()
    for name, array in everything.arrays().items():
        np.testing.assert_array_equal(getattr(got, name), array[rows])
    assert (got.background_slots, got.likelihood_kind) == ((0,), "iwae-5")


def test_batches_are_appended(tmp_path, everything):
    def rows(start, stop):
        cut = {name: array[start:stop] for name, array in everything.arrays().items()}
        return INDEX[start:stop], replace(everything, **cut)

    write_predictions(tmp_path / "two.h5", [rows(0, 3), rows(3, 4)])
    file = PredictionFile(tmp_path / "two.h5")
    np.testing.assert_array_equal(file.index, INDEX)
    np.testing.assert_array_equal(file.predict_indices(INDEX).masks, everything.masks)


def test_tensors_can_be_written(tmp_path):
    presence = torch.rand(2, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    write_predictions(tmp_path / "t.h5", [(torch.tensor([1, 0]), Prediction(presence=presence))])
    got = PredictionFile(tmp_path / "t.h5").predict_indices(np.array([1, 0])).presence
    np.testing.assert_array_equal(got, presence.detach().numpy())


def test_long_codes_are_stored_in_small_chunks(tmp_path):
    slots = np.zeros((3, 11, 20_000), np.float32)
    write_predictions(tmp_path / "c.h5", [(np.arange(3), Prediction(slots=slots))])
    with h5py.File(tmp_path / "c.h5") as file:
        assert file["slots"].chunks == (1, 11, 20_000)
        assert file["index"].chunks == (1024,)


def test_a_background_without_code_is_read_back(tmp_path, everything):
    codes = everything.slots.copy()
    codes[:, 0] = np.nan
    write_predictions(tmp_path / "b.h5", [(INDEX, replace(everything, slots=codes))])
    np.testing.assert_array_equal(PredictionFile(tmp_path / "b.h5").predict_indices(INDEX).slots, codes)


def test_a_file_can_be_sent_to_workers(path, everything):
    file = pickle.loads(pickle.dumps(PredictionFile(path)))
    np.testing.assert_array_equal(file.predict_indices(INDEX).count, everything.count)


def test_files_of_other_programs_need_only_the_fields(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["schema"] = 1
        file.attrs["likelihood_kind"] = np.bytes_("elbo")
        file["index"] = np.arange(3, dtype=np.uint8)
        file["log_likelihood"] = np.zeros(3, np.float32)
    assert PredictionFile(tmp_path / "other.h5").predict_indices(np.array([2])).likelihood_kind == "elbo"


def test_a_scene_without_prediction_is_named(path):
    with pytest.raises(
        DataError, match="no prediction for scene 4 and 1 more of this batch; the file holds 4 scenes"
    ):
        PredictionFile(path).predict_indices(np.array([3, 4, 99]))


@pytest.mark.parametrize(
    ("batches", "says"),
    [
        ([], "at least one batch"),
        ([(np.arange(2), Prediction(count=np.ones(3, int)))], r"index: expected shape \[3\], got \[2\]"),
        ([(np.zeros(2), Prediction(count=np.ones(2, int)))], "index: expected signed"),
        ([(np.array([1, 1]), Prediction(count=np.ones(2, int)))], "scene 1 has 2"),
        (
            [
                (np.array([0]), Prediction(presence=np.ones((1, 2)))),
                (np.array([1]), Prediction(presence=np.ones((1, 3)))),
            ],
            "fields and sizes of the first",
        ),
    ],
)
def test_what_cannot_be_written_leaves_no_file(tmp_path, batches, says):
    with pytest.raises(DataError, match=says):
        write_predictions(tmp_path / "p.h5", batches)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_older_file(path):
    before = path.read_bytes()
    with pytest.raises(DataError):
        write_predictions(path, [])
    assert path.read_bytes() == before


def test_a_missing_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="create it first"):
        write_predictions(tmp_path / "no" / "p.h5", [])


def no_schema(file):
    del file.attrs["schema"]


def another_schema(file):
    file.attrs["schema"] = 2


def no_index(file):
    del file["index"]


def float_index(file):
    del file["index"]
    file["index"] = np.arange(4.0)


def double_index(file):
    file["index"][:] = 3


def typing_error(file):
    file.move("boxes", "bboxes")


def too_few_rows(file):
    file["count"].resize(3, axis=0)


def wrong_kind(file):
    del file["count"]
    file["count"] = np.ones(4)


def wrong_rank(file):
    del file["presence"]
    file["presence"] = np.ones(4, np.float32)


def group(file):
    del file["count"]
    file.create_group("count")


def elsewhere(file):
    del file["count"]
    file["count"] = h5py.ExternalLink("/etc/hostname", "count")


def raw_bytes_of_another_file(file):
    del file["count"]
    file.create_dataset("count", (4,), np.uint8, external=[("/etc/hostname", 0, 4)])


def words_for_slots(file):
    file.attrs["background_slots"] = "first"


def nothing_predicted(file):
    for name in ("presence", "count", "masks", "boxes", "reconstruction", "log_likelihood", "slots"):
        del file[name]


def no_rows(file):
    for name in file:
        file[name].resize(0, axis=0)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_schema, "expected attribute schema = 1, got None"),
        (another_schema, "expected attribute schema = 1, got 2"),
        (no_index, "'index' stored in the file itself"),
        (float_index, "index: expected signed"),
        (double_index, "scene 3 has 4"),
        (typing_error, "unknown field 'bboxes'. Did you mean 'boxes'"),
        (too_few_rows, r"count: expected shape \[4\], got \[3\]"),
        (wrong_kind, "count: expected signed"),
        (wrong_rank, "presence: expected shape"),
        (group, "'count' stored in the file itself"),
        (elsewhere, "'count' stored in the file itself"),
        (raw_bytes_of_another_file, "refers to other files"),
        (words_for_slots, "background_slots: expected whole numbers"),
        (nothing_predicted, "at least one of presence"),
        (no_rows, "at least one prediction"),
    ],
)
def test_a_file_of_another_form_is_refused_at_once(path, damage, says):
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(DataError, match=says) as caught:
        PredictionFile(path)
    assert str(path) in str(caught.value)


def test_values_out_of_range_are_refused_when_read(path):
    with h5py.File(path, "r+") as file:
        file["presence"][2] = 7
    with pytest.raises(DataError, match=r"presence: expected values in \[0, 1\]"):
        PredictionFile(path).predict_indices(INDEX)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is none"):
        PredictionFile(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        PredictionFile(tmp_path / "text.h5")


def test_a_file_that_one_may_not_read_says_so(path, monkeypatch):
    """As under another user; root may read everything, so the refusal is played."""

    def refuse(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match="cannot be read: permission denied"):
        PredictionFile(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        PredictionFile(path)


def test_a_damaged_byte_is_an_error_of_the_data_or_changes_nothing_but_values(path, rng):
    whole = path.read_bytes()
    for place in rng.integers(0, len(whole), 150):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ rng.integers(1, 256)]) + whole[place + 1 :])
        with contextlib.suppress(DataError):  # any other error fails the test
            PredictionFile(path).predict_indices(INDEX)
