"""Closed forms of quorum systems: how often they can answer, and how stale a partial quorum is.

Replicas fail independently and every set of a quorum's size is as likely as another. A store
that sends to all replicas and waits for some of them does better with time, as copies that were
not waited for arrive too; its staleness in time is what the simulator is for.
"""

from __future__ import annotations

from math import comb


def quorum_availability(replicas: int, needed: int, up: float) -> float:
    """P(at least ``needed`` of ``replicas`` are up), each with probability ``up``.

    A majority answers with ``needed`` = replicas // 2 + 1, read-one with 1, write-all with
    ``replicas``. Naor and Wool, "The Load, Capacity, and Availability of Quorum Systems" (SIAM
    J. Comput. 27(2), 1998), for threshold systems: a binomial tail.
    """
    _check_size("needed", needed, replicas)
    if not 0 <= up <= 1:
        raise ValueError(f"up {up} is no probability")
    return sum(
        comb(replicas, count) * up**count * (1 - up) ** (replicas - count)
        for count in range(needed, replicas + 1)
    )


def miss_probability(replicas: int, read_quorum: int, write_quorum: int) -> float:
    """P(a read quorum meets no replica of one write quorum); 0 where R + W is above N.

    C(N - W, R) / C(N, R): Malkhi, Reiter and Wright, "Probabilistic Quorum Systems" (PODC 1997);
    equation 1 of Bailis et al., "Probabilistically Bounded Staleness for Practical Partial
    Quorums" (PVLDB 5(8), 2012).
    """
    _check_size("read_quorum", read_quorum, replicas)
    _check_size("write_quorum", write_quorum, replicas)
    return comb(replicas - write_quorum, read_quorum) / comb(replicas, read_quorum)


def k_staleness(replicas: int, read_quorum: int, write_quorum: int, versions: int) -> float:
    """P(a read returns one of the last ``versions`` versions): equation 2 of Bailis et al. 2012.

    The read is staler only if it misses the quorums of each of the last ``versions`` writes.
    """
    if versions < 1:
        raise ValueError(f"versions {versions} is below 1")
    missed: float = miss_probability(replicas, read_quorum, write_quorum) ** versions
    return 1 - missed


def _check_size(name: str, size: int, replicas: int) -> None:
    if not 1 <= size <= replicas:
        raise ValueError(f"{name} {size} is not between 1 and the {replicas} replicas")
