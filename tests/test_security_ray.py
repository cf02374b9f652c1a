"""A real cluster under load while its ports are fed hostile bytes; where its processes listen."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hiredis
import msgspec
import numpy
import pytest
from real_redis import parts as redis_parts
from server_rig import command
from socket_fuzz import FOREIGN_KEY, Fuzzer, prove

from orchestrator.analysis.summary import summarise
from orchestrator.config.load import load_mapping
from orchestrator.core.machine import OK, READ, Op
from orchestrator.core.record import RunRecord
from orchestrator.core.verdict import VALID
from orchestrator.plan import plan
from orchestrator.run import judge
from orchestrator.runtimes import _wire
from orchestrator.runtimes._deployment import Deployment
from orchestrator.runtimes._handshake import NONCE_BYTES, Credentials
from orchestrator.runtimes._node_process import NodeProcess, NodeSpec
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._watch import PROOF_SWEEPS, REST_SWEEPS
from orchestrator.runtimes.ray_cluster import RayRuntime

pytestmark = pytest.mark.serial

MIB = 1 << 20
HOST_REASONS = ("generator", "headroom", "lag", "rate", "cpu", "steady", "virtual machines")
"""Words of reasons for an invalid run that tell of the host and not of the nodes."""


def made(duration: str, rate: str = "300/s") -> Parts:
    """Three Raft nodes that write to the disk, under load from two clients."""
    return plan(
        load_mapping(
            {
                "experiment": "fuzzed",
                "system": {
                    "protocol": {"name": "raft", "election_timeout": "400ms"},
                    "replicas": 3,
                    "node": {"costs": "measured", "storage": {"durability": "fsync"}},
                },
                "workload": {"name": "ycsb", "mix": "a", "keys": 200, "value_size": "64B"},
                "arrival": {"name": "poisson", "rate": rate},
                "clients": 2,
                "client": {"timeout": "2s", "connections": 4},
                "warmup": "500ms",
                "duration": duration,
            }
        )
    )


@dataclass
class Seen:
    """What was watched of a run from outside."""

    record: RunRecord
    summary: dict[str, Any]
    frames: int = 0
    trusted: int = 0
    dropped: int = 0
    seconds: float = 0.0
    overstayed: int = 0
    # Resident bytes by sample and node, and the share of the run at which it was taken.
    resident: list[list[int]] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)

    def growth_bytes(self, node: int) -> tuple[int, int]:
        """(resident at a third of the run, growth from there to its end): medians of samples."""
        shares, resident = numpy.array(self.taken), numpy.array(self.resident)[:, node]
        early = int(numpy.median(resident[(shares > 0.3) & (shares < 0.4)]))
        return early, int(numpy.median(resident[shares > 0.93])) - early


def resident_bytes(pid: int) -> int:
    """Of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"process {pid} has ended")


def fuzzer(parts: Parts, deployment: Deployment, seed: int) -> Fuzzer:
    """For both ports of every node."""
    decoder: Any = msgspec.msgpack.Decoder(parts.store.protocol.implementation.Message)

    def decodes(payload: bytes) -> bool:
        try:
            decoder.decode(payload)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            return False
        return True

    return Fuzzer(
        deployment.client_addresses,
        deployment.peer_addresses,
        deployment.credentials,
        decodes,
        random.Random(seed),
    )


