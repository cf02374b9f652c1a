"""Clocks of several hosts brought to one: that of the driver.

A host's monotonic clock starts anywhere and runs at its own rate, some ten millionths off. It is
read before and after a run: it was asked and answered within a round trip, so its offset is known
up to half of that (Cristian, "Probabilistic clock synchronization", 1989, section 4), and between
the two readings the offset is taken to have changed evenly. Then a time between them is off by no
more than the worse of the two readings, since the error changes evenly, too.
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import numpy
from numpy.typing import NDArray

from orchestrator.core.history import NEVER, History
from orchestrator.core.record import EventRecord

PROBES: Final = 25
"""The quickest of so many round trips counts."""


def clock_name() -> str:
    """Names the monotonic clock of this process: of the kernel's start and its time namespace."""
    started = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    try:
        namespace = os.readlink("/proc/self/ns/time")
    except OSError:  # a kernel before 5.6 has none
        namespace = ""
    return f"{started}/{namespace}"


@dataclass(frozen=True)
class Reading:
    """At ``at_ns`` of our clock theirs was ``offset_ns`` ahead, give or take the uncertainty."""

    at_ns: int
    offset_ns: int
    uncertainty_ns: int


SAME_CLOCK: Final = Reading(0, 0, 0)


def read_clock(
    ask_ns: Callable[[], int],
    ours_ns: Callable[[], int] = time.monotonic_ns,
    probes: int = PROBES,
) -> Reading:
    """Read another clock; ``ask_ns`` has its owner say what it shows."""
    best: Reading | None = None
    for _ in range(probes):
        before_ns = ours_ns()
        theirs_ns = ask_ns()
        after_ns = ours_ns()
        middle_ns = (before_ns + after_ns) // 2
        uncertainty_ns = (after_ns - before_ns + 1) // 2
        if best is None or uncertainty_ns < best.uncertainty_ns:
            best = Reading(middle_ns, theirs_ns - middle_ns, uncertainty_ns)
    assert best is not None
    return best


@dataclass(frozen=True)
class ClockTrack:
    """Another clock over a run, from its readings before and after."""

    first: Reading
    last: Reading

    @property
    def uncertainty_ns(self) -> int:
        """How far a time that was brought to our clock may be off."""
        return max(self.first.uncertainty_ns, self.last.uncertainty_ns)

    @property
    def drift(self) -> float:
        """How much faster it runs than ours, by the readings."""
        gained_ns = self.last.offset_ns - self.first.offset_ns
        return gained_ns / (self.last.at_ns - self.first.at_ns) if gained_ns else 0.0

    def ours_ns(self, times_ns: NDArray[numpy.int64], origin_ns: int) -> NDArray[numpy.int64]:
        """Times since an origin, brought from their clock to ours.

        The origin is ``origin_ns`` of our clock, and was set by the first reading.
        """
        drift = self.drift
        if not drift:
            return times_ns
        gained_ns = drift * (times_ns + (origin_ns - self.first.at_ns)) / (1 + drift)
        ours_ns: NDArray[numpy.int64] = times_ns - numpy.rint(gained_ns).astype(numpy.int64)
        return ours_ns

    def aligned(self, history: History, origin_ns: int) -> History:
        """A client's history by our clock."""
        if not self.drift:
            return history

        def ours(times_ns: NDArray[numpy.int64]) -> NDArray[numpy.int64]:
            known = times_ns != NEVER
            ours_ns = times_ns.copy()
            ours_ns[known] = self.ours_ns(times_ns[known], origin_ns)
            return ours_ns

        return replace(
            history,
            intended_ns=ours(history.intended_ns),
            invoked_ns=ours(history.invoked_ns),
            returned_ns=ours(history.returned_ns),
            previous_return_ns=ours(history.previous_return_ns),
        )

    def event(self, event: EventRecord, origin_ns: int) -> EventRecord:
        """Something that a node noted, by our clock."""
        at_ns = self.ours_ns(numpy.array([event.at_ns], dtype=numpy.int64), origin_ns)
        return replace(event, at_ns=int(at_ns[0]))


ONE_CLOCK: Final = ClockTrack(SAME_CLOCK, SAME_CLOCK)


class Clocked(Protocol):
    """Something on a host: which clock that has, and what it shows."""

    @property
    @abstractmethod
    def clock(self) -> str: ...

    @abstractmethod
    def clock_ns(self) -> int: ...


def read_clocks(owners: Iterable[Clocked]) -> dict[str, Reading]:
    """The clocks of all that have another one than this process, by name."""
    asked: dict[str, Clocked] = {}
    for owner in owners:
        asked.setdefault(owner.clock, owner)
    asked.pop(clock_name(), None)
    return {name: read_clock(owner.clock_ns) for name, owner in asked.items()}


def clock_tracks(
    names: Iterable[str], first: Mapping[str, Reading], last: Mapping[str, Reading]
) -> dict[str, ClockTrack]:
    """How the clocks ran between two readings, by name; one that was not read is our own."""
    tracks = dict.fromkeys(names, ONE_CLOCK)
    for name, reading in first.items():
        tracks[name] = ClockTrack(reading, last.get(name, reading))
    return tracks


def apart_ns(tracks: Sequence[ClockTrack]) -> int:
    """How far times of two of these hosts may be off against each other, at most."""
    worst = sorted(({id(track): track.uncertainty_ns for track in tracks}).values())
    return sum(worst[-2:]) if len(worst) > 1 else 0
