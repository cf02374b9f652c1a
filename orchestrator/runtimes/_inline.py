"""Commands given as lines without RESP ("inline", for people with telnet): a line's words, as a
shell has them. ``shlex`` splits in the same way, but looks at each byte in Python.
"""

from __future__ import annotations

import re
from typing import Final

INLINE_MAX_BYTES: Final = 4 << 10
"""A line."""

skip_blank_lines = re.compile(rb"(?:\r?\n)*+").match
_special = re.compile(rb"[\"'\\]").search
# Space, bytes as they are, one after a backslash, two kinds of quotes, and what has no end. No two
# begin with the same byte, but for the last, and none is ever tried again.
_parts = re.compile(
    rb"""(\s++)|([^\s"'\\]++)|\\(.)|"([^"\\]*+(?:\\.[^"\\]*+)*+)"|'([^']*+)'|(.)""", re.DOTALL
).findall


def words_of(line: bytes) -> list[bytes]:
    """Its words; raises ValueError where a quote has no end."""
    if not _special(line):
        return line.split()
    words = []
    word: list[bytes] = []
    for space, bare, byte, double, single, unended in _parts(line):
        if unended:
            raise ValueError("unbalanced quotes in request")
        if not space:
            # One that is nothing is an empty quotation, which makes a word too.
            word.append(bare or byte or single or _unescaped(double))
        elif word:
            words.append(b"".join(word))
            word = []
    if word:
        words.append(b"".join(word))
    return words


def _unescaped(text: bytes) -> bytes:
    """What stands between double quotes, where a backslash escapes a quote and itself."""
    if b"\\" not in text:
        return text
    return b"\\".join(part.replace(b'\\"', b'"') for part in text.split(b"\\\\"))
