"""Mean response times along the paths that protocols declare (:mod:`orchestrator.core.demand`).

What nodes do to the operations that come is said in :mod:`orchestrator.analysis.stations`.
Waits depend on gaps and gaps on waits, so both are found by iteration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy

from orchestrator.analysis.laws import Floats, Law, latest_of_earlier, nth, uniform
from orchestrator.analysis.stations import Costs, Flow, Station, Visit
from orchestrator.core.demand import Hop, Log, Round, Step, Tell
from orchestrator.core.machine import REQUEST, RESPONSE

_CELLS: Final = 1 << 15
"""Durations that are drawn at once, of all nodes of a round together."""
_DRAWS_MAX: Final = 1 << 13
_ITERATIONS: Final = 20
_CLOSE: Final = 1e-4


class Paths:
    """All flows together; ``background``: messages a second that each node receives besides.

    Raises ValueError where a station has more than it can do.
    """

    def __init__(
        self,
        costs: Costs,
        flows: Sequence[Flow],
        background: Sequence[float],
        iterations: int = _ITERATIONS,
    ) -> None:
        self.costs = costs
        self._flows = flows
        self._background = background
        self.stations = [Station() for _ in background]
        self.responses = [0.0] * len(flows)
        for _ in range(iterations):
            before = self.responses
            self._iterate()
            if numpy.allclose(before, self.responses, rtol=_CLOSE, atol=0.0):
                break

    @property
    def mean_response(self) -> float:
        """Over all operations, in seconds."""
        total = math.fsum(flow.rate for flow in self._flows)
        pairs = zip(self._flows, self.responses, strict=True)
        return math.fsum(flow.rate * each for flow, each in pairs) / total

    def _iterate(self) -> None:
        """Follow all operations through the stations as they are known to be."""
        found = [Station() for _ in self.stations]
        self.responses = [0.0] * len(self._flows)
        for known, station, per_s in zip(self.stations, found, self._background, strict=True):
            station.add([Visit(0.0, self.costs.message)], per_s, known, self.costs)
        for number, flow in enumerate(self._flows):
            at = flow.demand.at
            alike = _alike(flow)
            starts = at[:1] if alike else at
            walks = [_Walk(self, flow, start, f"{number}/{start}") for start in starts]
            self.responses[number] = math.fsum(walk.time for walk in walks) / len(walks)
            for index, start in enumerate(at):
                walk = walks[0 if alike else index]
                # The node that was followed trades places with the one that is meant.
                places = {walk.start: start, start: walk.start}
                for name, left in walk.left.items():
                    node = flow.nodes[places.get(name, name)]
                    self._leave(left, flow, node, found[node])
        for station in found:
            station.settle(self.costs)
        self.stations = found

    def _leave(self, left: _Left, flow: Flow, node: int, station: Station) -> None:
        rate = flow.rate / len(flow.demand.at)
        station.add(left.visits, rate, self.stations[node], self.costs)
        heard = math.fsum(each.share for each in left.visits if each.law is self.costs.message)
        station.received += rate * heard
        station.records += rate * left.records / flow.demand.sharing
        station.lookups += rate * left.lookups


def _alike(flow: Flow) -> bool:
    """Whether it makes no difference which node serves."""
    named = [isinstance(step, Hop) or getattr(step, "others", None) for step in flow.demand.steps]
    return len(flow.demand.at) == len(flow.nodes) and not any(named)


@dataclass
class _Left:
    """What an operation brings to one node."""

    visits: list[Visit] = field(default_factory=list)
    records: float = 0.0
    lookups: float = 0.0


class _Walk:
    """One operation on its way from ``start``; ``time`` is what it takes on average."""

    def __init__(self, paths: Paths, flow: Flow, start: int, name: str) -> None:
        self._paths, self._costs, self._flow, self._name = paths, paths.costs, flow, name
        self.start = self._here = start
        self._logged = False
        self.left = {node: _Left() for node in range(len(flow.nodes))}
        demand, costs = flow.demand, self._costs
        per_channel = flow.rate / len(demand.at) / costs.channels
        self.time = self._transit(REQUEST, per_channel)
        law = costs.read if flow.reads else costs.write
        self._serve(Visit(self.time, law, count=flow.count, spread=flow.spread))
        for number, step in enumerate(demand.steps):
            self._name = f"{name}/{number}"
            self._step(step)
        self._answer(per_channel)

    def _answer(self, per_channel: float) -> None:
        shape = (_DRAWS_MAX,)
        held = numpy.zeros(shape)
        if not self._logged:
            held = self._barrier(self._here, "answer", shape)
        if self._flow.reads and self._flow.demand.looks_up:
            self.left[self._here].lookups += 1
            # What was looked up need not wait for records that came later.
            held = numpy.maximum(held, self._lookups(self._here, shape))
        self.time += float(held.mean())
        self.time += self._transit(RESPONSE, per_channel)

    # --- pieces ---------------------------------------------------------------------------

    def _station(self, name: int) -> Station:
        return self._paths.stations[self._flow.nodes[name]]

    def _message(self, at: float, share: float = 1.0) -> Visit:
        return Visit(at, self._costs.message, share / self._flow.demand.sharing)

    def _serve(self, visit: Visit) -> None:
        """The CPU of this node does a job that the operation waits for."""
        self.time += self._wait(self._here, visit.at) + visit.mean
        self.left[self._here].visits.append(visit)

    def _wait(self, name: int, at: float) -> float:
        """Mean wait for the CPU of a job that comes then, behind others of its operation too."""
        station, costs = self._station(name), self._costs
        visits = self.left[name].visits
        own = math.fsum(station.left(earlier, at, costs) for earlier in visits)
        return station.wait + own / costs.cores

    def _transit(self, kind: str, rate: float) -> float:
        law = self._costs.delays[kind]
        if law.constant or not self._costs.fifo:
            return law.mean
        return float(self._delays(kind, rate, (_DRAWS_MAX,)).mean())

    def _delays(self, kind: str, rate: float, shape: tuple[int, ...]) -> Floats:
        """Of messages of which ``rate`` a second take the same link."""
        law, name = self._costs.delays[kind], f"{self._name}/{kind}"
        drawn = law.draw(name, shape)
        if law.constant or not self._costs.fifo:
            return drawn
        return numpy.maximum(drawn, latest_of_earlier(law.ordered(), rate, f"{name}/order", shape))

    def _records(self, name: int, what: str, shape: tuple[int, ...]) -> Floats:
        """Until a record is durable: behind all earlier ones, and synced."""
        costs, station = self._costs, self._station(name)
        if not costs.record.mean and costs.sync is None:
            return numpy.zeros(shape)
        drawn = costs.record.draw(f"{self._name}/{what}", shape)
        taken = numpy.maximum(drawn, self._earlier(name, what, shape)) + station.storage_wait
        if costs.sync is not None:
            busy, rest = _group_commit(station.records, costs.sync)
            taken = taken + busy * rest + costs.sync.mean
        return taken

    def _barrier(self, name: int, what: str, shape: tuple[int, ...]) -> Floats:
        """Until all records that are being written are durable."""
        costs, station = self._costs, self._station(name)
        waited = self._earlier(name, what, shape)
        if costs.sync is not None:
            busy, rest = _group_commit(station.records, costs.sync)
            # Who was written while a sync was under way waits for the next one, too.
            again = 1 - math.exp(-station.records * rest)
            waited = waited + busy * (rest + again * costs.sync.mean)
        return waited

    def _earlier(self, name: int, what: str, shape: tuple[int, ...]) -> Floats:
        """Until all records that are being written are written."""
        costs, station = self._costs, self._station(name)
        if not costs.record.mean:
            return numpy.zeros(shape)
        longest = costs.record.ordered() + station.storage_wait
        stream = f"{self._name}/{what}/before"
        return latest_of_earlier(longest, station.records, stream, shape)

    # --- steps ----------------------------------------------------------------------------

    def _step(self, step: Step) -> None:
        match step:
            case Log():
                self._log(step.heard)
            case Hop():
                self._hop(step)
            case Round():
                self._ask(step)
            case Tell():
                self._tell(step)

    def _log(self, heard: bool) -> None:
        self.left[self._here].records += 1
        self.time += float(self._records(self._here, "log", (_DRAWS_MAX,)).mean())
        # What leaves with a record waits for that record alone, and all else for all of them.
        self._logged = not heard

    def _leave(self) -> None:
        """Something leaves this node, behind the records that are being written."""
        if not self._logged:
            self.time += float(self._barrier(self._here, "leave", (_DRAWS_MAX,)).mean())
        self._logged = False

    def _hop(self, step: Hop) -> None:
        self._leave()
        self.time += self._transit(step.kind, self._station(step.to).received)
        self._here = step.to
        self._serve(self._message(self.time))
        if step.logs:
            self._log(False)

    def _tell(self, step: Tell) -> None:
        at = self.time + self._costs.delays[step.kind].mean
        for name in self._others(step.others):
            left = self.left[name]
            left.records += step.records
            if step.messages:
                left.visits.append(self._message(at, step.messages))

    def _others(self, others: tuple[int, ...] | None) -> tuple[int, ...]:
        if others is not None:
            return others
        return tuple(name for name in self.left if name != self._here)

    def _ask(self, step: Round) -> None:
        others = self._others(step.others)
        if not others:
            if step.own:
                self._log(True)
            elif step.looks_up:
                self.left[self._here].lookups += 1
                self.time += float(self._lookups(self._here, (_DRAWS_MAX,)).mean())
            return
        if not step.own:
            self._leave()
        self._logged = False
        draws = max(64, min(_DRAWS_MAX, _CELLS // len(others)))
        shape = (draws, len(others))
        # Where all ask all, what a node hears comes over as many links.
        links = 1 if len(self._flow.demand.at) == 1 else len(others)
        asked = self._station(others[0]).received / links
        sent = self._delays(step.out, asked, shape)
        arrived = self.time + float(sent.mean())
        answers = sent + self._at_others(step, others, arrived, shape)
        heard = self._station(self._here).received / len(others)
        answers = answers + self._delays(step.back, heard, shape)
        self._collect(step, answers, draws)

    def _at_others(
        self, step: Round, others: tuple[int, ...], arrived: float, shape: tuple[int, ...]
    ) -> Floats:
        """What the others take, each, until their answers leave."""
        costs = self._costs
        waits = numpy.array([self._wait(name, arrived) for name in others])
        taken = costs.message.draw(f"{self._name}/asked", shape) + self._waits(waits, others, shape)
        for name in others:
            left = self.left[name]
            left.visits.append(self._message(arrived))
            left.records += step.logs
            left.lookups += step.looks_up
        first = others[0]
        if step.logs:
            taken = taken + self._records(first, "logged", shape)
        else:
            held = self._barrier(first, "asked", shape)
            taken = taken + numpy.maximum(held, self._lookups(first, shape, step.looks_up))
        return taken

    def _lookups(self, name: int, shape: tuple[int, ...], wanted: bool = True) -> Floats:
        costs = self._costs
        if not (wanted and costs.miss_ratio and costs.lookup.mean):
            return numpy.zeros(shape)
        drawn = costs.lookup.draw(f"{self._name}/lookup", shape) + self._station(name).storage_wait
        missed = uniform(f"{self._name}/missed", shape) < costs.miss_ratio
        return numpy.asarray(drawn * missed)

    def _waits(self, waits: Floats, others: tuple[int, ...], shape: tuple[int, ...]) -> Floats:
        """A draw of each other node's wait: none where it is idle, else about exponential."""
        if len(self._flow.demand.at) == 1:
            # Nodes that hear from the same leader wait alike.
            return numpy.broadcast_to(waits, shape)
        busy = numpy.array([self._station(name).load / self._costs.cores for name in others])
        chance = uniform(f"{self._name}/waits", shape)
        long = numpy.where(busy > 0, waits / numpy.maximum(busy, 1e-12), 0.0)
        drawn = -numpy.log(numpy.maximum(chance, 1e-300) / numpy.maximum(busy, 1e-12)) * long
        return numpy.asarray(numpy.where(chance < busy, drawn, 0.0))

    def _collect(self, step: Round, answers: Floats, draws: int) -> None:
        """The answers go through the CPU one after the other, until there are enough."""
        costs, left = self._costs, self.left[self._here]
        ordered = numpy.sort(answers, axis=1)
        times = self.time + ordered.mean(axis=0)
        wait = self._wait(self._here, float(times[0]))
        done = numpy.empty_like(ordered)
        for index in range(ordered.shape[1]):
            begun = ordered[:, index] + wait
            if index >= costs.cores:
                begun = numpy.maximum(begun, done[:, index - costs.cores])
            done[:, index] = begun + costs.message.draw(f"{self._name}/answer/{index}", (draws,))
        left.visits.extend(self._message(float(at)) for at in times)
        left.records += step.own
        left.lookups += step.looks_up
        if step.looks_up:
            # Its own answer is one of those that count.
            own = (
                self._lookups(self._here, (draws, 1))
                if costs.miss_ratio
                else numpy.zeros((draws, 1))
            )
            self.time += float(nth(numpy.hstack([done, own]), step.need + 1).mean())
        elif step.need:
            ended = done[:, step.need - 1]
            if step.own:
                ended = numpy.maximum(ended, self._records(self._here, "own", (draws,)))
            self.time += float(ended.mean())


def _group_commit(records: float, sync: Law) -> tuple[float, float]:
    """(share of the time in which a sync is under way, what is left of it then): the next begins
    when one ends and something has been written meanwhile, and covers all of it.
    """
    if not records or not sync.mean:
        return 0.0, 0.0
    load = records * sync.mean
    return load / (load + math.exp(-load)), sync.second / (2 * sync.mean)
