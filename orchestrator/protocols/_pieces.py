"""States that are sent piece by piece, where one message might not hold them.

Whoever lacks a state asks for the piece that comes next, so one is under way at a time. Lost ones
are asked for again.
"""

from __future__ import annotations

from typing import Final

from orchestrator.core import portions

_PATIENCE: Final = 4  # looks without news before a piece is asked for again, at first
_PATIENCE_MAX: Final = 256
_IDLE_MAX: Final = 256  # looks without a question before an image is forgotten


class Image:
    """An encoded state; ``name`` tells it from the sender's other ones."""

    __slots__ = ("_data", "_idle", "name")

    def __init__(self, name: int, data: bytes) -> None:
        self.name = name
        self._data = data
        self._idle = 0

    @property
    def large(self) -> bool:
        """Whether it takes more than one piece, and has to be kept until the last has left."""
        return len(self._data) > portions.PORTION_BYTES

    def piece(self, offset: int) -> tuple[bytes, bool]:
        """What comes at ``offset``, and whether that is the end."""
        self._idle = 0
        stop = offset + portions.PORTION_BYTES
        return self._data[offset:stop], stop >= len(self._data)

    def idle(self) -> bool:
        """Asked at regular times: whether nobody seems to want more of it."""
        self._idle += 1
        return self._idle > _IDLE_MAX


class Arrival:
    """A state that is arriving. ``name``: whose, and which one of theirs; None: none is.

    ``asks``: the last piece that was added calls for an answer, since it fits or others before
    it are missing. One that was here before does not: each answer would bring a piece again.
    """

    def __init__(self) -> None:
        self.name: tuple[int, int] | None = None
        self.asks = False
        self._data = bytearray()
        self._quiet = 0
        self._patience = _PATIENCE

    def add(self, name: tuple[int, int], offset: int, data: bytes, last: bool) -> bytes | None:
        """Take a piece in; the state once it is whole."""
        if name != self.name:
            self.clear()
            self.name = name
        self.asks = offset >= self.size
        if offset != self.size:
            return None
        self._data += data
        self._quiet, self._patience = 0, _PATIENCE
        if not last:
            return None
        whole = bytes(self._data)
        self.clear()
        return whole

    def clear(self) -> None:
        """Forget what is here."""
        self.name = None
        self._data = bytearray()
        self._quiet, self._patience = 0, _PATIENCE

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return len(self._data)

    @property
    def stalled(self) -> bool:
        """Whether it has been asked for again and again, and nothing came."""
        return self._patience > 16 * _PATIENCE

    def overdue(self) -> bool:
        """Asked at regular times: whether to ask again; ever less often, as the way may be slow."""
        self._quiet += 1
        if self._quiet < self._patience:
            return False
        self._quiet = 0
        self._patience = min(2 * self._patience, _PATIENCE_MAX)
        return True
