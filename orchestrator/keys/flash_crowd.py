"""A crowd that comes suddenly: for a while some keys that few asked for draw a share of everything.

Before and after, and for the rest of the operations meanwhile, keys are picked by another choice.
The crowd's keys are the last ones, which are the least popular under ``zipfian``; it asks for all
of them alike. When it comes is said by time, for open arrivals (``at``, ``lasts``: of the
intended starts, from the start of the load), or by the count of operations
(``at_operation``, ``lasts_operations``), of which a client counts its own ones times the clients.

Source of the pattern: Ari, Hong, Miller, Brandt and Long, "Managing flash crowds on the
Internet", MASCOTS 2003, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.keys import KeyChoice, KeySpace, key_choice
from orchestrator.core.parameters import ParameterError, duration, number, slot
from orchestrator.core.randomness import block_stream, derived_seed
from orchestrator.core.registry import Family, Slot, register
from orchestrator.keys._turns import Turns

ZIPFIAN: Final = "zipfian"


@dataclass(frozen=True)
class FlashCrowdParams:
    keys: int = number(10, low=1, help="that the crowd asks for")
    share: float = number(0.5, low=0.0, high=1.0, help="of the operations that are the crowd's")
    at: int | None = duration(None, help="when it comes")
    lasts: int | None = duration(None, low="1us", help="how long it stays")
    at_operation: int | None = number(None, low=0, help="of all clients together")
    lasts_operations: int | None = number(None, low=1, help="of all clients together")
    base: Slot = slot(Family.KEYS, {"name": ZIPFIAN}, help="what picks the other keys")

    def __post_init__(self) -> None:
        times = (self.at, self.lasts, self.at_operation, self.lasts_operations)
        given = [each is not None for each in times]
        if given not in ([True, True, False, False], [False, False, True, True]):
            raise ParameterError(
                "a crowd needs at and lasts, or at_operation and lasts_operations, and no others",
                key="at",
            )

    @property
    def by_time(self) -> bool:
        """Whether it comes by time, else by the count of operations."""
        return self.at is not None

    @property
    def span(self) -> tuple[int, int]:
        """When it comes and goes, in ns or operations."""
        comes = self.at or self.at_operation or 0
        return comes, comes + (self.lasts or self.lasts_operations or 0)


@register(Family.KEYS, "flash_crowd", params=FlashCrowdParams)
class FlashCrowd(KeyChoice):
    """Some unpopular keys draw a share of all operations for a while."""

    def __init__(self, params: FlashCrowdParams, space: KeySpace) -> None:
        if params.keys > space.keys:
            raise ParameterError(f"the crowd asks for {params.keys} of {space.keys} keys")
        # A crowd as the base of another one has chances of its own.
        beneath = replace(space, seed=derived_seed(space.seed, "crowd/base"))
        self._base = key_choice(params.base, ZIPFIAN, beneath)
        if self._base.newest_first:
            raise ParameterError("a choice of the newest keys cannot be the base of a flash crowd")
        if self._base.timed and not params.by_time:
            raise ParameterError("a base that changes by time needs a crowd that comes by time")
        self._share = params.share
        self._keys, self._first = params.keys, space.keys - params.keys
        self._span = params.span
        self.timed = params.by_time
        self._crowd = block_stream(space.seed, f"client/{space.client}/crowd")
        self._turns = Turns(space)

    def draw(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.int64]:
        """Indexes 0 to keys - 1; a crowd by time is not there yet."""
        key = self._base.draw(chance, count)
        return key if self.timed else self._joined(key, self._turns.take(count))

    def at(
        self, key: NDArray[numpy.int64], starts_ns: NDArray[numpy.int64]
    ) -> NDArray[numpy.int64]:
        """What is asked for by then."""
        key = self._base.at(key, starts_ns)
        return self._joined(key, starts_ns) if self.timed else key

    def _joined(
        self, key: NDArray[numpy.int64], when: NDArray[numpy.int64]
    ) -> NDArray[numpy.int64]:
        """The keys once the crowd has come; it draws as much whenever it comes."""
        share, within = self._crowd.random((len(key), 2)).T
        comes, goes = self._span
        there = (when >= comes) & (when < goes) & (share < self._share)
        return numpy.where(there, self._first + (within * self._keys).astype(numpy.int64), key)
