"""What a node owes one client's connection: bytes that wait to leave, and the answers to plain
commands, which leave in the order of their commands.

A plain client may ask for much more than it sends, and in less time than it takes to answer. So
how much it may have asked for at a time is bounded (it is not read from until all of it is
answered), how much may wait for it (it is cut), and how long it waits itself (it is told that the
outcome is not known). Nothing here holds on to what has ended: nobody collects cycles in these
processes.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from typing import Final, Protocol

from orchestrator.core.machine import Op
from orchestrator.runtimes._administration import RESP2
from orchestrator.runtimes._parser import WORDS_MAX_BYTES, CommandParser
from orchestrator.runtimes._plain_slot import (
    ENTRY_MAX_BYTES,
    TOO_LARGE,
    TOO_MANY_OVERDUE,
    PlainSlot,
    Said,
    SlotService,
)

OUTSTANDING_MAX: Final = 1024
"""Commands without an answer, beyond which a plain client is not read from."""
ASKED_MAX_BYTES: Final = 32 << 20
"""What it may send until all that it has asked for is answered; beyond, the same."""
QUEUED_MAX_BYTES: Final = 64 << 20
"""Answers that wait for a plain client, beyond which it is cut."""


class LineService(SlotService, Protocol):
    """What such connections need of their node."""

    patience: int
    """How many sweeps a plain client waits for an answer."""

    @abstractmethod
    def flush_later(self, connection: PlainLine) -> None:
        """Write out what the connection has to say at the end of this tick."""


class PlainLine(CommandParser):
    """The way back of a connection, whose heir takes up the commands."""

    _service: LineService

    def __init__(self, service: LineService) -> None:
        super().__init__()
        self._service = service
        # Whether the client has proven that it is of this run.
        self._own = False
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._slots: deque[PlainSlot | Said] = deque()
        self.protocol = RESP2
        self.queued_bytes = 0
        self.swept = 0
        self.blocked = False
        # What has come since all was answered, and whether that is too much to read on.
        self._asked_bytes = 0
        self._full = False

    @property
    def begun(self) -> bool:
        # The rest of what has begun cannot come where nothing is read.
        return super().begun and (self.ending or not self._full)

    # --- bytes out ------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queue bytes for the end of this tick."""
        out = self._out
        if not out:
            self._service.flush_later(self)
        out.append(data)

    def flush(self) -> None:
        """Write out what is queued."""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        if self._transport is not None:
            if data:
                self._transport.write(data)
                if self.queued_bytes:
                    self.queued_bytes = max(0, self.queued_bytes - len(data))
                if self.blocked:
                    self._bound_queue()
            if self.ending and not self._slots:
                self._transport.close()

    def _bound_queue(self) -> None:
        """Cut a plain client for which too much waits, here or in its transport."""
        if self._own or self._transport is None:
            return
        waiting_bytes = self.queued_bytes
        if self.blocked:
            waiting_bytes += self._transport.get_write_buffer_size()
        if waiting_bytes > QUEUED_MAX_BYTES:
            self.cut()

    def end(self) -> None:
        """Close once everything asked so far is answered; hear nothing any more."""
        self.ending = True
        self.write(b"")

    def cut(self) -> None:
        self.ending = True
        self.forget()
        if self._transport is not None:
            self._transport.abort()

    # --- whether it is read from ----------------------------------------------------------

    def pause_writing(self) -> None:
        """A client that does not read its answers is not read from either."""
        self.blocked = True
        self._read_or_not()

    def resume_writing(self) -> None:
        self.blocked = False
        self._read_or_not()

    def _read_or_not(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self.blocked or self._full:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _read_no_more(self) -> None:
        """Too much is under way."""
        self._full = True
        self._read_or_not()

    # --- answers in order -----------------------------------------------------------------

    def operate(self, kind: int, key: bytes, value: bytes | None) -> None:
        """A plain client's operation, for the machine."""
        size = len(key) + (0 if value is None else len(value))
        service = self._service
        if size > WORDS_MAX_BYTES and (len(key) > WORDS_MAX_BYTES or size > ENTRY_MAX_BYTES):
            self.say(TOO_LARGE)
        elif service.overdue.full:
            self.say(TOO_MANY_OVERDUE)
        else:
            idle = service.idle_slots
            slot = idle.pop() if idle else PlainSlot(service)
            self._slots.append(slot)
            slot.connection = self
            slot.since = self.swept
            slot.sequence = sequence = slot.sequence + 1
            slot.op = op = Op(slot.session, sequence, kind, key, value, size)
            # What a slot holds may not hold the slot: nobody collects cycles here.
            service.pending_handles.append((slot,))
            service.pending_ops.append(op)

    def say(self, data: bytes) -> None:
        """An answer that is known already, behind those to what was asked before."""
        self.queued_bytes += len(data)
        if self._slots:
            self._slots.append(Said(data, self.swept))
        else:
            self.write(data)
        if self.queued_bytes > QUEUED_MAX_BYTES:
            self._bound_queue()

    def fill(self) -> None:
        """Let the answers at the head leave, in order."""
        slots = self._slots
        while slots and (data := slots[0].data) is not None:
            self.write(data)
            slots.popleft().release()
        if self._full and not slots:
            self._full = False
            self._read_or_not()
        if self.queued_bytes > QUEUED_MAX_BYTES:
            self._bound_queue()

    def expire(self) -> None:
        """Say of operations that are too old that their outcome is not known."""
        self.swept += 1
        slots = self._slots
        while slots and slots[0].since <= self.swept - self._service.patience:
            slot = slots.popleft()
            if isinstance(slot, PlainSlot) and slot.data is None:
                self.write(slot.expire())
            else:
                self.write(slot.data or b"")
                slot.release()
        self.fill()

    def forget(self) -> None:
        """Nobody is there any more to be answered."""
        slots, self._slots = self._slots, deque()
        for slot in slots:
            if isinstance(slot, PlainSlot) and slot.data is None:
                slot.expire()
            else:
                slot.release()
        self._out.clear()
        self.queued_bytes = 0
