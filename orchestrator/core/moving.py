"""Data that moves between groups while it is used: a node of a sharded store whose layout changes.

When an operator's command begins an epoch, whoever leads a group gives away what the layout says,
cell by cell (:mod:`orchestrator.core.holdings` has the three steps and why they are safe): it
fences the cell in its own group, sends what was put aside to the other group, each piece once the
one before has been taken in (:mod:`orchestrator.core.giving`), and has it forgotten at home. One
cell of each group is on its way at a time.

Clients are not told beforehand. Whoever asks the old group for a cell that is on its way waits
there, for ``patience`` at the most, and is sent on. An operation that came too late for the fence
is answered by the old group with its place in the order, by which it is known here, and is sent on
as well.

Cost of a portion: two operations of the old group, and for each piece an operation of the new one
and two messages. The portion cannot be used from the fence to the last piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from orchestrator.core.giving import Carried, Carry, Giving, Step
from orchestrator.core.layout import MOVING, NOBODY, Change
from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import (
    CAS,
    OK,
    READING,
    Admin,
    ClaimContext,
    ClusterView,
    Effect,
    Event,
    MachineContext,
    Op,
    Received,
    Redirect,
    Reply,
    SetTimer,
    Started,
    TimerFired,
)
from orchestrator.core.sharding import Sharded, Shards
from orchestrator.core.state import VOID

TICK: Final = "moving"
NEVER_NS: Final = 1 << 62
EPOCH_BITS: Final = 40
"""A version as clients see it is the epoch, then the place in the order of the group."""


class Moving(Giving):
    """The machines of all groups of one node, between which data moves."""

    commands: ClassVar[frozenset[str]] = MOVING

    def __init__(self, context: MachineContext, params: Shards) -> None:
        super().__init__(context, params)
        self._shards = params
        # Operations on what is on its way: (since when, handle, operation).
        self._waiting: list[tuple[int, Any, Op]] = []
        self._looked_at = 0
        self._stirred = False
        self._armed_ns = 0

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        role = self.role
        match event:
            case Received(source, Carry()):
                self._carry(source, event.message)
            case Received(source, Carried()):
                self._heard.append((source, event.message))
            case TimerFired(timer) if timer == TICK:
                self._tick(now_ns, effects)
            case Admin(command, node) if command in MOVING:
                self._change(Change(command, node))
            case _:
                effects = super().handle(event, now_ns)
                if type(event) is Started:
                    # Before the load, since it looks at every key.
                    self._preloaded_cells()
                    self._arm(now_ns, effects)
        self._stirred |= role != self.role
        self._settle(now_ns, effects)
        return effects

    def _change(self, change: Change) -> None:
        """An operator's command begins the next epoch that it stands for, if there is one."""
        changes = self.layouts.changes
        later = range(self._epoch, len(changes))
        self._epoch = next((at + 1 for at in later if changes[at] == change), self._epoch)
        self._stirred = True

    def _tick(self, now_ns: int, effects: list[Effect]) -> None:
        """Steps without an answer are asked for again, and nobody waits for ever."""
        before_ns = now_ns - self._params.patience
        for since_ns, handle, op in self._waiting:
            if since_ns <= before_ns:
                effects.append(Redirect(handle, op, NOBODY))
        self._waiting = [each for each in self._waiting if each[0] > before_ns]
        self._stirred = True
        self._arm(now_ns, effects)

    def _arm(self, now_ns: int, effects: list[Effect]) -> None:
        self._armed_ns = now_ns + self._params.resend
        effects.append(SetTimer(TICK, self._params.resend))

    # --- what follows from an event -------------------------------------------------------

    def _settle(self, now_ns: int, effects: list[Effect]) -> None:
        """Let the groups here take their steps, until nothing is left to be done now."""
        while True:
            for source, carried in self._take_heard():
                self._hear(source, carried, now_ns)
                self._stirred = True
            if self._stirred:
                self._stirred = False
                if self._epoch:
                    self._give(now_ns, effects)
            if self._waiting:
                self._look_again(now_ns, effects)
            if self._asked:
                asked, self._asked = self._asked, {}
                for group, batch in asked.items():
                    self.run(group, batch, now_ns, effects)
            elif not self._heard and not self._stirred:
                break
        self._leave(effects)
        due_ns = min((journey.due_ns for journey in self._journeys.values()), default=NEVER_NS)
        if due_ns < self._armed_ns:
            self._armed_ns = due_ns
            effects.append(SetTimer(TICK, max(0, due_ns - now_ns)))

    def _take_heard(self) -> list[tuple[int, Carried]]:
        heard, self._heard = self._heard, []
        return heard

    def _look_again(self, now_ns: int, effects: list[Effect]) -> None:
        """Operations that wait go on once a step was taken here."""
        steps = sum(held.steps for held in self.holdings.values())
        if steps == self._looked_at:
            return
        self._looked_at = steps
        waiting, self._waiting = self._waiting, []
        for since_ns, handle, op in waiting:
            self._direct(handle, op, since_ns, effects)

    # --- operations -----------------------------------------------------------------------

    def _requested(
        self, handles: list[Any], ops: list[Op], now_ns: int, effects: list[Effect]
    ) -> None:
        for handle, op in zip(handles, ops, strict=True):
            self._direct(handle, op, now_ns, effects)

    def _direct(self, handle: Any, op: Op, since_ns: int, effects: list[Effect]) -> None:
        """To the group here that has the cell, or to where it may be."""
        cell = self.layouts.cell_of(op.key)
        for group in self.layouts.owners(cell):
            held = self.holdings.get(group)
            if held is not None and held.holds(cell):
                self.batch(self._asked, group, handle, op)
                return
        self._elsewhere(handle, op, cell, since_ns, effects)

    def _elsewhere(
        self, handle: Any, op: Op, cell: int, since_ns: int, effects: list[Effect]
    ) -> None:
        path = self.layouts.path(cell)
        earlier = path[0]
        for group in self.layouts.owners(cell):
            held = self.holdings.get(group)
            if held is None:
                continue
            if cell in held.aside or cell in held.arriving:
                self._waiting.append((since_ns, handle, op))
                return
            if cell in held.left:
                later = path[held.left[cell][0]]
                effects.append(Redirect(handle, op, self._member(cell, later, op)))
                return
            # It has not come yet: whoever has it before does not know either.
            earlier = path[max(0, path.index(group) - 1)]
        effects.append(Redirect(handle, op, self._member(cell, earlier, op)))

    def _member(self, cell: int, group: int, op: Op) -> int:
        """Who is to be asked of a group: somebody by whom a client can tell which group it is."""
        nodes = [self._charged[group], *self.layouts.groups[group].nodes]
        others = [node for node in nodes if node != self.node] or nodes
        for node in others:
            view = ClusterView(self.nodes, node, node)
            if asked_of(type(self), self._shards, op, view)[0] == group:
                return node
        return others[0]

    def replied(self, shard: int, reply: Reply, now_ns: int, effects: list[Effect]) -> None:
        if type(reply.handle) is Step:
            super().replied(shard, reply, now_ns, effects)
            self._stirred = True
            return
        handle, op, _ = reply.handle
        held, cell = self.holdings[shard], self.layouts.cell_of(op.key)
        if reply.outcome != OK:
            self.answered(shard, reply, effects)
        elif reply.version == VOID or (op.kind in READING and not held.valid(cell, reply.version)):
            # It had no effect here, or what it found may be old.
            self._direct(handle, op, now_ns, effects)
        else:
            epoch, _ = held.arrival(cell) or (0, 0)
            self.answered(shard, reply, effects, version=epoch << EPOCH_BITS | reply.version)

    def redirected(
        self, shard: int, redirect: Redirect, now_ns: int, effects: list[Effect]
    ) -> None:
        if type(redirect.handle) is Step:
            super().redirected(shard, redirect, now_ns, effects)
            self._stirred = True
        else:
            Sharded.redirected(self, shard, redirect, now_ns, effects)

    # --- about it -------------------------------------------------------------------------

    @property
    def unfinished(self) -> int:
        """Cells on their way, or still to be given away, and operations that wait for them."""
        left = len(self._waiting)
        for group, held in self.holdings.items():
            left += len(held.aside) + len(held.arriving)
            left += any(self._leaves(group, cell) for cell in self._cells_here(group))
        return left

    def check(self) -> None:
        super().check()
        for held in self.holdings.values():
            held.check()

    # --- for clients ----------------------------------------------------------------------

    @classmethod
    def kinds_of(cls, params: Shards) -> frozenset[int]:
        """No compare-and-set: of one, deduplication must know the outcome, which does not move."""
        return super().kinds_of(params) - {CAS}

    @classmethod
    def candidates(cls, params: Shards, op: Op, view: ClusterView) -> Sequence[int]:
        return asked_of(cls, params, op, view)[1]

    @classmethod
    def claims(cls, params: Shards, context: ClaimContext) -> frozenset[str]:
        return super().claims(params, context) & {LINEARIZABLE}

    @classmethod
    def read_levels(cls, params: Shards, context: ClaimContext) -> frozenset[str]:
        """None: what is old in one group may be older than what a session has seen in another."""
        return frozenset()


def asked_of(
    machine: type[Moving], params: Shards, op: Op, view: ClusterView
) -> tuple[int, list[int]]:
    """The group that a client asks, and its candidates: the earliest of those to which it may have
    been sent, going by the node that it was sent to.
    """
    layouts, found = params.layouts, None
    asked = view.reader if op.kind in READING else view.writer
    for number in reversed(layouts.owners(layouts.cell_of(op.key))):
        group = layouts.groups[number]
        inside = machine.inner.candidates(params.own, op, group.view(view))
        chosen = [group.nodes[each] for each in inside]
        if asked in chosen:
            return number, chosen
        # A protocol may name the same node to everybody.
        if found is None or (asked in group.rank and asked not in layouts.groups[found[0]].rank):
            found = (number, chosen)
    assert found is not None, "every cell has an owner"
    return found
