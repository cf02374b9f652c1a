"""Speed and prices of nodes, and what the variants of a sweep do for their price."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import node, record
from rich.console import Console

from orchestrator._sweep_terminal import draw_costs, show_sweep
from orchestrator.analysis.efficiency import efficiency, frontier
from orchestrator.analysis.resources import cost_per_hour
from orchestrator.cli import main
from orchestrator.config.load import ConfigSource, load_mapping
from orchestrator.core.units import NS_PER_MS
from orchestrator.errors import ConfigError
from orchestrator.run import Runner
from orchestrator.runtimes import simulated
from orchestrator.runtimes._parts import Parts
from orchestrator.sweep import sweep

# --- speed and prices -------------------------------------------------------------------


def took_ms(speed: float, rate: str) -> float:
    config = {
        "runtime": "sim",
        "system": {"node": {"speed": speed, "cpu": {"read": EXPONENTIAL}}},
        "workload": {"name": "ycsb", "mix": "c", "keys": 100},
        "arrival": {"name": "poisson", "rate": rate},
        "warmup": "1s",
        "duration": "20s",
    }
    history = simulated.run(Parts.of(load_mapping(config))).history
    return float((history.returned_ns - history.intended_ns).mean()) / NS_PER_MS


EXPONENTIAL = {"name": "exponential", "mean": "4ms"}


def test_a_core_of_four_times_the_speed_is_that_of_a_quarter_of_the_cost() -> None:
    """M/M/1 with a mean service of 1 ms at 70 % load: 1 / (1 - 0.7) ms (Kleinrock, volume 1)."""
    assert took_ms(4, "700/s") == pytest.approx(1 / 0.3, rel=0.08)
    assert took_ms(1, "175/s") == pytest.approx(4 / 0.3, rel=0.12)


def test_messages_and_writes_are_faster_too_and_storage_is_not() -> None:
    cpu = {"read": "4ms", "write": "4ms", "message": "2ms"}
    found = {}
    for speed in (1, 2):
        config = {
            "runtime": "sim",
            "system": {
                "protocol": {"name": "primary_backup", "mode": "sync", "failover": False},
                "replicas": 2,
                "node": {"speed": speed, "cpu": cpu, "storage": {"write": "1ms"}},
            },
            "workload": {"name": "ycsb", "shares": {"update": 1}, "keys": 10},
            "arrival": {"name": "closed", "sessions": 1},
            "warmup": "0s",
            "duration": "500ms",
        }
        history = simulated.run(Parts.of(load_mapping(config))).history
        found[speed] = numpy.unique(history.returned_ns - history.invoked_ns).tolist()
    # 4 ms for the write, 2 for its copy, 2 for the acknowledgement; 1 ms of storage at both.
    assert found[1] == [10 * NS_PER_MS]
    assert found[2] == [6 * NS_PER_MS]


def test_nodes_cores_and_speed_have_their_prices() -> None:
    config = load_mapping(
        {
            "system": {"node": {"cores": 4, "speed": 4}},
            "prices": {"node": 1, "core": 0.5, "speed_exponent": 1.5},
        }
    )
    nodes = tuple(node(number, "", 1, cores=4) for number in range(3))
    assert cost_per_hour(record(nodes=nodes), config) == pytest.approx(3 * 1 + 12 * 0.5 * 8)


def test_what_is_asked_of_nodes_is_not_asked_of_their_authority() -> None:
    """It is no part of the load, and its costs are not modelled."""
    config = {
        "runtime": "sim",
        "system": {
            "protocol": {"name": "primary_backup", "mode": "sync"},
            "replicas": 2,
            "node": {"speed": 2, "queue": {"name": "fifo"}, "back_pressure": True},
        },
        "arrival": {"name": "closed", "sessions": 1},
        "warmup": "0s",
        "duration": "50ms",
    }
    assert len(simulated.run(Parts.of(load_mapping(config))).history) > 10


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"system": {"node": {"speed": 0}}}, "system.node.speed"),
        ({"system": {"node": {"speed": 2, "costs": "measured"}}}, "system.node.speed"),
        ({"prices": {"node": -1}}, "prices.node"),
        ({"prices": {"speed_exponent": -1}}, "prices.speed_exponent"),
    ],
)
def test_bad_input(config: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_mapping(config)
    assert caught.value.path == path


# --- the frontier -----------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_what_is_efficient_is_beaten_by_nothing_and_what_is_not_by_something_efficient(
    places: list[tuple[int, int]],
) -> None:
    marked = frontier(places)
    best = [place for place, efficient in zip(places, marked, strict=True) if efficient]
    for (cost, value), efficient in zip(places, marked, strict=True):
        better = [
            other for other in best if other[0] <= cost and other[1] >= value
            if other != (cost, value)
        ]  # fmt: skip
        assert efficient == (value > 0 and not better)


def run(
    cores: int, offered_ops: float | None, *, met: bool | None = True, valid: bool = True,
    goodput_ops: float | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """One of a sweep over cores and the rate; a core costs 2."""
    values = {"system.node.cores": cores, "arrival.rate": f"{offered_ops}/s"}
    summary = {
        "cost": 2.0 * cores,
        "valid": valid,
        "slo": {"met": met},
        "offered_ops": offered_ops,
        "goodput_ops": offered_ops if goodput_ops is None else goodput_ops,
        "latency_ms": {"all": {"p99": 5.0}},
    }
    return values, summary


def test_a_variant_does_the_largest_load_that_it_carried_within_its_objective() -> None:
    found = efficiency(
        [
            run(2, 100), run(2, 200), run(2, 300, met=False),
            run(1, 100), run(1, 200, valid=False), run(1, 300, met=False),
            run(4, 100), run(4, 200), run(4, 300, goodput_ops=299),
            run(8, 100), run(8, 200), run(8, 300, goodput_ops=301),
        ]
    )  # fmt: skip
    assert found is not None
    told = [(each["cost"], each["capacity_ops"], each["at_least"]) for each in found]
    assert told == [(2, 100, False), (4, 200, False), (8, 300, True), (16, 300, True)]
    # Both of the last carried all; that one measured a little more is chance.
    assert [each["efficient"] for each in found] == [True, True, True, False]
    assert found[0]["values"] == {"system.node.cores": 1}
    assert found[1]["per_cost"] == 50


def test_without_an_objective_it_is_the_highest_goodput() -> None:
    runs = [run(1, each, met=None, goodput_ops=min(each, 150)) for each in (100, 200, 300)]
    found = efficiency(runs)
    assert found is not None
    assert [(each["capacity_ops"], each["at_least"]) for each in found] == [(150, False)]
    closed = efficiency([run(1, None, goodput_ops=70), run(2, None, goodput_ops=60)])
    assert closed is not None
    assert [each["capacity_ops"] for each in closed] == [70, 60]
    assert [each["efficient"] for each in closed] == [True, False]


def test_what_meets_its_objective_at_no_load_is_not_efficient() -> None:
    found = efficiency([run(1, 100, met=False), run(2, 100)])
    assert found is not None
    assert [(each["capacity_ops"], each["efficient"]) for each in found] == [
        (0, False),
        (100, True),
    ]
    assert found[0]["p99_ms"] is None


def test_without_prices_there_is_nothing_to_tell() -> None:
    values, summary = run(1, 100)
    assert summary["cost"]
    assert efficiency([(values, summary | {"cost": 0.0})]) is None


# --- a sweep ----------------------------------------------------------------------------

SMALL = """\
experiment: cheap
runtime: sim
system: {node: {cpu: {read: 1ms, write: 1ms}}}
prices: {core: 1}
workload: {name: ycsb, mix: c, keys: 100}
warmup: 100ms
duration: 1s
slo: {p99: 20ms}
arrival: {name: poisson, rate: 300/s}
"""


def test_a_sweep_over_cores_and_loads_says_what_is_worth_its_price(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cheap.yaml").write_text(SMALL)
    source = ConfigSource.read(str(tmp_path / "cheap.yaml"))
    axes: dict[str, list[Any]] = {
        "system.node.cores": [1, 2, 8],
        "arrival.rate": ["500/s", "1500/s"],
    }
    done = sweep(source, axes, Runner(results=str(tmp_path / "results")))
    found = done.as_json()["efficiency"]
    told = [(each["cost"], each["capacity_ops"], each["efficient"]) for each in found]
    assert told == [(1, 500, True), (2, 1500, True), (8, 1500, False)]
    figure = draw_costs(done, "cheap")
    assert figure is not None
    assert Path(figure).read_bytes().startswith(b"\x89PNG")
    out = Console(file=io.StringIO(), width=160)
    show_sweep(out, done, figure)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("efficient") == 2
    assert "≥ 1,500" in text
    # The same by the command, which takes the runs from the results.
    command = [f"{path}={','.join(map(str, values))}" for path, values in axes.items()]
    results = ["--results", str(tmp_path / "results")]
    assert main(["sweep", str(tmp_path / "cheap.yaml"), *command, *results]) == 0
    assert figure in capsys.readouterr().out


def test_a_sweep_without_prices_has_no_such_table(tmp_path: Path) -> None:
    (tmp_path / "cheap.yaml").write_text(SMALL.replace("prices: {core: 1}\n", ""))
    source = ConfigSource.read(str(tmp_path / "cheap.yaml"))
    done = sweep(source, {"seed": [1, 2]}, Runner(results=str(tmp_path / "results")))
    assert done.as_json()["efficiency"] is None
    assert draw_costs(done, "cheap") is None
