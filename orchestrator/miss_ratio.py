"""Miss-ratio curves: cache policies at several sizes over one recorded trace.

Every request is one access, reads and writes alike; each policy at each size begins empty and
sees them all in order, with the trace's own times (without times its clock stands still). The
miss ratio is misses over requests; the byte miss ratio weighs each by its size. Without
prefetching the first access of an object misses in every cache, so no curve falls below
objects / requests: the compulsory misses of Hill and Smith ("Evaluating Associativity in CPU
Caches", IEEE TC 38(12), 1989).

One pass costs one access of the policy a request. Passes are independent and are dealt to
processes; how many there are changes nothing but the time.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy

from orchestrator.core.caching import build_cache
from orchestrator.core.parameters import Capacity
from orchestrator.core.registry import Slot
from orchestrator.errors import EnvironmentFailure
from orchestrator.runtimes._lifetime import die_with_parent
from orchestrator.workloads.trace import Requests

_INLINE_ACCESSES: Final = 2_000_000
"""Fewer accesses than this are over before the first process has started."""


@dataclass(frozen=True)
class Pass:
    """What one cache is to be asked: ``label`` is how its policy was called for."""

    label: str
    cache: Slot

    @property
    def capacity(self) -> Capacity:
        """The size of the cache."""
        size: Capacity = self.cache.params.size
        return size


@dataclass(frozen=True)
class Outcome:
    """What one cache did; ``missed_bytes`` is None where the trace has no sizes."""

    misses: int
    missed_bytes: int | None
    evictions: int


class Accesses:
    """A trace as its accesses: what every pass iterates over, made once a process.

    Lists, because a policy takes Python objects; a key is one object however often it stands
    there, so that its hash is computed once.
    """

    def __init__(self, requests: Requests) -> None:
        count = len(requests)
        names = requests.key_names
        self._keys = [names[index] for index in requests.key.tolist()]
        self._size_bytes = requests.size
        self._sizes = [1] * count if requests.size is None else requests.size.tolist()
        self._times_ns = [0] * count if requests.time_ns is None else requests.time_ns.tolist()

    def passed(self, asked: Pass) -> Outcome:
        """All accesses of one cache that begins empty."""
        cache = build_cache(asked.cache, random.Random(f"{asked.label}/admission"))
        accessed = map(cache.access, self._keys, self._sizes, self._times_ns)
        missed = ~numpy.fromiter(accessed, numpy.bool_, len(self._keys))
        missed_bytes = None
        if self._size_bytes is not None:
            missed_bytes = int(self._size_bytes[missed].sum(dtype=numpy.int64))
        return Outcome(int(numpy.count_nonzero(missed)), missed_bytes, cache.evictions)


def miss_ratios(
    requests: Requests,
    passes: Sequence[Pass],
    *,
    processes: int | None = None,
    told: Callable[[int], None] = lambda done: None,
) -> list[Outcome]:
    """The outcome of each pass, in their order; ``told`` hears how many are done.

    ``processes``: by default one a core, and none beside this one where the work is small.
    Raises EnvironmentFailure where one of them is lost.
    """
    if processes is None:
        small = len(passes) * len(requests) < _INLINE_ACCESSES
        processes = 1 if small else len(os.sched_getaffinity(0))
    processes = min(processes, len(passes))
    outcomes: dict[int, Outcome] = {}
    found = _dealt(requests, passes, processes) if processes > 1 else _here(requests, passes)
    for index, outcome in found:
        outcomes[index] = outcome
        told(len(outcomes))
    return [outcomes[index] for index in range(len(passes))]


def _here(requests: Requests, passes: Sequence[Pass]) -> Iterator[tuple[int, Outcome]]:
    accesses = Accesses(requests)
    for index, asked in enumerate(passes):
        yield index, accesses.passed(asked)


def _dealt(
    requests: Requests, passes: Sequence[Pass], processes: int
) -> Iterator[tuple[int, Outcome]]:
    pool = ProcessPoolExecutor(
        processes,
        # Fresh processes: a fork would copy the locks of Arrow's threads in any state.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(requests, os.getpid()),
    )
    try:
        with _interrupts_later():  # which the processes inherit until they have begun
            futures = {pool.submit(_passed, asked): index for index, asked in enumerate(passes)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise EnvironmentFailure(
            "a process that simulated a cache was lost", hint="is there memory enough?"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C is felt at the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_accesses: Accesses
"""What the passes of this process of the pool iterate over."""


def _begin(requests: Requests, parent: int) -> None:
    """Make a process of the pool ready."""
    global _accesses  # noqa: PLW0603 - how an initializer hands over to what is called later
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent tells of Ctrl-C
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _accesses = Accesses(requests)


def _passed(asked: Pass) -> Outcome:
    return _accesses.passed(asked)
