"""Studies whose runs break and whose drivers die: nothing is lost or counted twice."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.storages.journal import JournalFileBackend
from study_toys import TINY, MadeUp, check_whole, make_up, module, runner, source

from orchestrator.errors import (
    ConfigError,
    EnvironmentFailure,
    PartLost,
    ResultsFull,
    RunInterrupted,
)
from orchestrator.run import RunResult
from orchestrator.store.parquet import Store
from orchestrator.streak import FAILURES_MAX
from orchestrator.study import view as views
from orchestrator.study.driver import ABANDONED_S, Driver
from orchestrator.tune import TuneResult, prepare, tune

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Studies that measure nothing and draw nothing."""
    make_up(monkeypatch)
    return monkeypatch


# --- what breaks ------------------------------------------------------------------------------


def test_one_failure_is_a_trial_and_three_alike_end_the_study(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    broken: list[bool] = [False, True, True, False, True, True, True]

    def run(self: MadeUp, config: Any) -> RunResult:
        done = MadeUp.run(self, config)  # refused ones are no failures
        if broken.pop(0):
            raise EnvironmentFailure(f"node {len(broken)} did not answer")
        return done

    made_up.setattr(module, "Runner", runner(run))
    with pytest.raises(EnvironmentFailure, match=f"{FAILURES_MAX} trials in a row failed: node 0"):
        tune(source("tune.trials=9"), results=tmp_path)
    states = Counter(row["state"] for row in Store(tmp_path).table("trials").to_pylist())
    assert states["complete"] == 2 and states["failed"] == 5
    made_up.setattr(module, "Runner", MadeUp)
    done = tune(source("tune.trials=9"), results=tmp_path)
    assert done.trials["complete"] == 4 and done.trials["failed"] == 5


def test_an_objective_that_no_run_has_is_said(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no figure for cost"):
        tune(
            source("tune.objectives=[{metric: cost, direction: minimize}]"),
            results=tmp_path,
        )


def test_what_is_no_trials_fault_ends_the_study_and_gives_the_trial_back(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    def run(self: MadeUp, config: Any) -> RunResult:
        raise ZeroDivisionError("a bug")

    made_up.setattr(module, "Runner", runner(run))
    with pytest.raises(ZeroDivisionError):
        tune(source(), results=tmp_path)
    made_up.setattr(module, "Runner", MadeUp)
    done = tune(source(), results=tmp_path)
    assert done.outcomes[0]["is_default"]
    check_whole(tmp_path, done.view.study, 6)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell that starts the tests in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_keeps_what_is_finished_and_gives_the_rest_back(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    count = itertools.count()

    def run(self: MadeUp, config: Any) -> RunResult:
        done = MadeUp.run(self, config)
        if next(count) == 3:
            signal.raise_signal(signal.SIGINT)
            time.sleep(5)
        return done

    made_up.setattr(module, "Runner", runner(run))
    with pytest.raises(RunInterrupted, match=r"3 of 6 trials; best so far: trial \d+") as caught:
        tune(source(), results=tmp_path)
    assert caught.value.exit_code == 130
    name = prepare(source()).name
    check_whole(tmp_path, name, 3)
    made_up.setattr(module, "Runner", MadeUp)
    whole = tune(source(), results=tmp_path / "whole").outcomes
    done = tune(source(), results=tmp_path).outcomes
    check_whole(tmp_path, name, 6)
    # The trial under way was measured by the next driver, with the same parameters.
    ran = [outcome["params"] for outcome in whole if outcome["run_id"] is not None]
    assert ran[3] in [outcome["params"] for outcome in done]


class Killed(BaseException):
    """Stands for SIGKILL: from then on this driver writes nothing any more."""


def make_dead(folder: Path) -> None:
    """Make the leases of this process those of a dead one."""
    for path in folder.glob("[0-9]*"):
        owner = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps(owner | {"pid": 2**22 + 1}), "utf-8")


@pytest.mark.parametrize("first", range(5))
def test_a_driver_may_die_at_any_write(
    tmp_path: Path, made_up: pytest.MonkeyPatch, first: int
) -> None:
    """Every fifth write of the journal is a driver's last, until the study is done."""
    append = JournalFileBackend.append_logs
    left = first

    def dying(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        nonlocal left
        if left <= 0:
            raise Killed
        left -= 1
        append(self, logs)

    planned = prepare(source(), trials=3, results=tmp_path)
    deaths = 0
    while True:
        made_up.setattr(JournalFileBackend, "append_logs", dying)
        try:
            tune(planned)
            break
        except Killed:
            deaths += 1
            left = 23 + 7 * deaths
            make_dead(tmp_path / "studies" / f"{planned.name}.leases")
    assert deaths > 1
    check_whole(tmp_path, planned.name, 3)


def test_a_row_that_a_dead_driver_could_not_store_is_stored_later(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    done = tune(source(), results=tmp_path)
    before = views.outcomes(Store(tmp_path), done.view.study)
    gone = [file.path for file in Store(tmp_path).files("trials")][1::2]
    for path in gone:
        Path(path).unlink()
    tune(source(), results=tmp_path)
    assert views.outcomes(Store(tmp_path), done.view.study) == before


def test_a_half_written_line_of_the_journal_is_dropped(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    name = tune(source(), trials=2, results=tmp_path).view.study
    with (tmp_path / "studies" / f"{name}.journal").open("a") as journal:
        journal.write('{"op_code": 4, "worker')
    tune(source(), trials=4, results=tmp_path)
    tune(source(), trials=6, results=tmp_path)
    check_whole(tmp_path, name, 6)


def test_a_variant_that_kills_its_drivers_is_given_up(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    def run(self: MadeUp, config: Any) -> RunResult:
        if config.system.params.replicas == 2:
            raise Killed
        return MadeUp.run(self, config)

    made_up.setattr(module, "Runner", runner(run))
    # The death is a real one: nothing is given back.
    made_up.setattr(Driver, "__exit__", lambda *_: None)
    planned = prepare(source(), trials=1, results=tmp_path)
    for _ in range(3):
        with pytest.raises(Killed):
            tune(planned)
        make_dead(tmp_path / "studies" / f"{planned.name}.leases")
    [outcome] = tune(planned).outcomes
    assert outcome["state"] == "failed" and "3 drivers died" in outcome["reason"]


# --- several drivers --------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_two_drivers_share_one_study(
    tmp_path: Path, made_up: pytest.MonkeyPatch, storage: str
) -> None:
    both, here = threading.Barrier(2), threading.local()

    def run(self: MadeUp, config: Any) -> RunResult:
        done = MadeUp.run(self, config)
        if not hasattr(here, "met"):  # neither finishes before the other has begun
            here.met = both.wait(60)
        time.sleep(0.02)
        return done

    made_up.setattr(module, "Runner", runner(run))
    heard: list[list[int]] = [[], []]

    def drive(index: int) -> None:
        tune(
            source("tune.trials=10"),
            results=tmp_path,
            storage=storage,
            listener=lambda news: heard[index].append(news.outcome["number"]),
        )

    threads = [threading.Thread(target=drive, args=[index]) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    name = prepare(source()).name
    rows = check_whole(tmp_path, name, 10)
    assert sorted(heard[0] + heard[1]) == [row["number"] for row in rows]
    assert heard[0] and heard[1]


def test_slots_run_side_by_side(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    together, count = threading.Barrier(3), itertools.count()

    def run(self: MadeUp, config: Any) -> RunResult:
        done = MadeUp.run(self, config)
        if next(count) < 3:
            together.wait(60)
        return done

    made_up.setattr(module, "Runner", runner(run))
    slots = module._Slots

    class Three(slots):  # type: ignore[misc,valid-type]
        def __enter__(self) -> Any:
            super().__enter__()
            self.runners += [module.Runner(tmp_path) for _ in range(2)]
            return self

    made_up.setattr(module, "_Slots", Three)
    done = tune(source("tune.trials=9"), results=tmp_path)
    assert not together.broken
    check_whole(tmp_path, done.view.study, 9)


def test_no_slot_goes_on_measuring_when_a_study_ends(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    together, abandoned, count = threading.Barrier(2), threading.Event(), itertools.count()

    class Slow(MadeUp):
        def run(self, config: Any, *, seed: int | None = None, repeat: int = 0) -> RunResult:
            first = next(count) == 0
            together.wait(60)
            if first:
                raise ResultsFull("no room is left")
            assert abandoned.wait(60)
            raise PartLost("its actors are gone")

        def abandon(self) -> None:
            super().abandon()
            abandoned.set()

    made_up.setattr(module, "Runner", Slow)
    slots = module._Slots

    class Two(slots):  # type: ignore[misc,valid-type]
        def __enter__(self) -> Any:
            super().__enter__()
            self.runners += [module.Runner(tmp_path)]
            return self

    made_up.setattr(module, "_Slots", Two)
    began_s = time.monotonic()
    with pytest.raises(ResultsFull):
        tune(source(), results=tmp_path)
    assert time.monotonic() - began_s < ABANDONED_S
    assert next(count) == 2  # what was abandoned is not made again
    assert not [each for each in threading.enumerate() if "ThreadPool" in each.name]


def test_a_driver_that_hung_does_not_settle_what_another_took_over(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    planned = prepare(source(), trials=3, results=tmp_path)
    leases = tmp_path / "studies" / f"{planned.name}.leases"
    others: list[TuneResult] = []

    def run(self: MadeUp, config: Any) -> RunResult:
        done = MadeUp.run(self, config)
        if not others:  # hangs; another driver finds the lease silent and does everything
            made_up.setattr(module, "Runner", MadeUp)
            make_dead(leases)
            others.append(tune(planned))
        return done

    made_up.setattr(module, "Runner", runner(run))
    tune(planned)
    assert len(others) == 1
    check_whole(tmp_path, planned.name, 3)


SCRIPT = """
import importlib, json, sys, time
from pathlib import Path
from orchestrator.cli import main
from orchestrator.config.load import ConfigSource
module = importlib.import_module("orchestrator.tune")
module.write_report = lambda view, results: (Path("report.html"), [])
def tell(news):
    print(news.finished, flush=True)
module.tune(ConfigSource(json.loads(sys.argv[1])), results=sys.argv[2], listener=tell)
"""


def start(results: Path) -> subprocess.Popen[str]:
    """A real study in another process, one line a trial."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(TINY), str(results)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_after(process: subprocess.Popen[str], finished: int, delay_s: float) -> None:
    """SIGKILL somewhat after that many trials."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= finished:
            break
    time.sleep(delay_s)
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_killed_study_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "write_report", lambda view, results: (Path("x.html"), []))
    name = prepare(source()).name
    kill_after(start(tmp_path), 2, 0.05)
    rows = views.outcomes(Store(tmp_path), name)
    finished = {row["run_id"] for row in rows} - {None}
    assert 2 <= len(finished) < 6
    tune(source(), results=tmp_path)
    rows = check_whole(tmp_path, name, 6)
    assert finished <= {row["run_id"] for row in rows}


ASKING = """
import threading
from orchestrator.core.registry import Family, plugins
seen, together = [], threading.Barrier(4)
def ask():
    together.wait()
    seen.append([sorted(plugins(family)) for family in Family])
threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(all(seen[0]) and all(each == seen[0] for each in seen))
"""


def test_threads_that_look_for_plugins_at_once_find_all() -> None:
    """A run in another slot must not be judged while its checkers are still being imported."""
    asked = subprocess.run(
        [sys.executable, "-c", ASKING], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert asked.stdout == "True\n"
