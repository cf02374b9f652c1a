"""A node's log and journal on disk, and what the crash of a machine leaves of them."""

from __future__ import annotations

import os
import random
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.core.record import LOST, EventRecord
from orchestrator.errors import LogDamaged
from orchestrator.runtimes._disk import GroupedLog, RecordLog, cut_unsynced, recovered
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


def found_in(folder: Path) -> list[str]:
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
        found = found_in(folder)
        assert found[:20] == SYNCED
        assert found[20:] == WRITTEN[: len(found) - 20]
        lengths.append(len(found))
    assert min(lengths) < 25 and max(lengths) > 35


def test_the_crash_of_a_process_leaves_what_was_written(tmp_path: Path) -> None:
    written_log(tmp_path)
    assert found_in(tmp_path) == SYNCED + WRITTEN


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
    assert found_in(tmp_path) == kept
    log.append("later")
    log.write()
    log.sync()
    cut_unsynced(tmp_path, random.Random(6))
    assert found_in(tmp_path) == [*kept, "later"]


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
        found = found_in(folder)
        assert found == ["all of that"] if synced else found[:20] == SYNCED


# --- torn and damaged logs --------------------------------------------------------------


def record_bytes(payload: bytes) -> bytes:
    length = len(payload).to_bytes(4, "little")
    return length + zlib.crc32(length + payload).to_bytes(4, "little") + payload


@pytest.mark.parametrize(
    "tail",
    [bytes(8), bytes(4096), bytes(5), record_bytes(msgspec.msgpack.encode(7)), record_bytes(b"")],
    ids=["header", "block", "part", "other-type", "empty"],
)
def test_a_tail_that_is_no_record_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    written_log(tmp_path)
    path = tmp_path / "node0.log"
    with path.open("ab") as file:
        file.write(tail)
    log = GroupedLog(path, str)
    assert log.recover() == SYNCED + WRITTEN
    log.append("later")
    log.write()
    assert found_in(tmp_path) == [*SYNCED, *WRITTEN, "later"]


def test_a_cut_leaves_zeros_or_other_bytes(tmp_path: Path) -> None:
    ends = []
    for seed in range(30):
        folder = tmp_path / str(seed)
        folder.mkdir()
        written_log(folder)
        cut_unsynced(folder, random.Random(seed))
        ends.append((folder / "node0.log").read_bytes()[-16:])
        assert found_in(folder)[:20] == SYNCED
    assert 4 < ends.count(bytes(16)) < 20


@pytest.mark.parametrize("how", ["flipped", "zeroed", "shortened"])
@pytest.mark.parametrize("group", [0, 3])
def test_what_was_synced_and_is_damaged_is_named(tmp_path: Path, how: str, group: int) -> None:
    written_log(tmp_path, group).close()
    path = tmp_path / ("node0-3.log" if group else "node0.log")
    data = bytearray(path.read_bytes())
    begins = data.index(b"synced 7") - 9
    if how == "flipped":
        data[begins + 10] ^= 1
    elif how == "zeroed":
        data[begins : begins + 64] = bytes(64)
    else:
        del data[begins + 3 :]
    path.write_bytes(data)
    with pytest.raises(LogDamaged) as error:
        found_in(tmp_path)
    assert f"{path} is damaged at byte {begins}" in str(error.value)
    # Nothing was cut off, so whoever looks at it finds what there is.
    assert path.read_bytes() == data
    journal = Journal(tmp_path / "journal")
    with pytest.raises(LogDamaged):
        recovered(GroupedLog(tmp_path / "node0.log", str), journal, 2, 5)
    assert journal.events == [EventRecord(5, 2, LOST, str(error.value))]
    journal.close()


def test_a_snapshot_that_was_never_synced_may_be_torn_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "node0.log"
    for round_ in range(3):
        log = GroupedLog(path, str)
        log.recover()
        for record in SYNCED:
            log.append(record)
        log.write()
        log.sync()
        log.append(f"all of round {round_}", replaces=True)
        log.append("and more")
        log.write()
        log.settle()
        log.close()
        path.write_bytes(path.read_bytes()[:-3])
        assert found_in(tmp_path) == [f"all of round {round_}"]


def test_the_folder_of_a_new_log_is_synced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noting(file: int) -> Any:
        synced.append(os.readlink(f"/proc/self/fd/{file}"))
        return fsync(file)

    monkeypatch.setattr(os, "fsync", noting)
    log = written_log(tmp_path)
    assert synced == [str(tmp_path)]
    log.append("another group", group=2)
    assert synced == [str(tmp_path)] * 2
    log.close()
    found_in(tmp_path)
    assert synced == [str(tmp_path)] * 2


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
