"""What a link really takes: messages there and back over the sockets and the emulated delays.

Before the load each node probes its links to the others, and each client those to the nodes, one
after the other: all at once they would measure how busy the hosts are with probing.
Both ends tell what delay they asked of their half, so what came of a probe is compared with its
own delay and not with the mean of a law.
"""

from __future__ import annotations

import asyncio
import statistics
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import hiredis
import msgspec

from orchestrator.core.machine import ACKNOWLEDGE, REPLICATE, REQUEST, RESPONSE
from orchestrator.core.record import LinkRecord
from orchestrator.core.units import NS_PER_US
from orchestrator.runtimes import _peers, _wire
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._network import LOST, Link

PROBES: Final = 10
SPACING_S: Final = 0.001
TURN_S: Final = PROBES * SPACING_S + 0.005
"""From the beginning of one party's probes to that of the next one's."""
PROBE_BYTES: Final = 64
"""What a link with a bandwidth takes a probe for."""
BACK_S: Final = 2.0
"""Within which the last probe is back, beyond twice what was asked of the slowest."""

WAIT_NS: Final = 100 * NS_PER_US
"""For which a node with modelled costs holds back its answer to a client, as it would an
operation's.
"""

Samples = list[tuple[int, int]]
"""(round trip, what both halves together were asked to take), in nanoseconds."""

_REQUEST: Final = struct.Struct("<qqq")
_ANSWER: Final = struct.Struct("<qq")
_encode = msgspec.msgpack.Encoder().encode


def carry(
    clock: RealClock,
    link: Link | None,
    kind: str,
    deliver: Callable[[bytes], None],
    made: Callable[[int], bytes],
) -> int:
    """Send what is ``made`` of its delay (ns) over a link that nothing disturbs; its delay."""
    now_ns = clock.moment_ns()
    if link is None or link.instant:
        deliver(made(0))
        return 0
    due_ns = link.arrival_ns(now_ns, kind, PROBE_BYTES)
    if due_ns == LOST:
        return 0
    wait = link.wait or clock.at
    wait(due_ns - link.lead_ns, deliver, made(due_ns - now_ns))
    return due_ns - now_ns


def link_record(source: str, target: str, samples: Samples) -> LinkRecord:
    """What the samples of one link come to, one way."""
    trips = [trip_ns for trip_ns, _ in samples]
    asked = [asked_ns for _, asked_ns in samples]
    excess = [trip_ns - asked_ns for trip_ns, asked_ns in samples]
    return LinkRecord(
        source,
        target,
        statistics.mean(asked) / 2,
        statistics.mean(trips) / 2,
        statistics.median(excess) / 2,
        len(samples),
        tuple(each / 2 for each in sorted(excess)),
    )


class Probes:
    """The probes that one party has sent to another, and what came back."""

    def __init__(self, clock: RealClock, wait_ns: int = 0) -> None:
        self._clock = clock
        # Both what they take and what they are asked to take contain this, which is no link's.
        self._wait_ns = wait_ns
        self._sent_ns: list[int] = []
        self.samples: Samples = []

    async def send(self, one: Callable[[int], int]) -> None:
        """Send all by ``one(number)``, which gives the delay; return when they are back."""
        longest_ns = 0
        for number in range(PROBES):
            self._sent_ns.append(self._clock.now_ns())
            longest_ns = max(longest_ns, one(number))
            await asyncio.sleep(SPACING_S)
        deadline_s = asyncio.get_running_loop().time() + BACK_S + 4 * longest_ns / 1e9
        while len(self.samples) < PROBES and asyncio.get_running_loop().time() < deadline_s:
            await asyncio.sleep(SPACING_S)

    def back(self, number: int, asked_ns: int, now_ns: int) -> None:
        """One is back."""
        if 0 <= number < len(self._sent_ns):
            trip_ns = now_ns - self._sent_ns[number]
            self.samples.append((trip_ns - self._wait_ns, asked_ns - self._wait_ns))


class Probe(msgspec.Struct, array_like=True, gc=False):
    """On its way, or back: its number, and what was asked of its way so far."""

    number: int
    asked_ns: int


decode_probe = msgspec.msgpack.Decoder(Probe).decode


