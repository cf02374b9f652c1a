"""One actor of the pool, and waiting for what actors do: always with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.errors import ArchbenchError, EnvironmentFailure, PartLost

CALL_S: Final = 20.0
LOOK_S: Final = 0.5
"""How often whoever waits looks whether the hosts still answer."""


def get(references: Any, timeout_s: float, what: str) -> Any:
    """ray.get with a deadline, and errors in our own words."""
    import ray

    try:
        return ray.get(references, timeout=timeout_s)
    except ray.exceptions.GetTimeoutError as error:
        raise PartLost(f"{what}: no answer in {timeout_s:.0f} s") from error
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, EnvironmentFailure):
            message = f"{what}: {cause.message}"
            raise type(cause)(message, path=cause.path, hint=cause.hint) from error
        if isinstance(cause, ArchbenchError):
            raise cause from error
        raise EnvironmentFailure(f"{what}: {type(cause).__name__}: {cause}") from error
    except ray.exceptions.RayError as error:
        raise PartLost(f"{what}: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True, eq=False)
class Member:
    """One actor of the pool.

    ``host``: the address of its host, to bind to and to be reached at. ``host_id``: Ray's name of
    it. ``clock``: which clock it reads; those of one name agree. ``is_silent``: whether its host
    has stopped to answer. ``was_silent``: whether it had at any time since a moment of
    time.monotonic().
    """

    actor: Any
    host: str
    host_id: str
    clock: str
    is_silent: Callable[[], bool]
    was_silent: Callable[[float], bool] = lambda began_s: False

    def call(self, name: str, *arguments: Any, timeout_s: float = CALL_S) -> Any:
        """Let its child carry out a command; returns Ray's reference."""
        return self.actor.call.remote(name, *arguments, timeout_s=timeout_s)

    def clock_ns(self) -> int:
        """What the clock of its host shows."""
        asked = [self.actor.clock_ns.remote()]
        return int(gather_all([self], asked, CALL_S, "reading a clock")[0])


def gather(
    members: Sequence[Member],
    references: Sequence[Any],
    timeout_s: float,
    what: str,
    needed: Sequence[Member] = (),
) -> list[Any]:
    """The answer of each member, or the EnvironmentFailure that stands in its place.

    They share one deadline, and nobody waits for a member whose host is silent, nor for any where
    that of one that they need is.
    """
    import ray

    of = dict(zip(references, members, strict=True))
    deadline_s = time.monotonic() + timeout_s
    waiting = list(references)
    while waiting:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            break
        look_s = min(LOOK_S, left_s)
        _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=look_s)
        waiting = [reference for reference in waiting if not of[reference].is_silent()]
        if any(member.is_silent() for member in needed):
            break
    return [_outcome(reference, of[reference], timeout_s, what, needed) for reference in references]


def _outcome(
    reference: Any, member: Member, timeout_s: float, what: str, needed: Sequence[Member]
) -> Any:
    import ray

    done, _ = ray.wait([reference], timeout=0)
    if done:
        try:
            return get(reference, CALL_S, what)
        except EnvironmentFailure as error:
            return error
    for each in (member, *needed):
        if each.is_silent():
            return PartLost(f"{what}: host {each.host} does not answer any more")
    return PartLost(f"{what}: no answer in {timeout_s:.0f} s")


def gather_all(
    members: Sequence[Member],
    references: Sequence[Any],
    timeout_s: float,
    what: str,
    needed: Sequence[Member] = (),
) -> list[Any]:
    """The answers of all members, as of :func:`gather`; raises the first failure."""
    answers = gather(members, references, timeout_s, what, needed)
    for answer in answers:
        if isinstance(answer, EnvironmentFailure):
            raise answer
    return answers
