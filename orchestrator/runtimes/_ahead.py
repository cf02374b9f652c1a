"""A client's next operations, drawn a block at a time and taken apart into plain objects.

Numpy's cost per call is shared by a block, and the loop that starts operations meets no array.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from orchestrator.core.load import ChunkedStream, OperationBlock, OperationStream, Timetable
from orchestrator.runtimes._routing import LevelMix

BLOCK: Final = 8192

Ahead = Iterator[tuple[int, int, int, int, int, int, Any]]
"""Of each operation its follow_up, kind, key, size, count, level and steps."""


def draw(
    stream: OperationStream, timetable: Timetable, levels: LevelMix, *, planned: bool
) -> tuple[Ahead, list[int], int]:
    """The operations of the next block, their intended starts, and how many there are.

    No starts unless they are ``planned``; 0 operations where there are no more.
    """
    block: OperationBlock = stream.block(BLOCK)
    starts: list[int] = []
    if planned and len(block):
        starts_ns = timetable.starts_ns(block)
        starts = starts_ns.tolist()
        if isinstance(stream, ChunkedStream) and stream.timed:
            block = stream.at(block, starts_ns)
    columns = (block.follow_up, block.kind, block.key, block.size, block.count)
    steps = [()] * len(block) if block.steps is None else block.steps.tolist()
    lists = (column.tolist() for column in columns)
    return zip(*lists, levels.of(block), steps, strict=True), starts, len(block)
