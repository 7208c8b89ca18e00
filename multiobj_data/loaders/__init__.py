"""Public sets as they are published, one scene at a time: no TensorFlow, nothing unpacked to disk."""
