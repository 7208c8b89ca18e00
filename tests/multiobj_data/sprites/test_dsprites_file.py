import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from multiobj_data.composition.arrangement import Stage
from multiobj_data.composition.counts import Counts
from multiobj_data.composition.drawing import draw
from multiobj_data.composition.overlap import Overlap
from multiobj_data.composition.placement import Rules
from multiobj_data.errors import DataError, MobjError, UsageError
from multiobj_data.factors import Choice, Minus, Product, Uniform, check_law
from multiobj_data.factors.colours import parse_colours
from multiobj_data.factors.regions import Region
from multiobj_data.files import sha256_of
from multiobj_data.sprites import dsprites_archive, dsprites_file
from multiobj_data.sprites.bank import Sprites, tight_boxes
from multiobj_data.sprites.dsprites_file import FileLaw, PlacedFromFile, load_dsprites
from multiobj_data.sprites.shapes import CODES, rasterise

N = 240


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Give every test an empty cache; return where packed files go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MOBJ_DSPRITES_FILE", raising=False)
    return tmp_path / "cache" / "mobj" / "dsprites"


@pytest.fixture(scope="session")
def arrays():
    """The arrays of a small file in dSprites' layout."""
    rng = np.random.default_rng(0)
    classes = np.stack([rng.integers(k, size=N) for k in (1, 3, 6, 40, 32, 32)], 1)
    values = classes / [1, 1, 10, 39 / (2 * np.pi), 31, 31] + [1, 1, 0.5, 0, 0, 0]
    imgs = rasterise(
        values[:, 1].astype(np.int64),
        values[:, 2].astype(np.float32),
        values[:, 3].astype(np.float32),
        (16 + 32 * values[:, 4:]).astype(np.float32),
        64,
    )
    metadata = np.array({"title": "never unpickled"}, object)
    return {"imgs": imgs // 255, "latents_values": values, "latents_classes": classes, "metadata": metadata}


@pytest.fixture
def save(tmp_path, arrays):
    """Write a file, with some arrays changed or (``None``) left out."""

    def write(name="d.npz", compressed=True, **changes):
        merged = {key: value for key, value in {**arrays, **changes}.items() if value is not None}
        (np.savez_compressed if compressed else np.savez)(tmp_path / name, **merged)
        return tmp_path / name

    return write


def edge_pictures():
    """Pictures that are lit where cutting and packing might go wrong."""
    imgs = np.zeros((5, 64, 64), np.uint8)
    imgs[0] = 1  # 64 wide
    for k, (y, x) in enumerate([(0, 0), (63, 63), (0, 63), (63, 7)], start=1):
        imgs[k, y, x] = 1
    return imgs


# -- reading


def test_images_and_factors_are_those_of_the_file(save, arrays):
    path = save()
    file = load_dsprites(path)
    rows = np.array([5, 0, N - 1, 5])
    assert len(file) == N
    assert np.array_equal(file.images(rows), arrays["imgs"][rows] * 255)
    assert np.array_equal(file.images(np.arange(N)) > 0, arrays["imgs"] > 0)
    assert file.images(rows[:0]).shape == (0, 64, 64)
    for column, (name, values) in enumerate(file.latents.items(), start=1):
        assert np.array_equal(values, arrays["latents_values"][:, column].astype(np.float32)), name
        assert values.dtype == (np.int16 if name == "shape" else np.float32)
    assert dict(file.sha256) == {"d.npz": sha256_of(path)}
    with pytest.raises(ValueError, match="read-only"):
        file.bits[0] = 1


def test_many_chunks_and_one_picture_alone(save, arrays, monkeypatch):
    monkeypatch.setattr(dsprites_archive, "_CHUNK", 7)
    file = load_dsprites(save())
    assert np.array_equal(file.images(np.arange(N)), arrays["imgs"] * 255)
    assert np.array_equal(file.boxes, tight_boxes(arrays["imgs"] > 0))
    one = load_dsprites(save("one.npz", **{name: arrays[name][:1] for name in list(arrays)[:3]}))
    assert len(one) == 1


@pytest.mark.parametrize(
    ("compressed", "changes"),
    [
        (False, {}),
        (True, {"metadata": None, "latents_classes": None}),
        (True, {"latents_values": "fortran"}),
    ],
)
def test_harmless_differences_of_layout_are_read(save, arrays, compressed, changes):
    if "latents_values" in changes:
        changes = {"latents_values": np.asfortranarray(arrays["latents_values"]).astype(">f4")}
    file = load_dsprites(save(compressed=compressed, **changes))
    assert np.array_equal(file.latents["pos_x"], arrays["latents_values"][:, 4].astype(np.float32))
    assert np.array_equal(file.images(np.arange(9)), arrays["imgs"][:9] * 255)


def test_headers_of_python_2_are_read_without_a_warning(save, arrays, tmp_path):
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({N}L, 64L, 64L), }}"
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"
    path = rewrite(save(), tmp_path / "py2.npz", "imgs.npy", header + arrays["imgs"].tobytes())
    assert np.array_equal(load_dsprites(path).images(np.arange(9)), arrays["imgs"][:9] * 255)