@contextmanager
def watching(deployment: Deployment, seen: dict[str, list[Any]], end_s: float) -> Iterator[None]:
    """Samples the nodes' resident memory until ``end_s`` of the monotonic clock."""
    began_s, over = time.monotonic(), threading.Event()

    def watch() -> None:
        while (now_s := time.monotonic()) < end_s and not over.is_set():
            seen["resident"].append([resident_bytes(pid) for pid in deployment.node_pids])
            seen["taken"].append((now_s - began_s) / (end_s - began_s))
            over.wait(min(1.0, (end_s - began_s) / 100))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def observe(
    runtime: RayRuntime,
    parts: Parts,
    frames: int = 0,
    password: str | None = None,
    seed: int = 1,
) -> Seen:
    """A run, with so many hostile frames spread over it."""
    failures: list[BaseException] = []
    seen: dict[str, list[Any]] = {"resident": [], "taken": []}
    assert parts.end_ns is not None
    end_s = parts.end_ns / 1e9
    plain_clients = password is not None
    with runtime.deployed(parts, plain_clients=plain_clients, password=password) as deployment:
        hostile = fuzzer(parts, deployment, seed)
        deployment.start()
        began_s = time.monotonic()

        def send() -> None:
            try:
                hostile.send(frames, 1.1 * frames / end_s, max(60.0, 1.2 * end_s))
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=send)
        with watching(deployment, seen, began_s + end_s):
            thread.start()
            deployment.wait()
            thread.join()
        seconds = time.monotonic() - began_s
        overstayed = hostile.overstayed(PROOF_SWEEPS + REST_SWEEPS + 5.0)
        hostile.close()
        for pid in deployment.node_pids:
            os.kill(pid, 0)
        assert foreign_values(deployment) == {None}
        said = answers(deployment.client_addresses, password)
        if plain_clients:
            assert said == {b"$-1\r\n"}
        else:
            assert all(b"serves the clients of its run only" in each for each in said)
        record = deployment.collect(True, 0)
    assert not failures, failures
    names = {"run_id": "r", "config_hash": "h", "results": "results"}
    summary = summarise(record, parts.config, judge(parts, record), **names)
    counts = (hostile.frames, hostile.trusted, hostile.dropped)
    return Seen(record, summary, *counts, seconds, overstayed, seen["resident"], seen["taken"])


def foreign_values(deployment: Deployment) -> set[bytes | None]:
    """What nodes answer to an own client that reads the key of hostile writes, but for those
    that name another node.
    """
    found = set()
    for node, address in enumerate(deployment.client_addresses):
        with socket.create_connection(address, 10.0) as own:
            prove(own, deployment.credentials, node, b"n" * NONCE_BYTES)
            own.sendall(_wire.encode_request(Op(9, 1, READ, FOREIGN_KEY)))
            reader = hiredis.Reader()
            while (answer := reader.gets()) is False:
                reader.feed(own.recv(100))
            if _wire.unpack_response(answer[0])[3] != _wire.REDIRECTED:
                found.add(answer[1])
    return found


def answers(addresses: list[tuple[str, int]], password: str | None) -> set[bytes]:
    """What the nodes answer to a plain client that reads the key of hostile writes."""
    answers = set()
    for address in addresses:
        with socket.create_connection(address, 10.0) as plain:
            if password is not None:
                plain.sendall(command(b"AUTH", password.encode()))
                assert plain.recv(100) == b"+OK\r\n"
            plain.sendall(command(b"GET", FOREIGN_KEY))
            answers.add(plain.recv(200))
    return answers


def unharmed(seen: Seen) -> None:
    """Nothing was lost, broken or changed by what strangers sent."""
    record, summary = seen.record, seen.summary
    assert record.lost_parts == ()
    assert summary["consistency"]["claimed"] == "linearizable"
    assert summary["consistency"]["verdict"] == VALID
    reasons = summary["invalid_reasons"]
    assert [each for each in reasons if not any(word in each for word in HOST_REASONS)] == []
    digests = {node.contents_digest for node in record.nodes}
    assert len(digests) == 1, "the replicas hold the same"
    assert (record.history.outcome == OK).mean() > 0.99


@pytest.mark.parametrize("password", [pytest.param(None, marks=pytest.mark.long), "a password"])
def test_hostile_bytes_harm_nobody(runtime: RayRuntime, password: str | None) -> None:
    parts = made("5s")
    seen = observe(runtime, parts, frames=1800, password=password)
    assert seen.frames >= 1800
    assert seen.trusted > 100
    unharmed(seen)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_hundred_thousand_hostile_frames_leave_no_trace(runtime: RayRuntime) -> None:
    """The same load twice, without and with hostile bytes: what the nodes' memory grows by beyond
    the first is due to the second.
    """
    parts = made("190s")
    quiet = observe(runtime, parts)
    fuzzed = observe(runtime, parts, frames=100_000)
    assert fuzzed.frames >= 100_000, "this machine is too busy to send them during the load"
    assert fuzzed.trusted > 10_000
    figures = []
    for node in range(3):
        _, expected = quiet.growth_bytes(node)
        early, growth = fuzzed.growth_bytes(node)
        figures.append((early / MIB, growth / MIB, expected / MIB))
        assert growth < max(expected, 0) + 0.1 * early + 8 * MIB, (node, figures)
    for each in (quiet, fuzzed):
        unharmed(each)
    assert fuzzed.dropped > 100
    assert fuzzed.overstayed == 0
    throughputs = [each.summary["throughput_ops"] for each in (quiet, fuzzed)]
    p99s = [each.summary["latency_ms"]["all"]["p99"] for each in (quiet, fuzzed)]
    assert throughputs[1] > 0.9 * throughputs[0]
    print(f"{fuzzed.frames} frames in {fuzzed.seconds:.0f} s, {fuzzed.trusted=} {fuzzed.dropped=}")
    print(f"{throughputs=} {p99s=} resident MiB (at a third, growth, without)={figures}")


