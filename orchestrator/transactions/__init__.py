"""Layers of transactions over the shards of a protocol: one file each."""
