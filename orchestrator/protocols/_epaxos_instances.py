"""EPaxos' instances in memory, and which operations interfere."""

from __future__ import annotations

from typing import Any

from orchestrator.core.machine import READ, READING, SCAN, Op
from orchestrator.protocols._epaxos_messages import (
    COMMITTED,
    EXECUTED,
    PRE_ACCEPTED,
    UNKNOWN_YET,
    Choice,
    Judgement,
    Saved,
    State,
)

CONTEXT_BYTES = 8


class Lead:
    """A proposer's count of an instance in ballot 0: who pre-accepted it, and after what."""

    __slots__ = ("deps", "unchanged", "voters")

    def __init__(self, node: int, deps: list[int]) -> None:
        self.voters = {node: True}
        self.deps = list(deps)
        self.unchanged = True


class Quest:
    """One attempt to recover an instance.

    ``asked``: the quorum whose judgement on ``candidate`` is asked for (empty before).
    """

    __slots__ = ("asked", "ballot", "deps", "holders", "judgements", "ops", "states")

    def __init__(self, ballot: int) -> None:
        self.ballot = ballot
        self.states: dict[int, State] = {}
        self.asked: tuple[int, ...] = ()
        self.holders: list[int] = []
        self.ops: list[Op] = []
        self.deps: list[int] = []
        self.judgements: dict[int, Judgement] = {}


class Instance:
    """What this node knows of one instance.

    ``ballot``: promised. ``accepted``: the ballot in which ``void``/``deps`` were accepted; the
    two differ whenever a recovery got no further than its first phase (Sutra 2020).
    ``initial_deps``: those the proposer started with, None where unknown. ``accepts``: who has
    accepted the value that this node proposes. ``early``: dependencies of a commit whose
    operations are not here yet. ``blocked_by``: what it waited for when it was last to be executed.
    ``before``: what its sessions saw last and is not executed (None: not looked at yet).
    ``holders``: nodes known to have pre-accepted it unchanged.
    ``due_ns``: when this node loses patience (0: not waiting yet).
    """

    __slots__ = (
        "accepted",
        "accepts",
        "attempts",
        "ballot",
        "before",
        "blocked_by",
        "deps",
        "due_ns",
        "early",
        "handles",
        "holders",
        "initial_deps",
        "lead",
        "number",
        "ops",
        "ops_saved",
        "phase",
        "proposer",
        "quest",
        "row",
        "seen",
        "void",
    )

    def __init__(self, row: int, number: int) -> None:
        self.row = row
        self.number = number
        self.ballot = 0
        self.accepted = 0
        self.phase = UNKNOWN_YET
        self.void = False
        self.ops: list[Op] = []
        self.ops_saved = False
        self.initial_deps: list[int] | None = None
        self.deps: list[int] = []
        self.handles: list[Any] | None = None
        self.lead: Lead | None = None
        self.quest: Quest | None = None
        self.accepts: dict[int, bool] | None = None
        self.proposer = False
        self.early: list[int] | None = None
        self.before: list[tuple[int, int, bool]] | None = None
        self.blocked_by: tuple[int, int] | None = None
        self.holders: dict[int, bool] = {}
        self.due_ns = 0
        self.attempts = 0
        self.seen = 0

    def state(self) -> State:
        """What the node answers when somebody recovers the instance."""
        unchanged = self.phase == PRE_ACCEPTED and self.deps == self.initial_deps
        return State(
            self.row,
            self.number,
            self.ballot,
            self.phase,
            self.accepted,
            self.void,
            self.ops,
            self.deps,
            unchanged,
            self.proposer,
        )

    def choice(self, *, whole: bool) -> Choice:
        """Its value, ``whole`` or without operations."""
        ops = self.ops if whole and not self.void else []
        return Choice(self.row, self.number, self.ballot, self.void, ops, self.deps)

    def saved(self) -> Saved:
        """Its durable state."""
        ops = None if self.ops_saved else self.ops
        self.ops_saved = bool(self.ops)
        phase = min(self.phase, COMMITTED)
        return Saved(
            self.row,
            self.number,
            self.ballot,
            self.accepted,
            phase,
            self.void,
            ops,
            self.initial_deps,
            self.deps,
        )

    def restore(self, saved: Saved) -> None:
        """Be as it was saved."""
        self.ballot, self.accepted = saved.ballot, saved.accepted
        self.phase, self.void = saved.phase, saved.void
        if saved.ops is not None:
            self.ops, self.ops_saved = saved.ops, bool(saved.ops)
        self.initial_deps, self.deps = saved.initial_deps, saved.deps

    def promise(self, ballot: int) -> None:
        """Join a ballot; whatever this node wanted in an older one is over."""
        self.ballot = ballot
        self.lead = self.quest = self.accepts = None


