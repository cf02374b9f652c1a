"""How far clocks may drift when strikes overlap: the bound, against what a plan really does."""

from __future__ import annotations

import math
from typing import Any

import pytest

from orchestrator.config.load import load_mapping
from orchestrator.core.distributions import build
from orchestrator.core.fault_conditions import Burden
from orchestrator.core.fault_exposure import exposure
from orchestrator.core.fault_plan import FaultPlan
from orchestrator.core.faults import ClusterState, Hazards
from orchestrator.core.randomness import block_stream, scalar_stream
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.errors import ConfigError
from orchestrator.plan import plan

END_NS = 20 * NS_PER_S


def clock(drift: float, **more: Any) -> dict[str, Any]:
    return {"name": "clock", "drift": drift, "at": "1s", "lasts": "2s", "target": "0"} | more


def bounds(*faults: dict[str, Any], end_ns: int = END_NS) -> tuple[float, float]:
    found = exposure(load_mapping({"faults": list(faults)}).faults, end_ns)
    return round(found.slowest, 9), round(found.fastest, 9)


def test_the_strikes_of_one_fault_add_up_while_they_overlap() -> None:
    assert bounds(clock(-0.1)) == (-0.1, 0)
    assert bounds(clock(0.1, every="5s")) == (0, 0.1)
    # A strike may be late by a gap, or by a second, and the next one in time.
    assert bounds(clock(0.1, every="2s")) == (0, 0.2)
    assert bounds(clock(0.1, every="500ms")) == (0, 0.6)
    assert bounds(clock(-0.5, every="1s", lasts="1500ms")) == (-1.5, 0)
    # No more than there are until the end.
    assert bounds(clock(-0.1, every="200ms", lasts="30s"), end_ns=2500 * NS_PER_MS) == (-0.8, 0)
    assert bounds(clock(-0.1, every="200ms", lasts="30s", until="1500ms")) == (-0.3, 0)
    endless = {"name": "exponential", "mean": "1s"}
    assert bounds(clock(-0.1, every="4s", lasts=endless)) == (-0.5, 0)
    assert bounds(clock(0.1, every={"name": "uniform", "low": "4s", "high": "9s"})) == (0, 0.1)
    assert bounds(clock(0.001, every=endless, lasts="100ms"))[1] == pytest.approx(0.102)


def test_faults_add_up_where_they_meet() -> None:
    assert bounds(clock(0.1), clock(-0.1, target="1")) == (-0.1, 0.1)
    assert bounds(clock(0.1), clock(0.1, target="1")) == (0, 0.1)
    assert bounds(clock(0.1), clock(0.1, target="any")) == (0, 0.2)
    assert bounds(clock(0.1), clock(0.2, at="3900ms")) == (0, 0.3)
    assert bounds(clock(0.1), clock(0.2, at="9s")) == (0, 0.2)
    assert bounds(clock(0.1, target="authority"), clock(0.1)) == (0, 0.1)
    mix = [{"name": "clock", "drift": 0.2}, {"name": "clock", "drift": -0.1}, {"name": "crash"}]
    chaos = {"name": "chaos", "every": "2s", "mix": mix}
    assert bounds(chaos) == (-0.2, 0.4)
    assert bounds({"name": "crash", "at": "1s"}) == (0, 0)


def test_one_clock_runs_faster_than_another_by_both_drifts() -> None:
    assert Hazards(fastest=0.1, slowest=-0.1).clock_error == pytest.approx(1.1 / 0.9 - 1)
    assert Hazards(fastest=0.12).clock_error == 0.12
    assert Hazards(slowest=-1.0).clock_error == Hazards(steps=True).clock_error == math.inf


LATE = {"name": "empirical", "values": ["0s", "0s", "300ms", "950ms", "1s", "4s"]}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "every",
    ["300ms", "1s", "3s", {"name": "uniform", "low": "100ms", "high": "1s"}],
    ids=["often", "even", "seldom", "random"],
)
def test_no_plan_goes_beyond_the_bound_however_late_it_is_asked(every: Any, seed: int) -> None:
    lasts = {"name": "uniform", "low": "500ms", "high": "2s"}
    faults = load_mapping({"faults": [clock(-0.01, every=every, lasts=lasts)]}).faults
    struck = FaultPlan(faults, seed, END_NS, remembers=True)
    law = load_mapping({"system": {"network": {"delay": LATE}}}).system.params.network.delay
    late_ns = build(law).block(block_stream(seed, "late"), 500).tolist()
    chance, slowest, now_ns = scalar_stream(seed, "asked"), 0.0, 0
    while struck.next_wake_ns < 2**62:
        now_ns = max(now_ns, struck.next_wake_ns + round(chance.choice(late_ns)))
        for action in struck.wake(now_ns, ClusterState((0,), {})):
            assert isinstance(action, Burden)
            slowest = min(slowest, action.state.drift)
    bound = exposure(faults, END_NS).slowest
    assert bound - 1e-9 <= slowest < 0
    assert len(struck.strikes) >= 3


def refused(*faults: dict[str, Any], **system: Any) -> ConfigError:
    protocol = {"name": "raft", "reads": "lease", "clock_drift": 0.12}
    config = {
        "runtime": "sim",
        "system": {"protocol": protocol, "replicas": 3, "consistency": "linearizable"} | system,
        "warmup": "1s",
        "duration": "9s",
        "faults": list(faults),
    }
    with pytest.raises(ConfigError) as found:
        plan(load_mapping(config))
    return found.value


def test_a_lease_bears_no_drifts_that_add_up_to_more_than_its_bound() -> None:
    single = clock(0.12)
    for broken in (
        [clock(-0.1, every="200ms", lasts="700ms")],
        [clock(0.1), clock(-0.1, target="1")],
        [single, clock(0.01, target="any")],
    ):
        error = refused(*broken)
        assert error.path == "system.consistency"
        assert "faster than another, and a lease bears 12.0%" in str(error)
    config = {
        "runtime": "sim",
        "system": {
            "protocol": {"name": "raft", "reads": "lease", "clock_drift": 0.12},
            "replicas": 3,
            "consistency": "linearizable",
        },
        "faults": [single, clock(0.12, target="1"), clock(0.12, at="5s")],
    }
    assert plan(load_mapping(config)).circumstances.hazards.clock_error == 0.12


@pytest.mark.parametrize(
    ("faults", "path", "figure"),
    [
        ([clock(-0.5, every="1s", lasts="1500ms")], "faults[0]", "-1.5"),
        ([clock(-0.1, every="200ms", lasts="30s")], "faults[0]", "-4.5"),
        ([clock(-0.5), clock(-0.5, at="2s")], "faults[1]", "-1"),
        (
            [{"name": "chaos", "every": "1s", "mix": [{"name": "clock", "drift": -0.5}]}],
            "faults[0]",
            "-2",
        ),
    ],
)
def test_a_clock_that_could_stop_is_refused(
    faults: list[dict[str, Any]], path: str, figure: str
) -> None:
    error = refused(*faults)
    assert error.path == path
    assert f"to as little as {figure}" in str(error)
    assert "-0.99 is allowed" in str(error.hint)
