"""Workloads, which decide on operations and keys: one file each."""
