"""Which host each part of a run goes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def turned(hosts: Sequence[str], nodes: int, repeat: int) -> list[str]:
    """The hosts in the order in which a repeat of a run uses them: the n-th begins n hosts later,
    so that over as many repeats as hosts every node has been on every host, and no host favours a
    node. The last one stays behind where there are hosts enough without it: the driver works there.
    """
    kept = list(hosts[-1:]) if nodes < len(hosts) else []
    others = list(hosts[: len(hosts) - len(kept)])
    first = repeat % len(others) if others else 0
    return others[first:] + others[:first] + kept


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
