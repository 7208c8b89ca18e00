"""What slots know of objects: disentanglement, and properties read by probes."""
