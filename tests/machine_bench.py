"""Bare machines on a bench: a test decides which message arrives, which timer fires, what a
crash takes away. No cost, no delay, no client.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from orchestrator.core.keys import KeyRange
from orchestrator.core.machine import (
    Admin,
    CancelTimer,
    Effect,
    Event,
    MachineContext,
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
from orchestrator.core.randomness import scalar_stream

Wanted = Callable[[int, int, Any], bool]
Watch = Callable[[Any, Event, list[Effect]], None]


def everything(source: int, target: int, message: Any) -> bool:
    """Every message is delivered."""
    return True


def among(*nodes: int) -> Wanted:
    """Only messages between these nodes are delivered."""
    return lambda source, target, message: source in nodes and target in nodes


class Bench:
    """Machines and the messages between them; the last is the protocol's authority, if any.

    What a machine persists is durable at once unless ``syncs`` is off; then effects wait for
    :meth:`sync` as the persist barrier says, and a crash loses the record.
    """

    def __init__(
        self,
        machine: type[Any],
        params: Any,
        nodes: int,
        *,
        seed: int = 1,
        batch_max: int = 0,
        replicas: int = 0,
        watch: Watch | None = None,
    ) -> None:
        self._machine = machine
        self._params = params
        self._seed = seed
        self._batch_max = batch_max
        self._replicas = replicas
        self._watch = watch
        self.nodes = tuple(range(nodes))
        self._authority = machine.authority_of(params)
        everybody = range(nodes + (self._authority is not None))
        self.now_ns = 0
        self.wire: list[tuple[int, int, Any]] = []
        self.sent: list[Any] = []
        self.replies: dict[Any, Reply] = {}
        self.redirects: dict[Any, Redirect] = {}
        self.timers: dict[tuple[int, str], int] = {}
        self.records: list[list[Any]] = [[] for _ in everybody]
        self.syncs = True
        self._handles = itertools.count(1000)
        self._unsynced: list[list[Persist]] = [[] for _ in everybody]
        self._durable: list[list[Persist]] = [[] for _ in everybody]
        self._held: list[list[Effect]] = [[] for _ in everybody]
        self.machines: list[Any] = [self._made(node) for node in everybody]
        self.down: list[bool] = [False for _ in everybody]
        for node in everybody:
            self.event(node, Started([]))

    def _made(self, node: int) -> Any:
        context = MachineContext(
            node=node,
            nodes=self.nodes,
            preload=KeyRange(4, 8),
            chance=scalar_stream(self._seed, f"node/{node}"),
            batch_max=self._batch_max,
            accesses=False,
            replicas=self._replicas,
        )
        made = self._machine if node in self.nodes else self._authority
        assert made is not None
        return made(context, self._params)

    # --- events ---------------------------------------------------------------------------

    def event(self, node: int, event: Event) -> None:
        """Let a machine handle an event, and what follows from it at once."""
        machine = self.machines[node]
        effects = machine.handle(event, self.now_ns)
        machine.check()
        if self._watch is not None:
            self._watch(machine, event, effects)
        self._unsynced[node] += [effect for effect in effects if isinstance(effect, Persist)]
        for effect in effects:
            overlaps = isinstance(effect, Send) and effect.overlap
            if self._unsynced[node] and not self.syncs and not overlaps:
                self._held[node].append(effect)
            else:
                self._carry_out(node, effect)
        if self.syncs and self._unsynced[node]:
            self.sync(node)

    def _carry_out(self, node: int, effect: Effect) -> None:
        match effect:
            case Send(target, message):
                self.wire.append((node, target, message))
                self.sent.append(message)
            case Reply(handle):
                self.replies[handle] = effect
            case Redirect(handle):
                self.redirects[handle] = effect
            case SetTimer(timer, delay_ns):
                self.timers[node, timer] = self.now_ns + delay_ns
            case CancelTimer(timer):
                self.timers.pop((node, timer), None)
            case _:
                pass

    def sync(self, node: int) -> None:
        """Everything that the node persisted is durable."""
        persists, self._unsynced[node] = self._unsynced[node], []
        held, self._held[node] = self._held[node], []
        for persist in persists:
            if persist.replaces:
                kept = [each for each in self._durable[node] if each.group != persist.group]
                self._durable[node] = kept
            self._durable[node].append(persist)
            self.records[node] = [each.record for each in self._durable[node]]
        for effect in held:
            self._carry_out(node, effect)
        if persists:
            self.event(node, Persisted(persists[-1].token))

    def request(self, node: int, op: Op, handle: Any = None) -> Any:
        """An operation arrives at a node; returns its handle."""
        handle = next(self._handles) if handle is None else handle
        self.event(node, Requested([handle], [op]))
        return handle

    def admin(self, node: int, command: str, about: int) -> None:
        """One node hears an operator's command."""
        self.event(node, Admin(command, about))

    def deliver(self, wanted: Wanted = everything) -> None:
        """Deliver in order until nothing is under way; what is not wanted is lost."""
        while self.wire:
            self.deliver_one(0, wanted)

    def deliver_one(self, index: int, wanted: Wanted = everything) -> None:
        """Deliver the message at this place on the wire, or lose it."""
        source, target, message = self.wire.pop(index)
        if not self.down[target] and wanted(source, target, message):
            self.event(target, Received(source, message))

    def fire(self, node: int, timer: str) -> None:
        """Let a timer fire that is set, and move the clock to it if it lies ahead."""
        self.now_ns = max(self.now_ns, self.timers.pop((node, timer)))
        self.event(node, TimerFired(timer))

    # --- life -----------------------------------------------------------------------------

    def crash(self, node: int) -> None:
        """Lose everything but the durable records."""
        self.down[node] = True
        self._unsynced[node].clear()
        self._held[node].clear()
        for timer in [timer for timer in self.timers if timer[0] == node]:
            del self.timers[timer]

    def restart(self, node: int) -> None:
        """Come back with the durable records."""
        self.down[node] = False
        self.machines[node] = self._made(node)
        self.event(node, Started(list(self.records[node])))
