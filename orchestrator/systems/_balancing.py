"""Whether a balancer fits the nodes of a system."""

from __future__ import annotations

import random

from orchestrator.core.load import BalancerContext
from orchestrator.core.parameters import ParameterError
from orchestrator.core.registry import Slot
from orchestrator.errors import ConfigError


def check_balancer(slot: Slot, nodes: int) -> None:
    """Raise ConfigError where its parameters do not fit that many nodes."""
    try:
        slot.implementation(slot.params, BalancerContext(nodes, random.Random(0)))
    except ParameterError as error:
        path = "system.balancer" + (f".{error.key}" if error.key else "")
        raise ConfigError(str(error), path=path) from None
