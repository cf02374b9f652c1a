"""The queueing model of a configuration against the simulator, and what it says beside a run."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy
import pytest

from orchestrator.analysis.latency import histograms, measured_window
from orchestrator.analysis.laws import Law, latest_of_earlier
from orchestrator.analysis.model import Prediction, beside, predict, shares_of
from orchestrator.analysis.resources import bottleneck, utilisations
from orchestrator.config.load import load_mapping
from orchestrator.config.schema import Config
from orchestrator.core.distributions import build
from orchestrator.core.registry import Family, plugins
from orchestrator.plan import plan
from orchestrator.runtimes import simulated

EXACT = 1e-6
NODE = {"cpu": {"read": "100us", "write": "200us", "message": "20us"}}


def config(system: dict[str, Any], rate: float = 100, *overrides: str, **changes: Any) -> Config:
    base: dict[str, Any] = {
        "experiment": "model",
        "runtime": "sim",
        "system": {"node": {"cpu": {"read": "100us", "write": "200us", "message": "20us"}}}
        | system,
        "workload": {"name": "ycsb", "mix": "c", "keys": 1000, "distribution": "uniform"},
        "arrival": {"name": "poisson", "rate": f"{rate!r}/s"},
        "check": {"level": "none"},
        "client": {"timeout": "10s"},
        "warmup": "200ms",
    }
    return load_mapping(base | changes, *overrides)


def predicted(made: Config, rate: float | None = None, **options: Any) -> Prediction | None:
    parts = plan(made)
    asked = getattr(made.arrival.params, "rate", None) if rate is None else rate
    return predict(made, parts.arrival, shares_of(parts.workload, made), asked, **options)


def sure(made: Config, **options: Any) -> Prediction:
    found = predicted(made, **options)
    assert found is not None
    return found


# --- closed forms -----------------------------------------------------------------------


@pytest.mark.parametrize(("load", "factor"), [(0.5, 2), (0.8, 5), (0.9, 10)])
def test_one_node_is_m_m_1(load: float, factor: float) -> None:
    cpu = {"read": {"name": "exponential", "mean": "1ms"}}
    found = sure(config({"node": {"cpu": cpu}}, 1000 * load))
    assert found.capacity_ops == pytest.approx(1000, rel=EXACT)
    assert found.utilisation == pytest.approx(load, rel=EXACT)
    # The variance of an exponential law is that of draws.
    assert found.mean_latency_ms == pytest.approx(factor, rel=0.01)


def test_one_node_is_m_d_1_with_its_way_there_and_back() -> None:
    system = {"node": {"cpu": {"read": "1ms"}}, "network": {"delay": "250us"}}
    for load, factor in ((0.5, 1.5), (0.8, 3), (0.9, 5.5)):
        found = sure(config(system, 1000 * load))
        assert found.mean_latency_ms == pytest.approx(factor + 0.5, rel=EXACT)


def test_the_bottleneck_of_raft() -> None:
    """A leader of n nodes takes the operation and n - 1 answers of 20 us; heartbeats of 50 ms."""
    for replicas in (1, 3, 5):
        system = {"protocol": {"name": "raft"}, "replicas": replicas}
        found = sure(config(system))
        per_operation_s = 100e-6 + (replicas - 1) * 20e-6
        beats = 0.0 if replicas == 1 else (replicas - 1) * 20 * 20e-6
        assert found.demands_s["n0.cpu"] == pytest.approx(per_operation_s, rel=EXACT)
        assert found.capacity_ops == pytest.approx((1 - beats) / per_operation_s, rel=EXACT)
        assert found.resource == "n0.cpu"


def test_demands_add_up_over_kinds_levels_and_cores() -> None:
    """Half reads at the leader, half writes: 150 us and an answer an operation, on fast cores."""
    node = {
        "cores": 2, "speed": 2.0,
        "cpu": {"read": "100us", "write": "200us", "message": "20us"},
    }  # fmt: skip
    system = {"protocol": {"name": "multi_paxos", "reads": "lease"}, "replicas": 3, "node": node}
    shares = {"name": "ycsb", "shares": {"read": 0.5, "update": 0.5}, "keys": 100}
    found = sure(config(system, 100, workload=shares))
    assert found.demands_s["n0.cpu"] == pytest.approx((150e-6 + 20e-6) / 2, rel=0.02)
    assert found.demands_s["n1.cpu"] == pytest.approx(10e-6 / 2, rel=0.05)
    # Reads that may be weak are spread over all nodes.
    weak = config(system, 100, workload=shares, client={"reads": {"sequential": 1.0}})
    asked = sure(weak).demands_s
    assert asked["n0.cpu"] == pytest.approx((50e-6 / 3 + 100e-6 + 20e-6) / 2, rel=0.03)
    assert asked["n1.cpu"] == pytest.approx((50e-6 / 3 + 10e-6) / 2, rel=0.03)


def test_storage_may_be_the_bottleneck() -> None:
    storage = {"read": {"name": "exponential", "mean": "2ms"}, "parallel": 4}
    cpu = {"read": "100us"}
    plain = sure(config({"node": {"cpu": cpu, "storage": storage}}))
    assert plain.resource == "n0.storage"
    assert plain.capacity_ops == pytest.approx(2000, rel=EXACT)
    cached = {"node": {"cpu": cpu, "storage": storage}, "cache": {"name": "lru", "size": 100}}
    found = sure(config(cached), hit_ratio=0.9)
    assert found.demands_s["n0.storage"] == pytest.approx(0.2e-3, rel=EXACT)
    assert found.capacity_ops == pytest.approx(10_000, rel=EXACT)


def test_what_is_still_under_way_when_the_next_one_begins() -> None:
    """Constant durations d: the last is there for max(0, d - age), its mean d - (1 - e^-rd) / r."""
    law = config({"network": {"delay": "2ms"}}).system.params.network.delay
    for rate in (10.0, 500.0, 5000.0):
        drawn = latest_of_earlier(Law(law).ordered(), rate, "test", (200_000,))
        mean = 2e-3 - (1 - math.exp(-2e-3 * rate)) / rate
        assert drawn.mean() == pytest.approx(mean, rel=0.02)
    assert not latest_of_earlier(Law(law).ordered(), 0.0, "test", (10,)).any()


def test_links_in_order_hold_messages_up() -> None:
    """Exponential delays at a high rate, against a run through them one by one."""
    law = config({"network": {"delay": {"name": "exponential", "mean": "1ms"}}})
    slot = law.system.params.network.delay
    chance = numpy.random.default_rng(5)
    starts = chance.exponential(1 / 2000, 100_000).cumsum()
    arrivals = numpy.maximum.accumulate(starts + build(slot).block(chance, 100_000) / 1e9)
    drawn = Law(slot).draw("delays", (100_000,))
    held = latest_of_earlier(Law(slot).ordered(), 2000, "order", (100_000,))
    assert numpy.maximum(drawn, held).mean() == pytest.approx((arrivals - starts).mean(), rel=0.03)


# --- against the simulator --------------------------------------------------------------

CASES = [
    ({"protocol": {"name": "raft"}, "replicas": 3}, 0.7),
    ({"protocol": {"name": "chain"}, "replicas": 4}, 0.6),
    ({"protocol": {"name": "quorum"}, "replicas": 5}, 0.6),
    ({"protocol": {"name": "epaxos"}, "replicas": 3}, 0.5),
    ({"protocol": {"name": "primary_backup", "read_from": "any"}, "replicas": 3}, 0.5),
    ({"protocol": {"name": "causal"}, "replicas": 3, "balancer": {"name": "random"}}, 0.7),
    ({"protocol": {"name": "raft"}, "replicas": 3, "shards": 4, "nodes": 4}, 0.5),
]


@pytest.mark.parametrize(("system", "load"), CASES)
def test_the_model_and_the_simulator_agree(system: dict[str, Any], load: float) -> None:
    """docs/models.md has many more of these, with longer runs."""
    shares = {"name": "ycsb", "shares": {"read": 0.5, "update": 0.5}, "keys": 1000,
              "distribution": "uniform"}  # fmt: skip
    system = system | {"network": {"delay": "200us"}}
    capacity = sure(config(system, workload=shares)).capacity_ops
    made = config(system, load * capacity, f"duration={6000 / capacity / load:.6f}s",
                  workload=shares)  # fmt: skip
    found, record = sure(made), simulated.run(plan(made))
    busiest = bottleneck([utilisations(record, "modelled")])
    mean_ms = histograms(measured_window(record, made.client.timeout))["all"].figures_ms()["mean"]
    assert busiest is not None
    assert busiest["utilisation"] == pytest.approx(found.utilisation, rel=0.06)
    assert mean_ms == pytest.approx(found.mean_latency_ms, rel=0.10)


@pytest.mark.parametrize("name", sorted(plugins(Family.PROTOCOL)))
def test_every_protocol_here_declares_what_it_asks_of_the_nodes(name: str) -> None:
    found = plugins(Family.PROTOCOL)[name]
    for replicas in (1,) if name == "unreplicated" else (1, 2, 3, 5):
        for level in ("", "linearizable", "eventual"):
            said = found.implementation.demands(found.params(), replicas, level)
            for demand in (said.read, said.write):
                assert demand.at and set(demand.at) <= set(range(replicas))
            assert len(said.background_per_s) in (0, replicas)
        made = config({"protocol": {"name": name}, "replicas": replicas})
        alone = sure(made)
        assert alone.capacity_ops > 0 and alone.mean_latency_ms is not None


# --- where there is none ----------------------------------------------------------------


@pytest.mark.parametrize(
    "system",
    [
        {"node": {"costs": "measured"}},
        {"protocol": {"name": "raft"}, "replicas": 3, "nodes": 4},
    ],
)
def test_what_has_no_model(system: dict[str, Any]) -> None:
    made = load_mapping(
        {"experiment": "none", "system": system, "arrival": {"name": "poisson", "rate": "9/s"}}
    )
    assert predicted(made) is None
    assert beside(None, {}) is None


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["arrival={name: closed, sessions: 4}"], "closed"),
        (["system.batch.max=4"], "system.batch"),
        (["client.retry.attempts=2"], "client.retry"),
        (["faults=[{name: clock, target: any, at: 1s, offset: 1ms}]"], "faults"),
    ],
)
def test_why_nothing_is_said_of_utilisation(overrides: list[str], words: str) -> None:
    found = sure(config({}, 100, *overrides))
    assert found.utilisation is None and found.mean_latency_ms is None
    assert found.reason is not None and words in found.reason
    assert found.capacity_ops > 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["system.network.loss=0.01"], "loss"),
        (["system.network.jitter=1ms"], "jitter"),
        (["system.node.queue={name: fifo}"], "queue"),
        (["arrival={name: bursty, burst: 100/s}"], "changes"),
        (["arrival.rate=20000/s"], "more load than capacity"),
    ],
)
def test_why_nothing_is_said_of_latency(overrides: list[str], words: str) -> None:
    found = sure(config({}, 100, *overrides), rate=20_000 if "20000" in overrides[0] else 100)
    assert found.utilisation is not None and found.mean_latency_ms is None
    assert found.reason is not None and words in found.reason


def test_a_balancer_that_listens_is_not_modelled_where_it_has_a_choice() -> None:
    many = {"protocol": {"name": "causal"}, "replicas": 3, "balancer": {"name": "power_of_d"}}
    found = sure(config(many))
    assert found.utilisation is None and "power_of_d" in str(found.reason)
    one = {"protocol": {"name": "raft"}, "replicas": 3, "balancer": {"name": "power_of_d"}}
    assert sure(config(one)).utilisation is not None


# --- beside a run -----------------------------------------------------------------------


def figures(**changes: Any) -> dict[str, Any]:
    prediction = Prediction(1000.0, "n0.cpu", {}, 0.5, 2.0, None)
    return prediction.figures() | changes


def run(
    ops: float | None, busy: float | None, mean_ms: float | None, clock: str = "virtual"
) -> Any:
    return {
        "throughput_ops": ops,
        "bottleneck": None if busy is None else {"resource": "n0.cpu", "utilisation": busy},
        "latency_ms": {"all": {"mean": mean_ms}},
        "clock": clock,
    }


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (run(500, 0.5, 2.0), None),
        (run(1040, 0.5, 2.4), None),
        (run(1060, 0.5, 2.0), "1060.0 operations/s were served, and n0.cpu can serve 1000.0/s"),
        (run(500, 0.56, 2.0), "used to 56.0%, where the model says 50.0%"),
        (run(500, 0.5, 2.6), "2.600 ms, where the model says 2.000 ms (allowed: 0.500 ms"),
        (run(500, 0.5, 1.4), "the mean latency was 1.400 ms"),
        (run(500, 0.5, 3.4, "real"), None),
        (run(None, None, None), None),
    ],
)
def test_a_run_that_contradicts_the_model(measured: dict[str, Any], words: str | None) -> None:
    found = beside(figures(), measured)
    assert found is not None
    said = found["contradiction"]
    assert said is None if words is None else words in said


def test_near_saturation_no_mean_is_held_against_a_run() -> None:
    found = beside(figures(utilisation=0.9), run(900, 0.9, 40.0))
    assert found is not None and found["contradiction"] is None
    assert found["measured_over_model"]["mean_latency"] == 20.0


def test_ratios_are_null_where_a_side_is_missing() -> None:
    found = beside(figures(mean_latency_ms=None), run(500, None, 2.0))
    assert found is not None
    assert found["measured_over_model"] == {
        "capacity": 0.5, "utilisation": None, "mean_latency": None,
    }  # fmt: skip


def test_a_run_says_what_the_model_says(tmp_path: Any) -> None:
    from orchestrator.run import Runner

    made = config({"protocol": {"name": "raft"}, "replicas": 3}, 1000, "duration=1s")
    with Runner(tmp_path) as runner:
        one = runner.run(made).summary["model"]
        assert one["contradiction"] is None and one["resource"] == "n0.cpu"
        assert one["measured_over_model"]["mean_latency"] == pytest.approx(1, abs=0.1)
        both = runner.run_repeated(made, 2).summary
    assert both["model"]["capacity_ops"] == one["capacity_ops"]
    ratio = both["latency_ms"]["all"]["mean"] / one["mean_latency_ms"]
    assert both["model"]["measured_over_model"]["mean_latency"] == pytest.approx(ratio)
    assert json.loads(json.dumps(both["model"], allow_nan=False)) == both["model"]
