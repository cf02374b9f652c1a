"""Where the time of sampled operations goes on sockets: the wire, and one real run."""

from __future__ import annotations

import random
from typing import Any

import hiredis
import pytest
from server_rig import Node, connect
from test_spans import sampled

from orchestrator.config.load import load_mapping
from orchestrator.core.history import COLUMNS
from orchestrator.core.machine import OK, READ, WRITE, Op, Redirect, Reply
from orchestrator.core.spans import PARTS, Stay
from orchestrator.core.waiting import Refusal, Tie
from orchestrator.runtimes import _wire, ray_cluster
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._port import Leg
from orchestrator.runtimes._sampling import Sampling
from orchestrator.runtimes._session import ROW, Session
from orchestrator.runtimes._spans import ClientSpans

STAY = Stay(3, 10, 20, 30, 40)
READ_OP = Op(7, 9, READ, b"key", None, 3, 5, context=b"seen")
WRITE_OP = Op(7, 9, WRITE, b"key", b"value", 8, 5, level=2)


def parsed(data: bytes) -> Any:
    """What the other side reads."""
    reader = hiredis.Reader()
    reader.feed(data)
    return reader.gets()


# --- the wire ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "tie"), [(READ_OP, None), (READ_OP, Tie(2, 1)), (WRITE_OP, None)], ids=str
)
def test_an_attempt_travels_whole(op: Op, tie: Tie | None) -> None:
    command = parsed(_wire.encode_sampled(op, tie, 3))
    assert command[0] == _wire.SPAN and all(type(word) is bytes for word in command)
    assert _wire.decode_sampled(command) == (op, tie, 3)


def test_what_is_no_attempt_is_refused() -> None:
    good = parsed(_wire.encode_sampled(READ_OP, None, 3))
    tied = parsed(_wire.encode_sampled(READ_OP, Tie(2, 1), 3))
    written = parsed(_wire.encode_sampled(WRITE_OP, None, 3))
    bad = [
        good[:5],
        [*written, b"more"],
        [good[0], b"123", *good[2:]],
        [*good[:2], b"1234567", *good[3:]],
        [*good[:3], good[3][:-1], *good[4:]],
        [*written[:2], tied[2], *written[3:]],
        [*written[:2], tied[2], *written[3:6]],
    ]
    for command in bad:
        with pytest.raises(ValueError, match="malformed"):
            _wire.decode_sampled(command)


@pytest.mark.parametrize("word", [None, (4, 5_000)])
@pytest.mark.parametrize(
    ("effect", "said"),
    [
        (Reply((), OK, b"value", 8, context=b"c"), (8, OK, b"value", b"c")),
        (Reply((), OK, [(b"k", b"v")], 8), (8, OK, b"\x91\x92\xc4\x01k\xc4\x01v", None)),
        (Redirect((), READ_OP, 2), (2, _wire.REDIRECTED, None, None)),
        (Refusal((), 77), (77, _wire.REFUSED, None, None)),
    ],
    ids=["value", "scan", "redirect", "refusal"],
)
def test_an_answer_says_where_time_went(effect: Any, said: Any, word: Any) -> None:
    header, value, context, stay, *rest = parsed(_wire.encode_answer(7, 9, effect, word, STAY))
    assert _wire.unpack_response(header) == (7, 9, said[0], said[1])
    assert (value, context) == said[2:] and _wire.decode_stay(stay) == STAY
    assert rest == ([] if word is None else [4, 5])


@pytest.mark.parametrize("packed", [None, b"", b"short", 5, [b"x"], bytes(64)])
def test_what_says_no_durations_is_none(packed: Any) -> None:
    assert _wire.decode_stay(packed) is None


def test_a_node_takes_an_attempt_from_its_own_clients_alone() -> None:
    node = Node()
    connection, _ = connect(node, own=True)
    connection.data_received(_wire.encode_sampled(WRITE_OP, None, 3))
    [handle] = node.pending_handles
    assert node.pending_ops == [WRITE_OP]
    assert handle == (connection, 7, 9) and hash(handle) == hash((connection, 7, 9))
    stranger, transport = connect(node)
    stranger.data_received(_wire.encode_sampled(WRITE_OP, None, 3))
    node.flush()
    assert transport.data.startswith(b"-") and len(node.pending_ops) == 1


