"""The composition root: what is refused beforehand, what is checked, what is stored."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from made_records import history
from small_runs import small

import orchestrator
from orchestrator.analysis.sample import sampled_rows
from orchestrator.analysis.summary import KEYS
from orchestrator.config.load import load, load_mapping
from orchestrator.core.record import RunRecord
from orchestrator.dry_run import dry_run
from orchestrator.errors import ConfigError, DataError, EnvironmentFailure, InfeasibleError
from orchestrator.plan import checked_levels, plan
from orchestrator.run import Runner, execute, is_good, new_run_id
from orchestrator.runtimes import ray_cluster, simulated
from orchestrator.runtimes._parts import Parts
from orchestrator.store.parquet import Store, result

ROOT = Path(__file__).resolve().parent.parent


def refused(*overrides: str) -> ConfigError:
    """What planning the small run under overrides is refused with."""
    with pytest.raises(ConfigError) as raised:
        plan(small(*overrides))
    return raised.value


class Cluster:
    """Stands in for the warm pool: runs in virtual time and notes what it was asked for."""

    def __init__(self, address: str | None = None, turn: int = 0) -> None:
        self.address = address
        self.settled: list[bool] = []
        self.closed = 0
        self.lost_between_runs_s: float | None = None

    def run(self, parts: Parts, settle: bool = False, repeat: int = 0) -> RunRecord:
        self.settled.append(settle)
        if len(self.settled) > 1:
            self.lost_between_runs_s = 0.25
        return simulated.run(parts)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every pool that is made."""
    seen: list[Any] = []

    def make(address: str | None = None, turn: int = 0) -> Cluster:
        seen.append(Cluster(address, turn))
        made: Cluster = seen[-1]
        return made

    monkeypatch.setattr(ray_cluster, "RayRuntime", make)
    monkeypatch.setattr(ray_cluster, "cluster_shape", lambda: {"nodes": 2.0, "cpus": 8.0})
    return seen


# --- plan -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        (["system.node.costs=measured"], "system.node.costs", "simulator cannot measure"),
        (["system.protocol.name=unreplicated"], "system.replicas", "exactly 1 replica"),
        (["clients=9"], "arrival.sessions", "at least one"),
        (["arrival={name: replay, speed: 2}"], "arrival.speed", "times of its own"),
        (["system={name: redis}"], "runtime", "cannot be simulated"),
        (["system={name: redis}", "runtime=ray", "workload.mix=e"], "workload", "kind 'scan'"),
    ],
)
def test_what_cannot_run_is_refused_with_its_path(
    overrides: list[str], path: str, words: str
) -> None:
    error = refused(*overrides)
    assert error.path == path
    assert words in str(error)


def test_consistency_that_is_not_claimed_is_refused_with_the_way_to_get_it() -> None:
    weak = "system.protocol={name: primary_backup, mode: async, read_from: any}"
    error = refused(weak, "system.consistency=strict")
    assert error.path == "system.consistency"
    assert "linearizable is asked for, and this configuration claims eventual" in error.message
    # The protocol in use comes first among those that would do.
    assert str(error.hint).startswith("primary_backup claims linearizable read_from: primary")
    assert "raft claims linearizable" in str(error.hint)


def test_consistency_that_only_sticky_sessions_have_says_so() -> None:
    protocol = "{name: primary_backup, mode: async, read_from: any, failover: false}"
    weak = f"system.protocol={protocol}"
    error = refused(weak, "system.consistency=monotonic_reads")
    assert error.hint == "client.sticky: true gives it"
    sticky = plan(small(weak, "system.consistency=monotonic_reads", "client.sticky=true"))
    assert sticky.config.client.sticky


def test_a_weaker_level_than_the_claimed_one_is_granted() -> None:
    assert plan(small("system.consistency=eventual")).system.consistency == "eventual"


def test_memory_above_the_limit_is_infeasible() -> None:
    config = small("system.cache={name: lru, size: 1000}", "system.memory=100KiB")
    with pytest.raises(InfeasibleError) as raised:
        plan(config)
    assert raised.value.path == "system.cache.size"


def test_a_cache_too_small_for_one_entry_is_refused() -> None:
    """An entry is a key of 16 bytes and its value."""
    fits = ("system.cache={name: s3fifo, size: 116B}", "workload.value_size=100B")
    assert plan(small(*fits)).system.nodes == 3
    error = refused("system.cache={name: s3fifo, size: 115B}", "workload.value_size=100B")
    assert error.path == "system.cache.size"


def test_entries_are_weighed_by_the_workload() -> None:
    """3 x 1,000 entries of 112 bytes fit into 400 KiB, of 1,012 bytes they do not."""
    limited = ("system.cache={name: lru, size: 1000}", "system.memory=400KiB")
    assert plan(small(*limited, "workload.value_size=100B")).system.nodes == 3
    with pytest.raises(InfeasibleError):
        plan(small(*limited, "workload.value_size=1000B"))


