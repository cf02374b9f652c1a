"""Hosts that stop answering are noticed, and those that answer again are well again."""

from __future__ import annotations

import time
from typing import Any

import pytest
import ray

from orchestrator.runtimes._heartbeat import SILENT_BEATS, Heartbeat


class Answers:
    """Stands in for Ray: an actor is asked by name, and answers, is silent, or is dead."""

    def __init__(self) -> None:
        self.state: dict[str, str] = {}
        self.asked: list[str] = []

    def actor(self, name: str) -> Any:
        self.state[name] = "well"
        answers = self

        class Clock:
            def remote(self) -> str:
                answers.asked.append(name)
                return name

        class Actor:
            clock_ns = Clock()

        return Actor()

    def wait(self, questions: list[str], timeout: float) -> tuple[list[str], list[str]]:
        done = [each for each in questions if self.state[each] != "silent"]
        return done, [each for each in questions if each not in done]

    def get(self, question: str, timeout: float) -> int:
        if self.state[question] == "dead":
            raise ray.exceptions.RayActorError
        if self.state[question] == "lost sight of":
            raise ray.exceptions.ActorUnavailableError("no way there", b"0" * 16)
        return 1


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    made = Answers()
    monkeypatch.setattr(ray, "wait", made.wait)
    monkeypatch.setattr(ray, "get", made.get)
    return made


def beaten(heartbeat: Heartbeat, beats: int) -> None:
    for _ in range(beats):
        for pulse in heartbeat._pulses.values():
            heartbeat._feel(pulse)


@pytest.fixture
def heartbeat(monkeypatch: pytest.MonkeyPatch) -> Heartbeat:
    """One that beats only when it is told to."""
    monkeypatch.setattr(Heartbeat, "_beat", lambda self: None)
    return Heartbeat()


def test_a_host_is_silent_after_some_beats_and_well_once_it_answers(
    heartbeat: Heartbeat, answers: Answers
) -> None:
    heartbeat.watch("a", [answers.actor("a0")])
    heartbeat.watch("b", [answers.actor("b0")])
    beaten(heartbeat, 3)
    assert not heartbeat.silent("a")
    answers.state["a0"] = "silent"
    beaten(heartbeat, SILENT_BEATS - 1)
    assert not heartbeat.silent("a")
    beaten(heartbeat, 1)
    assert (heartbeat.silent("a"), heartbeat.silent("b")) == (True, False)
    answers.state["a0"] = "well"
    beaten(heartbeat, 1)
    assert not heartbeat.silent("a")


def test_another_actor_is_asked_when_one_has_died(heartbeat: Heartbeat, answers: Answers) -> None:
    heartbeat.watch("a", [answers.actor("a0"), answers.actor("a1")])
    beaten(heartbeat, 1)
    answers.state["a0"] = "dead"
    beaten(heartbeat, 2)
    assert answers.asked == ["a0", "a1", "a1"]
    answers.state["a1"] = "dead"
    beaten(heartbeat, 20)
    # Nobody is left to ask: whether the host is up is for Ray to say.
    assert not heartbeat.silent("a")


def test_an_actor_that_ray_lost_sight_of_has_not_answered_either(
    heartbeat: Heartbeat, answers: Answers
) -> None:
    heartbeat.watch("a", [answers.actor("a0")])
    beaten(heartbeat, 1)
    answers.state["a0"] = "lost sight of"
    beaten(heartbeat, SILENT_BEATS)
    assert heartbeat.silent("a")


def test_a_silence_is_remembered_when_it_is_over(heartbeat: Heartbeat, answers: Answers) -> None:
    began_s = time.monotonic()
    heartbeat.watch("a", [answers.actor("a0")])
    beaten(heartbeat, 2)
    assert not heartbeat.silent_since("a", began_s)
    answers.state["a0"] = "silent"
    beaten(heartbeat, SILENT_BEATS)
    answers.state["a0"] = "well"
    beaten(heartbeat, 1)
    assert not heartbeat.silent("a")
    assert heartbeat.silent_since("a", began_s)
    assert not heartbeat.silent_since("a", time.monotonic())
    assert not heartbeat.silent_since("elsewhere", began_s)


def test_of_a_host_that_is_not_watched_nothing_is_known(heartbeat: Heartbeat) -> None:
    assert not heartbeat.silent("elsewhere")
