"""Traces in the text that ``redis-cli MONITOR`` prints: one command a line.

A line is ``SECONDS.MICROS [DATABASE CLIENT] "COMMAND" "ARGUMENT" ...``; within quotes stand the
escapes of Redis' own ``sdscatrepr`` (``\\\\ \\" \\n \\r \\t \\a \\b \\xHH``). Commands that read or
write values by key become one request for each of their keys; all others are counted and left
out, scripts too, since what they call is printed line by line.

The text tells no sizes but those of what is written: a request weighs its key and the value
that the trace has last shown for it (none: the key alone). A key of a database other than 0
has the number and a colon before it. Some 3 µs a line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import BinaryIO, Final

import numpy

from orchestrator.core.machine import READ, WRITE
from orchestrator.core.units import NS_PER_S, NS_PER_US
from orchestrator.errors import DataError
from orchestrator.workloads._requests import (
    BACK_HINT,
    SIZE_HINT,
    SIZE_MAX,
    TIME_MAX_NS,
    Requests,
    TraceParams,
    cut,
    nothing_in,
    time_back,
)

_QUOTED: Final = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_LINE: Final = re.compile(
    rb"(\d{1,12})\.(\d{6}) \[(\d{1,10}) [^\"]*\] (" + _QUOTED + rb"(?: " + _QUOTED + rb")*)"
)
_ARGUMENT: Final = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"')
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED: Final = {
    b"\\": b"\\",
    b'"': b'"',
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"a": b"\a",
    b"b": b"\b",
}

# By the first argument.
_READS: Final = frozenset(
    b"get getex getrange substr strlen getbit bitcount bitpos hget hmget hgetall hexists hkeys"
    b" hvals hlen hstrlen hscan lrange lindex llen smembers sismember smismember scard srandmember"
    b" sscan zrange zrangebyscore zrangebylex zrevrange zrevrangebyscore zscore zmscore zrank"
    b" zrevrank zcard zcount zscan xrange xrevrange xlen type dump".split()
)
_WRITES: Final = frozenset(
    b"set setnx setex psetex getset getdel append setrange setbit incr decr incrby decrby"
    b" incrbyfloat hset hmset hsetnx hdel hincrby hincrbyfloat lpush rpush lpushx rpushx lpop rpop"
    b" lset ltrim lrem linsert sadd srem spop zadd zrem zincrby zpopmin zpopmax xadd xdel xtrim"
    b" pfadd restore".split()
)
# By every argument, or every second one.
_EVERY: Final = {
    b"mget": READ,
    b"exists": READ,
    b"touch": READ,
    b"del": WRITE,
    b"unlink": WRITE,
}
_PAIRS: Final = frozenset((b"mset", b"msetnx"))
# Where a command carries the whole value, counted from the command.
_VALUE_AT: Final = {b"set": 2, b"setnx": 2, b"getset": 2, b"setex": 3, b"psetex": 3}

_Access = tuple[int, bytes, int | None]
"""Kind, key, and bytes of the value that is written whole (None: not told)."""


def read_redis_monitor(file: BinaryIO, params: TraceParams) -> Requests:
    """The requests in a log of MONITOR; the ``OK`` that redis-cli prints first may stand there."""
    log = _Log(params.path)
    number = 0
    for number, text in enumerate(file, 1):
        line = text.strip()
        if not line or (line == b"OK" and not log.key):
            continue
        log.add(number, line)
        if params.limit is not None and len(log.key) >= params.limit:
            break
    if not number:
        raise nothing_in(params.path)
    return log.requests(params.limit)


class _Log:
    """What has been read so far."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: dict[bytes, int] = {}
        self._weights: list[int] = []
        self._kind: list[int] = []
        self._size: list[int] = []
        self._time_ns: list[int] = []
        self._last_ns = 0
        self._last = ""
        self._left_out: Counter[str] = Counter()
        self.key: list[int] = []

    def add(self, number: int, line: bytes) -> None:
        """One line of the file."""
        place = f"{self._path}:{number}"
        found = _LINE.fullmatch(line)
        words = None if found is None else arguments(found[4])
        if found is None or words is None:
            shown = cut(line.decode("utf-8", "backslashreplace"))
            raise DataError(f"malformed line {shown!r}", path=place, hint="one of MONITOR's")
        time_ns = self._time(found, place)
        database = int(found[3])
        prefix = b"%d:" % database if database else b""
        accesses = accesses_of(words)
        if not accesses:
            self._left_out[words[0].decode("utf-8", "backslashreplace").lower()] += 1
        for kind, key, value_bytes in accesses:
            self._access(kind, prefix + key, value_bytes, place)
            self._time_ns.append(time_ns)

    def _time(self, found: re.Match[bytes], place: str) -> int:
        shown = b"%s.%s" % (found[1], found[2])
        time_ns = int(found[1]) * NS_PER_S + int(found[2]) * NS_PER_US
        if time_ns > TIME_MAX_NS:
            raise DataError(f"time {shown.decode()!r} is out of range", path=place)
        if time_ns < self._last_ns:
            raise DataError(time_back(shown.decode(), self._last), path=place, hint=BACK_HINT)
        self._last_ns, self._last = time_ns, shown.decode()
        return time_ns

    def _access(self, kind: int, key: bytes, value_bytes: int | None, place: str) -> None:
        index = self._known.setdefault(key, len(self._known))
        if index == len(self._weights):
            self._weights.append(len(key))
        if value_bytes is not None:
            self._weights[index] = len(key) + value_bytes
            if self._weights[index] > SIZE_MAX:
                raise DataError("the value is too large", path=place, hint=SIZE_HINT)
        self._kind.append(kind)
        self.key.append(index)
        self._size.append(self._weights[index])

    def requests(self, limit: int | None) -> Requests:
        """The first ``limit`` requests; raises DataError where there is none."""
        if not self.key:
            left = f" ({sum(self._left_out.values()):,} others)" if self._left_out else ""
            raise DataError(f"no command in it is an access to a key{left}", path=self._path)
        chosen = slice(limit)
        key = numpy.array(self.key[chosen], dtype=numpy.int64)
        time_ns = numpy.array(self._time_ns[chosen], dtype=numpy.int64)
        return Requests(
            kind=numpy.array(self._kind[chosen], dtype=numpy.uint8),
            key=key,
            size=numpy.array(self._size[chosen], dtype=numpy.int32),
            time_ns=time_ns - time_ns[0],
            # The last command may have had more keys than the limit lets in.
            key_names=list(self._known)[: int(key.max()) + 1],
            left_out=dict(self._left_out),
        )


def arguments(quoted: bytes) -> list[bytes] | None:
    """The words of a command from their quoted form; None where an escape is none of Redis'."""
    words: list[bytes] = _ARGUMENT.findall(quoted)
    if b"\\" not in quoted:
        return words
    try:
        return [_ESCAPE.sub(_unescaped, word) if b"\\" in word else word for word in words]
    except KeyError:
        return None


def _unescaped(found: re.Match[bytes]) -> bytes:
    code = found[1]
    return bytes([int(code[1:], 16)]) if len(code) == 3 else _ESCAPED[code]


def accesses_of(words: Sequence[bytes]) -> list[_Access]:
    """The accesses that a command makes, none for one that is no access to a key."""
    command = words[0].lower()
    if len(words) < 2:
        return []
    if command in _READS:
        return [(READ, words[1], None)]
    if command in _WRITES:
        at = _VALUE_AT.get(command)
        value = None if at is None or at >= len(words) else len(words[at])
        return [(WRITE, words[1], value)]
    if command in _EVERY:
        return [(_EVERY[command], key, None) for key in words[1:]]
    if command in _PAIRS:
        return [(WRITE, key, len(value)) for key, value in zip(words[1::2], words[2::2])]  # noqa: B905
    return []