def test_a_missing_trace_leaves_no_results(tmp_path: Path) -> None:
    config = small("workload={name: trace, path: nowhere.csv}")
    with Runner(tmp_path / "results") as runner, pytest.raises(DataError) as raised:
        runner.run(config)
    assert raised.value.path == "nowhere.csv"
    assert not (tmp_path / "results").exists()


# --- execute and check ------------------------------------------------------------------


def test_levels_are_those_claimed_unless_one_is_named() -> None:
    assert checked_levels(plan(small())) == ("linearizable",)
    assert checked_levels(plan(small("check.level=strict"))) == ("linearizable",)
    assert checked_levels(plan(small("check.level=eventual"))) == ("eventual",)
    weak = "system.protocol={name: primary_backup, read_from: any, failover: false}"
    sticky = plan(small(weak, "client.sticky=true"))
    assert checked_levels(sticky) == ("read_your_writes", "monotonic_reads", "eventual")


@pytest.mark.parametrize(("level", "settles"), [("linearizable", False), ("eventual", True)])
def test_replicas_settle_only_for_a_check_of_convergence(level: str, settles: bool) -> None:
    pool: Any = Cluster()
    execute(plan(small("runtime=ray", f"check.level={level}")), runtime=pool)
    assert pool.settled == [settles]


def test_a_run_without_a_pool_makes_and_closes_its_own(cluster: list[Any]) -> None:
    execute(plan(small("runtime=ray")))
    assert [made.closed for made in cluster] == [1]


def test_the_pool_is_made_once_kept_warm_and_left_at_the_end(
    cluster: list[Any], tmp_path: Path
) -> None:
    with Runner(tmp_path, "there:6379") as runner:
        assert cluster == []
        first = runner.run(small("runtime=ray"))
        second = runner.run(small("runtime=ray"))
    (pool,) = cluster
    assert (pool.address, pool.closed) == ("there:6379", 1)
    assert (first.lost_between_runs_s, second.lost_between_runs_s) == (None, 0.25)
    row = Store(tmp_path).run(second.run_id)
    assert row is not None
    assert (row["lost_between_trials_s"], row["ray_nodes"], row["ray_cpus"]) == (0.25, 2, 8.0)


