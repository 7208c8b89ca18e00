"""Parts of models whose objects are slots with masks (GENESIS, GENESIS-v2, EfficientMORL, SRI)."""