def test_the_file_can_be_named_by_the_environment(save, monkeypatch):
    monkeypatch.setenv("MOBJ_DSPRITES_FILE", str(save()))
    assert len(load_dsprites()) == N


def test_a_file_is_read_once_and_anew_when_it_changes(save, arrays):
    path = save()
    first = load_dsprites(path)
    assert load_dsprites(str(path)) is first
    save(imgs=arrays["imgs"][::-1])
    os.utime(path, ns=(1, 1))
    assert np.array_equal(load_dsprites(path).images(np.arange(N)), arrays["imgs"][::-1] * 255)
    assert np.array_equal(first.images(np.arange(N)), arrays["imgs"] * 255)


# -- the packed copy


def test_packing_happens_once(save, monkeypatch):
    load_dsprites(save())
    dsprites_file._load.cache_clear()  # as another process
    monkeypatch.setattr(dsprites_file, "_pack", None)
    assert len(load_dsprites(save())) == N


def test_processes_that_start_together_pack_once(save):
    code = (
        "import logging, sys; logging.basicConfig(level='INFO');"
        "from multiobj_data.sprites.dsprites_file import load_dsprites;"
        "print(load_dsprites(sys.argv[1]).images([3, 4]).sum())"
    )
    command = [sys.executable, "-c", code, str(save())]
    runs = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True) for _ in range(3)]
    said = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], said
    assert len({out for out, _ in said}) == 1
    assert sum(err.count("packing") for _, err in said) == 1


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999, 1.001])
def test_a_packed_copy_that_is_not_whole_is_made_anew(save, arrays, own_cache, share):
    load_dsprites(save())
    dsprites_file._load.cache_clear()
    (packed,) = own_cache.glob("*.npys")
    whole = packed.read_bytes()
    packed.write_bytes((whole + whole)[: int(share * len(whole))])
    assert np.array_equal(load_dsprites(save()).images(np.arange(N)), arrays["imgs"] * 255)
    assert packed.read_bytes() == whole


def test_what_a_killed_process_left_is_removed(save, own_cache):
    path = save()
    own_cache.mkdir(parents=True)
    torn = own_cache / f".{sha256_of(path)}-v1.npys.tmp-123456"
    torn.write_bytes(b"half")
    load_dsprites(path)
    assert not torn.exists()


def test_a_failure_leaves_nothing_in_the_cache(save, arrays, own_cache):
    imgs = arrays["imgs"].copy()
    imgs[-1] = 0
    with pytest.raises(DataError, match="empty picture"):
        load_dsprites(save(imgs=imgs))
    assert [path.suffix for path in own_cache.iterdir()] in ([".lock"], [])


