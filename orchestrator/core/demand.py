"""What one operation asks of the nodes: the contract between a protocol and the queueing model.

A protocol's file says for reads and writes which nodes serve them and along which *path*: the steps
that an operation waits for, and the messages that nobody waits for. From that alone follow the
messages that each node receives per operation, hence the service demands that bound its throughput
(Denning and Buzen, "The Operational Analysis of Queueing Network Models", ACM Computing Surveys
10(3), 1978), and the mean response time, as in Ailijiang, Charapko and Demirbas, "Dissecting the
Performance of Strongly-Consistent Replication Protocols" (SIGMOD 2019), section 3: queueing at the
node that serves, and the wait for the slowest member of a quorum.

It is about the ordinary case: no faults, no conflicts, no batches, members in the order of their
numbers with node 0 to lead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Kinds of message on a link, as in core.machine.
_REPLICATE: Final = "replicate"
_ACKNOWLEDGE: Final = "acknowledge"


@dataclass(frozen=True)
class Log:
    """The node writes a record, and goes on once it is durable; ``heard``: not with what leaves
    then, but with what it does about it, which later records hold up again.
    """

    heard: bool = False


@dataclass(frozen=True)
class Hop:
    """The operation moves to another node by a message of this kind of link; ``logs``: which writes
    a record before anything else.
    """

    to: int
    kind: str = _REPLICATE
    logs: bool = False


@dataclass(frozen=True)
class Round:
    """The node asks all others (or these), and goes on when ``need`` of them have answered.

    ``logs``: each writes a record before it answers. ``own``: so does the node that asks meanwhile,
    and its own record has to be durable, too. ``looks_up``: all look the entry up before they
    answer, the node that asks too, whose own answer is one more that may come before others.
    """

    need: int
    others: tuple[int, ...] | None = None
    out: str = _REPLICATE
    back: str = _ACKNOWLEDGE
    logs: bool = False
    own: bool = False
    looks_up: bool = False


@dataclass(frozen=True)
class Tell:
    """What nobody waits for: all others (or these) are sent ``messages`` each on average, and write
    ``records``; a node may come several times.
    """

    others: tuple[int, ...] | None = None
    messages: float = 1.0
    kind: str = _REPLICATE
    records: float = 0.0


Step = Log | Hop | Round | Tell


@dataclass(frozen=True)
class Demand:
    """One operation: served by any of ``at`` alike, along ``steps``. ``looks_up``: the node that
    answers looks the entry up before it does; a matter of reads alone. ``sharing``: operations
    that travel together, and share messages and records.
    """

    at: tuple[int, ...]
    steps: tuple[Step, ...] = ()
    looks_up: bool = True
    sharing: int = 1


@dataclass(frozen=True)
class Demands:
    """A protocol's read (at the level that was asked for), its write, and messages per second that
    each node receives whatever the load is.
    """

    read: Demand
    write: Demand
    background_per_s: tuple[float, ...] = ()


def everyone(replicas: int) -> tuple[int, ...]:
    """All nodes, any of which serves."""
    return tuple(range(replicas))


def majority_of_others(replicas: int) -> int:
    """How many others make a majority with the node that asks."""
    return replicas // 2
