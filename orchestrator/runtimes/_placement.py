"""Which host each part of a run goes to, and which core of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


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


@dataclass(frozen=True)
class Pin:
    """That a process keeps to one core: where the members of its run are, machines first, and which
    of them it is.
    """

    hosts: tuple[str, ...]
    member: int
    machines: int

    def core(self, cores: int) -> int:
        """Of so many that its host has."""
        return core_of(self.hosts, self.member, self.machines, cores)


def pins(wanted: bool, hosts: Sequence[str], machines: int) -> list[Pin | None]:
    """Of each member of a run; ``wanted``: whether they keep to cores at all."""
    return [Pin(tuple(hosts), member, machines) if wanted else None for member in range(len(hosts))]


def core_of(hosts: Sequence[object], member: int, machines: int, cores: int) -> int:
    """The core that a member of a run keeps to where it is pinned; ``hosts`` by member, machines
    first.

    Of each host, clients have the last cores, at most half of them, and machines the others.
    """
    here = [other for other, host in enumerate(hosts) if host == hosts[member]]
    clients = [other for other in here if other >= machines]
    kept = min(len(clients), max(1, cores // 2)) if len(clients) < len(here) else cores
    if not clients:
        kept = 0
    if member >= machines:
        return cores - 1 - clients.index(member) % kept
    own = [other for other in here if other < machines]
    return own.index(member) % max(1, cores - kept)
