"""Giving cells away: what whoever leads a group does for those that go to another group.

Every step may be asked for any number of times, and groups take it once
(:mod:`orchestrator.core.holdings`). So whatever is lost is asked for again, and whoever leads next
goes on from what the group's state says: nothing here has to survive a crash.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core.faults import leads
from orchestrator.core.holdings import DONE, Aside, Cell, Holdings, Piece, encode
from orchestrator.core.layout import NOBODY
from orchestrator.core.machine import (
    ACKNOWLEDGE,
    OK,
    REPLICATE,
    Effect,
    MachineContext,
    Mark,
    Op,
    Redirect,
    Reply,
    Requested,
    Send,
)
from orchestrator.core.parameters import ParameterError, bandwidth, duration, number, size
from orchestrator.core.sharding import ENVELOPE_TAG, Sharded, Shards
from orchestrator.core.steps import ADOPT, ALL_KEYS, FENCE, RELEASE
from orchestrator.core.units import NS_PER_S

FENCED: Final = "fenced"
MOVED: Final = "moved"
"""Kinds of the events that a portion is on its way, and that it has gone over."""
ELSEWHERE: Final = -2
"""Answer to a piece that has come to a node which is not in charge."""
RETRY_NS: Final = 2_000_000
"""Pause before a step is asked for again that found nobody in charge."""
_SESSION_BYTES: Final = 16
_ALL: Final = 1 << 40


@dataclass(frozen=True)
class MoveParams:
    portions: int = number(
        16, low=1, high=4096, help="that what goes from group to group is cut into"
    )
    piece: int = size("64KiB", low="1B", help="of a portion, in one message")
    bandwidth: float | None = bandwidth(None, help="of each group that gives; null: no limit")
    resend: int = duration("200ms", help="a step without an answer is asked for again")
    patience: int = duration("1s", help="for which operations wait on what is on its way")

    def __post_init__(self) -> None:
        if min(self.resend, self.patience) <= 0:
            raise ParameterError("all durations must be above 0")
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise ParameterError("must be above 0", key="bandwidth")


class Carry(msgspec.Struct, array_like=True, tag=ENVELOPE_TAG + 1, gc=False):
    """A piece for a group that the receiver may be in charge of."""

    link: ClassVar[str] = REPLICATE
    group: int
    cell: int
    epoch: int
    op: Op


class Carried(msgspec.Struct, array_like=True, tag=ENVELOPE_TAG + 2, gc=False):
    """Which piece the group wants now (DONE: none), or ELSEWHERE: ask ``node`` (-1: not known)."""

    link: ClassVar[str] = ACKNOWLEDGE
    group: int
    cell: int
    epoch: int
    wanted: int
    node: int = NOBODY


@dataclass(frozen=True)
class Step:
    """Handle of a step that a group here is asked to take by node ``source``."""

    kind: int
    cell: int
    epoch: int
    source: int


@dataclass
class Journey:
    """A cell on its way to group ``target``, as far as whoever leads its old group knows.

    ``stage``: the step that comes next. ``due_ns``: when it is asked for, again; of a piece not
    before ``allowed_ns``, for the bandwidth.
    """

    cell: int
    epoch: int
    target: int
    stage: int
    pieces: Sequence[Piece] = ()
    number: int = 0
    asked: int = 0
    due_ns: int = 0
    allowed_ns: int = 0

    def turn(self, stage: int, now_ns: int) -> None:
        """Go on with another step."""
        self.stage, self.asked, self.due_ns = stage, 0, now_ns


class Giving(Sharded):
    """A node of groups that cells come to and go from."""

    own_messages: ClassVar[Any] = Carry | Carried

    def __init__(self, context: MachineContext, params: Shards) -> None:
        self.holdings: dict[int, Holdings] = {}
        self._params: MoveParams = params.layer
        self._preload = context.preload
        super().__init__(context, params)
        # The epoch that commands have asked for.
        self._epoch = 0
        self._journeys: dict[int, Journey] = {}
        # By group: cells to give away, and what the last search for them knew.
        self._due: dict[int, list[int]] = {}
        self._searched: dict[int, tuple[int, int]] = {}
        # By group: the node that seems to be in charge.
        self._charged = [group.nodes[0] for group in self.layouts.groups]
        # What groups here are asked for at the end of this event.
        self._asked: dict[int, Requested] = {}
        self._messages: list[tuple[int, Carry | Carried]] = []
        self._heard: list[tuple[int, Carried]] = []
        self._preloaded: dict[int, list[bytes]] | None = None

    def _machine(self, context: MachineContext, group: int, own: Any) -> Any:
        held = self.holdings[group] = Holdings(self.layouts, group)
        return super()._machine(dataclasses.replace(context, holdings=held), group, own)

    # --- what is to be given away ---------------------------------------------------------

    def _give(self, now_ns: int, effects: list[Effect]) -> None:
        """Go on with all cells that leave groups which are led from here."""
        for group, machine in self.machines.items():
            if not leads(machine.role):
                self._journeys.pop(group, None)
                continue
            journey = self._journeys.get(group)
            if journey is None:
                journey = self._begin(group, now_ns)
            if journey is not None and journey.due_ns <= now_ns:
                self._ask(group, journey, now_ns, effects)

    def _begin(self, group: int, now_ns: int) -> Journey | None:
        held = self.holdings[group]
        for cell, aside in held.aside.items():
            # Whoever led before has come so far.
            return self._start(group, cell, aside.epoch, ADOPT, now_ns)
        due = self._next_due(group)
        epoch = None if due is None else held.next_epoch(due)
        if due is None or epoch is None:
            return None
        return self._start(group, due, epoch, FENCE, now_ns)

    def _start(self, group: int, cell: int, epoch: int, stage: int, now_ns: int) -> Journey:
        target = self.layouts.path(cell)[epoch]
        journey = Journey(cell, epoch, target, stage, due_ns=now_ns, allowed_ns=now_ns)
        self._journeys[group] = journey
        return journey

    def _next_due(self, group: int) -> int | None:
        """A cell of the group that is to be elsewhere; None where there is none."""
        held, due = self.holdings[group], self._due.setdefault(group, [])
        if held.arrived:
            due += [cell for cell in held.arrived if self._leaves(group, cell)]
            held.arrived.clear()
        # What an epoch does not change it need not be asked about again, unless it is new.
        seen = (self._epoch, held.first_written)
        if self._searched.get(group) != seen:
            self._searched[group] = seen
            leaving = {cell: True for cell in self._cells_here(group) if self._leaves(group, cell)}
            due[:] = sorted(leaving, reverse=True)
        while due and not self._leaves(group, due[-1]):
            due.pop()
        return due[-1] if due else None

    def _cells_here(self, group: int) -> list[int]:
        """Those of all preloaded keys, wherever they are, and of what was written here."""
        return [*self._preloaded_cells(), *self.holdings[group].written]

    def _leaves(self, group: int, cell: int) -> bool:
        epoch = self.holdings[group].next_epoch(cell)
        return epoch is not None and epoch <= self._epoch

    def _preloaded_cells(self) -> dict[int, list[bytes]]:
        """The preloaded keys that ever move, by cell."""
        if self._preloaded is None:
            self._preloaded = {}
            for key in self._preload.keys_from(b"", _ALL):
                cell = self.layouts.cell_of(key)
                if len(self.layouts.owners(cell)) > 1:
                    self._preloaded.setdefault(cell, []).append(key)
        return self._preloaded

    # --- steps ----------------------------------------------------------------------------

    def _ask(self, group: int, journey: Journey, now_ns: int, effects: list[Effect]) -> None:
        """Ask for the journey's next step, and again until there is an answer."""
        cell, epoch = journey.cell, journey.epoch
        if journey.stage == ADOPT:
            self._send_piece(group, journey, now_ns, effects)
            return
        journey.due_ns = now_ns + self._params.resend
        op = Op(0, 0, journey.stage, ALL_KEYS, encode(Cell(cell, epoch)))
        self._hand(group, Step(journey.stage, cell, epoch, self.node), op)

    def _hand(self, group: int, step: Step, op: Op) -> None:
        batch = self._asked.setdefault(group, Requested([], []))
        batch.handles.append(step)
        batch.ops.append(op)

    def _send_piece(self, group: int, journey: Journey, now_ns: int, effects: list[Effect]) -> None:
        if now_ns < journey.allowed_ns:
            journey.due_ns = journey.allowed_ns
            return
        if not journey.pieces:
            aside = self.holdings[group].aside.get(journey.cell)
            if aside is None:
                del self._journeys[group]
                return
            journey.pieces = list(self._cut(journey.cell, aside))
        piece = journey.pieces[journey.number]
        value = encode(piece)
        op = Op(0, 0, ADOPT, ALL_KEYS, value, len(value))
        if journey.asked:
            # Whoever was asked did not answer.
            self._turn_to_next(journey.target, self._charged[journey.target])
        node, target = self._charged[journey.target], journey.target
        if node == self.node:
            self._hand(target, Step(ADOPT, piece.cell, piece.epoch, node), op)
        else:
            self._messages.append((node, Carry(target, piece.cell, piece.epoch, op)))
        # Twice as long each time: where answers are late, asking more makes them later.
        journey.due_ns = now_ns + (self._params.resend << min(journey.asked, 2))
        journey.asked += 1
        if self._params.bandwidth is not None:
            journey.allowed_ns = now_ns + round(len(value) * NS_PER_S / self._params.bandwidth)

    def _turn_to_next(self, group: int, node: int) -> None:
        """Another node of the group may be in charge."""
        nodes = self.layouts.groups[group].nodes
        at = nodes.index(node) if node in nodes else -1
        self._charged[group] = nodes[(at + 1) % len(nodes)]

    def _cut(self, cell: int, aside: Aside) -> Iterator[Piece]:
        """What was put aside, and what was never written, in pieces: always the same ones."""
        written = dict(zip(aside.keys, aside.values, strict=True))
        keys = sorted({*written, *self._preloaded_cells().get(cell, ())})
        most, number = self._params.piece, 0
        piece = Piece(cell, aside.epoch, 0, False, [], [], [], [])
        room = most
        columns = zip(aside.sessions, aside.sequences, strict=True)
        for session, sequence in columns:
            if room <= 0:
                yield piece
                number, room = number + 1, most
                piece = Piece(cell, aside.epoch, number, False, [], [], [], [])
            piece.sessions.append(session)
            piece.sequences.append(sequence)
            room -= _SESSION_BYTES
        for key in keys:
            value = written[key] if key in written else self._preload.get(key) or b""
            if room <= 0:
                yield piece
                number, room = number + 1, most
                piece = Piece(cell, aside.epoch, number, False, [], [], [], [])
            piece.keys.append(key)
            piece.values.append(value)
            room -= len(key) + len(value)
        piece.last = True
        yield piece

    # --- answers --------------------------------------------------------------------------

    def replied(self, shard: int, reply: Reply, now_ns: int, effects: list[Effect]) -> None:
        """A group has taken a step."""
        step: Step = reply.handle
        if reply.outcome != OK:
            return  # it is asked for again
        if step.kind == ADOPT:
            self._answer(step, Carried(shard, step.cell, step.epoch, reply.value))
            return
        journey = self._journeys.get(shard)
        if journey is None or (journey.stage, journey.cell, journey.epoch) != (
            step.kind,
            step.cell,
            step.epoch,
        ):
            return
        if step.kind == FENCE and step.cell in self.holdings[shard].aside:
            effects.append(Mark(FENCED, f"{step.epoch} {step.cell} {shard} {journey.target}"))
            journey.turn(ADOPT, now_ns)
            return
        if step.kind == RELEASE:
            self._note_moved(shard, journey, effects)
        del self._journeys[shard]

    def _note_moved(self, group: int, journey: Journey, effects: list[Effect]) -> None:
        keys = sum(len(piece.keys) for piece in journey.pieces)
        together = sum(
            len(part) for piece in journey.pieces for part in (*piece.keys, *piece.values)
        )
        where = f"{journey.epoch} {journey.cell} {group} {journey.target}"
        effects.append(Mark(MOVED, f"{where} {keys} {together}"))

    def redirected(
        self, shard: int, redirect: Redirect, now_ns: int, effects: list[Effect]
    ) -> None:
        """A group is led from elsewhere."""
        step: Step = redirect.handle
        if step.kind == ADOPT:
            node = self.outside(redirect.node, shard)
            self._answer(step, Carried(shard, step.cell, step.epoch, ELSEWHERE, node))

    def _answer(self, step: Step, carried: Carried) -> None:
        if step.source == self.node:
            self._heard.append((self.node, carried))
        else:
            self._messages.append((step.source, carried))

    def _hear(self, source: int, carried: Carried, now_ns: int) -> None:
        """What came of a piece."""
        for journey in self._journeys.values():
            if (journey.stage, journey.cell, journey.epoch) == (
                ADOPT,
                carried.cell,
                carried.epoch,
            ) and journey.target == carried.group:
                self._go_on(journey, source, carried, now_ns)

    def _go_on(self, journey: Journey, source: int, carried: Carried, now_ns: int) -> None:
        if carried.wanted == ELSEWHERE:
            journey.asked = 0
            if carried.node in (NOBODY, source):
                self._turn_to_next(journey.target, source)
                journey.due_ns = now_ns + RETRY_NS
            else:
                self._charged[journey.target] = carried.node
                journey.due_ns = now_ns
            return
        self._charged[journey.target] = source
        if carried.wanted == DONE:
            journey.turn(RELEASE, now_ns)
        elif carried.wanted != journey.number or journey.asked > 1:
            journey.number = min(carried.wanted, len(journey.pieces) - 1)
            journey.turn(ADOPT, now_ns)

    def _carry(self, source: int, carry: Carry) -> None:
        """Another node has a piece for a group here."""
        if carry.group in self.machines:
            self._hand(carry.group, Step(ADOPT, carry.cell, carry.epoch, source), carry.op)

    def _leave(self, effects: list[Effect]) -> None:
        """What is to go to other nodes."""
        if self._messages:
            effects += [Send(node, message) for node, message in self._messages]
            self._messages = []
