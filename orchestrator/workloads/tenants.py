"""Several tenants of one system, each with a workload of its own and a share of the operations.

Each operation is drawn for one of the tenants by their shares, and is that tenant's next one.
Tenants share no key: those of tenant ``gold`` are ``gold/`` and then what its own workload calls
them. Of T tenants the index of tenant t's key i is i T + t, so that an index says whose it is,
however many keys are inserted. In key order one tenant's keys end where the next one's begin, and
a scan that comes to the end of them runs on, as it would in a store that knows of no tenants.

Figures by tenant stand beside those of all (``tenants`` in the result), and each may have bounds
(``slo.tenants``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, overload

import numpy
from numpy.typing import NDArray

from orchestrator.core.load import ChunkedStream, OperationBlock, OperationStream, Workload
from orchestrator.core.machine import Preload
from orchestrator.core.models import CAS_REGISTER, REGISTER, TXN
from orchestrator.core.parameters import ParameterError, check_shares, mapping, number, slot
from orchestrator.core.randomness import block_stream, derived_seed
from orchestrator.core.registry import Family, Slot, register

NAME: Final = "tenants"
_CHUNK: Final = 8192
_WORD: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Tenant:
    share: float = number(low=0.0, high=1.0, help="of all operations")
    workload: Slot = slot(Family.WORKLOAD, {"name": "ycsb"}, help="an endless one")


@dataclass(frozen=True)
class TenantsParams:
    tenants: dict[str, Tenant] = mapping("by name, with shares that add up to 1")

    def __post_init__(self) -> None:
        for name, tenant in self.tenants.items():
            if _WORD.fullmatch(name) is None:
                raise ParameterError(
                    f"{name!r} cannot name a tenant; use letters, digits, '_' and '-'", key=NAME
                )
            if tenant.share <= 0:
                raise ParameterError("must be above 0", key=f"{NAME}.{name}.share")
        check_shares((tenant.share for tenant in self.tenants.values()), key=NAME)
        models = {}
        for name, tenant in self.tenants.items():
            made = _made(tenant)
            if made.model == TXN or made.total is not None:
                raise ParameterError(
                    f"{tenant.workload.name!r} ends, or has transactions over several keys, and"
                    " cannot be a tenant's",
                    key=f"{NAME}.{name}.workload",
                )
            models[name] = made.model
        if _together(models.values()) is None:
            raise ParameterError(
                f"what the keys are must be the same for all tenants, not {models}", key=NAME
            )


def _together(models: Iterable[str]) -> str | None:
    """What all keys are where each tenant's are one of these; None where they do not go together.

    A register that nobody compares is one that may be compared.
    """
    different = dict.fromkeys(models)
    if len(different) == 1:
        return next(iter(different))
    return CAS_REGISTER if different.keys() == {REGISTER, CAS_REGISTER} else None


def _made(tenant: Tenant) -> Workload:
    made: Workload = tenant.workload.implementation(tenant.workload.params)
    return made


def tenants_of(workload: Slot | None) -> tuple[str, ...]:
    """The tenants of a configured workload in the order of their numbers; none of another one.

    None is the workload of a config that was made without the loader.
    """
    if workload is None or workload.name != NAME:
        return ()
    return tuple(workload.params.tenants)


@register(Family.WORKLOAD, NAME, params=TenantsParams)
class Tenants:
    """Several tenants with workloads, keys and figures of their own."""

    def __init__(self, params: TenantsParams) -> None:
        self.total: int | None = None
        # By tenant it may differ: what an entry's size leaves beside the key.
        self.payload_bytes: int | None = None
        self._params = params
        self._workloads = [_made(tenant) for tenant in params.tenants.values()]
        self._prefixes = [f"{name}/".encode() for name in params.tenants]
        self.model = _together(each.model for each in self._workloads) or REGISTER

    @property
    def key_names(self) -> Sequence[bytes]:
        """Key index -> key of whichever tenant."""
        return TenantKeys(self._prefixes, [each.key_names for each in self._workloads])

    def preload(self) -> Preload:
        """What all tenants preload."""
        return TenantPreload(self._prefixes, [each.preload() for each in self._workloads])

    def stream(self, seed: int, client: int, clients: int) -> TenantStream:
        """One client's operations of all tenants."""
        streams = [
            workload.stream(derived_seed(seed, f"tenant/{name}"), client, clients)
            for name, workload in zip(self._params.tenants, self._workloads, strict=True)
        ]
        shares = [tenant.share for tenant in self._params.tenants.values()]
        chance = block_stream(seed, f"client/{client}/tenants")
        return TenantStream(streams, shares, self._prefixes, chance)


