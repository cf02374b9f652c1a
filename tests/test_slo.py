"""Service level objectives by kind of operation, and within windows."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from made_records import config, record, steady, summary_of
from numpy.typing import NDArray

from orchestrator.analysis.goodput import longest_bound_ns
from orchestrator.analysis.slo import bounded
from orchestrator.analysis.summary import pool
from orchestrator.config.load import load_mapping
from orchestrator.config.schema import SLO_KINDS, LatencyBounds, Slo, TenantBounds, WindowBounds
from orchestrator.core.history import DTYPES
from orchestrator.core.machine import ADD, INCREMENT, KIND_NAMES, SCAN, TRANSACTION
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.errors import ConfigError
from orchestrator.plan import plan
from orchestrator.report.wording import metric_name
from orchestrator.run import execute
from orchestrator.study.verdict import constraints_of, slo_bounds

BOUND_NS = 5 * NS_PER_MS


@pytest.mark.parametrize("kind", [SCAN, INCREMENT, ADD, TRANSACTION])
def test_every_kind_has_bounds_of_its_own(kind: int) -> None:
    name = KIND_NAMES[kind]
    assert name in SLO_KINDS
    kinds = numpy.zeros(10_000, dtype=DTYPES["kind"])
    kinds[::2] = kind
    latency_ns = numpy.where(kinds == kind, 10, 1) * NS_PER_MS
    whole = steady(10_000, 10 * NS_PER_S, latency_ns, kind=kinds)
    objective = Slo(p50=BOUND_NS, **{name: LatencyBounds(p99=BOUND_NS)})  # type: ignore[arg-type]
    found = summary_of(record(whole), config(slo=objective))
    assert [(each["metric"], each["value"]) for each in found["slo"]["violations"]] == [
        (f"{name}.p99", pytest.approx(10, rel=2e-3))
    ]
    assert found["goodput_ops"] == pytest.approx(500, rel=2e-3)
    assert longest_bound_ns(objective) == BOUND_NS
    bounds = slo_bounds(config(slo=objective))
    assert bounds[f"{name}.p99"] == (f"latency_ms.{name}.p99", 5.0)
    assert constraints_of(found, config(slo=objective))[f"slo.{name}.p99"] > 0


def windowed(share: float, **bounds: int) -> Slo:
    return Slo(windows=WindowBounds(**bounds, length=NS_PER_S // 2, share=share))


def stalls(*windows: int) -> NDArray[numpy.int64]:
    """Latencies of 1,000/s over 10 s: 3 % of each of these half seconds of the 16 are slow."""
    latency_ns = numpy.full(10_000, NS_PER_MS)
    for window in windows:
        start = 2000 + 500 * window
        latency_ns[start : start + 15] = 100 * NS_PER_MS
    return latency_ns


def test_bounds_hold_in_a_share_of_the_windows() -> None:
    whole = record(steady(10_000, 10 * NS_PER_S, stalls(0, 7, 15)))
    for share, met in ((1.0, False), (0.82, False), (0.81, True)):
        objective = windowed(share, p99=BOUND_NS)
        found = summary_of(whole, config(slo=objective))["slo"]
        assert (found["met"], found["windows"]) == (met, {"p99": pytest.approx(3 / 16)})
        wanted = {"metric": "windows.p99", "value": 3 / 16, "unit": "ratio", "reason": None}
        wanted["bound"] = pytest.approx(1 - share, abs=1e-12)
        assert found["violations"] == ([] if met else [wanted])
    # The whole run's p99 does not see them: 45 of 8,000.
    assert summary_of(whole, config(slo=Slo(p99=BOUND_NS)))["slo"]["met"] is True
    more = windowed(1.0, p50=BOUND_NS, p99=BOUND_NS, max=BOUND_NS)
    held = summary_of(whole, config(slo=more))["slo"]["windows"]
    assert held == {"p50": 0.0, "p99": pytest.approx(3 / 16), "max": pytest.approx(3 / 16)}


def test_windows_are_cut_from_the_start_of_the_measured_one() -> None:
    # A slow stretch before the measured window, and one in what is left over at its end.
    latency_ns = stalls()
    latency_ns[:2000] = latency_ns[9850:] = 100 * NS_PER_MS
    objective = Slo(windows=WindowBounds(max=BOUND_NS, length=870 * NS_PER_MS, share=1.0))
    found = summary_of(record(steady(10_000, 10 * NS_PER_S, latency_ns)), config(slo=objective))
    assert (found["slo"]["met"], found["slo"]["windows"]) == (True, {"max": 0.0})


def test_windows_without_operations_hold_and_repeats_are_pooled() -> None:
    early = steady(6000, 3 * NS_PER_S, 100 * NS_PER_MS)
    objective = windowed(1.0, p50=BOUND_NS)
    settings = config(slo=objective)
    one = record(early)
    assert summary_of(one, settings)["slo"]["windows"] == {"p50": pytest.approx(2 / 16)}
    other = record(steady(10_000, 10 * NS_PER_S))
    runs = [one, other]
    pooled = pool([summary_of(run, settings) for run in runs], runs, settings)
    assert pooled["slo"]["windows"] == {"p50": pytest.approx(2 / 32)}


def test_windows_constrain_a_study_and_have_a_name() -> None:
    settings = config(slo=windowed(0.9, p99=BOUND_NS))
    assert slo_bounds(settings) == {"windows.p99": ("slo.windows.p99", 0.1)}
    slow = summary_of(record(steady(10_000, 10 * NS_PER_S, stalls(0, 7, 15))), settings)
    assert constraints_of(slow, settings)["slo.windows.p99"] == pytest.approx(3 / 16 / 0.1 - 1)
    good = summary_of(record(steady(10_000, 10 * NS_PER_S, stalls(3))), settings)
    assert constraints_of(good, settings)["slo.windows.p99"] < 0
    name = metric_name("slo.windows.p999")
    assert (name.label, name.unit) == ("Share of windows above the bound of p99.9 latency", "%")


def test_a_tenant_without_a_bound_asks_for_nothing() -> None:
    assert not bounded(Slo(windows=WindowBounds(length=NS_PER_S), tenants={"gold": TenantBounds()}))
    for asked in (TenantBounds(error_rate=0.0), TenantBounds(p99=BOUND_NS)):
        assert bounded(Slo(tenants={"gold": asked}))
    assert bounded(Slo(windows=WindowBounds(max=BOUND_NS)))
    assert bounded(Slo(scan=LatencyBounds(p50=BOUND_NS)))
    assert bounded(Slo(error_rate=0.0))


def test_bounds_of_windows_come_from_a_configuration() -> None:
    given: dict[str, Any] = {
        "runtime": "sim",
        "workload": {"name": "ycsb", "mix": "e", "keys": 100},
        "warmup": "0s",
        "duration": "300ms",
        "slo": {"scan": {"p50": "1ns"}, "windows": {"p99": "1ns", "length": "100ms"}},
    }
    parts = plan(load_mapping(given))
    found = summary_of(execute(parts), parts.config)
    assert [each["metric"] for each in found["slo"]["violations"]] == ["scan.p50", "windows.p99"]
    assert found["slo"]["windows"] == {"p99": 1.0}
    given["slo"] = {"windows": {"p99": "1s", "length": "301ms"}}
    with pytest.raises(ConfigError, match="longer than the measured window") as caught:
        plan(load_mapping(given))
    assert caught.value.path == "slo.windows.length"
    given["slo"] = {"windows": {"length": "301ms"}}
    assert plan(load_mapping(given)).config.slo.windows.p99 is None, "nothing is bounded"
    for wrong in ({"share": 1.1}, {"p99": "-1ms"}, {"length": "0s"}, {"error_rate": 0.1}):
        with pytest.raises(ConfigError, match=r"^slo\.windows\."):
            load_mapping({"slo": {"windows": wrong}})
