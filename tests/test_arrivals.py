"""Arrivals: when operations start."""

from __future__ import annotations

import numpy
import pytest
from numpy.typing import NDArray
from scipy import stats

from orchestrator.arrivals.closed import Closed, ClosedParams
from orchestrator.arrivals.constant import Constant, ConstantParams
from orchestrator.arrivals.poisson import Poisson, PoissonParams
from orchestrator.arrivals.replay import Replay, ReplayParams
from orchestrator.core.distributions import ConstantParams as ConstantLaw
from orchestrator.core.distributions import ExponentialParams
from orchestrator.core.load import Arrival, OperationBlock, Timetable
from orchestrator.core.parameters import ParameterError
from orchestrator.core.registry import Family, Slot, plugins
from orchestrator.core.units import NS_PER_S

NO_THINKING = Slot(Family.DISTRIBUTION, "constant", ConstantLaw(0))


def block(count: int, time_ns: NDArray[numpy.int64] | None = None) -> OperationBlock:
    return OperationBlock(
        kind=numpy.zeros(count, dtype=numpy.uint8),
        key=numpy.zeros(count, dtype=numpy.int64),
        size=numpy.ones(count, dtype=numpy.int32),
        count=numpy.ones(count, dtype=numpy.int32),
        follow_up=numpy.zeros(count, dtype=numpy.uint8),
        time_ns=time_ns,
    )


def merged(arrival: Arrival, clients: int, each: int) -> NDArray[numpy.int64]:
    """Starts of all clients up to the time that every one of them has reached."""
    parts = [arrival.timetable(5, c, clients).starts_ns(block(each)) for c in range(clients)]
    end = min(int(part[-1]) for part in parts)
    starts = numpy.sort(numpy.concatenate(parts))
    return starts[starts <= end]


def test_all_arrivals_are_registered() -> None:
    assert {"poisson", "constant", "closed", "replay"} <= set(plugins(Family.ARRIVAL))


# --- poisson ----------------------------------------------------------------------------


def test_poisson_gaps_are_exponential() -> None:
    starts = Poisson(PoissonParams(2000.0)).timetable(1, 0, 1).starts_ns(block(100_000))
    gaps_s = numpy.diff(starts, prepend=0) / NS_PER_S
    assert (gaps_s >= 0).all()
    # The mean of n gaps has a relative standard error of 1 / sqrt(n).
    assert gaps_s.mean() == pytest.approx(1 / 2000, rel=4 / numpy.sqrt(len(gaps_s)))
    assert stats.kstest(gaps_s, "expon", args=(0, 1 / 2000)).pvalue > 1e-3


def test_poisson_gaps_are_independent() -> None:
    starts = Poisson(PoissonParams(2000.0)).timetable(1, 0, 1).starts_ns(block(100_000))
    gaps = numpy.diff(starts)
    assert stats.spearmanr(gaps[:-1], gaps[1:]).pvalue > 1e-3


def test_poisson_clients_add_up_to_the_rate() -> None:
    arrival = Poisson(PoissonParams(3000.0))
    assert arrival.rate_per_s == 3000.0
    gaps_s = numpy.diff(merged(arrival, 4, 20_000), prepend=0) / NS_PER_S
    assert gaps_s.mean() == pytest.approx(1 / 3000, rel=4 / numpy.sqrt(len(gaps_s)))
    assert stats.kstest(gaps_s, "expon", args=(0, 1 / 3000)).pvalue > 1e-3


def test_poisson_clients_are_independent() -> None:
    parts = [Poisson(PoissonParams(100.0)).timetable(5, c, 2).starts_ns(block(99)) for c in (0, 1)]
    assert (parts[0] != parts[1]).all()


# --- constant ---------------------------------------------------------------------------


def test_constant_clients_interleave_evenly() -> None:
    starts = merged(Constant(ConstantParams(1000.0)), 4, 1000)
    numpy.testing.assert_array_equal(starts, 1_000_000 * numpy.arange(len(starts)))


