"""Recorded evaluations side by side."""
