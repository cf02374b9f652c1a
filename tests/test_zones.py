"""Zones: round trips between places, in the simulator, and what a client near a replica gains."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from sim_faults import configured

from orchestrator.config.load import load_mapping
from orchestrator.core.machine import OK
from orchestrator.core.record import RunRecord
from orchestrator.core.registry import Family, plugins
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.errors import ConfigError
from orchestrator.runtimes import simulated
from orchestrator.runtimes._parts import Parts
from orchestrator.systems._zones import PUBLIC_CLOUD, Zones

TWO = {"names": ["near", "far"], "rtt": [["0s", "80ms"], ["80ms", "0s"]]}


def parts(zones: dict[str, Any], *overrides: str, protocol: Any = "unreplicated") -> Parts:
    """Nodes and links without any other delay."""
    return Parts.of(
        load_mapping(
            {
                "runtime": "sim",
                "system": {
                    "protocol": {"name": protocol},
                    "node": {"cpu": {"read": "0s", "write": "0s", "message": "0s"}},
                    "zones": zones,
                },
                "workload": {"name": "ycsb", "mix": "a", "keys": 4, "value_size": "8B"},
                "arrival": {"name": "closed", "sessions": 2, "think_time": "10ms"},
                "warmup": "0s",
                "duration": "2s",
            },
            *overrides,
        )
    )


def latencies_ms(record: RunRecord, client: int) -> set[float]:
    """The different latencies that a client saw."""
    rows = record.history.select(record.history.client == client)
    return {
        (int(returned) - int(invoked)) / NS_PER_MS
        for returned, invoked in zip(rows.returned_ns, rows.invoked_ns, strict=True)
    }


def test_a_client_pays_the_round_trip_to_the_zone_of_the_node() -> None:
    record = simulated.run(parts(TWO, "clients=2"))
    assert latencies_ms(record, 0) == {0.0}
    assert latencies_ms(record, 1) == {80.0}


def test_placement_names_the_zones() -> None:
    record = simulated.run(parts(TWO | {"nodes": ["far"], "clients": ["near"]}))
    assert latencies_ms(record, 0) == {80.0}


def test_distance_comes_on_top_of_the_delay_of_the_link() -> None:
    record = simulated.run(parts(TWO | {"clients": ["far"]}, "system.network.delay=3ms"))
    assert latencies_ms(record, 0) == {86.0}


def test_a_write_waits_for_the_far_backup() -> None:
    far = parts(TWO | {"clients": ["near"]}, "system.replicas=2", protocol="primary_backup")
    assert max(latencies_ms(simulated.run(far), 0)) == 80.0


def test_the_nearest_replica_is_asked_where_that_is_wanted() -> None:
    def seen(*overrides: str) -> set[float]:
        any_node = ("system.protocol.read_from=any", "workload.mix=c", "system.replicas=2")
        planned = parts(TWO, *any_node, *overrides, protocol="primary_backup")
        return latencies_ms(simulated.run(planned), 0)

    assert seen() == {0.0, 80.0}
    assert seen("client.nearest=true") == {0.0}


@pytest.mark.parametrize("protocol", plugins(Family.PROTOCOL))
def test_a_long_way_costs_latency_and_no_throughput(protocol: str) -> None:
    regions = {"preset": PUBLIC_CLOUD, "names": ["washington_dc", "london", "tokyo"]}
    replicas = 1 if protocol == "unreplicated" else 3
    planned = parts(
        regions,
        f"system.replicas={replicas}",
        "clients=3",
        "client.nearest=true",
        "workload.keys=200",
        "arrival={name: constant, rate: 600/s}",
        protocol=protocol,
    )
    history = simulated.run(planned).history
    assert set(history.outcome.tolist()) == {OK}
    # The longest way within is that of a write through the chain, twice; and a resend of it.
    assert (history.returned_ns - history.intended_ns).max() < NS_PER_S


def test_the_preset_is_a_metric_of_its_regions() -> None:
    zones = Zones(preset=PUBLIC_CLOUD)
    names = zones.all_names
    assert len(names) == 10
    for one, other in itertools.product(names, repeat=2):
        there_ns = zones.one_way_ns(one, other)
        assert there_ns == zones.one_way_ns(other, one) > 0
        assert (there_ns < NS_PER_MS) == (one == other)
    assert zones.one_way_ns("washington_dc", "london") == 75 * NS_PER_MS // 2
    assert zones.one_way_ns("madrid", "toronto") == 54 * NS_PER_MS
    assert zones.one_way_ns("osaka", "tokyo") * 2 == 9 * NS_PER_MS


def test_a_subset_of_the_preset_keeps_its_order() -> None:
    zones = Zones(preset=PUBLIC_CLOUD, names=("tokyo", "london"))
    assert [zones.of_node(node, 3) for node in range(4)] == ["tokyo", "london", "tokyo", "tokyo"]
    assert [zones.of_client(client) for client in range(2)] == ["tokyo", "london"]


@pytest.mark.parametrize(
    ("zones", "path", "message"),
    [
        ({"names": ["a"], "rtt": []}, "system.zones.rtt", "1 names need 1 rows"),
        (
            {"names": ["a", "b"], "rtt": [["0s", "1ms"], ["2ms", "0s"]]},
            "system.zones.rtt",
            "differs from that back",
        ),
        (
            {"preset": PUBLIC_CLOUD, "names": ["mars"]},
            "system.zones.names",
            "unknown region 'mars'",
        ),
        ({"preset": "mars"}, "system.zones.preset", "unknown value 'mars'"),
        (TWO | {"nodes": ["there"]}, "system.zones.nodes", "there is no zone 'there'"),
        (TWO | {"names": ["far", "far"]}, "system.zones.names", "named twice"),
    ],
)
def test_wrong_zones_are_refused(zones: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parts(zones)
    assert caught.value.path == path


def test_zones_survive_rendering() -> None:
    from orchestrator.config.render import render_yaml

    config = configured(1, {"zones": TWO})
    from omegaconf import OmegaConf

    again = load_mapping(OmegaConf.to_container(OmegaConf.create(render_yaml(config))))  # type: ignore[arg-type]
    assert again == config
