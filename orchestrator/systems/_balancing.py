"""Whether a balancer fits the nodes of a system."""

from __future__ import annotations

import random

from orchestrator.core.load import Balancer, BalancerContext
from orchestrator.core.parameters import ParameterError
from orchestrator.core.registry import Family, Slot, plugins
from orchestrator.errors import ConfigError


def check_balancer(slot: Slot, nodes: int, *, emulated: bool) -> None:
    """Raise ConfigError where it does not fit that many nodes; only emulated ones tell clients of
    their load.
    """
    if _asks(slot.implementation) and not emulated:
        blind = [
            name
            for name, each in plugins(Family.BALANCER).items()
            if not _asks(each.implementation)
        ]
        raise ConfigError(
            f"balancer {slot.name!r} asks servers for their load, which real ones do not tell",
            path="system.balancer.name",
            hint="balancers that go by what clients see: " + ", ".join(blind),
        )
    try:
        slot.implementation(slot.params, BalancerContext(nodes, random.Random(0)))
    except ParameterError as error:
        path = "system.balancer" + (f".{error.key}" if error.key else "")
        raise ConfigError(str(error), path=path) from None


def _asks(balancer: type[Balancer]) -> bool:
    return bool(balancer.reports or balancer.probing)
