"""Small traces in every format, and what was read from them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from orchestrator.errors import DataError
from orchestrator.workloads.trace import Columns, Requests, TraceParams, read_requests


def told(requests: Requests) -> list[tuple[Any, ...]]:
    """(time in ns, key, kind, size) of each request."""
    count = len(requests)
    times = [None] * count if requests.time_ns is None else requests.time_ns.tolist()
    sizes = [None] * count if requests.size is None else requests.size.tolist()
    keys = [requests.key_names[key] for key in requests.key.tolist()]
    return list(zip(times, keys, requests.kind.tolist(), sizes, strict=True))


def refused(path: Path, *, columns: Columns | None = None, **params: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read_requests(TraceParams(str(path), columns or Columns(), **params))
    return caught.value


def records(rows: Sequence[tuple[int, int, int, int]]) -> bytes:
    """In oracleGeneral: time in seconds, object, size, next access."""
    return b"".join(struct.pack("<IQIq", *row) for row in rows)


def zstd(content: bytes) -> bytes:
    """Compressed."""
    compressed: bytes = pyarrow.Codec("zstd").compress(content).to_pybytes()
    return compressed
