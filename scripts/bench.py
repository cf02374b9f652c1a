"""The project's speed bars, measured: ``python scripts/bench.py [NAME ...]``.

Timed thresholds live here and not in the tests. Absolute figures depend on the machine, so what
matters is compared with something that runs beside it, in interleaved rounds. Exit code 1 says
that a bar was missed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
from _generators import generator

from orchestrator.config.load import load_mapping
from orchestrator.core.record import RunRecord
from orchestrator.runtimes._parts import Parts

ROUNDS = 3
CONNECTIONS = 50
OPERATIONS = 300_000
KEYS = 100_000


def raft(**changes: Any) -> Parts:
    """Three Raft replicas with measured costs and memory durability."""
    config = {
        "experiment": "bench",
        "system": {
            "name": "replicated_store",
            "protocol": {"name": "raft"},
            "replicas": 3,
            "node": {"costs": "measured"},
        },
        "workload": {"name": "ycsb", "mix": "a", "keys": KEYS, "distribution": "uniform"},
        "arrival": {"name": "closed", "sessions": 64},
        "warmup": "1s",
        "duration": "4s",
    }
    return Parts.of(load_mapping(config | changes))


class Report:
    """Collects figures against their bars."""

    def __init__(self) -> None:
        self.missed = 0

    def bar(self, name: str, figure: float, bound: float, unit: str, *, least: bool) -> None:
        """Print one figure with its bar."""
        met = figure >= bound if least else figure <= bound
        self.missed += not met
        sign = ">=" if least else "<="
        print(f"{'ok  ' if met else 'MISS'} {name}: {figure:,.4g} {unit} ({sign} {bound:,.4g})")

    def note(self, text: str) -> None:
        """Print a figure without a bar."""
        print(f"     {text}", flush=True)


def _redis_benchmark(port: int, *extra: str) -> float:
    """SET operations per second."""
    command = ["redis-benchmark", "-p", str(port), "-c", str(CONNECTIONS), "-t", "set"]
    command += ["-n", str(OPERATIONS), "-r", str(KEYS), "--csv", *extra]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return float(done.stdout.strip().splitlines()[-1].replace('"', "").split(",")[1])


def _wait_for_port(port: int) -> None:
    import socket

    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nothing listens on port {port}")


@contextmanager
def _real_redis(replicas: int) -> Iterator[int]:
    """A primary and its replicas; yields the primary's port."""
    import socket

    folder = tempfile.mkdtemp(prefix="archbench-bench-")
    ports = []
    for _ in range(replicas + 1):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    servers = []
    for index, port in enumerate(ports):
        command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"]
        command += ["--bind", "127.0.0.1", "--dir", folder, "--dbfilename", f"{index}.rdb"]
        if index:
            command += ["--replicaof", "127.0.0.1", str(ports[0])]
        servers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    try:
        for port in ports:
            _wait_for_port(port)
        time.sleep(2)
        yield ports[0]
    finally:
        for server in servers:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def data_path(report: Report) -> None:
    """Acknowledged writes of three Raft replicas beside real Redis with two replicas."""
    from orchestrator.runtimes import ray_cluster

    if shutil.which("redis-benchmark") is None or shutil.which("redis-server") is None:
        report.note("data_path: redis-benchmark or redis-server is not installed; left out")
        return
    runtime = ray_cluster.RayRuntime()
    parts = raft()
    runtime.reserve(3, 1)
    ours, real, piped = [], [], []
    try:
        serving = runtime.deployed(parts, clients=False, plain_clients=True)
        with serving as deployment, _real_redis(2) as redis_port:
            deployment.start()
            port = deployment.client_addresses[0][1]
            for _ in range(ROUNDS):
                ours.append(_redis_benchmark(port))
                real.append(_redis_benchmark(redis_port))
                piped.append(_redis_benchmark(port, "-P", "16"))
        own = [_own_clients(runtime.run(parts)) for _ in range(ROUNDS)]
    finally:
        runtime.close()
    for mine, theirs in zip(ours, real, strict=True):
        report.note(f"redis-benchmark SET: {mine:,.0f}/s, real Redis {theirs:,.0f}/s")
    ratio = statistics.median(a / b for a, b in zip(ours, real, strict=True))
    report.bar("writes against real Redis with 2 replicas", ratio, 0.5, "x", least=True)
    report.bar("acknowledged writes", statistics.median(ours), 45_000, "/s", least=True)
    report.note(f"pipelined by 16: {statistics.median(piped):,.0f}/s")
    report.bar("own clients", statistics.median(own), 45_000, "/s", least=True)


def _own_clients(record: RunRecord) -> float:
    history = record.history
    window_s = (record.end_ns - record.warmup_ns) / 1e9
    returned = history.returned_ns
    done = (history.outcome == 0) & (returned >= record.warmup_ns) & (returned < record.end_ns)
    return float(done.sum() / window_s)


