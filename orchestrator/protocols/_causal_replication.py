"""How writes reach the other nodes and are applied there in causal order.

A node's writes are numbered and applied in their order. They are sent once, to all; after that
nodes tell each other what they have (anti-entropy as in Bayou, see the paper that
:mod:`orchestrator.protocols.causal` names), and whoever has what is lacking sends it, so that
writes of a node that is gone still spread. A node that fell behind the logs gets a whole state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core.machine import Effect, MachineContext, Mark, Op, Persist, Send, SetTimer
from orchestrator.protocols._causal_log import (
    ALL,
    NONE,
    Continue,
    Have,
    Log,
    Piece,
    State,
    Writes,
    published,
)
from orchestrator.protocols._causal_past import NODE_BITS, NODE_MASK, versions_of
from orchestrator.protocols._last_writer_wins import LastWriterWins
from orchestrator.protocols._pieces import Arrival, Image

_encode = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(State).decode
_LOOK: Final = "look"
_WRITES_MAX: Final = 4096  # in one message to a node that fell behind
_DROP_AT_LEAST: Final = 512


class Replicator(ABC):
    """The part of a node that other nodes talk to."""

    state_type: ClassVar[type[LastWriterWins]] = LastWriterWins

    def __init__(self, context: MachineContext, interval_ns: int, keep: int) -> None:
        self._node = context.node
        self._peers = context.peers
        self._chance = context.chance
        self._interval_ns = interval_ns
        self._keep = keep
        self._state = self.state_type(context.preload, accesses=context.accesses)
        self._logs = [Log(node) for node in context.nodes]
        # The newest applied version of each node, with room for any that a context may name.
        self._applied = [0] * (NODE_MASK + 1)
        self._time = 0
        self._token = 0
        # Taken in this event, not yet sent.
        self._fresh: list[Op] = []
        self._fresh_versions: list[int] = []
        self._known = {peer: [0] * len(context.nodes) for peer in self._peers}
        # What was applied at the last look, and at the one before: older than any message.
        self._recent = self._settled = [0] * len(context.nodes)
        # A state that others fetch, and how many writes of each node it holds; one that arrives.
        self._image: Image | None = None
        self._image_counts: list[int] = []
        self._arrival = Arrival()

    @abstractmethod
    def _release(self, node: int, effects: list[Effect]) -> None:
        """Serve those who waited for writes of that node which are here now."""

    @abstractmethod
    def _awaited(self, node: int) -> bool:
        """Whether somebody waits for a write of that node."""

    # --- applying -------------------------------------------------------------------------

    def _missing(self, versions: Sequence[int]) -> int:
        """One of the versions that is not applied; 0 where all are."""
        applied = self._applied
        for version in versions:
            if applied[version & NODE_MASK] < version:
                return version
        return 0

    def _take_in(self, op: Op, version: int, effects: list[Effect]) -> None:
        """Apply a write whose past is applied."""
        state = self._state
        state.join(op.key, op.value or b"", version)
        state.note(op.session, op.sequence, version)
        state.touch(op, effects)
        self._passed(version)

    def _passed(self, version: int) -> None:
        node, time = version & NODE_MASK, version >> NODE_BITS
        if version > self._applied[node]:
            self._applied[node] = version
        if time > self._time:
            self._time = time

    def _apply(self, effects: list[Effect]) -> None:
        """Apply whatever has its dependencies; what that applies may be another's."""
        moved = True
        while moved:
            moved = False
            for log in self._logs:
                if log.blocked and self._apply_of(log, effects):
                    moved = True
                    self._release(log.origin, effects)

    def _apply_of(self, log: Log, effects: list[Effect]) -> bool:
        count = 0
        for op, version in log.blocked:
            if self._depends_on_missing(op):
                break
            self._take_in(op, version, effects)
            count += 1
        if count < len(log.blocked):
            effects.append(Mark("dependency_wait"))
        if count:
            self._persist(log.applied(count), effects)
        return count > 0

    def _depends_on_missing(self, op: Op) -> bool:
        return self._missing(versions_of(op.context)) != 0

    def _persist(self, record: Any, effects: list[Effect]) -> None:
        self._token += 1
        effects.append(Persist(record, self._token))

    # --- sending --------------------------------------------------------------------------

    def _publish(self, effects: list[Effect]) -> None:
        """Keep what was taken in this event, and send it to all."""
        log = self._logs[self._node]
        message = Writes(self._node, log.count + 1, self._fresh_versions, self._fresh)
        log.ops += self._fresh
        log.versions += self._fresh_versions
        self._fresh, self._fresh_versions = [], []
        self._persist(message, effects)
        for part in published(message):
            effects.extend([Send(peer, part) for peer in self._peers])
        if not self._peers:
            log.drop_through(log.count)

    def _writes(self, source: int, message: Writes, effects: list[Effect]) -> None:
        log = self._logs[message.origin]
        log.receive(message)
        if log.early:
            effects.append(Mark("gap"))
        self._apply(effects)
        if message.more and log.count >= message.first + len(message.ops) - 1:
            effects.append(Send(source, Have(self._counts(), message.origin, lost=True)))

    def _counts(self) -> list[int]:
        return [log.count for log in self._logs]

    def _look(self, effects: list[Effect]) -> None:
        """Tell a node what is here, and ask for what is lacking."""
        counts, fetching = self._counts(), self._fetching(effects)
        have = Have(counts, NONE if fetching else ALL, asks=True)
        effects.append(Send(self._chance.choice(self._peers), have))
        for log in self._logs:
            lacks = bool(log.blocked or log.early or self._awaited(log.origin))
            if lacks and not fetching and log.stuck_at == log.count and log.origin != self._node:
                effects.append(Send(log.origin, Have(counts, log.origin, lost=True)))
            log.stuck_at = log.count if lacks else -1
            self._drop_known(log)
        self._settled, self._recent = self._recent, counts
        effects.append(SetTimer(_LOOK, self._interval_ns))

    def _drop_known(self, log: Log) -> None:
        """Forget what every node has, and what is too much to keep."""
        known = min(counts[log.origin] for counts in self._known.values())
        known = max(min(known, log.count), log.count - self._keep)
        if self._image_counts:
            known = min(known, self._image_counts[log.origin])
        if known - log.base >= min(_DROP_AT_LEAST, self._keep):
            log.drop_through(known)

    def _have(self, source: int, message: Have, effects: list[Effect]) -> None:
        theirs = message.counts
        self._known[source] = [max(pair) for pair in zip(self._known[source], theirs, strict=True)]
        for log, count, settled in zip(self._logs, theirs, self._settled, strict=True):
            # What came a moment ago is probably under way to them, too.
            through = log.count if message.lost else settled
            if count >= through or message.only not in (ALL, log.origin):
                continue
            effects.append(Mark("repair"))
            if count < log.base:
                self._send_state(source, effects)
                return
            effects.append(Send(source, log.from_number(count + 1, _WRITES_MAX)))
        behind = any(count > log.count for log, count in zip(self._logs, theirs, strict=True))
        if message.asks and behind:
            effects.append(Send(source, Have(self._counts())))

    # --- whole states ---------------------------------------------------------------------

    def _send_state(self, target: int, effects: list[Effect]) -> None:
        """All that is applied here, or its first piece."""
        image = self._image
        if image is None:
            counts, applied = self._counts(), self._applied[: len(self._logs)]
            image = Image(self._time, _encode(State(counts, applied, self._state.snapshot())))
            if image.large:
                # No other one is to have its name, not even after a restart. The writes that
                # follow are kept until it has been fetched.
                self._time += 1
                self._image, self._image_counts = image, counts
        effects.append(Send(target, Piece(image.name, 0, *image.piece(0))))

    def _continue(self, source: int, message: Continue, effects: list[Effect]) -> None:
        """A node has a piece and wants the next."""
        image = self._image
        if image is not None and image.name == message.number:
            piece = Piece(image.name, message.offset, *image.piece(message.offset))
            effects.append(Send(source, piece))

    def _piece(self, source: int, message: Piece, effects: list[Effect]) -> None:
        """A piece of another node's state; those of a second node have to wait."""
        arrival, name = self._arrival, (source, message.number)
        if arrival.name not in (None, name):
            return
        whole = arrival.add(name, message.offset, message.data, message.last)
        if whole is not None:
            self._install(_decode_state(whole), effects)
        elif arrival.asks:
            effects.append(Send(source, Continue(message.number, arrival.size)))

    def _fetching(self, effects: list[Effect]) -> bool:
        """Whether a state is arriving; at each look, so that nothing that was lost is missed."""
        if self._image is not None and self._image.idle():
            self._image, self._image_counts = None, []
        arrival = self._arrival
        if arrival.name is not None and arrival.overdue():
            if arrival.stalled:
                # Another node may be nearer, or this one has forgotten the state.
                arrival.clear()
            else:
                source, number = arrival.name
                effects.append(Send(source, Continue(number, arrival.size)))
        return arrival.name is not None

    def _install(self, message: State, effects: list[Effect]) -> None:
        """Join another node's state: both hold the past of all they hold, so both together do."""
        if all(log.count >= count for log, count in zip(self._logs, message.counts, strict=True)):
            return
        self._merge(message)
        # What others fetch may have lost its continuation here.
        self._image, self._image_counts = None, []
        effects.append(Mark("snapshot_installed"))
        self._persist(message, effects)
        for log in self._logs:
            self._release(log.origin, effects)
        self._apply(effects)

    def _merge(self, message: State) -> None:
        self._state.merge(message.snapshot)
        columns = (self._logs, message.counts, message.versions)
        for log, count, version in zip(*columns, strict=True):
            if count > log.count:
                log.jump(count)
                self._passed(version)

    def _start(self, records: list[Any], effects: list[Effect]) -> None:
        ignored: list[Effect] = []
        for record in records:
            if isinstance(record, State):
                self._merge(record)
                continue
            log = self._logs[record.origin]
            for op, version in zip(record.ops, record.versions, strict=True):
                self._take_in(op, version, ignored)
            log.ops += record.ops
            log.versions += record.versions
        self._recent = self._settled = self._counts()
        if not self._peers:
            return
        if records:
            effects.append(Mark("recovery"))
            chosen = self._chance.choice(self._peers)
            effects.append(Send(chosen, Have(self._counts(), asks=True, lost=True)))
        effects.append(SetTimer(_LOOK, self._chance.randrange(self._interval_ns) + 1))

    def _check_logs(self) -> None:
        for log in self._logs:
            assert len(log.ops) == len(log.versions)
            versions = [*log.versions, *(version for _, version in log.blocked)]
            assert versions == sorted(set(versions)), "a node's versions rise"
            assert not log.versions or log.versions[-1] == self._applied[log.origin]
            assert all(first > log.count for first in log.early)
            assert not log.blocked or self._depends_on_missing(log.blocked[0][0])
        for entry in self._state.values.values():
            assert entry.version <= self._applied[entry.version & NODE_MASK]
        assert max(self._applied) >> NODE_BITS <= self._time
