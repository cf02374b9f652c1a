"""Layouts for tests of machines that stand below and above shards."""

from __future__ import annotations

from orchestrator.core.layout import Layouts, whole
from orchestrator.core.registry import NoParams
from orchestrator.shardings.modulo import Modulo


def every_node(shards: int, nodes: int = 3) -> Layouts:
    """All shards on all nodes."""
    return whole(shards, nodes, Modulo(NoParams(), range(shards)))
