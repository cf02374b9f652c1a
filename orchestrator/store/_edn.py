"""Reads the part of EDN (https://github.com/edn-format/edn) that histories are written in.

Maps become dicts with the names of their keywords; vectors, lists and sets become lists of
(line, value). Tags, comments and discarded forms are passed over, metadata is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

_TOKEN: Final = re.compile(
    r"""(?P<space>[\s,]+|;[^\n]*)
    |(?P<text>"(?:[^"\\]|\\.)*")
    |(?P<open>\#?\{|\(|\[)
    |(?P<close>[\])}])
    |(?P<discard>\#_)
    |(?P<tag>\#[A-Za-z][^\s,(\[{"]*)
    |(?P<atom>[^\s,()\[\]{}"\#;]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_INTEGER: Final = re.compile(r"[+-]?\d+N?")
_CLOSING: Final = {"{": "}", "#{": "}", "(": ")", "[": "]"}
_WORDS: Final = {"nil": None, "true": True, "false": False}
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)


class Keyword(str):
    """``:name``, without the colon."""


class EdnError(Exception):
    """What is wrong, and on which line."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


def read_values(text: str, first: int = 1) -> Iterator[tuple[int, Any]]:
    """(line, value) of each value at the top; ``first``: the line on which ``text`` begins."""
    # (opening word, line, values so far) of what is open; the values themselves have lines.
    stack: list[tuple[str, int, list[tuple[int, Any]]]] = []
    discards: list[int] = []
    at, line = 0, first
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            what = "a text is not closed" if text[at] == '"' else f"unexpected {text[at]!r}"
            raise EdnError(what, line)
        word, kind, began = found[0], found.lastgroup, line
        at = found.end()
        line += word.count("\n")
        if kind in {"space", "tag"}:
            continue
        if kind == "discard":
            discards.append(len(stack))
            continue
        if kind == "open":
            stack.append((word, began, []))
            continue
        if kind == "close":
            if not stack or _CLOSING[stack[-1][0]] != word:
                raise EdnError(f"unexpected {word!r}", began)
            opening, began, values = stack.pop()
            value: Any = _map(values, began) if opening == "{" else values
        else:
            value = _atom(word, began)
        if discards and discards[-1] == len(stack):
            discards.pop()
        elif stack:
            stack[-1][2].append((began, value))
        else:
            yield began, value
    if stack:
        raise EdnError(f"{stack[-1][0]!r} is not closed: the file is cut off", stack[-1][1])


def _map(values: list[tuple[int, Any]], line: int) -> dict[str, Any]:
    if len(values) % 2:
        raise EdnError("a map has a key without a value", line)
    pairs = zip(values[::2], values[1::2], strict=True)
    return {str(key): value for (_, key), (_, value) in pairs}


def _atom(word: str, line: int) -> Any:
    if word[0] == '"':
        return _ESCAPE.sub(_unescaped, word[1:-1])
    if word in _WORDS:
        return _WORDS[word]
    if word[0] == ":":
        return Keyword(word[1:])
    if _INTEGER.fullmatch(word):
        return int(word.rstrip("N"))
    if word[0].isdigit() or (word[0] in "+-." and word[1:2].isdigit()):
        try:
            return float(word.rstrip("M"))
        except ValueError:
            raise EdnError(f"{word!r} is no number", line) from None
    return Keyword(word)


def _unescaped(found: re.Match[str]) -> str:
    escape = found[1]
    return chr(int(escape[1:], 16)) if len(escape) > 1 else _ESCAPES.get(escape, escape)
