"""Conversations with a child, and a supervisor whose child dies, stops and comes back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import EnvironmentFailure
from orchestrator.runtimes._control import Control
from orchestrator.runtimes._supervisor import Supervisor

DEADLINE_S = 10.0


def test_answers_find_who_asked_in_whatever_order_they_come() -> None:
    ours, theirs = multiprocessing.Pipe()
    control = Control(ours)
    first, second = control.ask("one", (1,)), control.ask("two", ())
    heard = [theirs.recv() for _ in range(2)]
    assert [(name, arguments) for _, name, arguments in heard] == [("one", (1,)), ("two", ())]
    theirs.send((heard[1][0], True, "second"))
    theirs.send((heard[0][0], False, EnvironmentFailure("refused")))
    assert second.result(DEADLINE_S) == "second"
    with pytest.raises(EnvironmentFailure, match="refused"):
        first.result(DEADLINE_S)
    theirs.close()


def test_who_waits_for_a_child_that_dies_is_told() -> None:
    ours, theirs = multiprocessing.Pipe()
    control = Control(ours)
    waiting = control.ask("long", ())
    theirs.close()
    with pytest.raises(EnvironmentFailure, match="died during long"):
        waiting.result(DEADLINE_S)
    with pytest.raises(EnvironmentFailure, match="died during next"):
        control.call("next", (), DEADLINE_S)


def test_nobody_waits_beyond_the_deadline() -> None:
    ours, theirs = multiprocessing.Pipe()
    with pytest.raises(EnvironmentFailure, match=r"did not answer to slow in 0 s"):
        Control(ours).call("slow", (), 0.05)
    theirs.close()


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor()
    yield made
    made.close()


def _state(pid: int) -> str:
    """``R``, ``S``, ``T`` (stopped) ...; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def _until(wanted: str, pid: int) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while _state(pid) not in wanted.split(","):
        assert time.monotonic() < deadline_s, f"{pid} is {_state(pid)!r}, not {wanted!r}"
        time.sleep(0.005)


@pytest.mark.serial
def test_a_child_is_stopped_goes_on_and_is_killed(supervisor: Supervisor) -> None:
    _, pid = supervisor.fresh()
    supervisor.pause()
    _until("T", pid)
    supervisor.resume()
    _until("S,R", pid)
    supervisor.pause()
    supervisor.crash(power=False, gone=False, chance="1")
    _until(",Z", pid)
    supervisor.pause()
    # It was no node, so nobody knows how to start it again.
    supervisor.restart()
    with pytest.raises(EnvironmentFailure):
        supervisor.call("progress", timeout_s=1.0)
    _, other = supervisor.fresh()
    assert other != pid and _state(other)


@pytest.mark.serial
def test_a_fault_reaches_a_child_that_somebody_waits_for(supervisor: Supervisor) -> None:
    _, pid = supervisor.fresh()
    supervisor.pause()
    failures: list[EnvironmentFailure] = []

    def wait() -> None:
        try:
            supervisor.call("progress", timeout_s=DEADLINE_S)
        except EnvironmentFailure as error:
            failures.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    os.kill(pid, signal.SIGKILL)
    waiting.join(DEADLINE_S)
    assert [str(each) for each in failures] == ["the process died during progress"]


class Listening:
    """A child that notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, tuple[object, ...]]] = []

    def ask(self, name: str, arguments: tuple[object, ...]) -> None:
        self.heard.append((name, arguments))


@pytest.mark.serial
def test_what_was_overtaken_on_its_way_is_ignored(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Listening()
    with monkeypatch.context() as patched:
        patched.setattr(supervisor, "_control", child)
        supervisor.afflict(4, "burden", "slow")
        supervisor.afflict(9, "disturb", "clear")
        supervisor.afflict(7, "disturb", "cut")
        supervisor.afflict(3, "burden", "well")
        supervisor.afflict(11, "disturb", "lossy")
    assert child.heard == [("burden", ("slow",)), ("disturb", ("clear",)), ("disturb", ("lossy",))]
    # Who comes back is told what came last; a new run begins anew.
    assert supervisor._afflictions == {"burden": (4, ("slow",)), "disturb": (11, ("lossy",))}
    supervisor.fresh()
    supervisor.afflict(0, "burden", "slow")
    assert supervisor._afflictions == {"burden": (0, ("slow",))}


@pytest.mark.serial
def test_a_machine_that_is_lost_takes_its_folder_along(supervisor: Supervisor) -> None:
    folder, _ = supervisor.fresh()
    for name in ("node0.log", "journal"):
        (Path(folder) / name).write_bytes(b"x")
    supervisor.crash(power=True, gone=True, chance="1")
    assert [path.name for path in Path(folder).iterdir()] == ["journal"]
    supervisor.drop()
    assert not any(Path(folder).iterdir())
