"""Cache-aside: clients look in the tier, fetch from the store what is missing, and fill.

A write goes to the store, and then its client has the tier forget the key. Between a client's fetch
and its filling somebody else's write and invalidation may both pass, and then what is filled is out
of date, for as long as it stays. Three ways of invalidation:

* ``write``: by that alone, so a stale value may stay until it is evicted, or ``ttl`` is over.
* ``lease``: who misses gets a lease on filling the key, and an invalidation ends it, so that what
  was fetched before cannot be filled after it (Nishtala et al., "Scaling Memcache at Facebook",
  NSDI 2013, section 3.2.1). Who misses while somebody else has the lease looks again after
  ``lease_wait``, so that one fetches what many miss. A write is over when the tier has answered.
* ``time``: nothing is invalidated; entries are as old as ``ttl``.

A read that misses costs a request and an answer to the tier, the same to the store one after the
other, and a filling that nobody waits for; a write costs the store's and then the tier's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.core.faults import Hazards
from orchestrator.core.levels import NONE, REGULAR
from orchestrator.core.machine import OK, READ, Effect, Event, Mark, Op, Reply, Requested, Started
from orchestrator.core.parameters import choice, duration
from orchestrator.core.registry import Family, register
from orchestrator.core.tier import (
    BY_LEASE,
    BY_TIME,
    BY_WRITE,
    MISSED,
    WAIT,
    Pattern,
    TierContext,
)


@dataclass(frozen=True)
class Params:
    invalidation: str = choice(BY_WRITE, options=(BY_WRITE, BY_LEASE, BY_TIME))
    lease: int = duration("2s", low="1ms", help="after which another may fill")
    lease_wait: int = duration("2ms", low="1us", help="before looking again for what is fetched")


@dataclass(slots=True)
class Fetch:
    """A client was told to fetch a key: with which lease (empty: none), and when."""

    lease: bytes
    since_ns: int


@register(
    Family.PATTERN,
    "cache_aside",
    params=Params,
    claims={REGULAR: "over a linearizable store, invalidated by lease"},
)
class CacheAside(Pattern):
    """Clients look here, fetch from the store what is missing, and fill"""

    fills = True
    takes_writes = False

    def __init__(self, context: TierContext, params: Params) -> None:
        super().__init__(context, params)
        self._lease_ns = params.lease if params.invalidation == BY_LEASE else 0
        self._fetches: dict[bytes, Fetch] = {}
        self._given = 0

    @classmethod
    def invalidates(cls, params: Params) -> bool:
        return params.invalidation != BY_TIME

    @classmethod
    def insists(cls, params: Params) -> bool:
        return params.invalidation == BY_LEASE

    @classmethod
    def needs_ttl(cls, params: Params) -> bool:
        return params.invalidation == BY_TIME

    @classmethod
    def wait_ns(cls, params: Params) -> int:
        return params.lease_wait

    @classmethod
    def keeps(cls, params: Params, hazards: Hazards) -> str:
        return REGULAR if params.invalidation == BY_LEASE else NONE

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        if type(event) is Requested:
            for handle, op in zip(event.handles, event.ops, strict=True):
                if op.kind == READ:
                    effects.append(self._look(handle, op, now_ns))
                else:
                    if not self._told(op, now_ns):
                        effects.append(Mark("late_filling"))
                    effects.append(Reply(handle, OK))
        elif type(event) is Started:
            # A lease from before a crash is none.
            self._given = max(0, now_ns)
        return effects

    def _look(self, handle: Any, op: Op, now_ns: int) -> Reply:
        held = self.cached.look(op.key, op.size, now_ns)
        if held is not None and not self.cached.wants_refresh(held, now_ns):
            return Reply(handle, OK, held.value, held.version)
        fetch = self._fetches.get(op.key)
        if fetch is not None and now_ns < fetch.since_ns + self._lease_ns:
            if held is None:
                return Reply(handle, OK, None, WAIT)
            return Reply(handle, OK, held.value, held.version)
        self._given += 1
        lease = self._given.to_bytes(8, "big") if self._lease_ns else b""
        self._fetches[op.key] = Fetch(lease, now_ns)
        return Reply(handle, OK, None, MISSED, 0, lease)

    def _told(self, op: Op, now_ns: int) -> bool:
        """A value to fill, or that there is a newer one; whether it was heeded."""
        if op.value is None:
            self._fetches.pop(op.key, None)
            self.cached.drop(op.key)
            return True
        fetch = self._fetches.get(op.key)
        if self._lease_ns and (fetch is None or fetch.lease != op.context):
            return False
        fetch_ns = 0 if fetch is None else now_ns - fetch.since_ns
        self._fetches.pop(op.key, None)
        self.cached.keep(op.key, op.value, op.seen, op.size, fetch_ns, now_ns)
        return True
