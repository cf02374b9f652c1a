"""A cache tier in a run: how its nodes are made, and how the store's nodes serve them.

A node of the store takes what a tier node asks as it takes what a client asks: it costs the same,
waits in the same queue, and is answered when a client would be. :class:`FrontDoor` stands between
the shell and the runtime's outlet for that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.core.cached_values import CachedValues
from orchestrator.core.caching import build_cache
from orchestrator.core.machine import Machine, Redirect, Reply
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.tier import (
    REDIRECTED,
    REFUSED,
    Answer,
    Ask,
    Messages,
    Pattern,
    TierContext,
)
from orchestrator.core.waiting import Refusal
from orchestrator.systems._tier import Tier
from orchestrator.systems.replicated_store import Node, RateLimit

if TYPE_CHECKING:
    from orchestrator.runtimes._node import NodeShell
    from orchestrator.runtimes._outlet import Outlet
    from orchestrator.runtimes._parts import Parts


class Asked(NamedTuple):
    """Handle of what a tier node asks."""

    source: int
    number: int


class FrontDoor:
    """The outlet of a store's node that tier nodes ask, and the way in for what they ask."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self.send = outlet.send
        self.append = outlet.append
        self.sync = outlet.sync
        self.note = outlet.note

    def reply(self, reply: Reply) -> None:
        """To who has asked."""
        handle = reply.handle
        if type(handle) is not Asked:
            self._outlet.reply(reply)
            return
        answer = Answer(handle.number, reply.outcome, reply.value, reply.version, reply.context)
        self._outlet.send(handle.source, answer)

    def redirect(self, redirect: Redirect) -> None:
        """To who has asked."""
        handle = redirect.handle
        if type(handle) is not Asked:
            self._outlet.redirect(redirect)
            return
        self._outlet.send(handle.source, Answer(handle.number, REDIRECTED, node=redirect.node))

    def refuse(self, refusal: Refusal) -> None:
        """To who has asked."""
        handle = refusal.handle
        if type(handle) is not Asked:
            self._outlet.refuse(refusal)
            return
        self._outlet.send(handle.source, Answer(handle.number, REFUSED))


def is_fronted(parts: Parts, node: int) -> bool:
    """Whether tier nodes ask this machine."""
    return parts.tier is not None and node not in parts.tier_nodes


def messages_of(parts: Parts, node: int, machine: Machine) -> Any:
    """Union of what a machine hears from others; None where it hears nothing."""
    own = machine.Message
    if own is None:
        return Messages if is_fronted(parts, node) else None
    return own | Messages if is_fronted(parts, node) else own


def receiver(parts: Parts, node: int, shell: NodeShell) -> Callable[[int, Any], None]:
    """What a machine does with the messages of others."""
    if not is_fronted(parts, node):
        return shell.received

    def received(source: int, message: Any) -> None:
        if type(message) is Ask:
            shell.requested([Asked(source, message.number)], [message.op])
        else:
            shell.received(source, message)

    return received


def tier_model(tier: Tier, model: Node) -> Node:
    """What the work of a tier node costs; its storage has nothing to do."""
    storage = dataclasses.replace(model.storage, parallel=None)
    return dataclasses.replace(
        model,
        cores=tier.cores,
        speed=1.0,
        cpu=tier.cpu,
        storage=storage,
        queue=None,
        autoscaler=None,
        rate_limit=RateLimit(),
        back_pressure=False,
    )


def make_pattern(parts: Parts, tier: Tier, node: int) -> Pattern:
    """The machine of a tier node, with nothing cached."""
    seed, system = parts.config.seed, parts.system
    policy = build_cache(tier.cache, scalar_stream(seed, f"node/{node}/admission"))
    chance = scalar_stream(seed, f"node/{node}/early")
    context = TierContext(
        node=node,
        first_view=system.first_view,
        candidates=system.candidates,
        group_of=system.group_of,
        cached=CachedValues(policy, chance, ttl_ns=tier.ttl, early=tier.early_refresh),
        known_again=parts.known_again,
        client=parts.config.clients + node - parts.tier_nodes.start,
    )
    made: Pattern = tier.pattern.implementation(context, tier.pattern.params)
    return made
