import gzip
import hashlib
import struct
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from multiobj_data.errors import DataError, UsageError
from multiobj_data.sprites import digits
from multiobj_data.sprites.digits import load_digits, parse_idx


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes())


def test_idx_round_trip():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(parse_idx(idx(array), "x", 3), array)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (idx(np.zeros((2, 3, 4), np.uint8))[:-9], "not a whole gzip file"),
        (b"no gzip at all", "not a whole gzip file"),
        (idx(np.zeros(5, np.uint8)), "expected an IDX file of bytes with 3 dimensions"),
        (
            gzip.compress(gzip.decompress(idx(np.zeros((2, 3, 4), np.uint8)))[:-1]),
            "expected 24 values .* got 23",
        ),
    ],
)
def test_damaged_idx_files_are_named(raw, message):
    with pytest.raises(DataError, match=message):
        parse_idx(raw, "file", 3)


def test_bundled_train_and_test_digits_share_no_image():
    train, test = load_digits("train", "bundled"), load_digits("test", "bundled")
    assert len(train.images) + len(test.images) == 1797
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in test.images)
    for part in (train, test):
        assert set(part.labels) == set(range(10))
        assert part.images.shape[1:] == (28, 28)
        assert part.images.reshape(len(part.images), -1).any(1).all()
    assert train.sha256 == test.sha256


def test_auto_without_network_takes_the_bundled_digits_and_says_so(monkeypatch, caplog):
    def no_network(name, sha256):
        raise DataError("no network.")

    monkeypatch.setattr(digits, "_download", no_network)
    load_digits.cache_clear()
    assert load_digits("train", "auto").source == "bundled"
    assert "BUNDLED" in caplog.text
    load_digits.cache_clear()


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Serve a folder over HTTP on this machine, with an empty cache; return (folder, address)."""
    served = tmp_path / "served"
    served.mkdir()
    handler = partial(QuietHandler, directory=str(served))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield served, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_downloads_fall_back_to_the_next_mirror_and_are_kept(mirror, monkeypatch):
    served, address = mirror
    content = idx(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))
    (served / "good").mkdir()
    (served / "damaged").mkdir()
    (served / "good" / "x.gz").write_bytes(content)
    (served / "damaged" / "x.gz").write_bytes(content[:-3])
    sha = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(digits, "_MIRRORS", (address + "absent/", address + "damaged/", address + "good/"))
    assert digits._download("x.gz", sha).read_bytes() == content
    monkeypatch.setattr(digits, "_MIRRORS", ())
    assert digits._download("x.gz", sha).read_bytes() == content  # from the cache
    with pytest.raises(DataError, match="y.gz could not be downloaded"):
        digits._download("y.gz", sha)


def test_wrong_mnist_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="found no idx file"):
        load_digits("train", "mnist", str(tmp_path))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"truncated")
    with pytest.raises(DataError, match="not the published file"):
        load_digits("train", "mnist", str(tmp_path))
    with pytest.raises(UsageError, match="expected one of auto, mnist, bundled"):
        load_digits("train", "svhn")  # type: ignore[arg-type]


def test_mnist_equals_torchvisions(mnist_root, tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    unpacked = tmp_path / "MNIST" / "raw"
    unpacked.mkdir(parents=True)
    for path in Path(mnist_root).glob("*.gz"):
        (unpacked / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    for part in ("train", "test"):
        ours = load_digits(part, "mnist", mnist_root)
        theirs = datasets.MNIST(str(tmp_path), train=part == "train")
        assert np.array_equal(ours.images, theirs.data.numpy())
        assert np.array_equal(ours.labels, theirs.targets.numpy())
