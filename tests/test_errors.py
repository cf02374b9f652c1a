"""The exception tree: exit codes, messages, suggestions, and the way between processes."""

from __future__ import annotations

import pickle

import pytest

from orchestrator.errors import (
    ArchbenchError,
    ConfigError,
    DataError,
    EnvironmentFailure,
    InfeasibleError,
    InputError,
    LogDamaged,
    RunInterrupted,
    suggestion,
)

EXIT_CODES = {
    ArchbenchError: 3,
    InputError: 2,
    ConfigError: 2,
    DataError: 2,
    InfeasibleError: 2,
    EnvironmentFailure: 3,
    LogDamaged: 3,
    RunInterrupted: 130,
}


@pytest.mark.parametrize(("kind", "code"), EXIT_CODES.items())
def test_each_kind_has_its_exit_code(kind: type[ArchbenchError], code: int) -> None:
    assert kind("message").exit_code == code


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError("wrong"), "wrong"),
        (InputError("wrong", path="a.b"), "a.b: wrong"),
        (InputError("wrong", hint="do this"), "wrong (do this)"),
        (InputError("wrong", path="a.b", hint="do this"), "a.b: wrong (do this)"),
    ],
)
def test_the_text_has_path_message_and_hint(error: InputError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("kind", EXIT_CODES)
def test_an_error_survives_the_way_between_processes(kind: type[ArchbenchError]) -> None:
    sent = kind("message", path="system.replicas", hint="at least 1")
    got = pickle.loads(pickle.dumps(sent))
    assert type(got) is kind
    assert (got.message, got.path, got.hint) == (sent.message, sent.path, sent.hint)
    assert str(got) == str(sent)


def test_a_close_word_is_suggested() -> None:
    assert suggestion("replica", ["replicas", "memory"]) == "did you mean 'replicas'?"


def test_without_a_close_word_the_allowed_ones_are_listed() -> None:
    assert suggestion("zzz", ["raft", "chain"]) == "allowed: raft, chain"
    assert suggestion("zzz", []) == "nothing is allowed here"
