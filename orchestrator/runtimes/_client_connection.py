"""A client's connections: operations out, answers in, to emulated nodes and to real servers."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, Protocol, cast

import hiredis

from orchestrator.core.machine import FAIL, OK, REQUEST, WRITE
from orchestrator.core.units import NS_PER_US
from orchestrator.core.waiting import Tie
from orchestrator.runtimes import _wire
from orchestrator.runtimes._client import LoadDriver
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._network import Link
from orchestrator.runtimes._port import Leg
from orchestrator.runtimes._session import SESSION_BITS, Session

_NUMBER_MASK: Final = (1 << SESSION_BITS) - 1


class Owner(Protocol):
    """What a connection needs of its client."""

    clock: RealClock
    driver: LoadDriver
    sessions: list[Session]

    @abstractmethod
    def connected(self, connection: Connection) -> None:
        """It may be used."""

    @abstractmethod
    def disconnected(self, connection: Connection) -> None:
        """It is lost, with what is under way on it."""

    @abstractmethod
    def flush_later(self, connection: Connection) -> None:
        """Write out what the connection has to say at the end of this tick."""

    @abstractmethod
    def tick(self) -> None:
        """Look whether all is done."""


class Connection(asyncio.Protocol):
    """One connection to one node."""

    def __init__(self, client: Owner, node: int, number: int, link: Link | None) -> None:
        self._client = client
        self.node = node
        self.number = number
        self.link = link
        self._reader = hiredis.Reader(replyError=_error)
        self._transport: asyncio.WriteTransport | None = None
        self._out: list[bytes] = []
        # When the answers that follow arrive, by the run's clock; None: now.
        self._due_ns: int | None = None

    @property
    def ended(self) -> bool:
        """Whether the other side has ended it."""
        return self._transport is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)
        self._client.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._client.disconnected(self)

    def submit(self, session: Session) -> None:
        """Send the session's operation."""
        self.send(self.encode(session), session.due_ns)

    def encode_attempt(self, session: Session, tie: Tie | None, leg: Leg | None) -> bytes:
        """The command for an attempt that leaves now, as one of several, one of two copies, or of a
        sampled operation.
        """
        if leg is not None:
            leg.sent_ns = self._sent_ns(session.due_ns)
            return _wire.encode_sampled(session.op, tie, leg.number)
        return self.encode(session) if tie is None else _wire.encode_tied(session.op, tie)

    def _stay(self, identity: int, sequence: int, packed: Any, now_ns: int) -> None:
        """The answer to an attempt of a sampled operation says where its time at the node went."""
        client = self._client
        stay = _wire.decode_stay(packed)
        spans = client.driver.spans
        if stay is not None and spans is not None:
            session = client.sessions[(identity & _NUMBER_MASK) - 1]
            spans.heard(session, sequence, stay, now_ns)

    def send(self, data: bytes, wanted_ns: int) -> None:
        """Send what was not wanted earlier; after the emulated delay of the link."""
        link = self.link
        if link is None or link.instant:
            self.write(data)
        else:
            clock = self._client.clock
            link.carry(clock.at, self._sent_ns(wanted_ns), REQUEST, len(data), self.write, data)

    def _sent_ns(self, wanted_ns: int) -> int:
        """When what is sent now has left: where its delay is emulated, a timer's lateness is made
        up, but nothing leaves before it was wanted.
        """
        link, clock = self.link, self._client.clock
        if link is None or link.instant:
            return clock.now_ns()
        return max(clock.moment_ns(), wanted_ns)

    def write(self, data: bytes) -> None:
        """Queue bytes for the end of this tick."""
        self._out.append(data)
        if len(self._out) == 1:
            self._client.flush_later(self)

    def flush(self) -> None:
        """Write out what is queued."""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    @abstractmethod
    def encode(self, session: Session) -> bytes:
        """The command for the session's operation."""

    @abstractmethod
    def data_received(self, data: bytes) -> None:
        """Answers."""


