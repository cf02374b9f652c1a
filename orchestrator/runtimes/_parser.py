"""The way of one connection's bytes to commands: RESP parsed by hiredis, and lines without RESP at
the start of what arrives ("inline", for people with telnet).

hiredis bounds neither how many elements an array may announce, for which it makes room at once,
nor how much it takes up before a command is complete. Both are bounded here without parsing
twice. What looks like a long array is told from the same bytes within a string by parsing up to
them: between two elements nothing is left to parse. What an unfinished command has cost is what
was fed less what still waits to be parsed (``_unparsed``).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable
from typing import Final

import hiredis

from orchestrator.runtimes._inline import INLINE_MAX_BYTES, skip_blank_lines, words_of
from orchestrator.runtimes._unparsed import Unparsed
from orchestrator.runtimes._watch import Watched

COMMAND_MAX_BYTES: Final = 16 << 20
WORDS_MAX_BYTES: Final = 64 << 10
"""All words of a plain command but the last one."""
GREETING_MAX_BYTES: Final = 4 << 10
"""A command of whoever has not proven yet that it may give any."""
PIECE_BYTES: Final = 1 << 10
"""How much of what it sends is looked at at a time."""
ERRORS: Final = (hiredis.ProtocolError, ValueError, TypeError, MemoryError)
"""What is raised for bytes that are no command."""

ARRAY: Final = ord("*")
_STRING: Final = ord("$")
NEWLINE: Final = ord("\n")
_NO_COMMAND: Final = b"*0\r\n"
# A thousand elements or more; no command has as many words. Searching for one literal byte first is
# several times as fast as for either of two.
long_array = re.compile(rb"\*[0-9]{4}").search
PUSH: Final = b">"
_long = re.compile(rb"[*>][0-9]{4}").finditer
_half_count = re.compile(rb"[*>][0-9]{0,3}\Z").search
_HALF_COUNT_BYTES: Final = 4
# Whatever page a browser shows can make it send these to a port of its own machine.
_HTTP: Final = (b"POST", b"HOST:")


class CommandParser(Watched):
    """Parses for its heir, who carries out ``commands`` and takes those given as lines."""

    take: Callable[[list[bytes]], None]
    """Carries out one command."""

    def __init__(self) -> None:
        # All in the object itself, where looking them up takes half the time.
        self.proven = False
        self.reader = hiredis.Reader()
        # Whether nothing is heard any more.
        self.ending = False
        # Whether what arrives next may go on in the middle of a line or a string.
        self.kept = False
        # Of a command that is unfinished.
        self._begun_bytes = 0
        self._unparsed = Unparsed()
        self._command_max_bytes = self._words_max_bytes = GREETING_MAX_BYTES
        self._line = b""
        self._held = b""

    @abstractmethod
    def commands(self, data: bytes) -> None:
        """Feed the reader, carry out what is complete, and say so to :meth:`unfinished`."""

    @property
    def begun(self) -> bool:
        return bool(self._begun_bytes or self._line or self._held or self.ending)

    def trust(self, *, own: bool) -> None:
        """From now on commands may be long; those of an own client in all of their words."""
        self._command_max_bytes = COMMAND_MAX_BYTES
        self._words_max_bytes = COMMAND_MAX_BYTES if own else WORDS_MAX_BYTES

    def parse(self, data: bytes) -> None:
        """Carry out the commands that end in what has arrived; raises one of ERRORS."""
        if self._held:
            data, self._held = self._held + data, b""
        whole = data[-1] == NEWLINE
        if data[0] != ARRAY or self._line:
            data = self._inline(data)
        if not whole and (half := _half_count(data[-_HALF_COUNT_BYTES:])):
            # Whether an array is long shows when the rest of its count is here.
            self._held = half.group()
            data = data[: -len(self._held)]
        self.kept = not whole or bool(self._line)
        if long_array(data) or PUSH in data:
            self._carefully(data)
        else:
            self.commands(data)

    def _carefully(self, data: bytes) -> None:
        at = 0
        for found in _long(data):
            self.commands(data[at : found.start()])
            at = found.start()
            if self.ending:
                return
            if not self.reader.has_data():
                raise ValueError("invalid multibulk length")
        self.commands(data[at:])

    def unfinished(self, took: bool, fed: bytes) -> None:
        """After feeding that: ``took`` says whether a command has ended in it."""
        self._unparsed.fed(fed, self.reader.len() if self.reader.has_data() else 0)
        waiting_bytes = self._unparsed.size_bytes
        if took:
            self.sweeps = 0
            self._begun_bytes = waiting_bytes
        else:
            self._begun_bytes += len(fed)
        if self._begun_bytes > self._command_max_bytes:
            raise ValueError("too big a command")
        if self._begun_bytes - waiting_bytes > self._words_max_bytes:
            raise ValueError("too big a word before the last one")

    def _inline(self, data: bytes) -> bytes:
        """Carry out commands given as lines; returns what follows them."""
        reader = self.reader
        if not self._line:
            if data[0] == _STRING or self.kept or reader.has_data():
                return data
            # A reader within an array takes this for its next element.
            reader.feed(_NO_COMMAND)
            if reader.gets() != []:
                raise ValueError(f"expected '$', got {chr(data[0])!r}")
        data, self._line = self._line + data, b""
        at = 0
        while not self.ending:
            if blank := skip_blank_lines(data, at):
                at = blank.end()
            if at == len(data) or data[at] == ARRAY:
                return data[at:]
            end = data.find(b"\n", at)
            if (end if end >= 0 else len(data)) - at > INLINE_MAX_BYTES:
                raise ValueError("too big inline request")
            if end < 0:
                self._line = data[at:]
                return b""
            command = words_of(data[at:end])
            at = end + 1
            if command:
                if command[0].upper() in _HTTP:
                    raise ValueError("this is no web server")
                self.take(command)
        return b""


def nobody_asks(command: list[bytes]) -> None:
    """What a connection that has ended does with commands."""
