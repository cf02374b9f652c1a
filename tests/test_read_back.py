"""What was written is read in the end: all of it, within bounds of time, and gaps are told."""

from __future__ import annotations

from typing import Any

import numpy
from made_records import history
from test_faults import SYSTEM, made, summary_of

from orchestrator.config.load import load_mapping
from orchestrator.core.history import PHASE_FINAL, PHASE_RUN
from orchestrator.core.machine import FAIL, OK, READ, UNKNOWN, WRITE
from orchestrator.core.units import NS_PER_S
from orchestrator.run import execute
from orchestrator.runtimes import simulated
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._read_back import (
    FUTILE_PASS_NS,
    PASS_NS,
    PASSES,
    READERS,
    FinalReads,
    keys_to_read,
)


def test_every_key_is_read_however_many_there_are() -> None:
    assert list(keys_to_read(history(50_000, kind=WRITE, key=numpy.arange(50_000)))) == [
        *range(50_000)
    ]


def test_keys_that_nobody_asked_for_yet_come_first() -> None:
    kind = [WRITE] * 5 + [READ] * 3
    outcome = [OK, UNKNOWN, OK, FAIL, OK, OK, UNKNOWN, UNKNOWN]
    phase = [PHASE_RUN] * 5 + [PHASE_FINAL] * 3
    seen = history(8, kind=kind, key=[0, 1, 2, 3, 4, 0, 1, 2], outcome=outcome, phase=phase)
    # 0 has answered, 3 was never changed.
    assert list(keys_to_read(seen)) == [4, 1, 2]


def test_a_pass_that_follows_a_futile_one_is_short() -> None:
    written = history(3, kind=WRITE, key=[0, 1, 2])
    answered = history(
        4, kind=[WRITE] * 3 + [READ], key=[0, 1, 2, 1], phase=[PHASE_RUN] * 3 + [PHASE_FINAL]
    )
    reads = FinalReads()
    passes = [reads.next_pass(each) for each in (written, written, answered, answered)]
    assert [each and each.lasts_ns for each in passes] == [
        PASS_NS,
        FUTILE_PASS_NS,
        PASS_NS,
        FUTILE_PASS_NS,
    ]
    assert FinalReads().next_pass(history(3)) is None


def lost_machines(target: str, **protocol: Any) -> Any:
    """Half a store's writes on keys of their own, and machines that are gone for good."""
    system = SYSTEM | {"protocol": {"name": "quorum", **protocol}, "replicas": 1, "nodes": 3}
    return made(
        {"name": "lose_machine", "target": target, "at": "3s"},
        system=system,
        workload={"name": "ycsb", "mix": "a", "keys": 100, "inserts": 0.5, "value_size": "8B"},
        check={"level": "none"},
    )


def test_keys_that_cannot_be_read_back_are_not_taken_for_kept() -> None:
    parts = lost_machines("count:2")
    record = execute(parts)
    found = summary_of(parts, record)
    kept = found["resilience"]
    rows = record.history
    acknowledged = {*rows.key[(rows.kind == WRITE) & (rows.outcome == OK)].tolist()}
    read = {*rows.key[(rows.phase == PHASE_FINAL) & (rows.outcome == OK)].tolist()}
    assert kept["unread_keys"] == len(acknowledged - read) > 100
    assert (kept["durability"], kept["lost_acknowledged_writes"]) == ("unknown", None)
    assert found["faults"][0]["lost_acknowledged_writes"] is None


def test_reading_back_from_nobody_ends_in_time() -> None:
    parts = lost_machines("all")
    record = execute(parts)
    final = record.history.phase == PHASE_FINAL
    assert final.any() and not (record.history.outcome[final] == OK).any()
    # Half a second for each of 16 keys at a time; who did not answer is asked again, but not long.
    client = record.history.client[final]
    keys = max(len({*record.history.key[final][client == each]}) for each in (0, 1))
    last_ns = int(record.history.invoked_ns.max()) - record.end_ns
    first_pass_ns = keys / READERS * 0.5 * NS_PER_S
    assert first_pass_ns > FUTILE_PASS_NS + 3 * NS_PER_S
    assert last_ns < first_pass_ns + (PASSES - 1) * (FUTILE_PASS_NS + NS_PER_S) + NS_PER_S


def test_final_reads_are_no_part_of_a_load_whose_last_answer_came_early() -> None:
    """Two operations a second: the last is answered long before the window ends."""
    config = {
        "runtime": "sim",
        "system": {"protocol": {"name": "raft"}, "replicas": 3},
        "workload": {"name": "ycsb", "mix": "a", "keys": 10},
        "arrival": {"name": "constant", "rate": "3/s"},
        "warmup": "1s",
        "duration": "4s",
        "faults": [{"name": "pause", "target": 0, "at": "2s", "lasts": "100ms"}],
    }
    record = simulated.run(Parts.of(load_mapping(config)))
    final = record.history.phase == PHASE_FINAL
    assert final.any()
    assert record.history.intended_ns[final].min() >= record.end_ns
