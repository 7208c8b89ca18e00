"""Scenes as PyTorch tensors: datasets, endless streams, drawing on a GPU."""
