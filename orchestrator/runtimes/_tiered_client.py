"""The load generator in front of a cache tier: who is asked first, and what follows from it.

What goes through the tier is one request to the tier node of its key. Else an operation has steps,
one after the other: a look-up, and where it missed the store, and then a filling that nobody waits
for; or the store's write, and then an invalidation. All steps are of the one operation that the
history knows, which takes as long as all of them, and is answered by what the store or the cache
said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from orchestrator.core.load import RETURNED, Word
from orchestrator.core.machine import OK, READ, WRITE, Op
from orchestrator.core.tier import MISSED, WAIT, Pattern, node_of
from orchestrator.runtimes._agenda import AGAIN
from orchestrator.runtimes._client import LoadDriver
from orchestrator.runtimes._sending import RETRY_NS
from orchestrator.runtimes._session import Session

TIER: Final = 0
STORE: Final = 1
INVALIDATING: Final = 2


class Said(NamedTuple):
    """What the store has said of a write that is not over yet."""

    node: int
    value: bytes | None
    version: int
    context: bytes


class Plan(NamedTuple):
    """How clients use the tier, see :class:`Pattern`."""

    nodes: Sequence[int]
    fills: bool
    takes_writes: bool
    invalidates: bool
    insists: bool
    wait_ns: int

    @staticmethod
    def of(nodes: Sequence[int], pattern: type[Pattern], params: Any) -> Plan:
        """That of a pattern with its parameters."""
        return Plan(
            nodes,
            pattern.fills,
            pattern.takes_writes,
            pattern.invalidates(params),
            pattern.insists(params),
            pattern.wait_ns(params),
        )


class TieredDriver(LoadDriver):
    """One client's load."""

    def __init__(self, plan: Plan, *arguments: Any, **options: Any) -> None:
        self._plan = plan
        self._first = plan.nodes[0]
        # By session: the lease to fill with, and what the store has said of a write.
        self._leases: dict[int, bytes] = {}
        self._said: dict[int, Said] = {}
        super().__init__(*arguments, **options)

    # --- out ------------------------------------------------------------------------------

    def _begin(
        self, session: Session, kind: int, key: int, size: int, count: int, level: int, now_ns: int
    ) -> None:
        session.step = TIER if kind == READ or self._plan.takes_writes else STORE
        super()._begin(session, kind, key, size, count, level, now_ns)

    def _send(self, session: Session, now_ns: int, *, hedging: bool = False) -> None:
        if session.step == STORE:
            super()._send(session, now_ns)
            return
        op = session.op
        if session.step == INVALIDATING:
            op = msgspec.structs.replace(op, value=None)
        node = self._ask_tier(session, op)
        if node >= 0:
            session.target = node
            session.sent_ns = now_ns
            session.out = True
        else:
            self._unreached(session, now_ns)

    def _ask_tier(self, session: Session, op: Op) -> int:
        """Send it to the tier node of its key, and say which that is; -1 where it is not there."""
        node = node_of(op.key, self._plan.nodes)
        own, session.op = session.op, op
        is_sent = session.port.submit(session, node)
        session.op = own
        return node if is_sent else -1

    def _unreached(self, session: Session, now_ns: int) -> None:
        """The tier node is not there: clients of a cache-aside go on without it."""
        if session.step == INVALIDATING and not self._plan.insists:
            self._finish(session, now_ns)
        elif session.step == TIER and self._plan.fills:
            self._leases.pop(session.identity, None)
            session.step = STORE
            super()._send(session, now_ns)
        else:
            self._remind(now_ns + RETRY_NS, session, AGAIN)

    # --- in -------------------------------------------------------------------------------

    def returned(
        self,
        session: Session,
        sequence: int,
        outcome: int,
        value: bytes | None,
        version: int,
        now_ns: int,
        context: bytes = b"",
        word: Word | None = None,
        source: int = -1,
    ) -> None:
        """The answer to one step."""
        late = session.sequence != sequence or not session.busy
        if late or (session.step != STORE) != (source >= self._first):
            return  # of a step that is over, or a filling
        plan = self._plan
        if session.step == INVALIDATING:
            self._finish(session, now_ns)
            return
        if session.step == TIER and version < 0:
            self._missed_there(session, version, context, now_ns)
            return
        if session.step == STORE and outcome == OK:
            if session.op.kind == READ:
                self._fill(session, value, version)
            elif plan.invalidates and session.op.kind == WRITE:
                self._ended(session, RETURNED, now_ns, word)
                self._said[session.identity] = Said(source, value, version, context)
                session.step = INVALIDATING
                self._send(session, now_ns)
                return
        super().returned(session, sequence, outcome, value, version, now_ns, context, word, source)

    def _missed_there(self, session: Session, version: int, lease: bytes, now_ns: int) -> None:
        """A look-up found nothing."""
        session.out = False
        if version == WAIT:
            self._remind(now_ns + self._plan.wait_ns, session, AGAIN)
            return
        assert version == MISSED, f"a look-up answered {version}"
        self._leases[session.identity] = lease
        session.step = STORE
        super()._send(session, now_ns)

    def _fill(self, session: Session, value: bytes | None, version: int) -> None:
        """Put what the store has answered into the tier; nobody waits for that."""
        lease = self._leases.pop(session.identity, None)
        if lease is None or value is None:
            return
        op = session.op
        fill = Op(op.session, op.sequence, WRITE, op.key, value, op.size, version, context=lease)
        self._ask_tier(session, fill)

    def _finish(self, session: Session, now_ns: int) -> None:
        """The write is in the store, and the tier knows, or cannot be told."""
        node, value, version, context = self._said.pop(session.identity)
        session.target, session.out = node, False
        super().returned(session, session.sequence, OK, value, version, now_ns, context, None, node)

    def lost(self, session: Session, sequence: int, now_ns: int, source: int = -1) -> None:
        """The connection broke while a step was under way."""
        if session.step == STORE or session.sequence != sequence or not session.busy:
            super().lost(session, sequence, now_ns, source)
            return
        if not session.out or session.target < self._first:
            return
        session.out = False
        if session.step == TIER and not self._plan.fills:
            self._lose(session, now_ns)
        else:
            self._unreached(session, now_ns)

    # --- what is not the store's is not the balancer's -------------------------------------

    def _ended(self, session: Session, what: int, now_ns: int, word: Word | None = None) -> None:
        if session.target >= self._first:
            session.out = False
        else:
            super()._ended(session, what, now_ns, word)

    def _shun(self, session: Session, now_ns: int) -> None:
        if session.target < self._first:
            super()._shun(session, now_ns)

    def _end(self, session: Session) -> int:
        self._leases.pop(session.identity, None)
        self._said.pop(session.identity, None)
        return super()._end(session)
