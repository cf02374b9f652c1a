"""Nodes as stations that clusters of jobs come to: their loads, and the waits that follow.

What an operation brings to a node comes in a *cluster*: itself, say, and a little later the answers
of the others. Clusters come as a Poisson process, so by the conservation of the squared workload
(Kleinrock, "Queueing Systems", volume 2, 1976, section 3.7) the mean work W that is there when a
cluster begins fulfils

    (1 - rho) W = rate (sum of E[s^2] / 2 + sum over pairs of E[s_i] E[s_j] phi(gap_ij)),

where phi says how much of the work of an earlier job of a cluster is still there when a later one
comes. Without the pairs this is Pollaczek and Khinchine's formula. Work that is added to a station
leaves it, on average, after (W + s / 2) / (1 - rho), the mean first passage of the workload; phi is
taken to fall exponentially with that mean. With several cores the same variability multiplies the
wait of M/M/c instead of M/M/1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.analysis.laws import Law
from orchestrator.analysis.queueing import mgc, mmc
from orchestrator.core.demand import Demand


@dataclass(frozen=True)
class Costs:
    """What nodes and links take, in seconds. ``sync``: None where nothing waits for one;
    ``parallel``: None where storage has no limit; ``channels``: links that carry answers from one
    node to clients; ``miss_ratio``: of look-ups that storage has to answer.
    """

    cores: int
    read: Law
    write: Law
    message: Law
    lookup: Law
    record: Law
    sync: Law | None
    parallel: int | None
    delays: dict[str, Law]
    fifo: bool
    channels: int
    miss_ratio: float


@dataclass(frozen=True)
class Flow:
    """Operations of one kind, ``rate`` of them a second. ``nodes[i]`` is the node that the demand
    calls i; ``count``: entries that one is about, each at the cost of an operation; ``spread``:
    squared coefficient of variation of the times between arrivals at one node that serves.
    """

    demand: Demand
    nodes: tuple[int, ...]
    rate: float
    reads: bool
    count: float = 1.0
    spread: float = 1.0


@dataclass(frozen=True)
class Visit:
    """A job of a node's CPU, ``at`` seconds into the operation; ``share``: such jobs an operation.
    ``spread``: as in :class:`Flow`.
    """

    at: float
    law: Law
    share: float = 1.0
    count: float = 1.0
    spread: float = 1.0

    @property
    def mean(self) -> float:
        """Of the service time."""
        return self.law.mean * self.count

    @property
    def second(self) -> float:
        """Its second moment, with what uneven arrivals add and even ones take away."""
        return self.law.second * self.count**2 + (self.spread - 1) * self.mean**2


@dataclass
class Station:
    """A node: jobs, records, look-ups and messages a second, and the sums of the formula above."""

    jobs: float = 0.0
    load: float = 0.0
    moments: float = 0.0
    records: float = 0.0
    lookups: float = 0.0
    received: float = 0.0
    wait: float = 0.0
    storage_wait: float = 0.0

    def add(self, cluster: Sequence[Visit], rate: float, known: Station, costs: Costs) -> None:
        """``rate`` clusters a second; ``known``: the waits as far as they are known."""
        for number, visit in enumerate(cluster):
            self.jobs += rate * visit.share
            self.load += rate * visit.share * visit.mean
            left = math.fsum(known.left(earlier, visit.at, costs) for earlier in cluster[:number])
            self.moments += rate * visit.share * (visit.second / 2 + visit.mean * left)

    def left(self, earlier: Visit, at: float, costs: Costs) -> float:
        """Mean work of an earlier job of the same cluster that is there at a later time."""
        idle = 1 - self.load / costs.cores
        service = earlier.mean
        if not service:
            return 0.0
        lasts = (self.wait + service / (2 * costs.cores)) / idle
        return earlier.share * service * math.exp(-max(0.0, at - earlier.at) / lasts)

    def settle(self, costs: Costs) -> None:
        """The waits that follow. Raises ValueError where the node has more than it can do."""
        if self.load >= costs.cores:
            raise ValueError("a CPU has more than it can do")
        if self.load:
            service = self.load / self.jobs
            self.wait = (
                self.moments / (self.load * service) * mmc(self.jobs, service, costs.cores).wait
            )
        self.storage_wait = self._storage_wait(costs)

    def _storage_wait(self, costs: Costs) -> float:
        lookups = self.lookups * costs.miss_ratio
        rate = lookups + self.records
        if costs.parallel is None or not rate:
            return 0.0
        mean = (lookups * costs.lookup.mean + self.records * costs.record.mean) / rate
        second = (lookups * costs.lookup.second + self.records * costs.record.second) / rate
        if not mean:
            return 0.0
        found = mgc(rate, mean, second / mean**2 - 1, costs.parallel).wait
        if math.isinf(found):
            raise ValueError("a storage has more than it can do")
        return found