def test_a_cache_in_the_way_is_named(save, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(MobjError, match="cannot create .*mobj"):
        load_dsprites(save())


def test_another_process_gets_the_path_not_the_pictures(save):
    file = load_dsprites(save())
    assert len(pickle.dumps(file)) < 1000
    assert pickle.loads(pickle.dumps(file)) is file


# -- damage


def rewrite(path: Path, other: Path, member: str, content: bytes) -> Path:
    """Copy an archive, one member replaced."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, content if name == member else source.read(name))
    return other


def test_missing_files_are_named(tmp_path):
    with pytest.raises(
        DataError, match="no file was named.*google-deepmind/dsprites-dataset.*MOBJ_DSPRITES_FILE"
    ):
        load_dsprites()
    with pytest.raises(DataError, match="absent.npz cannot be read .No such file.*dsprites_file=FILE"):
        load_dsprites(tmp_path / "absent.npz")
    with pytest.raises(DataError, match="expected a file"):
        load_dsprites(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        load_dsprites("nul\0.npz")


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"\x93NUMPY\x01\x00"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match="no whole .npz file"):
        load_dsprites(tmp_path / "d.npz")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(save, share):
    path = save()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="may be truncated"):
        load_dsprites(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_flipped_bytes_are_reported_or_harmless(save, arrays, compressed):
    path = save(compressed=compressed, **{name: arrays[name][:3] for name in list(arrays)[:3]})
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    places = np.concatenate(
        [np.arange(60, 180), np.arange(len(whole) - 300, len(whole)), rng.integers(len(whole), size=60)]
    )
    for place in places[::3]:
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            file = load_dsprites(path)
        except DataError:
            refused += 1
        else:  # a date, or a member that is not read
            assert np.array_equal(file.images(np.arange(3)), arrays["imgs"][:3] * 255)
    assert refused > 20


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00\x10\x00{", b"\x93NUMPY\x09\x00", b"pickle"])
def test_members_that_are_no_arrays_are_refused(save, tmp_path, content):
    path = rewrite(save(), tmp_path / "other.npz", "imgs.npy", content)
    with pytest.raises(DataError, match="no whole .npz file"):
        load_dsprites(path)


def test_members_of_another_length_than_their_header_says_are_refused(save, tmp_path):
    path = save()
    with zipfile.ZipFile(path) as archive:
        content = archive.read("imgs.npy")
    for other in (content[:-1], content + b"x"):
        with pytest.raises(DataError, match="imgs takes .* bytes, expected .* by its header"):
            load_dsprites(rewrite(path, tmp_path / "other.npz", "imgs.npy", other))


def changed(array, where, value):
    array = array.copy()
    array[where] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {"imgs": None}, "no array 'imgs', it has: latents_values"),
        (lambda a: {"latents_values": None}, "no array 'latents_values'"),
        (lambda a: {"imgs": a["imgs"][:, :32]}, r"expected imgs uint8 \[N, 64, 64\].*got imgs uint8 \[240, 32, 64\]"),
        (lambda a: {"imgs": a["imgs"][..., None]}, r"got imgs uint8 \[240, 64, 64, 1\]"),
        (lambda a: {"imgs": np.float32(1)}, r"got imgs float32 \[\]"),
        (lambda a: {"imgs": a["imgs"][:0]}, "N >= 1"),
        (lambda a: {"imgs": a["imgs"].astype(np.int8)}, "got imgs int8"),
        (lambda a: {"imgs": a["imgs"].astype(object)}, "got imgs object|takes .* bytes"),
        (lambda a: {"imgs": np.asfortranarray(a["imgs"])}, "ascontiguousarray"),
        (lambda a: {"imgs": a["imgs"] * 255}, r"pixels of 0 and 1 in imgs, got 255 in row 0; save \(imgs > 0\)"),
        (lambda a: {"imgs": changed(a["imgs"], (200, 3, 4), 2)}, "got 2 in row 200"),
        (lambda a: {"imgs": changed(a["imgs"], 200, 0)}, "row 200 of imgs is an empty picture.*published at"),
        (lambda a: {"imgs": a["imgs"][:-1]}, r"numbers \[239, 6\].*got latents_values float64 \[240, 6\]"),
        (lambda a: {"latents_classes": a["latents_classes"][:-1]}, r"expected latents_classes, numbers \[240, 6\]"),
        (lambda a: {"latents_values": a["latents_values"][:, :5]}, r"got latents_values float64 \[240, 5\]"),
        (lambda a: {"latents_values": a["latents_values"].astype("S9")}, r"got latents_values \|S9"),
        (lambda a: {"latents_values": changed(a["latents_values"], (7, 1), 4)}, "got 4 in row 7; .*published"),
        (lambda a: {"latents_values": changed(a["latents_values"], (7, 1), 1.5)}, "is not dSprites' file: .*got 1.5"),
        (lambda a: {"latents_values": changed(a["latents_values"], (7, 2), np.nan)}, "scale .*got nan in row 7"),
        (lambda a: {"latents_values": changed(a["latents_values"], (7, 4), 31)}, "pos_x .*0 to 1, got 31 in row 7"),
    ],
)  # fmt: skip
def test_other_layouts_and_values_are_refused(save, arrays, change, message, monkeypatch):
    monkeypatch.setattr(dsprites_archive, "_CHUNK", 64)
    with pytest.raises(DataError, match=message):
        load_dsprites(save(**change(arrays)))


# -- laws and placing


@pytest.fixture
def file(save):
    return load_dsprites(save())


def test_rows_where(file, arrays):
    values = arrays["latents_values"]
    small_hearts = Product((Choice("shape", (CODES["heart"],)), Uniform("scale", 0.5, 0.7)))
    expected = np.flatnonzero((values[:, 1] == 3) & (values[:, 2] < 0.71))
    assert 0 < len(expected) < N
    assert np.array_equal(file.rows_where(small_hearts), expected)
    assert np.array_equal(file.rows_where(Choice("pos_x", tuple(np.arange(32) / 31))), np.arange(N))
    assert np.array_equal(
        file.rows_where(Region.parse("shape!=heart", {"shape": CODES})), np.flatnonzero(values[:, 1] < 3)
    )
    with pytest.raises(UsageError, match=r"none of the 240 pictures .* shape 1 2 3, scale 0.5 0.6"):
        file.rows_where(Uniform("scale", 2, 3))


def test_the_law_of_a_file_keeps_the_contract(file, arrays):
    law = FileLaw(file, np.arange(0, N, 3))
    check_law(law)
    values = law.sample(np.random.default_rng(0), 20_000)
    rows, times = np.unique(values["source_index"], return_counts=True)
    assert np.array_equal(rows, np.arange(0, N, 3))
    assert np.square(times - 250).sum() / 250 < 150  # chi-squared of 79 degrees of freedom: 150 is p = 2e-6
    for column, name in enumerate(("shape", "scale", "orientation", "pos_x", "pos_y"), start=1):
        assert np.allclose(values[name], arrays["latents_values"][values["source_index"], column])
    assert not law.contains({**values, "source_index": values["source_index"] + 1}).any()
    assert not law.contains({**values, "scale": values["scale"] + np.float32(0.01)}).any()
    others = FileLaw(file, np.arange(1, N, 3)).sample(np.random.default_rng(0), 100)
    assert not law.contains(others).any()
    assert law == FileLaw(file, np.arange(0, N, 3)) != FileLaw(file, np.arange(N))


@pytest.mark.parametrize("rows", [[], [0, 0], [-1], [N], [[0]], [0.5]])
def test_rows_that_cannot_be_drawn_are_refused(file, rows):
    with pytest.raises(UsageError, match="rows: expected"):
        FileLaw(file, np.array(rows))


def test_a_hold_out_is_never_drawn(file):
    law = Product((FileLaw(file, np.arange(N)), parse_colours("named")))
    without = Minus(
        law,
        Region.parse(
            "shape=square & scale=0.5..0.7 | pos_x=0..0.5", {"shape": CODES, "scale": None, "pos_x": None}
        ),
    )
    check_law(without)
    values = without.sample(np.random.default_rng(0), 2000)
    assert not ((values["shape"] == 1) & (values["scale"] < 0.71)).any()
    assert values["pos_x"].min() > 0.5


@pytest.mark.parametrize("edges", [False, True])
def test_sprites_are_cut_as_elsewhere(save, arrays, edges):
    imgs = edge_pictures() if edges else arrays["imgs"]
    values, classes = (arrays[name][: len(imgs)] for name in ("latents_values", "latents_classes"))
    file = load_dsprites(save(imgs=imgs, latents_values=values, latents_classes=classes))
    rows = np.random.default_rng(0).permutation(len(imgs))
    ours = file.sprites(rows)
    reference = Sprites.empty(file.extent, len(imgs))
    reference.append(imgs[rows] * np.uint8(255), 64)
    for name in ("tile", "ink_rows", "ink_box", "side", "n"):
        a, b = getattr(ours, name), getattr(reference, name)
        assert np.array_equal(a, b), name
        assert np.asarray(a).dtype == np.asarray(b).dtype, name
    assert file.extent == (64 if edges else max((b[2:] - b[:2]).max() for b in reference.ink_box))


def test_objects_lie_where_their_pictures_show_them(file, arrays):
    law = Product((FileLaw(file, np.arange(N)), parse_colours("white")))
    source = PlacedFromFile(law, file, 1)
    stage = Stage(Counts("0-3"), 3, source, Rules(Overlap("pixels")))
    count, layers, factors, _ = stage.set(np.random.default_rng(0), 50, 0)
    drawing = draw(layers, np.zeros((50, 64, 64, 1), np.uint8), amodal=True)
    assert set(np.unique(count)) == {0, 1, 2, 3}
    masks = drawing.amodal
    assert masks.sum(1).max() == 1  # no pixel is used twice
    for scene, k in zip(*np.nonzero(factors["source_index"] >= 0), strict=True):
        row = factors["source_index"][scene, k]
        assert np.array_equal(masks[scene, k], arrays["imgs"][row] > 0)
        assert factors["shape"][scene, k] == arrays["latents_values"][row, 1]
        y, x = np.argwhere(arrays["imgs"][row]).mean(0) + 0.5
        off = 3 if factors["shape"][scene, k] == CODES["heart"] else 0.5  # a heart's middle is not its centre
        assert np.hypot(x - factors["x"][scene, k], y - factors["y"][scene, k]) < off
    assert (factors["source_index"] >= 0).sum() == count.sum()
    assert np.array_equal(np.isnan(factors["x"]), factors["source_index"] < 0)


def test_no_scene_has_the_factors_of_one(file):
    source = PlacedFromFile(Product((FileLaw(file, np.arange(N)), parse_colours("rgb"))), file, 3)
    some = source.propose(np.random.default_rng(0), 4)
    none, four = source.factors(source.nothing()), source.factors(some)
    assert {k: (v.dtype, v.shape[1:]) for k, v in none.items()} == {
        k: (v.dtype, v.shape[1:]) for k, v in four.items()
    }
    assert source.colour(some).shape == (4, 3)
    assert replace(source, channels=1).colour(some).shape == (4, 1)
