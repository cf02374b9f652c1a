"""The candidate with the fewest of this client's own operations outstanding.

Also known as least connections or least requests. It costs no message, and where there is one
client it joins the shortest queue; of several clients each sees its own operations only, so they
even out their own load and not each other's. Where clients are many and each has few operations
outstanding, it is hardly better than chance.

Linear in the candidates: about 3 us a pick among 100.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.balancers._outstanding import Outstanding, least
from orchestrator.core.load import BalancerContext
from orchestrator.core.registry import Family, NoParams, register


@register(Family.BALANCER, "least_inflight")
class LeastInFlight(Outstanding):
    """The fewest of the client's own outstanding operations; of equals any one"""

    __slots__ = ("_chance",)

    def __init__(self, params: NoParams, context: BalancerContext) -> None:
        super().__init__(params, context)
        self._chance = context.chance

    def pick(self, key: bytes, candidates: Sequence[int], now_ns: int) -> int:
        """The least loaded one."""
        return least(self.outstanding, candidates, self._chance)
