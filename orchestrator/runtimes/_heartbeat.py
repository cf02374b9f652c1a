"""Whether the hosts of a cluster still answer.

Ray takes a minute to notice, by its defaults, that a host was cut off, and until then a call to
one of its actors just waits. So one actor of each remote host is asked the time again and again,
and a host that owes an answer for too long counts as silent: nobody waits for it any longer.
Should it answer after all, it is a host like any other again.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

BEAT_S: Final = 1.0
SILENT_BEATS: Final = 8
"""A host that owes an answer for so many beats is silent.

Counted in beats and not by the clock: a driver that was stopped itself has not waited.
"""


@dataclass
class _Pulse:
    """What one host owes: the question that is open, and for how many beats."""

    actors: list[Any] = field(default_factory=list)
    question: Any = None
    missed: int = 0
    silent_s: float = -math.inf
    """When it was silent last."""


class Heartbeat:
    """Asks in a thread of its own until :meth:`close`."""

    def __init__(self) -> None:
        self._pulses: dict[str, _Pulse] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, host: str, actors: Sequence[Any]) -> None:
        """From now on the host has these actors, which may be asked."""
        with self._lock:
            self._pulses.setdefault(host, _Pulse()).actors.extend(actors)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, daemon=True)
                self._thread.start()

    def silent(self, host: str) -> bool:
        """Whether the host owes an answer for too long."""
        pulse = self._pulses.get(host)
        return pulse is not None and pulse.missed >= SILENT_BEATS

    def silent_since(self, host: str, began_s: float) -> bool:
        """Whether the host was silent at any time since then, by time.monotonic()."""
        pulse = self._pulses.get(host)
        return pulse is not None and pulse.silent_s >= began_s

    def close(self) -> None:
        """Ask no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(2 * BEAT_S)
            self._thread = None

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            with self._lock:
                pulses = list(self._pulses.values())
            for pulse in pulses:
                self._feel(pulse)

    def _feel(self, pulse: _Pulse) -> None:
        import ray

        if pulse.question is not None:
            done, _ = ray.wait([pulse.question], timeout=0)
            if not done:
                self._miss(pulse)
                return
            try:
                ray.get(done[0], timeout=BEAT_S)
            except ray.exceptions.ActorUnavailableError:
                # No answer either: Ray has lost the way to it.
                self._miss(pulse)
            except ray.exceptions.RayError:
                # That actor is gone, which Ray itself tells whoever waits for it.
                pulse.actors.pop(0)
            else:
                pulse.missed = 0
            pulse.question = None
        if pulse.actors:
            with suppress(ray.exceptions.RayError):
                pulse.question = pulse.actors[0].clock_ns.remote()
        else:
            pulse.missed = 0

    def _miss(self, pulse: _Pulse) -> None:
        pulse.missed += 1
        if pulse.missed >= SILENT_BEATS:
            pulse.silent_s = time.monotonic()
