"""What a forked process answers to commands."""

from __future__ import annotations

import asyncio
import multiprocessing
from typing import Any

from orchestrator.errors import EnvironmentFailure
from orchestrator.runtimes._child import Child

DEADLINE_S = 10.0


def _answers(broken: bool) -> tuple[int, bool, Any]:
    """Of a process to which a role with progress 3 was given; one of its callbacks may raise."""
    ours, theirs = multiprocessing.Pipe()
    loop = asyncio.new_event_loop()
    child = Child(theirs, loop)

    class Role:
        def progress(self) -> tuple[int, bool]:
            return 3, False

    child._role = Role()

    async def answered() -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not ours.poll(0):
                await asyncio.sleep(0.001)

    if broken:
        loop.call_soon(lambda: 1 // 0)
    ours.send((7, "progress", ()))
    loop.run_until_complete(answered())
    loop.close()
    answer: tuple[int, bool, Any] = ours.recv()
    return answer


def test_a_command_is_carried_out() -> None:
    assert _answers(broken=False) == (7, True, (3, False))


def test_what_has_broken_is_not_measured_as_if_nothing_had_happened() -> None:
    number, fine, error = _answers(broken=True)
    assert number == 7 and not fine
    assert isinstance(error, EnvironmentFailure)
    assert str(error).startswith("ZeroDivisionError")
    assert error.hint is not None and "test_child.py" in error.hint
