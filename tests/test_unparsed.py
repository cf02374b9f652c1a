"""What a reader has been fed and cannot parse yet, against what was made to be parsed."""

from __future__ import annotations

import itertools
import random

import hiredis
import pytest
from server_rig import Node, command, connect

from orchestrator.runtimes._unparsed import HEADER_MAX_BYTES, Unparsed


def elements(draw: random.Random) -> list[bytes]:
    """The elements of a command, now and then with some that no command has."""
    count = draw.randint(1, 6)
    parts = [b"*%d\r\n" % count]
    for _ in range(count):
        size = draw.choice([0, 1, 3, 20, 300, 1100, 5000])
        body = draw.choice([b"x", b"\r\n", b"$9\r\n"]) * size
        kinds = [b"$%d\r\n%b\r\n" % (len(body), body)] * 8
        kinds += [b"+OK\r\n", b":12\r\n", b"$-1\r\n", b"*-1\r\n", b"=8\r\ntxt:a\r\nb\r\n", b"_\r\n"]
        parts.append(draw.choice(kinds))
    return parts


@pytest.mark.parametrize("seed", range(20))
def test_what_waits_is_the_beginning_of_one_element(seed: int) -> None:
    draw = random.Random(seed)
    parts = [part for _ in range(40) for part in elements(draw)]
    ends = list(itertools.accumulate(map(len, parts)))
    stream = b"".join(parts)
    reader, unparsed = hiredis.Reader(), Unparsed()
    at = checked = 0
    while at < len(stream):
        size = draw.choice([1, 2, 7, 50, 900, 4000])
        piece = stream[at : at + size]
        at += len(piece)
        reader.feed(piece)
        while reader.gets() is not False:
            pass
        unparsed.fed(piece, reader.len() if reader.has_data() else 0)
        assert unparsed.size_bytes == at - max([end for end in ends if end <= at], default=0)
        checked += 1
    assert checked > 10
    assert unparsed.size_bytes == 0


@pytest.mark.parametrize("before", [b"", command(b"PING"), command(b"PING") * 500])
@pytest.mark.parametrize("begin", [b"*1\r\n+", b"*1\r\n", b"*2\r\n$4\r\nPING\r\n-", b"*"])
@pytest.mark.parametrize("step", [1, 9, None])
def test_a_line_without_an_end_is_fed_once(before: bytes, begin: bytes, step: int | None) -> None:
    node = Node()
    connection, transport = connect(node)
    connection.data_received(before + begin)
    fed_bytes = 0
    size = step or 100_000
    while not connection.ending and fed_bytes < 1 << 20:
        connection.data_received(b"\r" * size)
        fed_bytes += size
    node.flush()
    assert fed_bytes <= HEADER_MAX_BYTES + size
    assert b"-ERR Protocol error: " in transport.data
    assert transport.closed


def test_a_value_may_come_in_any_pieces() -> None:
    node = Node()
    connection, transport = connect(node)
    value = b"\r" * 100_000
    data = command(b"PING") * 100 + command(b"SET", b"k", value) + command(b"GET", b"k")
    for size in (1, 31, 32, 33, 5000):
        node.values.clear()
        for at in range(0, len(data), size):
            connection.data_received(data[at : at + size])
        node.serve()
        assert node.values == {b"k": value}
    assert not transport.closed
