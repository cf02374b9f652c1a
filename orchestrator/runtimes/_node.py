"""A node: one pure machine, and the rules of core.machine kept around it, in either runtime.

The shell charges modelled costs (CPU before ``handle``, cache and storage behind ``Access``,
a storage write behind ``Persist``), keeps the persist barrier and the replies that wait for an
access, runs the timers, and counts. What differs between the runtimes (clock, sockets, disk)
stands behind :class:`Scheduler` and :class:`Outlet`.

Under modelled costs every operation and message is one job of the CPU station and one event at
its completion (bulk service would not be M/M/1), and jobs of one source stay in order whatever
the number of cores, as on one connection. Under measured costs events carry whatever arrived.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final

from orchestrator.core.faults import WELL, NodeState
from orchestrator.core.layout import MOVING
from orchestrator.core.load import CachePolicy
from orchestrator.core.machine import (
    WRITE,
    Access,
    Admin,
    Became,
    CancelTimer,
    Effect,
    Event,
    Machine,
    Mark,
    Op,
    Persist,
    Persisted,
    Received,
    Redirect,
    Reply,
    Requested,
    Send,
    SetTimer,
    Started,
    TimerFired,
)
from orchestrator.core.portions import requests
from orchestrator.runtimes._costs import Costs
from orchestrator.runtimes._outlet import Outlet
from orchestrator.runtimes._station import Station
from orchestrator.runtimes._storage import Storage
from orchestrator.runtimes._timers import LocalClock, Scheduler, Timers
from orchestrator.runtimes._visits import Tracer, Visit
from orchestrator.systems._sharding import Command
from orchestrator.systems.replicated_store import FSYNC, MEMORY, Batch, Node

_BARRIER: Final = itemgetter(0)

Handle = Callable[[Event, int], list[Effect]]
JobDone = Callable[[tuple[int, Any, Op]], None]
Inner = tuple[Handle, JobDone, Outlet]
"""Where a tracer of sampled operations stands in between."""


class NodeShell:
    """Carries one machine."""

    def __init__(
        self,
        machine: Machine,
        model: Node,
        costs: Costs,
        batch: Batch,
        cache: CachePolicy | None,
        scheduler: Scheduler,
        outlet: Outlet,
        local: LocalClock | None = None,
        storage: type[Storage] = Storage,
    ) -> None:
        self.machine = machine
        self.stopped = False
        self._handle: Handle = machine.handle
        self._done: JobDone = self._operation_done
        self.now_ns = self._now_ns = scheduler.moment_ns
        self._at = scheduler.at
        # What the machine takes for the time; None: the true one.
        self._local = local
        self._local_ns = scheduler.now_ns if local is None else local.now_ns
        self._state = WELL
        self._outlet = outlet
        self._cache = cache
        self.modelled = costs.modelled
        self._cpu = Station(model.cores)
        self._operation_cost = costs.operation
        self._message_cost = costs.message
        self._source_done_ns: dict[int, int] = {}
        self._batch_max, self._linger_ns = batch.max, batch.linger
        self._batch: tuple[list[Any], list[Op]] = ([], [])
        self._storage = storage(model.storage.parallel, costs, scheduler)
        self._read_is_free, self._write_is_free = costs.read_is_free, costs.write_is_free
        self._fsync = model.storage.durability == FSYNC
        self._keeps_log = model.storage.durability != MEMORY
        self._instant_persist = costs.write_is_free and not self._keeps_log
        # The persist barrier: writes asked for, written, and durable, each by count.
        self._asked = self._written = self._durable = 0
        self._syncing = False
        self._persist_tokens: deque[tuple[int, int]] = deque()
        # What waits for a write, in order of the writes.
        self._held: deque[tuple[int, Effect]] = deque()
        # What waits for an access: token -> [accesses under way, (barrier, effect) ...].
        self._accessing: dict[int, list[Any]] = {}
        self._timers = Timers(local or scheduler, self._timer_fired)
        self.operations = self.messages = self.refused = self.cancelled = 0
        self.marks: dict[str, int] = {}
        self.cache_hits = self.cache_misses = 0
        self._evicted_before = 0 if cache is None else cache.evictions
        self.tracer = Tracer(self)

    @property
    def inner(self) -> Inner:
        """What carries out events, what follows a job of the CPU, and the way out."""
        return self._handle, self._done, self._outlet

    @inner.setter
    def inner(self, inner: Inner) -> None:
        self._handle, self._done, self._outlet = inner

    @property
    def cpu_busy_ns(self) -> int:
        """Service that the CPU has finished."""
        return self._cpu.busy_ns

    @property
    def storage_busy_ns(self) -> int:
        """Service that the storage has finished."""
        return self._storage.busy_ns

    @property
    def cache_evictions(self) -> int:
        """Entries that left the cache for want of room, once it was warm."""
        return 0 if self._cache is None else self._cache.evictions - self._evicted_before

    @property
    def durable_records(self) -> int:
        """How many of the records that were appended a crash cannot take away."""
        return self._durable

    @property
    def written_records(self) -> int:
        """How many of them are written, synced or not: a crash of the process leaves them."""
        return self._written

    def burden(self, state: NodeState) -> None:
        """From now on the node is in this state. Its clock needs a ``local`` one."""
        self._state = state
        self._storage.burden(state)
        # Once its storage has taken time, later writes wait for earlier ones for ever.
        if state.storage_adds_ns or state.storage_slowness > 1:
            self._instant_persist = self._read_is_free = self._write_is_free = False
        if self._local is not None:
            self._local.change(state.offset_ns, state.drift)

    # --- events in ------------------------------------------------------------------------

    def start(self, records: list[Any], administration: Sequence[Command] = ()) -> None:
        """The machine starts, with what it had persisted before a crash.

        Of the operator's commands it hears those whose time has not passed, and those that say
        where data is from their time on.
        """
        standing = []
        for command in administration:
            admin = Admin(command.command, command.subject)
            if command.at >= self._now_ns():
                self._at(command.at, self.hear, admin)
            elif command.command in MOVING:
                standing.append(admin)
        self._event(Started(records))
        for admin in standing:
            self._event(admin)

    def hear(self, command: Admin) -> None:
        """An operator's command."""
        self._event(command)

    def requested(self, handles: list[Any], ops: list[Op]) -> None:
        """Operations of clients, as many as arrived together."""
        if self.modelled:
            for handle, op in zip(handles, ops, strict=True):
                self.request(handle, op)
        else:
            self.operations += len(ops)
            for portion in requests(Requested(handles, ops)):
                self._event(portion)

    def request(self, handle: Any, op: Op) -> None:
        """One operation under modelled costs; clients share no connection, hence no order."""
        self.operations += 1
        cost_ns = self._operation_cost[op.kind].draw_ns() * op.count
        if self._state is not WELL:
            cost_ns = round(cost_ns * self._state.slowness)
        done_ns = self._cpu.completion_ns(self._now_ns(), cost_ns)
        self._at(done_ns, self._done, (cost_ns, handle, op))

    def received(self, source: int, message: Any) -> None:
        """A message of another node's machine."""
        self.messages += 1
        if not self.modelled:
            self._event(Received(source, message))
            return
        cost_ns = self._message_cost.draw_ns()
        if self._state is not WELL:
            cost_ns = round(cost_ns * self._state.slowness)
        done_ns = self._cpu.completion_ns(self._now_ns(), cost_ns)
        earlier_ns = self._source_done_ns.get(source, done_ns)
        if earlier_ns > done_ns:
            done_ns = earlier_ns
        self._source_done_ns[source] = done_ns
        self._at(done_ns, self._message_done, (cost_ns, Received(source, message)))

    def _message_done(self, job: tuple[int, Received]) -> None:
        self._cpu.busy_ns += job[0]
        self._event(job[1])

    def _operation_done(self, job: tuple[int, Any, Op]) -> None:
        cost_ns, handle, op = job
        self._cpu.busy_ns += cost_ns
        if self._batch_max == 1:
            self._event(Requested([handle], [op]))
            return
        handles, ops = self._batch
        handles.append(handle)
        ops.append(op)
        if len(ops) >= self._batch_max:
            self._flush_batch(self._batch)
        elif len(ops) == 1:
            self._at(self._now_ns() + self._linger_ns, self._flush_batch, self._batch)

    def _flush_batch(self, batch: tuple[list[Any], list[Op]]) -> None:
        # The alarm of a batch that was full before it lingered finds another one in its place.
        if batch is self._batch:
            self._batch = ([], [])
            for portion in requests(Requested(*batch)):
                self._event(portion)

    def _timer_fired(self, timer: str) -> None:
        self._event(TimerFired(timer))

    def _event(self, event: Event) -> None:
        if not self.stopped:
            self._run(self._handle(event, self._local_ns()))

    # --- effects out ----------------------------------------------------------------------

    def _run(self, effects: list[Effect]) -> None:
        persisted, held = 0, False
        if not self._instant_persist:
            for effect in effects:
                if type(effect) is Persist:
                    self._persist(effect)
            held = self._asked > self._durable
        outlet, accessing = self._outlet, self._accessing
        for effect in effects:
            if type(effect) is Reply:
                if effect.after and effect.after in accessing:
                    accessing[effect.after].append((self._asked, effect))
                elif held:
                    self._held.append((self._asked, effect))
                else:
                    outlet.reply(effect)
                    continue
                if type(effect.handle) is Visit:
                    effect.handle.replied_ns = self._now_ns()
            elif type(effect) is Send:
                if effect.after and effect.after in accessing:
                    accessing[effect.after].append((self._asked, effect))
                elif held and not effect.overlap:
                    self._held.append((self._asked, effect))
                else:
                    outlet.send(effect.target, effect.message)
            elif type(effect) is Persist:
                # Where it takes time it is under way already, since the others wait for it.
                persisted = effect.token
            elif type(effect) is Access:
                self._access(effect)
            elif type(effect) is Redirect:
                if held:
                    self._held.append((self._asked, effect))
                else:
                    outlet.redirect(effect)
            elif type(effect) is SetTimer:
                self._timers.set(effect.timer, effect.delay_ns)
            elif type(effect) is CancelTimer:
                self._timers.cancel(effect.timer)
            elif type(effect) is Became:
                group = effect.group
                role = effect.role if group is None else f"{effect.role}/{group}"
                outlet.note("role", role)
            elif type(effect) is Mark:
                self.marks[effect.what] = self.marks.get(effect.what, 0) + 1
                if effect.detail:
                    outlet.note(effect.what, effect.detail)
        if persisted and self._instant_persist:
            self._event(Persisted(persisted))

    def _leave(self, effect: Effect) -> None:
        """An effect that nothing holds any more."""
        if type(effect) is Reply:
            self._outlet.reply(effect)
        elif type(effect) is Send:
            self._outlet.send(effect.target, effect.message)
        elif type(effect) is Redirect:
            self._outlet.redirect(effect)

    # --- the persist barrier --------------------------------------------------------------

    def _persist(self, persist: Persist) -> None:
        self._asked += 1
        self._persist_tokens.append((self._asked, persist.token))
        if self._keeps_log:
            self._outlet.append(persist.record, persist.replaces, persist.group)
        if self._write_is_free:
            self._record_written((0, self._asked))
            return
        self._storage.write(self._record_written, self._asked)

    def _record_written(self, job: tuple[int, int]) -> None:
        cost_ns, self._written = job
        self._storage.busy_ns += cost_ns
        if not self._fsync:
            # Never from within _run: the machine must not hear of it before its effects are out.
            self._at(self._now_ns(), self._made_durable, self._written)
        elif not self._syncing and not self.stopped:
            self._sync()

    def _sync(self) -> None:
        self._syncing = True
        covered = self._written
        self._outlet.sync(lambda: self._synced(covered))

    def _synced(self, covered: int) -> None:
        self._syncing = False
        self._made_durable(covered)
        if self._written > self._durable and not self.stopped and not self._syncing:
            self._sync()

    def _made_durable(self, number: int) -> None:
        if self.stopped or number <= self._durable:
            return
        self._durable = number
        held = self._held
        while held and held[0][0] <= number:
            self._leave(held.popleft()[1])
        token = 0
        tokens = self._persist_tokens
        while tokens and tokens[0][0] <= number:
            token = tokens.popleft()[1]
        self._event(Persisted(token))

    # --- cache and storage ----------------------------------------------------------------

    def _access(self, access: Access) -> None:
        if self._cache is not None:
            hit = self._cache.access(access.key, access.size, self._now_ns())
            if access.kind == WRITE:
                return
            if hit:
                self.cache_hits += 1
                return
            self.cache_misses += 1
        if self._read_is_free or access.kind == WRITE:
            return
        waiting = self._accessing.setdefault(access.token, [0])
        waiting[0] += 1
        self._storage.read(self._accessed, access.token)

    def _accessed(self, job: tuple[int, int]) -> None:
        cost_ns, token = job
        self._storage.busy_ns += cost_ns
        if self.stopped:
            return
        waiting = self._accessing[token]
        waiting[0] -= 1
        if waiting[0]:
            return
        del self._accessing[token]
        for barrier, effect in waiting[1:]:
            if barrier > self._durable:
                # Others that came later wait for later writes already.
                insort(self._held, (barrier, effect), key=_BARRIER)
            else:
                self._leave(effect)
