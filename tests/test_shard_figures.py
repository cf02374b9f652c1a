"""Operations by shard, which of them are hot, and what a move of data cost, in whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

from orchestrator.analysis.moves import portions
from orchestrator.analysis.shards import is_hot
from orchestrator.config.load import load_mapping
from orchestrator.core.giving import FENCED, MOVED
from orchestrator.core.record import digests_to_compare
from orchestrator.report import compare
from orchestrator.report.figures import run_figures
from orchestrator.report.summary import run_words
from orchestrator.report.wording import NONE
from orchestrator.run import Runner, RunResult
from orchestrator.stored import run_view


def described(**system: Any) -> dict[str, Any]:
    return {
        "runtime": "sim",
        "system": {
            "protocol": {"name": "unreplicated"},
            "shards": 4,
            "nodes": 4,
            "sharding": {"name": "hash_ranges"},
            "network": {"delay": "250us"},
        }
        | system,
        "workload": {"name": "ycsb", "mix": "a", "keys": 400, "distribution": "uniform"},
        "arrival": {"name": "poisson", "rate": "4000/s"},
        "warmup": "200ms",
        "duration": "800ms",
    }


def ran(tmp_path: Path, config: dict[str, Any]) -> tuple[RunResult, Any]:
    with Runner(tmp_path) as runner:
        result = runner.run(load_mapping(config))
        return result, run_view(runner.store, result.run_id)


# --- the rule ---------------------------------------------------------------------------


def test_a_hot_shard_takes_far_more_than_its_share_and_more_than_chance_explains() -> None:
    # A tenth more is no news, however sure it is.
    assert not is_hot(275_000, 1_000_000, 0.25, 4)
    assert is_hot(400_000, 1_000_000, 0.25, 4)
    # Twice the share of ten operations is chance.
    assert not is_hot(5, 10, 0.25, 4)
    assert not is_hot(0, 10, 0.0, 4)


def test_an_even_load_makes_no_shard_hot_by_chance() -> None:
    chance = numpy.random.default_rng(7)
    runs = [chance.multinomial(total, [1 / 16] * 16) for total in (40, 400) for _ in range(2000)]
    found = [any(is_hot(int(n), int(run.sum()), 1 / 16, 16) for n in run) for run in runs]
    assert sum(found) / len(found) < 0.002


# --- whole runs -------------------------------------------------------------------------


def test_operations_fall_on_shards_and_a_hot_one_is_named(tmp_path: Path) -> None:
    result, _ = ran(tmp_path, described())
    found = result.summary["shards"]
    assert sum(each["operations"] for each in found["by_shard"]) == len(
        result.record.history.select(result.record.history.intended_ns >= 200_000_000)
    )
    assert [each["fair_share"] for each in found["by_shard"]] == pytest.approx([0.25] * 4)
    assert found["hot"] == []
    assert found["max_over_fair"] == pytest.approx(1, abs=0.25)
    assert "none of 4 is hot" in compare.hot_shards(result.summary)

    few = described() | {"workload": {"name": "ycsb", "mix": "a", "keys": 400}}
    few["workload"]["distribution"] = {
        "name": "hotspot",
        "operations_share": 0.9,
        "keys_share": 0.005,
    }
    result, view = ran(tmp_path, few)
    found = result.summary["shards"]
    hot = max(found["by_shard"], key=lambda each: each["operations"])
    assert hot["shard"] in found["hot"]
    said = f"shard {hot['shard']} is hot"
    assert said in compare.hot_shards(result.summary)
    assert any(said in sentence for sentence in run_words(view).sentences)
    assert [picture.name for picture in run_figures(view)][-1] == "shards"


def test_weights_say_what_is_fair(tmp_path: Path) -> None:
    weights = (1, 1, 1, 5)
    sharding = {"name": "hash_ranges", "weights": list(weights)}
    result, _ = ran(tmp_path, described(sharding=sharding))
    found = result.summary["shards"]
    assert found["by_shard"][3]["share"] == pytest.approx(5 / 8, abs=0.1)
    assert found["hot"] == []


def test_what_a_command_moved_is_told(tmp_path: Path) -> None:
    given = [{"command": "add_shard", "shard": 3, "at": "500ms"}]
    result, view = ran(tmp_path, described(administration=given, moving={"portions": 8}))
    (move,) = result.summary["moves"]
    every = portions(result.record)
    events = [event for event in result.record.events if event.kind in (FENCED, MOVED)]
    assert 2 * len(every) == len(events) == 2 * move["portions"]
    # Three ranges become four: half of the keys go from neighbour to neighbour.
    assert move["keys"] == pytest.approx(200, abs=40)
    assert {(each["from"], each["to"]) for each in move["routes"]} == {(0, 1), (1, 2), (2, 3)}
    assert sum(each["keys"] for each in move["routes"]) == move["keys"]
    size = len("user000000000000") + 100
    assert move["bytes"] == move["keys"] * size
    assert 0.5 <= move["began_s"] < move["ended_s"] < 1.0
    assert move["held_ms"]["max"] >= move["held_ms"]["p50"] >= 0.5
    assert move["operations_lost"] == 0 and move["availability"] == 1.0
    for when in ("before", "during", "after"):
        assert move[when]["goodput_ops"] > 2000
        assert move[when]["p99_ms"] > move[when]["p50_ms"] > 0
    assert f"add_shard 3 moved {move['keys']} keys" in compare.moves(result.summary)
    # A shard that was added takes its part from then on.
    shards = result.summary["shards"]["by_shard"]
    assert 0.05 < shards[3]["fair_share"] < 0.2
    assert shards[3]["share"] == pytest.approx(shards[3]["fair_share"], abs=0.06)
    assert view.events == [] or all(event.kind != MOVED for event in view.events)
    assert any("Data moved" in sentence for sentence in run_words(view).sentences)


def test_moves_and_shards_are_stored(tmp_path: Path) -> None:
    given = [{"command": "add_node", "node": 3, "at": "500ms"}]
    result, _ = ran(tmp_path, described(administration=given))
    with Runner(tmp_path) as runner:
        row = runner.store.run(result.run_id)
        assert row is not None
        assert json.loads(row["moves"])[0]["node"] == 3
        assert len(json.loads(row["shards_by_shard"])) == 4
        assert row["shards_hot"] == result.summary["shards"]["hot"]
        kinds = [each["kind"] for each in runner.store.table("events", result.run_id).to_pylist()]
    assert kinds.count(MOVED) == result.summary["moves"][0]["portions"]


def test_runs_without_shards_have_no_figures_of_them(tmp_path: Path) -> None:
    result, view = ran(tmp_path, described(shards=1, nodes=1))
    assert result.summary["shards"] is None
    assert result.summary["moves"] == []
    assert compare.hot_shards(result.summary) == compare.moves(result.summary) == NONE
    assert [picture.name for picture in run_figures(view)][-1] != "shards"


def test_copies_are_compared_group_by_group() -> None:
    assert digests_to_compare(["a", "a", "no copy"]) == ["a", "a"]
    assert digests_to_compare(["0:a 1:b", "1:b 2:c", "0:a 2:d"]) == ["c", "d"]
    assert len(set(digests_to_compare(["a", "0:a 1:b", "1:b"]))) == 1
    assert digests_to_compare(["", "a"]) == ["", "a"]
