"""Hosts in virtual time: cores that processes share, and what their event loops take.

A process sleeps until something comes for it, then waits for a core, and works off all that has
come by then in one tick: socket by socket, then the operations together, then everything it has to
say is written out, socket by socket. What arrives meanwhile is for the next tick. A process that
has more to do after a slice of time goes behind the others that wait for a core. Costs are those of
a :class:`~orchestrator.core.host_profile.HostProfile`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Final

import numpy

from orchestrator.core.distributions import Empirical, EmpiricalParams, Sampler
from orchestrator.core.host_profile import SLICE_NS, HostProfile, ProtocolCosts, depth
from orchestrator.core.randomness import block_stream
from orchestrator.core.record import INTERVAL_NS
from orchestrator.core.units import NS_PER_S
from orchestrator.runtimes._virtual_clock import VirtualClock

Call = Callable[[Any], None]
Item = tuple[int, int | None, Call, Any]
"""What has come: what it costs (ns), for when it was asked if it is a wait, and what it does."""

TIMERS: Final = ("timers",)
"""The socket, as it were, that waits come from."""
_FREE: Final = ProtocolCosts()
"""What another thread than the loop's does costs what it is told, and nothing else."""


class Cores:
    """Cores that any of their processes may run on."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.busy = 0
        self._waiting: deque[SimulatedProcess] = deque()

    def ask(self, process: SimulatedProcess) -> None:
        """It runs as soon as a core is free, behind all others that wait."""
        if self.busy < self.count:
            self.busy += 1
            process.run()
        else:
            self._waiting.append(process)

    def leave(self) -> None:
        """A process needs its core no more, for now."""
        if self._waiting:
            self._waiting.popleft().run()
        else:
            self.busy -= 1

    @property
    def crowded(self) -> bool:
        """Whether somebody waits for a core."""
        return bool(self._waiting)


@dataclass
class AtWork:
    """Which process of a cluster does something in this event, and for which time it was asked;
    when what it sends now arrives, where that is said on it.
    """

    process: SimulatedProcess | None = None
    due_ns: int | None = None
    arrives_ns: int | None = None


class SimulatedHost:
    """The cores of one host, which all of them share, or of which each process keeps to one."""

    def __init__(self, profile: HostProfile, pinned: bool, at_work: AtWork) -> None:
        self.profile, self.at_work = profile, at_work
        cores = profile.cores
        self._pools = [Cores(1) for _ in range(cores)] if pinned else [Cores(cores)]

    def pool(self, core: int) -> Cores:
        """Where a process runs that would keep to that core."""
        return self._pools[core % len(self._pools)]


class Others:
    """Whoever else runs on a core now and then, at times that do not depend on what we do there."""

    def __init__(self, profile: HostProfile, chance: numpy.random.Generator) -> None:
        self._mean_gap_ns = NS_PER_S / profile.stalls if profile.stalls else math.inf
        self._stall = Sampler(Empirical(EmpiricalParams(profile.stall or (0,))), chance)
        self._chance = chance
        self._from_ns = self._until_ns = 0.0
        self._next()

    def _next(self) -> None:
        gap_ns = self._mean_gap_ns
        if gap_ns < math.inf:
            gap_ns = float(self._chance.exponential(gap_ns))
        self._from_ns = self._until_ns + gap_ns
        self._until_ns = self._from_ns + self._stall.draw_ns()

    def holds_up_ns(self, now_ns: int, work_ns: int) -> int:
        """By how much they make longer what is to be done from now on: until they are done, if they
        are at it, and whenever they come meanwhile.
        """
        while self._until_ns <= now_ns:
            self._next()
        end_ns = float(now_ns + work_ns)
        while self._from_ns < end_ns:
            end_ns += self._until_ns - max(self._from_ns, now_ns)
            self._next()
        return round(end_ns) - now_ns - work_ns


class SimulatedProcess:
    """One single-threaded process; ``served`` is called when all that came in a tick is read.

    ``loops_ns``: what the fixed loop takes in it, each equally likely; empty: as in the profile.
    ``made_up_ns``: waits that end late by no more are made up for.
    """

    def __init__(
        self,
        clock: VirtualClock,
        host: SimulatedHost,
        cores: Cores,
        costs: ProtocolCosts,
        seed: int,
        name: str,
        served: Callable[[], None] | None = None,
        loops_ns: Sequence[int] = (),
        made_up_ns: int = 0,
    ) -> None:
        self._clock, self._cores = clock, cores
        self._served = served
        profile = host.profile
        self._costs, self._call_ns, self._timer_ns = costs, costs.call, profile.timer

        def sampler(values: tuple[int, ...], what: str) -> Sampler:
            law = Empirical(EmpiricalParams(values))
            return Sampler(law, block_stream(seed, f"{name}/host/{what}"))

        self._wake = sampler(profile.wake, "wake")
        self._wake_deep = sampler(profile.wake_deep, "wake_deep")
        self.fsync = sampler(profile.fsync, "fsync")
        self._at_work, self._made_up_ns = host.at_work, made_up_ns
        # What has come, by socket; and what is to be said, by socket.
        self._inbox: dict[Hashable, list[Item]] = {}
        self._outbox: dict[Hashable, list[tuple[SimulatedProcess, Item]]] = {}
        # Since when it sleeps, and what is left to be paid of its last sleep; since when it runs.
        self._awake = False
        self._asleep_since_ns = self._cold_ns = self._since_ns = 0
        self._others = Others(profile, block_stream(seed, f"{name}/host/others"))
        # How many times as long as usual everything takes, and until when.
        self._chance = block_stream(seed, f"{name}/host/speed")
        usual_ns = median(profile.loop)
        self._every_slowness = tuple(each / usual_ns for each in loops_ns or profile.loop)
        self._slowness, self._slow_until_ns = 1.0, 0
        self._work_ns = 0
        self._sleeps = self._ticks = self.entries = self._waits = self.syncs = 0
        self._reads = self._writes = 0
        self._another = partial(
            SimulatedProcess, clock, host, cores, _FREE, seed, loops_ns=loops_ns
        )
        self._name = name
        self._threads: list[SimulatedProcess] = []
        # What the callbacks of this moment cost besides.
        self._charged_ns = 0
        # Sockets of this tick that are still to be read.
        self._tick: deque[tuple[Hashable, list[Item]]] = deque()

    def used(self) -> tuple[int, ...]:
        """The fields of ProcessUsage so far; neither bytes nor lateness are counted."""
        rounds = (self._sleeps, self._ticks, self.entries, self._waits, 0, self.syncs)
        others_ns = sum(thread._work_ns for thread in self._threads)
        return (self._work_ns + others_ns, *rounds, others_ns, self._reads, self._writes, 0)

    def thread(self, name: str) -> SimulatedProcess:
        """Another thread of this process, on the same cores; what it does costs what it is told."""
        made = self._another(name=f"{self._name}/{name}")
        self._threads.append(made)
        return made

    # --- the clock of what runs in it -----------------------------------------------------

    @property
    def current_ns(self) -> int:
        """As :meth:`moment_ns`."""
        return self.moment_ns()

    def now_ns(self) -> int:
        return self._clock.current_ns

    def moment_ns(self) -> int:
        """What time it should be: in a wait that ended a little late, that of its end."""
        now_ns, due_ns = self._clock.current_ns, self._at_work.due_ns
        return now_ns if due_ns is None or now_ns - due_ns > self._made_up_ns else due_ns

    def at(self, when_ns: int, callback: Call, argument: Any) -> None:
        """An emulated wait."""
        item = (self._timer_ns, when_ns, callback, argument)
        self._clock.at(max(when_ns, self._clock.current_ns), self._ring, item)

    def at_once(self, when_ns: int, callback: Call, argument: Any) -> None:
        """The same, but what need not wait happens here and now."""
        if when_ns <= self.moment_ns():
            callback(argument)
        else:
            self.at(when_ns, callback, argument)

    def stamp(self, when_ns: int, deliver: Call, argument: Any) -> None:
        """Send what arrives at ``when_ns``: whoever takes it waits for that."""
        at_work = self._at_work
        if when_ns > self.moment_ns():
            at_work.arrives_ns = when_ns
        deliver(argument)
        at_work.arrives_ns = None

    def _arrive(self, arrival: tuple[int, Call, Any]) -> None:
        """Something that was stamped has been read."""
        when_ns, callback, argument = arrival
        if when_ns > self._clock.current_ns:
            self.at(when_ns, callback, argument)
            return
        before_ns, self._at_work.due_ns = self._at_work.due_ns, when_ns
        callback(argument)
        self._at_work.due_ns = before_ns

    def _ring(self, item: Item) -> None:
        self._waits += 1
        self.come(TIMERS, item)

    def charge(self, work_ns: int) -> None:
        """The callback that is running takes so long besides."""
        self._charged_ns += work_ns

    def write(self, count: int) -> None:
        """The callback that is running makes so many system calls to write."""
        self._writes += count
        self.charge(count * self._call_ns)

    # --- what comes and goes --------------------------------------------------------------

    def take(self, socket: Hashable, cost_ns: int, callback: Call, argument: Any) -> None:
        """Something for this process: from whoever is at work now, by that socket, at the end of
        its tick; at once where nobody is.
        """
        arrives_ns, sender = self._at_work.arrives_ns, self._at_work.process
        if arrives_ns is not None:
            callback, argument = self._arrive, (arrives_ns, callback, argument)
        item = (cost_ns, None, callback, argument)
        if sender is None or sender is self:
            self.come(socket, item)
        else:
            sender._outbox.setdefault(socket, []).append((self, item))

    def come(self, socket: Hashable, item: Item) -> None:
        """Something has come for this process, whoever is at work."""
        self._inbox.setdefault(socket, []).append(item)
        if not self._awake:
            self._awake = True
            self._wake_up()

    def _wake_up(self) -> None:
        """The longer it has slept, the longer until it looks, and the longer its tick."""
        self._sleeps += 1
        now_ns, costs = self._clock.current_ns, self._costs
        slept_ns = now_ns - self._asleep_since_ns
        cost_ns, wake_ns = costs.wake_up_ns(slept_ns), 0.0
        # Where no core sleeps, whoever runs goes on, and all is paid when it is this one's turn.
        if self._cores.busy < self._cores.count:
            wake_ns = self._wake.draw_ns()
            wake_ns += depth(slept_ns) * (self._wake_deep.draw_ns() - wake_ns)
        slowness = self._slowness_at(now_ns)
        before_ns = min(cost_ns, wake_ns)
        self._work_ns += round(before_ns * slowness)
        self._cold_ns = round(cost_ns - before_ns)
        self._clock.at(now_ns + round(wake_ns * slowness), self._look, None)

    def _look(self, _: None) -> None:
        self._cores.ask(self)

    def _slowness_at(self, now_ns: int) -> float:
        """Drawn anew ten times a second: others use what lies below this core."""
        if now_ns >= self._slow_until_ns:
            every = self._every_slowness
            self._slowness = every[int(self._chance.random() * len(every))]
            self._slow_until_ns = now_ns - now_ns % INTERVAL_NS + INTERVAL_NS
        return self._slowness

    def _after(self, work_ns: int, then: Call) -> None:
        now_ns = self._clock.current_ns
        work_ns = round(work_ns * self._slowness_at(now_ns))
        self._work_ns += work_ns
        # While a core is free, others that need one take that.
        cores, lasts_ns = self._cores, work_ns
        if cores.busy >= cores.count:
            lasts_ns += self._others.holds_up_ns(now_ns, work_ns)
        self._clock.at(now_ns + lasts_ns, then, None)

    # --- a tick ---------------------------------------------------------------------------

    def run(self) -> None:
        """It has a core now."""
        self._since_ns = self._clock.current_ns
        self._go_on()

    def _go_on(self) -> None:
        self._tick.extend(self._inbox.items())
        self._inbox.clear()
        self._reads += 1
        cold_ns, self._cold_ns = self._cold_ns, 0
        self._after(cold_ns + self._call_ns, self._read)

    def _read(self, _: None) -> None:
        """All of one socket; what it asks for is done when its time has passed."""
        socket, items = self._tick.popleft()
        cost_ns = self._carry_out(items)
        if socket is TIMERS:
            self._after(cost_ns, self._look_at_clock)
        else:
            self._read_on(cost_ns)

    def _look_at_clock(self, _: None) -> None:
        """Waits that have ended while others were seen to belong to this tick, too."""
        items = self._inbox.pop(TIMERS, None)
        if items is None:
            self._read_on(0)
        else:
            self._after(self._carry_out(items), self._look_at_clock)

    def _read_on(self, cost_ns: int) -> None:
        """The next socket, when that has been paid; the end of the tick where there is none."""
        if self._tick:
            self._reads += 1
            self._after(cost_ns + self._call_ns, self._read)
            return
        if self._served is not None:
            self._at_work.process, self._charged_ns = self, 0
            self._served()
            self._at_work.process = None
            cost_ns += self._charged_ns
        if self._outbox:
            self._ticks += 1
            cost_ns += self._costs.tick
        self._after(cost_ns, self._write)

    def _carry_out(self, items: list[Item]) -> int:
        """Returns what that costs."""
        cost_ns, at_work = 0, self._at_work
        at_work.process, self._charged_ns = self, 0
        for item_ns, due_ns, callback, argument in items:
            cost_ns += item_ns
            at_work.due_ns = due_ns
            callback(argument)
        at_work.process = at_work.due_ns = None
        return cost_ns + self._charged_ns

    def _write(self, _: None) -> None:
        """One socket after the other; whoever reads the first need not wait for the last."""
        outbox = self._outbox
        if outbox:
            self._writes += 1
            self._after(self._call_ns, self._written)
        elif not self._inbox:
            self._awake = False
            self._asleep_since_ns = self._clock.current_ns
            self._cores.leave()
        elif self._cores.crowded and self._clock.current_ns >= self._since_ns + SLICE_NS:
            self._cores.leave()
            self._cores.ask(self)
        else:
            self._go_on()

    def _written(self, _: None) -> None:
        socket = next(iter(self._outbox))
        for process, item in self._outbox.pop(socket):
            process.come(socket, item)
        self._write(None)
