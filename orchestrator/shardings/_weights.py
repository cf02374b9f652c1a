"""Weights of shards, for those that are to have more keys than others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.parameters import ParameterError, number


@dataclass(frozen=True)
class Weighted:
    """Parameters of a sharding with weights."""

    weights: tuple[float, ...] | None = number(
        None, low=1e-6, high=1e6, help="one for each shard; null: all alike"
    )

    def shares(self, shards: Sequence[int]) -> dict[int, float]:
        """The part of all keys that each of these shards is to have, in their order.

        Raises ParameterError where one has no weight.
        """
        weights = self.weights
        if weights is not None and max(shards) >= len(weights):
            raise ParameterError(
                f"shard {max(shards)} needs a weight, and {len(weights)} are given", key="weights"
            )
        own = {shard: 1.0 if weights is None else weights[shard] for shard in shards}
        total = sum(own.values())
        return {shard: weight / total for shard, weight in own.items()}
