"""Nodes that clients leave out for a while: when, for how long, and how they come back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import pytest
from balanced_runs import SLOW, parts, shares

from orchestrator.analysis.summary import digest, summarise
from orchestrator.config.schema import Health
from orchestrator.core.load import (
    ABANDONED,
    LOST,
    OVERTAKEN,
    REDIRECTED,
    REFUSED,
    RETURNED,
    SENT,
)
from orchestrator.core.machine import READ, ClusterView, Op
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.record import EJECTED
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.errors import ConfigError
from orchestrator.run import Runner
from orchestrator.runtimes import simulated
from orchestrator.runtimes._health import NodeHealth
from orchestrator.runtimes._routing import Router
from orchestrator.runtimes._session import Session
from orchestrator.store.parquet import Store

NODES = (0, 1, 2, 3)


def health(nodes: int = 4, **params: Any) -> NodeHealth:
    return NodeHealth(Health(**params), nodes, 0, scalar_stream(1, "health"))


def fail(judge: NodeHealth, node: int, times: int, now_ns: int, what: int = LOST) -> None:
    for _ in range(times):
        judge.observe(node, SENT, 0, now_ns)
        judge.observe(node, what, 0, now_ns)


def answer(judge: NodeHealth, node: int, latency_ms: int, times: int, now_ns: int) -> None:
    for _ in range(times):
        judge.observe(node, RETURNED, latency_ms * NS_PER_MS, now_ns)


# --- failures ---------------------------------------------------------------------------


@pytest.mark.parametrize("what", [LOST, REFUSED])
def test_failures_in_a_row_eject_for_the_base_time(what: int) -> None:
    judge = health(failures=3, ejection=NS_PER_S)
    fail(judge, 2, 2, 0, what)
    answer(judge, 2, 1, 1, 0)
    fail(judge, 2, 2, 5, what)
    assert judge.fit(NODES, 5) is NODES
    fail(judge, 2, 1, 7, what)
    assert list(judge.fit(NODES, 7)) == [0, 1, 3]
    assert list(judge.fit((2, 3), NS_PER_S + 6)) == [3]
    assert judge.fit(NODES, NS_PER_S + 7) is NODES
    (event,) = judge.events
    assert (event.at_ns, event.node, event.kind) == (7, 2, EJECTED)
    assert event.detail == "by client 0 for 1s: 3 failures in a row"


@pytest.mark.parametrize("what", [REDIRECTED, ABANDONED, OVERTAKEN])
def test_what_says_nothing_of_the_node_is_no_failure(what: int) -> None:
    judge = health(failures=1)
    fail(judge, 0, 100, 0, what)
    assert judge.fit(NODES, 0) is NODES
    # Nor does it interrupt a row of failures.
    row = health(failures=2)
    fail(row, 0, 1, 0)
    fail(row, 0, 1, 0, what)
    fail(row, 0, 1, 0)
    assert 0 not in row.fit(NODES, 0)


def test_each_ejection_is_longer_and_windows_that_it_stands_shorten_the_next() -> None:
    judge = health(failures=1, ejection=NS_PER_S, ejection_max=3 * NS_PER_S, window=NS_PER_S)
    now_ns, lengths = 0, []
    for _ in range(4):
        fail(judge, 0, 1, now_ns)
        began_ns = now_ns
        while 0 not in judge.fit(NODES, now_ns):
            now_ns += NS_PER_S // 100
        lengths.append((now_ns - began_ns) / NS_PER_S)
    assert lengths == pytest.approx([1, 2, 3, 3], abs=0.02)
    # It is well for three windows, the first of which it was still out in.
    judge.fit(NODES, now_ns + 4 * NS_PER_S)
    fail(judge, 0, 1, now_ns + 4 * NS_PER_S)
    assert judge.events[-1].detail.startswith("by client 0 for 1s")


def test_what_comes_in_while_a_node_is_out_is_not_held_against_it() -> None:
    judge = health(failures=2, ejection=NS_PER_S)
    fail(judge, 0, 50, 0)
    assert len(judge.events) == 1
    # They were sent before it came back.
    for _ in range(50):
        judge.observe(0, LOST, NS_PER_S, 3 * NS_PER_S // 2)
    fail(judge, 0, 1, 2 * NS_PER_S)
    assert 0 in judge.fit(NODES, 2 * NS_PER_S)
    fail(judge, 0, 1, 2 * NS_PER_S)
    assert 0 not in judge.fit(NODES, 2 * NS_PER_S)


@pytest.mark.parametrize(("max_share", "most"), [(0.5, 2), (0.49, 1), (1.0, 4), (0.25, 1)])
def test_never_are_more_than_the_share_out(max_share: float, most: int) -> None:
    judge = health(failures=1, max_share=max_share)
    for node in NODES:
        fail(judge, node, 3, 0)
    assert len(judge.events) == most
    left = [node for node in NODES if node >= most]
    # Where all candidates are out, all are asked.
    assert list(judge.fit(NODES, 1)) == (left or list(NODES))
    assert list(judge.fit((0,), 1)) == [0]


def test_a_decimal_share_is_the_fraction_that_it_is_meant_to_be() -> None:
    # In binary .29 * 100 lies just below 29, and .57 * 100 below 57.
    for percent in range(1, 101):
        assert Health(max_share=percent / 100).most_out(100) == percent
    assert Health(max_share=0.5).most_out(3) == 1


# --- latency ----------------------------------------------------------------------------


def test_a_latency_far_above_the_median_of_the_others_ejects() -> None:
    judge = health(latency_factor=4.0, window=NS_PER_S)
    for node, latency_ms in enumerate((10, 12, 14, 49)):
        answer(judge, node, latency_ms, 20, NS_PER_S // 2)
    assert judge.fit(NODES, NS_PER_S - 1) is NODES
    # 49 is above four times 12, the median of the others.
    assert list(judge.fit(NODES, NS_PER_S)) == [0, 1, 2]
    assert judge.events[0].detail == "by client 0 for 1s: 4.1 times the latency of the others"
    just = health(latency_factor=4.0, window=NS_PER_S)
    for node, latency_ms in enumerate((10, 12, 14, 48)):
        answer(just, node, latency_ms, 20, NS_PER_S // 2)
    assert just.fit(NODES, NS_PER_S) is NODES


def test_only_who_served_enough_in_the_window_is_judged_and_the_slowest_goes_first() -> None:
    judge = health(latency_factor=2.0, window=NS_PER_S, operations=10, max_share=0.25)
    for node, (latency_ms, times) in enumerate(((5, 10), (50, 10), (70, 10), (900, 9))):
        answer(judge, node, latency_ms, times, 1)
    # Node 2: 70 against (5 + 50) / 2. Node 1 would be, too, and one at a time may.
    assert list(judge.fit(NODES, NS_PER_S)) == [0, 1, 3]
    alone = health(latency_factor=2.0, window=NS_PER_S)
    answer(alone, 0, 900, 50, 1)
    assert alone.fit(NODES, NS_PER_S) is NODES


def test_each_window_begins_anew() -> None:
    judge = health(latency_factor=2.0, window=NS_PER_S, operations=10)
    for node in NODES:
        answer(judge, node, 5 + 20 * (node == 1), 9, 1)
    judge.fit(NODES, NS_PER_S)
    for node in NODES:
        answer(judge, node, 5 + 20 * (node == 1), 9, NS_PER_S + 1)
    assert judge.fit(NODES, 2 * NS_PER_S) is NODES
    # Time in which nobody asked for anything is passed over at once.
    for node in NODES:
        answer(judge, node, 5 + 20 * (node == 1), 10, 1000 * NS_PER_S + 1)
    assert list(judge.fit(NODES, 1000 * NS_PER_S + 2)) == [0, 2, 3]


# --- slow start -------------------------------------------------------------------------


def test_the_share_of_who_comes_back_grows_linearly() -> None:
    judge = health(failures=1, ejection=NS_PER_S, slow_start=2 * NS_PER_S)
    fail(judge, 1, 1, 0)
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        now_ns = NS_PER_S + round(part * 2 * NS_PER_S)
        admitted = sum(1 in judge.fit(NODES, now_ns) for _ in range(4000))
        assert admitted / 4000 == pytest.approx(part, abs=0.03)
        assert all({0, 2, 3} <= set(judge.fit(NODES, now_ns)) for _ in range(50))
    # Nobody else may: then it is asked.
    assert list(judge.fit((1,), NS_PER_S)) == [1]


def test_draws_follow_the_stream() -> None:
    found = []
    for _ in range(2):
        judge = health(failures=1, slow_start=NS_PER_S)
        fail(judge, 1, 1, 0)
        found.append([1 in judge.fit(NODES, 3 * NS_PER_S // 2) for _ in range(100)])
    assert found[0] == found[1]
    assert len(set(found[0])) == 2


# --- among the rules of routing ---------------------------------------------------------


class First:
    """Takes the first candidate; notes what it hears."""

    probing = reports = False

    def __init__(self) -> None:
        self.noted: list[int] = []

    def pick(self, key: bytes, candidates: Any, now_ns: int) -> int:
        return int(candidates[0])

    def observe(self, node: int, what: int, latency_ns: int, now_ns: int) -> None:
        self.noted.append(what)


def view_of(group: int) -> ClusterView:
    return ClusterView(NODES)


def router(judge: NodeHealth | None, *, sticky: bool = False, distances_ns: Any = ()) -> Router:
    def candidates(op: Op, view: ClusterView) -> Any:
        return NODES

    balancer: Any = First()
    return Router(
        balancer, candidates, view_of, distances_ns, sticky, ask=lambda node: None, health=judge
    )


def test_an_ejected_node_is_passed_over_and_both_learn_how_operations_end() -> None:
    made = router(health(failures=1))
    session = Session(0, 1, 1)
    assert made.pick(session, 0) == 0
    made.observe(0, SENT, 0, 0)
    made.observe(0, LOST, 5, 0)
    assert made.balancer.noted == [SENT, LOST]  # type: ignore[attr-defined]
    assert made.pick(session, 0) == 1
    made.unreached(session, 1, 0)
    assert made.pick(session, 0) == 2
    assert [event.node for event in made.events] == [0, 1]


def test_a_sticky_session_keeps_its_node_and_the_nearest_well_one_is_asked() -> None:
    made = router(health(failures=1), sticky=True)
    settled, fresh = Session(0, 1, 1), Session(0, 2, 1)
    assert made.pick(settled, 0) == 0
    made.observe(0, LOST, 5, 0)
    assert made.pick(settled, 0) == 0
    assert made.pick(fresh, 0) == 1
    # It stays there when the other is back.
    assert made.pick(fresh, 100 * NS_PER_S) == 1
    near = router(health(failures=1), distances_ns=(5, 5, 1, 9))
    assert near.pick(fresh, 0) == 2
    near.observe(2, LOST, 5, 0)
    assert near.pick(fresh, 0) == 0


def test_a_hedge_does_not_settle_a_sticky_session_elsewhere() -> None:
    for judge in (None, health(failures=1), health(4, failures=1, max_share=1.0)):
        made = router(judge, sticky=True)
        session = Session(0, 1, 1)
        session.target = made.pick(session, 0)
        if judge is not None:
            # All others but one are out, so that a single one is left for the hedge.
            for node in (2, 3):
                fail(judge, node, 1, 0)
        assert session.target == 0
        assert made.pick(session, 0, another=True) == 1
        assert session.sticky == 0


def test_without_health_nothing_stands_between() -> None:
    balancer: Any = First()
    made = Router(balancer, lambda op, view: NODES, view_of, (), False, ask=lambda node: None)
    assert made.events == ()
    made.observe(1, LOST, 0, 0)
    made.unreached(Session(0, 1, 1), 0, 0)
    assert balancer.noted == [LOST]
    assert made.pick(Session(0, 1, 1), 0) == 0
    assert Op(0, 0, READ, b"").key == b""


# --- whole runs -------------------------------------------------------------------------

HEALTH = (
    "client.health={latency_factor: 5, window: 200ms, operations: 5, ejection: 400ms,"
    " slow_start: 200ms}"
)


def test_a_slow_node_is_left_out_and_comes_back_when_it_is_well() -> None:
    changes = (
        "faults=[{name: slow, target: 3, factor: 8, at: 500ms, lasts: 1s}]",
        "duration=3s",
    )
    made = parts({"name": "round_robin"}, HEALTH, *changes)
    record = simulated.run(made)
    ejections = [event for event in record.events if event.kind == EJECTED]
    assert {event.node for event in ejections} == {3}
    assert all("times the latency of the others" in event.detail for event in ejections)
    times_ns = [event.at_ns for event in record.events]
    assert times_ns == sorted(times_ns)
    history = record.history

    def share(from_s: float, until_s: float) -> float:
        chosen = (history.invoked_ns >= from_s * 1e9) & (history.invoked_ns < until_s * 1e9)
        return float((history.node[chosen] == 3).mean())

    assert share(0.0, 0.5) == pytest.approx(0.1, abs=0.01)
    assert share(0.8, 1.5) < 0.04
    assert share(3.0, 3.5) == pytest.approx(0.1, abs=0.01)
    again = simulated.run(made)
    assert digest(again) == digest(record)
    assert again.events == record.events
    found = summarise(record, made.config, None, run_id="r", config_hash="h", results="")
    assert found["balance"]["ejections"] == len(ejections)
    blind = parts({"name": "round_robin"}, "duration=300ms").config
    told = summarise(record, blind, None, run_id="r", config_hash="h", results="")
    assert told["balance"]["ejections"] is None


def test_ejections_are_stored_with_the_run(tmp_path: Path) -> None:
    crash = "faults=[{name: crash, target: 2, at: 500ms, restart_after: null}]"
    config = parts({"name": "random"}, "client.health={failures: 1}", crash, nodes=4).config
    with Runner(tmp_path) as runner:
        done = runner.run(config)
    events = Store(tmp_path).table("events", done.run_id).to_pylist()
    stored = [event for event in events if event["kind"] == EJECTED]
    assert stored and {event["node"] for event in stored} == {2}
    row = Store(tmp_path).run(done.run_id)
    assert row is not None
    assert row["balance_ejections"] == len(stored) == done.summary["balance"]["ejections"]


def test_a_dead_node_is_left_out_by_failures_in_a_row() -> None:
    changes = (
        "faults=[{name: lose_machine, target: 3, at: 600ms}]",
        "client.timeout=50ms",
        "client.shun_silent=false",
    )
    blind = simulated.run(parts({"name": "round_robin"}, *changes))
    record = simulated.run(parts({"name": "round_robin"}, "client.health={}", *changes))
    lost, lost_blindly = (int((each.history.returned_ns < 0).sum()) for each in (record, blind))
    assert lost < 0.3 * lost_blindly
    assert Counter(event.node for event in record.events if event.kind == EJECTED)[3] >= 1
    assert numpy.isfinite(shares(record)).all()


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        (["client.health={failures: null}"], "client.health", "no node is ever ejected"),
        (["client.health={ejection: 2s, ejection_max: 1s}"], "ejection_max", "below the first"),
        (["client.health={max_share: 0.05}"], "max_share", "of 10 nodes a share of 0.05"),
        (["client.health={max_share: 0.05}"], "max_share", r"at least 0\.1"),
        (["client.health={max_share: 1.5}"], "max_share", "out of bounds"),
        (["client.health={failures: 0}"], "failures", "out of bounds"),
        (["client.health={latency_factor: 0.5}"], "latency_factor", "out of bounds"),
        (["client.health={windows: 1s}"], "windows", "unknown key"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: list[str], path: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        parts({"name": "random"}, *changes)
    assert refused.value.path is not None
    assert refused.value.path.endswith(path)


def test_the_least_share_that_is_named_is_enough() -> None:
    with pytest.raises(ConfigError, match=r"at least 0\.334;"):
        parts({"name": "random"}, "client.health={max_share: 0.33}", nodes=3)
    parts({"name": "random"}, "client.health={max_share: 0.334}", nodes=3)


def test_it_is_off_unless_asked_for() -> None:
    assert parts({"name": "random"}).config.client.health is None
    assert parts({"name": "random"}, "client.health={}").config.client.health == Health()
    assert not simulated.run(parts({"name": "random"}, *SLOW, "duration=300ms")).events
