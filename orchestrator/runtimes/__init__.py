"""Thin runtimes that carry the pure machines: in virtual time, and on Ray over sockets."""
