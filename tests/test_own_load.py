"""A node's word of its load: what it counts, its way over the wire and through both runtimes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from server_rig import Node, command, connect

from orchestrator.balancers.join_shortest_queue import JoinShortestQueue
from orchestrator.balancers.prequal import Prequal
from orchestrator.config.load import load_mapping
from orchestrator.core.machine import FAIL, OK, READ, Op, Redirect, Reply
from orchestrator.core.record import EJECTED
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.core.waiting import Refusal
from orchestrator.runtimes import _wire, simulated
from orchestrator.runtimes._client_connection import ToldConnection
from orchestrator.runtimes._client_process import ClientProcess, ClientReport, ClientSpec
from orchestrator.runtimes._handshake import Credentials
from orchestrator.runtimes._node_process import NodeProcess, NodeSpec
from orchestrator.runtimes._own_load import FRESH_NS, LEVELS, OwnLoad
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._session import SESSION_BITS

TELLING: dict[str, type[Any]] = {"join_shortest_queue": JoinShortestQueue, "prequal": Prequal}
Heard = list[tuple[int, int, int, int]]


def parts(balancer: str, *overrides: str, **system: Any) -> Parts:
    """Two nodes without anything between them, each with a core; any may serve a read."""
    config = {
        "runtime": "sim",
        "system": {
            "protocol": {"name": "unreplicated"},
            "replicas": 2,
            "node": {"cpu": {"read": "1ms"}},
            "balancer": {"name": balancer},
        }
        | system,
        "workload": {"name": "ycsb", "mix": "c", "keys": 10},
        "arrival": {"name": "closed", "sessions": 4},
        "warmup": "0s",
        "duration": "200ms",
    }
    return Parts.of(load_mapping(config, *overrides))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """What all balancers hear: (node, in flight, latency in ns, when)."""
    noted: Heard = []

    def patch(kind: type[Any]) -> None:
        known = kind.hear

        def hear(self: Any, *word: int) -> None:
            noted.append(word)  # type: ignore[arg-type]
            known(self, *word)

        monkeypatch.setattr(kind, "hear", hear)

    for kind in TELLING.values():
        patch(kind)
    return noted


# --- what it counts ---------------------------------------------------------------------


def load(**changes: Any) -> OwnLoad:
    return OwnLoad(**({"tells": True, "patience_ns": 10 * NS_PER_S} | changes))


def test_operations_are_in_flight_from_their_arrival_to_their_answer() -> None:
    node = load()
    assert node.word(0) == (0, 0)
    for handle in ("a", "b", "b", "c"):
        node.arrived(handle, 0)
    assert node.word(0) == (3, 0)
    assert node.answered("b", 0)[0] == 2
    assert node.answered("b", 0)[0] == 2
    assert node.answered("of another node", 0)[0] == 2


def test_latency_is_that_of_operations_that_met_about_as_many() -> None:
    node = load()
    now_ns = 0
    # The first to come meets nobody and takes 1 ms, the second meets one, and so on.
    for handle in range(4):
        node.arrived(handle, now_ns)
    for handle in range(4):
        node.answered(handle, now_ns + (handle + 1) * NS_PER_MS)
    now_ns = 5 * NS_PER_MS
    assert node.word(now_ns) == (0, 1 * NS_PER_MS)
    for handle in range(4):
        node.arrived(handle, now_ns)
        assert node.word(now_ns) == (handle + 1, min(handle + 2, 4) * NS_PER_MS)


def test_latency_moves_with_what_is_new_and_old_ones_are_forgotten() -> None:
    node = load()
    now_ns = 0
    for latency_ms in [1] * 50 + [9] * 50:
        node.arrived("a", now_ns)
        now_ns += latency_ms * NS_PER_MS
        node.answered("a", now_ns)
    assert node.word(now_ns)[1] == pytest.approx(9 * NS_PER_MS, rel=0.01)
    assert node.word(now_ns + FRESH_NS - 1)[1] > 0
    assert node.word(now_ns + FRESH_NS) == (0, 0)
    # What is measured then owes nothing to what was before.
    now_ns += FRESH_NS
    node.arrived("a", now_ns)
    node.answered("a", now_ns + NS_PER_MS)
    assert node.word(now_ns + NS_PER_MS) == (0, NS_PER_MS)


def test_what_is_never_answered_is_forgotten_when_nobody_waits_any_more() -> None:
    node = load(patience_ns=NS_PER_S)
    node.arrived("lost", 0)
    node.arrived("later", NS_PER_S // 2)
    assert node.word(NS_PER_S - 1)[0] == 2
    assert node.word(NS_PER_S)[0] == 1
    assert node.answered("lost", NS_PER_S + 1)[0] == 1


def test_any_number_in_flight_has_a_word() -> None:
    node = load()
    for handle in range(LEVELS + 50):
        node.arrived(handle, 0)
    assert node.answered(LEVELS + 40, 3 * NS_PER_MS) == (LEVELS + 49, 3 * NS_PER_MS)


@pytest.mark.parametrize(
    ("balancer", "told", "tells"),
    [("round_robin", False, False), ("prequal", True, False), ("join_shortest_queue", True, True)],
)
def test_only_who_wants_it_is_told(balancer: str, told: bool, tells: bool) -> None:
    made = parts(balancer)
    node = OwnLoad.of(made)
    assert made.told is told
    assert (node is not None) is told
    if node is not None:
        answers: list[Any] = []
        node.arrived("a", 0)
        reply = Reply("a", OK)
        node.answering(reply, lambda reply, word=None: answers.append(word), 5)(reply)
        assert answers == [(0, 5) if tells else None]


@pytest.mark.parametrize(
    "effect", [Reply("a", FAIL), Refusal("a"), Redirect("a", Op(1, 1, READ, b"k"), 1)]
)
def test_failing_fast_shortens_no_latency(effect: Any) -> None:
    node = load()
    node.arrived("a", 0)
    node.answered("a", 4 * NS_PER_MS)
    node.arrived("a", 5 * NS_PER_MS)
    assert node.word(5 * NS_PER_MS)[0] == 1
    node.answering(effect, lambda reply, word: None, 5 * NS_PER_MS)
    assert node.word(5 * NS_PER_MS) == (0, 4 * NS_PER_MS)


# --- the wire ---------------------------------------------------------------------------

SESSION = 3 << SESSION_BITS
ASK = _wire.encode_load_request(SESSION)


def test_a_node_says_so_at_once_and_to_its_own_clients_alone() -> None:
    node = Node()
    own, transport = connect(node, own=True)
    own.data_received(_wire.encode_request(Op(9, 1, READ, b"k")) + ASK)
    node.flush()
    # The operation waits still. (The rig gives the session back as the latency.)
    assert transport.data == b"*2\r\n:1\r\n:%d\r\n" % (SESSION // 1000)
    assert not transport.closed
    stranger, said = connect(node)
    stranger.data_received(ASK)
    node.flush()
    assert said.data.startswith(b"-NOPROOF") and said.closed


@pytest.mark.parametrize(
    "words", [(), (b"",), (b"1234567",), (b"123456789",), (b"12345678", b"12345678")]
)
def test_a_malformed_question_ends_the_connection(words: tuple[bytes, ...]) -> None:
    node = Node()
    own, transport = connect(node, own=True)
    own.data_received(command(_wire.LOAD, *words))
    node.flush()
    assert b"malformed ABLOAD" in transport.data and transport.closed


class Driver:
    """Notes what a connection reports."""

    def __init__(self) -> None:
        self.router = self.balancer = self
        self.events: list[tuple[Any, ...]] = []

    def hear(self, *word: int) -> None:
        self.events.append(("hear", *word))

    def returned(self, session: Any, *answer: Any) -> None:
        self.events.append(("returned", *answer))

    def redirected(self, session: Any, *answer: Any) -> None:
        self.events.append(("redirected", *answer))


def test_answers_with_and_without_a_word_are_told_apart() -> None:
    driver = Driver()
    client: Any = SimpleNamespace(
        driver=driver,
        sessions=[SimpleNamespace()],
        clock=SimpleNamespace(now_ns=lambda: 77),
        connected=lambda connection: None,
        tick=lambda: None,
    )
    node = Node()
    own, transport = connect(node, own=True)
    handle, word = (own, 1 << SESSION_BITS | 1, 4), (6, 2_500_000)
    for context in (b"", b"past"):
        own.answer(handle, Reply(handle, OK, b"v", 8, context=context), word)
        own.answer(handle, Reply(handle, OK, None, 8, context=context))
    own.answer(handle, Reply(handle, OK, [(b"k", b"v")], 8), word)
    own.redirect(handle, Redirect(handle, Op(1, 1, READ, b"k"), 2), word)
    own.redirect(handle, Redirect(handle, Op(1, 1, READ, b"k"), -1))
    own.write(_wire.encode_load_response(word))
    own.write(_wire.encode_response(1 << SESSION_BITS | 1, 4, OK, 8, b"v"))
    node.flush()
    for step in (1, 7, len(transport.data)):
        driver.events.clear()
        connection = ToldConnection(client, 5, 0, None)
        connection.connection_made(None)  # type: ignore[arg-type]
        for at in range(0, len(transport.data), step):
            connection.data_received(transport.data[at : at + step])
        listed = _wire._encode([(b"k", b"v")])
        assert driver.events == [
            ("returned", 4, OK, b"v", 8, 77, b"", word, 5),
            ("returned", 4, OK, None, 8, 77, b"", None, 5),
            ("returned", 4, OK, b"v", 8, 77, b"past", word, 5),
            ("returned", 4, OK, None, 8, 77, b"past", None, 5),
            ("returned", 4, OK, listed, 8, 77, b"", word, 5),
            ("redirected", 4, 2, 77, word, 5),
            ("redirected", 4, -1, 77, None, 5),
            ("hear", 5, *word, 77),
            ("returned", 4, OK, b"v", 8, 77, b"", None, 5),
        ]


# --- real sockets -----------------------------------------------------------------------


@asynccontextmanager
async def _served(folder: Path, made: Parts) -> AsyncIterator[ClientProcess]:
    """A client that has loaded the nodes until the end, all in one process."""
    loop, known = asyncio.get_running_loop(), Credentials.fresh(plain_clients=False)
    nodes, addresses = [], []
    for number in range(made.system.nodes):
        spec = NodeSpec(made, number, "127.0.0.1", str(folder), 0, known)
        nodes.append(NodeProcess(spec, loop))
        addresses.append(await nodes[-1].listen())
    peers = [("127.0.0.1", ports["peer_port"]) for ports in addresses]
    origin_ns = time.monotonic_ns()
    for node in nodes:
        node.connect(peers)
        node.start(origin_ns)
    client = ClientProcess(ClientSpec(made, 0, "127.0.0.1", origin_ns, known), loop)
    await client.connect([("127.0.0.1", ports["client_port"]) for ports in addresses])
    done = asyncio.Event()
    client.start(time.monotonic_ns())
    client.when_finished(done.set)
    try:
        async with asyncio.timeout(30):
            await done.wait()
        yield client
    finally:
        client.close()
        for node in nodes:
            node.close()


@pytest.mark.parametrize("balancer", TELLING)
def test_words_reach_a_balancer_over_sockets(balancer: str, tmp_path: Path, heard: Heard) -> None:
    made = parts(
        balancer,
        "arrival.sessions=8",
        "system.network.delay=2ms",
        "duration=300ms",
        "client.health={failures: 1}",
    )

    async def load() -> tuple[int, ClientReport]:
        async with _served(tmp_path, made) as client:
            health = client.driver.router.health
            assert health is not None
            health.failed(1, client.clock.now_ns())
            return client.driver.done, client.record()

    done, report = uvloop.run(load())
    # What it has left out goes home with what it has seen.
    assert [(event.node, event.kind) for event in report.events] == [(1, EJECTED)]
    assert done > 50
    assert {node for node, *_ in heard} == {0, 1}
    if balancer == "join_shortest_queue":
        assert len(heard) >= done
    # Eight sessions, each with one operation: on two nodes, in flight or under way.
    assert 1 <= max(in_flight for _, in_flight, _, _ in heard) <= 8
    # Each takes the CPU for 1 ms, behind others.
    assert max(latency_ns for *_, latency_ns, _ in heard) > 1 * NS_PER_MS


# --- virtual time -----------------------------------------------------------------------


def test_one_client_without_delay_hears_the_true_queues(heard: Heard) -> None:
    changes = ("arrival.sessions=1", "duration=20ms", "system.balancer.probe_after=null")
    record = simulated.run(parts("join_shortest_queue", *changes))
    assert len(record.history) == 20
    # The node that answered is idle then; each operation took 1 ms alone.
    assert [word[1:3] for word in heard] == [(0, NS_PER_MS)] * 20


def test_a_word_takes_the_way_of_answers_and_probes_both_ways(heard: Heard) -> None:
    changes = ("system.network.delay=3ms", "arrival.sessions=1", "duration=100ms")
    record = simulated.run(parts("prequal", *changes))
    begun = {int(when) for when in record.history.invoked_ns}
    # A probe leaves with an operation and is back two ways later, before it.
    assert {when - 6 * NS_PER_MS for *_, when in heard} == begun
    # They leave before it, and find nobody.
    assert {in_flight for _, in_flight, _, _ in heard} == {0}


def test_probes_do_not_queue_behind_operations(heard: Heard) -> None:
    changes = ("arrival.sessions=40", "system.network.delay=100us", "duration=300ms")
    record = simulated.run(parts("prequal", *changes))
    latency_ns = record.history.returned_ns - record.history.invoked_ns
    assert latency_ns.mean() > 15 * NS_PER_MS
    waiting = [in_flight for _, in_flight, _, when in heard if when > 50 * NS_PER_MS]
    assert sum(waiting) / len(waiting) == pytest.approx(20, rel=0.2)
    begun = {int(when) for when in record.history.invoked_ns}
    assert {when - 200_000 for *_, when in heard} <= begun


@pytest.mark.parametrize("name", ["pause", "crash"])
def test_paused_and_dead_nodes_do_not_answer(name: str, heard: Heard) -> None:
    lasts = "lasts" if name == "pause" else "restart_after"
    fault = f"faults=[{{name: {name}, target: 1, at: 50ms, {lasts}: 100ms}}]"
    changes = ["client.timeout=20ms", "duration=300ms", fault]
    system = {"node": {"cpu": {"read": "1ms"}, "storage": {"durability": "fsync"}}}
    simulated.run(parts("join_shortest_queue", *changes, **system))
    while_gone = {n for n, *_, when in heard if 51 * NS_PER_MS < when < 149 * NS_PER_MS}
    assert while_gone == {0}
    assert {n for n, *_, when in heard if when > 160 * NS_PER_MS} == {0, 1}