class TenantStream(ChunkedStream):
    """One client's operations."""

    def __init__(
        self,
        streams: Sequence[OperationStream],
        shares: Sequence[float],
        prefixes: Sequence[bytes],
        chance: numpy.random.Generator,
    ) -> None:
        self._streams = streams
        self._bounds = numpy.cumsum(shares)[:-1]
        self._longer = numpy.array([len(prefix) for prefix in prefixes], dtype=numpy.int32)
        self._chance = chance
        self.timed = any(isinstance(each, ChunkedStream) and each.timed for each in streams)
        super().__init__()

    def _draw(self) -> OperationBlock:
        whose = numpy.searchsorted(self._bounds, self._chance.random(_CHUNK), side="right")
        parts, order = [], []
        for tenant, stream in enumerate(self._streams):
            rows = numpy.flatnonzero(whose == tenant)
            if len(rows):
                parts.append(self._renamed(stream.block(len(rows)), tenant))
                order.append(rows)
        # Where each drawn operation stands among the parts, which are one tenant after the other.
        places = numpy.argsort(numpy.concatenate(order), kind="stable")
        return OperationBlock.concatenate(parts).select(places)

    def _renamed(self, block: OperationBlock, tenant: int) -> OperationBlock:
        """A tenant's operations on its keys as all tenants number them."""
        key = block.key * len(self._streams) + tenant
        return replace(block, key=key, size=block.size + self._longer[tenant])

    def at(self, block: OperationBlock, starts_ns: NDArray[numpy.int64]) -> OperationBlock:
        """With the keys that the tenants' workloads choose at these times."""
        whose = block.key % len(self._streams)
        key, size = block.key.copy(), block.size.copy()
        for tenant, stream in enumerate(self._streams):
            if isinstance(stream, ChunkedStream) and stream.timed:
                rows = numpy.flatnonzero(whose == tenant)
                mine = block.select(rows)
                own = replace(
                    mine,
                    key=mine.key // len(self._streams),
                    size=mine.size - self._longer[tenant],
                )
                moved = self._renamed(stream.at(own, starts_ns[rows]), tenant)
                key[rows], size[rows] = moved.key, moved.size
        return replace(block, key=key, size=size)


class TenantKeys(Sequence[bytes]):
    """Key index -> key; indexes beyond the length name inserted keys and are valid."""

    def __init__(self, prefixes: Sequence[bytes], names: Sequence[Sequence[bytes]]) -> None:
        self._prefixes = prefixes
        self._names = names

    def __len__(self) -> int:
        return len(self._names) * max(map(len, self._names))

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[item] for item in range(*index.indices(len(self)))]
        own, tenant = divmod(index, len(self._names))
        return self._prefixes[tenant] + self._names[tenant][own]

    def __iter__(self) -> Iterator[bytes]:
        return map(self.__getitem__, range(len(self)))


class TenantPreload:
    """What several tenants preload."""

    def __init__(self, prefixes: Sequence[bytes], preloads: Sequence[Preload]) -> None:
        self._parts = dict(sorted(zip(prefixes, preloads, strict=True), key=lambda pair: pair[0]))

    def get(self, key: bytes) -> bytes | None:
        """The preloaded value of a key, None where there is none."""
        prefix, slash, own = key.partition(b"/")
        part = self._parts.get(prefix + slash)
        return None if part is None else part.get(own)

    def keys_from(self, start: bytes, count: int) -> Sequence[bytes]:
        """Up to ``count`` preloaded keys at or after ``start`` in key order."""
        found: list[bytes] = []
        for prefix, part in self._parts.items():
            inside = start.startswith(prefix)
            if (inside or start <= prefix) and len(found) < count:
                first = start[len(prefix) :] if inside else b""
                found += [prefix + own for own in part.keys_from(first, count - len(found))]
        return found
