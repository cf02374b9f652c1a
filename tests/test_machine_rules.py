"""The rules of core.machine, one by one: what a node's shell does for the machine inside."""

from __future__ import annotations

from typing import Any

import pytest
from shell_rig import MS, SYNC_NS, Rig, elsewhere, ok

from orchestrator.core.machine import (
    READ,
    SCAN,
    WRITE,
    Access,
    Became,
    CancelTimer,
    Effect,
    Persist,
    Persisted,
    Received,
    Requested,
    Send,
    SetTimer,
    Started,
    TimerFired,
)

FSYNC: Any = {"storage": {"durability": "fsync"}}


# --- persist barrier --------------------------------------------------------------------


def test_nothing_leaves_before_the_record_is_durable() -> None:
    effects = [Send(1, "early"), Persist("r", 7), Send(1, "late"), ok("a"), elsewhere("b")]
    rig = Rig({"a": effects}, **FSYNC)
    rig.ask("a")
    assert rig.run(9.9) == []
    assert rig.outlet.records == ["r"]
    assert rig.machine.times_ns(Persisted) == []
    assert rig.run(10) == [(10, "early"), (10, "late"), (10, "a"), (10, "b")]
    assert rig.machine.heard[-1] == (SYNC_NS, Persisted(7))


def test_an_overlapping_send_and_a_role_leave_at_once() -> None:
    effects = [Persist("r", 1), Send(1, "append", overlap=True), Became("leader"), Send(1, "no")]
    rig = Rig({"a": effects}, **FSYNC)
    rig.ask("a")
    assert rig.run(0) == [(0, "append"), (0, "leader")]
    assert rig.run(20)[2:] == [(10, "no")]


def test_later_handles_wait_too() -> None:
    rig = Rig({"a": [Persist("r", 1), ok("a")], "b": [ok("b"), Send(1, "m")]}, **FSYNC)
    rig.ask("a")
    rig.run(4)
    rig.ask("b")
    assert rig.run(20) == [(10, "a"), (10, "b"), (10, "m")]
    rig.ask("b")
    assert rig.run(20)[3:] == [(20, "b"), (20, "m")]


def test_what_was_said_before_the_persist_has_left() -> None:
    rig = Rig({"a": [ok("a")], "b": [Persist("r", 1), ok("b")]}, **FSYNC)
    rig.ask("a")
    rig.ask("b")
    assert rig.run(20) == [(0, "a"), (10, "b")]


def test_one_sync_commits_a_group() -> None:
    answers = {n: [Persist(f"r{n}", n), ok(n)] for n in range(1, 6)}
    rig = Rig(answers, **FSYNC)
    rig.ask(1)
    rig.run(1)
    for number in range(2, 6):
        rig.ask(number)
    # 2 to 5 came while the first sync was under way: the next one covers all of them.
    assert rig.run(50) == [(10, 1), (20, 2), (20, 3), (20, 4), (20, 5)]
    assert rig.outlet.syncs == 2
    heard = [event.token for _, event in rig.machine.heard if isinstance(event, Persisted)]
    assert heard == [1, 5]
    assert rig.outlet.records == ["r1", "r2", "r3", "r4", "r5"]


def test_a_sync_covers_only_what_was_written_before_it() -> None:
    storage = {"durability": "fsync", "write": "4ms", "parallel": 1}
    rig = Rig({n: [Persist(n, n), ok(n)] for n in (1, 2, 3)}, storage=storage)
    rig.ask(1, 2, 3)
    # Written at 4, 8, 12; the sync that starts at 4 covers the first, the next one the rest.
    assert rig.run(50) == [(14, 1), (24, 2), (24, 3)]
    assert rig.shell.storage_busy_ns == 12 * MS


def test_memory_makes_durable_at_once_but_after_the_effects() -> None:
    rig = Rig({"a": [Persist("r", 3), ok("a")]})
    rig.ask("a")
    assert rig.run(0) == [(0, "a")]
    assert rig.outlet.records == []
    assert rig.outlet.syncs == 0
    assert [event for _, event in rig.machine.heard][1:] == [Persisted(3)]


@pytest.mark.parametrize("durability", ["memory", "async"])
def test_a_write_costs_under_every_durability(durability: str) -> None:
    rig = Rig({"a": [Persist("r", 1), ok("a")]}, storage={"durability": durability, "write": "3ms"})
    rig.ask("a")
    assert rig.run(20) == [(3, "a")]
    assert rig.outlet.syncs == 0
    assert rig.outlet.records == ([] if durability == "memory" else ["r"])
    assert rig.shell.storage_busy_ns == 3 * MS


