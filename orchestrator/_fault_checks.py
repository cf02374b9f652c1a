"""Whether faults make sense: they must have somebody to strike, and be possible there."""

from __future__ import annotations

from typing import Final

from orchestrator.core.fault_exposure import exposure
from orchestrator.core.fault_plan import idles
from orchestrator.core.faults import (
    ALL,
    ANY,
    AUTHORITY,
    CACHE,
    COUNT,
    NODE,
    ZONE,
    Aim,
    Fault,
    Target,
    parse_target,
)
from orchestrator.core.units import format_duration
from orchestrator.errors import ConfigError
from orchestrator.runtimes._parts import Parts, cluster_state

SLOWEST_DRIFT: Final = -0.99
"""A clock keeps one part in a hundred of its speed at least."""


def check_faults(parts: Parts) -> None:
    """Faults must have somebody to strike, be possible there, and strike before the end."""
    for index, (aim, slot) in enumerate(parts.config.faults):
        path = f"faults[{index}]"
        fault: Fault = slot.implementation(slot.params)
        if fault.emulated_only and not parts.system.emulated:
            raise ConfigError(
                f"{slot.name} needs emulated nodes; system {parts.config.system.name!r} is real"
                " processes",
                path=f"{path}.name",
                hint="real processes can be crashed and paused",
            )
        reason = fault.why_not(parts.durability)
        if reason:
            raise ConfigError(reason, path=path)
        reason = _why_no_target(parse_target(aim.target), fault, parts)
        if reason:
            raise ConfigError(reason, path=f"{path}.target")
        end_ns = parts.end_ns
        if aim.at is not None and end_ns is not None and aim.at >= end_ns:
            raise ConfigError(
                f"the load is over by then: it ends after {format_duration(end_ns)}",
                path=f"{path}.at",
            )
        _check_effect(parts, aim, fault, path)
    _check_clocks(parts)


def _check_effect(parts: Parts, aim: Aim, fault: Fault, path: str) -> None:
    """A strike that changes nothing would be a strike that nothing suffers from."""
    state = cluster_state(parts, {})
    for variant in fault.variants:
        if idles(parse_target(aim.target), variant, state):
            raise ConfigError(
                f"it would change nothing: it is about links, and with target {aim.target!r} and"
                f" nodes: {len(state.nodes)} there is none that it could strike",
                path=path,
                hint="a partition of shape ring needs 4 nodes, bridge 3, any other 2; "
                "clients: true strikes the links to clients",
            )


def _check_clocks(parts: Parts) -> None:
    """Clocks must go on, whatever strikes come together."""
    faults, end_ns = parts.config.faults, parts.strikes_until_ns
    for index, (_, slot) in enumerate(faults):
        slowest = exposure(faults[: index + 1], end_ns).slowest
        if slowest < SLOWEST_DRIFT:
            alone = slot.implementation(slot.params).hazards.slowest
            raise ConfigError(
                f"a clock could stand still or run backwards: drifts add up while they overlap,"
                f" those of this fault ({alone:g} each) and of the ones before it to as little"
                f" as {slowest:.4g}",
                path=f"faults[{index}]",
                hint=f"{SLOWEST_DRIFT} is allowed: let it last for less long than it is to the"
                " next strike (every: a law with a least gap, such as constant or uniform), or"
                " drift less",
            )


def _why_no_target(target: Target, fault: Fault, parts: Parts) -> str:
    """Why there is nobody to strike; empty where there is."""
    if fault.strikes_clients and target.word not in (NODE, ANY, ALL, COUNT):
        return f"it strikes clients: the number of one, {ANY}, {ALL} or {COUNT}:N"
    if target.word == NODE:
        count = parts.config.clients if fault.strikes_clients else parts.system.nodes
        what = "clients" if fault.strikes_clients else "nodes"
        return "" if target.number < count else f"{what} are 0 to {count - 1}"
    if target.word == ZONE:
        zones = parts.store.zones.all_names if parts.system.emulated else ()
        return "" if target.zone in zones else f"zones are: {', '.join(zones) or 'none'}"
    if target.word == AUTHORITY and (not parts.system.emulated or parts.authority is None):
        return f"{parts.served_by} has no authority"
    if target.word == CACHE and not parts.tier_nodes:
        return "there is no cache tier (system.tier)"
    return ""
