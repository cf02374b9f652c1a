"""Which node a client asks: candidates of the protocol, then the balancer, and what the client
has learnt from redirects and from nodes that it could not reach. And which level it asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy

from orchestrator.core.cluster_views import ClusterViews
from orchestrator.core.levels import CODES, UNASKED, canonical
from orchestrator.core.load import LOST, REFUSED, RETURNED, SENT, Balancer, OperationBlock
from orchestrator.core.machine import READING, ClusterView, Op
from orchestrator.core.policy import Breaker
from orchestrator.core.record import EventRecord
from orchestrator.runtimes._health import NodeHealth
from orchestrator.runtimes._session import Session

UNREACHABLE_NS: Final = 1_000_000_000
"""How long a client that asks the nearest nodes leaves one alone that it could not reach."""


class LevelMix:
    """Which level each operation asks for: reads draw one by their shares, writes ask for none."""

    def __init__(self, shares: Mapping[str, float], chance: numpy.random.Generator) -> None:
        total = sum(shares.values())
        self._codes = numpy.array([CODES[canonical(level)] for level in shares], numpy.uint8)
        self._shares = [share / total for share in shares.values()]
        self._chance = chance

    def of(self, block: OperationBlock) -> list[int]:
        """One level code an operation: the block's own where it has them."""
        asked: list[int]
        if block.level is not None:
            asked = block.level.tolist()
        elif len(self._codes):
            drawn = self._chance.choice(self._codes, len(block), p=self._shares)
            reading = numpy.isin(block.kind, list(READING))
            asked = numpy.where(reading, drawn, UNASKED).tolist()
        else:
            asked = [UNASKED] * len(block)
        return asked


class _Views(dict[int, ClusterView]):
    """What a client knows of each group of nodes."""

    def __init__(self, first: Callable[[int], ClusterView]) -> None:
        super().__init__()
        self._first = first

    def __missing__(self, group: int) -> ClusterView:
        view = self[group] = self._first(group)
        return view


class Router:
    """One client's choice of nodes. ``first_view``: what it knows of a group in the beginning.

    ``distances_ns``: one way to each node where only the nearest ones are asked, else empty.
    ``sticky``: a session keeps its node as long as it is a candidate. ``shuns_silent``: whether a
    time-out tells against a node that has answered nobody since.
    """

    def __init__(
        self,
        balancer: Balancer,
        candidates: Callable[[Op, ClusterView], Sequence[int]],
        first_view: Callable[[int], ClusterView],
        distances_ns: Sequence[int],
        sticky: bool,
        group_of: Callable[[Op], int] | None = None,
        *,
        ask: Callable[[int], None],
        shuns_silent: bool = False,
        health: NodeHealth | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self.balancer = balancer
        self.health = health
        self.breaker = breaker
        judges = health is not None or breaker is not None
        self.observe = self._observe if judges else balancer.observe
        self._ask = ask
        # What asks for nothing is not asked whether it does.
        self._pick = self._pick_and_ask if balancer.probing else balancer.pick
        self.shuns_silent = shuns_silent
        self._candidates = candidates
        self._views = ClusterViews(first_view, group_of)
        self._view_of = self._views.of
        self._distances_ns = distances_ns
        self._sticky = sticky
        self._unreachable: dict[int, int] = {}

    @property
    def events(self) -> Sequence[EventRecord]:
        """The nodes that it has left out."""
        return () if self.health is None else self.health.events

    def pick(self, session: Session, now_ns: int, *, another: bool = False) -> int:
        """The node to ask for the session's operation; -1 where none may be asked.

        ``another``: none that has it already; a sticky session settles nowhere else for that.
        """
        op = session.op
        candidates = self._candidates(op, self._view_of(op))
        if another or self.breaker is not None:
            candidates = self._allowed(session, candidates, now_ns, another=another)
            if not candidates:
                return -1
        sticky = self._sticky and not another
        if self.health is not None and len(candidates) > 1:
            candidates = self._healthy(self.health, session, candidates, now_ns, sticky=sticky)
        if self._distances_ns and len(candidates) > 1:
            candidates = self._nearest(candidates, now_ns)
        if len(candidates) == 1:
            return candidates[0]
        if not sticky:
            return self._pick(op.key, candidates, now_ns)
        if session.sticky not in candidates:
            session.sticky = self._pick(op.key, candidates, now_ns)
        return session.sticky

    def _allowed(
        self, session: Session, candidates: Sequence[int], now_ns: int, *, another: bool
    ) -> Sequence[int]:
        taken = (session.target, *session.others) if another else ()
        breaker = self.breaker
        return [
            node
            for node in candidates
            if node not in taken and (breaker is None or breaker.allows(node, now_ns))
        ]

    def _pick_and_ask(self, key: bytes, candidates: Sequence[int], now_ns: int) -> int:
        node = self.balancer.pick(key, candidates, now_ns)
        for probed in self.balancer.probes(candidates, now_ns):
            self._ask(probed)
        return node

    def _observe(self, node: int, what: int, latency_ns: int, now_ns: int) -> None:
        """An operation was sent or ended there: both judge by it."""
        self.balancer.observe(node, what, latency_ns, now_ns)
        if self.health is not None:
            self.health.observe(node, what, latency_ns, now_ns)
        if self.breaker is None:
            return
        if what == SENT:
            self.breaker.asked(node, now_ns)
        elif what in (LOST, REFUSED):
            self.breaker.failed(node, now_ns)
        elif what == RETURNED:
            self.breaker.succeeded(node)

    @staticmethod
    def _healthy(
        health: NodeHealth,
        session: Session,
        candidates: Sequence[int],
        now_ns: int,
        *,
        sticky: bool,
    ) -> Sequence[int]:
        """Those that are not ejected; a sticky session keeps its node all the same."""
        if sticky and session.sticky in candidates:
            return (session.sticky,)
        fit = health.fit(candidates, now_ns)
        if sticky and len(fit) == 1:
            session.sticky = fit[0]
        return fit

    def _nearest(self, candidates: Sequence[int], now_ns: int) -> Sequence[int]:
        """Those with the shortest way, of those that could be reached of late."""
        reached = [each for each in candidates if self._unreachable.get(each, now_ns) <= now_ns]
        among = reached or candidates
        shortest_ns = min(self._distances_ns[node] for node in among)
        return [node for node in among if self._distances_ns[node] == shortest_ns]

    def unreached(self, session: Session, node: int, now_ns: int) -> None:
        """Nothing could be sent there."""
        if self.health is not None:
            self.health.failed(node, now_ns)
        if self.breaker is not None:
            self.breaker.failed(node, now_ns)
        self.avoid(session, node, now_ns)

    def avoid(self, session: Session, node: int, now_ns: int) -> None:
        """Ask another node next time."""
        session.sticky = -1
        if self._distances_ns:
            self._unreachable[node] = now_ns + UNREACHABLE_NS
        self._views.pass_over(session.op, node)

    def learn(self, op: Op, node: int) -> None:
        """A node was named as the one that serves such operations."""
        self._views.learn(op, node)
