"""The side of a node that clients talk to: RESP over TCP, parsed by hiredis.

Own clients use the private command of ``_wire`` and take answers in any order. Plain Redis
clients (redis-cli, redis-benchmark, redis-py) may use GET, SET and the commands of
``_administration``, pipelined; anything else is answered with an error. Their answers leave in
the order of their commands. Each of their operations borrows a session of the node, since a
pipelining connection is no sequential process.

Who may give commands is up to ``_gate``, and how bytes become commands to ``_parser``. What is
no command ends the connection, after everything asked before it is answered.
"""

from __future__ import annotations

import asyncio
import itertools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from orchestrator.core.load import Word
from orchestrator.core.machine import READ, WRITE, Op, Redirect, Reply
from orchestrator.core.waiting import Refusal, Tie
from orchestrator.runtimes import _administration, _wire
from orchestrator.runtimes._administration import RESP2, Failure, encode
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._gate import NO_PROOF, TOO_MANY, Gate
from orchestrator.runtimes._handshake import Credentials
from orchestrator.runtimes._network import Link
from orchestrator.runtimes._parser import (
    ARRAY,
    ERRORS,
    NEWLINE,
    PIECE_BYTES,
    PUSH,
    long_array,
    nobody_asks,
)
from orchestrator.runtimes._plain_line import (
    ASKED_MAX_BYTES,
    OUTSTANDING_MAX,
    LineService,
    PlainLine,
)
from orchestrator.runtimes._plain_slot import DONE
from orchestrator.runtimes._watch import Watch

STRANGER_MAX_BYTES: Final = 8 << 10
"""All that a connection may send before it has proven itself."""
STRANGER_COMMAND_BYTES: Final = 128
"""What each of its commands counts for besides: it has to be answered."""


class Service(LineService, Protocol):
    """What connections need of their node."""

    node: int
    credentials: Credentials
    watch: Watch
    clock: RealClock

    @abstractmethod
    def arrived(self, request: tuple[Any, Op]) -> None:
        """A stamped operation arrives now."""

    @abstractmethod
    def serve_arrived(self) -> None:
        """Serve pending operations that were stamped and have arrived."""

    @abstractmethod
    def wake(self) -> None:
        """Serve the pending operations at the end of this tick."""

    @abstractmethod
    def info(self) -> bytes:
        """The text of INFO."""

    @abstractmethod
    def probed(self, connection: Connection, request: bytes) -> None:
        """A client probes the link; ValueError where that is no probe."""

    @abstractmethod
    def load_asked(self, connection: Connection, session: int) -> None:
        """A client asks for the node's load; ValueError where nobody counts it."""

    @abstractmethod
    def tied(self, handle: Any, op: Op, tie: Tie) -> None:
        """One of two copies of a read comes; ValueError where there are none."""

    @abstractmethod
    def sampled(self, handle: Any, op: Op, tie: Tie | None, number: int) -> None:
        """An attempt of a sampled operation comes, by its number; ValueError as ``tied``."""


