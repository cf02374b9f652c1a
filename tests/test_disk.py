"""A node's log and journal on disk, and what the crash of a machine leaves of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from orchestrator.core.record import EventRecord
from orchestrator.runtimes._disk import GroupedLog, RecordLog, cut_unsynced
from orchestrator.runtimes._journal import Journal

SYNCED = [f"synced {number}" for number in range(20)]
WRITTEN = [f"only written {number}" for number in range(20)]


def written_log(folder: Path, group: int = 0) -> GroupedLog:
    """With 20 records that are synced, and 20 that are not."""
    log = GroupedLog(folder / "node0.log", str)
    log.recover()
    for record in SYNCED:
        log.append(record, group=group)
    log.write()
    log.sync()
    for record in WRITTEN:
        log.append(record, group=group)
    log.write()
    return log


def recovered(folder: Path) -> list[str]:
    found: list[str] = GroupedLog(folder / "node0.log", str).recover()
    return found


@pytest.mark.parametrize("group", [0, 3])
def test_the_crash_of_a_machine_leaves_what_was_synced_and_a_torn_piece(
    tmp_path: Path, group: int
) -> None:
    lengths = []
    for seed in range(30):
        folder = tmp_path / str(seed)
        folder.mkdir()
        written_log(folder, group)
        cut_unsynced(folder, random.Random(seed))
        found = recovered(folder)
        assert found[:20] == SYNCED
        assert found[20:] == WRITTEN[: len(found) - 20]
        lengths.append(len(found))
    assert min(lengths) < 25 and max(lengths) > 35


def test_the_crash_of_a_process_leaves_what_was_written(tmp_path: Path) -> None:
    written_log(tmp_path)
    assert recovered(tmp_path) == SYNCED + WRITTEN


def test_a_log_that_was_never_synced_keeps_any_beginning(tmp_path: Path) -> None:
    lengths = []
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        log = RecordLog(folder / "node0.log", str)
        for record in WRITTEN:
            log.append(record)
        log.write()
        cut_unsynced(folder, random.Random(seed))
        found = RecordLog(folder / "node0.log", str).recover()
        assert found == WRITTEN[: len(found)]
        lengths.append(len(found))
    assert min(lengths) < 5


def test_what_is_recovered_is_synced_and_written_on_behind_it(tmp_path: Path) -> None:
    written_log(tmp_path)
    cut_unsynced(tmp_path, random.Random(4))
    log = GroupedLog(tmp_path / "node0.log", str)
    kept = log.recover()
    cut_unsynced(tmp_path, random.Random(5))
    assert recovered(tmp_path) == kept
    log.append("later")
    log.write()
    log.sync()
    cut_unsynced(tmp_path, random.Random(6))
    assert recovered(tmp_path) == [*kept, "later"]


def test_a_snapshot_counts_only_once_it_is_synced(tmp_path: Path) -> None:
    for synced in (False, True):
        folder = tmp_path / str(synced)
        folder.mkdir()
        log = written_log(folder)
        log.append("all of that", replaces=True)
        log.write()
        if synced:
            log.sync()
        cut_unsynced(folder, random.Random(1))
        found = recovered(folder)
        assert found == ["all of that"] if synced else found[:20] == SYNCED


# --- the journal ------------------------------------------------------------------------


def test_a_journal_goes_on_where_the_process_before_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first = Journal(path)
    first.note(EventRecord(5, 0, "role", "leader"))
    first.sample(0, (0, 1))
    first.sample(1, (10, 2))
    with path.open("ab") as file:
        file.write(b"\x00\x09torn")
    second = Journal(path)
    assert second.events == [EventRecord(5, 0, "role", "leader")]
    second.sample(4, (1, 0))
    assert second.table(5, 2).tolist() == [[0, 1], [10, 2], [10, 2], [10, 2], [11, 2], [11, 2]]
    first.close()
    second.close()
    assert Journal(None).table(1, 2).tolist() == [[0, 0], [0, 0]]
