"""Transactions over several keys: reads beside appends to lists, or beside writes of registers.

Lists are what Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental
Observations" (VLDB 2020, section 3) recommend: every element is appended once, so a read shows
the whole order of the versions up to the one that it saw, and checking takes no search. Registers
are what most stores have; where two of them are written without being read their order is not
known, and a history may stay undecided.

Keys within a transaction are distinct as far as chance gives enough of them, so that hardly any
micro-operation only repeats another one. Nothing is there before the first transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.history import ELEMENT_BITS
from orchestrator.core.keys import (
    KEY_LENGTH,
    KEYS_MAX,
    KeyChoice,
    KeyRange,
    KeySpace,
    NumberedKeys,
    key_choice,
)
from orchestrator.core.load import ChunkedStream, OperationBlock
from orchestrator.core.machine import APPEND, READ, TRANSACTION, WRITE, Preload
from orchestrator.core.models import TXN
from orchestrator.core.parameters import ParameterError, choice, number, size, slot
from orchestrator.core.randomness import block_stream
from orchestrator.core.registry import Family, Slot, register

UNIFORM: Final = "uniform"
UPDATES: Final = {"append": APPEND, "write": WRITE}
_CHUNK: Final = 4096
_PATIENCE: Final = 16
"""Draws a key that may be lost on one that was drawn already."""
_VALUE_BYTES_MIN: Final = 9  # a mark and a name


@dataclass(frozen=True)
class TransactionsParams:
    keys: int = number(1000, low=1, high=KEYS_MAX)
    operations_min: int = number(1, low=1, high=1 << ELEMENT_BITS, help="per transaction")
    operations_max: int = number(4, low=1, high=1 << ELEMENT_BITS, help="per transaction")
    read_share: float = number(0.5, low=0.0, high=1.0, help="of micro-operations")
    update: str = choice(
        "append", options=tuple(UPDATES), help="appends to lists, or writes to registers"
    )
    distribution: Slot = slot(Family.KEYS, {"name": UNIFORM}, help="choice of keys, or its name")
    theta: float = number(0.99, low=0.0, high=10.0, help="skew of zipfian that has none of its own")
    value_size: int = size("9B", help="bytes of what a write to a register stores")

    def __post_init__(self) -> None:
        if self.operations_max < self.operations_min:
            raise ParameterError(
                f"{self.operations_max} is below operations_min", key="operations_max"
            )
        if self.value_size < _VALUE_BYTES_MIN:
            raise ParameterError(f"at least {_VALUE_BYTES_MIN}B", key="value_size")
        picked = self.choice_of(KeySpace(self.keys, self.theta))
        if picked.newest_first or picked.timed:
            why = (
                "keys by age need inserts" if picked.newest_first else "transactions have no times"
            )
            raise ParameterError(f"{why}; use another choice", key="distribution")

    def choice_of(self, space: KeySpace) -> KeyChoice:
        """What picks a client's keys; one that counts operations counts the keys drawn here, of
        which some are not used.
        """
        return key_choice(self.distribution, UNIFORM, space)


@register(Family.WORKLOAD, "transactions", params=TransactionsParams)
class Transactions:
    """Transactions of reads and appends, or reads and writes, over several keys."""

    model = TXN

    def __init__(self, params: TransactionsParams) -> None:
        self.total: int | None = None
        # A value is its mark and name, and then so many bytes more.
        self.payload_bytes = params.value_size - 1
        self._params = params
        self._key_names = NumberedKeys(params.keys)

    @property
    def key_names(self) -> Sequence[bytes]:
        """Key index -> key."""
        return self._key_names

    def preload(self) -> Preload:
        """Nothing."""
        return KeyRange(0, self.payload_bytes)

    def stream(self, seed: int, client: int, clients: int) -> TransactionStream:
        """Client ``client``'s endless transactions, drawn from its own random stream."""
        return TransactionStream(self._params, seed, client, clients)


class TransactionStream(ChunkedStream):
    """One client's transactions."""

    def __init__(self, params: TransactionsParams, seed: int, client: int, clients: int) -> None:
        self._params = params
        self._update = UPDATES[params.update]
        space = KeySpace(params.keys, params.theta, seed, client, clients)
        self._choice = params.choice_of(space)
        self._chance = block_stream(seed, f"client/{client}/workload")
        super().__init__()

    def _draw(self) -> OperationBlock:
        params, chance = self._params, self._chance
        low, high = params.operations_min, params.operations_max
        count = chance.integers(low, high, _CHUNK, endpoint=True).astype(numpy.int32)
        total = int(count.sum())
        reads = (chance.random(total) < params.read_share).tolist()
        keys = self._keys(count)
        steps = numpy.empty(_CHUNK, dtype=numpy.object_)
        at = 0
        for row, length in enumerate(count.tolist()):
            kinds = [READ if one else self._update for one in reads[at : at + length]]
            steps[row] = tuple(zip(kinds, keys[row], strict=True))
            at += length
        entry_bytes = KEY_LENGTH + params.value_size
        return OperationBlock(
            kind=numpy.full(_CHUNK, TRANSACTION, dtype=numpy.uint8),
            key=numpy.array([row[0] for row in keys], dtype=numpy.int64),
            size=count * numpy.int32(entry_bytes),
            count=count,
            follow_up=numpy.zeros(_CHUNK, dtype=numpy.uint8),
            steps=steps,
        )

    def _keys(self, count: NDArray[numpy.int32]) -> list[list[int]]:
        """The keys of each transaction, distinct where that does not take too many draws."""
        keys: list[list[int]] = []
        spare: Iterator[int] = iter(())
        for length in count.tolist():
            chosen: list[int] = []
            patience = _PATIENCE * length
            while len(chosen) < length:
                key = next(spare, None)
                if key is None:
                    spare = iter(self._choice.draw(self._chance, _CHUNK).tolist())
                elif patience <= 0 or key not in chosen:
                    chosen.append(key)
                else:
                    patience -= 1
            keys.append(chosen)
        return keys
