"""Faults of the links of their victims: what they share."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.faults import Blow, ClusterState, Disturbed, Fault, LinkState
from orchestrator.core.parameters import flag
from orchestrator.faults._lasting import Lasting


@dataclass(frozen=True)
class LinkParams(Lasting):
    clients: bool = flag(False, help="the links between victims and clients, too")


def both_ways(links: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The links and those back."""
    return (*links, *((receiver, sender) for sender, receiver in links))


def links_of(
    victims: Sequence[int], cluster: ClusterState, clients: bool
) -> tuple[tuple[int, int], ...]:
    """All links to and from the victims, each once."""
    others = (*cluster.members, *(cluster.client_parties if clients else ()))
    links = both_ways([(one, other) for one in victims for other in others if one != other])
    return tuple(dict.fromkeys(links))


class LinkFault(Fault):
    """What is sent to and from the victims suffers."""

    def __init__(self, params: LinkParams) -> None:
        self._params = params

    @staticmethod
    @abstractmethod
    def state_of(params: Any) -> LinkState:
        """What the links make of messages."""

    def blow(self, victims: Sequence[int], cluster: ClusterState, chance: random.Random) -> Blow:
        params = self._params
        links = links_of(victims, cluster, params.clients)
        return Blow((Disturbed(links, self.state_of(params)),), params.length_ns(chance))
