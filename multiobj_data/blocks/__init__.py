"""Towers of blocks: how they are stacked, and whether they stand."""
