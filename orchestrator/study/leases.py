"""Who is measuring which trial: one file a trial in a folder that all drivers of a study share.

A driver holds a lease on each trial that it measures and touches the file every
:data:`BEAT_S`. A lease is alive while its driver is: on the same machine (same boot, same
process namespace) the process itself is looked at, so that a killed driver is known at once;
from another machine, and for a driver that hangs, a beat older than :data:`DEAD_S` counts as
death. Ages are differences of times that the file system itself gave, so the clocks of two
hosts need not agree.

:meth:`Leases.exclusive` is one lock for all drivers of the study. A trial is asked for and
leased, told and released, judged lost and given back only while it is held; so a trial that
runs without a lease has lost its driver, without any waiting. The kernel frees the lock of a
process that dies.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

BEAT_S: Final = 2.0
DEAD_S: Final = 20.0
"""Ten beats: a busy machine is late, a dead one is silent."""


class FileLock:
    """An exclusive lock of threads and processes on one file, freed by the kernel at death."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._threads = threading.Lock()
        self._descriptor = -1

    def acquire(self) -> bool:
        """Wait for the lock; always True."""
        self._threads.acquire()
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        """Give the lock back."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        self._threads.release()


def _boot() -> str:
    """Identity of the kernel and of the process namespace that process ids belong to."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def start_ticks(pid: int) -> int | None:
    """When a process started, in ticks since boot; None where it is dead.

    With the process id it names a process for good, since ids are used again.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold anything, so count from its end.
    words = text.rpartition(")")[2].split()
    return None if words[0] in "ZX" else int(words[19])


class Leases:
    """The leases of one study as one driver sees them; a context manager that beats.

    ``folder`` is made. Raises OSError where it cannot be written.
    """

    def __init__(self, folder: Path, *, beat_s: float = BEAT_S, dead_s: float = DEAD_S) -> None:
        self._folder = folder
        self._beat_s, self._dead_s = beat_s, dead_s
        folder.mkdir(parents=True, exist_ok=True)
        self._clock = folder / ".clock"
        self._lock = FileLock(folder / ".lock")
        self._boot = _boot()
        self._owner = {
            "driver": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "boot": self._boot,
            "pid": os.getpid(),
            "started_ticks": start_ticks(os.getpid()),
        }
        self._mine: set[int] = set()
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="leases", daemon=True)

    def __enter__(self) -> Self:
        self._beating.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._beating.join()
        # What could not be settled, on a full disk say, is nobody's from now on.
        with self.exclusive():
            for number in sorted(self._mine):
                if self.held(number):
                    self._path(number).unlink(missing_ok=True)
        self._mine.clear()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Alone among all drivers of the study; not reentrant."""
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def take(self, number: int) -> None:
        """Hold the lease of a trial from now on."""
        path = self._path(number)
        temporary = path.with_name(f".{path.name}.{self._owner['driver']}")
        temporary.write_text(json.dumps(self._owner), "utf-8")
        os.replace(temporary, path)
        self._mine.add(number)

    def release(self, number: int) -> None:
        """Give up a lease of ours, or clear away one that is dead."""
        self._mine.discard(number)
        self._path(number).unlink(missing_ok=True)

    def held(self, number: int) -> bool:
        """Whether the lease is ours: after a long stall another driver may have taken it."""
        owner = self._read(number)
        return owner is not None and owner.get("driver") == self._owner["driver"]

    def alive(self, number: int) -> bool:
        """Whether a living driver, this one or another, holds the lease."""
        owner = self._read(number)
        if owner is None:
            return False
        if owner.get("driver") == self._owner["driver"]:
            return True
        if owner.get("boot") == self._boot:
            started = start_ticks(int(owner.get("pid", 0)))
            if started is None or started != owner.get("started_ticks"):
                return False
        try:
            beat_s = self._path(number).stat().st_mtime
        except FileNotFoundError:
            return False
        return self._now_s() - beat_s <= self._dead_s

    def _path(self, number: int) -> Path:
        return self._folder / str(number)

    def _read(self, number: int) -> dict[str, Any] | None:
        try:
            owner = json.loads(self._path(number).read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return owner if isinstance(owner, dict) else None

    def _now_s(self) -> float:
        """The time as the file system tells it."""
        self._clock.touch()
        return self._clock.stat().st_mtime

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_s):
            for number in sorted(self._mine.copy()):
                # Released at this moment, or taken from us: then held() says so.
                with suppress(OSError):
                    os.utime(self._path(number))
