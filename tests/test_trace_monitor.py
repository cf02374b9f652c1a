"""Traces that ``redis-cli MONITOR`` printed: quoting, keys of commands, and bad lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_traces import refused, told

from orchestrator.core.machine import READ, WRITE
from orchestrator.workloads._trace_redis_monitor import accesses_of, arguments
from orchestrator.workloads.trace import LeftOutWarning, Trace, TraceParams, read_requests

MONITOR = r"""OK
1339518083.107412 [0 127.0.0.1:60866] "keys" "*"
1339518083.107413 [0 127.0.0.1:60866] "SET" "a" "12345"
1339518083.107413 [0 [::1]:60866] "get" "a"

1339518087.877697 [9 unix:/tmp/redis.sock] "MGET" "a" "b\"\\\x00\n"
1339518088.000000 [0 lua] "mset" "a" "1" "c" "22"
1339518088.000000 [0 127.0.0.1:1] "DEL" "a" "z"
1339518088.000001 [0 127.0.0.1:1] "INCR" "n"
1339518088.000002 [0 127.0.0.1:1] "PING"
1339518088.000002 [0 127.0.0.1:1] "AUTH" "(redacted)"
1339518088.000003 [0 127.0.0.1:1] "setex" "c" "60" ""
1339518088.000004 [0 127.0.0.1:1] "ping"
"""


def monitor(folder: Path, content: str) -> Path:
    path = folder / "t.monitor"
    path.write_bytes(content.encode("latin-1"))
    return path


def test_monitor_gives_a_request_a_key(tmp_path: Path) -> None:
    found = read_requests(TraceParams(str(monitor(tmp_path, MONITOR))))
    assert told(found) == [
        (0, b"a", WRITE, 6),
        (0, b"a", READ, 6),
        (4770284000, b"9:a", READ, 3),
        (4770284000, b'9:b"\\\0\n', READ, 7),
        (4892587000, b"a", WRITE, 2),
        (4892587000, b"c", WRITE, 3),
        (4892587000, b"a", WRITE, 2),
        (4892587000, b"z", WRITE, 1),
        (4892588000, b"n", WRITE, 1),
        (4892590000, b"c", WRITE, 1),
    ]
    assert found.left_out == {"keys": 1, "ping": 2, "auth": 1}
    assert found.left_out_words(2) == "4 commands left out: ping 2, auth 1, ..."


def test_a_limit_may_cut_a_command(tmp_path: Path) -> None:
    path = monitor(tmp_path, MONITOR + "nonsense\n")
    found = read_requests(TraceParams(str(path), limit=3))
    assert found.key_names == [b"a", b"9:a"]
    assert len(found) == 3


def test_the_workload_says_what_it_left_out(tmp_path: Path) -> None:
    with pytest.warns(LeftOutWarning, match="4 commands left out: ping 2, auth 1, keys 1"):
        trace = Trace(TraceParams(str(monitor(tmp_path, MONITOR))))
    assert trace.total == 10
    assert trace.key_names[0] == b"a"


LINE = '1339518083.107412 [0 127.0.0.1:60866] "get" "k"\n'


@pytest.mark.parametrize(
    ("bad_line", "words"),
    [
        ('1339518083.107412 [0 127.0.0.1:60866] "get" "k', "malformed line"),
        ('1339518083.107412 [0 127.0.0.1:60866] "get" "k\\"', "malformed line"),
        ('1339518083.107412 [0 127.0.0.1:60866] "get" "\\q"', "malformed line"),
        ('1339518083.107412 [0 127.0.0.1:60866] "get" "\\x4"', "malformed line"),
        ('1339518083.107412 [0 127.0.0.1:60866] get "k"', "malformed line"),
        ("1339518083.107412 [0 127.0.0.1:60866]", "malformed line"),
        ('1339518083 [0 127.0.0.1:60866] "get" "k"', "malformed line"),
        ("OK", "malformed line 'OK'"),
        ('-1.000000 [0 127.0.0.1:60866] "get" "k"', "malformed line"),
        ('999999999999.000000 [0 1] "get" "k"', "time '999999999999.000000' is out of range"),
        (
            '1339518083.107411 [0 127.0.0.1:60866] "ping"',
            "time '1339518083.107411' is before that of the previous request, '1339518083.107412'",
        ),
    ],
)
def test_a_bad_line_of_monitor_is_named(tmp_path: Path, bad_line: str, words: str) -> None:
    path = monitor(tmp_path, "OK\n" + LINE * 3 + bad_line + "\n")
    error = refused(path)
    assert words in str(error)
    assert error.path == f"{path}:5"


def test_a_log_without_an_access_is_refused(tmp_path: Path) -> None:
    path = monitor(tmp_path, LINE.replace("get", "watch"))
    assert "no command in it is an access to a key (1 others)" in str(refused(path))


def quoted(word: bytes) -> bytes:
    """As Redis' sdscatrepr writes it."""
    named = {0x5C: b"\\\\", 0x22: b'\\"', 10: b"\\n", 13: b"\\r", 9: b"\\t", 7: b"\\a", 8: b"\\b"}
    body = b"".join(
        named.get(byte) or (bytes([byte]) if 32 <= byte < 127 else b"\\x%02x" % byte)
        for byte in word
    )
    return b'"' + body + b'"'


