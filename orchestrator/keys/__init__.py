"""Choices of keys: which key an operation picks, one file each."""
