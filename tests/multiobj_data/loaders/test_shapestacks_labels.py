import io
import itertools
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from multiobj_data.errors import DataError
from multiobj_data.loaders.png import LARGEST_SIDE, read_png
from multiobj_data.loaders.shapestacks_labels import STRAY_BELOW, mend, read_labels, small_components
from multiobj_data.loaders.shapestacks_names import COLOUR_MODES, Recording, Scenario

COLOURS = {  # label -> colour, as the fact sheet of the release has it
    "iseg": ["black", "red", "green", "blue", "yellow", "cyan", "magenta", "white"],
    "vseg": ["black", "green", "red", "yellow", "blue", "cyan", "magenta", "white"],
}
RGB = {
    "black": (0, 0, 0),
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "cyan": (0, 1, 1),
    "magenta": (1, 0, 1),
    "white": (1, 1, 1),
}


def png(pixels, mode=None):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8), mode).save(buffer, "PNG")
    return buffer.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


# -- names


def test_scenario_name_is_read_and_tells_stability():
    one = Scenario.parse("env_ccs-easy-h=5-vcom=2-vpsf=0-v=117")
    assert (one.curved, one.hard, one.height, one.com_violation, one.surface_violation, one.number) == (
        *(True, False, 5, 2, 0),
        117,
    )
    stable = {
        (com, surface): Scenario.parse(f"env_blocks-hard-h=3-vcom={com}-vpsf={surface}-v=1").stable
        for com in range(4)
        for surface in range(4)
    }
    assert [key for key, value in stable.items() if value] == [(0, 0)]


@pytest.mark.parametrize(
    "name",
    [
        "env_ccs-easy-h=5-vcom=2-vpsf=0-v=1 ",
        "env_ccs-easy-h=5-vcom=2-vpsf=0-v=",
        "env_ccs-easy-h=7-vcom=0-vpsf=0-v=1",
        "env_ccs-easy-h=3-vcom=4-vpsf=0-v=1",  # violates where there is no block
        "env_ccs-easy-h=٣-vcom=0-vpsf=0-v=1",
        "../env_ccs-easy-h=5-vcom=2-vpsf=0-v=1",
        "env_ccs-easy-h=5-vcom=2-vpsf=0-v=1\n",
        "",
    ],
)
def test_other_names_are_no_scenarios(name):
    assert Scenario.parse(name) is None


def test_recording_name_is_read():
    one = Recording.parse("rgb-w=5-f=3-l=4-c=shuffle-cam_16-mono-0.png")
    assert (one.wall, one.floor, one.light, one.view) == (5, 3, 4, (16, 0))
    assert one.factors()["colour_mode"] == COLOUR_MODES.index("shuffle")
    assert Recording.parse("rgb-w=5-f=3-l=4-c=plaid-cam_16-mono-0.png").factors()["colour_mode"] == -1
    for name in (
        "rgb-w=5-f=3-l=4-c=shuffle-cam_16-mono-0.map",
        "depth-w=0-f=0-l=0-c=original-cam_1-mono-0.png",
    ):
        assert Recording.parse(name) is None


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("env_ccs-easy-h=5-vcom=2-vpsf=0-v=1", [0, 1, 2, 3, 4, 4, -1]),
        ("env_ccs-easy-h=6-vcom=0-vpsf=1-v=1", [0, 2, 3, 4, 4, 4, 4]),
        ("env_ccs-easy-h=3-vcom=3-vpsf=3-v=1", [0, 1, 1, 2, -1, -1, -1]),
        ("env_ccs-easy-h=4-vcom=0-vpsf=0-v=1", [0, 1, 1, 1, 1, -1, -1]),
        ("env_ccs-easy-h=4-vcom=1-vpsf=3-v=1", [0, -1, -1, -1, -1, -1, -1]),
    ],
)
def test_roles_of_the_blocks(name, roles):
    assert Scenario.parse(name).roles().tolist() == roles


# -- labels


@pytest.mark.parametrize("modality", ["iseg", "vseg"])
def test_colours_take_the_label_of_the_nearest_one(modality):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 77, (60, 70, 3))
    pixels[:20] = rng.choice([0, 9, 38, 66, 76], (20, 70, 3))  # what eight samples a pixel leave
    codes = 0.3 * 255 * np.array([RGB[name] for name in COLOURS[modality]])
    nearest = ((pixels[:, :, None] - codes) ** 2).sum(-1).argmin(-1)
    labels, blended = read_labels(png(pixels), "map", modality, "png")
    assert labels.dtype == np.uint8
    assert (labels == nearest).all()
    distance = np.minimum(pixels, np.abs(pixels - 76)).max(-1)
    assert (distance > 9).sum() <= blended <= (distance > 0).sum()


def test_pure_colours_hold_no_blend():
    pixels = [[[round(76 * part) for part in RGB[name]] for name in COLOURS["iseg"]]]
    labels, blended = read_labels(png(pixels), "map", "iseg", "png")
    assert labels.tolist() == [list(range(8))]
    assert blended == 0


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_map_in_greys_is_divided_by_32(bands):
    labels = np.random.default_rng(1).integers(0, 8, (30, 20)).astype(np.uint8)
    pixels = np.repeat(32 * labels[:, :, None], bands, 2)
    if bands == 4:
        pixels[:, :, 3] = 255
    found, blended = read_labels(png(pixels[:, :, 0] if bands == 1 else pixels), "map", "iseg", "map")
    assert (found == labels).all()
    assert blended == -1