# --- where they listen ------------------------------------------------------------------


def listening(pid: int) -> set[tuple[str, int]]:
    """Addresses of the TCP sockets on which a process listens (IPv4 and IPv6)."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # another thread may close it meanwhile
            target = os.readlink(entry)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                host, _, port = words[1].partition(":")
                raw = bytes.fromhex(host)
                # The kernel prints each group of four bytes in this machine's order.
                groups = [raw[at : at + 4][::-1] for at in range(0, len(raw), 4)]
                found.add((socket.inet_ntop(family, b"".join(groups)), int(port, 16)))
    return found


def family_of(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def test_processes_of_a_run_listen_on_the_address_of_the_cluster_only(runtime: RayRuntime) -> None:
    for parts in (made("1s"), redis_parts(replicas=2)):
        with runtime.deployed(parts) as deployment:
            expected = {*deployment.client_addresses, *deployment.peer_addresses}
            found = [listening(each) for pid in deployment.node_pids for each in family_of(pid)]
            assert set().union(*found) == expected
            assert {host for host, _ in expected} == {"127.0.0.1"}
            assert set().union(*map(listening, deployment.client_pids)) == set()


def test_a_node_binds_to_the_address_that_it_is_given(tmp_path: Path) -> None:
    """Another address of this machine, as that of a host in a cluster."""

    async def bound(folder: Path) -> set[tuple[str, int]]:
        before = listening(os.getpid())
        loop = asyncio.get_running_loop()
        spec = NodeSpec(made("1s"), 0, "127.0.0.2", str(folder), 0, Credentials.fresh())
        node = NodeProcess(spec, loop)
        await node.listen()
        found = listening(os.getpid()) - before
        node.close()
        return found

    hosts = [host for host, _ in asyncio.run(bound(tmp_path))]
    assert hosts == ["127.0.0.2"] * 2


def test_a_real_server_serves_nobody_without_the_password(runtime: RayRuntime) -> None:
    with runtime.deployed(redis_parts(replicas=2)) as deployment:
        password = deployment.credentials.server_password
        servers = [pid for node in deployment.node_pids for pid in family_of(node)[1:]]
        for address in deployment.client_addresses:
            with socket.create_connection(address, 10.0) as plain:
                plain.sendall(b"GET user000000000001\r\n")
                assert plain.recv(100).startswith(b"-NOAUTH ")
    assert len(servers) == 2
    assert len(password) == 64


def test_no_secret_shows_on_a_command_line_or_in_an_environment(runtime: RayRuntime) -> None:
    for parts in (made("1s"), redis_parts(replicas=2)):
        with runtime.deployed(parts) as deployment:
            known = deployment.credentials
            secrets = [known.server_password.encode(), known.secret, known.secret.hex().encode()]
            pids = [*deployment.node_pids, *deployment.client_pids]
            for pid in [each for one in pids for each in family_of(one)]:
                shown = Path(f"/proc/{pid}/cmdline").read_bytes()
                shown += Path(f"/proc/{pid}/environ").read_bytes()
                assert len(shown) > 10
                assert not any(secret in shown for secret in secrets)


def test_the_control_plane_asks_for_a_token(runtime: RayRuntime) -> None:
    with runtime.deployed(made("1s")) as deployment:
        for pid in deployment.node_pids:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            assert b"RAY_AUTH_MODE=token" in environment
