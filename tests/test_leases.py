"""A lease lives as long as its driver, and only one driver at a time may judge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.study.leases import FileLock, Leases, start_ticks

ROOT = Path(__file__).resolve().parent.parent

HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.study.leases import Leases
with Leases(Path(sys.argv[1])) as leases:
    leases.take(7)
    if "locked" in sys.argv:
        leases._lock.acquire()
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease of trial 7."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_lease_is_alive_for_everyone_until_released(tmp_path: Path) -> None:
    with Leases(tmp_path) as mine, Leases(tmp_path) as theirs:
        assert not mine.alive(3)
        mine.take(3)
        assert mine.held(3) and mine.alive(3) and theirs.alive(3)
        assert not theirs.held(3)
        mine.release(3)
        assert not mine.held(3) and not mine.alive(3) and not theirs.alive(3)


def test_a_killed_driver_is_known_at_once(tmp_path: Path) -> None:
    with Leases(tmp_path) as mine:
        with holder(tmp_path) as process:
            assert mine.alive(7) and not mine.held(7)
            process.kill()  # and not reaped: what is left of it is no living process
            deadline_s = time.monotonic() + 5
            while mine.alive(7) and time.monotonic() < deadline_s:
                time.sleep(0.01)
            assert not mine.alive(7)
        assert not mine.alive(7)


def test_a_process_id_that_was_used_again_is_another_driver(tmp_path: Path) -> None:
    with Leases(tmp_path) as mine, holder(tmp_path):
        owner = json.loads((tmp_path / "7").read_text())
        (tmp_path / "7").write_text(json.dumps(owner | {"started_ticks": 1}))
        assert not mine.alive(7)


def test_a_silent_driver_of_another_host_is_dead_after_a_while(tmp_path: Path) -> None:
    with Leases(tmp_path, dead_s=20.0) as mine, holder(tmp_path):
        owner = json.loads((tmp_path / "7").read_text())
        # Their process ids mean nothing here, so only the beat counts.
        (tmp_path / "7").write_text(json.dumps(owner | {"boot": "elsewhere", "pid": 2**22 + 1}))
        assert mine.alive(7)
        long_ago_s = time.time() - 21
        os.utime(tmp_path / "7", (long_ago_s, long_ago_s))
        assert not mine.alive(7)


def test_a_hanging_driver_of_this_host_is_dead_after_a_while(tmp_path: Path) -> None:
    with Leases(tmp_path) as mine, holder(tmp_path):
        long_ago_s = time.time() - 21
        os.utime(tmp_path / "7", (long_ago_s, long_ago_s))
        assert not mine.alive(7)


def test_the_heart_beats(tmp_path: Path) -> None:
    with Leases(tmp_path, beat_s=0.02) as mine:
        mine.take(1)
        long_ago_s = time.time() - 100
        os.utime(tmp_path / "1", (long_ago_s, long_ago_s))
        deadline_s = time.monotonic() + 5
        while (tmp_path / "1").stat().st_mtime < long_ago_s + 50:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


def test_a_beat_does_not_bring_back_a_lease_that_was_taken_away(tmp_path: Path) -> None:
    with Leases(tmp_path, beat_s=0.01) as mine, Leases(tmp_path) as theirs:
        mine.take(1)
        theirs.release(1)
        time.sleep(0.05)
        assert not mine.held(1) and not theirs.alive(1)
        theirs.take(1)
        assert theirs.held(1) and not mine.held(1)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_a_file_that_is_no_lease_holds_nothing(tmp_path: Path, text: str) -> None:
    with Leases(tmp_path) as mine:
        (tmp_path / "4").write_text(text)
        assert not mine.alive(4) and not mine.held(4)


def test_the_lock_excludes_threads_and_other_drivers(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work(leases: Leases) -> None:
        nonlocal inside, most
        for _ in range(50):
            with leases.exclusive():
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    shared = Leases(tmp_path)
    threads = [threading.Thread(target=work, args=[shared]) for _ in range(2)]
    threads += [threading.Thread(target=work, args=[Leases(tmp_path)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_killed_driver_frees_the_lock(tmp_path: Path) -> None:
    with holder(tmp_path, "locked") as process:
        lock = FileLock(tmp_path / ".lock")
        taken = threading.Event()

        def take() -> None:
            lock.acquire()
            taken.set()
            lock.release()

        thread = threading.Thread(target=take)
        thread.start()
        assert not taken.wait(0.1)
        process.kill()
        assert taken.wait(5)
        thread.join()


def test_a_process_has_one_start() -> None:
    assert start_ticks(os.getpid()) == start_ticks(os.getpid())
    assert start_ticks(2**22 + 1) is None