def test_nothing_is_stored_when_ray_cannot_be_joined(
    cluster: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(address: str | None = None, turn: int = 0) -> None:
        raise EnvironmentFailure("no Ray")

    monkeypatch.setattr(ray_cluster, "RayRuntime", fail)
    with Runner(tmp_path / "results") as runner, pytest.raises(EnvironmentFailure):
        runner.run(small("runtime=ray"))
    assert not (tmp_path / "results").exists()


# --- results ----------------------------------------------------------------------------


def test_a_run_is_checked_and_stored_whole(tmp_path: Path) -> None:
    with Runner(tmp_path) as runner:
        done = runner.run(small())
    assert tuple(done.summary) == KEYS
    assert done.good and done.summary["valid"], done.summary["invalid_reasons"]
    assert done.summary["consistency"]["strongest"] == ["linearizable"]
    row = Store(tmp_path).run(done.run_id)
    assert row is not None
    assert result(row) == done.summary
    assert load_mapping(orchestrator_yaml(row["config_yaml"])) == done.config
    for table in ("intervals", "latencies", "nodes", "events"):
        assert Store(tmp_path).table(table, done.run_id).num_rows > 0
    assert Store(tmp_path).table("operations", done.run_id).num_rows == 0


def orchestrator_yaml(text: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    return yaml.safe_load(text)


@pytest.mark.parametrize("which", ["sample", "all"])
def test_operations_are_kept_when_asked_for(tmp_path: Path, which: str) -> None:
    with Runner(tmp_path) as runner:
        done = runner.run(small(f"record.operations={which}"))
    total = len(done.record.history)
    stored = Store(tmp_path).table("operations", done.run_id).num_rows
    assert stored == total
    assert f"{total}" in done.kept


def test_a_sample_has_all_operations_of_the_same_keys() -> None:
    keys = numpy.arange(30_000) % 700
    whole = history(30_000, key=keys)
    rows = sampled_rows(whole, limit=10_000)
    chosen = numpy.unique(keys[rows])
    assert 0.9 * 10_000 < rows.sum() <= 10_000
    assert bool(numpy.isin(keys, chosen).sum() == rows.sum())
    again = sampled_rows(whole.select(numpy.arange(30_000)[::-1]), limit=10_000)
    assert numpy.array_equal(rows[::-1], again)


def test_a_sample_passes_over_keys_that_do_not_fit() -> None:
    hot = numpy.zeros(5_000, dtype=numpy.int64)
    whole = history(5_100, key=numpy.concatenate([hot, numpy.arange(1, 101)]))
    rows = sampled_rows(whole, limit=200)
    assert rows.sum() == 100
    assert not rows[:5_000].any()
    only_hot = history(5_000, key=hot)
    assert sampled_rows(only_hot, limit=200).all()


def test_repeats_count_seeds_up_and_are_pooled(tmp_path: Path) -> None:
    with Runner(tmp_path) as runner:
        done = runner.run_repeated(small("seed=5"), 3)
    assert [each.summary["seed"] for each in done.repeats] == [5, 6, 7]
    assert done.summary["seed"] == 5
    counts = [each["outcomes"]["ok"] for each in done.summary["repeats"]]
    assert done.summary["outcomes"]["ok"] == sum(counts)
    assert len(Store(tmp_path).files("runs")) == 3
    digests = {each.summary["digest"] for each in done.repeats}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("valid", "verdict", "met", "good"),
    [
        (True, "valid", True, True),
        (True, "valid", None, True),
        (True, None, None, True),
        (False, "valid", True, False),
        (True, "invalid", True, False),
        (True, "unknown", True, False),
        (True, "valid", False, False),
    ],
)
def test_good_means_valid_consistent_and_within_the_objective(
    valid: bool, verdict: str | None, met: bool | None, good: bool
) -> None:
    summary = {"valid": valid, "consistency": {"verdict": verdict}, "slo": {"met": met}}
    assert is_good(summary) is good


def test_run_ids_name_the_configuration_and_sort_by_time() -> None:
    first, second = new_run_id("0123456789abcdef"), new_run_id("0123456789abcdef")
    assert first != second
    assert first.split("-")[1] == "01234567"
    assert first[:15] <= second[:15]


def test_one_seed_gives_one_digest_in_every_process() -> None:
    script = (
        "import sys; sys.path.insert(0, 'tests'); from small_runs import small;"
        "from orchestrator.plan import plan; from orchestrator.run import execute;"
        "from orchestrator.analysis.summary import digest;"
        "print(digest(execute(plan(small('seed=7', 'system.cache={name: lru, size: 50}')))))"
    )
    digests = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert len(digests[0].strip()) == 64
    assert digests[0] == digests[1]


# --- dry run ----------------------------------------------------------------------------


def test_a_dry_run_says_what_would_run() -> None:
    config = small("arrival={name: poisson, rate: 1000/s}", "record.operations=all")
    one, three = (dry_run(plan(config), repeats=repeats) for repeats in (1, 3))
    assert (one["runs"], one["nodes"], three["runs"]) == (1, 3, 3)
    assert 0 < one["seconds"] < three["seconds"]
    assert three["disk_bytes"] == 3 * one["disk_bytes"]
    assert one["placement"]["runtime"] == "sim"


def test_a_dry_run_on_ray_takes_as_long_as_the_load(cluster: list[Any]) -> None:
    config = small("runtime=ray", "duration=60s", "arrival={name: poisson, rate: 1000/s}")
    found = dry_run(plan(config))
    assert 60 < found["seconds"] < 75
    assert cluster == []


def test_a_dry_run_estimates_a_closed_load_by_its_beginning() -> None:
    """Eight sessions on a 100 us CPU do 10,000/s; a pilot of cold caches comes near."""
    parts = plan(small("system.protocol={name: unreplicated}", "system.replicas=1"))
    kept_all = dataclasses.replace(parts.config, record=small("record.operations=all").record)
    base = dry_run(parts)["disk_bytes"]
    with_operations = dry_run(dataclasses.replace(parts, config=kept_all))["disk_bytes"]
    assert with_operations - base == pytest.approx(16 * 10_000 * 0.4, rel=0.1)


# --- the Python interface ---------------------------------------------------------------


def test_the_package_offers_load_run_and_results(tmp_path: Path) -> None:
    config = orchestrator.load(
        ROOT / "configs" / "first.yaml", "runtime=sim", "warmup=100ms", "duration=300ms"
    )
    assert config == load(
        ROOT / "configs" / "first.yaml", "runtime=sim", "warmup=100ms", "duration=300ms"
    )
    done = orchestrator.run(config, results=tmp_path)
    found = orchestrator.results(tmp_path).sql("SELECT run_id, valid FROM runs").fetchall()
    assert found == [(done.run_id, True)]


def test_importing_submodules_leaves_the_functions_in_place() -> None:
    import orchestrator.run
    import orchestrator.tune

    assert orchestrator.run.__name__ == "run"
    assert orchestrator.tune.__name__ == "tune"


def test_importing_the_package_is_light() -> None:
    script = (
        "import sys, orchestrator, orchestrator.cli;"
        "print([n for n in ('numpy', 'omegaconf', 'pyarrow', 'ray', 'scipy', 'optuna')"
        " if n in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"
