"""Processes of simulated hosts: they sleep, wake, share cores, and work in ticks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.core.host_profile import SLICE_NS, HostProfile, ProtocolCosts, coldness, depth
from orchestrator.core.randomness import block_stream
from orchestrator.core.record import INTERVAL_NS, MADE_UP_NS
from orchestrator.core.units import NS_PER_S
from orchestrator.runtimes._placement import Pin, core_of
from orchestrator.runtimes._simulated_disk import SimulatedDisk
from orchestrator.runtimes._simulated_host import AtWork, Others, SimulatedHost, SimulatedProcess
from orchestrator.runtimes._virtual_clock import VirtualClock

COSTS = ProtocolCosts(sleep=10, call=3, client=5, read=7)
PROFILE = HostProfile(
    cores=1,
    loop=(18_000,),
    wake=(40,),
    wake_deep=(40,),
    fsync=(1000,),
    timer=2,
    protocols={"unreplicated": COSTS},
)


class Stage:
    """A host with processes, and what was called when."""

    def __init__(
        self, profile: HostProfile = PROFILE, *, pinned: bool = False, loops: tuple[int, ...] = ()
    ) -> None:
        self.clock = VirtualClock(0)
        self.host = SimulatedHost(profile, pinned, AtWork())
        self.loops_ns = loops
        self.costs = profile.costs_of("unreplicated")
        self.calls: list[tuple[int, Any]] = []

    def process(
        self, name: str, core: int = 0, served: Callable[[], None] | None = None
    ) -> SimulatedProcess:
        pool = self.host.pool(core)
        return SimulatedProcess(
            self.clock, self.host, pool, self.costs, 1, name, served, self.loops_ns, MADE_UP_NS
        )

    def note(self, what: Any) -> None:
        self.calls.append((self.clock.current_ns, what))


def test_a_sleeping_process_is_woken_and_reads_one_socket_by_one_call() -> None:
    stage = Stage()
    process = stage.process("a")
    for what in ("first", "second"):
        process.take(("socket", 1), 100, stage.note, what)
    stage.clock.run()
    # Woken after 40, and what was read in one call of 3 is at hand then.
    assert stage.calls == [(43, "first"), (43, "second")]
    # Asleep again after what both cost; there was nothing to say.
    assert process.used() == (10 + 3 + 200, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0)


def test_what_comes_during_a_tick_is_for_the_next_and_wakes_nobody() -> None:
    stage = Stage()
    process = stage.process("a")
    process.take("s", 100, stage.note, "first")
    stage.clock.at(60, lambda _: process.take("s", 100, stage.note, "later"), None)
    stage.clock.run()
    assert stage.calls == [(43, "first"), (143 + 3, "later")]
    assert process.used() == (10 + 2 * 103, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0)


def test_what_a_process_says_leaves_at_the_end_of_its_tick_socket_by_socket() -> None:
    costs = {"unreplicated": dataclasses.replace(COSTS, tick=4)}
    stage = Stage(dataclasses.replace(PROFILE, cores=2, protocols=costs))
    sender, receiver = stage.process("a"), stage.process("b")

    def say(what: str) -> None:
        receiver.take(what, 0, stage.note, what)

    sender.take("s", 50, say, "x")
    sender.take("s", 50, say, "y")
    stage.clock.run()
    written = [43 + 100 + 4 + 3, 43 + 100 + 4 + 6]
    # The first wakes the reader, who finds the other there as well: 40 to wake, and calls.
    assert stage.calls == [(written[0] + 43, "x"), (written[0] + 46, "y")]
    assert sender.used() == (10 + 3 + 100 + 4 + 6, 1, 1, 0, 0, 0, 0, 0, 1, 2, 0)


def test_processes_wait_for_a_core_in_turn_unless_they_have_their_own() -> None:
    for cores, pinned, second in ((1, False, 1043 + 3), (2, False, 43), (2, True, 43)):
        stage = Stage(dataclasses.replace(PROFILE, cores=cores), pinned=pinned)
        for number in range(2):
            stage.process(f"{number}", number).take("s", 1000, stage.note, number)
        stage.clock.run()
        assert stage.calls == [(43, 0), (second, 1)], (cores, pinned)


def test_two_on_one_pinned_core_share_it_though_another_is_free() -> None:
    stage = Stage(dataclasses.replace(PROFILE, cores=2), pinned=True)
    for number in range(2):
        stage.process(f"{number}", 0).take("s", 1000, stage.note, number)
    stage.clock.run()
    assert [at_ns for at_ns, _ in stage.calls] == [43, 1046]


def test_who_finds_no_core_idle_is_not_kept_by_waking_one_and_pays_in_its_tick() -> None:
    stage = Stage()
    busy, late = stage.process("a"), stage.process("b")
    busy.take("s", 1000, stage.note, "busy")
    stage.clock.at(500, lambda _: late.take("s", 0, stage.note, "late"), None)
    stage.clock.run()
    assert stage.calls == [(43, "busy"), (1043 + 10 + 3, "late")]
    assert late.used()[0] == 13


def test_who_has_more_to_do_keeps_its_core_for_a_slice() -> None:
    stage = Stage()
    busy, other = stage.process("a"), stage.process("b")

    def again(left: int) -> None:
        if left:
            busy.take("s", SLICE_NS // 2, again, left - 1)
        stage.note(left)

    busy.take("s", SLICE_NS // 2, again, 3)
    stage.clock.at(100, lambda _: other.take("s", 0, stage.note, "other"), None)
    stage.clock.run()
    assert [what for _, what in stage.calls] == [3, 2, "other", 1, 0]


def test_long_sleeps_cost_more_at_first_before_and_then_in_the_tick() -> None:
    costs = {"unreplicated": dataclasses.replace(COSTS, cold=1000)}
    profile = dataclasses.replace(PROFILE, wake_deep=(400,), protocols=costs)
    assert [coldness(length) for length in (0, 100_000, 400_000)] == [0, 1, 2]
    assert coldness(10**9) == coldness(4_000_000)
    assert [depth(length) for length in (0, 100_000, 2_000_000, 10**9)] == [0, 0, 1, 1]
    for slept_ns in (100_000, 2_000_000):
        stage = Stage(profile)
        process = stage.process("a")
        stage.clock.at(slept_ns, functools.partial(process.take, "s", 0, stage.note), "x")
        stage.clock.run()
        cost_ns = 10 + 1000 * coldness(slept_ns)
        assert process.used()[0] == pytest.approx(cost_ns + 3, abs=2)
        assert stage.calls[0][0] - slept_ns == pytest.approx(cost_ns + 3, abs=2)


def test_cores_are_as_fast_as_the_loop_says_and_change_ten_times_a_second() -> None:
    stage = Stage(loops=(18_000, 36_000))
    process = stage.process("a")
    rounds = 400
    for number in range(rounds):
        start_ns = number * INTERVAL_NS
        stage.clock.at(start_ns, lambda _: process.take("s", 1000, stage.note, "x"), None)
    stage.clock.run()
    took_ns = {at_ns % INTERVAL_NS for at_ns, _ in stage.calls}
    assert took_ns == {43, 86}
    # Half of the time everything takes twice as long.
    assert process.used()[0] == pytest.approx(1.5 * rounds * 1013, rel=0.1)


def test_others_come_at_times_of_their_own_and_hold_up_what_is_done_meanwhile() -> None:
    profile = dataclasses.replace(PROFILE, stalls=100.0, stall=(500_000, 1_500_000))
    others = Others(profile, block_stream(1, "others"))
    # A hundred a second of a millisecond each on the mean: who works all the time has them all,
    now_ns = held_ns = 0
    for _ in range(100_000):
        extra_ns = others.holds_up_ns(now_ns, 500_000)
        now_ns, held_ns = now_ns + 500_000 + extra_ns, held_ns + extra_ns
    assert held_ns / 50e9 == pytest.approx(0.1, rel=0.1)
    # and who wakes now and then finds one at it for an eleventh of the time.
    found = [others.holds_up_ns(now_ns + each * NS_PER_S // 10, 0) for each in range(1, 20_000)]
    assert sum(1 for each in found if each) / len(found) == pytest.approx(1 / 11, rel=0.1)
    assert max(found) < 1_500_000
    nobody = Others(PROFILE, block_stream(1, "others"))
    assert nobody.holds_up_ns(10**15, 10**15) == 0


def test_others_take_a_core_that_is_free() -> None:
    profile = dataclasses.replace(PROFILE, stalls=50_000.0, stall=(5_000,))
    for cores, held in ((1, True), (2, False)):
        stage = Stage(dataclasses.replace(profile, cores=cores))
        stage.process("a").take("s", 1_000_000, stage.note, "x")
        stage.clock.run()
        assert (stage.clock.current_ns > 1_100_000) == held


def test_waits_end_late_and_what_they_make_wait_is_counted_from_their_end() -> None:
    stage = Stage()
    process = stage.process("a")
    moments: list[tuple[int, int]] = []

    def rang(_: None) -> None:
        moments.append((process.now_ns(), process.moment_ns()))

    process.at(1000, rang, None)
    stage.clock.run()
    assert moments == [(1000 + 40 + 3, 1000)]
    assert process.moment_ns() == process.now_ns()


def test_waits_that_end_while_others_are_seen_to_need_no_round_of_their_own() -> None:
    stage = Stage()
    process = stage.process("a")

    def rang(what: str) -> None:
        stage.note(what)
        process.charge(100)

    for when_ns in (1000, 1100, 1200, 5000):
        process.at(when_ns, rang, "rang")
    stage.clock.run()
    # Each takes 2, and the 100 that are charged; then it looks at the clock.
    assert [at_ns for at_ns, _ in stage.calls] == [1043, 1145, 1247, 5043]
    assert process.used() == (2 * (10 + 3) + 4 * 102, 2, 0, 0, 4, 0, 0, 0, 2, 0, 0)


@pytest.mark.parametrize(
    ("delay_ns", "waits"),
    [
        # By the time that it is read it should have come; or not.
        (20, 0),
        (500, 1),
    ],
)
def test_what_is_stamped_waits_in_the_process_that_receives_it(delay_ns: int, waits: int) -> None:
    stage = Stage(dataclasses.replace(PROFILE, cores=2))
    sender, receiver = stage.process("a"), stage.process("b")
    seen: list[tuple[int, int]] = []

    def note(_: Any) -> None:
        seen.append((receiver.now_ns(), receiver.moment_ns()))

    def send(_: Any) -> None:
        sender.stamp(sender.moment_ns() + delay_ns, deliver, None)

    def deliver(_: Any) -> None:
        receiver.take(("a", "b"), 7, note, None)

    sender.take("s", 0, send, None)
    stage.clock.run()
    # Sent when it has been woken, and read what it reads.
    ((now_ns, moment_ns),) = seen
    assert moment_ns == 43 + delay_ns < now_ns
    assert (sender.used()[4], receiver.used()[4]) == (0, waits)


def test_what_was_held_up_for_long_has_lost_its_time() -> None:
    stage = Stage()
    process = stage.process("a")
    moments: list[int] = []
    process.take("s", 2 * MADE_UP_NS, stage.note, "long")
    process.at(60, lambda _: moments.append(process.moment_ns() - process.now_ns()), None)
    stage.clock.run()
    assert moments == [0]


def test_operations_are_served_together_when_all_sockets_are_read() -> None:
    stage = Stage()
    process = stage.process("a", served=lambda: stage.note("served"))
    for socket in range(3):
        process.take(socket, 10, stage.note, socket)
    stage.clock.run()
    assert stage.calls == [(43, 0), (56, 1), (69, 2), (69, "served")]


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


def disk_of(stage: Stage, process: SimulatedProcess) -> SimulatedDisk:
    return SimulatedDisk(process, stage.host.profile, stage.clock)


def test_a_sync_takes_the_core_for_its_thread_and_costs_the_process_when_asked_and_told() -> None:
    stage = Stage(dataclasses.replace(PROFILE, sync=200, disk=30))
    process = stage.process("a", served=lambda: disk.sync(1000, stage.note, "durable"))
    disk = disk_of(stage, process)
    process.take("s", 50, stage.note, "asked")
    stage.clock.run(1500)
    # Its thread begins at 199, when the process sleeps; it wakes at 1239, and the process is told.
    asleep = 43 + 50 + 100 + 2 * 3
    assert stage.calls == [(43, "asked"), (asleep + 1000 + 40 + 13, "durable")]
    # Two calls to write, one to read; the second round asks for the next sync.
    rounds = (10 + 3 + 50 + 100 + 2 * 3) + (10 + 3 + 100 + 100 + 2 * 3)
    assert process.used() == (rounds + 2 * 30, 2, 0, 0, 0, 0, 2, 2 * 30, 2, 4, 0)


def test_where_a_core_is_free_the_disk_is_asked_at_once() -> None:
    stage = Stage(dataclasses.replace(PROFILE, cores=2, disk=30))
    process = stage.process("a")
    disk = disk_of(stage, process)
    process.take("s", 50, lambda _: disk.sync(1000, stage.note, "durable"), None)
    stage.clock.run()
    assert stage.calls == [(43 + 40 + 1000 + 40 + 43, "durable")]


def test_other_work_goes_on_while_a_disk_syncs() -> None:
    stage = Stage()
    process = stage.process("a")
    disk = disk_of(stage, process)
    process.take("s", 50, lambda _: disk.sync(1000, stage.note, "durable"), None)
    stage.clock.at(500, lambda _: process.take("s", 50, stage.note, "other"), None)
    stage.clock.run()
    asleep = 43 + 50 + 2 * 3
    assert stage.calls == [(543, "other"), (asleep + 1000 + 40 + 13, "durable")]
