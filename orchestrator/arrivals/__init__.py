"""Arrivals, which decide on start times: one file each."""