class Row:
    """The instances of one proposer.

    ``executed``: all up to there are executed; ``gone``: forgotten, because they are so
    everywhere; ``top``: the highest number heard of.
    """

    __slots__ = ("executed", "gone", "instances", "top")

    def __init__(self) -> None:
        self.instances: dict[int, Instance] = {}
        self.executed = 0
        self.gone = 0
        self.top = 0

    def advance(self) -> None:
        """Move ``executed`` over what is."""
        instances = self.instances
        while (found := instances.get(self.executed + 1)) and found.phase == EXECUTED:
            self.executed += 1

    def forget(self, through: int) -> None:
        """Drop instances that every node has executed."""
        for number in range(self.gone + 1, through + 1):
            del self.instances[number]
        self.gone = max(self.gone, through)


class Interference:
    """The last instance of each row that reads, writes or scans a key.

    Operations interfere if they are on the same key and one of them may change it; a scan
    interferes with every change. Two lists a key that was ever used: as large as the state itself.
    """

    def __init__(self, rows: int) -> None:
        self._rows = range(rows)
        self._writes: dict[bytes, list[int]] = {}
        self._reads: dict[bytes, list[int]] = {}
        self._any_write = [0] * rows
        self._scans = [0] * rows

    def add(self, ops: list[Op], row: int, number: int) -> None:
        """An instance with these operations is known."""
        for op in ops:
            if op.kind == SCAN:
                last = self._scans
            else:
                changes = op.kind != READ
                table = self._writes if changes else self._reads
                found = table.get(op.key)
                last = table[op.key] = [0] * len(self._rows) if found is None else found
                if changes and number > self._any_write[row]:
                    self._any_write[row] = number
            if number > last[row]:
                last[row] = number

    def widen(self, deps: list[int], ops: list[Op], own_row: int) -> None:
        """Raise ``deps`` to what is known to interfere with ``ops``, but not in ``own_row``."""
        own = deps[own_row] if own_row >= 0 else 0
        for op in ops:
            if op.kind == SCAN:
                self._raise(deps, self._any_write)
                continue
            self._raise(deps, self._writes.get(op.key))
            if op.kind != READ:
                self._raise(deps, self._reads.get(op.key))
                self._raise(deps, self._scans)
        if own_row >= 0:
            deps[own_row] = own

    def _raise(self, deps: list[int], last: list[int] | None) -> None:
        if last is not None:
            for row, number in enumerate(last):
                if number > deps[row]:
                    deps[row] = number


def interfere(first: list[Op], second: list[Op]) -> bool:
    """Whether any operation of one interferes with any of the other."""
    return any(
        not READING.issuperset((one.kind, other.kind))
        and (one.key == other.key or SCAN in (one.kind, other.kind))
        for one in first
        for other in second
    )


def context_of(row: int, number: int, rows: int) -> bytes:
    """What a session carries on: the instance that answered it."""
    return (number * rows + row).to_bytes(CONTEXT_BYTES, "big")


def instance_in(context: bytes, rows: int) -> tuple[int, int]:
    """(row, number) of a session's context."""
    number, row = divmod(int.from_bytes(context, "big"), rows)
    return row, number
