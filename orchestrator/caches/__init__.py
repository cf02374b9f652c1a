"""Cache replacement policies: one file each."""
