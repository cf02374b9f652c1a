"""Cache tiers in whole runs: what they serve, what they claim, and what a crash of one loses."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from orchestrator.analysis.durability import survival
from orchestrator.analysis.staleness import staleness
from orchestrator.config.load import load_mapping
from orchestrator.core import levels
from orchestrator.core.machine import OK, READ, WRITE
from orchestrator.core.record import RunRecord
from orchestrator.core.registry import Family, plugins
from orchestrator.core.units import NS_PER_MS
from orchestrator.core.verdict import VALID, Evidence, check_claims
from orchestrator.errors import ConfigError
from orchestrator.fuzz import Wanted, simulate_seed
from orchestrator.patterns.cache_aside import Fetch
from orchestrator.plan import plan
from orchestrator.runtimes import ray_cluster, simulated
from orchestrator.runtimes._parts import Parts

PATTERNS = list(plugins(Family.PATTERN))
STRICT: dict[str, dict[str, Any]] = {
    "cache_aside": {"invalidation": "lease"},
    "read_through": {},
    "write_through": {},
    "write_around": {},
    "write_back": {"flush_after": "50ms"},
}


def parts(pattern: dict[str, Any], *overrides: str, **changes: Any) -> Parts:
    """A linearizable store behind two cache nodes, with a busy key space."""
    tier = {"pattern": pattern, "nodes": 2, "cache": {"name": "lru", "size": 100, "warm": False}}
    system = {
        "protocol": {"name": "raft"},
        "replicas": 3,
        "node": {"storage": {"durability": "fsync", "sync": "100us"}},
        "network": {"delay": {"name": "exponential", "mean": "300us"}},
        "tier": tier | changes.pop("tier", {}),
    }
    config: dict[str, Any] = {
        "experiment": "tier",
        "runtime": "sim",
        "system": system | changes.pop("system", {}),
        "workload": {"name": "ycsb", "mix": "a", "keys": 300},
        "arrival": {"name": "poisson", "rate": "3000/s"},
        "clients": 2,
        "warmup": "200ms",
        "duration": "1s",
    }
    return plan(load_mapping(config | changes, *overrides))


def verdict(made: Parts, record: RunRecord) -> str:
    digests = [node.contents_digest for node in record.nodes]
    claimed = made.system.claims(made.circumstances)
    return check_claims(record.history, claimed, Evidence(digests=digests)).verdict


def hit_ratio(record: RunRecord) -> float:
    hits = sum(int(node.cache_hits.sum()) for node in record.tier)
    return hits / (hits + sum(int(node.cache_misses.sum()) for node in record.tier))


@pytest.mark.parametrize("name", PATTERNS)
def test_a_tier_serves_and_keeps_what_it_claims(name: str) -> None:
    made = parts({"name": name} | STRICT[name])
    record = simulated.run(made)
    assert (record.history.outcome == OK).all()
    assert verdict(made, record) == VALID
    assert made.system.claims(made.circumstances)
    assert 0.3 < hit_ratio(record) < 0.95
    assert [node.role for node in record.tier] == ["cache", "cache"]
    # The store sees no more reads than what was missed, and the joined ones not even once.
    reads = int((record.history.kind == READ).sum())
    asked = sum(int(node.operations.sum()) for node in record.nodes)
    assert asked < reads + 1.2 * int((record.history.kind == WRITE).sum())


def test_write_back_absorbs_writes_and_acknowledges_at_once() -> None:
    def mean_ms(name: str) -> float:
        history = simulated.run(parts({"name": name} | STRICT[name])).history
        writes = history.kind == WRITE
        return float((history.returned_ns - history.invoked_ns)[writes].mean() / NS_PER_MS)

    assert mean_ms("write_back") < 0.6 * mean_ms("write_through")


def test_a_warm_tier_begins_with_the_data_and_a_cold_one_with_nothing() -> None:
    def first_misses(warm: bool) -> int:
        tier = {"cache": {"name": "lru", "size": 1000, "warm": warm}}
        made = parts({"name": "read_through"}, "workload.mix=c", tier=tier)
        return sum(int(node.cache_misses.sum()) for node in simulated.run(made).tier)

    assert first_misses(True) == 0
    assert first_misses(False) > 150


def stale_ms(pattern: dict[str, Any], **changes: Any) -> Any:
    """How stale the reads of a run were, in ms."""
    history = simulated.run(parts(pattern, "workload.keys=20", **changes)).history
    age_ns, _ = staleness(history)
    return age_ns[age_ns >= 0] / NS_PER_MS


def test_what_is_filled_late_is_stale_and_a_lease_forbids_it() -> None:
    racy = stale_ms({"name": "cache_aside", "invalidation": "write"})
    assert (racy > 0).sum() > 5
    assert racy.max() > 5
    assert (stale_ms({"name": "cache_aside", "invalidation": "lease"}) > 0).sum() == 0


def test_by_time_alone_reads_are_as_old_as_the_ttl_lets_them_be() -> None:
    for name in ("read_through", "cache_aside"):
        pattern = {"name": name, "invalidation": "time"}
        ages = stale_ms(pattern, tier={"ttl": "40ms"})
        assert 30 < ages.max() < 50


def test_a_tier_finds_data_that_moves() -> None:
    command = "system.administration=[{command: add_shard, shard: 2, at: 400ms}]"
    sharded = ("system.shards=3", "system.nodes=5", "system.sharding.name=ring", command)
    made = parts({"name": "write_through"}, *sharded)
    record = simulated.run(made)
    assert (record.history.outcome == OK).all()
    assert any(event.kind == "moved" for event in record.events)
    assert verdict(made, record) == VALID


# --- faults -----------------------------------------------------------------------------


def test_what_is_dirty_is_lost_with_its_node_and_nothing_is_claimed() -> None:
    crash = "faults=[{name: crash, target: cache, at: 700ms, restart_after: 100ms}]"

    def lost(name: str, **params: Any) -> int:
        made = parts({"name": name} | params, crash, "workload.mix=d")
        assert made.system.claims(made.circumstances) == (
            frozenset() if name != "read_through" else {levels.REGULAR}
        )
        survived = survival(simulated.run(made).history)
        assert survived.unread == 0
        assert survived.lost is not None
        return len(survived.lost)

    assert lost("write_back", flush_after="300ms") > 0
    assert lost("write_through") == 0
    assert lost("read_through") == 0


def test_faults_of_the_store_alone_leave_the_claims() -> None:
    crash = "faults=[{name: crash, target: leader, at: 500ms, restart_after: 100ms}]"
    made = parts({"name": "write_back", "flush_after": "20ms"}, crash)
    assert made.system.claims(made.circumstances) == {levels.LINEARIZABLE}
    assert verdict(made, simulated.run(made)) == VALID


def test_clients_of_a_cache_aside_go_on_without_it() -> None:
    crash = "faults=[{name: crash, target: cache, at: 400ms, restart_after: 500ms}]"
    for name, goes_on in (("cache_aside", True), ("write_through", False)):
        made = parts({"name": name}, crash, "workload.mix=c")
        history = simulated.run(made).history
        assert (history.outcome == OK).mean() > 0.99
        served = history.outcome == OK
        longest_ms = (history.returned_ns - history.intended_ns)[served].max() / NS_PER_MS
        assert (longest_ms < 50) == goes_on
        # Who waits for the tier's node waits until it is back.
        assert (longest_ms > 400) != goes_on


# --- bad input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        (["system.tier.nodes=0"], "system.tier.nodes", "out of bounds"),
        (["system.tier.cache.size=10B"], "system.tier.cache.size", "no room for one entry"),
        (["system.tier.pattern.name=write_behind"], "system.tier.pattern.name", "write_around"),
        (["system.tier.pattern.flush=1s"], "system.tier.pattern.flush", "unknown key"),
        (["system.tier.early_refresh=1"], "system.tier.early_refresh", "needs a ttl"),
        (["system.tier.ttl=0s"], "system.tier.ttl", "out of bounds"),
        (
            ["system.tier.pattern={name: cache_aside, invalidation: time}"],
            "system.tier.ttl",
            "needs one",
        ),
        (
            ["system.tier.pattern.name=write_back", "system.protocol={name: abd}"],
            "system.tier.pattern",
            "apply twice",
        ),
        (["workload.mix=e"], "workload", "'scan'"),
        (["client.retry.attempts=3"], "client.retry.attempts", "send an operation once"),
        (["client.hedge.after=3ms"], "client.hedge", "send an operation once"),
        (["client.reads={causal: 1}"], "client.reads.causal", "does not offer"),
        (["system.consistency=linearizable"], "system.consistency", "read_through keeps no more"),
        (["system.consistency=strict", "system.tier.pattern.name=write_back",
          "faults=[{name: crash, target: cache, at: 1s}]"], "system.consistency", "forgets"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(overrides: list[str], path: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        parts({"name": "read_through"}, *overrides)
    assert (refused.value.path or "").endswith(path)


def test_a_cache_can_be_struck_only_where_there_is_one() -> None:
    strike = "faults=[{name: crash, target: cache, at: 1s}]"
    with pytest.raises(ConfigError, match="no cache tier"):
        plan(load_mapping({"runtime": "sim"}, strike, "system.node.storage.durability=fsync"))


# --- the fuzzer ---------------------------------------------------------------------------


def implementation(name: str) -> Any:
    return plugins(Family.PATTERN)[name].implementation


class KeepsWhatIsOvertaken(implementation("write_through")):  # type: ignore[misc]
    def _overtake(self, key: bytes) -> None:
        """Forgets nothing."""


class KeepsOneOfThoseThatOverlap(implementation("write_through")):  # type: ignore[misc]
    def _changed(self, *arguments: Any) -> None:
        for writes in self._under_way.values():
            writes.overlapped = False
        super()._changed(*arguments)


class KeepsWhileItWrites(implementation("write_around")):  # type: ignore[misc]
    def _may_keep(self, key: bytes) -> bool:
        return True

    def check(self) -> None:
        """Only what clients see is to show it."""


class TakesAnyLease(implementation("cache_aside")):  # type: ignore[misc]
    def _told(self, op: Any, now_ns: int) -> Any:
        if op.value is not None:
            self._fetches[op.key] = Fetch(op.context, now_ns)
        return super()._told(op, now_ns)


class ForgetsWhatHasNoRoom(implementation("write_back")):  # type: ignore[misc]
    def _let_go(self, now_ns: int, effects: Any) -> None:
        for key in self.cached.left or ():
            if key not in self._flushing:
                self._dirty.pop(key, None)
        self.cached.left = []


@pytest.mark.parametrize(
    ("name", "mutant", "fixed", "seed", "broken"),
    [
        ("write_through", KeepsWhatIsOvertaken, {}, 10, levels.LINEARIZABLE),
        ("write_through", KeepsOneOfThoseThatOverlap, {}, 17, levels.LINEARIZABLE),
        ("write_around", KeepsWhileItWrites, {}, 2, levels.LINEARIZABLE),
        ("cache_aside", TakesAnyLease, {"invalidation": "lease"}, 23, levels.REGULAR),
        ("write_back", ForgetsWhatHasNoRoom, {}, 4, levels.LINEARIZABLE),
    ],
)
def test_the_fuzzer_finds_what_is_wrong(
    name: str, mutant: Any, fixed: dict[str, Any], seed: int, broken: str
) -> None:
    _, found = simulate_seed(Wanted(name, "mixed", fixed), seed, mutant)
    assert found.violation is not None
    assert found.violation.property == broken
    _, right = simulate_seed(Wanted(name, "mixed", fixed), seed)
    assert right.violation is None


# --- on Ray -----------------------------------------------------------------------------


@pytest.mark.serial
@pytest.mark.parametrize("name", ["write_back", "cache_aside"])
def test_a_tier_of_processes(name: str, runtime: ray_cluster.RayRuntime) -> None:
    made = parts(
        {"name": name} | STRICT[name],
        "runtime=ray",
        "system.network.delay=0s",
        "system.node.costs=measured",
        "arrival.rate=500/s",
    )
    record = runtime.run(made)
    assert not record.lost_parts
    assert (record.history.outcome == OK).all()
    assert verdict(made, record) == VALID
    assert 0.1 < hit_ratio(record) < 0.95


# --- caches of clients --------------------------------------------------------------------


def cached_run(*overrides: str, **cache: Any) -> RunRecord:
    client = {"cache": {"policy": {"name": "lru", "size": 200}} | cache}
    return simulated.run(parts({"name": "read_through"}, *overrides, client=client))


def test_a_client_answers_itself_what_it_has_read() -> None:
    record = cached_run("system.tier=null", "workload.mix=c")
    history = record.history
    own = history.node == -1
    lookups = sum(client.cache_lookups for client in record.clients)
    hits = sum(client.cache_hits for client in record.clients)
    assert 0.4 < hits / lookups < 0.95
    measured = history.intended_ns >= record.warmup_ns
    assert int(own[measured].sum()) == hits
    assert int(measured.sum()) == lookups
    assert (history.returned_ns - history.invoked_ns)[own].max() == 1000
    asked = sum(int(node.operations.sum()) for node in record.nodes)
    assert asked == int((~own).sum())


def test_what_a_client_serves_is_as_old_as_its_ttl_and_never_older_than_its_own_writes() -> None:
    record = cached_run("system.tier=null", "workload.keys=20", ttl="50ms")
    ages_ms = staleness(record.history)[0] / NS_PER_MS
    assert 40 < ages_ms.max() < 60
    claimed = frozenset({levels.READ_YOUR_WRITES})
    assert check_claims(record.history, claimed, Evidence()).verdict == VALID


@pytest.mark.parametrize(("writes", "hits"), [("through", True), ("around", False)])
def test_a_client_keeps_or_forgets_what_it_wrote(writes: str, hits: bool) -> None:
    overrides = ("system.tier=null", "workload.mix=f", "arrival={name: closed, sessions: 1}")
    history = cached_run(*overrides, "clients=1", writes=writes, ttl="10s").history
    written: dict[int, bool] = {}
    served = []
    for key, kind, node in zip(history.key, history.kind, history.node, strict=True):
        if kind == WRITE:
            written[int(key)] = True
        elif written.pop(int(key), False):
            served.append(node == -1)
    assert len(served) > 50
    assert (numpy.mean(served) > 0.9) == hits
    assert (numpy.mean(served) < 0.1) != hits


def test_a_cache_in_front_of_a_tier() -> None:
    record = cached_run("workload.mix=c")
    assert (record.history.outcome == OK).all()
    own = int((record.history.node == -1).sum())
    assert own > 300
    assert sum(int(node.operations.sum()) for node in record.tier) == len(record.history) - own


def test_a_client_that_dies_forgets_what_it_had() -> None:
    crash = "faults=[{name: crash_client, target: 0, at: 600ms, restart_after: 50ms}]"
    overrides = ("system.tier=null", "workload.mix=c", "clients=1", "workload.keys=50")
    history = cached_run(*overrides, crash, ttl="10s").history
    late = history.intended_ns > 660 * NS_PER_MS
    asked_again = numpy.unique(history.key[late & (history.node >= 0)])
    assert len(asked_again) > 30


def test_of_clients_that_cache_nothing_is_promised() -> None:
    with pytest.raises(ConfigError, match="nobody else's writes"):
        parts(
            {"name": "write_through"},
            "client.cache={policy: {name: lru}}",
            "system.consistency=eventual",
        )
    with pytest.raises(ConfigError, match=r"with client\.cache clients send an operation once"):
        parts(
            {"name": "write_through"},
            "client={cache: {policy: {name: lru}}, retry: {attempts: 2}}",
            "system.tier=null",
        )
