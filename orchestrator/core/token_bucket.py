"""A bucket of tokens that fills at a rate: the limit of a rate that still lets bursts pass."""

from __future__ import annotations

from orchestrator.core.units import NS_PER_S


class TokenBucket:
    """Holds ``burst`` tokens at most, and gets ``rate_per_s`` of them a second; full at first.

    Over any time t no more than ``burst`` + ``rate_per_s`` t tokens are taken. Tokens are counted
    in whole nanoseconds' worth, so that nothing is lost to rounding.
    """

    __slots__ = ("_burst", "_cost_ns", "_full_at_ns")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._cost_ns = max(1, round(NS_PER_S / rate_per_s))
        self._burst = burst
        # The generic cell rate algorithm: one time says how full it is.
        self._full_at_ns = -(1 << 62)

    def take(self, now_ns: int) -> int:
        """Take a token. Returns 0, or in how many ns there will be one where there is none."""
        from_ns = max(self._full_at_ns, now_ns)
        wait_ns = from_ns + self._cost_ns - now_ns - self._burst * self._cost_ns
        if wait_ns > 0:
            return wait_ns
        self._full_at_ns = from_ns + self._cost_ns
        return 0