def test_records_are_written_in_order_whatever_the_storage_does_in_parallel() -> None:
    write = {"name": "exponential", "mean": "3ms"}
    answers = {n: [Persist(n, n), ok(n)] for n in range(1, 51)}
    rig = Rig(answers, storage={"write": write})
    rig.ask(*answers)
    assert [what for _, what in rig.run(1000)] == list(answers)


def test_a_crash_takes_what_is_behind_the_barrier() -> None:
    rig = Rig({n: [Persist(n, n), ok(n), SetTimer("t", MS)] for n in (1, 2)}, **FSYNC)
    rig.ask(1)
    rig.run(5)
    rig.ask(2)
    rig.run(12)
    assert rig.shell.durable_records == 1
    rig.shell.stopped = True
    heard = len(rig.machine.heard)
    assert rig.run(100) == [(10, 1)]
    assert len(rig.machine.heard) == heard


# --- access -----------------------------------------------------------------------------


def test_only_the_reply_of_the_token_waits_for_the_access() -> None:
    answers = {"a": [Access(5, b"k", 10, READ), ok("a", after=5)], "b": [ok("b"), Send(1, "m")]}
    rig = Rig(answers, storage={"read": "4ms"})
    rig.ask("a", "b")
    assert rig.run(20) == [(0, "b"), (0, "m"), (4, "a")]
    assert rig.shell.storage_busy_ns == 4 * MS


def test_a_reply_waits_for_every_access_of_its_token() -> None:
    reads = [Access(1, b"%d" % number, 10, READ) for number in range(3)]
    rig = Rig({"a": [*reads, ok("a", after=1)]}, storage={"read": "4ms", "parallel": 2})
    rig.ask("a")
    assert rig.run(20) == [(8, "a")]


def test_a_hit_costs_nothing_and_a_miss_brings_the_entry_in() -> None:
    answers = {name: [Access(name, b"k", 10, READ), ok(name, after=name)] for name in (1, 2, 3)}
    rig = Rig(answers, cache=1, storage={"read": "4ms"})
    for name in (1, 2):
        rig.ask(name)
        rig.run(10 * name)
    rig.cache.access(b"other", 10, 0)
    rig.ask(3)
    assert rig.run(50) == [(4, 1), (10, 2), (24, 3)]
    assert (rig.shell.cache_hits, rig.shell.cache_misses) == (1, 2)


def test_a_write_leaves_its_entry_cached_and_waits_for_nothing() -> None:
    answers = {
        "w": [Access(0, b"k", 10, WRITE), ok("w")],
        "r": [Access(1, b"k", 10, READ), ok("r", after=1)],
    }
    rig = Rig(answers, cache=1, storage={"read": "4ms"})
    rig.ask("w", "r")
    assert rig.run(20) == [(0, "w"), (0, "r")]
    assert (rig.shell.cache_hits, rig.shell.cache_misses) == (1, 0)


@pytest.mark.parametrize(("read_ms", "leaves_ms"), [(4, 10), (16, 16)])
def test_a_reply_waits_for_barrier_and_access(read_ms: int, leaves_ms: int) -> None:
    effects = [Persist("r", 1), Access(1, b"k", 10, READ), ok("a", after=1), ok("b")]
    rig = Rig({"a": effects}, storage={"durability": "fsync", "read": f"{read_ms}ms"})
    rig.ask("a")
    assert rig.run(50) == sorted([(10, "b"), (leaves_ms, "a")], key=lambda left: left[0])


def test_an_accessed_reply_waits_for_its_own_barrier_only() -> None:
    answers = {
        "a": [Persist("r1", 1), Access(1, b"k", 10, READ), ok("a", after=1)],
        "b": [Persist("r2", 2), ok("b")],
        "c": [Access(2, b"k", 10, READ), ok("c", after=2)],
    }
    # The answer of "a" is read at 8, behind that of "b" in the queue, and free to go at 10.
    rig = Rig(answers, storage={"durability": "fsync", "read": "8ms"})
    rig.ask("a")
    rig.run(1)
    rig.ask("b")
    rig.run(5)
    rig.ask("c")
    assert rig.run(50) == [(10, "a"), (20, "b"), (20, "c")]


# --- timers -----------------------------------------------------------------------------


