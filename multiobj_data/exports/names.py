"""The formats by name. Imports nothing: the command's help reads it."""

from __future__ import annotations

FORMATS = {
    "parquet": "Parquet with a dataset card, for Hugging Face datasets",
    "webdataset": "tar shards of .png, .seg.png and .json",
    "tfds": "array_record files for tfds.builder_from_directory; no TensorFlow needed",
    "npz": "one compressed NumPy file a split, no pickles",
    "coco": "COCO instances with run-length masks, and PNG files",
    "croissant": "Croissant metadata and a card beside the shards themselves",
}
"""Name -> one line; each is a module of this package."""
