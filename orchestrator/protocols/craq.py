"""CRAQ: a chain whose every node serves strong reads.

Terrace and Freedman, "Object Storage on CRAQ: High-Throughput Chain Replication for Read-Mostly
Workloads" (USENIX ATC 2009). Writes go down the chain as in :mod:`orchestrator.protocols.chain`,
and commit at its tail. A node holds a key *dirty* while it has a write of it of which it does not
know whether that is committed. A read of a clean key is answered where it arrives: a newer
committed write would have come through this node, and made the key dirty. For a dirty key the node
asks the tail which version is the committed one (section 2.3). The answer here is the tail's place
in the order of writes, which settles all dirty keys up to there at once, so one question serves
all the reads that arrived together, and the reader never sees a version that may yet be lost.

Both rest on the view being the current one when the read is answered. A node that was cut off
does not know what was committed without it, so it serves strong reads only while its lease holds
and it has not sealed its view (:mod:`._views`), and, new in the chain, once it holds all that was
committed before. A tail that has left the view cannot mislead others: its answer was true in that
view, and who asked looks at its own lease when the answer comes.

Reads that ask for less (section 2.4) take the newest version that the node knows to be committed;
a level above ``eventual`` waits until that includes everything that the session has seen.

Cost per write with n nodes: 2(n-1) messages and n one-way delays, as in a chain. A read costs no
message; of a dirty key 2 messages and one round trip to the tail, shared by a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from orchestrator.core.demand import Demand, Demands, everyone
from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import (
    READ,
    READ_COPY,
    READ_REPLY,
    READING,
    ClusterView,
    Effect,
    Event,
    MachineContext,
    Mark,
    Op,
    Send,
)
from orchestrator.core.registry import Family, register
from orchestrator.core.steps import ALL_KEYS
from orchestrator.protocols._chain_links import ChainParams, Link, heartbeats, write_demand
from orchestrator.protocols._copies import Copy
from orchestrator.protocols._views import NEVER_NS


class Ask(msgspec.Struct, array_like=True, tag=8, gc=False):
    """How much is committed? ``number`` comes back with the answer."""

    link: ClassVar[str] = READ_COPY
    epoch: int
    number: int


class Told(msgspec.Struct, array_like=True, tag=9, gc=False):
    """The tail has committed so much."""

    link: ClassVar[str] = READ_REPLY
    epoch: int
    number: int
    committed: int


@register(
    Family.PROTOCOL,
    "craq",
    params=ChainParams,
    claims={LINEARIZABLE: "always, where crashed nodes stay away or keep what they persisted"},
)
class Craq(Link):
    """A chain that serves strong reads at every node."""

    Message: ClassVar[Any] = Copy.Message | Ask | Told
    counts_pending = True

    def __init__(self, context: MachineContext, params: ChainParams) -> None:
        super().__init__(context, params)
        # Reads of dirty keys: those of this event, and those whose question is on its way.
        self._doubtful: list[tuple[Any, Op]] = []
        self._asking: dict[int, list[tuple[Any, Op]]] = {}
        # Of the last question: its own time of asking, so that no answer to a question from
        # before a crash can be taken for one of now.
        self._question = NEVER_NS

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects = super().handle(event, now_ns)
        if self._doubtful:
            self._ask(now_ns, effects)
        return effects

    # --- reads ----------------------------------------------------------------------------

    def _read_strongly(self, handle: Any, op: Op, serving: bool, effects: list[Effect]) -> None:
        membership, order = self._membership, self._order
        if not membership.member or self._reader() == self._node:
            super()._read_strongly(handle, op, serving, effects)
        elif not serving or order.last < membership.view.start:
            self._held.append((handle, op))
        elif self._clean(op):
            self._state.serve(handle, op, order.committed, effects)
        else:
            self._doubtful.append((handle, op))

    def _clean(self, op: Op) -> bool:
        """Whether nothing that it reads has a write that may be committed or not."""
        pending = self._order.pending
        if not pending:
            return True
        # What concerns all keys may have taken this one away.
        return op.kind == READ and op.key not in pending and ALL_KEYS not in pending

    def _ask(self, now_ns: int, effects: list[Effect]) -> None:
        self._question = max(now_ns, self._question + 1)
        self._asking[self._question] = self._doubtful
        self._doubtful = []
        effects.append(Mark("dirty_read"))
        effects.append(Send(self._reader(), Ask(self._membership.view.epoch, self._question)))

    def _other(self, source: int, message: Any, now_ns: int, effects: list[Effect]) -> None:
        match message:
            case Ask():
                self._asked(source, message, effects)
            case Told():
                self._told(message, now_ns, effects)

    def _asked(self, source: int, message: Ask, effects: list[Effect]) -> None:
        committed = self._order.committed
        is_tail = self._reader() == self._node and not self._membership.sealed
        if is_tail and committed >= self._floor:
            effects.append(Send(source, Told(message.epoch, message.number, committed)))

    def _told(self, message: Told, now_ns: int, effects: list[Effect]) -> None:
        self._learn(message.committed, effects)
        serving = self._membership.serving(now_ns)
        # What is committed now answers earlier questions, too.
        for number in [number for number in self._asking if number <= message.number]:
            for handle, op in self._asking.pop(number):
                if serving:
                    self._state.serve(handle, op, self._order.committed, effects)
                else:
                    self._held.append((handle, op))

    # --- questions that are not answered --------------------------------------------------

    def _adopt(self, effects: list[Effect]) -> None:
        # Nobody answers a question of an earlier view: look at these reads again.
        self._held += [read for reads in self._asking.values() for read in reads]
        self._asking.clear()
        super()._adopt(effects)

    def _heartbeat(self, now_ns: int, effects: list[Effect]) -> None:
        super()._heartbeat(now_ns, effects)
        oldest = next(iter(self._asking), now_ns)
        if oldest + self._resend_ns <= now_ns:
            # The newest once more, under its own number: the way to the tail may be long, and an
            # answer that is under way is as good.
            effects.append(Send(self._reader(), Ask(self._membership.view.epoch, self._question)))

    # --- for clients ----------------------------------------------------------------------

    @staticmethod
    def candidates(params: Any, op: Op, view: ClusterView) -> Sequence[int]:
        return view.nodes if op.kind in READING else (view.writer,)

    @staticmethod
    def demands(params: ChainParams, replicas: int, level: str) -> Demands:
        # Of clean keys: how many are dirty depends on the load.
        read = Demand(everyone(replicas))
        return Demands(read, write_demand(replicas), heartbeats(params, replicas))
