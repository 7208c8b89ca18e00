"""How scenes are stored: HDF5 shards, the manifest, and the journal that makes a run resumable."""