@given(words=st.lists(st.binary(max_size=12), min_size=1, max_size=4))
def test_any_words_survive_quoting(words: list[bytes]) -> None:
    assert arguments(b" ".join(map(quoted, words))) == words


@given(
    commands=st.lists(
        st.tuples(
            st.sampled_from([b"GET", b"Set", b"mget", b"MSET", b"del", b"INCR", b"ping", b"\0"]),
            st.lists(st.binary(max_size=6), max_size=4),
            st.integers(0, 3),
            st.integers(0, 2_000_000),
        ),
        min_size=1,
        max_size=10,
    )
)
def test_any_log_of_commands_gives_their_keys(
    tmp_path_factory: pytest.TempPathFactory,
    commands: list[tuple[bytes, list[bytes], int, int]],
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.monitor"
    now_us, lines, expected, others = 0, [], [], 0
    for command, words, database, pause_us in commands:
        now_us += pause_us
        line = b" ".join(map(quoted, [command, *words]))
        stamp = b"%d.%06d" % divmod(now_us, 1_000_000)
        lines.append(b"%s [%d 127.0.0.1:1] %s\n" % (stamp, database, line))
        prefix = b"%d:" % database if database else b""
        accesses = accesses_of([command, *words])
        expected += [(now_us * 1000, prefix + key, kind) for kind, key, _ in accesses]
        others += not accesses
    path.write_bytes(b"".join(lines))
    if not expected:
        assert "no command in it" in str(refused(path))
        return
    found = read_requests(TraceParams(str(path)))
    first_ns = expected[0][0]
    assert [row[:3] for row in told(found)] == [(at - first_ns, *rest) for at, *rest in expected]
    assert sum(found.left_out.values()) == others


@pytest.mark.parametrize(
    ("command", "kinds"),
    [
        ("GET k", [READ]),
        ("SET k v EX 9", [WRITE]),
        ("MGET a b c", [READ] * 3),
        ("MSET a 1 b 2", [WRITE] * 2),
        ("MSET a", []),
        ("UNLINK a b", [WRITE] * 2),
        ("HSET k f v", [WRITE]),
        ("GET", []),
        ("EVAL x 1 k", []),
        ("EXPIRE k 9", []),
        ("SET k", [WRITE]),
    ],
)
def test_what_a_command_accesses(command: str, kinds: list[int]) -> None:
    found = accesses_of(command.encode().split())
    assert [kind for kind, _, _ in found] == kinds
    assert all(re.fullmatch(rb"[kabc]", key) for _, key, _ in found)
