"""Processes of simulated hosts: they sleep, wake, share cores, and work in ticks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.core.host_profile import HostProfile, ProtocolCosts
from orchestrator.core.randomness import block_stream
from orchestrator.runtimes._placement import Pin, core_of
from orchestrator.runtimes._simulated_host import AtWork, SimulatedHost, SimulatedProcess
from orchestrator.runtimes._virtual_clock import VirtualClock

PROFILE = HostProfile(
    cores=1,
    wake=(40,),
    timer_late=(25,),
    fsync=(1000,),
    timer=2,
    protocols={"unreplicated": ProtocolCosts(sleep=10, call=3, client=5, read=7)},
)


def host(profile: HostProfile, *, pinned: bool = False) -> SimulatedHost:
    return SimulatedHost(profile, pinned, AtWork(), block_stream(1, "host"))


class Stage:
    """A host with processes, and what was called when."""

    def __init__(self, profile: HostProfile = PROFILE, *, pinned: bool = False) -> None:
        self.clock = VirtualClock(0)
        self.host = host(profile, pinned=pinned)
        self.costs = profile.costs_of("unreplicated")
        self.calls: list[tuple[int, Any]] = []

    def process(
        self, name: str, core: int = 0, served: Callable[[], None] | None = None
    ) -> SimulatedProcess:
        pool = self.host.pool(core)
        return SimulatedProcess(self.clock, self.host, pool, self.costs, 1, name, served)

    def note(self, what: Any) -> None:
        self.calls.append((self.clock.current_ns, what))


def test_a_sleeping_process_is_woken_and_reads_one_socket_by_one_call() -> None:
    stage = Stage()
    process = stage.process("a")
    for what in ("first", "second"):
        process.take(("socket", 1), 100, stage.note, what)
    stage.clock.run()
    # Woken after 40, awake after 10 more, and what was read in one call of 3 is at hand then.
    assert stage.calls == [(53, "first"), (53, "second")]
    # Asleep again after what both cost.
    assert process.used() == (10 + 3 + 200, 1, 1, 0, 0)


def test_what_comes_during_a_tick_is_for_the_next_and_wakes_nobody() -> None:
    stage = Stage()
    process = stage.process("a")
    process.take("s", 100, stage.note, "first")
    stage.clock.at(60, lambda _: process.take("s", 100, stage.note, "later"), None)
    stage.clock.run()
    assert stage.calls == [(53, "first"), (153 + 3, "later")]
    assert process.used() == (10 + 2 * 103, 1, 2, 0, 0)


def test_what_a_process_says_leaves_at_the_end_of_its_tick_socket_by_socket() -> None:
    stage = Stage(dataclasses.replace(PROFILE, cores=2))
    sender, receiver = stage.process("a"), stage.process("b")

    def say(what: str) -> None:
        receiver.take(what, 0, stage.note, what)

    sender.take("s", 50, say, "x")
    sender.take("s", 50, say, "y")
    stage.clock.run()
    written = [53 + 100 + 3, 53 + 100 + 6]
    # The first wakes the reader, who finds the other there as well: 40 to wake, 10 awake, calls.
    assert stage.calls == [(written[0] + 53, "x"), (written[0] + 56, "y")]
    assert sender.used() == (10 + 3 + 100 + 6, 1, 1, 2, 0)


def test_processes_wait_for_a_core_in_turn_unless_they_have_their_own() -> None:
    for cores, pinned, second in ((1, False, 53 + 1000 + 3), (2, False, 53), (2, True, 53)):
        stage = Stage(dataclasses.replace(PROFILE, cores=cores), pinned=pinned)
        for number in range(2):
            stage.process(f"{number}", number).take("s", 1000, stage.note, number)
        stage.clock.run()
        assert stage.calls == [(53, 0), (second, 1)], (cores, pinned)


def test_two_on_one_pinned_core_share_it_though_another_is_free() -> None:
    stage = Stage(dataclasses.replace(PROFILE, cores=2), pinned=True)
    for number in range(2):
        stage.process(f"{number}", 0).take("s", 1000, stage.note, number)
    stage.clock.run()
    assert [at_ns for at_ns, _ in stage.calls] == [53, 1056]


def test_others_interrupt_where_no_core_is_free() -> None:
    profile = dataclasses.replace(PROFILE, stalls=1000.0, stall=(500_000, 1_500_000))
    made = host(profile)
    assert sum(made.lasts_ns(1_000_000) for _ in range(1000)) == 1_000_000_000
    made.pool(0).busy = 1
    lasted_ns = [made.lasts_ns(100_000) for _ in range(10_000)]
    # A thousand a second of work, of a millisecond each on the mean.
    assert sum(lasted_ns) == pytest.approx(2_000_000_000, rel=0.1)
    assert min(lasted_ns) == 100_000


def test_waits_end_late_and_what_they_make_wait_is_counted_from_their_end() -> None:
    stage = Stage()
    process = stage.process("a")
    moments: list[tuple[int, int]] = []

    def rang(_: None) -> None:
        moments.append((process.now_ns(), process.moment_ns()))

    process.at(1000, rang, None)
    stage.clock.run()
    assert moments == [(1000 + 25 + 10 + 3, 1000)]
    assert process.moment_ns() == process.now_ns()


def test_what_was_held_up_for_long_has_lost_its_time() -> None:
    stage = Stage()
    process = stage.process("a")
    moments: list[int] = []
    process.take("s", 5_000_000, stage.note, "long")
    process.at(60, lambda _: moments.append(process.moment_ns() - process.now_ns()), None)
    stage.clock.run()
    assert moments == [0]


def test_operations_are_served_together_when_all_sockets_are_read() -> None:
    stage = Stage()
    process = stage.process("a", served=lambda: stage.note("served"))
    for socket in range(3):
        process.take(socket, 10, stage.note, socket)
    stage.clock.run()
    assert stage.calls == [(53, 0), (66, 1), (79, 2), (79, "served")]


@pytest.mark.parametrize(
    ("hosts", "machines", "cores", "expected"),
    [
        ("aaaa", 3, 4, [0, 1, 2, 3]),
        ("aaaa", 3, 2, [0, 0, 0, 1]),
        ("aaab", 2, 4, [0, 1, 3, 3]),
        ("aab", 2, 2, [0, 1, 1]),
        ("aaaa", 2, 8, [0, 1, 7, 6]),
        ("aa", 1, 1, [0, 0]),
    ],
)
def test_pinned_clients_have_the_last_cores_and_machines_the_others(
    hosts: str, machines: int, cores: int, expected: list[int]
) -> None:
    assert [core_of(hosts, member, machines, cores) for member in range(len(hosts))] == expected
    assert Pin(tuple(hosts), 0, machines).core(cores) == expected[0]
