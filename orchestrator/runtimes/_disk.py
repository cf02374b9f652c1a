"""A node's log on real disk: records behind each other, each with length and checksum.

A record that was cut off in writing (the process died) fails its checksum; reading stops
there and writing goes on from there. A record that replaces all others begins a new file beside
the old one, which takes its place once it is on the disk.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec

_HEADER = struct.Struct("<II")
# Appending, so that nothing can ever be written over a record that is not recovered yet.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class RecordLog:
    """Append-only file of the records of one machine, decoded as ``record_type``."""

    def __init__(self, path: Path, record_type: Any) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._path = path
        # Of a new file that has not taken the old one's place yet, else None.
        self._beside: Path | None = None
        self._superseded: list[int] = []
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(record_type)
        self._file = os.open(path, _FLAGS, 0o600)
        self._buffer: list[bytes] = []
        self.dirty = False

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
        return records

    def append(self, record: Any, replaces: bool = False) -> None:
        """Note a record; it reaches the file with the next :meth:`write`."""
        if replaces:
            self._begin_beside()
        payload = self._encode(record)
        self._buffer.append(_HEADER.pack(len(payload), zlib.crc32(payload)))
        self._buffer.append(payload)

    def write(self) -> None:
        """Hand everything noted to the kernel."""
        if self._buffer:
            data = memoryview(b"".join(self._buffer))
            self._buffer.clear()
            self.dirty = True
            while data:
                data = data[os.write(self._file, data) :]

    def _begin_beside(self) -> None:
        """What follows goes to an empty file; what only the buffer held is superseded."""
        self._buffer.clear()
        # Another thread may still be syncing it.
        self._superseded.append(self._file)
        self._beside = self._path.with_suffix(".new")
        self._file = os.open(self._beside, _FLAGS | os.O_TRUNC, 0o600)

    def sync(self) -> None:
        """Wait until what was written is on the disk; may run in another thread."""
        file, beside = self._file, self._beside
        if self.dirty:
            # First, since what is written from now on may come too late for this sync.
            self.dirty = False
            os.fdatasync(file)
        if beside is not None:
            self.settle(beside)

    def settle(self, beside: Path | None = None) -> None:
        """The new file takes the old one's place; ``beside``: only if it is still that one."""
        beside = beside or self._beside
        if beside is not None and self._beside is beside:
            os.replace(beside, self._path)
            self._beside = None
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.fsync(folder)
            os.close(folder)

    def close(self) -> None:
        self.write()
        self.settle()
        for file in self._superseded:
            os.close(file)
        os.close(self._file)


class GroupedLog:
    """One file for the records of each group, since a record replaces those of its group alone."""

    def __init__(self, path: Path, record_type: Any) -> None:
        self._path = path
        self._record_type = record_type
        self._logs: dict[int, RecordLog] = {}

    def _log(self, group: int) -> RecordLog:
        if group not in self._logs:
            # Endings after the number would be lost to the new file beside it.
            path = self._path.with_stem(f"{self._path.stem}-{group}") if group else self._path
            self._logs[group] = RecordLog(path, self._record_type)
        return self._logs[group]

    def recover(self) -> list[Any]:
        """All whole records, those of each group in order."""
        pattern = f"{self._path.stem}-*{self._path.suffix}"
        found = [path.stem.rpartition("-")[2] for path in self._path.parent.glob(pattern)]
        groups = [0, *sorted(int(number) for number in found)]
        return [record for group in groups for record in self._log(group).recover()]

    def append(self, record: Any, replaces: bool = False, group: int = 0) -> None:
        """Note a record; it reaches its file with the next :meth:`write`."""
        self._log(group).append(record, replaces)

    def write(self) -> None:
        """Hand everything noted to the kernel."""
        for log in self._logs.values():
            log.write()

    def sync(self) -> None:
        """Wait until what was written is on the disk; may run in another thread."""
        for log in list(self._logs.values()):
            log.sync()

    def settle(self) -> None:
        """New files take the old ones' places."""
        for log in self._logs.values():
            log.settle()

    def close(self) -> None:
        for log in self._logs.values():
            log.close()
