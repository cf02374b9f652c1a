"""What a reader of RESP has been fed and cannot parse yet: always the beginning of one element.

hiredis looks for the end of an unfinished line from its beginning each time that it is fed. A
header has a few digits; what goes on for longer without a line break is no command, and must not
be fed any further. The reader tells how much it holds, but that includes up to a KiB that it has
parsed already, and leaves out the type of an element once it has seen it. So the elements of that
much are walked once more, to the one that waits.
"""

from __future__ import annotations

from typing import Final

HEADER_MAX_BYTES: Final = 32

_LINE_END: Final = b"\r\n"
_STRINGS: Final = b"$=!"
"""Types of elements with so many bytes after their header."""
_MINUS: Final = ord("-")
_NEWLINE: Final = ord("\n")


class Unparsed:
    """The element that waits for its rest."""

    def __init__(self) -> None:
        self.size_bytes = 0
        # Its header, as long as that is unfinished, or else how much is missing to its end.
        self._header = b""
        self._missing_bytes = 0

    def fed(self, data: bytes, held_bytes: int) -> None:
        """After feeding: how much the reader holds, 0 where it has parsed all of it.

        Raises ValueError where what waits is too long for a header.
        """
        if not data or len(data) < self._missing_bytes:
            self.size_bytes += len(data)
            self._missing_bytes -= len(data)
            return
        data = self._header + data
        # Both are ends of elements. Before what it holds the reader has parsed everything.
        at = max(self._missing_bytes, _end_before(data, len(data) - held_bytes))
        while 0 <= (end := _end_of_element(data, at)) <= len(data):
            at = end
        self.size_bytes = len(data) - at
        self._missing_bytes = max(0, end - len(data))
        self._header = data[at:] if end < 0 else b""
        if len(self._header) >= HEADER_MAX_BYTES:
            raise ValueError("too big a header")


def _end_before(data: bytes, at: int) -> int:
    """Of the element whose end, or the type of the next one, is the last before ``at``."""
    if at <= 0:
        return 0
    return at if data[at - 1] == _NEWLINE else at - 1


def _end_of_element(data: bytes, at: int) -> int:
    """Where the element that begins there ends, maybe beyond the data; -1: within its header."""
    line_end = data.find(_LINE_END, at)
    if line_end < 0:
        return -1
    end = line_end + len(_LINE_END)
    if data[at] in _STRINGS and data[at + 1] != _MINUS:
        end += int(data[at + 1 : line_end]) + len(_LINE_END)
    return end
