"""Several open arrivals, one after the other.

Each stage has an arrival of its own, whose times count from the start of the stage, and ``lasts``;
that of the last stage may be left out, which then goes on as long as the load. After a last stage
that ends, nothing more starts. Stages are drawn from independent streams. ``rate_per_s`` is the
mean of their means over how long they last, and that of a last one without an end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from orchestrator.arrivals._varying import NEVER_NS
from orchestrator.core.load import (
    EXPONENTIAL,
    Arrival,
    JoiningTimetable,
    OperationBlock,
    Timetable,
    VaryingArrival,
)
from orchestrator.core.parameters import ParameterError, duration, slots
from orchestrator.core.randomness import derived_seed
from orchestrator.core.registry import Family, Slot, register
from orchestrator.core.units import NS_PER_S

_CHUNK = 1024


@dataclass(frozen=True)
class Stage:
    lasts: int | None = duration(None, low="1us", help="null, of the last stage: to the end")


@dataclass(frozen=True)
class StagesParams:
    stages: tuple[tuple[Stage, Slot], ...] = slots(
        Family.ARRIVAL, extra=Stage, help="open arrivals, each with how long it lasts"
    )

    def __post_init__(self) -> None:
        if not self.stages:
            raise ParameterError("at least one stage is needed", key="stages")
        for index, (stage, chosen) in enumerate(self.stages):
            if stage.lasts is None and index < len(self.stages) - 1:
                raise ParameterError(
                    f"stage {index} needs lasts; only the last may leave it out", key="stages"
                )
            arrival: Arrival = chosen.implementation(chosen.params)
            if (
                arrival.closed
                or arrival.rate_per_s is None
                or isinstance(arrival.timetable(0, 0, 1), JoiningTimetable)
            ):
                raise ParameterError(
                    f"stage {index} ({chosen.name}) has no times of its own; use open arrivals",
                    key="stages",
                )


@register(Family.ARRIVAL, "stages", params=StagesParams)
class Stages(VaryingArrival):
    """Open arrivals one after the other, each for its time."""

    closed = False

    def __init__(self, params: StagesParams) -> None:
        self._stages: list[tuple[int, Arrival]] = []
        start_ns = 0
        for stage, chosen in params.stages:
            self._stages.append((start_ns, chosen.implementation(chosen.params)))
            start_ns = NEVER_NS if stage.lasts is None else start_ns + stage.lasts
        self._end_ns = start_ns
        made = [getattr(arrival, "gaps", None) for _, arrival in self._stages]
        self.gaps = EXPONENTIAL if {*made} == {EXPONENTIAL} else None
        last = self._stages[-1][1]
        self.ends = start_ns < NEVER_NS or (isinstance(last, VaryingArrival) and last.ends)

    @property
    def rate_per_s(self) -> float | None:
        """Mean of the stages' means over how long they last; the last one's if it has no end."""
        means = [arrival.rate_per_s or 0.0 for _, arrival in self._stages]
        if self._end_ns == NEVER_NS:
            return means[-1]
        lengths_ns = [self._ends_ns(i) - start for i, (start, _) in enumerate(self._stages)]
        weighted = zip(means, lengths_ns, strict=True)
        return sum(mean * length for mean, length in weighted) / self._end_ns

    def _ends_ns(self, index: int) -> int:
        return self._end_ns if index + 1 == len(self._stages) else self._stages[index + 1][0]

    def expected(self, seed: int, clients: int, start_ns: int, end_ns: int) -> float:
        """Operations of all clients within [start, end)."""
        return sum(
            self._of_stage(
                index, seed, clients, max(begins_ns, start_ns), min(self._ends_ns(index), end_ns)
            )
            for index, (begins_ns, _) in enumerate(self._stages)
        )

    def _of_stage(self, index: int, seed: int, clients: int, start_ns: int, end_ns: int) -> float:
        """Those of one stage between two times within it; 0 where the second is not after."""
        begins_ns, arrival = self._stages[index]
        if end_ns <= start_ns:
            return 0.0
        if isinstance(arrival, VaryingArrival):
            own = _stage_seed(seed, index)
            return arrival.expected(own, clients, start_ns - begins_ns, end_ns - begins_ns)
        return (arrival.rate_per_s or 0.0) * (end_ns - start_ns) / NS_PER_S

    def timetable(self, seed: int, client: int, clients: int) -> StagesTimetable:
        """The stages' own timetables, each from its start."""
        tables = [
            (start_ns, arrival.timetable(_stage_seed(seed, index), client, clients))
            for index, (start_ns, arrival) in enumerate(self._stages)
        ]
        return StagesTimetable(tables, self._end_ns)


def _stage_seed(seed: int, index: int) -> int:
    return derived_seed(seed, f"arrival/stage/{index}")


class StagesTimetable:
    """One client's starts: of each stage those before its end."""

    sessions = 0

    def __init__(self, tables: list[tuple[int, Timetable]], end_ns: int) -> None:
        self._tables = tables[::-1]
        self._ends_ns = [*(start_ns for start_ns, _ in tables[1:]), end_ns][::-1]
        self._drawn = numpy.empty(0, dtype=numpy.int64)

    def starts_ns(self, operations: OperationBlock) -> NDArray[numpy.int64]:
        """Intended starts of the next operations, shape (n,); NEVER_NS after the last stage."""
        parts, missing = [self._drawn], len(operations) - len(self._drawn)
        while missing > 0:
            parts.append(self._next() if self._tables else numpy.full(missing, NEVER_NS))
            missing -= len(parts[-1])
        starts_ns = numpy.concatenate(parts)
        self._drawn = starts_ns[len(operations) :]
        return starts_ns[: len(operations)]

    def _next(self) -> NDArray[numpy.int64]:
        """Starts of a chunk of the stage, or what is left of it."""
        start_ns, table = self._tables[-1]
        starts_ns = start_ns + table.starts_ns(_nameless(_CHUNK))
        left = int(numpy.searchsorted(starts_ns, self._ends_ns[-1]))
        if left < _CHUNK:
            self._tables.pop()
            self._ends_ns.pop()
        return starts_ns[:left]

    def think_ns(self) -> int:
        """Nothing: the starts are set beforehand."""
        return 0


def _nameless(count: int) -> OperationBlock:
    """So many operations of which only the number counts."""
    zeros = numpy.zeros(count, dtype=numpy.int64)
    small = zeros.astype(numpy.int32)
    return OperationBlock(zeros.astype(numpy.uint8), zeros, small, small, zeros.astype(bool))
