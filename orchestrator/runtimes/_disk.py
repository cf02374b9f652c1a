"""A node's log on real disk: records behind each other, each with length and checksum.

A record that was cut off in writing (the process died) fails its checksum; reading stops
there and writing goes on from there.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec

_HEADER = struct.Struct("<II")


class RecordLog:
    """Append-only file of the records of one machine, decoded as ``record_type``."""

    def __init__(self, path: Path, record_type: Any) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(record_type)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._buffer: list[bytes] = []

    def recover(self) -> list[Any]:
        """All whole records, in order; a torn tail is cut off."""
        data = b""
        os.lseek(self._file, 0, os.SEEK_SET)
        while chunk := os.read(self._file, 1 << 20):
            data += chunk
        records, at = [], 0
        while at + _HEADER.size <= len(data):
            length, checksum = _HEADER.unpack_from(data, at)
            payload = data[at + _HEADER.size : at + _HEADER.size + length]
            if len(payload) < length or zlib.crc32(payload) != checksum:
                break
            records.append(self._decoder.decode(payload))
            at += _HEADER.size + length
        os.ftruncate(self._file, at)
        os.lseek(self._file, at, os.SEEK_SET)
        return records

    def append(self, record: Any) -> None:
        """Note a record; it reaches the file with the next :meth:`write`."""
        payload = self._encode(record)
        self._buffer.append(_HEADER.pack(len(payload), zlib.crc32(payload)))
        self._buffer.append(payload)

    def write(self) -> None:
        """Hand everything noted to the kernel."""
        if self._buffer:
            data = memoryview(b"".join(self._buffer))
            self._buffer.clear()
            while data:
                data = data[os.write(self._file, data) :]

    def sync(self) -> None:
        """Wait until what was written is on the disk; may run in another thread."""
        os.fdatasync(self._file)

    def close(self) -> None:
        self.write()
        os.close(self._file)
