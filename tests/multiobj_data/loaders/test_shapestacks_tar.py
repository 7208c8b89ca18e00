import io
import tarfile
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest

from multiobj_data.errors import DataError
from multiobj_data.loaders.tar_stream import members


def archive(files, form=tarfile.GNU_FORMAT, folders=()):
    """A tar archive of name -> content, written by the standard library."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name in folders:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def read(data):
    return {member.name: member.read(1 << 20) for member in members(io.BytesIO(data), "a.tar")}


FILES = {
    "a/short.png": b"x" * 512,
    "a/empty": b"",
    "./b/" + "long" * 40 + ".png": b"y" * 700,
    "c/" + "q/" * 120 + "deep": bytes(range(256)),
    "d/été.txt": b"z",
}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_the_standard_library_wrote(form):
    files = {name: data for name, data in FILES.items() if form != tarfile.USTAR_FORMAT or len(name) < 100}
    assert read(archive(files, form, folders=["a", "b/"])) == files


def test_members_that_are_not_read_are_passed_over():
    found = members(io.BytesIO(archive(FILES)), "a.tar")
    assert next(found).name == "a/short.png"
    assert [member.name for member in found] == list(FILES)[1:]


def test_every_truncation_is_found():
    data = archive({"a": b"1" * 600, "b": b"2" * 10}).rstrip(b"\0")
    data += bytes(-len(data) % 512)  # up to the end mark
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["a", "b"]  # the standard library takes it for whole
    for end in range(0, len(data) + 1, 64):
        with pytest.raises(DataError, match=r"a\.tar is truncated: the archive ends after \d+ bytes"):
            read(data[:end])


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil", "\\\\host\\evil", "a/.."]
)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_that_leave_the_archive_are_refused(name, form):
    with pytest.raises(DataError, match=r"a\.tar: expected relative names"):
        read(archive({"fine": b"", name: b""}, form))


def test_a_long_name_that_leaves_the_archive_is_refused():
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with pytest.raises(DataError, match="expected relative names"):
            read(archive({"a/" * 100 + "../" * 200 + "evil": b""}, form))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE]
)
def test_links_and_devices_are_refused(kind):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("recordings/x.png")
        info.type, info.linkname = kind, "/etc/passwd" * 20
        tar.addfile(info)
    with pytest.raises(DataError, match=r"'recordings/x\.png' is a link or a device"):
        read(buffer.getvalue())


def header(name="a", size=0, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.DIRTYPE]
)
def test_a_claim_of_terabytes_costs_no_memory(kind):
    tracemalloc.start()
    with pytest.raises(DataError, match=r"a\.tar"):
        read(header(size=1 << 42, kind=kind) + bytes(4096))
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_a_member_that_is_too_large_is_named():
    with pytest.raises(DataError, match=r"a\.tar: big claims 2000 bytes, expected at most 1000\."):
        [member.read(1000) for member in members(io.BytesIO(archive({"big": bytes(2000)})), "a.tar")]


def test_what_is_no_archive_is_named():
    with pytest.raises(DataError, match=r"a\.tar is no tar archive"):
        read(b"hello " * 1000)


def test_damage_raises_nothing_but_data_errors():
    rng = np.random.default_rng(0)
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = archive(FILES, form)
        for _ in range(400):
            damaged = bytearray(data)
            for at in rng.integers(len(data), size=rng.integers(1, 4)):
                damaged[at] = rng.integers(256)
            with suppress(DataError):
                read(bytes(damaged))


def test_malformed_extended_headers_raise_nothing_but_data_errors():
    rng = np.random.default_rng(1)
    for n in range(600):
        body = b"".join(
            rng.choice(
                [
                    b"12 path=a\n",
                    b"-3 ",
                    b"99999999999 path=",
                    b"9 size=-4\n",
                    b"11 size=1e9\n",
                    b"0 =\n",
                    b"\xff",
                ]
            )
            for _ in range(rng.integers(1, 4))
        )
        kind = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)[n % 3]
        data = header(size=len(body), kind=kind) + body + bytes(-len(body) % 512) + header() + bytes(1024)
        with suppress(DataError):
            read(data)
