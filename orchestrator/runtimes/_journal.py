"""What a node's process has noted of itself, kept in a file so that its crash does not lose it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
import numpy
from numpy.typing import NDArray

from orchestrator.core.record import EventRecord

JOURNAL: Final = "journal"
"""Its name in the folder of a node."""

_encode = msgspec.msgpack.Encoder().encode


class Journal:
    """Events, and samples of counters by the number of their interval.

    What earlier processes of the node have noted is there; their counters go on in the samples of
    this one, which counts from 0.
    """

    def __init__(self, path: Path | None) -> None:
        self.events: list[EventRecord] = []
        self.numbers: list[int] = []
        self.samples: list[tuple[int, ...]] = []
        for entry in _entries(path):
            if isinstance(entry[1], int):
                self.numbers.append(entry[0])
                self.samples.append(tuple(entry[1:]))
            else:
                self.events.append(EventRecord(entry[0], entry[2], entry[1], entry[3]))
        self._before = self.samples[-1] if self.samples else ()
        # Unbuffered: the kernel has it when the call returns.
        self._file = None if path is None else path.open("ab", buffering=0)

    def note(self, event: EventRecord) -> None:
        """Something happened."""
        self.events.append(event)
        self._write((event.at_ns, event.kind, event.node, event.detail))

    def sample(self, number: int, counts: tuple[int, ...]) -> None:
        """What this process has counted when that interval began."""
        if self._before:
            counts = tuple(map(sum, zip(self._before, counts, strict=True)))
        self.numbers.append(number)
        self.samples.append(counts)
        self._write((number, *counts))

    def table(self, intervals: int, columns: int) -> NDArray[numpy.int64]:
        """Counters at time 0 and at the end of each interval, shape (intervals + 1, columns).

        While nobody counted they stood still.
        """
        taken = numpy.zeros((len(self.samples) + 1, columns), dtype=numpy.int64)
        if self.samples:
            taken[1:] = self.samples
        table: NDArray[numpy.int64] = taken[
            numpy.searchsorted(self.numbers, numpy.arange(intervals + 1), side="right")
        ]
        return table

    def _write(self, entry: tuple[Any, ...]) -> None:
        if self._file is not None:
            data = _encode(entry)
            self._file.write(len(data).to_bytes(2) + data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _entries(path: Path | None) -> list[list[Any]]:
    """All whole entries of a file; the last may have been cut off."""
    data = path.read_bytes() if path is not None and path.exists() else b""
    entries, at = [], 0
    while at + 2 <= len(data):
        stop = at + 2 + int.from_bytes(data[at : at + 2])
        if stop > len(data):
            break
        entries.append(msgspec.msgpack.decode(data[at + 2 : stop]))
        at = stop
    return entries
