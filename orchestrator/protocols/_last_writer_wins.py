"""A key-value state whose entries come in any order: the newest version of each key wins.

Johnson and Thomas, "Maintenance of Duplicate Databases" (RFC 677, 1975).
"""

from __future__ import annotations

from orchestrator.core.machine import Entry, Op
from orchestrator.core.state import KeyValueState, Snapshot


class LastWriterWins(KeyValueState):
    """The newest version of each key, in whatever order they come."""

    __slots__ = ()

    def done(self, op: Op) -> int:
        """The version at which this write, or a later one of its session, took effect; or 0."""
        found = self._sessions.get(op.session)
        return found[1] if found is not None and found[0] >= op.sequence else 0

    def join(self, key: bytes, value: bytes, version: int) -> None:
        """Take the version in, if it is the newest."""
        entry = self.values.get(key)
        if entry is None:
            self._insert(key, Entry(value, version))
        elif self._wins(version, entry.version):
            entry.value = value
            entry.version = version

    def _wins(self, version: int, other: int) -> bool:
        return version > other

    def note(self, session: int, sequence: int, version: int) -> None:
        """Remember the session's last write."""
        found = self._sessions.get(session)
        if found is None or found[0] < sequence:
            self._sessions[session] = (sequence, version)

    def merge(self, snapshot: Snapshot) -> None:
        """Take a whole state in."""
        columns = (snapshot.keys, snapshot.values, snapshot.versions)
        for key, value, version in zip(*columns, strict=True):
            self.join(key, value, version)
        notes = (snapshot.sessions, snapshot.sequences, snapshot.took_effect_at)
        for session, sequence, version in zip(*notes, strict=True):
            self.note(session, sequence, version)
