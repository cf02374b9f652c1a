"""The six core workloads of YCSB as mixes of reads, updates, inserts, scans and
read-modify-writes; and of compare-and-sets, which YCSB has not.

Source: Cooper, Silberstein, Tam, Ramakrishnan and Sears, "Benchmarking cloud serving systems
with YCSB", SoCC 2010, section 4 and table 2.

===  ==========================================  =================
mix  operations                                  published choice
===  ==========================================  =================
a    read .50, update .50                        zipfian
b    read .95, update .05                        zipfian
c    read 1                                      zipfian
d    read .95, insert .05                        latest
e    scan .95, insert .05                        zipfian
f    read .50, read-modify-write .50             zipfian
===  ==========================================  =================

``shares`` of one's own stand for the mix where they are given, with zipfian keys. Keys are picked
by a choice of the family ``key_choice``: ``distribution``, where it is given. With ``inserts``
above 0 that share of the operations, on top of the mix, writes keys that nobody writes again: what
becomes of each of them can be told in the end. With ``update: increment`` or ``add`` the updates
and inserts drive counters and sets.

A read-modify-write stores whatever came in between; ``compare_and_set`` is what a careful
application does instead: it reads, and stores only if the key still holds what was read, in two
operations of the history. One that finds another value is over with that answer.

What differs from YCSB, and why: ``zipfian`` is the true law over the preloaded keys with rank
r at key index r - 1 (see core.keys; YCSB scatters by a hash, under which ranks collide:
``ycsb_scrambled``). A record is one value of ``value_size``, which belongs to the key (see
core.value_sizes), instead of ten fields. ``latest`` is a zipfian distance from the newest key that
this client knows, its own inserts counting from the moment they are issued: clients share no
counter, so a client does not pick another client's inserts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.keys import (
    KEY_LENGTH,
    KEYS_MAX,
    KeyChoice,
    KeyRange,
    KeySpace,
    NumberedKeys,
    SizedKeyRange,
    inserted_key,
    key_choice,
    newest_first,
)
from orchestrator.core.load import ChunkedStream, OperationBlock
from orchestrator.core.machine import ADD, CAS, INCREMENT, READ, SCAN, WRITE, Preload
from orchestrator.core.models import CAS_REGISTER, COUNTER, REGISTER, SET
from orchestrator.core.parameters import ParameterError, check_shares, choice, number, slot
from orchestrator.core.randomness import block_stream
from orchestrator.core.registry import Family, Slot, register
from orchestrator.core.value_sizes import DEFAULT, KeySizes

ZIPFIAN: Final = "zipfian"
LATEST: Final = "latest"

_CHUNK = 8192


@dataclass(frozen=True)
class Mix:
    """Shares of the operations, which sum to 1."""

    read: float = number(0.0, low=0.0, high=1.0)
    update: float = number(0.0, low=0.0, high=1.0)
    insert: float = number(0.0, low=0.0, high=1.0)
    scan: float = number(0.0, low=0.0, high=1.0)
    read_modify_write: float = number(0.0, low=0.0, high=1.0)
    compare_and_set: float = number(0.0, low=0.0, high=1.0, help="of what was read before")

    @property
    def shares(self) -> list[float]:
        """In the order of the fields."""
        return [getattr(self, share.name) for share in fields(self)]

    def __post_init__(self) -> None:
        check_shares(self.shares)


MIXES: Final = {
    "a": Mix(read=0.5, update=0.5),
    "b": Mix(read=0.95, update=0.05),
    "c": Mix(read=1.0),
    "d": Mix(read=0.95, insert=0.05),
    "e": Mix(scan=0.95, insert=0.05),
    "f": Mix(read=0.5, read_modify_write=0.5),
}
PUBLISHED_CHOICES: Final = dict.fromkeys(MIXES, ZIPFIAN) | {"d": LATEST}

UPDATES: Final = {
    "write": (WRITE, REGISTER),
    "increment": (INCREMENT, COUNTER),
    "add": (ADD, SET),
}
"""What an update or insert may do: its kind of operation, and what it makes of the keys."""

# Positions among the shares of a Mix.
_INSERT = 2
_SCAN = 3
_FOLLOW_UPS: Final = numpy.array([READ, READ, READ, READ, WRITE, CAS], dtype=numpy.uint8)


@dataclass(frozen=True)
class YcsbParams:
    mix: str = choice("b", options=tuple(MIXES))
    shares: Mix | None = field(
        default=None, metadata={"help": "of operations, where it shall be no published mix"}
    )
    keys: int = number(100_000, low=1, high=KEYS_MAX, help="preloaded keys")
    distribution: Slot | None = slot(
        Family.KEYS, None, help="choice of keys, or its name; null: the one published for the mix"
    )
    theta: float = number(
        0.99, low=0.0, high=10.0, help="skew of zipfian and latest that have none of their own"
    )
    inserts: float = number(
        0.0, low=0.0, high=1.0, help="share of the operations that write a new key instead"
    )
    value_size: Slot = slot(
        Family.VALUE_SIZE,
        {"name": "constant", "value": DEFAULT},
        help="bytes of each key's value, or a law of them",
    )
    scan_length_max: int = number(100, low=1, high=1_000_000, help="lengths are uniform from 1")
    update: str = choice(
        "write",
        options=tuple(UPDATES),
        help="stores a value, increments a counter by 1, or adds an element to a set",
    )

    def __post_init__(self) -> None:
        mix = self.operations
        if self.update != "write" and (mix.scan or mix.read_modify_write or mix.compare_and_set):
            which = (
                f"mix {self.mix} scans or writes" if self.shares is None else "shares scan or write"
            )
            raise ParameterError(
                f"{which} back what it read, which only values allow", key="update"
            )
        KeySizes(self.value_size)
        self.choice_of(KeySpace(self.keys, self.theta))

    def choice_of(self, space: KeySpace) -> KeyChoice:
        """What picks a client's keys."""
        published = PUBLISHED_CHOICES[self.mix] if self.shares is None else ZIPFIAN
        return key_choice(self.distribution, published, space)

    @property
    def operations(self) -> Mix:
        """Shares of the operations before ``inserts``."""
        return MIXES[self.mix] if self.shares is None else self.shares


