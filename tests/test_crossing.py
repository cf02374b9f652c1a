"""The search for where a noisy margin becomes positive."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy
import pytest

from orchestrator.analysis.crossing import Crossing, Probe

BOUND = 46.0517
"""Service times: the p99 of M/M/1 at .9 of its service rate."""


def searched(margin_at: Callable[[float], float], start: float, **options: float) -> Crossing:
    search = Crossing(start, **options)  # type: ignore[arg-type]
    while (rate := search.next()) is not None:
        margin = margin_at(rate)
        search.tell(Probe(rate, margin <= 0, margin))
    return search


def queue(chance: numpy.random.Generator, noise: float) -> Callable[[float], float]:
    """M/M/1, whose p99 is measured with lognormal noise; overrun it is anything above."""

    def margin(rate: float) -> float:
        p99 = math.log(100) / (1 - rate) if rate < 0.999 else 5000.0
        return 1 - BOUND / (p99 * math.exp(noise * chance.normal()))

    return margin


@pytest.mark.parametrize("start", [0.01, 0.3, 5.0])
@pytest.mark.parametrize("noise", [0.02, 0.08])
def test_the_capacity_of_a_queue(start: float, noise: float) -> None:
    chance = numpy.random.default_rng(7)
    errors, held, probes = [], 0, []
    for _ in range(100):
        search = searched(queue(chance, noise), start, precision=0.01)
        found = search.estimate()
        assert found is not None and found.sure
        errors.append(found.rate / 0.9 - 1)
        held += found.low <= 0.9 <= found.high
        probes.append(len(search.probes))
    assert abs(float(numpy.mean(errors))) < 0.002
    assert numpy.quantile(numpy.abs(errors), 0.95) < 0.01
    # 95 % intervals: fewer than 87 of 100 would come once in 1,000 times.
    assert held >= 87
    assert numpy.median(probes) <= 20


def test_where_the_margin_jumps_the_bracket_is_made_narrow() -> None:
    for start in (1.0, 120.0, 5000.0):
        search = searched(lambda rate: -2.0 if rate <= 123.4 else 0.99, start, precision=0.01)
        found = search.estimate()
        assert found is not None and found.sure
        assert found.low <= 123.4 < found.high <= 1.01 * found.low
        # Each end was asked twice.
        for rate in (found.low, found.high):
            assert sum(probe.rate == rate for probe in search.probes) >= 2


def test_verdicts_alone_are_enough() -> None:
    search = Crossing(10.0, precision=0.05)
    while (rate := search.next()) is not None:
        search.tell(Probe(rate, rate < 77))
    found = search.estimate()
    assert found is not None and found.sure and found.low < 77 <= found.high


@pytest.mark.parametrize(("margin", "end"), [(-1.0, 1e4), (1.0, 1e-2)])
def test_a_search_without_a_crossing_ends_at_its_bounds(margin: float, end: float) -> None:
    search = searched(lambda rate: margin, 10.0, least=1e-2, most=1e4)
    assert search.estimate() is None
    assert search.probes[-1].rate == end
    assert len(search.probes) < 15


def test_no_more_is_asked_than_may_be() -> None:
    chance = numpy.random.default_rng(1)
    search = searched(queue(chance, 0.5), 0.3, precision=0.001, probes_max=25)
    assert len(search.probes) == 25
    found = search.estimate()
    assert found is not None and not found.sure


def test_less_that_is_worse_is_named() -> None:
    """A rate in the middle at which something resonates."""
    search = Crossing(100.0, precision=0.05)
    while (rate := search.next()) is not None:
        search.tell(Probe(rate, rate < 900))
    assert search.contradictions == []
    for rate, met in ((300.0, False), (300.0, False), (310.0, True)):
        search.tell(Probe(rate, met))
    assert search.contradictions == [300.0]
    found = search.estimate()
    # Of what is below that, it knows that it meets the objective.
    assert found is not None and found.low <= 300


def test_one_bad_verdict_among_good_ones_does_not_count() -> None:
    search = Crossing(100.0)
    for met in (True, False, True):
        search.tell(Probe(100.0, met))
    search.tell(Probe(200.0, True))
    assert search.contradictions == []
    assert search.next() == 400.0