def simulator(report: Report) -> None:
    """Simulated operations per second of three-node Raft with 64 clients on one core."""
    from orchestrator.runtimes import simulated

    node = {"cpu": {"read": "5us", "write": "5us", "message": "20us"}}
    network = {"delay": "250us"}

    def rate(batch: dict[str, Any]) -> float:
        base = {"name": "replicated_store", "protocol": {"name": "raft"}, "replicas": 3}
        parts = raft(system=base | {"node": node, "network": network, "batch": batch})
        started_s = time.perf_counter()
        record = simulated.run(parts)
        return len(record.history) / (time.perf_counter() - started_s)

    batched = [rate({"max": 16, "linger": "100us"}) for _ in range(ROUNDS)]
    report.bar("simulated operations", statistics.median(batched), 60_000, "/s", least=True)
    report.note(f"without batching: {rate({'max': 1}):,.0f}/s")


def timer(report: Report) -> None:
    """How late emulated waits of 200 microseconds end, at 1,000 a second."""
    import asyncio

    import uvloop

    from orchestrator.runtimes._clock import RealClock

    late_ns: list[int] = []
    loop = uvloop.new_event_loop()
    clock = RealClock(loop, time.monotonic_ns())
    count, wait_ns, gap_ns = 3_000, 200_000, 1_000_000
    done: asyncio.Future[None] = loop.create_future()

    def ended(due_ns: int) -> None:
        late_ns.append(clock.now_ns() - due_ns)
        if len(late_ns) == count:
            done.set_result(None)

    def begin(_: Any) -> None:
        due_ns = clock.now_ns() + wait_ns
        clock.at(due_ns, ended, due_ns)

    for index in range(count):
        clock.at(10_000_000 + index * gap_ns, begin, None)
    loop.run_until_complete(asyncio.wait_for(done, 30))
    clock.close()
    loop.close()
    p50_ns, p99_ns = numpy.percentile(late_ns, [50, 99])
    report.bar("200 us waits, median error", p50_ns / 1e3, 100, "us", least=False)
    report.bar("200 us waits, p99 error", p99_ns / 1e3, 500, "us", least=False)


def cold_start(report: Report) -> None:
    """From the command line to the first operation, Ray's start included."""
    from orchestrator.store.query import query

    whole, first = [], []
    with tempfile.TemporaryDirectory(prefix="archbench-bench-") as folder:
        config = Path(folder) / "cold.yaml"
        config.write_text("experiment: cold\nwarmup: 0s\nduration: 100ms\nworkload: {keys: 1000}\n")
        for number in range(ROUNDS):
            results = Path(folder) / str(number)
            command = [sys.executable, "-m", "orchestrator.cli", "run", str(config), "--json"]
            started_s = time.time()
            done = subprocess.run(
                [*command, "--results", results], capture_output=True, timeout=120, check=False
            )
            whole.append(time.time() - started_s)
            if done.returncode not in (0, 1):
                raise RuntimeError(done.stderr.decode())
            _, ((asked_s, setup_s),) = query(
                results, "select epoch(started_utc), setup_s from runs"
            )
            first.append(asked_s + setup_s - started_s)
    report.bar("first operation of a cold run", statistics.median(first), 8, "s", least=False)
    report.note(f"the whole command: {statistics.median(whole):.1f} s")


def warm_pool(report: Report) -> None:
    """What is lost between two runs on a warm pool, from last return to next intended start."""
    from orchestrator.runtimes import ray_cluster

    runtime = ray_cluster.RayRuntime()
    lost = []
    try:
        for _ in range(2 * ROUNDS):
            runtime.run(raft(duration="1s"))
            if runtime.lost_between_runs_s is not None:
                lost.append(runtime.lost_between_runs_s)
    finally:
        runtime.close()
    report.bar("lost between two runs", statistics.median(lost), 0.5, "s", least=False)


def _register_history(path: Path, operations: int, keys: int, clients: int) -> None:
    """A valid history: every operation takes effect at a moment of its interval."""
    chance = numpy.random.default_rng(1)
    each = operations // clients
    gaps_ns = chance.integers(1_000, 2_000_000, size=(clients, 2 * each))
    times_ns = gaps_ns.cumsum(axis=1)
    invoked_ns, returned_ns = times_ns[:, 0::2].ravel(), times_ns[:, 1::2].ravel()
    point_ns = chance.integers(invoked_ns, returned_ns, endpoint=True)
    key = chance.integers(0, keys, size=operations)
    writes = chance.random(operations) < 0.5
    value = numpy.arange(1, operations + 1)
    newest: dict[int, int] = {}
    for row in numpy.lexsort((numpy.arange(operations), point_ns)):
        if writes[row]:
            newest[key[row]] = value[row]
        else:
            value[row] = newest.get(key[row], 0)
    rows = zip(*(column.tolist() for column in (key, value, invoked_ns, returned_ns)), strict=True)
    with path.open("w") as file:
        for row, (its_key, its_value, invoked, returned) in enumerate(rows):
            file.write(
                f'{{"session": {row // each}, "op": "{"write" if writes[row] else "read"}",'
                f' "key": "k{its_key}", "value": {its_value or "null"},'
                f' "invoked_ns": {invoked}, "returned_ns": {returned}, "status": "ok"}}\n'
            )


