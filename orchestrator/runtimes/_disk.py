"""A node's log on real disk: records behind each other.

A record is ``length | checksum | payload``: two unsigned 32-bit numbers, little-endian, and
MessagePack. The checksum (CRC-32) covers the length, too, so that zeros are no record: a file
system may have made a file longer and not have written what belongs there.

A record that was cut off in writing (the process died, or its machine) fails its checksum;
reading stops there and writing goes on from there. That may be so behind what was synced alone:
a log that ends sooner is damaged, and whoever would go on with the rest would have forgotten
what it promised. A record that replaces all others begins a new file beside the old one, which
takes its place once it is on the disk.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
import threading
import zlib
from pathlib import Path
from typing import Any, Final

import msgspec

from orchestrator.core.record import LOST, EventRecord
from orchestrator.errors import LogDamaged
from orchestrator.runtimes._journal import Journal

LOG, BESIDE, MARKS = ".log", ".new", ".synced"
"""Endings of a log, of the file that is about to take its place, of what says how far they are."""
TORN_BYTES: Final = 64
HOLE_BYTES: Final = 4096
"""A torn piece is so long at most: of bytes that are none of ours, of zeros."""

_HEADER = struct.Struct("<II")
_MARK = struct.Struct("<QQ")
# Appending, so that nothing can ever be written over a record that is not recovered yet.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class SyncMarks:
    """How much of a log is synced, for whoever emulates the crash of its machine.

    Kept in a mapped file, which survives the process: a pair (inode, bytes) for the log and one
    for the file that is about to take its place.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(file, 2 * _MARK.size)
        self._map = mmap.mmap(file, 2 * _MARK.size)
        os.close(file)
        self._files = [_MARK.unpack_from(self._map, at)[0] for at in (0, _MARK.size)]

    def note(self, file: int, synced_bytes: int) -> None:
        """So much of the open file is on the disk; any thread may say so."""
        inode = os.fstat(file).st_ino
        with self._lock:
            if inode not in self._files:
                self._files = [*self._files[1:], inode]
                # The other one moves up, so both are there at any time.
                self._map[: _MARK.size] = self._map[_MARK.size :]
            at = self._files.index(inode) * _MARK.size
            _MARK.pack_into(self._map, at, inode, synced_bytes)

    def synced(self, file: int) -> int:
        """How many bytes of the open file are on the disk."""
        return self.read(self._path).get(os.fstat(file).st_ino, 0)

    def close(self) -> None:
        self._map.close()

    @staticmethod
    def read(path: Path) -> dict[int, int]:
        """Synced bytes by inode."""
        data = path.read_bytes() if path.exists() else b""
        return {inode: synced for inode, synced in _MARK.iter_unpack(data) if inode}


def cut_unsynced(folder: Path, chance: random.Random) -> None:
    """Leave of the logs in a folder what the crash of a machine does: all that was synced, and
    behind it a random piece of what was only written, whose end is torn: other bytes, or zeros.
    """
    for path in sorted((*folder.glob(f"*{LOG}"), *folder.glob(f"*{BESIDE}"))):
        found = path.stat()
        marks = SyncMarks.read(path.with_suffix(MARKS))
        synced = min(marks.get(found.st_ino, 0), found.st_size)
        kept = chance.randint(synced, found.st_size)
        with path.open("r+b") as file:
            file.truncate(kept)
            zeros = chance.random() < 0.5
            torn = chance.randint(0, min(kept - synced, HOLE_BYTES if zeros else TORN_BYTES))
            file.seek(kept - torn)
            file.write(bytes(torn) if zeros else chance.randbytes(torn))


