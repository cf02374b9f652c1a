"""A results folder without room: the study stops and says so, and goes on when there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from study_toys import check_whole, module, source

from orchestrator.errors import ResultsFull
from orchestrator.store.parquet import Store
from orchestrator.study.trials import open_storage
from orchestrator.tune import tune

TRIALS = 6


def mount(*arguments: str) -> bool:
    """Whether it worked: it takes root, and a machine that allows it."""
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False, timeout=20)
    return done.returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own that can be made larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)):
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=20)


@pytest.mark.parametrize(
    ("size_kib", "storage"),
    [
        (8, "journal"),
        pytest.param(130, "journal", marks=pytest.mark.long),
        (200, "journal"),
        pytest.param(340, "journal", marks=pytest.mark.long),
        pytest.param(100, "sqlite", marks=pytest.mark.long),
        (240, "sqlite"),
    ],
)
def test_a_full_disk_stops_a_study_which_goes_on_later(
    size_kib: int, storage: str, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mount("-o", f"remount,size={size_kib}k", str(small_disk))
    results = small_disk / "results"
    searched = source("record.operations=all")
    with pytest.raises(ResultsFull) as told:
        tune(searched, trials=TRIALS, results=results, study="full", storage=storage)
    assert "no room is left" in told.value.message
    assert "the same command goes on" in str(told.value.hint)

    store = Store(results)
    # A damaged file would be left out with a warning, which fails the test.
    for table in ("runs", "trials"):
        assert store.table(table).num_rows == len(list((results / table).rglob("*.parquet")))
    files = list((results / "operations").rglob("*.parquet"))
    assert len(set(store.table("operations").column("run_id").to_pylist())) == len(files)
    assert not list(results.rglob("*.tmp"))
    kept = store.table("runs").column("run_id").to_pylist()

    assert mount("-o", "remount,size=64m", str(small_disk))
    # Drawing takes most of the time, and has been tried where there was no room.
    monkeypatch.setattr(module, "write_report", lambda view, results: (Path("report.html"), []))
    done = tune(searched, trials=TRIALS, results=results, study="full", storage=storage)
    assert done.trials["failed"] == 0
    assert set(kept) <= set(store.table("runs").column("run_id").to_pylist())
    check_whole(results, "full", TRIALS)


def test_what_a_full_disk_left_of_a_line_is_taken_away_before_the_next(tmp_path: Path) -> None:
    """By a driver that has had the journal open all the time."""
    lines = open_storage("journal", tmp_path, "s")
    study = optuna.create_study(storage=lines, study_name="s")
    study.set_user_attr("one", 1)
    path = tmp_path / "s.journal"
    with path.open("ab") as file:
        file.write(b'{"op_code":2,"study_id":0,"user_attr":{"half":')
    study.set_user_attr("two", 2)
    again = optuna.load_study(storage=open_storage("journal", tmp_path, "s"), study_name="s")
    assert again.user_attrs == study.user_attrs == {"one": 1, "two": 2}