class Connection(PlainLine, asyncio.Protocol):
    """One client's connection. It has no more than 30 attributes: objects with more of them are
    slower.
    """

    _service: Service
    _numbers = itertools.count(1)

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        # What it has sent before it has proven itself.
        self._stranger_bytes = 0
        self.link: Link | None = None
        # When what follows arrives, by this host's clock; None: now.
        self._due_ns: int | None = None
        # What plain clients may ask for.
        self.name = b""
        self.number = next(self._numbers)

    @property
    def connection(self) -> Connection:
        """Where the order of answers is kept."""
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        service = self._service
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("sockname")
        self.gate = Gate(service.credentials, service.node, address)
        self.take = self._guarded
        if self.gate.open:
            self._trust(own=False)
        if not service.watch.admit(self):
            self._transport.write(TOO_MANY)
            self.cut()

    def _trust(self, *, own: bool) -> None:
        """From now on commands are carried out."""
        self.trust(own=own)
        if self.gate.open:
            self.take = self._plain
        self._service.watch.prove(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._service.watch.leave(self)
        # A bound method is a cycle, and nobody collects those here.
        self.take = nobody_asks
        if self.link is not None:
            self.link.wait = None
        self.forget()

    # --- commands in ----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self.proven and len(data) > PIECE_BYTES:
            for at in range(0, len(data), PIECE_BYTES):
                self.data_received(data[at : at + PIECE_BYTES])
            return
        if self.ending:
            return
        try:
            if not self.proven:
                self._strange(len(data))
            if not self._slots:
                self._asked_bytes = 0
            # What nearly all that arrives is like needs no closer look.
            if (
                self.kept
                or data[0] != ARRAY
                or data[-1] != NEWLINE
                or PUSH in data
                or long_array(data)
            ):
                self.parse(data)
            else:
                self.commands(data)
        except ERRORS as error:
            self._protest(error)
        service = self._service
        if service.pending_ops:
            service.wake()
        if self._slots:
            self._asked_bytes += len(data)
            if len(self._slots) > OUTSTANDING_MAX or self._asked_bytes > ASKED_MAX_BYTES:
                self._read_no_more()

    def _protest(self, error: Exception) -> None:
        """What came is no command."""
        text = str(error).removeprefix("Protocol error, ") or type(error).__name__
        self.say(encode(Failure(f"ERR Protocol error: {text}"), RESP2))
        self.end()

    def _strange(self, size_bytes: int) -> None:
        """So much has come of who has proven nothing yet."""
        self._stranger_bytes += size_bytes
        if self._stranger_bytes > STRANGER_MAX_BYTES:
            raise ValueError("too much before a password or proof")

    def commands(self, data: bytes) -> None:
        """Take up all commands that are complete by now."""
        reader, service = self.reader, self._service
        reader.feed(data)
        handles, ops = service.pending_handles, service.pending_ops
        took = False
        while (command := reader.gets()) is not False:
            took = True
            if type(command) is not list:
                if command is None:
                    continue
                raise ValueError("a command is an array of strings")
            if not command:
                continue
            if self._own and command[0] == _wire.COMMAND:
                op = _wire.decode_request(command)
                handle = (self, op.session, op.sequence)
                if self._due_ns is None:
                    handles.append(handle)
                    ops.append(op)
                else:
                    self._await(service.arrived, (handle, op))
            elif self._own and command[0] == _wire.STAMP:
                self._due_ns = _wire.decode_stamp(command)
            elif self._due_ns is not None:
                self._await(self._arrived, command)
            else:
                self.take(command)
                if self.ending:
                    return
        if not took or reader.has_data() or self._begun_bytes:
            self.unfinished(took, data)

    # --- what is on its way ---------------------------------------------------------------

    def _await(self, callback: Callable[[Any], None], argument: Any) -> None:
        """Let what has been stamped wait for its time."""
        assert self._due_ns is not None
        clock = self._service.clock
        clock.arrive(self._due_ns - clock.origin_ns, callback, argument)

    def _arrived(self, command: list[bytes]) -> None:
        """A rare command that was stamped."""
        if self._transport is None:
            return
        try:
            self.take(command)
        except ERRORS as error:
            self._protest(error)
        if self._service.pending_ops:
            self._service.serve_arrived()

    def stamp(self, due_ns: int, deliver: Callable[[Any], None], answer: Any) -> None:
        """Let an answer wait at its client, which reads the same clock."""
        self.write(b":%d\r\n" % (due_ns + self._service.clock.origin_ns))
        deliver(answer)

    # --- answers --------------------------------------------------------------------------

    def answer(self, handle: Any, reply: Reply, word: Word | None = None) -> None:
        """To an own client."""
        _, session, sequence = handle
        self.write(
            _wire.encode_response(
                session, sequence, reply.outcome, reply.version, reply.value, reply.context, word
            )
        )

    def answer_visit(
        self, handle: Any, effect: Reply | Redirect | Refusal, word: Word | None = None
    ) -> None:
        """Any answer to an own client about a sampled operation."""
        _, session, sequence = handle
        self.write(_wire.encode_answer(session, sequence, effect, word, handle.stay))

    def unheard(self, handle: Any) -> None:
        """An answer to an own client was lost on its way; the client gives it up by itself."""

    def redirect(self, handle: Any, redirect: Redirect, word: Word | None = None) -> None:
        """Tell an own client whom to ask."""
        self._say(handle, _wire.REDIRECTED, redirect.node, word)

    def refuse(self, handle: Any, refusal: Refusal, word: Word | None = None) -> None:
        """Tell an own client that its operation was turned away."""
        self._say(handle, _wire.REFUSED, refusal.wait_ns, word)

    def _say(self, handle: Any, what: int, number: int, word: Word | None) -> None:
        """What is no answer to the operation, with a number that says more."""
        _, session, sequence = handle
        self.write(_wire.encode_response(session, sequence, what, number, None, b"", word))

    # --- plain clients --------------------------------------------------------------------

    def _plain(self, command: list[bytes]) -> None:
        name, count = command[0], len(command)
        # Parsing lets anything stand in a command's place; only strings may go further.
        if (
            count == 3
            and name in (b"SET", b"set")
            and type(command[1]) is type(command[2]) is bytes
        ):
            self.operate(WRITE, command[1], command[2])
        elif count == 2 and name in (b"GET", b"get") and type(command[1]) is bytes:
            self.operate(READ, command[1], None)
        else:
            self._guarded(command)

    def _guarded(self, command: list[bytes]) -> None:
        """Any command, whatever is proven."""
        if not self.proven:
            self._strange(STRANGER_COMMAND_BYTES)
        if not all(type(word) is bytes for word in command):
            raise ValueError("a command is an array of strings")
        folded, is_open = command[0].upper(), self.gate.open
        if folded in _wire.PRIVATE:
            self._greet(folded, command)
        elif is_open and folded == b"GET" and len(command) == 2:
            self.operate(READ, command[1], None)
        elif is_open and folded == b"SET" and len(command) == 3:
            self.operate(WRITE, command[1], command[2])
        else:
            answer = _administration.answer(self, command)
            self.say(encode(answer, self.protocol))

    def _greet(self, folded: bytes, command: list[bytes]) -> None:
        """Rare commands of own clients; of others, the way to prove to be one."""
        if folded == _wire.PROBE and self._own:
            self._service.probed(self, command[-1])
            return
        if folded == _wire.LOAD and self._own:
            self._service.load_asked(self, _wire.decode_load_request(command))
            return
        if folded == _wire.TIED and self._own:
            op, tie = _wire.decode_tied(command)
            self._service.tied((self, op.session, op.sequence), op, tie)
            return
        if folded == _wire.SPAN and self._own:
            op, maybe, number = _wire.decode_sampled(command)
            self._service.sampled((self, op.session, op.sequence), op, maybe, number)
            return
        answer = NO_PROOF
        if folded == _wire.HELLO and len(command) == 2 and (said := self.gate.greet(command[1])):
            answer = encode(said, RESP2)
        elif folded == _wire.PROOF and len(command) == 2 and self.gate.prove(command[1]):
            answer = DONE
            self._own = True
            self._trust(own=True)
        self.say(answer)
        if answer is NO_PROOF:
            self.end()

    @property
    def refusal(self) -> Failure | None:
        """Why it may give no plain commands; None where it may."""
        return None if self.gate.open else self.gate.refusal

    def authenticate(self, user: bytes | None, password: bytes) -> _administration.Value:
        """A plain client names its password."""
        answer = self.gate.authenticate(user, password)
        if self.gate.open:
            self._trust(own=self._own)
        elif self.gate.exhausted:
            self.end()
        return answer

    def info(self) -> bytes:
        """The text of INFO."""
        return self._service.info()
