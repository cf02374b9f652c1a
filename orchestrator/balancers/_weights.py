"""Weights of nodes, for balancers that share operations out unevenly."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.parameters import ParameterError, number


@dataclass(frozen=True)
class Weighted:
    """Parameters of a balancer with weights."""

    weights: tuple[float, ...] | None = number(
        None, low=1e-6, high=1e6, help="one for each node; null: all alike"
    )

    def of(self, nodes: int) -> tuple[float, ...]:
        """The weight of each node; ParameterError where there are not as many."""
        if self.weights is None:
            return (1.0,) * nodes
        if len(self.weights) != nodes:
            raise ParameterError(
                f"{len(self.weights)} weights for {nodes} nodes; each node needs one", key="weights"
            )
        return self.weights
