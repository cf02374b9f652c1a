"""Which keys exist, and which one an operation picks.

Keys are numbered: index i is the key ``user%012d``, so key order is index order. Popularity
follows the index: rank 1 is index 0. It is not scattered, because placement hashes the key
anyway and an unscattered law can be read off a histogram; YCSB's hashing would also distort it
(two ranks may share a key).

The Zipf law here is the true one over n keys, P(rank r) = r^-theta / zeta(n, theta), drawn
exactly by rejection-inversion (W. Hörmann and G. Derflinger, "Rejection-inversion to generate
variates from monotone discrete distributions", ACM TOMACS 6(3), 1996). It takes no table, and
at 100,000 keys it is already three times as fast as a search in one.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol, overload

import numpy
from numpy.typing import NDArray

from orchestrator.core.history import VALUE_ID_BYTES, encode_value
from orchestrator.core.parameters import ParameterError
from orchestrator.core.registry import Family, Slot, plugin
from orchestrator.core.value_sizes import KeySizes

KEY_LENGTH: Final = 16
KEYS_MAX: Final = 10**11
"""Leaves room for inserts before the index needs a thirteenth digit."""

_PREFIX: Final = b"user"
_KNOWN_MAX: Final = 65_536


def key_name(index: int) -> bytes:
    """The key of an index, KEY_LENGTH bytes for every index below 10^12."""
    return b"user%012d" % index


def preloaded_value(payload_bytes: int) -> bytes:
    """What a preloaded key holds: the identity of "never written", then padding."""
    return encode_value(0, 0, bytes(payload_bytes - VALUE_ID_BYTES))


class NumberedKeys(Sequence[bytes]):
    """Key index -> key, computed instead of stored.

    The length counts the preloaded keys; indexes beyond it name inserted keys and are valid.
    """

    __slots__ = ("_count",)

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [key_name(item) for item in range(*index.indices(self._count))]
        if index < 0:
            raise IndexError(f"key index {index} is negative")
        return key_name(index)

    def __iter__(self) -> Iterator[bytes]:
        return map(key_name, range(self._count))


class KeyRange:
    """The first ``count`` numbered keys, all with the same value: a preload that stores nothing.

    ``get`` is on the data path of every read of a key that was never written.
    """

    __slots__ = ("_end", "_names", "_value")

    def __init__(self, count: int, payload_bytes: int) -> None:
        self._names = NumberedKeys(count)
        self._end = key_name(count)
        self._value = preloaded_value(payload_bytes)

    def get(self, key: bytes) -> bytes | None:
        """The preloaded value; None for every key that is not one of the range."""
        # Names of one length compare as their numbers do: no need to parse the number.
        if len(key) == KEY_LENGTH and key[:4] == _PREFIX and key < self._end and key[4:].isdigit():
            return self._value
        return None

    def keys_from(self, start: bytes, count: int) -> Sequence[bytes]:
        """Up to ``count`` keys of the range at or after ``start`` in key order."""
        total = len(self._names)
        if self.get(start) is not None:
            first = int(start[len(_PREFIX) :])
        else:
            first = bisect_left(self._names, start, 0, total)
        return list(map(key_name, range(first, min(first + count, total))))


class SizedKeyRange(KeyRange):
    """The same with values whose sizes belong to the keys."""

    __slots__ = ("_known_bytes", "_sizes")

    def __init__(self, count: int, sizes: KeySizes) -> None:
        super().__init__(count, VALUE_ID_BYTES)
        self._sizes = sizes
        # Kept for a while: the law costs some microseconds for a single key.
        self._known_bytes: dict[bytes, int] = {}

    def get(self, key: bytes) -> bytes | None:
        """The preloaded value; None for every key that is not one of the range."""
        size = self._known_bytes.get(key)
        if size is None:
            if super().get(key) is None:
                return None
            size = int(self._sizes.of(numpy.array([int(key[len(_PREFIX) :])]))[0])
            if len(self._known_bytes) == _KNOWN_MAX:
                self._known_bytes.clear()
            self._known_bytes[key] = size
        return preloaded_value(size)


class NamedKeys:
    """A preload of given keys, all with the same value of ``payload_bytes``."""

    __slots__ = ("_known", "_sorted", "_value")

    def __init__(self, names: Iterable[bytes], payload_bytes: int) -> None:
        self._known = dict.fromkeys(names)
        self._sorted: list[bytes] | None = None
        self._value = preloaded_value(payload_bytes)

    def get(self, key: bytes) -> bytes | None:
        """The preloaded value; None for a key that was not given."""
        return self._value if key in self._known else None

    def keys_from(self, start: bytes, count: int) -> Sequence[bytes]:
        """Up to ``count`` of the keys at or after ``start`` in key order."""
        if self._sorted is None:
            self._sorted = sorted(self._known)
        first = bisect_left(self._sorted, start)
        return list(islice(self._sorted, first, first + count))


# --- laws of choice ---------------------------------------------------------------------


@dataclass(frozen=True)
class KeySpace:
    """Whose choice it is: ``keys`` keys, drawn from by client ``client`` of ``clients``.

    ``theta`` is the workload's skew, for laws that are not given one of their own. ``seed`` is
    the run's.
    """

    keys: int
    theta: float = 0.99
    seed: int = 0
    client: int = 0
    clients: int = 1


class KeyChoice(Protocol):
    """Which key an operation picks: a plug-in, one instance a client.

    A law that changes in the course of the run counts the operations of all clients as its own
    times their number, or looks at the operation's intended start; it is ``timed`` then, and
    for open arrivals alone.
    """

    newest_first: bool = False
    """What it draws are distances from the newest key, 0 for that one."""

    timed: bool = False
    """What it draws must go through ``at``."""

    def __init__(self, params: Any, space: KeySpace) -> None:
        """Raises ParameterError where the parameters do not fit the keys."""

    @abstractmethod
    def draw(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.int64]:
        """``count`` indexes below the number of keys."""

    def at(
        self, key: NDArray[numpy.int64], starts_ns: NDArray[numpy.int64]
    ) -> NDArray[numpy.int64]:
        """What ``key``, as drawn, is at these times; each operation passes here once, in order."""
        return key


def zeta(keys: int, theta: float) -> float:
    """Generalised harmonic number: the sum of r^-theta for r from 1 to ``keys``."""
    return float(numpy.sum(numpy.arange(1, keys + 1, dtype=numpy.float64) ** -theta))


class ZipfianChoice:
    """Index i has probability (i+1)^-theta / zeta(keys, theta); theta 0 is uniform, 1 classic.

    Rejection-inversion under the hat x^-theta: with H an integral of the hat and u uniform,
    rank k owns the stretch (H(k - 1/2), H(k + 1/2)] of u and keeps the last k^-theta of it,
    which by convexity is never more than the stretch. The first rank's stretch is cut to be
    kept whole.
    """

    def __init__(self, keys: int, theta: float) -> None:
        self._keys = keys
        self._theta = theta
        bounds = self._integral(numpy.array([1.5, keys + 0.5]))
        self._low = float(bounds[0]) - 1.0
        self._high = float(bounds[1])

    def _integral(self, x: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
        """H(x) = (x^(1-theta) - 1) / (1 - theta), in a form that is steady around theta 1."""
        exponent = 1.0 - self._theta
        if exponent == 0:
            return numpy.log(x)
        return numpy.expm1(exponent * numpy.log(x)) / exponent

    def _inverse(self, u: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
        exponent = 1.0 - self._theta
        if exponent == 0:
            return numpy.exp(u)
        return numpy.exp(numpy.log1p(exponent * u) / exponent)

    def _accepted(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.int64]:
        u = chance.uniform(self._low, self._high, count)
        rank = numpy.clip(numpy.rint(self._inverse(u)), 1, self._keys)
        kept = u >= self._integral(rank + 0.5) - rank**-self._theta
        return rank[kept].astype(numpy.int64) - 1

    def draw(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.int64]:
        parts = [self._accepted(chance, count)]
        missing = count - len(parts[0])
        while missing > 0:
            parts.append(self._accepted(chance, missing))
            missing -= len(parts[-1])
        return numpy.concatenate(parts)


def key_choice(chosen: Slot | None, otherwise: str, space: KeySpace) -> KeyChoice:
    """The choice that a config's ``distribution`` describes; where it is None the one named.

    Raises ParameterError with that key.
    """
    if chosen is None:
        default = plugin(Family.KEYS, otherwise)
        chosen = Slot(Family.KEYS, default.name, default.params())
    try:
        made: KeyChoice = chosen.implementation(chosen.params, space)
    except ParameterError as error:
        raise ParameterError(str(error), key="distribution") from None
    return made


def inserted_key(
    ordinal: NDArray[numpy.int64], keys: int, client: int, clients: int
) -> NDArray[numpy.int64]:
    """Index of a client's insert number ``ordinal`` (from 0); clients never share one."""
    return keys + client + clients * ordinal


def newest_first(
    distance: NDArray[numpy.int64],
    inserts: NDArray[numpy.int64],
    keys: int,
    client: int,
    clients: int,
) -> NDArray[numpy.int64]:
    """The key ``distance`` steps older than the newest that the client knows.

    ``inserts``: how many keys the client itself had inserted by then; before those come the
    preloaded ones from the highest index down. ``distance`` is below ``keys``.
    """
    age = inserts - 1 - distance
    return numpy.where(age >= 0, inserted_key(age, keys, client, clients), keys + age)
