"""What was written is read in the end: all of it, within bounds of time, and gaps are told."""

from __future__ import annotations

import numpy
from made_records import history

from orchestrator.core.history import PHASE_FINAL, PHASE_RUN
from orchestrator.core.machine import FAIL, OK, READ, UNKNOWN, WRITE
from orchestrator.runtimes._read_back import (
    FUTILE_PASS_NS,
    PASS_NS,
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
