from __future__ import annotations

import os
import pickle
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multiobj_data.errors import DataError, MobjError, UsageError
from reference_models.checkpoints import Checkpoint, build_model, load_checkpoint, save_checkpoint

SHAPE = (16, 16, 1)


@pytest.fixture
def saved(tmp_path: Path, small: dict[str, Any]) -> Path:
    path = tmp_path / "checkpoint.pt"
    model = build_model("air", small, SHAPE, seed=3)
    save_checkpoint(path, Checkpoint("air", model, {"split": "train"}, step=7, seed=3, extras={"note": 1.5}))
    return path


def test_what_was_saved_comes_back(saved: Path, small: dict[str, Any]) -> None:
    loaded = load_checkpoint(saved)
    assert (loaded.model_id, loaded.step, loaded.seed, loaded.data) == ("air", 7, 3, {"split": "train"})
    assert (loaded.image_shape, loaded.extras) == (SHAPE, {"note": 1.5})
    original = build_model("air", small, SHAPE, seed=3)
    assert loaded.config == vars(original.config)
    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    for name, array in original.predict(images).arrays().items():
        np.testing.assert_array_equal(loaded.model.predict(images).arrays()[name], array)


def test_initial_weights_depend_on_the_seed_alone(small: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    one, same, other = (build_model("air", small, SHAPE, seed=s).lstm.read_step.weight for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_code_in_a_file_does_not_run(tmp_path: Path, write: Any) -> None:
    write(Bomb(tmp_path / "ran"), tmp_path / "evil.pt")
    with pytest.raises(DataError, match=r"evil\.pt: is no checkpoint"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_file_is_refused(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="is no checkpoint"):
        load_checkpoint(saved)


def test_a_flipped_bit_is_refused_or_changes_nothing(saved: Path) -> None:
    whole = saved.read_bytes()
    weights = load_checkpoint(saved).model.state_dict()
    refused = 0
    for place in np.random.default_rng(0).integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        saved.write_bytes(damaged)
        try:
            loaded = load_checkpoint(saved)
        except DataError:
            refused += 1
        else:
            assert all(torch.equal(weights[name], w) for name, w in loaded.model.state_dict().items())
    assert refused > 30  # most bytes are weights


@pytest.mark.parametrize(
    "content", [b"hello", b"\x89PNG\r\n\x1a\n" + bytes(100), b"PK\x03\x04", b"\x80\x02."]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is no checkpoint"):
        load_checkpoint(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such checkpoint"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_a_folder_is_named_as_such(saved: Path) -> None:
    with pytest.raises(DataError, match="is a folder; give the path of a checkpoint.pt in it"):
        load_checkpoint(saved.parent)


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.symlink_to(path)  # unreadable for everyone, root included
    with pytest.raises(DataError, match="cannot be read: "):
        load_checkpoint(path)


def _drop_weight(content: dict[str, Any]) -> None:
    del content["weights"]["lstm.read_step.bias"]


def _widen_weight(content: dict[str, Any]) -> None:
    content["weights"]["lstm.read_step.bias"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_drop_weight, "the weights are not those of a 'air'"),
        (_widen_weight, "the weights are not those of a 'air'"),
        (
            lambda content: content["weights"].update(more=torch.zeros(1)),
            "the weights are not those of a 'air'",
        ),
        (lambda content: content["config"].update(colour="red"), "has no setting 'colour'"),
        (lambda content: content.update(model_id="aire"), "Did you mean 'air'"),
        (lambda content: content.update(schema=99), "schema 99"),
        (lambda content: content.update(step="seven"), "step should be a int"),
        (lambda content: content.update(image_shape=[16]), "image_shape"),
        (
            lambda content: content.update(image_shape=["16", "16", "1"]),
            "image_shape should be three numbers",
        ),
        (lambda content: content["data"].update(folder=7), "folder should be a str"),
        (lambda content: content.update(model_id=":x"), "model_id should be a name or module:Class"),
        (lambda content: content.pop("extras"), "no checkpoint of this toolkit"),
        (lambda content: content.clear(), "no checkpoint of this toolkit"),
    ],
)
def test_content_that_does_not_fit_is_refused(saved: Path, damage: Any, complaint: str) -> None:
    content = torch.load(saved, weights_only=True)
    damage(content)
    torch.save(content, saved)
    with pytest.raises(DataError, match=complaint):
        load_checkpoint(saved)


def test_weights_of_another_size_get_one_short_sentence(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    content["config"]["lstm_size"] = 17
    torch.save(content, saved)
    with pytest.raises(DataError, match=r"not those of a 'air': .*, .*, .* and \d+ more are") as error:
        load_checkpoint(saved)
    assert len(str(error.value)) - len(str(saved)) < 200
    assert "\n" not in str(error.value)


def test_too_little_memory_is_not_blamed_on_the_weights(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = torch.load(saved, weights_only=True)
    content["config"]["hidden_size"] = 10**15
    torch.save(content, saved)
    with pytest.raises(MobjError, match="cannot be put on cpu: ") as error:
        load_checkpoint(saved)
    assert not isinstance(error.value, DataError)
    assert "\n" not in str(error.value)


def test_loading_imports_nothing_that_only_the_file_names(
    tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_air.py").write_text(
        "from pathlib import Path\n"
        "from reference_models.air import AIR\n"
        "Path(__file__).with_name('imported').touch()\n"
        "class Own(AIR): pass\n"
    )
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, Checkpoint("own_air:Own", build_model("air", small, SHAPE, seed=0), {}, 1, 0))
    with pytest.raises(UsageError, match="name it yourself: --model own_air:Own"):
        load_checkpoint(path)
    assert not (tmp_path / "imported").exists()
    assert type(load_checkpoint(path, trusted=("own_air:Own",)).model).__name__ == "Own"
    assert load_checkpoint(path).model_id == "own_air:Own"  # imported by now, and not by the file
    monkeypatch.delitem(sys.modules, "own_air")


@contextmanager
def limited_file_size(limit: int) -> Iterator[None]:
    """Let the system refuse to write longer files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_checkpoint_that_cannot_be_written_leaves_the_old_one(saved: Path, small: dict[str, Any]) -> None:
    before = saved.read_bytes()
    with (
        limited_file_size(len(before) // 2),
        pytest.raises(MobjError, match=r"cannot write .*checkpoint\.pt"),
    ):
        save_checkpoint(
            saved, Checkpoint("air", build_model("air", small, SHAPE, seed=4), {}, step=9, seed=4)
        )
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint.pt"]


def test_only_models_of_the_toolkit_are_built() -> None:
    with pytest.raises(UsageError, match="expected a subclass of"):
        build_model("collections:OrderedDict", {}, SHAPE, seed=0)