@pytest.mark.parametrize(
    ("pixels", "suffix", "message"),
    [
        (np.full((4, 4, 3), 33), "map", "multiples of 32"),
        (np.tile([64, 0, 0], (4, 4, 1)), "map", "multiples of 32"),
        (np.full((4, 4, 3), 255), "png", "30 % brightness"),
        (np.full((4, 4), 32), "png", "30 % brightness"),
    ],
)
def test_maps_of_another_kind_are_refused(pixels, suffix, message):
    with pytest.raises(DataError, match=message):
        read_labels(png(pixels), "x.map", "iseg", suffix)


# -- strays


def by_flood(labels):
    """Components of one label by hand: sizes [H, W]."""
    size, seen = np.zeros(labels.shape, int), np.zeros(labels.shape, bool)
    for start in np.ndindex(labels.shape):
        if seen[start]:
            continue
        seen[start], found, stack = True, [], [start]
        while stack:
            row, column = stack.pop()
            found.append((row, column))
            for r, c in itertools.product(range(row - 1, row + 2), range(column - 1, column + 2)):
                inside = 0 <= r < labels.shape[0] and 0 <= c < labels.shape[1]
                if inside and not seen[r, c] and labels[r, c] == labels[row, column]:
                    seen[r, c] = True
                    stack.append((r, c))
        size[tuple(zip(*found, strict=True))] = len(found)
    return size


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_small_components_are_those_that_a_flood_fill_finds(share):
    rng = np.random.default_rng(2)
    for _ in range(5):
        labels = np.where(rng.random((25, 31)) < share, rng.integers(1, 4, (25, 31)), 0).astype(np.uint8)
        assert (small_components(labels) == (by_flood(labels) < STRAY_BELOW)).all()


def stack_of_two():
    labels = np.zeros((20, 20), np.uint8)
    labels[10:16, 5:12] = 1
    labels[4:10, 6:13] = 2
    return labels


def test_labels_that_no_object_has_are_mended_and_others_left():
    clean = stack_of_two()
    stray = clean.copy()
    stray[12, 7] = 7  # no such block, amid block 1
    stray[6, 8:10] = 2, 5
    stray[0, 0] = 2  # a block that is there, elsewhere: counted, left
    mended, strays = mend(stray, 2, "map")
    assert strays == 3
    assert mended[0, 0] == 2
    mended[0, 0] = 0
    assert (mended == clean).all()
    kept = stray[6, 9]
    assert kept == 5  # what was handed in is not changed


def test_a_block_of_scattered_pixels_alone_is_not_there():
    labels = stack_of_two()
    labels[10:16, 5:12] = 0
    labels[11, 5] = labels[18, 18] = 1  # of two blocks, block 1 is hidden but for strays
    mended, strays = mend(labels, 2, "map")
    assert strays == 2
    assert set(np.unique(mended)) == {0, 2}


def test_a_map_of_another_scene_is_refused():
    with pytest.raises(
        DataError, match=r"map.png: expected labels up to 1, as the scenario's name says, got 2"
    ):
        mend(stack_of_two(), 1, "map.png")


def test_an_empty_map_has_no_strays():
    mended, strays = mend(np.zeros((5, 5), np.uint8), 3, "map")
    assert not mended.any()
    assert strays == 0


# -- PNG


def picture(seed=0, side=24):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_png_is_read_as_it_was_written(bands):
    pixels = np.random.default_rng(bands).integers(0, 256, (9, 7, bands)).astype(np.uint8)
    assert (read_png(png(pixels[:, :, 0] if bands == 1 else pixels), "p") == pixels).all()


def test_every_flipped_bit_and_every_truncation_is_found():
    data = png(picture(side=12))
    rng = np.random.default_rng(3)
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(rng.integers(8))
        for damaged in (bytes(flipped), data[:at]):
            with pytest.raises(DataError, match=r"^broken\.png[ :]"):
                read_png(damaged, "broken.png")


def test_malformed_chunks_with_right_checksums_raise_nothing_but_data_errors():
    rng = np.random.default_rng(4)
    header = struct.pack(">IIBBBBB", 12, 12, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(36) for _ in range(12)))
    for _ in range(400):
        bodies = [bytearray(header), bytearray(rng.bytes(rng.integers(12))), bytearray(rows)]
        chosen = bodies[rng.integers(3)]
        for _ in range(rng.integers(3)):
            chosen[rng.integers(len(chosen) + 1) :] = rng.bytes(rng.integers(9))
        kind = [b"tEXt", b"zTXt", b"iCCP", b"tRNS", b"PLTE", b"gAMA", b"eXIf", b"acTL", b"IDAT"][
            rng.integers(9)
        ]
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bodies[0]) + chunk(kind, bodies[1])
        data += chunk(b"IDAT", bodies[2]) + chunk(b"IEND", b"")
        with suppress(DataError):
            assert read_png(data, "p").dtype == np.uint8


def test_a_picture_that_claims_to_be_huge_is_refused_unread():
    header = struct.pack(">IIBBBBB", LARGEST_SIDE + 1, 5, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match=r"p: expected 1 to 4096 pixels a side, got 4097 x 5\."):
        read_png(data, "p")


def test_sixteen_bits_a_channel_are_refused():
    buffer = io.BytesIO()
    Image.fromarray(np.full((3, 3), 1000, np.uint16)).save(buffer, "PNG")
    with pytest.raises(DataError, match="8 bits a channel"):
        read_png(buffer.getvalue(), "p")
    header = struct.pack(
        ">IIBBBBB", 1, 1, 16, 2, 0, 0, 0
    )  # in colour, where Pillow would drop the lower halves
    pixel = chunk(b"IDAT", zlib.compress(b"\0" + bytes(6)))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixel + chunk(b"IEND", b"")
    with pytest.raises(DataError, match=r"p: expected a PNG of 8 bits a channel, got 16\."):
        read_png(data, "p")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_png_is_named(data):
    with pytest.raises(DataError, match="photo.png is (no|a truncated) PNG"):
        read_png(data, "photo.png")
