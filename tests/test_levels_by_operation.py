"""One run that mixes strong and weak reads: who serves them, and what each is held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

from orchestrator.cli import main
from orchestrator.config.load import load_mapping
from orchestrator.core import levels
from orchestrator.core.machine import READ, WRITE
from orchestrator.errors import ConfigError
from orchestrator.plan import plan
from orchestrator.run import execute, judge

BASE: dict[str, Any] = {
    "experiment": "mixed",
    "runtime": "sim",
    "system": {
        "protocol": {"name": "raft"},
        "replicas": 3,
        "network": {"delay": {"name": "exponential", "mean": "2ms"}},
    },
    "workload": {"name": "ycsb", "mix": "a", "keys": 20, "value_size": "8B"},
    "arrival": {"name": "closed", "sessions": 16, "think_time": "2ms"},
    "warmup": "0s",
    "duration": "3s",
}


def with_reads(protocol: dict[str, Any], shares: dict[str, float], *overrides: str) -> Any:
    system = BASE["system"] | {"protocol": protocol}
    config = load_mapping(BASE | {"system": system, "client": {"reads": shares}}, *overrides)
    parts = plan(config)
    record = execute(parts)
    return record, judge(parts, record)


def test_reads_ask_for_their_share_and_writes_for_nothing() -> None:
    record, _ = with_reads({"name": "raft"}, {"linearizable": 1.0, "eventual": 3.0})
    history = record.history
    reads = history.level[history.kind == READ]
    weak = float(numpy.mean(reads == levels.CODES[levels.EVENTUAL]))
    assert weak == pytest.approx(0.75, abs=0.05)
    assert set(history.level[history.kind == WRITE].tolist()) == {levels.UNASKED}


@pytest.mark.parametrize(
    ("protocol", "weak"),
    [
        ({"name": "raft"}, "sequential"),
        ({"name": "raft", "reads": "read_index"}, "eventual"),
        ({"name": "chain"}, "eventual"),
        ({"name": "craq"}, "eventual"),
        ({"name": "abd"}, "regular"),
        ({"name": "multi_paxos"}, "sequential"),
        ({"name": "causal"}, "eventual"),
        ({"name": "primary_backup"}, "eventual"),
    ],
    ids=str,
)
def test_each_level_is_checked_on_its_own_reads(protocol: dict[str, Any], weak: str) -> None:
    strong = "causal" if protocol["name"] == "causal" else "linearizable"
    record, verdict = with_reads(protocol, {strong: 0.5, weak: 0.5})
    found = {each.level: each for each in verdict.verdicts}
    assert verdict.verdict == "valid", [each.explanation for each in verdict.verdicts]
    assert {strong, weak} <= set(found)
    reads = record.history.kind == READ
    strong_reads = int(numpy.sum(record.history.level[reads] == levels.CODES[strong]))
    assert 0 < strong_reads < int(reads.sum())
    assert found[strong].operations <= len(record.history) - (int(reads.sum()) - strong_reads)


def test_weak_reads_are_cheaper_and_staler() -> None:
    fast, _ = with_reads({"name": "raft"}, {"eventual": 1.0})
    slow, verdict = with_reads({"name": "raft"}, {"linearizable": 1.0})

    def median_ns(record: Any) -> float:
        reads = record.history.kind == READ
        took_ns = (record.history.returned_ns - record.history.invoked_ns)[reads]
        return float(numpy.median(took_ns))

    assert median_ns(fast) < 0.7 * median_ns(slow)
    assert verdict.strongest == (levels.LINEARIZABLE,)


def test_a_level_that_is_not_offered_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not offer linearizable reads") as caught:
        with_reads({"name": "gossip"}, {"linearizable": 1.0})
    assert caught.value.path == "client.reads.linearizable"
    with pytest.raises(ConfigError, match="unknown consistency level 'linear'"):
        with_reads({"name": "raft"}, {"linear": 1.0})
    with pytest.raises(ConfigError, match="not above 0"):
        with_reads({"name": "raft"}, {"eventual": 0.0})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["consistency=linearizable"], "writes nothing back"),
        (
            ["consistency=regular", "protocol.read_quorum=1", "protocol.write_quorum=2"],
            "R 1 + W 2",
        ),
    ],
)
def test_a_claim_that_cannot_be_kept_is_refused_with_its_arithmetic(
    overrides: list[str], words: str
) -> None:
    system = BASE["system"] | {"protocol": {"name": "quorum"}}
    config = load_mapping(BASE | {"system": system}, *(f"system.{each}" for each in overrides))
    with pytest.raises(ConfigError) as caught:
        plan(config)
    assert words in str(caught.value)


def test_the_result_names_the_levels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mixed.yaml"
    import yaml  # type: ignore[import-untyped]

    file.write_text(yaml.safe_dump(BASE | {"client": {"reads": {"eventual": 1.0}}}))
    main(["run", str(file), "--json", "--results", str(tmp_path / "r")])
    found = json.loads(capsys.readouterr().out)["consistency"]
    assert found["verdict"] == "valid"
    assert "linearizable" in found["claimed"]
    assert found["staleness_ms"]["p99"] >= 0
    assert found["staleness_versions"]["p99"] >= 0
