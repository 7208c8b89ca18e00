import errno
import os

import pytest

from multiobj_data.errors import DataError, MobjError
from multiobj_data.loaders.shelves import resume
from multiobj_data.shards.journal import Journal


@pytest.mark.parametrize(
    "text", ['{"identity": 3}', '{"identity": {"generator": "convert:x"}}\n{"record": {}, "split": "train"}']
)
def test_a_journal_that_no_run_wrote_is_one_sentence(tmp_path, text):
    (tmp_path / ".progress.jsonl").write_text(f"{text}\n")
    with pytest.raises(DataError, match=r"holds a damaged journal .* delete the folder"):
        resume(tmp_path, {}, [], lambda marks, sources: 0)


def test_a_journal_that_cannot_be_begun_is_closed(tmp_path, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    journal = Journal(tmp_path, (0, 1), {})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MobjError, match="no space left"), journal:
            pass
    assert journal.file.closed
