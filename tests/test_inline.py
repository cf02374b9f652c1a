"""Commands given as lines: their words, and what many of them cost."""

from __future__ import annotations

import random
import shlex
import time

import pytest
from server_rig import Node, connect

from orchestrator.runtimes._inline import INLINE_MAX_BYTES, words_of

LIMIT_S = 3.0


def test_words_are_those_of_a_shell() -> None:
    draw = random.Random(1)
    split = refused = 0
    for _ in range(20_000):
        line = "".join(draw.choices("ab \"'\\\t\r\xff", k=draw.randint(0, 14)))
        try:
            expected = [word.encode("latin-1") for word in shlex.split(line)]
        except ValueError:
            # A backslash or a quote without what follows it.
            refused += 1
            with pytest.raises(ValueError, match="unbalanced quotes"):
                words_of(line.encode("latin-1"))
        else:
            split += 1
            assert words_of(line.encode("latin-1")) == expected
    assert min(split, refused) > 5000


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"\r\n",
        b"\n" * 1000 + b"PING\n",
        b"PING\n",
        b'PING "a b"\n',
        b"ECHO " + b"'a' " * 1000 + b"\n",
        b'ECHO "' + b"\\x" * 2000 + b'"\n',
        b'ECHO "' + b"x" * 4000 + b"\\\n",
    ],
    ids=lambda line: repr(line[:12]),
)
def test_as_much_as_arrives_at_once_takes_no_time(line: bytes) -> None:
    """256 KiB, with which a node is busy for some tenths of a second at most."""
    node = Node()
    connection, transport = connect(node)
    data = line * ((256 << 10) // len(line)) + b"ECHO end\n"
    began_s = time.perf_counter()
    connection.data_received(data)
    took_s = time.perf_counter() - began_s
    node.flush()
    assert took_s < LIMIT_S
    assert transport.data.endswith((b"$3\r\nend\r\n", b"unbalanced quotes in request\r\n"))


def test_a_line_has_a_limit() -> None:
    for size, closed in ((INLINE_MAX_BYTES - 1, False), (INLINE_MAX_BYTES + 1, True)):
        node = Node()
        connection, transport = connect(node)
        connection.data_received(b"x" * size + b"\n")
        node.flush()
        assert transport.closed is closed
        assert (b"too big inline request" in transport.data) is closed
    node = Node()
    connection, transport = connect(node)
    for _ in range(INLINE_MAX_BYTES):
        connection.data_received(b"\rx")
    node.flush()
    assert transport.closed
