"""PNG files with every byte checked.

Pillow does not compare the checksums of image data, so a flipped bit can pass as a picture. Here it cannot.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np

from multiobj_data.errors import DataError

LARGEST_SIDE = 4096
"""Pictures wider or higher are refused before anything is unpacked."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BANDS = {"L": "L", "RGB": "RGB", "RGBA": "RGBA", "P": "RGB"}  # Pillow's mode -> the mode that is returned


def read_png(data: bytes, name: str) -> np.ndarray:
    """Decode a PNG of 8 bits a channel.

    Args:
        data: The file's bytes.
        name: What messages call it.

    Returns:
        uint8 ``[H, W, C]``, C = 1 (grey), 3 (colour, also of a palette) or 4 (with opacity).

    Raises:
        DataError: If it is no PNG, truncated, damaged, larger than `LARGEST_SIDE`, or of 16 bits a channel.
    """
    from PIL import Image

    check_png(data, name)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            picture.load()
            mode = picture.mode
            pixels = np.asarray(picture.convert(_BANDS[mode])) if mode in _BANDS else None
    except Exception as error:  # the decoder answers malformed content with whatever it stumbles over
        raise DataError(f"{name}: its PNG cannot be decoded ({type(error).__name__}: {error}).") from error
    if pixels is None:
        raise DataError(f"{name}: expected a PNG of 8 bits a channel, got Pillow's mode {mode!r}.")
    return pixels.reshape(*pixels.shape[:2], -1)


def check_png(data: bytes, name: str) -> None:
    """Compare the checksum of every chunk, up to the end chunk; decodes nothing.

    Raises:
        DataError: See `read_png`.
    """
    if not data.startswith(_SIGNATURE):
        raise DataError(f"{name} is no PNG: it starts with {bytes(data[:8])!r}.")
    view, at = memoryview(data), len(_SIGNATURE)
    while True:
        length, kind = struct.unpack_from(">I4s", view, at) if at + 8 <= len(view) else (0, b"")
        end = at + 12 + length  # length, kind, body, checksum
        if end > len(view):
            raise DataError(f"{name} is a truncated PNG: it ends at byte {len(view)}, inside a chunk.")
        if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", view, end - 4)[0]:
            raise DataError(f"{name} is a damaged PNG: the chunk at byte {at} does not have its checksum.")
        if at == len(_SIGNATURE):
            _check_header(view[at + 8 : end - 4], kind, name)
        if kind == b"IEND":
            return
        at = end


def _check_header(body: memoryview, kind: bytes, name: str) -> None:
    if kind != b"IHDR" or len(body) != 13:
        raise DataError(f"{name} is a damaged PNG: its first chunk is no header.")
    width, height, bits = struct.unpack_from(">IIB", body)
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        raise DataError(f"{name}: expected 1 to {LARGEST_SIDE} pixels a side, got {width} x {height}.")
    if bits > 8:  # Pillow would drop the lower half of each channel of a picture in colour
        raise DataError(f"{name}: expected a PNG of 8 bits a channel, got {bits}.")
