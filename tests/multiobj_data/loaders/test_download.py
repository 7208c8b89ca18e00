import base64
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from multiobj_data.errors import DataError, MobjError, UsageError
from multiobj_data.loaders import download as module
from multiobj_data.loaders import sets
from multiobj_data.loaders.download import fetch
from multiobj_data.loaders.sets import download, find_set

DATA = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes()


class Server(ThreadingHTTPServer):
    """Serves DATA under any name; counts requests, breaks off as told."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.ranges, self.break_after, self.status, self.asked = DATA, True, [], [], []
        self.more, self.range_shift = {}, 0  # further headers; by how much ranges are off
        self.chunks = []  # bytes after which a chunked answer, which states no length, breaks off

    def address(self, name="file.tfrecords"):
        return f"http://127.0.0.1:{self.server_port}/folder/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if server.status:
            return self.send_error(server.status.pop(0))
        etag, start = f'"{hashlib.sha256(server.data).hexdigest()}"', 0
        same = self.headers.get("If-Range", etag) == etag
        if wanted and server.ranges and same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.data):
                return self.send_error(416)
        start -= server.range_shift if start else 0
        body = server.data[start:]
        self.send_response(206 if start else 200)
        if server.chunks:
            return self.send_chunk(body, server.chunks.pop(0))
        headers = {"Content-Length": str(len(body)), "ETag": etag} | server.more
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(server.data) - 1}/{len(server.data)}"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if server.break_after:
            self.wfile.write(body[: server.break_after.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            return None
        self.wfile.write(body)
        return None

    def send_chunk(self, body, n):
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n" % len(body) + body[:n] + (b"\r\n0\r\n\r\n" if n >= len(body) else b""))
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(module, "_PAUSE", 0.0)


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix not in (".lock", ".from"))


def test_a_file_comes_whole_and_is_not_asked_for_again(server, tmp_path):
    told = []
    path = fetch(server.address(), tmp_path, lambda *facts: told.append(facts))
    assert path.read_bytes() == DATA
    assert told[-1] == ("file.tfrecords", len(DATA), len(DATA))
    assert fetch(server.address(), tmp_path) == path
    assert server.asked == [None]
    assert names(tmp_path) == ["file.tfrecords"]


def test_a_broken_connection_is_taken_up_where_it_broke(server, tmp_path):
    server.break_after = [1_000_000, 5, 1_500_000]
    assert fetch(server.address(), tmp_path).read_bytes() == DATA
    assert server.asked == [None, "bytes=1000000-", "bytes=1000005-", "bytes=2500005-"]


def test_an_answer_of_no_stated_length_that_breaks_off_is_no_file(server, tmp_path):
    server.chunks = [1_000_000, len(DATA)]
    server.ranges = False
    assert fetch(server.address(), tmp_path).read_bytes() == DATA
    assert len(server.asked) == 2


def test_a_later_run_takes_it_up(server, tmp_path, monkeypatch):
    server.break_after, server.status = [700_000], []
    with monkeypatch.context() as patch:
        patch.setattr(module, "_TRIES", 1)
        server.break_after = [700_000, 0]
        with pytest.raises(
            DataError, match=r"700,000 bytes are kept, and the same command goes on from there"
        ):
            fetch(server.address(), tmp_path)
    assert (tmp_path / "file.tfrecords.part").read_bytes() == DATA[:700_000]
    assert fetch(server.address(), tmp_path).read_bytes() == DATA
    assert server.asked[-1] == "bytes=700000-"
    assert names(tmp_path) == ["file.tfrecords"]


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    server.ranges, server.break_after = False, [1_000_000]
    assert fetch(server.address(), tmp_path).read_bytes() == DATA


def test_another_file_at_the_address_is_not_glued_to_the_first(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TRIES", 1)
    server.break_after = [1_000_000, 0]
    with pytest.raises(DataError):
        fetch(server.address(), tmp_path)
    server.data = DATA[::-1]
    assert fetch(server.address(), tmp_path).read_bytes() == DATA[::-1]


def test_a_part_longer_than_the_file_is_dropped(server, tmp_path):
    (tmp_path / "file.tfrecords.part").write_bytes(DATA + b"more")
    assert fetch(server.address(), tmp_path).read_bytes() == DATA


def test_a_complete_part_costs_one_request_and_no_loop(server, tmp_path):
    (tmp_path / "file.tfrecords.part").write_bytes(DATA)
    assert fetch(server.address(), tmp_path).read_bytes() == DATA
    assert len(server.asked) <= 2


def test_server_errors_are_tried_again_and_missing_files_are_not(server, tmp_path):
    server.status = [503, 500]
    assert fetch(server.address(), tmp_path).read_bytes() == DATA
    server.status = [404] * 9
    with pytest.raises(
        DataError, match="the server answers 404 .*Without network, get other.t on another machine"
    ):
        fetch(server.address("other.t"), tmp_path)
    assert len(server.status) == 8


def test_without_network_one_sentence_says_what_to_do(tmp_path):
    with Server() as gone:
        address = gone.address()
    with pytest.raises(
        DataError, match=r"127.0.0.1.* cannot be downloaded \(.*refused.*give its path as SOURCE"
    ):
        fetch(address, tmp_path)
    assert names(tmp_path) == []


def test_no_room_is_said_before_anything_is_written(server, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10})())
    with pytest.raises(MobjError, match="3,000,000 bytes are to come, 10 are free"):
        fetch(server.address(), tmp_path)
    assert names(tmp_path) == []


def test_two_runs_do_not_write_one_file(server, tmp_path):
    from filelock import FileLock

    with (
        FileLock(tmp_path / "file.tfrecords.lock"),
        pytest.raises(MobjError, match="another mobj run is downloading"),
    ):
        fetch(server.address(), tmp_path)


def test_a_server_that_asks_for_patience_gets_it(server, tmp_path):
    server.status = [429, 408]
    assert fetch(server.address(), tmp_path).read_bytes() == DATA


def test_another_range_than_asked_for_is_not_glued_on(server, tmp_path):
    server.break_after, server.range_shift = [1_000_000], 1000
    assert fetch(server.address(), tmp_path).read_bytes() == DATA


def test_a_server_that_always_begins_anew_is_given_up(server, tmp_path):
    server.ranges, server.break_after = False, [1000, 900, 901, 902, 903, 904, 905, 906, 907]
    with pytest.raises(DataError, match="cannot be downloaded"):
        fetch(server.address(), tmp_path)
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "text/html; charset=utf-8"}, {"Content-Encoding": "gzip"}]
)
def test_a_page_in_the_files_place_is_not_kept(server, tmp_path, headers):
    server.more = headers
    with pytest.raises(
        DataError, match="expected the file itself, the server sends (a web page|the file packed)"
    ):
        fetch(server.address(), tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("length", ["many", "-5"])
def test_a_length_that_is_none_counts_as_not_stated(server, tmp_path, length):
    server.more = {"Content-Length": length, "Connection": "close"}
    assert fetch(server.address(), tmp_path).read_bytes() == DATA


def test_the_md5_that_the_server_states_is_compared(server, tmp_path):
    def stated(data):
        return {"x-goog-hash": f"crc32c=AAAAAA==,md5={base64.b64encode(hashlib.md5(data).digest()).decode()}"}

    server.more, server.break_after = stated(DATA), [2_000_000]
    assert fetch(server.address("good"), tmp_path).read_bytes() == DATA
    server.more = stated(DATA[::-1])
    with pytest.raises(
        DataError, match="expected the MD5 .* what came was deleted, run the same command again"
    ):
        fetch(server.address("bad"), tmp_path)
    assert "bad" not in names(tmp_path)
    assert "bad.part" not in names(tmp_path)
    server.more = {"x-goog-hash": "md5=not base64"}
    assert fetch(server.address("odd"), tmp_path).read_bytes() == DATA


def test_what_one_address_does_not_give_a_mirror_does(server, tmp_path, caplog):
    server.status = [404]
    source, mirror = (f"http://127.0.0.1:{server.server_port}/{folder}/" for folder in ("gone", "mirror"))
    path = download(find_set("clevr"), source, tmp_path, mirrors=[mirror.rstrip("/")])
    assert path.read_bytes() == DATA
    assert f"Trying {mirror}clevr_with_masks_train.tfrecords." in caplog.text
    path.unlink()
    server.status = [404, 403]
    with pytest.raises(DataError, match="mirror/clevr_with_masks_train.tfrecords: the server answers 403"):
        download(find_set("clevr"), source, tmp_path, mirrors=[mirror])


def test_a_sets_files_from_a_mirror_and_from_its_publisher(server, tmp_path, monkeypatch):
    room = find_set("objects-room")
    folder = download(room, f"http://127.0.0.1:{server.server_port}/mirror/", tmp_path / "a")
    assert names(folder) == sorted(room.files)
    monkeypatch.setattr(sets, "_HOST", f"http://127.0.0.1:{server.server_port}/")
    assert names(download(room, "download", tmp_path / "b")) == sorted(room.files)
    path = download(find_set("clevr6"), "download", tmp_path / "b")
    assert path == tmp_path / "b" / "clevr" / "clevr_with_masks_train.tfrecords"
    asked = len(server.asked)
    assert download(find_set("clevr"), "download", tmp_path / "b") == path  # the same file serves both
    assert len(server.asked) == asked


def test_a_file_of_the_same_name_from_elsewhere_is_refused(server, tmp_path):
    path = fetch(server.address(), tmp_path)
    other = server.address().replace("/folder/", "/other/")
    with pytest.raises(UsageError, match=r"file.tfrecords came from http.*folder.*not from http.*other"):
        fetch(other, tmp_path)
    assert fetch(other, tmp_path, mirrors=[server.address()]) == path
    path.with_name(f"{path.name}.from").unlink()  # as if it had been put there by hand
    assert fetch(other, tmp_path) == path
    assert len(server.asked) == 1


def test_an_address_of_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError, match="expected the address of a file"):
        fetch("http://127.0.0.1", tmp_path)
    with pytest.raises(UsageError, match="expected the address of a file"):
        fetch("http://127.0.0.1/folder/..", tmp_path)


def test_which_variant_has_to_be_said():
    with pytest.raises(UsageError, match="3 variants; give one address.*colored_on_colored"):
        download(find_set("multi-dsprites-mod"), "download", None)
    with pytest.raises(UsageError, match="shapestacks cannot be downloaded by mobj"):
        download(find_set("shapestacks"), "download", None)
