"""Clocks of other hosts: offsets and drifts are found, and taken out of what was seen there."""

from __future__ import annotations

import random
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.load import load_mapping
from orchestrator.core.history import NEVER
from orchestrator.core.record import EventRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S, NS_PER_US
from orchestrator.plan import plan
from orchestrator.run import judge
from orchestrator.runtimes import _host_clock
from orchestrator.runtimes._host_clock import (
    ONE_CLOCK,
    ClockTrack,
    Reading,
    apart_ns,
    clock_name,
    clock_tracks,
    read_clock,
)
from orchestrator.runtimes._member import Member
from orchestrator.runtimes.ray_cluster import RayRuntime


class TwoClocks:
    """True time, which our clock shows, and another clock, a random way away."""

    def __init__(self, offset_ns: int, drift: float, seed: int, one_way_ns: int) -> None:
        self.true_ns = 10 * NS_PER_S
        self.offset_ns, self.drift, self.one_way_ns = offset_ns, drift, one_way_ns
        self.chance = random.Random(seed)

    def travel(self) -> None:
        self.true_ns += self.one_way_ns + int(self.chance.expovariate(1 / self.one_way_ns))

    def theirs_at(self, true_ns: int) -> int:
        return round(true_ns * (1 + self.drift)) + self.offset_ns

    def ask(self) -> int:
        self.travel()
        shown_ns = self.theirs_at(self.true_ns)
        self.travel()
        return shown_ns

    def ours(self) -> int:
        return self.true_ns


@given(
    st.integers(-(10**15), 10**15),
    st.floats(-5e-4, 5e-4),
    st.integers(0, 2**32),
    st.integers(1_000, 5_000_000),
)
def test_a_reading_is_as_exact_as_it_says(
    offset_ns: int, drift: float, seed: int, one_way_ns: int
) -> None:
    clocks = TwoClocks(offset_ns, drift, seed, one_way_ns)
    reading = read_clock(clocks.ask, clocks.ours)
    true_offset_ns = clocks.theirs_at(reading.at_ns) - reading.at_ns
    # A drifting clock gains a little within the round trip, too.
    gained_ns = abs(drift) * 2 * reading.uncertainty_ns
    assert abs(reading.offset_ns - true_offset_ns) <= reading.uncertainty_ns + gained_ns + 1
    assert reading.uncertainty_ns >= one_way_ns


@given(
    st.integers(-(10**15), 10**15),
    st.floats(-3e-4, 3e-4),
    st.integers(0, 2**32),
    st.integers(1, 600),
)
def test_times_of_a_drifting_clock_are_brought_to_ours(
    offset_ns: int, drift: float, seed: int, duration_s: int
) -> None:
    clocks = TwoClocks(offset_ns, drift, seed, 50 * NS_PER_US)
    first = read_clock(clocks.ask, clocks.ours)
    origin_ns = clocks.true_ns + NS_PER_S
    origin_there_ns = origin_ns + first.offset_ns
    clocks.true_ns = origin_ns + duration_s * NS_PER_S
    track = ClockTrack(first, read_clock(clocks.ask, clocks.ours))
    moments = origin_ns + numpy.linspace(0, duration_s, 7) * NS_PER_S
    seen = [clocks.theirs_at(int(moment)) - origin_there_ns for moment in moments]
    ours_ns = track.ours_ns(numpy.array(seen, dtype=numpy.int64), origin_ns)
    true_ns = moments.astype(numpy.int64) - origin_ns
    # A drifting clock gains a little within the round trip, too.
    gained_ns = abs(drift) * 2 * track.uncertainty_ns
    assert numpy.abs(ours_ns - true_ns).max() <= track.uncertainty_ns + gained_ns + 2
    at_ns = track.event(EventRecord(seen[3], 0, "role", ""), origin_ns).at_ns
    assert at_ns == ours_ns[3]


def test_a_small_drift_is_taken_out_though_the_readings_are_coarse() -> None:
    """Else the end of the run would be off by more than the worse reading."""
    moved = ClockTrack(Reading(0, 500, 300), Reading(10**9, 1_000, 300))
    assert moved.drift == pytest.approx(5e-7)
    times_ns = numpy.array([0, 10**9], dtype=numpy.int64)
    assert moved.ours_ns(times_ns, 0).tolist() == [0, 10**9 - 500]


def test_a_clock_that_was_read_once_is_taken_as_it_was() -> None:
    once = Reading(5, 500, 300)
    tracks = clock_tracks(["a", "b"], {"a": once}, {})
    assert tracks == {"a": ClockTrack(once, once), "b": ONE_CLOCK}
    assert tracks["a"].drift == 0


def test_two_hosts_may_be_off_by_both_their_uncertainties() -> None:
    tracks = [ClockTrack(Reading(0, 0, u), Reading(1, 0, u)) for u in (10, 30, 20)]
    assert apart_ns(tracks) == 50
    assert apart_ns(tracks[:1] * 3) == 0
    assert apart_ns([ONE_CLOCK, tracks[0]]) == 10


def test_the_clock_of_a_process_has_one_name() -> None:
    assert clock_name() == clock_name()
    assert len(clock_name().split("/")[0]) > 8


@pytest.mark.serial
def test_a_run_takes_offset_and_drift_of_its_hosts_into_account(
    runtime: RayRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actors' clock is this machine's, but the driver is made to read it 20 ms ahead and
    1 % fast: the load begins later by the one, and what was seen is shortened by the other.
    """
    offset_ns, drift = 20 * NS_PER_MS, 0.01
    began: list[int] = []

    def clock_ns(self: Member) -> int:
        true_ns = read(self)
        began.append(true_ns)
        return true_ns + offset_ns + round((true_ns - began[0]) * drift)

    read = Member.clock_ns
    parts = plan(
        load_mapping(
            {
                "experiment": "clocks",
                "system": {"node": {"costs": "measured"}},
                "workload": {"keys": 50},
                "arrival": {"name": "constant", "rate": "100/s"},
                "warmup": "500ms",
                "duration": "1500ms",
            }
        )
    )
    monkeypatch.setattr(Member, "clock_ns", clock_ns)
    monkeypatch.setattr(_host_clock, "clock_name", lambda: "another clock")
    record = runtime.run(parts)
    history: Any = record.history
    assert (history.returned_ns != NEVER).all()
    spacing_ns = numpy.diff(history.intended_ns)
    # The schedule kept 10 ms by a clock that is 1 % fast: 9.9 ms of ours.
    assert numpy.median(spacing_ns) == pytest.approx(10 * NS_PER_MS / (1 + drift), rel=2e-4)
    assert record.clock_uncertainty_ns == 0  # one client: nothing to be compared
    assert judge(parts, record).verdict == "valid"
