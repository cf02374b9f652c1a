"""All links of a run probed before its load, and set right.

A message between real processes takes its time, whatever the model says: timers, sockets and the
waking of who reads. What the median probe of a link took beyond its emulated delay is therefore
taken off that delay from then on, so that a hop takes what was asked and not that and the host's
part. Then the links are probed once more: what is left is told with the run. Where the host stood
still during the first probes, messages now come too early; then less is taken off, and the links
are probed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from orchestrator.core.faults import client_party
from orchestrator.core.record import LinkRecord
from orchestrator.runtimes._link_probe import TURN_S, link_record
from orchestrator.runtimes._member import CALL_S, Member, gather_all

PROBE_S: Final = 20.0
EARLY_NS: Final = 50_000
"""Medians of few probes differ by less among themselves."""
ROUNDS: Final = 3
"""How often links are set right, at most."""

Leads = dict[int, dict[int, int]]
"""What messages take of themselves (ns), by party and then by the party that they go to."""


def probed_links(
    nodes: Sequence[Member], clients: Sequence[Member]
) -> tuple[tuple[LinkRecord, ...], Leads]:
    """What the links take once they are set right, and by how much that was.

    Raises PartLost where a party does not answer.
    """
    members = [*nodes, *clients]
    names = {f"n{node}": node for node in range(len(nodes))}
    names |= {f"client {client}": client_party(client) for client in range(len(clients))}
    links = _probe(members, list(names))
    if not any(link.asked_ns for link in links):
        return links, {party: {} for party in names.values()}
    leads = leads_ns(links, names)
    for rounds_left in reversed(range(ROUNDS)):
        told = [m.call("lead", each) for m, each in zip(members, leads.values(), strict=True)]
        gather_all(members, told, CALL_S, "setting up links")
        links = tuple(
            replace(link, lead_ns=leads[names[link.source]].get(names[link.target], 0))
            for link in _probe(members, list(names))
        )
        if not rounds_left or all(link.excess_ns >= -EARLY_NS for link in links):
            break
        # What comes early takes less of itself than was taken off.
        leads = leads_ns([replace(each, excess_ns=_itself_ns(each)) for each in links], names)
    return links, leads


def beside(nodes: Sequence[Member], clients: Sequence[Member]) -> list[frozenset[int]]:
    """The parties that read the same clock, of each node and then of each client."""
    parties = [*range(len(nodes)), *map(client_party, range(len(clients)))]
    clocks = [member.clock for member in (*nodes, *clients)]
    return [
        frozenset(party for party, other in zip(parties, clocks, strict=True) if other == clock)
        for clock in clocks
    ]


def _probe(members: Sequence[Member], names: Sequence[str]) -> tuple[LinkRecord, ...]:
    probing = [member.call("probe", turn * TURN_S) for turn, member in enumerate(members)]
    limit_s = PROBE_S + len(members) * TURN_S
    found = gather_all(members, probing, limit_s, "probing links")
    clocks = [member.clock for member in members]
    return tuple(
        replace(link_record(name, names[target], samples), stamped=clocks[target] == clock)
        for name, clock, by_target in zip(names, clocks, found, strict=True)
        for target, samples in sorted(by_target.items())
        if samples
    )


def _itself_ns(link: LinkRecord) -> float:
    """What a message takes of itself, of a link that is set right already."""
    return link.lead_ns + min(0.0, link.excess_ns)


def leads_ns(links: Iterable[LinkRecord], parties: Mapping[str, int]) -> dict[int, dict[int, int]]:
    """What messages really take between two parties, by party and then by the other.

    ``parties`` are the numbers behind the names of the links. Clients alone probe what is between
    them and the nodes, so a node's way back to them is taken for their way to it.
    """
    found: dict[int, dict[int, int]] = {party: {} for party in parties.values()}
    for link in links:
        source, target = parties[link.source], parties[link.target]
        usual_ns = max(0, int(link.excess_ns))
        found[source][target] = usual_ns
        if source < 0:
            found[target][source] = usual_ns
    return found
