"""How keys belong to shards: one file each."""
