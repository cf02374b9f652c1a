"""Laws of durations as the queueing model needs them: mean, second moment, and draws.

Moments that have no closed form here, and minima and maxima of several durations, are means over
draws from a fixed stream, so that the same configuration always gives the same figures.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.distributions import Distribution, build
from orchestrator.core.randomness import block_stream
from orchestrator.core.registry import Slot
from orchestrator.core.units import NS_PER_S

Floats = NDArray[numpy.float64]

_DRAWS: Final = 1 << 16
_ORDERED: Final = 1 << 12


@dataclass(frozen=True)
class Law:
    """Of a duration in seconds: the distribution's, ``scale`` times as long."""

    slot: Slot
    scale: float = 1.0

    @property
    def mean(self) -> float:
        """Expectation; infinite where it does not exist."""
        return _distribution(self.slot).mean_ns * self.scale / NS_PER_S

    @property
    def second(self) -> float:
        """Second moment, as far as draws tell of a heavy tail."""
        return self.mean**2 * (1 + _cv2(self.slot))

    @property
    def constant(self) -> bool:
        """Whether every draw is the same."""
        low, high = _distribution(self.slot).bounds_ns
        return low == high

    def draw(self, name: str, shape: tuple[int, ...]) -> Floats:
        """Independent draws, those of a stream of this name."""
        if self.constant:
            return numpy.full(shape, self.mean)
        drawn = _block(self.slot, name, math.prod(shape)).reshape(shape)
        return numpy.asarray(drawn * (self.scale / NS_PER_S))

    def ordered(self) -> Floats:
        """A sample of the law, from the smallest."""
        return _ordered(self.slot) * (self.scale / NS_PER_S)


@functools.lru_cache(maxsize=128)
def uniform(name: str, shape: tuple[int, ...]) -> Floats:
    """Draws between 0 and 1, those of a stream of this name."""
    return block_stream(0, f"model/{name}").random(shape)


@functools.lru_cache(maxsize=128)
def exponential(name: str, shape: tuple[int, ...]) -> Floats:
    """Draws of mean 1, those of a stream of this name."""
    return block_stream(0, f"model/{name}").exponential(1.0, shape)


@functools.lru_cache(maxsize=128)
def _block(slot: Slot, name: str, count: int) -> Floats:
    return _distribution(slot).block(block_stream(0, f"model/{name}"), count)


@functools.lru_cache(maxsize=64)
def _ordered(slot: Slot) -> Floats:
    low, high = _distribution(slot).bounds_ns
    if low == high:
        return numpy.array([float(low)])
    return numpy.sort(_distribution(slot).block(block_stream(0, "model/ordered"), _ORDERED))


@functools.lru_cache(maxsize=256)
def _distribution(slot: Slot) -> Distribution:
    return build(slot)


@functools.lru_cache(maxsize=256)
def _cv2(slot: Slot) -> float:
    """Squared coefficient of variation."""
    low, high = _distribution(slot).bounds_ns
    if low == high:
        return 0.0
    drawn = _distribution(slot).block(block_stream(0, "model/moments"), _DRAWS)
    mean = float(drawn.mean())
    return float(drawn.var()) / mean**2 if mean else 0.0


def latest_of_earlier(ordered: Floats, rate: float, name: str, shape: tuple[int, ...]) -> Floats:
    """How long the last of all that began before is still under way, seen by one that begins now.

    Things begin at ``rate`` a second, and each takes a duration of the law that ``ordered`` is a
    sample of, from the smallest. None is left after x with probability
    exp(-rate E[max(0, duration - x)]), since those that are left are a Poisson number (Baccelli,
    Gelenbe and Plateau, "An End-to-End Approach to the Resequencing Problem", JACM 31(3), 1984). It
    is what a message waits for on a link that keeps order, and an effect behind the records that
    are being written.
    """
    if rate <= 0 or not ordered[-1]:
        return numpy.zeros(shape)
    # E[max(0, duration - x)] at each x of the sample, falling to 0 at the largest.
    beyond = numpy.cumsum((ordered - ordered[0])[::-1])[::-1] / len(ordered)
    above = numpy.arange(len(ordered), 0, -1) / len(ordered)
    excess = beyond - above * (ordered - ordered[0])
    # Below the smallest it goes on linearly, to the mean at 0.
    points = numpy.concatenate([[0.0], ordered])
    excess = numpy.concatenate([[float(ordered.mean())], excess])
    chance = exponential(name, shape) / rate
    return numpy.asarray(numpy.interp(chance, excess[::-1], points[::-1], right=0.0))


def nth(times: Floats, need: int) -> Floats:
    """The ``need``-th smallest of each row, from 1."""
    return numpy.asarray(numpy.partition(times, need - 1, axis=1)[:, need - 1])
