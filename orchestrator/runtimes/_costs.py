"""The laws of what a node's work costs, with the random numbers that they are drawn from."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.distributions import Sampler, build
from orchestrator.core.machine import KIND_NAMES, READING
from orchestrator.core.randomness import block_stream
from orchestrator.core.registry import Slot
from orchestrator.systems.replicated_store import MODELLED, Node


@dataclass(frozen=True)
class Costs:
    """Samplers of one node, in ns; ``operation`` by kind of operation.

    Under measured costs (``modelled`` is False) none of them is drawn from. ``read_is_free``
    and ``write_is_free``: the storage takes no time for it.
    """

    modelled: bool
    operation: list[Sampler]
    message: Sampler
    storage_read: Sampler
    storage_write: Sampler
    read_is_free: bool
    write_is_free: bool

    @staticmethod
    def of(model: Node, seed: int, name: str) -> Costs:
        """Each law draws from a stream of its own below ``name``."""

        def sampler(law: Slot, what: str, speed: float = 1.0) -> Sampler:
            return Sampler(build(law), block_stream(seed, f"{name}/{what}"), 1 / speed)

        modelled = model.costs == MODELLED
        reading = sampler(model.cpu.read, "cpu/read", model.speed)
        writing = sampler(model.cpu.write, "cpu/write", model.speed)
        storage_read = sampler(model.storage.read, "storage/read")
        storage_write = sampler(model.storage.write, "storage/write")
        return Costs(
            modelled=modelled,
            operation=[reading if kind in READING else writing for kind in range(len(KIND_NAMES))],
            message=sampler(model.cpu.message, "cpu/message", model.speed),
            storage_read=storage_read,
            storage_write=storage_write,
            read_is_free=not modelled or storage_read.always_zero,
            write_is_free=not modelled or storage_write.always_zero,
        )
