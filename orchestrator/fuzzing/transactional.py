"""The load of a simulated layer of transactions, and what may lie below it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from orchestrator.fuzzing.scenario import Step

CALM_PACES: Final = 4
"""Between two transactions that have to succeed."""


def transactional_steps(
    chance: random.Random, times: list[int], keys: int, final_ns: int, calm_ns: int
) -> Iterator[Step]:
    """Transactions over a few keys, all lists or all registers, and single reads.

    Those from ``final_ns`` on come one after the other, since one that meets another may fail.
    """
    # A register is read before it is written: the order of blind writes would not be known.
    appends = chance.random() < 0.75
    changing = [f"a{key}" if appends else f"r{key} w{key}" for key in range(keys)]
    reads = chance.choice((0.3, 0.5, 0.7))
    longest = chance.choice((2, 3, 4))
    for at_ns in times:
        key = chance.randrange(keys)
        if chance.random() < 0.2:
            yield Step(at_ns, "read", key)
            continue
        drawn = [chance.randrange(keys) for _ in range(chance.randint(1, longest))]
        parts = [f"r{each}" if chance.random() < reads else changing[each] for each in drawn]
        yield Step(at_ns, "txn", key, "", " ".join(parts))
    final = [f"{changing[key]} r{(key + 1) % keys}" for key in range(min(keys, 8))]
    final.append(" ".join(f"r{key}" for key in range(keys)))
    for number, text in enumerate(final):
        yield Step(final_ns + number * calm_ns, "txn", 0, "", text)