@register(Family.WORKLOAD, "ycsb", params=YcsbParams)
class Ycsb:
    """YCSB's core mixes a to f over zipfian, latest or other choices of keys."""

    def __init__(self, params: YcsbParams) -> None:
        self.total: int | None = None
        self._sizes = KeySizes(params.value_size)
        self.payload_bytes = self._sizes.most_bytes if self._sizes.constant else None
        compares = params.operations.compare_and_set > 0
        self.model = CAS_REGISTER if compares else UPDATES[params.update][1]
        self._params = params
        self._key_names = NumberedKeys(params.keys)

    @property
    def key_names(self) -> Sequence[bytes]:
        """Key index -> key, for preloaded and inserted indexes alike."""
        return self._key_names

    def preload(self) -> Preload:
        """All ``keys`` keys, never written."""
        if self.payload_bytes is None:
            return SizedKeyRange(self._params.keys, self._sizes)
        return KeyRange(self._params.keys, self.payload_bytes)

    def stream(self, seed: int, client: int, clients: int) -> YcsbStream:
        """Client ``client``'s endless operations, drawn from its own random stream."""
        return YcsbStream(self._params, seed, client, clients)


class YcsbStream(ChunkedStream):
    """One client's operations."""

    def __init__(self, params: YcsbParams, seed: int, client: int, clients: int) -> None:
        shares = [share * (1 - params.inserts) for share in params.operations.shares]
        shares[_INSERT] += params.inserts
        bounds = numpy.cumsum(shares)
        # Whatever the sum is in binary, nothing is drawn that has no share.
        bounds[numpy.flatnonzero(shares)[-1] :] = 1.0
        self._bounds = bounds[:-1]
        self._choice = params.choice_of(KeySpace(params.keys, params.theta, seed, client, clients))
        self.timed = self._choice.timed
        change = UPDATES[params.update][0]
        self._kinds = numpy.array([READ, change, change, SCAN, READ, READ], dtype=numpy.uint8)
        self._params = params
        self._client = client
        self._clients = clients
        self._chance = block_stream(seed, f"client/{client}/workload")
        self._sizes = KeySizes(params.value_size)
        self._inserts = 0
        super().__init__()

    def _draw(self) -> OperationBlock:
        params, chance = self._params, self._chance
        what = numpy.searchsorted(self._bounds, chance.random(_CHUNK), side="right")
        key = self._choice.draw(chance, _CHUNK)
        inserting = what == _INSERT
        known = self._inserts + numpy.cumsum(inserting)
        self._inserts = int(known[-1])
        place = (params.keys, self._client, self._clients)
        if self._choice.newest_first:
            key = newest_first(key, known, *place)
        key[inserting] = inserted_key(known[inserting] - 1, *place)
        count = numpy.ones(_CHUNK, dtype=numpy.int32)
        scanning = what == _SCAN
        scans = int(numpy.count_nonzero(scanning))
        if scans:
            count[scanning] = chance.integers(1, params.scan_length_max, scans, endpoint=True)
        return OperationBlock(
            kind=self._kinds[what],
            key=key,
            size=KEY_LENGTH + self._sizes.of(key),
            count=count,
            follow_up=_FOLLOW_UPS[what],
        )

    def at(self, block: OperationBlock, starts_ns: NDArray[numpy.int64]) -> OperationBlock:
        """With the keys that are chosen at these times; an insert's is new whenever it starts."""
        inserted = block.key >= self._params.keys
        key = numpy.where(inserted, block.key, self._choice.at(block.key, starts_ns))
        return replace(block, key=key, size=KEY_LENGTH + self._sizes.of(key))
