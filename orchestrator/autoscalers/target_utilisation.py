"""As many cores as would be used to a target, were the load to stay as it is.

The rule of Kubernetes' HorizontalPodAutoscaler (its documentation, "Algorithm details"): the cores
in service times utilisation over target, rounded up, unless that is within a tolerance of what
there is. A CPU cannot be used to more than 1, so under overload the cores grow by 1 / target a step
and no faster, and a step takes a delay. What is too much leaves only when nothing has wanted it for
``cooldown`` (there, "stabilization window"), so that a short lull does not cost what the next burst
needs. O(looks within the cooldown) a look.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from orchestrator.core.parameters import duration, number
from orchestrator.core.registry import Family, register
from orchestrator.core.scaling import AutoscalerParams, Seen


@dataclass(frozen=True)
class TargetUtilisationParams(AutoscalerParams):
    target: float = number(0.6, low=0.01, high=1.0, help="of the cores in service")
    tolerance: float = number(0.1, low=0.0, high=0.9, help="of the target that is near enough")
    cooldown: int = duration("30s", help="nothing leaves that was wanted within it")


@register(Family.AUTOSCALER, "target_utilisation", params=TargetUtilisationParams)
class TargetUtilisation:
    """As many cores as are used to a target, with patience before they are fewer"""

    __slots__ = ("_params", "_recent")

    def __init__(self, params: TargetUtilisationParams) -> None:
        self._params = params
        # (when, how many were wanted), the number falling: what came later and was more hides it.
        self._recent: deque[tuple[int, int]] = deque()

    def wanted(self, seen: Seen, now_ns: int) -> int:
        """The most that was wanted within the cooldown."""
        params, recent = self._params, self._recent
        ratio = seen.utilisation / params.target
        now = seen.cores
        if abs(ratio - 1) > params.tolerance:
            # A quotient that should be whole may lie just above it.
            now = math.ceil(seen.cores * ratio - 1e-9)
        while recent and recent[-1][1] <= now:
            recent.pop()
        recent.append((now_ns, now))
        while recent[0][0] < now_ns - params.cooldown:
            recent.popleft()
        return recent[0][1]
