"""The network falls apart: some nodes cannot reach some others.

==========  ====================================================================================
shape       who is cut off from whom
==========  ====================================================================================
isolate     the victims from everybody else
halves      the victims with as many others as make a minority, from the rest
one_way     what the victims send is lost, and they still hear (``outward: false``: the reverse)
ring        every node reaches its neighbours on a ring alone: each majority another (4 nodes)
bridge      two halves, and one node (a victim) that reaches both (3 nodes)
==========  ====================================================================================

Shapes as Jepsen's nemeses have them (Kingsbury, jepsen.nemesis). A protocol's authority stays with
the larger side, with the bridge, and on a ring it is everybody's neighbour. With fewer nodes than
stand there nothing is cut, which is refused.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from orchestrator.core.faults import Blow, ClusterState, Disturbed, Fault, LinkState
from orchestrator.core.parameters import choice, flag
from orchestrator.core.registry import Family, register
from orchestrator.faults._lasting import Lasting
from orchestrator.faults._links import both_ways

ISOLATE: Final = "isolate"
HALVES: Final = "halves"
ONE_WAY: Final = "one_way"
RING: Final = "ring"
BRIDGE: Final = "bridge"

Links = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class PartitionParams(Lasting):
    shape: str = choice(ISOLATE, options=(ISOLATE, HALVES, ONE_WAY, RING, BRIDGE))
    outward: bool = flag(True, help="shape one_way: what victims send is lost, else what they hear")
    clients: bool = flag(False, help="shapes isolate and one_way: from clients, too")


@register(Family.FAULT, "partition", params=PartitionParams)
class Partition(Fault):
    """Cuts the network between nodes."""

    def __init__(self, params: PartitionParams) -> None:
        self._params = params

    def blow(self, victims: Sequence[int], cluster: ClusterState, chance: random.Random) -> Blow:
        links = self._links(victims, cluster, chance)
        cut = Disturbed(tuple(dict.fromkeys(links)), LinkState(cut=True))
        return Blow((cut,), self._params.length_ns(chance))

    def _links(self, victims: Sequence[int], cluster: ClusterState, chance: random.Random) -> Links:
        params, nodes = self._params, cluster.nodes
        if params.shape == RING:
            return _ring(chance.sample(nodes, len(nodes)))
        if params.shape in (ISOLATE, ONE_WAY):
            clients = cluster.client_parties if params.clients else ()
            outward = list(product(victims, [*_without(cluster.members, victims), *clients]))
            if params.shape == ISOLATE:
                return both_ways(outward)
            return outward if params.outward else [(there, here) for here, there in outward]
        if params.shape == BRIDGE:
            others = _without(nodes, victims[:1])
            shuffled = chance.sample(others, len(others))
            middle = len(shuffled) // 2
            return both_ways(list(product(shuffled[:middle], shuffled[middle:])))
        minority = max((len(nodes) - 1) // 2, 1)
        others = _without(nodes, victims)
        more = chance.sample(others, min(len(others), max(0, minority - len(victims))))
        side = [*victims, *more]
        return both_ways(list(product(side, _without(cluster.members, side))))


def _without(nodes: Sequence[int], some: Sequence[int]) -> list[int]:
    return [node for node in nodes if node not in some]


def _ring(nodes: Sequence[int]) -> Links:
    """All links but those to a node's next on either side: the nearest that make a majority."""
    count = len(nodes)
    reach = (count // 2 + 1) // 2
    return [
        (one, other)
        for (at, one), (there, other) in product(enumerate(nodes), repeat=2)
        if min((at - there) % count, (there - at) % count) > reach
    ]