def timers(*effects: tuple[float, Effect]) -> list[float]:
    """When timer "t" fires if these effects happen at these times (ms)."""
    rig = Rig({number: [effect] for number, (_, effect) in enumerate(effects)})
    for number, (at_ms, _) in enumerate(effects):
        rig.run(at_ms)
        rig.ask(number)
    rig.run(1000)
    return [when_ns / MS for when_ns in rig.machine.times_ns(TimerFired)]


@pytest.mark.parametrize(
    ("effects", "fires_ms"),
    [
        ([(0, SetTimer("t", 5 * MS))], [5]),
        ([(0, SetTimer("t", 5 * MS)), (3, SetTimer("t", 5 * MS))], [8]),
        ([(0, SetTimer("t", 50 * MS)), (3, SetTimer("t", 5 * MS))], [8]),
        ([(0, SetTimer("t", 5 * MS)), (6, SetTimer("t", 5 * MS))], [5, 11]),
        ([(0, SetTimer("t", 5 * MS)), (3, CancelTimer("t"))], []),
        ([(0, SetTimer("t", 5 * MS)), (3, CancelTimer("t")), (4, SetTimer("t", 5 * MS))], [9]),
        ([(0, SetTimer("t", 9 * MS)), (3, CancelTimer("t")), (4, SetTimer("t", MS))], [5]),
        ([(0, SetTimer("t", 0))], [0]),
        ([(0, CancelTimer("t")), (1, SetTimer("t", 0))], [1]),
        ([(0, SetTimer("t", 8 * MS)), (1, SetTimer("t", MS)), (4, SetTimer("t", 4 * MS))], [2, 8]),
    ],
)
def test_timers(effects: list[tuple[float, Effect]], fires_ms: list[float]) -> None:
    assert timers(*effects) == fires_ms


def test_timers_are_told_apart_by_name_and_may_be_set_while_they_fire() -> None:
    rig = Rig({"a": [SetTimer("x", 2 * MS), SetTimer("y", 3 * MS)], "x": [SetTimer("x", 2 * MS)]})
    rig.ask("a")
    rig.run(7)
    fired = [(2, "x"), (3, "y"), (4, "x"), (6, "x")]
    assert rig.machine.heard[1:] == [(at * MS, TimerFired(name)) for at, name in fired]


def test_timers_do_not_wait_for_the_barrier() -> None:
    rig = Rig({"a": [Persist("r", 1), SetTimer("t", MS)]}, **FSYNC)
    rig.ask("a")
    rig.run(20)
    assert rig.machine.times_ns(TimerFired) == [MS]


def test_a_machine_hears_its_records() -> None:
    rig = Rig()
    rig.shell.start(["r1", "r2"])
    assert rig.machine.heard == [(0, Started(["r1", "r2"]))]


# --- modelled cost ----------------------------------------------------------------------


def cpu(**costs: Any) -> Any:
    return {"cpu": {"read": "0s", "write": "0s", "message": "0s"} | costs}


def handled(rig: Rig) -> list[tuple[float, list[Any]]]:
    """When which operations were handled, one item an event (ms)."""
    return [
        (when_ns / MS, event.handles)
        for when_ns, event in rig.machine.heard
        if isinstance(event, Requested)
    ]


@pytest.mark.parametrize(
    ("cores", "done_ms"), [(1, [3, 6, 9, 12]), (2, [3, 3, 6, 6]), (3, [3, 3, 3, 6])]
)
def test_every_operation_is_one_job_and_one_event(cores: int, done_ms: list[int]) -> None:
    rig = Rig(cores=cores, **cpu(read="3ms"))
    rig.ask("a", "b", "c", "d")
    rig.run(100)
    assert handled(rig) == [(at, [name]) for at, name in zip(done_ms, "abcd", strict=True)]
    assert rig.shell.operations == 4
    assert rig.shell.cpu_busy_ns == 12 * MS


def test_costs_go_by_kind_and_a_scan_pays_per_record() -> None:
    rig = Rig(**cpu(read="3ms", write="5ms", message="7ms"))
    rig.ask("read")
    rig.ask("write", kind=WRITE)
    rig.ask("scan", kind=SCAN, count=4)
    rig.shell.received(2, "message")
    rig.run(100)
    assert handled(rig) == [(3, ["read"]), (8, ["write"]), (20, ["scan"])]
    assert rig.machine.heard[-1] == (27 * MS, Received(2, "message"))
    assert (rig.shell.operations, rig.shell.messages) == (3, 1)