class TaggedConnection(Connection):
    """To an emulated node: answers carry session and sequence and come in any order."""

    def encode(self, session: Session) -> bytes:
        return _wire.encode_request(session.op)

    def data_received(self, data: bytes) -> None:
        reader, client = self._reader, self._client
        reader.feed(data)
        answers = iter(reader.gets, False)
        if self._due_ns is None:
            self._take(answers, client.clock.now_ns())
        else:
            self._await(answers)
        client.tick()

    def _await(self, answers: Iterator[Any]) -> None:
        """Let stamped answers wait for their time."""
        clock = self._client.clock
        for answer in answers:
            if type(answer) is int:
                self._due_ns = answer - clock.origin_ns
            elif self._due_ns is not None:
                clock.arrive(self._due_ns, self._arrived, answer)

    def _arrived(self, answer: Any) -> None:
        """A stamped answer is here, unless its connection was lost before."""
        client, link = self._client, self.link
        if self._transport is None or link is None:
            return
        # Both ways were shortened by half of what a client is usually late by.
        client.clock.not_made_up(2 * link.lead_ns)
        self._take(iter((answer,)), client.clock.now_ns())
        client.tick()

    def _stamped(self, stamp_ns: int, answers: Iterator[Any]) -> None:
        """The first stamp has come, and more answers behind it."""
        self._due_ns = stamp_ns - self._client.clock.origin_ns
        self._await(answers)

    def _take(self, answers: Iterator[Any], now_ns: int) -> None:
        """Answers that are here, one by one."""
        client, node = self._client, self.node
        driver, sessions = client.driver, client.sessions
        unpack, redirected = _wire.unpack_response, _wire.REDIRECTED
        for answer in answers:
            if type(answer) is int:
                self._stamped(answer, answers)
                break
            identity, sequence, version, outcome = unpack(answer[0])
            session = sessions[(identity & _NUMBER_MASK) - 1]
            context = b""
            if len(answer) > 2:
                context = answer[2] or b""
                if len(answer) > 3:
                    self._stay(identity, sequence, answer[3], now_ns)
            if outcome == redirected:
                driver.redirected(session, sequence, version, now_ns, None, node)
            elif outcome == _wire.REFUSED:
                driver.refused(session, sequence, version, now_ns, None, node)
            else:
                driver.returned(
                    session, sequence, outcome, answer[1], version, now_ns, context, None, node
                )


class ToldConnection(TaggedConnection):
    """To an emulated node that tells of its load, with its answers or when it is asked."""

    def _take(self, answers: Iterator[Any], now_ns: int) -> None:
        client, node = self._client, self.node
        driver, sessions = client.driver, client.sessions
        for said in answers:
            if type(said) is int:
                self._stamped(said, answers)
                break
            answer, word = said, None
            if type(said[-1]) is int:
                *answer, in_flight, latency_us = said
                word = (in_flight, latency_us * NS_PER_US)
                if not answer:
                    driver.router.balancer.hear(node, *word, now_ns)
                    continue
            identity, sequence, version, outcome = _wire.unpack_response(answer[0])
            session = sessions[(identity & _NUMBER_MASK) - 1]
            if len(answer) > 3:
                self._stay(identity, sequence, answer[3], now_ns)
            if outcome == _wire.REDIRECTED:
                driver.redirected(session, sequence, version, now_ns, word, node)
            elif outcome == _wire.REFUSED:
                driver.refused(session, sequence, version, now_ns, word, node)
            else:
                context = (answer[2] if len(answer) > 2 else None) or b""
                driver.returned(
                    session, sequence, outcome, answer[1], version, now_ns, context, word, node
                )


class PlainConnection(Connection):
    """To a Redis server: GET and SET, answered in order.

    An error reply says that the command was refused (no memory, a snapshot being loaded), so it
    did not happen. An answer that nothing asked for, or that is no RESP, ends the connection:
    what is under way on it may have happened.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._sent: deque[tuple[Session, int]] = deque()

    def encode(self, session: Session) -> bytes:
        op = session.op
        self._sent.append((session, op.sequence))
        if op.kind == WRITE:
            value = op.value or b""
            return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
                len(op.key),
                op.key,
                len(value),
                value,
            )
        return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(op.key), op.key)

    def data_received(self, data: bytes) -> None:
        reader, client, sent = self._reader, self._client, self._sent
        reader.feed(data)
        driver = client.driver
        now_ns = client.clock.now_ns()
        try:
            while (answer := reader.gets()) is not False:
                if not sent:
                    raise hiredis.ProtocolError("an answer that nothing asked for")
                session, sequence = sent.popleft()
                outcome = FAIL if isinstance(answer, hiredis.ReplyError) else OK
                value = answer if type(answer) is bytes and session.op.kind != WRITE else None
                driver.returned(session, sequence, outcome, value, 0, now_ns)
        except hiredis.ProtocolError:
            self.close()
        client.tick()


def _error(text: str) -> hiredis.ReplyError:
    return hiredis.ReplyError(text)
