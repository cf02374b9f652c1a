"""What a host really takes for the work of emulated nodes and clients, as it was measured there.

A node and a client are single-threaded processes behind an event loop. Whatever has come when the
loop looks is one tick: each socket that has something is read by one system call and each that
has something to say is written by one, so what comes together shares those costs. An idle process
sleeps, and takes a while to be woken.

The model is linear, as in Ousterhout's and Ailijiang's accounts of where the time of a
replicated store goes (Ailijiang, Charapko, Demirbas, "Dissecting the Performance of
Strongly-Consistent Replication Protocols", SIGMOD 2019, section 3): CPU time of a process =
sleeps x ``sleep`` + ticks x ``tick`` + system calls x ``call`` + operations and messages x their
own cost. All are costs under one protocol: with more processes than cores, caches are colder and
each is dearer.

The longer a core has slept, the more it takes to go on: it sleeps more deeply, and finds caches and
predictors cold. On virtual machines of today that grows about as the square root of the length,
from 15 us after 30 us to 80 us after 2 ms; so a sleep costs ``sleep`` and, for its length,
``cold`` (:func:`coldness`). Some of that is over before the process sees what has come for it
(``wake``); the rest makes its tick longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Final

from orchestrator.core.parameters import ParameterError, duration, mapping, number, text

SHORT_NS: Final = 100_000
DEEP_NS: Final = 2_000_000
"""Lengths of the sleeps that waking is measured after."""
SLICE_NS: Final = 3_000_000
"""For how long a process that has more to do keeps its core while others wait: about what Linux
gives it, on few cores and with a timer that ticks 250 times a second.
"""
COLDEST_NS: Final = 4_000_000
"""A core that has slept for so long is as cold as it gets."""


def coldness(slept_ns: float) -> float:
    """How much of ``cold`` a sleep of that length costs: 1 after 100 us."""
    return math.sqrt(min(max(0.0, slept_ns), COLDEST_NS) / SHORT_NS)


def depth(slept_ns: float) -> float:
    """Where the time to wake up lies between ``wake`` (0) and ``wake_deep`` (1)."""
    share = (coldness(slept_ns) - 1) / (coldness(DEEP_NS) - 1)
    return min(1.0, max(0.0, share))


@dataclass(frozen=True)
class ProtocolCosts:
    """CPU time of nodes and clients under one protocol."""

    sleep: int = duration("0s", help="of an event loop, to fall asleep and to be woken once")
    cold: int = duration("0s", help="more after a sleep of 100 us; grows as the root of its length")
    tick: int = duration("0s", help="of an event loop, to go round once more and write")
    call: int = duration("0s", help="to read or write a socket once, whatever is in it")
    client: int = duration("0s", help="of a client, to begin and to end an operation")
    read: int = duration("0s", help="of a node, to parse, carry out and answer a read")
    write: int = duration("0s", help="the same of any other operation, on the node that is asked")
    message: int = duration("0s", help="of a node, to take a message of a peer, and to send one")
    entry: int = duration("0s", help="of a node, to take an item of a list in a message")
    start: int = duration("0s", help="more of a client where an operation follows on no answer")

    def wake_up_ns(self, slept_ns: float) -> float:
        """To fall asleep and to be woken after so long."""
        return self.sleep + self.cold * coldness(slept_ns)


@dataclass(frozen=True)
class HostProfile:
    """One host. Tuples of durations are quantiles at equal steps, each equally likely.

    ``background``: the share of all cores that others use while nothing is measured.
    """

    host: str = text("", help="its name")
    cpu: str = text("", help="its model")
    measured_utc: str = text("", help="when")
    cores: int = number(1, low=1, help="that processes may run on")
    background: float = number(0.0, low=0.0, high=1.0)
    loop: tuple[int, ...] = duration(
        (), many=1, help="CPU time of a fixed loop meanwhile; all costs are those at its median"
    )
    stalls: float = number(
        0.0, low=0.0, help="a second that interrupt a process while all cores are busy"
    )
    stall: tuple[int, ...] = duration((), many=1, help="how long one lasts")
    wake: tuple[int, ...] = duration(
        (),
        many=1,
        help="until a process looks that has slept for 100 us: from the writing of a socket",
    )
    wake_deep: tuple[int, ...] = duration((), many=1, help="the same after 2 ms")
    timer: int = duration("0s", help="CPU time to end one emulated wait")
    sync: int = duration("0s", help="CPU time to have another thread make records durable, once")
    disk: int = duration("0s", help="CPU time of that thread")
    fsync: tuple[int, ...] = duration((), many=1, help="until a record is durable then")
    protocols: dict[str, ProtocolCosts] = mapping("by name; others have the medians of theirs")

    def __post_init__(self) -> None:
        for key in ("loop", "wake", "wake_deep", "fsync"):
            if not getattr(self, key):
                raise ParameterError("needs at least one duration", key=key)
        if self.stalls and not self.stall:
            raise ParameterError("needs at least one duration where there are stalls", key="stall")
        if not self.protocols:
            raise ParameterError("needs the costs of at least one protocol", key="protocols")

    def costs_of(self, protocol: str) -> ProtocolCosts:
        """Those of a protocol; the medians of all that were measured where it was not, since one
        with dear messages of its own says little of others.

        Of those whose nodes exchange messages, where there are any: it has peers, too.
        """
        known = self.protocols.get(protocol)
        if known is not None:
            return known
        every = list(self.protocols.values())
        each = [one for one in every if one.message] or every
        names = ProtocolCosts.__dataclass_fields__
        return ProtocolCosts(
            **{name: round(median(getattr(one, name) for one in each)) for name in names}
        )
