"""What a client keeps of its operations: sessions with what is under way in them, and the rows
of what is done, from which its history is made.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.history import (
    COLUMNS,
    DTYPES,
    NEVER,
    PHASE_FINAL,
    PHASE_RUN,
    PHASE_WARMUP,
    History,
)
from orchestrator.core.machine import CAS, FAIL, READ, UNMATCHED, Op

if TYPE_CHECKING:
    from orchestrator.runtimes._port import Port

SESSION_BITS: Final = 22
"""A session id is (client + 1) << 22 | number, so that 31 bits hold 500 clients' sessions, and a
value's identity, with 32 bits of sequence behind them, fits into a signed word.
"""
BLOCK_ROWS: Final = 256
ROW: Final = tuple(name for name in COLUMNS if name not in ("client", "phase"))
Row = tuple[int, ...]
"""What came of an operation; its cells are those that ROW names."""


class Session:
    """One sequential process with the operation that it has under way (``busy``).

    ``port`` is how its operations leave, and ``record`` takes what came of each.
    """

    port: Port
    record: Callable[[Row], None]

    __slots__ = (
        "attempt",
        "busy",
        "client",
        "connection",
        "context",
        "doubt",
        "due_ns",
        "follow_up",
        "found",
        "hedges",
        "identity",
        "invoked_ns",
        "key",
        "op",
        "others",
        "out",
        "pair",
        "pause_ns",
        "port",
        "record",
        "seen",
        "sent_ns",
        "sequence",
        "step",
        "steps",
        "sticky",
        "target",
        "tied",
    )

    def __init__(self, client: int, number: int, connections: int) -> None:
        self.client = client
        self.identity = (client + 1) << SESSION_BITS | number
        self.connection = number % connections
        self.sequence = 0
        self.seen = 0
        self.context = b""
        self.sticky = -1
        self.busy = False
        self.target = -1
        # Whether the target has it, and has not redirected it.
        self.out = False
        self.sent_ns = 0  # to the target
        # Of an operation that may be sent more than once: how often it was, of these as a hedge,
        # the other nodes that have it and since when, whether it may have happened, the last pause.
        self.attempt = self.hedges = 0
        self.others: dict[int, int] = {}
        self.doubt = False
        self.pause_ns = 0
        # The node of the other copy of a read that waits at two, and which such pair it is.
        self.tied = -1
        self.pair = 0
        self.due_ns = 0
        self.invoked_ns = 0
        self.key = 0
        self.step = 0  # where an operation has several
        # Kind of what follows its read at once (READ: nothing does), and what a compare-and-set
        # expects: what the read has found.
        self.follow_up = READ
        self.found: bytes | None = None
        self.steps: Sequence[tuple[int, int]] = ()
        self.op: Op = Op(self.identity, 0, READ, b"")

    def is_at(self, node: int) -> bool:
        """Whether its operation is, or was last, at that node."""
        return self.busy and (self.target == node or node in self.others)

    def row(
        self, value_id: int, version: int, returned_ns: int, previous_ns: int, outcome: int
    ) -> Row:
        """What came of the operation; the order is that of ROW."""
        op = self.op
        return (
            self.identity,
            self.sequence,
            self.target,
            op.kind,
            self.key,
            value_id,
            version,
            op.size,
            self.due_ns,
            self.invoked_ns,
            returned_ns,
            previous_ns,
            outcome,
            op.level,
        )


class Rows:
    """What came of operations, packed into arrays while the load runs.

    A block takes a fraction of a millisecond, so that no operation starts late because of it,
    and little is left to do when the load has ended.
    """

    __slots__ = ("_blocks", "_loose")

    def __init__(self) -> None:
        self._loose: list[Row] = []
        self._blocks: list[NDArray[numpy.int64]] = []

    def __len__(self) -> int:
        return len(self._blocks) * BLOCK_ROWS + len(self._loose)

    def add(self, row: Row) -> None:
        """One row, in the order of ROW."""
        self._loose.append(row)
        if len(self._loose) == BLOCK_ROWS:
            self._blocks.append(_packed(self._loose))
            self._loose.clear()

    def history(
        self, client: int, warmup_ns: int, final_ns: int, key_names: Sequence[bytes]
    ) -> History:
        """One client's rows in order of invocation (ties: in order of their outcomes)."""
        table = numpy.concatenate([*self._blocks, _packed(self._loose)])
        order = numpy.argsort(table[:, ROW.index("invoked_ns")], kind="stable")
        columns: dict[str, Any] = {
            name: table[order, index].astype(DTYPES[name]) for index, name in enumerate(ROW)
        }
        run = columns["intended_ns"] >= warmup_ns
        columns["client"] = numpy.full(len(table), client, dtype=DTYPES["client"])
        phase = numpy.where(run, PHASE_RUN, PHASE_WARMUP)
        phase[columns["intended_ns"] >= final_ns] = PHASE_FINAL
        columns["phase"] = phase.astype(DTYPES["phase"])
        _tell_compared(columns)
        return History(**columns, key_names=key_names)


def _tell_compared(columns: dict[str, Any]) -> None:
    """Of compare-and-sets only those that compared return; all that changed nothing FAIL."""
    outcome = columns["outcome"]
    refused = (columns["kind"] == CAS) & (outcome == FAIL)
    columns["returned_ns"][refused] = NEVER
    outcome[outcome == UNMATCHED] = FAIL


def _packed(rows: Sequence[Row]) -> NDArray[numpy.int64]:
    """Shape (rows, columns)."""
    cells = itertools.chain.from_iterable(rows)
    table = numpy.fromiter(cells, numpy.int64, len(rows) * len(ROW))
    return table.reshape(len(rows), len(ROW))
