"""Replication protocols: one file each, a pure machine of the paper's size."""
