"""Kinds of operation between a layer and the groups of a protocol below it.

They lie above all kinds that clients may send, and below those that protocols keep for themselves.
A protocol that applies all changes in one order takes them as it takes writes, and hands them to
its state, whose answer goes back to who asked.
"""

from __future__ import annotations

from typing import Final

# Of transactions (core.transactions).
EXECUTE: Final = 240
PREPARE: Final = 241
DECIDE: Final = 242
FINISH: Final = 243
FORGET: Final = 244

# Of data that moves from one group to another (core.holdings).
FENCE: Final = 245
ADOPT: Final = 246
RELEASE: Final = 247

STEPS: Final = frozenset({EXECUTE, PREPARE, DECIDE, FINISH, FORGET, FENCE, ADOPT, RELEASE})

ALL_KEYS: Final = b""
"""Key of a step that concerns more than the key that it names."""
