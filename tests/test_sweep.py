"""The grid: how axes are told, what runs, what is reused, what cannot run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_runs import BASE

from orchestrator._sweep_terminal import _resilience, labels, show_sweep
from orchestrator.config.load import ConfigSource
from orchestrator.config.schema import Config
from orchestrator.errors import (
    ClusterLost,
    ConfigError,
    EnvironmentFailure,
    InfeasibleError,
    InputError,
    PartLost,
    ResultsFull,
)
from orchestrator.run import Runner, RunResult
from orchestrator.runtimes._parts import Parts
from orchestrator.sweep import (
    Point,
    SweepResult,
    split_axes,
    split_values,
    sweep,
    variants,
    with_own_axes,
)

SOURCE = ConfigSource.of(BASE)
REPLICAS = {"system.replicas": [1, 3]}


class Counting(Runner):
    """Notes which configurations really run."""

    def __init__(self, results: Path) -> None:
        super().__init__(results)
        self.ran: list[Config] = []

    def run(self, config: Config | Parts, *, seed: int | None = None, repeat: int = 0) -> RunResult:
        assert isinstance(config, Config)
        self.ran.append(config)
        return super().run(config, seed=seed, repeat=repeat)


def swept(results: Path, axes: dict[str, list[Any]], *overrides: str) -> tuple[SweepResult, int]:
    """A sweep, and how many runs it took."""
    with Counting(results) as runner:
        done = sweep(SOURCE.with_overrides(*overrides), axes, runner)
        return done, len(runner.ran)


def test_repeats_of_variants_are_interleaved(tmp_path: Path) -> None:
    with Counting(tmp_path) as runner:
        done = sweep(SOURCE, REPLICAS, runner, repeats=3)
        order = [(config.system.params.replicas, config.seed) for config in runner.ran]
    first = SOURCE.build().seed
    assert order == [(replicas, first + each) for each in range(3) for replicas in (1, 3)]
    runs = done.as_json()["runs"]
    assert [(run["values"]["system.replicas"], run["repeat"]) for run in runs] == [
        (1, 0), (3, 0), (1, 1), (3, 1), (1, 2), (3, 2),
    ]  # fmt: skip
    # Fewer repeats are among them, more go on behind them.
    with Counting(tmp_path) as runner:
        sweep(SOURCE, REPLICAS, runner, repeats=2)
        assert not runner.ran
        sweep(SOURCE, REPLICAS, runner, repeats=4)
        assert [config.seed for config in runner.ran] == [first + 3] * 2


def test_repeats_of_what_cannot_run_are_listed_once(tmp_path: Path) -> None:
    source = SOURCE.with_overrides("system.protocol.name=unreplicated")
    with Counting(tmp_path) as runner:
        done = sweep(source, REPLICAS, runner, repeats=2)
    assert [(point.state, point.repeat) for point in done.points] == [
        ("run", 0), ("infeasible", 0), ("run", 1),
    ]  # fmt: skip
    with Counting(tmp_path) as runner, pytest.raises(InputError, match="seed"):
        sweep(SOURCE, {"seed": [1, 2]}, runner, repeats=2)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1,3,5", ["1", "3", "5"]),
        ("a, b", ["a", "b"]),
        ("raft", ["raft"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("{name: lru, size: 5},null", ["{name: lru, size: 5}", "null"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("{a: [1,2], b: 'x,]'}", ["{a: [1,2], b: 'x,]'}"]),
        ("", [""]),
    ],
)
def test_values_part_at_commas_outside_brackets_and_quotes(text: str, parts: list[str]) -> None:
    assert list(split_values(text)) == parts


def test_lists_are_axes_and_the_rest_are_overrides() -> None:
    plain, axes = split_axes(["seed=3", "system.replicas=1,3", "workload.mix=a,b", "tune.trials=2"])
    assert plain == ["seed=3", "tune.trials=2"]
    assert axes == {"system.replicas": [1, 3], "workload.mix": ["a", "b"]}


def test_an_axis_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice") as raised:
        split_axes(["seed=1,2", "seed=3,4"])
    assert raised.value.path == "seed"


def test_the_last_axis_changes_fastest() -> None:
    grid = variants(SOURCE, {"system.replicas": [1, 3], "workload.mix": ["a", "b"]})
    listed = [tuple(variant.values.values()) for variant in grid]
    assert listed == [(1, "a"), (1, "b"), (3, "a"), (3, "b")]


def test_an_axis_of_names_brings_the_defaults_of_each_plugin() -> None:
    grid = variants(SOURCE, {"system.protocol.name": ["raft", "primary_backup"]})
    names = [variant.config.system.params.protocol.name for variant in grid if variant.config]
    assert names == ["raft", "primary_backup"]


@pytest.mark.parametrize(
    ("axes", "path"),
    [
        ({"system.replicas": [3, 0]}, "system.replicas"),
        ({"workload.mix": ["a", "z"]}, "workload.mix"),
        ({"system.replicsa": [1, 3]}, "system.replicsa"),
        ({"duration": ["1s", "2"]}, "duration"),
    ],
)
def test_a_wrong_value_or_path_is_refused_before_anything_runs(
    axes: dict[str, list[Any]], path: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as raised:
        swept(tmp_path / "results", axes)
    assert raised.value.path == path
    assert not (tmp_path / "results").exists()


def test_combinations_that_cannot_run_are_listed_and_not_run(tmp_path: Path) -> None:
    axes = REPLICAS | {"system.protocol.name": ["raft", "unreplicated"]}
    done, ran = swept(tmp_path, axes)
    assert ran == 3
    (refused,) = [point for point in done.points if point.state == "infeasible"]
    assert refused.values == {"system.replicas": 3, "system.protocol.name": "unreplicated"}
    assert "exactly 1 replica" in str(refused.reason)


def test_a_grid_beyond_the_memory_is_infeasible_and_no_error(tmp_path: Path) -> None:
    done, ran = swept(
        tmp_path, REPLICAS, "system.cache={name: lru, size: 1000}", "system.memory=1KiB"
    )
    assert ran == 0
    assert [point.state for point in done.points] == ["infeasible", "infeasible"]
    (first, _) = variants(
        SOURCE.with_overrides("system.cache={name: lru, size: 1MiB}", "system.memory=1KiB"),
        REPLICAS,
    )
    assert isinstance(first.error, InfeasibleError)


def test_what_was_run_is_reused(tmp_path: Path) -> None:
    first, ran = swept(tmp_path, {"system.replicas": [1]})
    assert ran == 1
    told: list[Point] = []
    with Counting(tmp_path) as runner:
        second = sweep(SOURCE, REPLICAS, runner, told=lambda *news: told.append(news[2]))
        assert [config.system.params.replicas for config in runner.ran] == [3]
    assert [point.state for point in second.points] == ["reused", "run"] == [p.state for p in told]
    assert second.points[0].summary == first.points[0].summary
    # Another seed is another experiment.
    _, ran = swept(tmp_path, REPLICAS, "seed=2")
    assert ran == 2


def test_an_invalid_run_is_run_again(tmp_path: Path) -> None:
    short = ("duration=2ms", "warmup=0s")
    done, ran = swept(tmp_path, {"seed": [1]}, *short)
    assert ran == 1
    assert done.points[0].summary is not None and not done.points[0].summary["valid"]
    _, ran = swept(tmp_path, {"seed": [1]}, *short)
    assert ran == 1


def test_an_interrupted_sweep_keeps_what_had_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Runner._stored

    def stop(self: Runner, *arguments: Any) -> RunResult:
        done = stored(self, *arguments)
        if done.config.system.params.replicas == 3:
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as patched:
        patched.setattr(Runner, "_stored", stop)
        with pytest.raises(KeyboardInterrupt):
            swept(tmp_path, {"system.replicas": [1, 3, 5]})
    done, ran = swept(tmp_path, {"system.replicas": [1, 3, 5]})
    assert ran == 1
    assert [point.state for point in done.points] == ["reused", "reused", "run"]


def test_the_json_object_has_runs_reasons_and_results(tmp_path: Path) -> None:
    axes = REPLICAS | {"system.protocol.name": ["unreplicated"]}
    done, _ = swept(tmp_path, axes)
    found = json.loads(json.dumps(done.as_json()))
    assert found["results"] == str(tmp_path)
    assert [run["values"]["system.replicas"] for run in found["runs"]] == [1]
    assert found["runs"][0]["reused"] is False
    assert [each["values"]["system.replicas"] for each in found["infeasible"]] == [3]


def test_a_variant_that_is_there_twice_runs_once(tmp_path: Path) -> None:
    done, runs = swept(tmp_path, {"warmup": ["100ms", "0.1s"]})
    assert runs == 1
    assert [point.state for point in done.points] == ["run", "reused"]
    first, second = (point.summary for point in done.points)
    assert first == second


# --- axes of the config itself ----------------------------------------------------------


def test_the_config_brings_axes_and_the_command_line_has_the_last_word() -> None:
    source = ConfigSource.of(BASE | {"sweep": {"seed": [1, 2], "system.replicas": [1, 3]}})
    plain, axes = split_axes(["system.replicas=3", "clients=1,2"])
    bare, found = with_own_axes(source.with_overrides(*plain), plain, axes)
    assert found == {"seed": [1, 2], "clients": [1, 2]}
    # A variant is the run that it would be by itself.
    alone = ConfigSource.of(BASE).with_overrides("system.replicas=3", "seed=2", "clients=1")
    assert bare.with_values({"seed": 2, "clients": 1}).build() == alone.build()


def test_an_axis_without_values_is_refused() -> None:
    with pytest.raises(ConfigError, match="without a value") as found:
        with_own_axes(ConfigSource.of(BASE | {"sweep": {"seed": []}}), [], {})
    assert found.value.path == "sweep.seed"


def test_values_are_named_by_their_plugins_as_long_as_that_tells_them_apart() -> None:
    crash = {"name": "crash", "target": "leader", "at": "1s"}
    told = labels([[crash], [crash | {"target": "any"}], [], 5])
    assert list(told.values()) == ["crash leader", "crash any", "[]", "5"]
    alike = labels([[crash], [crash | {"at": "2s"}]])
    assert all('"at"' in name for name in alike.values())


def test_faults_by_variants_make_a_matrix(tmp_path: Path) -> None:
    durable = {
        "system.node.storage.durability": "fsync",
        "arrival": "{name: poisson, rate: 500/s}",
        "duration": "3500ms",
    }
    overrides = [f"{path}={value}" for path, value in durable.items()]
    faults = [
        [{"name": "crash", "target": "0", "at": "1500ms", "restart_after": "500ms"}],
        [{"name": "duplication", "at": "1500ms", "lasts": "500ms"}],
    ]
    done, runs = swept(tmp_path, {"faults": faults, "seed": [1, 2]}, *overrides)
    assert runs == 4
    shown = io.StringIO()
    out = Console(width=200, file=shown)
    show_sweep(out, done)
    lines = [line.split() for line in shown.getvalue().splitlines()]
    assert ["fault", "1", "2"] in lines
    matrix = {line[0]: line[-2:] for line in lines[lines.index(["fault", "1", "2"]) + 2 :]}
    assert matrix["duplication"] == ["0", "0"]
    assert all(float(text) > 0.1 for text in matrix["crash"])


class Breaking(Runner):
    """Fails for some numbers of replicas: at once, or by losing a part every time."""

    def __init__(self, results: Path, failing: dict[int, EnvironmentFailure]) -> None:
        super().__init__(results)
        self.failing = failing

    def run(self, config: Config | Parts, *, seed: int | None = None, repeat: int = 0) -> RunResult:
        assert isinstance(config, Config)
        error = self.failing.get(config.system.params.replicas)
        if error is not None:
            raise error
        return super().run(config, seed=seed, repeat=repeat)


def test_a_variant_that_fails_is_left_out_and_tried_again_by_the_next_sweep(
    tmp_path: Path,
) -> None:
    axes = {"system.replicas": [1, 3, 5]}
    with Breaking(tmp_path, {3: PartLost("node 1: gone")}) as runner:
        done = sweep(SOURCE, axes, runner)
    assert [point.state for point in done.points] == ["run", "failed", "run"]
    assert done.as_json()["failed"] == [
        {"values": {"system.replicas": 3}, "reason": "node 1: gone"},
    ]
    again, ran = swept(tmp_path, axes)
    assert [point.state for point in again.points] == ["reused", "run", "reused"]
    assert ran == 1


def test_a_sweep_in_which_all_fails_in_the_same_way_ends(tmp_path: Path) -> None:
    same = {replicas: EnvironmentFailure(f"port {replicas} is taken") for replicas in (1, 2, 3)}
    with (
        Breaking(tmp_path, same) as runner,
        pytest.raises(EnvironmentFailure, match="3 runs in a row failed: port 3 is taken"),
    ):
        sweep(SOURCE, {"system.replicas": [1, 2, 3, 4]}, runner)
    with Breaking(tmp_path, same) as runner, pytest.raises(EnvironmentFailure) as told:
        sweep(SOURCE, {"system.replicas": [1, 3]}, runner)
    assert told.value is same[3]
    gone = {1: ClusterLost("no head"), 3: ResultsFull("no room")}
    for replicas, error in gone.items():
        with Breaking(tmp_path, gone) as runner, pytest.raises(type(error)):
            sweep(SOURCE, {"system.replicas": [replicas, 5]}, runner)


def test_what_is_not_known_is_neither_never_nor_nothing() -> None:
    def told(lost: int | None = 0, *, least: bool = False, **found: Any) -> tuple[str, str, str]:
        known = {"strikes": 2, "recovered": 1, "recovered_s": {"p50": 0.5, "max": 0.5}}
        losses = {"lost_acknowledged_writes": lost, "lost_is_least": least}
        return _resilience(known | losses | found)

    assert told(recovered=2) == ("0.500", "0.500", "0")
    assert told(recovery_unknown=0) == ("0.500", "never", "0")
    assert told(recovery_unknown=1) == ("0.500", "unknown", "0")
    assert told(None, recovered=2)[2] == "–"
    assert told(3, recovered=2, least=True)[2] == "≥3"
