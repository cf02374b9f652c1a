"""Traces in libCacheSim's binary format oracleGeneral, plain or compressed with zstd.

A record has 24 bytes, little-endian: time in seconds (u32), object (u64), size in bytes (u32)
and the number of the next request for the object (i64, negative where none follows), which a
replay does not need. There is no header and no operation: all are reads. Source: the format's
definition in libCacheSim (traceReader/customizedReader/oracle).

All is done on whole columns: O(n log n) in the records, to number the objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.machine import READ
from orchestrator.core.units import NS_PER_S
from orchestrator.errors import DataError
from orchestrator.workloads._arrow import decompressed
from orchestrator.workloads._requests import (
    BACK_HINT,
    SIZE_HINT,
    SIZE_MAX,
    Requests,
    TraceParams,
    first_fall,
    nothing_in,
    time_back,
)

_RECORD: Final = numpy.dtype(
    [("time", "<u4"), ("object", "<u8"), ("size", "<u4"), ("next_access", "<i8")]
)
# A read takes room for all that it asks for, and a limit may be far beyond the end of the file.
_PORTION_BYTES: Final = 1 << 24


def read_oracle_general(file: BinaryIO, params: TraceParams) -> Requests:
    """The requests in an oracleGeneral file; compressed where its name ends in ``.zst``."""
    most = None if params.limit is None else params.limit * _RECORD.itemsize
    zstd = params.path.lower().endswith(".zst")
    portions = decompressed(file, _PORTION_BYTES, params.path) if zstd else _plain(file)
    data = bytearray()
    for portion in portions:
        data += portion
        if most is not None and len(data) >= most:
            del data[most:]
            break
    if not data:
        raise nothing_in(params.path)
    whole, rest = divmod(len(data), _RECORD.itemsize)
    if rest:
        raise DataError(
            f"the record is cut off: {rest} of {_RECORD.itemsize} bytes",
            path=f"{params.path}:{whole + 1}",
        )
    return _requests(numpy.frombuffer(data, _RECORD), params.path)


def _plain(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(_PORTION_BYTES):
        yield data


def _requests(records: NDArray[numpy.void], path: str) -> Requests:
    times = records["time"].astype(numpy.int64)
    fallen = first_fall(times)
    if fallen is not None:
        message = time_back(f"{times[fallen]} s", f"{times[fallen - 1]} s")
        raise DataError(message, path=f"{path}:{fallen + 1}", hint=BACK_HINT)
    sizes = records["size"]
    if sizes.max() > SIZE_MAX:
        index = int(numpy.argmax(sizes > SIZE_MAX))
        raise DataError(f"size {sizes[index]}", path=f"{path}:{index + 1}", hint=SIZE_HINT)
    # Keys are numbered as they first appear, as in every format.
    objects, first, key = numpy.unique(records["object"], return_index=True, return_inverse=True)
    order = numpy.argsort(first)
    rank = numpy.empty(len(order), dtype=numpy.int64)
    rank[order] = numpy.arange(len(order))
    return Requests(
        kind=numpy.full(len(records), READ, dtype=numpy.uint8),
        key=rank[key],
        size=sizes.astype(numpy.int32),
        time_ns=(times - times[0]) * NS_PER_S,
        key_names=[b"%d" % each for each in objects[order].tolist()],
    )
