"""Which host each part of a run goes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def placed(hosts: Sequence[str], nodes: int, clients: int) -> tuple[list[str], list[str]]:
    """The host of each node, and of each client.

    Nodes are spread evenly over ``hosts``, the first ones preferred. Clients keep off the nodes'
    hosts where there are others, since what measures must not compete with what is measured;
    else they go where the fewest nodes are.
    """
    of_nodes = [hosts[number % len(hosts)] for number in range(nodes)]
    load = Counter(of_nodes)
    idle = [host for host in hosts if not load[host]]
    # Of those with as many nodes, the last ones are preferred least for nodes.
    turns = sorted(range(len(hosts)), key=lambda turn: (load[hosts[turn]], -turn))
    room = idle or [hosts[turn] for turn in turns]
    return of_nodes, [room[number % len(room)] for number in range(clients)]
