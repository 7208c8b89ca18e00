"""The version of the toolkit; every data set, checkpoint and report records it."""

__version__ = "0.1.0"