def _sync_folder(folder: Path) -> None:
    """What was created or renamed in it is there after a crash of the machine, too."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fsync(file)
    os.close(file)


def _checksum(length: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(length))


class RecordLog:
    """Append-only file of the records of one machine, decoded as ``record_type``."""

    def __init__(self, path: Path, record_type: Any) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._path = path
        # Of a new file that has not taken the old one's place yet, else None.
        self._beside: Path | None = None
        self._superseded: list[int] = []
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(record_type)
        created = not path.exists()
        self._file = os.open(path, _FLAGS, 0o600)
        if created:
            _sync_folder(path.parent)
        self._size_bytes = os.fstat(self._file).st_size
        self._marks = SyncMarks(path.with_suffix(MARKS))
        self._buffer: list[bytes] = []
        self.dirty = False

    def recover(self) -> list[Any]:
        """All whole records, in order; a torn tail is cut off.

        Raises LogDamaged where what was synced is not there.
        """
        data = b""
        os.lseek(self._file, 0, os.SEEK_SET)
        while chunk := os.read(self._file, 1 << 20):
            data += chunk
        records, at = self._whole(data)
        synced = self._marks.synced(self._file)
        if at < synced:
            raise LogDamaged(
                f"the log {self._path} is damaged at byte {at}: {synced} bytes of it were synced",
                hint="the disk lost what it had said to hold; the node must not go on without it",
            )
        os.ftruncate(self._file, at)
        os.fdatasync(self._file)
        self._size_bytes = at
        self._marks.note(self._file, at)
        return records

    def _whole(self, data: bytes) -> tuple[list[Any], int]:
        """The records up to the first that is not whole, and where that begins."""
        records, at = [], 0
        while at + _HEADER.size <= len(data):
            length, checksum = _HEADER.unpack_from(data, at)
            payload = data[at + _HEADER.size : at + _HEADER.size + length]
            if len(payload) < length or _checksum(data[at : at + 4], payload) != checksum:
                break
            try:
                records.append(self._decoder.decode(payload))
            except msgspec.MsgspecError:
                break
            at += _HEADER.size + length
        return records, at

    def append(self, record: Any, replaces: bool = False) -> None:
        """Note a record; it reaches the file with the next :meth:`write`."""
        if replaces:
            self._begin_beside()
        payload = self._encode(record)
        length = len(payload).to_bytes(4, "little")
        checksum = _checksum(length, payload)
        self._buffer += (length, checksum.to_bytes(4, "little"), payload)

    def write(self) -> None:
        """Hand everything noted to the kernel."""
        if self._buffer:
            data = memoryview(b"".join(self._buffer))
            self._buffer.clear()
            self.dirty = True
            self._size_bytes += len(data)
            while data:
                data = data[os.write(self._file, data) :]

    def _begin_beside(self) -> None:
        """What follows goes to an empty file; what only the buffer held is superseded."""
        self._buffer.clear()
        # Another thread may still be syncing it.
        self._superseded.append(self._file)
        self._beside = self._path.with_suffix(BESIDE)
        self._file = os.open(self._beside, _FLAGS | os.O_TRUNC, 0o600)
        # An older file may have had the same number.
        self._marks.note(self._file, 0)
        self._size_bytes = 0

    def sync(self) -> None:
        """Wait until what was written is on the disk; may run in another thread."""
        file, beside, size_bytes = self._file, self._beside, self._size_bytes
        if self.dirty:
            # First, since what is written from now on may come too late for this sync.
            self.dirty = False
            os.fdatasync(file)
            self._marks.note(file, size_bytes)
        if beside is not None:
            self.settle(beside)

    def settle(self, beside: Path | None = None) -> None:
        """The new file takes the old one's place; ``beside``: only if it is still that one."""
        beside = beside or self._beside
        if beside is not None and self._beside is beside:
            os.replace(beside, self._path)
            self._beside = None
            _sync_folder(self._path.parent)

    def close(self) -> None:
        self.write()
        self.settle()
        for file in self._superseded:
            os.close(file)
        os.close(self._file)
        self._marks.close()


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


def recovered(log: GroupedLog | None, journal: Journal, node: int, now_ns: int) -> list[Any]:
    """What a node finds in its log; one that is damaged is told in the journal, too, so that the
    run knows of it whoever started the node.
    """
    try:
        return [] if log is None else log.recover()
    except LogDamaged as error:
        journal.note(EventRecord(now_ns, node, LOST, str(error)))
        raise
