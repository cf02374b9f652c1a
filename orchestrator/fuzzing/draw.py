"""From a seed to a scenario: cluster, links, faults and load.

Times are in units of ``pace``: the protocol's own time-outs are scaled so that the longest of
them is one pace, and a scenario lasts at least twenty of them, so that a short simulation sees
many elections, retransmissions and changes of view.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from orchestrator.config.load import load_mapping
from orchestrator.core.levels import LEVELS, LINEARIZABLE
from orchestrator.core.machine import (
    ADD,
    INCREMENT,
    KIND_NAMES,
    READ,
    REQUEST,
    RESPONSE,
    WRITE,
    ClaimContext,
)
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.registry import Family, plugin, plugins
from orchestrator.core.sharding import LOCAL
from orchestrator.core.units import NS_PER_MS, format_duration
from orchestrator.errors import ConfigError, InputError, suggestion
from orchestrator.fuzzing import comparing
from orchestrator.fuzzing.faults import STEP_NS, FaultDrawing, draw_times
from orchestrator.fuzzing.parameters import draw_parameters
from orchestrator.fuzzing.profiles import PROFILES, Profile
from orchestrator.fuzzing.scenario import Fault, Scenario, Step
from orchestrator.fuzzing.sharding import Division, draw_division, draw_moves
from orchestrator.fuzzing.tiers import draw_tier, tier_faults
from orchestrator.fuzzing.transactional import CALM_PACES, transactional_steps
from orchestrator.systems._sharding import ordered_protocols
from orchestrator.systems._tier import TIER_KINDS

OPERATIONS_MIN: Final = 200
PACES: Final = 24
"""Length of the load before all is healed, in paces."""
SETTLE_PACES: Final = 12
FINAL_PACES: Final = 4
_ATTEMPTS: Final = 50


def draw(
    protocol: str,
    seed: int,
    *,
    attempt: int = 0,
    profile: str = "mixed",
    fixed: Mapping[str, Any] | None = None,
) -> Scenario:
    """The scenario of a seed. ``fixed``: parameters of the protocol that are not drawn;
    ``attempt``: another drawing for the same seed.

    Raises ConfigError for an unknown protocol or parameter, InputError for an unknown profile.
    """
    if profile not in PROFILES:
        hint = suggestion(profile, PROFILES)
        raise InputError(f"unknown profile {profile!r}", path="--profile", hint=hint)
    return _Drawing(protocol, seed, attempt, PROFILES[profile], dict(fixed or {})).scenario()


class _Drawing(FaultDrawing):
    def __init__(
        self, protocol: str, seed: int, attempt: int, profile: Profile, fixed: Mapping[str, Any]
    ) -> None:
        self._protocol = protocol
        self._seed = seed
        self._profile = profile
        self._fixed = fixed
        self._chance = scalar_stream(seed, f"fuzz/{protocol}/{attempt}")
        # A layer of transactions is simulated over one of the protocols that can carry it.
        self._layer = plugins(Family.TRANSACTIONS).get(protocol)
        # So is a cache tier.
        self._pattern = plugins(Family.PATTERN).get(protocol)
        alone = self._layer is None and self._pattern is None
        self._inner = protocol if alone else self._chance.choice(ordered_protocols())
        self._plugin = plugin(Family.PROTOCOL, self._inner, path="PROTOCOL")
        # Each of its operations is several of the protocol below, one after the other.
        self._patience = 1 if self._layer is None else 2
        self._last_built: tuple[Any, Any] = (None, None)
        self._pace_ns = self._chance.choice((40, 60, 90)) * NS_PER_MS

    def scenario(self) -> Scenario:
        chance, pace_ns = self._chance, self._pace_ns
        heal_ns = PACES * pace_ns
        final_ns = heal_ns + SETTLE_PACES * pace_ns
        self._division = self._divided()
        replicas, nodes, params = self._cluster()
        self._watched = self._plugin.implementation.authority_of(self._built(params)) is not None
        durable = chance.random() < 0.8
        sticky = chance.random() < 0.4
        delay_ns = pace_ns // chance.choice(self._profile.delays)
        system = self._system(params, replicas, nodes, delay_ns, durable=durable, heal_ns=heal_ns)
        rush, choices = self._profile.rush, (1, 2, 4, 8, 40) if self._layer is None else (2, 4, 8)
        keys = chance.choice(choices if rush == 1 else choices[:2])
        return Scenario(
            protocol=self._protocol,
            seed=self._seed,
            system=system,
            client=self._client(delay_ns, sticky),
            clients=2 * rush,
            keys=keys,
            heal_ns=heal_ns,
            final_ns=final_ns,
            operations=tuple(self._steps(keys, system, sticky, heal_ns, final_ns)),
            faults=(
                *self._faults(nodes, replicas, durable, heal_ns),
                *self._tier_faults(system, heal_ns),
            ),
        )

    def _system(
        self,
        params: dict[str, Any],
        replicas: int,
        nodes: int,
        delay_ns: int,
        *,
        durable: bool,
        heal_ns: int,
    ) -> dict[str, Any]:
        """The configuration of the store."""
        chance = self._chance
        # A slow disk, but not so slow that the protocol's time-outs make no sense.
        slow_ns = min(4 * delay_ns, self._pace_ns // 10)
        sync_ns = chance.choice((delay_ns // 2, delay_ns // 2, slow_ns))
        self._late, self._late_ns = self._lateness()
        self._ambush = durable and chance.random() < self._profile.ambush
        return {
            "name": "replicated_store",
            "protocol": {"name": self._inner} | params,
            **self._shards(self._built(params), replicas, nodes, heal_ns),
            **self._transactions(),
            **self._tier(),
            "replicas": replicas,
            "nodes": nodes,
            "node": {
                "cpu": {"read": "20us", "write": "20us", "message": "10us"},
                "storage": {
                    "write": "20us",
                    "sync": {"name": "exponential", "mean": format_duration(sync_ns)},
                    "durability": "fsync" if durable else "memory",
                },
            },
            "network": {
                "delay": {"name": "exponential", "mean": format_duration(delay_ns)},
                "delays": {kind: format_duration(delay_ns) for kind in (REQUEST, RESPONSE)},
                "ordering": chance.choice(("fifo", "none")),
            },
            "batch": {"max": self._batch(max(delay_ns, sync_ns)), "linger": "100us"},
        }

    def _client(self, delay_ns: int, sticky: bool) -> dict[str, Any]:
        timeout_ns = self._patience * max(2 * self._pace_ns, 40 * delay_ns)
        return {"timeout": format_duration(timeout_ns), "connections": 2, "sticky": sticky}

    def _batch(self, step_ns: int) -> int:
        """Operations in a message: one keeps up with the load where messages and disks are quick
        and leaders stay, so that no backlog has to be worked off in the end.
        """
        slowest_ns = max(step_ns, round(self._late * self._late_ns))
        quick = slowest_ns * 30 * self._profile.rush <= self._pace_ns and not self._ambush
        return self._chance.choice((1, 1, 4) if quick else (16, 64))

    # --- the cluster ----------------------------------------------------------------------

    def _divided(self) -> Division:
        layered, ordered = self._layer is not None, self._plugin.implementation.ordered
        return draw_division(
            self._seed, self._protocol, self._profile, layered=layered, ordered=ordered
        )

    def _shards(self, built: Any, replicas: int, nodes: int, heal_ns: int) -> dict[str, Any]:
        """The parts of the store's configuration that are about them."""
        division, pace_ns = self._division, self._pace_ns
        if division.shards == 1:
            return {}
        if not division.moves or not self._linearizable(built, replicas):
            return {"shards": division.shards}
        chance = scalar_stream(self._seed, f"fuzz/{self._protocol}/moves")
        return draw_moves(chance, division.shards, replicas, nodes, pace_ns, heal_ns - pace_ns)

    def _cluster(self) -> tuple[int, int, dict[str, Any]]:
        """A number of replicas, of nodes, and parameters that fit."""
        chance, division = self._chance, self._division
        reason: str | None = ""
        for _ in range(_ATTEMPTS):
            params = self._params()
            replicas = chance.choice(self._profile.replicas)
            nodes = replicas + chance.choice(self._profile.spares)
            if division.shards > 1:
                nodes = replicas + division.apart
            try:
                built = self._built(params)
            except ConfigError as error:
                # Words that contradict each other.
                reason = str(error)
                continue
            for copies, all_nodes in (
                (replicas, nodes),
                (replicas, replicas),
                (1, 1 + division.apart),
            ):
                # Of a shard's group nobody is spare.
                inside = copies if division.shards > 1 else all_nodes
                reason = self._plugin.implementation.validate(built, copies, inside)
                if reason is None and not self._carries(built, copies):
                    reason = f"{self._protocol} needs a linearizable protocol"
                if reason is None:
                    return copies, all_nodes, params
        raise ConfigError(f"no cluster of up to 5 replicas fits: {reason}", path="PROTOCOL")

    def _carries(self, built: Any, copies: int) -> bool:
        """Whether it may lie below what is simulated."""
        alone = self._layer is None and self._pattern is None
        return alone or self._linearizable(built, copies)

    def _linearizable(self, built: Any, copies: int) -> bool:
        context = ClaimContext(copies, True, "fsync", copies)
        return LINEARIZABLE in self._plugin.implementation.claims(built, context)

    def _built(self, params: Mapping[str, Any]) -> Any:
        """The typed parameters."""
        key = tuple(params.items())
        if self._last_built[0] != key:
            system = {"protocol": {"name": self._inner} | dict(params), "replicas": 1}
            built = load_mapping({"system": system}).system.params.protocol.params
            self._last_built = (key, built)
        return self._last_built[1]

    def _params(self) -> dict[str, Any]:
        """The protocol's; what is fixed is that of the layer or tier where there is one."""
        fixed = self._fixed if self._layer is None and self._pattern is None else {}
        return draw_parameters(self._chance, self._plugin, fixed, self._pace_ns)

    def _transactions(self) -> dict[str, Any]:
        if self._layer is None:
            return {}
        longest_ns = self._patience * self._pace_ns
        drawn = draw_parameters(self._chance, self._layer, self._fixed, longest_ns)
        return {"transactions": {"name": self._layer.name} | drawn}

    def _tier(self) -> dict[str, Any]:
        if self._pattern is None:
            return {}
        return {"tier": draw_tier(self._chance, self._pattern, self._fixed, self._pace_ns)}

    def _tier_faults(self, system: Mapping[str, Any], heal_ns: int) -> list[Fault]:
        if self._pattern is None:
            return []
        chance, stores = self._chance, system["nodes"] + self._watched
        times = draw_times(chance, self._pace_ns, heal_ns - self._pace_ns, chance.randint(0, 6))
        nodes = range(stores, stores + system["tier"]["nodes"])
        returning = system["node"]["storage"]["durability"] != "memory"
        return tier_faults(
            chance, nodes, system["nodes"], times, self._pace_ns, returning=returning
        )

    # --- the load -------------------------------------------------------------------------

    def _steps(
        self, keys: int, system: Mapping[str, Any], sticky: bool, heal_ns: int, final_ns: int
    ) -> list[Step]:
        chance = self._chance
        if self._layer is not None:
            calm_ns = CALM_PACES * self._pace_ns
            count = chance.randint(OPERATIONS_MIN + 40, 2 * OPERATIONS_MIN)
            # Parts that were left behind may be resolved only after twice the longest time-out.
            times = draw_times(chance, 0, final_ns - 2 * calm_ns, count)
            return list(transactional_steps(chance, times, keys, final_ns, calm_ns))
        reads, changes = self._kinds(system)
        levels = self._read_levels(system, sticky)
        weak_share = chance.choice((0.0, 0.3, 0.7)) if levels else 0.0
        write_share = chance.choice((0.3, 0.5, 0.7))

        def step(at_ns: int, key: int, kind: int) -> Step:
            level = ""
            if kind in reads and levels and chance.random() < weak_share:
                level = chance.choice(levels)
            return Step(at_ns, KIND_NAMES[kind], key, level)

        count = self._profile.rush * chance.randint(OPERATIONS_MIN + 40, 2 * OPERATIONS_MIN)
        # Quiet before the end: what a dense load has piled up is worked off by then.
        busy_ns = final_ns if self._profile.rush == 1 else heal_ns
        times = draw_times(chance, 0, busy_ns, count)
        steps = [
            step(
                at_ns,
                chance.randrange(keys),
                chance.choice(changes if chance.random() < write_share else reads),
            )
            for at_ns in times
        ]
        # By a stream of its own, so that all else is drawn as it is without.
        own = scalar_stream(self._seed, f"fuzz/{self._protocol}/comparing")
        if own.random() < comparing.SHARE and self._may_compare(system, sticky):
            steps = comparing.comparing(own, steps)
        # Keys that are not written again keep what the faults have done to them.
        fresh = [key for key in range(min(keys, 8)) if chance.random() < 0.5]
        final = [(key, changes[0]) for key in fresh]
        final += [(key, reads[0]) for _ in range(3 if keys <= 8 else 1) for key in range(keys)]
        gap_ns = max(FINAL_PACES * self._pace_ns // (len(final) + 1), self._pace_ns // 12)
        for number, (key, kind) in enumerate(final):
            at_ns = final_ns + number * gap_ns // STEP_NS * STEP_NS
            steps.append(Step(at_ns, KIND_NAMES[kind], key))
        return steps

    def _kinds(self, system: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """Kinds that read a key, and that change it."""
        served = self._plugin.implementation.kinds_of(self._built(_own(system)))
        if self._pattern is not None:
            served &= TIER_KINDS
        return [READ], [kind for kind in (WRITE, INCREMENT, ADD) if kind in served]

    def _may_compare(self, system: Mapping[str, Any], sticky: bool) -> bool:
        if self._pattern is not None or "moving" in system:
            return False
        params, context = self._built(_own(system)), self._context(system, sticky)
        return comparing.possible(self._plugin.implementation, params, context)

    def _context(self, system: Mapping[str, Any], sticky: bool) -> ClaimContext:
        durability = system["node"]["storage"]["durability"]
        nodes = system["nodes"] if self._division.shards == 1 else system["replicas"]
        return ClaimContext(
            system["replicas"], sticky, durability, nodes, durability != "memory", True
        )

    def _read_levels(self, system: Mapping[str, Any], sticky: bool) -> list[str]:
        if self._pattern is not None or "moving" in system:
            return []
        params = self._built(_own(system))
        context = self._context(system, sticky)
        offered = self._plugin.implementation.read_levels(params, context)
        local = LOCAL if system.get("shards", 1) > 1 else frozenset(LEVELS)
        return [level for level in LEVELS if level in offered and level in local]


def _own(system: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol's parameters in a configuration."""
    return {key: value for key, value in system["protocol"].items() if key != "name"}