class NodeProbes:
    """A node's part: it probes its peers, and answers their probes."""

    def __init__(
        self,
        clock: RealClock,
        peers: Mapping[int, _peers.Outgoing],
        link_to: Callable[[int], Link],
    ) -> None:
        self._clock = clock
        self._peers = peers
        self._link_to = link_to
        # Of their own: what was sent before must not hold up what is sent under load.
        self._links: dict[int, Link] = {}
        self._probes: dict[int, Probes] = {}

    def begin_again(self) -> None:
        """Links are no longer what they were."""
        self._links.clear()

    async def send(self) -> dict[int, Samples]:
        """Samples by peer."""
        self._probes = {peer: Probes(self._clock) for peer in self._peers}
        await asyncio.gather(
            *(probes.send(partial(self._first, peer)) for peer, probes in self._probes.items())
        )
        return {peer: probes.samples for peer, probes in self._probes.items()}

    def _first(self, peer: int, number: int) -> int:
        return self._carry(peer, _peers.PROBE, number, 0)

    def received(self, peer: int, kind: int, probe: Probe) -> None:
        """A probe of a peer, or one of ours is back."""
        if kind == _peers.PROBE:
            self._carry(peer, _peers.PROBED, probe.number, probe.asked_ns)
        elif peer in self._probes:
            # As a message that a machine takes up: what it is late by is made up after it.
            self._probes[peer].back(probe.number, probe.asked_ns, self._clock.moment_ns())

    def _carry(self, peer: int, kind: int, number: int, so_far_ns: int) -> int:
        link = self._links.get(peer) or self._links.setdefault(peer, self._link_to(peer))
        way = REPLICATE if kind == _peers.PROBE else ACKNOWLEDGE
        return carry(
            self._clock,
            link,
            way,
            self._peers[peer].write,
            lambda asked_ns: _peers.frame(kind, _encode(Probe(number, so_far_ns + asked_ns))),
        )


def answer(
    clock: RealClock, link: Link, request: bytes, write: Callable[[bytes], None], wait_ns: int
) -> None:
    """A node answers the probe of a client, after an emulated wait where that is above 0."""
    _, number, so_far_ns = _REQUEST.unpack(request)

    before_ns = so_far_ns + wait_ns

    def respond(_: Any) -> None:
        carry(
            clock,
            link,
            RESPONSE,
            write,
            lambda asked_ns: _wire.encode_bulk(_ANSWER.pack(number, before_ns + asked_ns)),
        )

    if wait_ns:
        clock.at(clock.moment_ns() + wait_ns, respond, None)
    else:
        respond(None)


def session_of(request: bytes) -> int:
    """A session of the client that probes; ValueError where it is no probe."""
    if len(request) != _REQUEST.size:
        raise ValueError("malformed ABPROBE command")
    return int(_REQUEST.unpack(request)[0])


class ClientProbes(asyncio.Protocol):
    """A client's connection to a node, for probes alone; a real server is asked to PING."""

    def __init__(
        self, clock: RealClock, link: Link | None, session: int, emulated: bool, wait_ns: int
    ) -> None:
        self._clock = clock
        self._link = link
        self._session = session
        self._emulated = emulated
        self._reader = hiredis.Reader()
        self._transport: Any = None
        self._probes = Probes(clock, wait_ns)
        self._asked_ns: list[int] = []
        # When the answers that follow arrive, by the run's clock; None: now.
        self._due_ns: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    async def send(self) -> Samples:
        """Samples; fewer, or none, where probes or the connection were lost."""
        await self._probes.send(self._one)
        if self._transport is not None:
            self._transport.abort()
        return self._probes.samples

    def _one(self, number: int) -> int:
        delay_ns = carry(
            self._clock,
            self._link,
            REQUEST,
            self._write,
            lambda asked_ns: self._command(number, asked_ns),
        )
        self._asked_ns.append(delay_ns)
        return delay_ns

    def _command(self, number: int, asked_ns: int) -> bytes:
        if not self._emulated:
            return b"*1\r\n$4\r\nPING\r\n"
        request = _REQUEST.pack(self._session, number, asked_ns)
        return b"*2\r\n" + _wire.encode_bulk(_wire.PROBE) + _wire.encode_bulk(request)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        now_ns = self._clock.now_ns()
        while (said := self._reader.gets()) is not False:
            if not self._emulated:
                number = len(self._probes.samples)
                self._probes.back(number, self._asked_ns[number], now_ns)
            elif type(said) is int:
                self._due_ns = said - self._clock.origin_ns
            elif type(said) is bytes and len(said) == _ANSWER.size:
                due_ns = now_ns if self._due_ns is None else self._due_ns
                self._clock.arrive(due_ns, self._back, _ANSWER.unpack(said))

    def _back(self, answer: tuple[int, int]) -> None:
        self._probes.back(*answer, self._clock.now_ns())