# --- what a client believes -------------------------------------------------------------


class Port:
    """Takes everything, at time 1,000."""

    def submit(self, session: Session, node: int) -> bool:
        return True

    def submit_tied(self, session: Session, node: int, tie: Tie) -> bool:
        return True

    def submit_sampled(self, session: Session, node: int, tie: Tie | None, leg: Leg) -> bool:
        leg.sent_ns = 1000
        return True

    def ask(self, node: int) -> None: ...

    def wake_at(self, when_ns: int) -> None: ...


@pytest.mark.parametrize(
    ("stays", "parts"),
    [
        ([Stay(0, 10, 20, 30, 40)], (110, 20, 30, 900, 40)),
        # Nothing, what never left, more than has passed, less than nothing.
        ([], None),
        ([Stay(1, 10, 20, 30, 40)], None),
        ([Stay(0, 10, 20, 30, 1000)], None),
        ([Stay(0, -10, 20, 30, 40)], None),
        # The same twice is once.
        ([Stay(0, 10, 20, 30, 40), Stay(0, 10, 20, 30, 40)], (110, 20, 30, 900, 40)),
    ],
)
def test_a_node_that_says_nonsense_is_not_believed(
    stays: list[Stay], parts: tuple[int, ...] | None
) -> None:
    rows: list[Any] = []
    spans = ClientSpans(Port(), rows.append, Sampling(random.Random(1), 1, 0, None))
    session = Session(0, 1, 1)
    session.sequence, session.due_ns, session.invoked_ns = 1, 900, 950
    session.op = Op(session.identity, 1, READ, b"k")
    spans.follow(session, 0)
    assert session.port is spans and session.port.submit(session, 0)
    spans.heard(session, 2, STAY, 2000)  # of another operation
    for stay in stays:
        spans.heard(session, 1, stay, 2000)
    row = session.row(0, 0, 2000, -1, OK)
    session.record(row)
    assert rows == [row] and session.record is not rows.append
    found = spans.found().parts_ns.tolist()
    assert found == ([] if parts is None else [list(parts)])
    assert len(ROW) == len(COLUMNS) - 2


# --- a real run -------------------------------------------------------------------------


@pytest.mark.serial
@pytest.mark.parametrize("costs", ["modelled", "measured"])
def test_parts_of_a_real_run_add_up(runtime: ray_cluster.RayRuntime, costs: str) -> None:
    """Their structure, on a machine that need not be quiet: nothing comes much too soon."""
    node: dict[str, Any] = {"costs": costs, "storage": {"durability": "fsync"}}
    if costs == "modelled":
        node["cpu"] = {"read": "1ms", "write": "2ms", "message": "100us"}
    config = {
        "experiment": "spans",
        "system": {
            "name": "replicated_store",
            "protocol": {"name": "raft"},
            "replicas": 3,
            "node": node,
            "network": {"delay": "3ms"},
        },
        "workload": {"name": "ycsb", "mix": "a", "keys": 100},
        "arrival": {"name": "poisson", "rate": "100/s"},
        "clients": 2,
        "warmup": "500ms",
        "duration": "2s",
    }
    record = runtime.run(Parts.of(load_mapping(config)))
    spans = sampled(record)
    assert 20 < len(spans) < 120 and len({session >> 22 for session in spans.session}) == 2
    ms = dict(zip(PARTS, spans.parts_ns.T / 1e6, strict=True))
    # Answers come back over two links; what comes off these may be a little more than it should.
    # While the own disk is waited for, a majority is, too, and that counts as the disk's.
    assert ms["network"].min() >= 5
    assert (ms["replication"] + ms["cache_storage"]).min() >= 5
    assert ms["replication"].max() >= 5 and ms["cache_storage"].max() > 0
    if costs == "modelled":
        for kind, cost_ms in ((READ, 1), (WRITE, 2)):
            assert set(ms["cpu"][spans.kind == kind].tolist()) == {cost_ms}
    else:
        assert ms["cpu"].min() > 0
