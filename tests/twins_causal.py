"""Causal replication with one rule broken each."""

from __future__ import annotations

from typing import Any

from twins import Twin

from orchestrator.core.machine import Effect, Op
from orchestrator.protocols._causal_log import Log
from orchestrator.protocols._causal_past import NODE_MASK
from orchestrator.protocols._last_writer_wins import LastWriterWins
from orchestrator.protocols.causal import DEPENDENCIES, VECTORS, Causal


class AppliesAtOnce(Causal):
    """Applies a write of another node whatever it depends on."""

    def _depends_on_missing(self, op: Op) -> bool:
        return False


class ServesAtOnce(Causal):
    """Does not wait for the past of a session that comes from another node."""

    def _missing_of(self, op: Op) -> int:
        return 0


class ByNode(LastWriterWins):
    """The write of the higher node wins, older or not."""

    __slots__ = ()

    def _wins(self, version: int, other: int) -> bool:
        return (version & NODE_MASK, version) > (other & NODE_MASK, other)


class ByArrival(LastWriterWins):
    """The write that is applied last wins."""

    __slots__ = ()

    def _wins(self, version: int, other: int) -> bool:
        return True


class ArbitratesByNode(Causal):
    """Settles conflicts in an order that does not contain causality."""

    state_type = ByNode


class ArbitratesByArrival(Causal):
    """Settles conflicts in the order of arrival, which differs from node to node."""

    state_type = ByArrival


class ReusesNumbers(Causal):
    """Numbers its writes from 1 again after a restart."""

    def _start(self, records: list[Any], effects: list[Effect]) -> None:
        super()._start(records, effects)
        self._logs[self._node] = Log(self._node)


def _twin(machine: type[Causal], tracking: str, why: str) -> Twin:
    return Twin(machine.__name__, machine, "causal", why, {"tracking": tracking})


TWINS = [
    _twin(AppliesAtOnce, DEPENDENCIES, "a write shows before what it depends on"),
    _twin(ServesAtOnce, VECTORS, "a session that moved does not find what it has seen"),
    _twin(ArbitratesByNode, VECTORS, "a write does not replace what its session had read"),
    _twin(ArbitratesByArrival, DEPENDENCIES, "replicas settle a conflict differently"),
    _twin(ReusesNumbers, VECTORS, "other nodes take new writes for old ones"),
]
