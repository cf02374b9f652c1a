"""Closed forms of queueing against published values, and the model's stations against them.

Source of the values: Kleinrock, "Queueing Systems" (textbook closed forms).
"""

from __future__ import annotations

import math

import numpy
import pytest

from orchestrator.analysis.queueing import erlang_b, erlang_c, mg1, mgc, mm1k, mmc
from orchestrator.runtimes._station import Station

EXACT = 1e-6


@pytest.mark.parametrize(("load", "response"), [(0.5, 2), (0.8, 5), (0.9, 10)])
def test_mm1(load: float, response: float) -> None:
    found = mmc(load, 1.0)
    assert found.response == pytest.approx(response, rel=EXACT)
    assert (found.utilisation, found.waiting) == pytest.approx((load, load), rel=EXACT)
    assert found.jobs == pytest.approx(load * response, rel=EXACT)


@pytest.mark.parametrize(
    ("cv2", "load", "response"),
    [(0, 0.5, 1.5), (0, 0.8, 3), (0, 0.9, 5.5), (4, 0.5, 3.5), (4, 0.8, 11), (4, 0.9, 23.5)],
)
def test_mg1(cv2: float, load: float, response: float) -> None:
    """M/D/1 and M/G/1 with cs^2 = 4 (Pollaczek-Khinchine)."""
    assert mg1(load, 1.0, cv2).response == pytest.approx(response, rel=EXACT)
    # In other units, and as the case of one server of the general form.
    assert mg1(load * 50, 0.02, cv2).response == pytest.approx(response * 0.02, rel=EXACT)
    assert mgc(load, 1.0, cv2, 1).response == pytest.approx(response, rel=EXACT)


@pytest.mark.parametrize(
    ("servers", "load", "waiting"),
    [(2, 1, 1 / 3), (3, 2, 4 / 9), (5, 4, 0.554113), (10, 9, 0.668732), (1, 0.7, 0.7)],
)
def test_erlang_c(servers: int, load: float, waiting: float) -> None:
    assert erlang_c(servers, load) == pytest.approx(waiting, abs=EXACT)
    assert mmc(load, 1.0, servers).waiting == pytest.approx(waiting, abs=EXACT)


def test_erlang_b_by_its_sum() -> None:
    """Kleinrock, section 3.6: a^c / c! over the sum of such terms."""
    terms = [3.0**count / math.factorial(count) for count in range(6)]
    assert erlang_b(5, 3.0) == pytest.approx(terms[-1] / sum(terms), rel=EXACT)


@pytest.mark.parametrize(
    ("load", "room", "loss"), [(0.5, 5, 0.015873), (0.9, 10, 0.050814), (1.2, 10, 0.192586)]
)
def test_mm1k(load: float, room: int, loss: float) -> None:
    found = mm1k(load, 1.0, room)
    assert found.loss == pytest.approx(loss, abs=EXACT)
    # What is not lost is what keeps the server busy; Little's law.
    assert found.utilisation == pytest.approx(load * (1 - found.loss), rel=EXACT)
    assert found.jobs == pytest.approx(load * (1 - found.loss) * found.response, rel=EXACT)


def test_mm1k_at_and_beyond_capacity() -> None:
    assert mm1k(1.0, 1.0, 4).loss == pytest.approx(1 / 5, rel=EXACT)
    assert mm1k(1e6, 1.0, 400).loss == pytest.approx(1, abs=1e-5)
    assert mm1k(0.5, 1.0, 200).response == pytest.approx(2, rel=EXACT)
    assert mm1k(0.0, 3.0, 5).response == pytest.approx(3, rel=EXACT)


@pytest.mark.parametrize(("servers", "load"), [(2, 1.0), (2, 1.6), (4, 3.2), (8, 6.4)])
@pytest.mark.parametrize("cv2", [0.0, 0.5, 4.0])
def test_several_servers_with_general_service_times(servers: int, load: float, cv2: float) -> None:
    """Against the simulator's own station; service times are constant, half constant and half
    exponential, or of two exponential phases.
    """
    jobs = 200_000
    chance = numpy.random.default_rng(servers)
    arrivals_ns = (chance.exponential(1 / load, jobs).cumsum() * 1e6).astype(int).tolist()
    services = chance.exponential(1.0, jobs)
    if cv2 < 1:
        services = 1 - math.sqrt(cv2) + math.sqrt(cv2) * services
    else:
        # Balanced means (Allen, section 5.2): shares p and 1 - p of phases 1/2p and 1/2(1 - p).
        share = (1 + math.sqrt((cv2 - 1) / (cv2 + 1))) / 2
        first = chance.random(jobs) < share
        services = services * numpy.where(first, 0.5 / share, 0.5 / (1 - share))
    assert services.var() == pytest.approx(cv2, rel=0.05, abs=1e-9)
    station = Station(servers)
    services_ns = (services * 1e6).astype(int).tolist()
    waits = [
        station.completion_ns(at_ns, service_ns) - service_ns - at_ns
        for at_ns, service_ns in zip(arrivals_ns, services_ns, strict=True)
    ]
    found = mgc(load, 1.0, cv2, servers)
    # Two moments do not tell which law it is; for this one, and many servers, it is too much.
    within = 0.06 if cv2 < 1 else 0.25
    assert math.fsum(waits) / jobs / 1e6 == pytest.approx(found.wait, rel=within, abs=0.01)


def test_more_than_a_station_can_do() -> None:
    for found in (mmc(2.0, 1.0, 2), mg1(1.0, 1.0, 0.5), mgc(3.0, 1.0, 0.5, 2)):
        assert found.wait == found.response == found.jobs == math.inf
        assert found.utilisation == found.waiting == 1.0
    assert mmc(0.0, 1.0).response == 1.0
