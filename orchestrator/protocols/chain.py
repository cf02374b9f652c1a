"""Chain replication: writes enter at the head and are committed at the tail, which serves reads.

Van Renesse and Schneider, "Chain Replication for Supporting High Throughput and Availability"
(OSDI 2004). Every node persists a write before it passes it on, so each holds all that its
successors hold (the paper's Update Propagation Invariant, section 3.1), and what the tail holds is
on every node. The tail therefore commits a write by making it durable, and its state is the
committed state: reads there are linearizable, and any node that is left holds all that was
answered. Failures are the authority's business (:mod:`._views`): whoever follows the tail or the
head holds at least as much as it did, and what a node that is left lacks its predecessor sends
again (section 3.2). Nodes that come back join at the tail's end (section 3.3), once they have
caught up. Two tails cannot both serve: the old one has sealed its view, or its lease has lapsed.

The paper lets the tail answer clients. Here the head answers, which has the client's request: the
tail tells it directly, and the news also goes up the chain, node by node, so that each knows what
it need not keep for its successor. Reads that ask for less than the newest write are served by any
node from what it knows to be committed; a level above ``eventual`` waits until that includes
everything that the session has seen, which makes them sequentially consistent.

Cost per write with n nodes: 2(n-1) messages: n-1 down, one from the tail to the head, n-2 up
(shared by a batch); n one-way delays until the head answers. A read costs no message. A node and
the authority exchange 2 messages a heartbeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.core.demand import Demand, Demands, everyone
from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import READING, ClusterView, Op
from orchestrator.core.registry import Family, register
from orchestrator.protocols._chain_links import ChainParams, Link, heartbeats, write_demand
from orchestrator.protocols._read_needs import STRONG, need_at, need_of


@register(
    Family.PROTOCOL,
    "chain",
    params=ChainParams,
    claims={LINEARIZABLE: "always, where crashed nodes stay away or keep what they persisted"},
)
class Chain(Link):
    """Writes down a chain of nodes, strong reads at its tail."""

    @staticmethod
    def candidates(params: Any, op: Op, view: ClusterView) -> Sequence[int]:
        if op.kind not in READING:
            return (view.writer,)
        return (view.reader,) if need_of(op, STRONG) == STRONG else view.nodes

    @staticmethod
    def demands(params: ChainParams, replicas: int, level: str) -> Demands:
        tail = (replicas - 1,)
        read = Demand(tail if need_at(level, STRONG) == STRONG else everyone(replicas))
        return Demands(read, write_demand(replicas), heartbeats(params, replicas))
