"""Zones: where nodes and clients stand, and how far the places are from each other.

The preset ``public_cloud`` holds the average round trips between regions that IBM Cloud
published for its VPC regions (27 July to 25 August 2024, cloud.ibm.com/docs/vpc, "Network
latency"), in milliseconds; within a region 0.1 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from orchestrator.core.parameters import ParameterError, choice, duration
from orchestrator.core.units import NS_PER_MS

PUBLIC_CLOUD: Final = "public_cloud"
_REGIONS: Final = (
    "washington_dc",
    "london",
    "tokyo",
    "sydney",
    "sao_paulo",
    "dallas",
    "frankfurt",
    "osaka",
    "toronto",
    "madrid",
)
# Row i holds the round trips between region i and those behind it, in ms.
_ROUND_TRIPS_MS: Final = (
    (75, 164, 214, 118, 31, 91, 172, 19, 87),
    (243, 261, 188, 113, 13, 244, 82, 27),
    (115, 284, 143, 233, 9, 162, 258),
    (328, 186, 250, 122, 215, 275),
    (146, 198, 293, 129, 209),
    (123, 150, 34, 119),
    (232, 93, 29),
    (168, 257),
    (108,),
    (),
)
_WITHIN_NS: Final = NS_PER_MS // 10


def _preset_rtt_ns(one: str, other: str) -> int:
    low, high = sorted((_REGIONS.index(one), _REGIONS.index(other)))
    return _WITHIN_NS if low == high else _ROUND_TRIPS_MS[low][high - low - 1] * NS_PER_MS


@dataclass(frozen=True)
class Zones:
    """Names of zones and the round trips between them.

    With ``preset``, ``names`` chooses among its regions (none: all, in the preset's order), and
    ``rtt`` stays empty. ``nodes`` and ``clients`` name the zone of each one; where they are
    empty, they are dealt out to the zones in turn. The authority of a protocol that has one
    stands in the first zone.
    """

    preset: str | None = choice(None, options=(PUBLIC_CLOUD,))
    names: tuple[str, ...] = ()
    rtt: tuple[tuple[int, ...], ...] = duration((), many=2, help="a row a zone, symmetric")
    nodes: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.preset is None:
            self._check_matrix()
        else:
            if self.rtt:
                raise ParameterError("the preset has the round trips", key="rtt")
            for name in self.names:
                if name not in _REGIONS:
                    known = ", ".join(_REGIONS)
                    raise ParameterError(f"unknown region {name!r}; there are {known}", key="names")
        if len(dict.fromkeys(self.names)) < len(self.names):
            raise ParameterError("a zone is named twice", key="names")
        for key, placed in (("nodes", self.nodes), ("clients", self.clients)):
            for name in placed:
                if name not in self.all_names:
                    raise ParameterError(f"there is no zone {name!r}", key=key)

    def _check_matrix(self) -> None:
        size = len(self.names)
        if len(self.rtt) != size or any(len(row) != size for row in self.rtt):
            raise ParameterError(f"{size} names need {size} rows of {size} round trips", key="rtt")
        for row in range(size):
            for column in range(row):
                if self.rtt[row][column] != self.rtt[column][row]:
                    there, back = self.names[row], self.names[column]
                    raise ParameterError(
                        f"the round trip from {there} to {back} differs from that back", key="rtt"
                    )

    @property
    def all_names(self) -> tuple[str, ...]:
        """The zones in their order; none where there is only one place."""
        return self.names or (_REGIONS if self.preset else ())

    @property
    def apart(self) -> bool:
        """Whether there is any distance at all."""
        return bool(self.all_names)

    def of_node(self, node: int, nodes: int) -> str:
        """The zone of a node; of the authority, which is node ``nodes``."""
        names = self.all_names
        if node >= nodes:
            return names[0]
        return self.nodes[node] if self.nodes else names[node % len(names)]

    def of_client(self, client: int) -> str:
        """The zone of a client."""
        names = self.all_names
        return self.clients[client] if self.clients else names[client % len(names)]

    def one_way_ns(self, one: str, other: str) -> int:
        """Half of the round trip between two zones."""
        if self.preset is not None:
            return _preset_rtt_ns(one, other) // 2
        return self.rtt[self.names.index(one)][self.names.index(other)] // 2
