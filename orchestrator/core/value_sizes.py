"""How many bytes values have; a plug-in of the family ``value_size`` is a law over whole bytes.

**The size belongs to the key.** Whoever writes a key, and whenever, gives it as many bytes, and it
was preloaded with as many. So a read knows the weight of what it will find, which caches and
storage are charged with before anybody has looked, clients need not hear of each other's
writes, and the bytes that the keys take together stay what they are; a workload whose objects
grow and shrink is left to traces. The size of key i is the law's quantile at u(i), a hash of i
within (0, 1) that takes no seed: every run of a configuration has the same sizes. The hash is the
finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014, figure 17), and it makes a key's size independent of its popularity.

A law that has no largest value is cut: what lies above ``most`` is ``most`` bytes long.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final, Protocol

import numpy
from numpy.typing import NDArray

from orchestrator.core.history import VALUE_ID_BYTES
from orchestrator.core.parameters import ParameterError, number, size
from orchestrator.core.registry import Family, Slot, register
from orchestrator.core.units import format_size

VALUE_BYTES_MAX: Final = 1 << 30
DEFAULT: Final = "100B"
_TABLE_MAX: Final = 1 << 20
_LEAST: Final = f"{VALUE_ID_BYTES}B"

Floats = NDArray[numpy.float64]


class ValueSize(Protocol):
    """A law over the bytes of a value."""

    def __init__(self, params: Any) -> None: ...

    @property
    @abstractmethod
    def bounds_bytes(self) -> tuple[int, int]:
        """The fewest and the most that a value may have."""

    @abstractmethod
    def quantile(self, u: Floats) -> Floats:
        """Bytes below which a share u of the keys lies, for u within (0, 1); shape of ``u``.

        It is rounded to a whole number and cut at the bounds by whoever asks.
        """


@dataclass(frozen=True)
class ConstantParams:
    value: int = size(DEFAULT)


@register(Family.VALUE_SIZE, "constant", params=ConstantParams)
class Constant(ValueSize):
    """Every value has the same bytes."""

    def __init__(self, params: ConstantParams) -> None:
        self._value = params.value

    @property
    def bounds_bytes(self) -> tuple[int, int]:
        return self._value, self._value

    def quantile(self, u: Floats) -> Floats:
        return numpy.full(len(u), float(self._value))


@dataclass(frozen=True)
class RangeParams:
    most: int = size()
    least: int = size(_LEAST)

    def __post_init__(self) -> None:
        if self.most < self.least:
            raise ParameterError(
                f"{format_size(self.most)} is below least ({format_size(self.least)})", key="most"
            )


class _Range(ValueSize):
    """A law between two bounds that are given."""

    def __init__(self, params: RangeParams) -> None:
        self._least, self._most = params.least, params.most

    @property
    def bounds_bytes(self) -> tuple[int, int]:
        return self._least, self._most


@register(Family.VALUE_SIZE, "uniform", params=RangeParams)
class Uniform(_Range):
    """Any number of bytes between two bounds alike."""

    def quantile(self, u: Floats) -> Floats:
        # Half a byte around each whole number, so that the bounds are as likely as any other.
        return self._least - 0.5 + u * (self._most - self._least + 1)


@dataclass(frozen=True)
class ParetoParams(RangeParams):
    shape: float = number(1.0, low=0.01, high=100.0, help="tail exponent, alpha")


@register(Family.VALUE_SIZE, "pareto", params=ParetoParams)
class Pareto(_Range):
    """Heavy tailed between two bounds (bounded Pareto)."""

    def __init__(self, params: ParetoParams) -> None:
        super().__init__(params)
        self._shape = params.shape

    def quantile(self, u: Floats) -> Floats:
        above = 1 - (self._least / self._most) ** self._shape
        found: Floats = self._least * (1 - u * above) ** (-1 / self._shape)
        return found


@dataclass(frozen=True)
class LognormalParams:
    median: int = size()
    p99: int = size()
    most: int = size("1MiB", help="longer values are cut to it")

    def __post_init__(self) -> None:
        if self.median < VALUE_ID_BYTES:
            raise ParameterError(
                f"{self.median}B is below {_LEAST} (a value's identity)", key="median"
            )
        if self.p99 <= self.median:
            raise ParameterError(f"must be above median ({format_size(self.median)})", key="p99")
        if self.most < self.p99:
            raise ParameterError(
                f"{format_size(self.most)} is below p99 ({format_size(self.p99)})", key="most"
            )


@register(Family.VALUE_SIZE, "lognormal", params=LognormalParams)
class Lognormal(ValueSize):
    """Most values short and few long, given by the median and the 99th percentile."""

    def __init__(self, params: LognormalParams) -> None:
        self._params = params
        self._sigma = math.log(params.p99 / params.median) / NormalDist().inv_cdf(0.99)

    @property
    def bounds_bytes(self) -> tuple[int, int]:
        return VALUE_ID_BYTES, self._params.most

    def quantile(self, u: Floats) -> Floats:
        from scipy.special import ndtri

        found: Floats = self._params.median * numpy.exp(self._sigma * ndtri(u))
        return found


@dataclass(frozen=True)
class ZipfianParams(RangeParams):
    theta: float = number(0.99, low=0.0, high=10.0, help="skew")


@register(Family.VALUE_SIZE, "zipfian", params=ZipfianParams)
class Zipfian(_Range):
    """Short values most, by Zipf's law over the sizes, as YCSB's field lengths."""

    def __init__(self, params: ZipfianParams) -> None:
        super().__init__(params)
        sizes = params.most - params.least + 1
        if sizes > _TABLE_MAX:
            raise ParameterError(
                f"{sizes} sizes are too many for a table; at most {_TABLE_MAX}", key="most"
            )
        shares = numpy.arange(1, sizes + 1, dtype=numpy.float64) ** -params.theta
        self._reached = numpy.cumsum(shares) / shares.sum()

    def quantile(self, u: Floats) -> Floats:
        return self._least + numpy.searchsorted(self._reached, u).astype(numpy.float64)


@dataclass(frozen=True)
class Bin:
    size: int = size()
    weight: float = number(1.0, low=0.0)


@dataclass(frozen=True)
class HistogramParams:
    bins: tuple[Bin, ...] = ()

    def __post_init__(self) -> None:
        if not sum(each.weight for each in self.bins) > 0:
            raise ParameterError("at least one bin with a weight above 0 is needed", key="bins")


@register(Family.VALUE_SIZE, "histogram", params=HistogramParams)
class Histogram(ValueSize):
    """One of given sizes, by weight; weights need not add up to 1."""

    def __init__(self, params: HistogramParams) -> None:
        bins = [each for each in params.bins if each.weight > 0]
        weights = numpy.array([each.weight for each in bins])
        self._sizes = numpy.array([each.size for each in bins], dtype=numpy.float64)
        self._reached = numpy.cumsum(weights)[:-1] / weights.sum()

    @property
    def bounds_bytes(self) -> tuple[int, int]:
        return int(self._sizes.min()), int(self._sizes.max())

    def quantile(self, u: Floats) -> Floats:
        return self._sizes[numpy.searchsorted(self._reached, u, side="right")]


def key_share(key: NDArray[numpy.int64]) -> Floats:
    """A number within (0, 1) for each key index, the same always."""
    # From 1: the finaliser leaves 0 as it is, and key 0, which is often the hottest, would always
    # have the smallest value.
    mixed = (key.astype(numpy.uint64) + numpy.uint64(1)) * numpy.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> numpy.uint64(shift)
        mixed *= numpy.uint64(factor)
    mixed ^= mixed >> numpy.uint64(31)
    # 52 bits and a half, so that neither 0 nor 1 comes out.
    return ((mixed >> numpy.uint64(12)).astype(numpy.float64) + 0.5) * 2.0**-52


class KeySizes:
    """The bytes of each key's value.

    ``chosen`` is None for values of DEFAULT bytes. Raises ParameterError with key ``value_size``
    where a value could not hold its identity, or is too long.
    """

    def __init__(self, chosen: Slot | None) -> None:
        law = Constant(ConstantParams()) if chosen is None else _made(chosen)
        self._law = law
        self.least_bytes, self.most_bytes = law.bounds_bytes
        for bound in law.bounds_bytes:
            if not VALUE_ID_BYTES <= bound <= VALUE_BYTES_MAX:
                raise ParameterError(
                    f"{bound}B must be {VALUE_ID_BYTES}B (a value's identity) to 1GiB",
                    key="value_size",
                )

    @property
    def constant(self) -> bool:
        """Whether all keys have the same."""
        return self.least_bytes == self.most_bytes

    def of(self, key: NDArray[numpy.int64]) -> NDArray[numpy.int32]:
        """Bytes of the values of these keys, of the same shape."""
        if self.constant:
            return numpy.full(len(key), self.most_bytes, dtype=numpy.int32)
        bytes_ = numpy.rint(self._law.quantile(key_share(key)))
        return numpy.clip(bytes_, self.least_bytes, self.most_bytes).astype(numpy.int32)


def _made(chosen: Slot) -> ValueSize:
    try:
        law: ValueSize = chosen.implementation(chosen.params)
    except ParameterError as error:
        key = f"value_size.{error.key}" if error.key else "value_size"
        raise ParameterError(str(error), key=key) from None
    return law
