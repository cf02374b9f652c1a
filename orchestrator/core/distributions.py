"""Distributions of delays and costs; every draw is an integer of nanoseconds, 0 or more.

Each is a plug-in of the family ``distribution`` whose parameters are durations. ``block``
draws n values at once; :class:`Sampler` hands them out one by one without a numpy call each,
rounded to the nanosecond (which moves a mean by at most half of one) and cut at
:data:`LONGEST_NS`. A law may have no finite mean; what is drawn from it is finite all the same.

Draws are independent, so the first of k answers is the minimum of k draws: mean / k for an
exponential law (Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013, is about the maximum).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import numpy
from numpy.typing import NDArray

from orchestrator.core.parameters import ParameterError, duration, number, slots
from orchestrator.core.registry import Family, Slot, register
from orchestrator.core.units import format_duration

LONGEST_NS = 1 << 62
"""No draw is longer (146 years), so that a sum with a time still fits 64 bits."""

_Z99 = 2.3263478740408408  # standard normal quantile of .99


class Distribution(Protocol):
    """A law over nanoseconds."""

    def __init__(self, params: Any) -> None: ...

    @property
    @abstractmethod
    def mean_ns(self) -> float:
        """Expectation; infinite where it does not exist."""

    @property
    def bounds_ns(self) -> tuple[float, float]:
        """The least and the most that a draw may be."""
        return 0.0, math.inf

    @abstractmethod
    def block(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.float64]:
        """``count`` independent draws in nanoseconds, each 0 or more; shape ``(count,)``."""


@dataclass(frozen=True)
class ConstantParams:
    value: int = duration()


@register(Family.DISTRIBUTION, "constant", params=ConstantParams)
class Constant(Distribution):
    """Always the same."""

    def __init__(self, params: ConstantParams) -> None:
        self._value = params.value

    @property
    def mean_ns(self) -> float:
        return float(self._value)

    @property
    def bounds_ns(self) -> tuple[float, float]:
        return self._value, self._value

    def block(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.float64]:
        return numpy.full(count, float(self._value))


@dataclass(frozen=True)
class UniformParams:
    low: int = duration()
    high: int = duration()

    def __post_init__(self) -> None:
        if self.high < self.low:
            raise ParameterError(
                f"high ({format_duration(self.high)}) must not be below "
                f"low ({format_duration(self.low)})"
            )


@register(Family.DISTRIBUTION, "uniform", params=UniformParams)
class Uniform(Distribution):
    """Equally likely between two bounds."""

    def __init__(self, params: UniformParams) -> None:
        self._params = params

    @property
    def mean_ns(self) -> float:
        return (self._params.low + self._params.high) / 2

    @property
    def bounds_ns(self) -> tuple[float, float]:
        return self._params.low, self._params.high

    def block(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.float64]:
        return chance.uniform(self._params.low, self._params.high, count)


@dataclass(frozen=True)
class ExponentialParams:
    mean: int = duration()


@register(Family.DISTRIBUTION, "exponential", params=ExponentialParams)
class Exponential(Distribution):
    """Memoryless with a given mean."""

    def __init__(self, params: ExponentialParams) -> None:
        self._mean = params.mean

    @property
    def mean_ns(self) -> float:
        return float(self._mean)

    def block(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.float64]:
        return chance.exponential(self._mean, count)


@dataclass(frozen=True)
class LognormalParams:
    mean: int = duration()
    p99: int = duration()

    def __post_init__(self) -> None:
        given = f"mean {format_duration(self.mean)}, p99 {format_duration(self.p99)}"
        if self.mean <= 0 or self.p99 <= self.mean:
            raise ParameterError(f"mean must be above 0 and p99 above mean, not {given}")
        # p99 / mean = exp(z s - s^2 / 2) is largest at s = z.
        largest = math.exp(_Z99**2 / 2)
        if self.p99 > largest * self.mean:
            raise ParameterError(
                f"p99 is at most {largest:.2f} times the mean in a lognormal law, not {given}"
            )


@register(Family.DISTRIBUTION, "lognormal", params=LognormalParams)
class Lognormal(Distribution):
    """Skewed as storage and service times are, given by its mean and 99th percentile.

    Two lognormal laws have that mean and that percentile; this is the less skewed one, whose
    sigma is below 2.33.
    """

    def __init__(self, params: LognormalParams) -> None:
        ratio = math.log(params.p99 / params.mean)
        # Smaller root of s^2 / 2 - z s + ln(p99 / mean) = 0.
        self._sigma = _Z99 - math.sqrt(max(0.0, _Z99**2 - 2 * ratio))
        self._mu = math.log(params.mean) - self._sigma**2 / 2
        self._mean = params.mean

    @property
    def mean_ns(self) -> float:
        return float(self._mean)

    def block(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.float64]:
        return chance.lognormal(self._mu, self._sigma, count)


@dataclass(frozen=True)
class ParetoParams:
    scale: int = duration(help="smallest value, x_m")
    shape: float = number(low=0.01, help="tail exponent, alpha")

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ParameterError(f"scale must be above 0, not {format_duration(self.scale)}")


@register(Family.DISTRIBUTION, "pareto", params=ParetoParams)
class Pareto(Distribution):
    """Heavy tailed (Pareto type I): P(X > x) = (scale / x) ^ shape."""

    def __init__(self, params: ParetoParams) -> None:
        self._params = params

    @property
    def mean_ns(self) -> float:
        shape = self._params.shape
        return math.inf if shape <= 1 else shape * self._params.scale / (shape - 1)

    @property
    def bounds_ns(self) -> tuple[float, float]:
        return self._params.scale, math.inf

    def block(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.float64]:
        return self._params.scale * (1 + chance.pareto(self._params.shape, count))


@dataclass(frozen=True)
class MixturePart:
    weight: float = number(low=0.0)


@dataclass(frozen=True)
class MixtureParams:
    parts: tuple[tuple[MixturePart, Slot], ...] = slots(Family.DISTRIBUTION, extra=MixturePart)

    def __post_init__(self) -> None:
        weights = [part.weight for part, _ in self.parts]
        if any(not 0 <= weight < math.inf for weight in weights) or not sum(weights) > 0:
            raise ParameterError(
                "parts needs at least one part with a weight above 0 and none below, "
                f"not the weights {weights}"
            )


@register(Family.DISTRIBUTION, "mixture", params=MixtureParams)
class Mixture(Distribution):
    """One of several laws, drawn by weight; weights need not add up to 1."""

    def __init__(self, params: MixtureParams) -> None:
        weights = numpy.array([part.weight for part, _ in params.parts])
        self._weights = weights / weights.sum()
        self._laws = [build(chosen) for _, chosen in params.parts]

    @property
    def mean_ns(self) -> float:
        return float(
            sum(w * law.mean_ns for w, law in zip(self._weights, self._laws, strict=True) if w > 0)
        )

    @property
    def bounds_ns(self) -> tuple[float, float]:
        pairs = zip(self._weights, self._laws, strict=True)
        bounds = [law.bounds_ns for weight, law in pairs if weight > 0]
        return min(least for least, _ in bounds), max(most for _, most in bounds)

    def block(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.float64]:
        which = chance.choice(len(self._laws), count, p=self._weights)
        draws = numpy.empty(count)
        for index, law in enumerate(self._laws):
            chosen = which == index
            draws[chosen] = law.block(chance, int(chosen.sum()))
        return draws


@dataclass(frozen=True)
class EmpiricalParams:
    values: tuple[int, ...] = duration(many=1)

    def __post_init__(self) -> None:
        if not self.values:
            raise ParameterError("values must hold at least one duration")


@register(Family.DISTRIBUTION, "empirical", params=EmpiricalParams)
class Empirical(Distribution):
    """Drawn again from measured values, each equally likely."""

    def __init__(self, params: EmpiricalParams) -> None:
        self._values = numpy.array(params.values, dtype=numpy.float64)

    @property
    def mean_ns(self) -> float:
        return float(self._values.mean())

    @property
    def bounds_ns(self) -> tuple[float, float]:
        return float(self._values.min()), float(self._values.max())

    def block(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.float64]:
        return chance.choice(self._values, count)


def build(chosen: Slot) -> Distribution:
    """The law that a config slot describes."""
    law: Distribution = chosen.implementation(chosen.params)
    return law


class Sampler:
    """Draws one by one from blocks; a law that never varies costs no draw at all. All are times
    ``factor``.

    Blocks grow to ``BLOCK`` draws: a run has a sampler for every link and most are little used.
    """

    __slots__ = ("_block", "_chance", "_constant", "_factor", "_law", "_next")

    BLOCK = 4096
    FIRST_BLOCK = 64

    def __init__(
        self, law: Distribution, chance: numpy.random.Generator, factor: float = 1.0
    ) -> None:
        self._law = law
        self._factor = factor
        self._chance = chance
        # Draws are 0 or more, so a law with mean 0 yields nothing else.
        fixed = isinstance(law, Constant) or law.mean_ns == 0
        self._constant = round(law.mean_ns * factor) if fixed else -1
        self._block: list[int] = []
        self._next = 0

    def draw_ns(self) -> int:
        """The next draw, 0 to LONGEST_NS."""
        if self._constant >= 0:
            return self._constant
        if self._next == len(self._block):
            count = min(max(2 * self._next, self.FIRST_BLOCK), self.BLOCK)
            # Cut before the cast: an integer cannot hold what a heavy tail may draw.
            whole = numpy.rint(self._law.block(self._chance, count) * self._factor)
            draws = numpy.clip(whole, 0, LONGEST_NS)
            self._block = draws.astype(numpy.int64).tolist()
            self._next = 0
        value = self._block[self._next]
        self._next += 1
        return value

    @property
    def is_constant(self) -> bool:
        """True where every draw is the same."""
        return self._constant >= 0

    @property
    def always_zero(self) -> bool:
        """True where no draw can ever be above 0."""
        return self._constant == 0