def test_busy_time_counts_finished_service() -> None:
    rig = Rig(**cpu(read="3ms"))
    rig.ask("a", "b")
    rig.run(4)
    assert rig.shell.cpu_busy_ns == 3 * MS


def test_an_idle_core_serves_at_once() -> None:
    rig = Rig(**cpu(read="3ms"))
    rig.ask("a")
    rig.run(50)
    rig.ask("b")
    rig.run(100)
    assert handled(rig) == [(3, ["a"]), (53, ["b"])]


def test_messages_of_one_source_stay_in_order_on_many_cores() -> None:
    rig = Rig(cores=4, **cpu(message={"name": "exponential", "mean": "3ms"}))
    for number in range(300):
        rig.shell.received(number % 3, number)
    rig.run(10_000)
    order = [event.message for _, event in rig.machine.heard if isinstance(event, Received)]
    for source in range(3):
        own = [number for number in order if number % 3 == source]
        assert own == list(range(source, 300, 3))
    assert order != list(range(300)), "sources overtake each other"


def test_operations_of_clients_may_overtake_each_other() -> None:
    rig = Rig(cores=4, **cpu(read={"name": "exponential", "mean": "3ms"}))
    rig.ask(*range(100))
    rig.run(10_000)
    order = [handles[0] for _, handles in handled(rig)]
    assert sorted(order) == list(range(100))
    assert order != list(range(100))


# --- batches ----------------------------------------------------------------------------


def test_a_full_batch_is_handled_at_once() -> None:
    rig = Rig(batch={"max": 3, "linger": "50ms"}, **cpu(read="1ms"))
    rig.ask(*"abcdefg")
    rig.run(100)
    assert handled(rig) == [(3, ["a", "b", "c"]), (6, ["d", "e", "f"]), (57, ["g"])]


def test_a_batch_lingers_from_its_first_operation() -> None:
    rig = Rig(batch={"max": 10, "linger": "5ms"}, **cpu(read="2ms"))
    rig.ask(*"abc")
    rig.run(100)
    # Done at 2, 4, 6 and handled at 2 + 5.
    assert handled(rig) == [(7, ["a", "b", "c"])]
    rig.ask("d")
    rig.run(200)
    assert handled(rig)[1:] == [(107, ["d"])]


def test_the_alarm_of_a_full_batch_does_not_cut_the_next_short() -> None:
    rig = Rig(batch={"max": 2, "linger": "5ms"}, **cpu(read="1ms"))
    rig.ask(*"abc")
    rig.run(100)
    assert handled(rig) == [(2, ["a", "b"]), (8, ["c"])]


def test_without_linger_a_batch_holds_what_is_done_at_the_same_time() -> None:
    rig = Rig(batch={"max": 10}, cores=2, **cpu(read="1ms"))
    rig.ask(*"abc")
    rig.run(100)
    assert handled(rig) == [(1, ["a", "b"]), (2, ["c"])]


# --- measured cost ----------------------------------------------------------------------


def test_measured_costs_hand_on_what_arrived_together_and_charge_nothing() -> None:
    node = cpu(read="3ms", message="3ms") | {"storage": {"read": "4ms", "write": "4ms"}}
    answers = {"a": [Persist("r", 1), Access(1, b"k", 10, READ), ok("a", after=1)]}
    rig = Rig(answers, costs="measured", batch={"max": 2, "linger": "9ms"}, **node)
    rig.ask("a", "b", "c")
    rig.shell.received(1, "m")
    assert handled(rig) == [(0, ["a", "b", "c"])]
    assert rig.run(0) == [(0, "a")]
    assert rig.machine.heard[-1] == (0, Received(1, "m"))
    assert (rig.shell.operations, rig.shell.messages) == (3, 1)
    assert (rig.shell.cpu_busy_ns, rig.shell.storage_busy_ns) == (0, 0)


def test_measured_costs_still_sync() -> None:
    storage = {"durability": "fsync", "write": "4ms"}
    rig = Rig({"a": [Persist("r", 1), ok("a")]}, costs="measured", storage=storage)
    rig.ask("a")
    assert rig.run(50) == [(10, "a")]


def test_a_stopped_node_does_nothing() -> None:
    timer_and_send = [SetTimer("t", MS), Send(1, "m")]
    rig = Rig({"a": timer_and_send, "b": timer_and_send}, **cpu(read="1ms"))
    rig.ask("a", "b")
    rig.run(1)
    rig.shell.stopped = True
    rig.run(100)
    assert handled(rig) == [(1, ["a"])]
    assert rig.machine.times_ns(TimerFired) == []
