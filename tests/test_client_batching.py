"""Operations of a client for one node that travel as one request."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from orchestrator.config.load import load_mapping
from orchestrator.core.keys import KEY_LENGTH
from orchestrator.core.machine import FAIL, OK, UNKNOWN
from orchestrator.core.record import RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.core.verdict import VALID, Evidence, check_claims
from orchestrator.errors import ConfigError
from orchestrator.run import Runner
from orchestrator.runtimes import simulated
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._simulated_client import HEADER_BYTES

STEADY = {"name": "constant", "rate": "1000/s"}
READS = {"name": "ycsb", "mix": "c", "keys": 100}


def parts(batch: dict[str, Any], client: dict[str, Any] | None = None, **root: Any) -> Parts:
    """Ten operations a millisecond for a node that serves them at once, 1 ms away."""
    config = {
        "runtime": "sim",
        "system": {
            "protocol": {"name": "unreplicated"},
            "node": {"cores": 64, "cpu": {"read": "1us", "write": "1us"}},
            "network": {"delay": "1ms"},
        },
        "client": {"connections": 1, "batch": batch} | (client or {}),
        "workload": {"name": "ycsb", "mix": "a", "keys": 100},
        "arrival": {"name": "constant", "rate": "10000/s"},
        "warmup": "0s",
        "duration": "200ms",
    }
    return Parts.of(load_mapping(config | root))


def per_request(record: RunRecord) -> float:
    requests = sum(client.carried[0] for client in record.clients)
    return sum(client.carried[1] for client in record.clients) / requests


def took_ms(record: RunRecord) -> numpy.ndarray[Any, numpy.dtype[numpy.float64]]:
    return (record.history.returned_ns - record.history.intended_ns) / NS_PER_MS


def test_a_full_request_leaves_at_once_and_one_that_lingers_in_the_end() -> None:
    full = simulated.run(parts({"max": 4, "linger": "5ms"}))
    assert per_request(full) == 4
    # The first of four waits for three gaps of 100 us, the last for none.
    waited = numpy.sort(numpy.unique(numpy.round(took_ms(full) - 2.001, 3)))
    numpy.testing.assert_allclose(waited, [0, 0.1, 0.2, 0.3], atol=0.001)
    lingering = simulated.run(parts({"max": 100, "linger": "450us"}))
    assert per_request(lingering) == 5
    waited = numpy.sort(numpy.unique(numpy.round(took_ms(lingering) - 2.001, 3)))
    numpy.testing.assert_allclose(waited, [0.05, 0.15, 0.25, 0.35, 0.45], atol=0.001)


def test_one_request_is_one_chance_of_a_loss() -> None:
    """On a network that loses a tenth, operations that travel together are lost together."""
    network = {"delay": "1ms", "loss": 0.1, "delays": {}}
    system = {"protocol": {"name": "unreplicated"}, "network": network}
    client = {"timeout": "100ms"}
    made = parts(
        {"max": 10, "linger": "10ms"}, client, system=system, arrival=STEADY, duration="4s"
    )
    history = simulated.run(made).history
    lost = (history.outcome != OK).reshape(-1, 10)
    together = (lost.sum(axis=1) == 10).mean()
    assert together == pytest.approx(0.1, abs=0.05)
    alone = simulated.run(parts({}, client, system=system, arrival=STEADY, duration="4s")).history
    assert ((alone.outcome != OK)[:4000].reshape(-1, 10).sum(axis=1) == 10).mean() == 0


def test_the_bytes_of_all_take_their_time_on_a_narrow_link() -> None:
    system = {
        "protocol": {"name": "unreplicated"},
        "node": {"cores": 64, "cpu": {"read": "0s", "write": "0s"}},
        "network": {"bandwidth": "1MiB/s"},
    }
    workload = {"name": "ycsb", "shares": {"update": 1}, "keys": 10, "value_size": "1000B"}
    slow = {"name": "constant", "rate": "100/s"}
    made = parts({"max": 5, "linger": "90ms"}, system=system, workload=workload, arrival=slow)
    took = took_ms(simulated.run(made)).reshape(-1, 5)
    # The last waited for nobody but the bytes of all, there and, of their headers alone, back.
    passed_bytes = 5 * (HEADER_BYTES + KEY_LENGTH + 1000) + 5 * HEADER_BYTES
    assert took[:, 4].max() == pytest.approx(passed_bytes / 2**20 * 1000, rel=0.01)


def test_batches_are_of_one_node_each() -> None:
    system = {
        "protocol": {"name": "primary_backup", "mode": "async", "read_from": "any"},
        "replicas": 4,
        "network": {"delay": "100us"},
    }
    made = parts({"max": 8, "linger": "1s"}, system=system, workload=READS, arrival=STEADY)
    record = simulated.run(made)
    # With a turn for each of four nodes eight operations for one of them take 32.
    assert per_request(record) > 7
    waited_ms = took_ms(record)[:160].max()
    assert waited_ms == pytest.approx(28, rel=0.1)


def test_what_lingers_when_its_node_goes_is_not_lost_for_ever() -> None:
    """A node crashes and comes back; levels hold, and what is asked afterwards is served."""
    system = {
        "protocol": {"name": "raft"},
        "replicas": 3,
        "node": {"cpu": {"read": "50us", "write": "50us"}, "storage": {"durability": "fsync"}},
        "network": {"delay": "200us"},
    }
    crash = {"name": "crash", "target": "leader", "at": "1s", "restart_after": "300ms"}
    retry = {"attempts": 20, "backoff": {"base": "5ms", "max": "50ms"}}
    made = parts(
        {"max": 16, "linger": "3ms"},
        {"timeout": "2s", "attempt_timeout": "100ms", "retry": retry},
        system=system,
        arrival={"name": "poisson", "rate": "2000/s"},
        duration="3s",
        faults=[crash],
    )
    record = simulated.run(made)
    evidence = Evidence(digests=[node.contents_digest for node in record.nodes])
    claimed = made.system.claims(made.circumstances)
    assert check_claims(record.history, claimed, evidence).verdict == VALID
    assert (record.history.outcome == OK).mean() > 0.99
    late = record.history.intended_ns > 2.5 * NS_PER_S
    assert (record.history.outcome[late] == OK).all()
    assert per_request(record) > 3


def test_a_client_that_asks_nobody_twice_gives_up_what_lingers_for_a_lost_node() -> None:
    system = {"protocol": {"name": "unreplicated"}, "network": {"delay": "100us"}}
    crash = {"name": "crash", "target": 0, "at": "100ms", "restart_after": None}
    made = parts({"max": 64, "linger": "2ms"}, {"timeout": "50ms"}, system=system, faults=[crash])
    history = simulated.run(made).history
    before = history.intended_ns < 0.1 * NS_PER_S
    assert set(history.outcome[before].tolist()) == {OK, UNKNOWN}
    # Nothing waits for a node that cannot be reached.
    assert (history.outcome[~before] == FAIL).all()


def test_the_result_says_how_many_travelled_together(tmp_path: Any) -> None:
    runner = Runner(results=str(tmp_path))
    found = runner.run(parts({"max": 4, "linger": "5ms"}).config).summary
    assert found["generator"]["operations_per_request"] == 4
    alone = runner.run(parts({}).config).summary
    assert alone["generator"]["operations_per_request"] is None


@pytest.mark.parametrize(
    ("client", "path"),
    [
        ({"batch": {"max": 0}}, "client.batch.max"),
        ({"batch": {"linger": "1ms"}}, "client.batch.linger"),
        ({"batch": {"max": 2, "linger": "-1ms"}}, "client.batch.linger"),
        ({"batch": {"max": 2}}, "client.batch.max"),
        ({"batch": {"most": 2}}, "client.batch.most"),
    ],
)
def test_bad_input(client: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_mapping({"client": client})
    assert caught.value.path == path