def test_constant_does_not_drift() -> None:
    timetable = Constant(ConstantParams(3.0)).timetable(1, 0, 1)
    for _ in range(100):
        starts = timetable.starts_ns(block(3000))
    assert int(starts[-1]) == round((300_000 - 1) * NS_PER_S / 3)


# --- closed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sessions", "clients", "shares"),
    [(16, 1, [16]), (16, 3, [6, 5, 5]), (4, 4, [1, 1, 1, 1]), (7, 4, [2, 2, 2, 1])],
)
def test_closed_sessions_are_split_evenly(sessions: int, clients: int, shares: list[int]) -> None:
    arrival = Closed(ClosedParams(sessions, NO_THINKING))
    assert arrival.closed
    assert arrival.rate_per_s is None
    tables = [arrival.timetable(1, client, clients) for client in range(clients)]
    assert [table.sessions for table in tables] == shares


@pytest.mark.parametrize(
    "arrival", [Closed(ClosedParams(2, NO_THINKING)), Replay(ReplayParams("max", 2))]
)
def test_each_client_needs_a_session(arrival: Arrival) -> None:
    with pytest.raises(ParameterError, match="2 for 3 clients") as caught:
        arrival.timetable(1, 0, 3)
    assert caught.value.key == "sessions"


def test_closed_thinks_by_its_law() -> None:
    law = Slot(Family.DISTRIBUTION, "exponential", ExponentialParams(1_000_000))
    arrival = Closed(ClosedParams(2, law))
    table, again, other = (arrival.timetable(1, client, 2) for client in (0, 0, 1))
    pauses = [table.think_ns() for _ in range(20_000)]
    assert stats.kstest(pauses, "expon", args=(0, 1_000_000)).pvalue > 1e-3
    assert pauses[:100] == [again.think_ns() for _ in range(100)]
    assert pauses[:100] != [other.think_ns() for _ in range(100)]


def test_closed_starts_as_soon_as_it_may() -> None:
    table = Closed(ClosedParams(2, NO_THINKING)).timetable(1, 0, 1)
    assert table.starts_ns(block(3)).tolist() == [0, 0, 0]
    assert table.think_ns() == 0


# --- replay -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("speed", "expected"),
    [("1", [0, 10, 40]), (1, [0, 10, 40]), ("4", [0, 2, 10]), (0.5, [0, 20, 80])],
)
def test_replay_scales_the_times_of_the_trace(speed: str, expected: list[int]) -> None:
    arrival = Replay(ReplayParams(speed))
    assert not arrival.closed
    times_ns = numpy.array([0, 10, 40], dtype=numpy.int64)
    starts = arrival.timetable(1, 0, 1).starts_ns(block(3, times_ns))
    assert starts.tolist() == expected


def test_replay_at_most_speed_is_closed() -> None:
    arrival = Replay(ReplayParams())
    assert arrival.closed
    tables = [arrival.timetable(1, client, 3) for client in range(3)]
    assert [table.sessions for table in tables] == [6, 5, 5]
    assert tables[0].think_ns() == 0


@pytest.mark.parametrize("speed", ["fast", "0", "-1", "inf", "nan", "", None])
def test_replay_refuses_other_speeds(speed: str) -> None:
    with pytest.raises(ParameterError, match="must be max or a number above 0"):
        ReplayParams(speed)


def test_replay_needs_times() -> None:
    table = Replay(ReplayParams("1")).timetable(1, 0, 1)
    with pytest.raises(ParameterError, match="a trace with a time column"):
        table.starts_ns(block(3))


# --- all open ones ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arrival", [Poisson(PoissonParams(700.0)), Constant(ConstantParams(700.0))]
)
def test_starts_do_not_depend_on_the_blocks(arrival: Arrival) -> None:
    assert not arrival.closed
    whole = arrival.timetable(9, 1, 3).starts_ns(block(30_000))
    table: Timetable = arrival.timetable(9, 1, 3)
    parts = [table.starts_ns(block(count)) for count in (10, 20, 0, 1, 29_969)]
    numpy.testing.assert_array_equal(numpy.concatenate(parts), whole)
    assert table.sessions == 0
    assert table.think_ns() == 0
