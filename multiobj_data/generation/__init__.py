"""From a plan to a folder of shards, here or on a cluster; checked, repaired and merged."""
