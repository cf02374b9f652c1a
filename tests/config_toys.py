"""Plug-ins and fields of every shape, there only for the tests of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.config.load import load_mapping
from orchestrator.config.schema import Config
from orchestrator.core import registry
from orchestrator.core.parameters import (
    Capacity,
    ParameterError,
    bandwidth,
    capacity,
    choice,
    duration,
    number,
    rate,
    size,
    slot,
    slots,
    text,
)
from orchestrator.core.registry import Family, Slot, register
from orchestrator.errors import ConfigError


@dataclass(frozen=True)
class CopyParams:
    mode: str = choice("sync", options=("sync", "async"))
    delay: int = duration("5ms")


@dataclass(frozen=True)
class VoteParams:
    delay: int = duration("50ms")
    heartbeat: int = duration("10ms", low="1us")

    def __post_init__(self) -> None:
        if self.heartbeat >= self.delay:
            raise ParameterError("heartbeat must be below delay")


@dataclass(frozen=True)
class Limits:
    most: int = number(8, low=1, high=64)
    shares: tuple[float, ...] = (0.5, 0.5)
    strict: bool = False

    def __post_init__(self) -> None:
        if sum(self.shares) != 1:
            raise ParameterError("the shares must add up to 1", key="shares")


@dataclass(frozen=True)
class Weight:
    weight: float = number(low=0.0, help="how much of it")


@dataclass(frozen=True)
class StoreParams:
    memory: int = size(help="of all nodes")
    protocol: Slot = slot(Family.PROTOCOL, {"name": "toy_copy"})
    cache: Slot | None = slot(Family.CACHE, None)
    replicas: int = number(1, low=1, high=9)
    bandwidth: float | None = bandwidth(None)
    title: str = text("", help="free text")
    level: str | None = choice(None, options=("strong", "weak"))
    limits: Limits = field(default_factory=lambda: Limits(most=16))
    steps: tuple[int, ...] = duration(("1ms", "2ms"), many=True)
    delay: Slot = slot(Family.DISTRIBUTION, {"name": "constant", "value": "1ms"})
    delays: dict[str, Slot] = slots(Family.DISTRIBUTION, keyed=True)
    parts: tuple[tuple[Weight, Slot], ...] = slots(Family.DISTRIBUTION, extra=Weight)
    codes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CacheParams:
    size: Capacity = capacity(100)


@dataclass(frozen=True)
class LoadParams:
    keys: int = number(1000, low=1)


@dataclass(frozen=True)
class OpenParams:
    rate: float = rate()


class Toy:
    """A toy"""


TOYS: tuple[tuple[Family, str, type[Any]], ...] = (
    (Family.SYSTEM, "toy_store", StoreParams),
    (Family.SYSTEM, "toy_empty", registry.NoParams),
    (Family.PROTOCOL, "toy_copy", CopyParams),
    (Family.PROTOCOL, "toy_vote", VoteParams),
    (Family.CACHE, "toy_cache", CacheParams),
    (Family.WORKLOAD, "toy_load", LoadParams),
    (Family.ARRIVAL, "toy_open", OpenParams),
    (Family.ARRIVAL, "toy_closed", registry.NoParams),
)


def put_toys() -> None:
    """Register them all."""
    for family, name, params in TOYS:
        register(family, name, params=params)(Toy)


BASE: dict[str, Any] = {
    "system": {"name": "toy_store", "memory": "96MiB"},
    "workload": {"name": "toy_load"},
    "arrival": {"name": "toy_open", "rate": "2000/s"},
}

SEARCH = {
    "arrival.rate": {"type": "float", "low": "500/s", "high": "20/ms", "log": True},
    "system.replicas": {"type": "int", "low": 1, "high": 7, "step": 2},
    "system.cache.size": {"type": "int", "low": "1024KiB", "high": "64MiB"},
    "system.delay": {"type": "float", "low": "0s", "high": "5000us"},
    "system.protocol.name": {"type": "categorical", "choices": ["toy_copy", "toy_vote"]},
    "system.protocol.heartbeat": {"type": "int", "low": "1ms", "high": "5ms", "step": "1ms"},
    "system.bandwidth": {"type": "categorical", "choices": [None, "1024MiB/s"]},
}

YAML = """\
experiment: kv
system:
  name: toy_store
  memory: 96MiB   # a comment
  protocol: {name: toy_copy, mode: async, delay: 7ms}
workload: {name: toy_load, keys: 1e5}
arrival: {name: toy_open, rate: 2/ms}
slo: {p99: 20ms, read: {p99: 5ms}}
"""


def remove_toys() -> None:
    """Leave no trace of them."""
    for family, name, _ in TOYS:
        del registry._plugins[family][name]


def make(*overrides: str) -> Config:
    """BASE under overrides."""
    return load_mapping(BASE, *overrides)


def system(*overrides: str) -> StoreParams:
    """The system's parameters of BASE under overrides."""
    params = make(*overrides).system.params
    assert isinstance(params, StoreParams)
    return params


def refused(*overrides: str) -> ConfigError:
    """What BASE under overrides is refused with."""
    with pytest.raises(ConfigError) as raised:
        make(*overrides)
    return raised.value
