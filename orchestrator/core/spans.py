"""Where the time of sampled operations went: parts that add up to the latency of each.

A sampled operation's latency, from its intended start to its answer, is taken apart into

* ``queue``: waiting to be served: at the client, from the intended start until the attempt that
  was answered is sent, and at the node, until its CPU begins with it;
* ``cpu``: its service at the node's CPU;
* ``cache_storage``: waiting for the node's own cache and storage: reads of entries, and its log;
* ``network``: between client and node, both ways;
* ``replication``: waiting for other nodes, while nothing of its own storage was pending.

``docs/breakdown.md`` has the definitions in full. Times are integers of nanoseconds, and durations
at a node are taken on that node's clock, so that clocks need not agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy
from numpy.typing import NDArray

PARTS: Final = {
    "queue": "waiting at the client, and for the node's CPU",
    "cpu": "service at the node's CPU",
    "cache_storage": "waiting for the node's own cache and storage",
    "network": "between client and node, both ways",
    "replication": "waiting for other nodes",
}
"""What a latency is taken apart into, in the order in which they are told, and what that is."""


class Stay(NamedTuple):
    """What the time of one attempt at a node went into, from its arrival to its answer's leaving.

    ``number`` is the attempt's at its client.
    """

    number: int
    queue_ns: int
    cpu_ns: int
    cache_storage_ns: int
    replication_ns: int

    @property
    def total_ns(self) -> int:
        """All of it."""
        return self.queue_ns + self.cpu_ns + self.cache_storage_ns + self.replication_ns


class Span(NamedTuple):
    """One sampled operation that was answered; the parts are in the order of PARTS."""

    session: int
    sequence: int
    kind: int
    intended_ns: int
    queue_ns: int
    cpu_ns: int
    cache_storage_ns: int
    network_ns: int
    replication_ns: int


@dataclass(frozen=True)
class Spans:
    """Columns of equal length n, one row an operation. ``parts_ns`` has the shape (n, parts)."""

    session: NDArray[numpy.int64]
    sequence: NDArray[numpy.int64]
    kind: NDArray[numpy.uint8]
    intended_ns: NDArray[numpy.int64]
    parts_ns: NDArray[numpy.int64]

    def __len__(self) -> int:
        return len(self.session)

    @property
    def total_ns(self) -> NDArray[numpy.int64]:
        """The latency of each."""
        total: NDArray[numpy.int64] = self.parts_ns.sum(axis=1)
        return total

    def select(self, rows: Any) -> Spans:
        """The rows of a mask or an index array, in that order."""
        return Spans(
            self.session[rows],
            self.sequence[rows],
            self.kind[rows],
            self.intended_ns[rows],
            self.parts_ns[rows],
        )

    @staticmethod
    def of(rows: Sequence[Span]) -> Spans:
        """As columns, in the order given."""
        table = numpy.array(rows, dtype=numpy.int64).reshape(len(rows), len(Span._fields))
        return Spans(
            session=table[:, 0],
            sequence=table[:, 1],
            kind=table[:, 2].astype(numpy.uint8),
            intended_ns=table[:, 3],
            parts_ns=table[:, 4:],
        )

    @staticmethod
    def concatenate(parts: Iterable[Spans]) -> Spans:
        """Those of several clients, ordered by intended start (ties: as given)."""
        found = list(parts)
        if not found:
            return Spans.of(())
        merged = Spans(
            *(
                numpy.concatenate([getattr(part, name) for part in found])
                for name in ("session", "sequence", "kind", "intended_ns", "parts_ns")
            )
        )
        return merged.select(numpy.argsort(merged.intended_ns, kind="stable"))