def _cas_history(path: Path, seed: int, operations: int, clients: int) -> None:
    """A valid history of a register with few values, many of whose operations have no answer."""
    chance = random.Random(seed)
    free_ns = [0] * clients
    session = list(range(clients))
    asked = []
    for _ in range(operations):
        client = min(range(clients), key=lambda each: free_ns[each])
        invoked = free_ns[client] + chance.randrange(1, 50)
        returned = invoked + chance.randrange(10, 1000)
        op = chance.choice(("read", "write", "cas", "cas"))
        answered = op == "read" or chance.random() < 0.6
        point = chance.randint(invoked, returned) if answered or chance.random() < 0.5 else None
        asked.append((point, invoked, returned, session[client], op, answered))
        free_ns[client] = returned
        session[client] += 0 if answered else clients
    held: int | None = None
    lines = []
    for point, invoked, returned, by, op, answered in sorted(
        asked, key=lambda each: (each[0] is None, each[0] or 0)
    ):
        new, expected, ok = chance.randrange(5), chance.randrange(5), True
        if point is not None and op == "read":
            new = held if held is not None else -1
        elif point is not None and op == "write":
            held = new
        elif point is not None:
            ok = held == expected
            held = new if ok else held
        status = ("ok" if ok else "fail") if answered else "unknown"
        line = {"session": by, "op": op, "key": "x", "value": None if new < 0 else new}
        line |= {"expected": expected} if op == "cas" else {}
        line |= {"invoked_ns": invoked, "returned_ns": returned if answered else None}
        lines.append(line | {"status": status})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _check(path: Path, model: str) -> tuple[str, float, float]:
    """(verdict, seconds, peak GiB) of the whole command."""
    command = [sys.executable, "-m", "orchestrator.cli", "check", str(path), "--model", model]
    before_s = time.monotonic()
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.read())
        _, _, used = os.wait4(process.pid, 0)
        took_s = time.monotonic() - before_s
        process.returncode = 0
    return said["verdict"], took_s, used.ru_maxrss / 2**20


def checker(report: Report) -> None:
    """``archbench check`` on histories of registers, the whole command."""
    with tempfile.TemporaryDirectory(prefix="archbench-bench-") as folder:
        path = Path(folder) / "history.jsonl"
        for operations, keys, bound_s in ((1_000_000, 1000, 10), (100_000, 1, 5)):
            _register_history(path, operations, keys, 50)
            verdict, took_s, gib = _check(path, "register")
            name = f"{operations:,} operations on {keys:,} keys, {verdict}"
            report.bar(name, took_s, bound_s, "s", least=False)
            report.bar("memory of that", gib, 2, "GiB", least=False)
        slowest_s, verdicts = 0.0, []
        for seed in range(20):
            _cas_history(path, seed, 170, 10)
            verdict, took_s, _ = _check(path, "cas-register")
            verdicts.append(verdict)
            slowest_s = max(slowest_s, took_s)
        report.bar("hard CAS histories decided", 20 - verdicts.count("unknown"), 20, "", least=True)
        report.bar("the slowest of them, interpreter included", slowest_s, 2, "s", least=False)


def fuzzer(report: Report) -> None:
    """Simulated seeds of all protocols and layers, in parallel."""
    from orchestrator.core.registry import Family, plugins
    from orchestrator.fuzz import Wanted, fuzz

    seeds, all_s = 0, 0.0
    with tempfile.TemporaryDirectory(prefix="archbench-bench-") as folder:
        for protocol in (*plugins(Family.PROTOCOL), *plugins(Family.TRANSACTIONS)):
            findings, took_s = fuzz(Wanted(protocol), range(400), folder=folder)
            report.note(f"{protocol}: {findings.seeds / took_s * 60:,.0f} seeds a minute")
            if findings.failures:
                raise RuntimeError(f"{protocol}: {findings.failures[0].violation.explanation}")
            seeds, all_s = seeds + findings.seeds, all_s + took_s
    report.bar("seeds of all protocols", seeds / all_s * 60, 1000, "a minute", least=True)


BARS: dict[str, Callable[[Report], None]] = {
    "timer": timer,
    "generator": generator,
    "simulator": simulator,
    "data_path": data_path,
    "warm_pool": warm_pool,
    "cold_start": cold_start,
    "checker": checker,
    "fuzzer": fuzzer,
}


def main() -> int:
    """Run the named bars, or all."""
    report = Report()
    for name in sys.argv[1:] or list(BARS):
        if name not in BARS:
            print(f"no bar is called {name!r}; there are: {', '.join(BARS)}")
            return 2
        print(f"{name}: {(BARS[name].__doc__ or '').strip()}", flush=True)
        BARS[name](report)
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
