"""Whether and when a client sends an operation again, and how much it has under way at once."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Final

from orchestrator.config.schema import Client
from orchestrator.core.machine import READING
from orchestrator.core.policy import BackoffTimer, Limit, RecentLatency, RetryBudget
from orchestrator.runtimes._agenda import HEDGE, SLOW
from orchestrator.runtimes._session import Session

UNLIMITED: Final = sys.maxsize


class Attempts:
    """One client's. ``remind`` is the load's: what alarms are put into. ``known_again``: whether a
    write that may have happened is known again at any node.
    """

    remind: Callable[[int, Session, int], None]

    def __init__(self, client: Client, chance: random.Random, *, known_again: bool) -> None:
        self._known_again = known_again
        self._most = client.retry.attempts
        self._backoff = BackoffTimer(client.retry.backoff, chance)
        budget = client.retry.budget
        self._budget = None if budget.share is None else RetryBudget(budget)
        self._timeout_ns, self._attempt_ns = client.timeout, client.attempt_timeout
        self._hedge = client.hedge
        self._tie_ns = client.tie.after
        percentile = client.hedge.percentile
        self._recent = None if percentile is None else RecentLatency(percentile)
        self._limit: Limit | None = None
        if client.limit is not None:
            self._limit = client.limit.implementation(client.limit.params)

    @staticmethod
    def wanted(client: Client) -> bool:
        """Whether a client has any use for it."""
        guards = client.limit is not None or client.breaker.failures is not None
        return client.insists or guards

    def begin(self, session: Session, now_ns: int) -> None:
        """An operation begins."""
        session.attempt = session.hedges = session.pause_ns = 0
        session.doubt = False
        session.tied, session.pair = -1, 0
        if self._budget is not None:
            self._budget.operation(now_ns)

    def sent(self, session: Session, now_ns: int, *, hedging: bool) -> None:
        """An attempt is on its way, which the session has yet to note."""
        if session.out:
            session.others[session.target] = session.sent_ns
        session.attempt += 1
        session.hedges += hedging
        reading = session.op.kind in READING
        if self._attempt_ns is not None and (reading or self._known_again):
            self.remind(now_ns + self._attempt_ns, session, SLOW)
        if self._tie_ns is not None:
            if session.tied >= 0 and not hedging:
                self.remind(now_ns + self._tie_ns, session, HEDGE)
            return
        hedge = self._hedge
        if not reading or not hedge.wanted or session.hedges >= hedge.attempts:
            return
        after_ns = hedge.after if self._recent is None else self._recent.value_ns
        if after_ns is not None:
            self.remind(now_ns + after_ns, session, HEDGE)

    @property
    def ties(self) -> bool:
        """Whether a read waits at two nodes."""
        return self._tie_ns is not None

    @property
    def most(self) -> int:
        """How much may be under way at once."""
        return UNLIMITED if self._limit is None else self._limit.most

    def answered(self, session: Session, under_way: int, now_ns: int) -> int:
        """The answer that counts; returns how much may be under way from now on."""
        if self._recent is not None:
            self._recent.add(now_ns - session.invoked_ns)
        if self._limit is not None:
            self._limit.answered(now_ns - session.sent_ns, under_way, now_ns)
        return self.most

    def dropped(self, under_way: int, now_ns: int) -> int:
        """An attempt was turned away, lost, or had its time; returns what ``answered`` does."""
        if self._limit is not None:
            self._limit.dropped(under_way, now_ns)
        return self.most

    def again_ns(self, session: Session, wait_ns: int, now_ns: int) -> int | None:
        """When to send it again, no sooner than in ``wait_ns``; None where it is not to be."""
        retry = session.attempt - session.hedges
        if retry >= self._most:
            return None
        if session.doubt and not self._known_again and session.op.kind not in READING:
            return None
        pause_ns = max(wait_ns, self._backoff.pause_ns(max(1, retry), session.pause_ns))
        if now_ns + pause_ns >= session.invoked_ns + self._timeout_ns:
            return None
        if self._budget is not None and not self._budget.spend(now_ns):
            return None
        session.pause_ns = pause_ns
        return now_ns + pause_ns
