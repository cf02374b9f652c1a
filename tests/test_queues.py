"""Queues of operations at a node: conformance of every registered one, what each is for, and the
laws of queues with an end.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.load import load_mapping
from orchestrator.core.history import PHASE_FINAL
from orchestrator.core.machine import FAIL, OK, READ, WRITE, Op
from orchestrator.core.record import RunRecord
from orchestrator.core.registry import Family, plugin, plugins
from orchestrator.core.token_bucket import TokenBucket
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.core.waiting import Queue
from orchestrator.errors import ConfigError
from orchestrator.runtimes import simulated
from orchestrator.runtimes._parts import Parts

QUEUES = list(plugins(Family.QUEUE))
rarely = partial(pytest.param, marks=pytest.mark.long)
READING = Op(1, 1, READ, b"k")
WRITING = Op(1, 1, WRITE, b"k", b"v")


def make(name: str, **params: Any) -> Queue:
    chosen = plugin(Family.QUEUE, name)
    queue: Queue = chosen.implementation(chosen.params(**params))
    return queue


def drained(queue: Queue, now_ns: int) -> tuple[list[Any], list[Any]]:
    """(those served, those turned away) when all are taken at once."""
    served: list[Any] = []
    dropped: list[Any] = []
    while len(queue):
        job, late = queue.take(now_ns)
        dropped += late
        if job is not None:
            served.append(job)
    return served, dropped


# --- every queue ------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUEUES)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 30 * NS_PER_MS))))
def test_every_job_is_served_or_turned_away_once(
    name: str, steps: list[tuple[bool, bool, int]]
) -> None:
    queue = make(name, limit=5)
    now_ns = jobs = 0
    seen: list[Any] = []
    for putting, reading, pause_ns in steps:
        now_ns += pause_ns
        if putting:
            seen += queue.put(jobs, READING if reading else WRITING, now_ns)
            jobs += 1
        else:
            job, dropped = queue.take(now_ns)
            seen += [*dropped, *([] if job is None else [job])]
        assert len(queue) <= 5
        assert len(queue) + len(seen) == jobs
    served, dropped = drained(queue, now_ns)
    assert sorted([*seen, *served, *dropped]) == list(range(jobs))
    job, dropped = queue.take(now_ns)
    assert job is None
    assert not dropped


@pytest.mark.parametrize("name", QUEUES)
@given(st.lists(st.booleans(), max_size=12), st.data())
def test_who_leaves_the_queue_is_neither_served_nor_turned_away(
    name: str, reading: list[bool], data: st.DataObject
) -> None:
    queue = make(name, limit=None)
    jobs = [(number,) for number in range(len(reading))]
    for job, reads in zip(jobs, reading, strict=True):
        queue.put(job, READING if reads else WRITING, 0)
    leaving = data.draw(st.lists(st.sampled_from(jobs), unique=True)) if jobs else []
    for job in leaving:
        queue.remove(job)
        # Jobs are told apart by identity.
        queue.remove((len(reading),))
    assert len(queue) == len(jobs) - len(leaving)
    alone = make(name, limit=None)
    for job, reads in zip(jobs, reading, strict=True):
        if job not in leaving:
            alone.put(job, READING if reads else WRITING, 0)
    assert drained(queue, 1) == drained(alone, 1)


@pytest.mark.parametrize("name", QUEUES)
def test_without_a_limit_nobody_finds_it_full(name: str) -> None:
    queue = make(name, limit=None)
    assert not any(queue.put(job, READING, 0) for job in range(5000))
    assert len(queue) == 5000


@pytest.mark.parametrize("name", QUEUES)
def test_few_that_have_just_come_are_all_served(name: str) -> None:
    queue = make(name)
    for job in range(3):
        assert not queue.put(job, READING, 0)
    served, dropped = drained(queue, NS_PER_MS)
    assert (sorted(served), dropped) == ([0, 1, 2], [])


# --- each of them -----------------------------------------------------------------------


def test_order_of_service() -> None:
    for name, order in (("fifo", [0, 1, 2, 3]), ("lifo", [3, 2, 1, 0])):
        queue = make(name)
        for job in range(4):
            queue.put(job, READING, job)
        assert drained(queue, 5)[0] == order
    adaptive = make("adaptive_lifo", short=2)
    for job in range(4):
        adaptive.put(job, READING, job)
    assert drained(adaptive, 5)[0] == [3, 2, 0, 1]


def test_who_is_turned_away_from_a_full_queue() -> None:
    for name, turned_away in (("fifo", 2), ("codel", 2), ("lifo", 0), ("adaptive_lifo", 0)):
        queue = make(name, limit=2)
        assert not queue.put(0, READING, 0)
        assert not queue.put(1, READING, 0)
        assert queue.put(2, READING, 0) == (turned_away,)


def test_the_least_important_is_shed() -> None:
    queue = make("priority", limit=3, order=("read", "write"))
    scan = Op(1, 1, 2, b"k")
    assert not queue.put("w1", WRITING, 0)
    assert not queue.put("s1", scan, 0)
    assert not queue.put("s2", scan, 0)
    assert queue.put("r1", READING, 0) == ("s2",)
    assert queue.put("s3", scan, 0) == ("s3",)
    assert queue.put("w2", WRITING, 0) == ("s1",)
    assert queue.put("r2", READING, 0) == ("w2",)
    assert drained(queue, 0) == (["r1", "r2", "w1"], [])


def test_tenants_come_before_kinds() -> None:
    queue = make("priority", limit=4, order=("read",), tenants=("gold", "silver"))

    def op(tenant: str, kind: int) -> Op:
        return Op(1, 1, kind, f"{tenant}/k".encode())

    assert not queue.put("free read", op("free", READ), 0)
    assert not queue.put("silver write", op("silver", WRITE), 0)
    assert not queue.put("silver read", op("silver", READ), 0)
    assert not queue.put("gold write", op("gold", WRITE), 0)
    # A name that only begins like a tenant's is another's, and so is a key without a slash.
    assert queue.put("golden read", op("golden", READ), 0) == ("golden read",)
    assert queue.put("no tenant", Op(1, 1, READ, b"gold"), 0) == ("no tenant",)
    assert queue.put("gold read", op("gold", READ), 0) == ("free read",)
    assert queue.put("gold again", op("gold", READ), 0) == ("silver write",)
    assert drained(queue, 0)[0] == ["gold read", "gold again", "gold write", "silver read"]


def test_controlled_delay_lets_a_burst_pass_and_sheds_a_standing_queue() -> None:
    burst = make("controlled_delay")
    for job in range(10):
        burst.put(job, READING, 0)
    # Nobody has waited for longer than the interval, and the queue was empty just now.
    assert drained(burst, 90 * NS_PER_MS)[0] == list(range(10))
    standing = make("controlled_delay", newest_first=True)
    for job in range(200):
        standing.put(job, READING, job * NS_PER_MS)
        if job % 2:
            standing.take(job * NS_PER_MS)
    served, dropped = drained(standing, 200 * NS_PER_MS)
    assert served == [198, 196]
    assert dropped


def test_codel_drops_more_and_more_often() -> None:
    """RFC 8289, section 5.5: the n-th drop follows the one before after interval / sqrt(n)."""
    queue = make("codel", limit=None)
    drops_ms = []
    arrived = 0
    for now_ms in range(1500):
        # Twice as many come as are served, so the wait only grows.
        for _ in range(2):
            queue.put(arrived, READING, now_ms * NS_PER_MS)
            arrived += 1
        _, dropped = queue.take(now_ms * NS_PER_MS)
        drops_ms += [now_ms] * len(dropped)
    pauses = numpy.diff(drops_ms)
    assert 100 <= drops_ms[0] <= 120
    assert pauses[0] == pytest.approx(100, abs=2)
    assert pauses[1] == pytest.approx(100 / 2**0.5, abs=2)
    assert pauses[2] == pytest.approx(100 / 3**0.5, abs=2)
    assert (numpy.diff(pauses) <= 1).all()


# --- rates ------------------------------------------------------------------------------


@given(st.integers(1, 20), st.lists(st.integers(0, NS_PER_S), min_size=1, max_size=60))
def test_a_bucket_never_gives_more_than_its_burst_and_rate(burst: int, pauses: list[int]) -> None:
    bucket, now_ns, taken = TokenBucket(10, burst), 0, []
    for pause_ns in pauses:
        now_ns += pause_ns
        wait_ns = bucket.take(now_ns)
        if wait_ns:
            # What it says is true to the nanosecond.
            assert bucket.take(now_ns + wait_ns - 1)
            continue
        taken.append(now_ns)
    for at, first_ns in enumerate(taken):
        for count, last_ns in enumerate(taken[at:], 1):
            assert count <= burst + (last_ns - first_ns) * 10 / NS_PER_S


def test_a_bucket_gives_its_rate() -> None:
    bucket = TokenBucket(1000, 5)
    given_out = sum(not bucket.take(at * NS_PER_MS // 4) for at in range(4000))
    assert given_out == 1000 + 4


# --- at a node --------------------------------------------------------------------------


def run(queue: dict[str, Any], load: float, arrivals: int = 100_000, **more: Any) -> RunRecord:
    """One node of one core, exponential service of 1 ms, an open load."""
    node = {"cpu": {"read": {"name": "exponential", "mean": "1ms"}}, "queue": queue}
    node["cpu"]["write"] = node["cpu"]["read"]
    rate = load * 1000
    seconds = arrivals / rate
    config = {
        "seed": 3,
        "runtime": "sim",
        "system": {"name": "replicated_store", "node": node | more.pop("node", {})},
        "workload": {"name": "ycsb", "mix": "c", "keys": 100},
        "arrival": {"name": "poisson", "rate": f"{rate}/s"},
        "client": {"timeout": "100s"},
        "warmup": "1s",
        "duration": f"{seconds}s",
    }
    return simulated.run(Parts.of(load_mapping(config | more)))


def refused_share(record: RunRecord) -> float:
    return float((record.history.outcome == FAIL).mean())


@pytest.mark.parametrize(
    ("load", "room", "loss"),
    [(0.9, 10, 0.050814), rarely(0.5, 5, 0.015873), rarely(1.2, 10, 0.192586)],
)
def test_m_m_1_k_loss(load: float, room: int, loss: float) -> None:
    """Kleinrock, Queueing Systems: K - 1 may wait besides the one that is served."""
    record = run({"name": "fifo", "limit": room - 1}, load, 300_000)
    assert refused_share(record) == pytest.approx(loss, rel=0.03)
    assert record.nodes[0].refused.sum() == (record.history.outcome == FAIL).sum()


def test_an_endless_queue_is_the_plain_node() -> None:
    plain = run(None, 0.8, 20_000).history  # type: ignore[arg-type]
    queued = run({"name": "fifo", "limit": None}, 0.8, 20_000).history
    assert (plain.outcome == OK).all() and (queued.outcome == OK).all()
    assert numpy.array_equal(plain.returned_ns, queued.returned_ns)


def test_several_cores_serve_as_one_station() -> None:
    node = {"cores": 3}
    plain = run(None, 2.0, 20_000, node=node).history  # type: ignore[arg-type]
    queued = run({"name": "fifo", "limit": None}, 2.0, 20_000, node=node).history
    assert numpy.array_equal(plain.returned_ns, queued.returned_ns)


def test_under_overload_shedding_keeps_operations_useful() -> None:
    """A third more than can be served: what is served at all is served in time."""
    good = {}
    for name in ("fifo", "lifo", "controlled_delay"):
        history = run({"name": name, "limit": 5000}, 1.33, 20_000).history
        in_time = history.returned_ns - history.intended_ns <= 50 * NS_PER_MS
        good[name] = float((in_time & (history.outcome == OK)).mean())
    assert good["fifo"] < 0.1
    assert good["lifo"] > 0.5
    assert good["controlled_delay"] > 0.6


@pytest.mark.parametrize(
    "node", [{}, {"cpu": {"read": "0s", "write": "0s"}}], ids=["turned away", "for nothing"]
)
def test_a_load_under_which_time_would_stand_still_is_refused(node: dict[str, Any]) -> None:
    """Sessions that go on at once, at a node that answers at once."""
    closed = {"name": "closed", "sessions": 4}
    with pytest.raises(ConfigError, match="time stands still") as caught:
        run({"name": "fifo", "limit": 1}, 1.0, node=node, arrival=closed)
    assert caught.value.path == "arrival.think_time"


def test_a_rate_limit_holds() -> None:
    limit = {"rate_limit": {"rate": "300/s", "burst": 10}}
    history = run({"name": "fifo"}, 0.9, 9000, node=limit).history
    served = (history.outcome == OK).sum()
    seconds = history.invoked_ns.max() / NS_PER_S
    assert served == pytest.approx(300 * seconds, rel=0.02)


def test_replication_is_not_shed() -> None:
    """Reads beyond what the nodes can serve are turned away, and every write gets through."""
    system = {
        "name": "replicated_store",
        "protocol": {"name": "raft"},
        "replicas": 3,
        "node": {
            "cpu": {"read": "1ms", "write": "100us", "message": "20us"},
            "queue": {"name": "priority", "order": ["write"], "limit": 20},
        },
    }
    record = run({}, 1.5, 6000, system=system, workload={"name": "ycsb", "mix": "b", "keys": 100})
    history = record.history
    assert refused_share(record) > 0.1
    assert (history.outcome[history.kind == WRITE] == OK).all()
    assert len({node.contents_digest for node in record.nodes}) == 1


@pytest.mark.parametrize(
    ("node", "path"),
    [
        ({"costs": "measured", "queue": {"name": "fifo"}}, "system.node.queue"),
        ({"rate_limit": {"rate": "10/s"}}, "system.node.rate_limit.rate"),
        ({"queue": {"name": "fifo"}, "rate_limit": {"rate": "0/s"}}, "system.node.rate_limit.rate"),
        ({"back_pressure": True}, "system.node.back_pressure"),
        ({"queue": {"name": "fifo", "limit": 0}}, "system.node.queue.limit"),
        ({"queue": {"name": "fifo", "size": 1}}, "system.node.queue.size"),
        ({"queue": {"name": "fifi"}}, "system.node.queue"),
        ({"queue": {"name": "codel", "target": "1s"}}, "system.node.queue.target"),
        ({"queue": {"name": "priority", "order": ["red"]}}, "system.node.queue.order"),
        ({"queue": {"name": "priority", "order": ["read", "read"]}}, "system.node.queue.order"),
        ({"queue": {"name": "priority", "tenants": ["a", "a"]}}, "system.node.queue.tenants"),
    ],
)
def test_bad_input(node: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_mapping({"system": {"name": "replicated_store", "node": node}})
    assert caught.value.path is not None
    assert caught.value.path.startswith(path)


# --- a CPU that is slowed down ----------------------------------------------------------


def slowed(factor: float, **node: Any) -> RunRecord:
    slow = {"name": "slow", "target": 0, "at": "3s", "lasts": "1s", "factor": factor}
    return run(None, 0.6, 9000, node=node, faults=[slow])  # type: ignore[arg-type]


def slow_storage(factor: float, parallel: int | None = 1) -> RunRecord:
    """As ``slowed``, but what takes 1 ms for each slot is the storage; half of all are writes."""
    law = {"name": "exponential", "mean": f"{parallel or 1}ms"}
    storage = {"read": law, "write": law, "parallel": parallel, "durability": "async"}
    node = {"cpu": {"read": "1us", "write": "1us"}, "storage": storage}
    slow = {"name": "slow_storage", "target": 0, "at": "3s", "lasts": "1s", "adds": "0s"}
    workload = {"name": "ycsb", "mix": "a", "keys": 100}
    faults = [slow | {"factor": factor}] if factor else []
    return run(None, 0.6, 9000, node=node, faults=faults, workload=workload)  # type: ignore[arg-type]


@pytest.mark.parametrize("slow", [slowed, slow_storage])
def test_what_waited_while_a_part_was_slow_is_served_at_its_own_speed_again(slow: Any) -> None:
    """In the slow second 60 are served of 600; the 540 that wait are more work than the 400 a
    second that are to spare, so they are worked off in 1.35 s and not in 5.4 s times ten.
    """
    record = slow(10)
    history = record.history
    waited_ns = history.returned_ns - history.intended_ns
    late = history.intended_ns[waited_ns > 50 * NS_PER_MS]
    assert 3 * NS_PER_S < late.max() < 5.8 * NS_PER_S


@pytest.mark.parametrize("parallel", [1, 3, None])
def test_a_storage_that_is_slowed_by_one_is_the_plain_one(parallel: int | None) -> None:
    plain = slow_storage(0, parallel).history
    dispatched = slow_storage(1, parallel).history
    served = dispatched.select(dispatched.phase != PHASE_FINAL)
    assert numpy.array_equal(plain.returned_ns, served.returned_ns)


@pytest.mark.parametrize("cores", [1, 3])
def test_a_slowness_of_one_changes_nothing(cores: int) -> None:
    plain = run(None, 0.6, 9000, node={"cores": cores}).history  # type: ignore[arg-type]
    dispatched = slowed(1, cores=cores).history
    served = dispatched.select(dispatched.phase != PHASE_FINAL)
    assert numpy.array_equal(plain.returned_ns, served.returned_ns)
