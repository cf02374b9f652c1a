"""How a copy that lacks much catches up: on writes that are kept, or on the state.

A node outside the view asks the one that serves strong reads; a member is sent what it lacks by
the one before it. A state that does not fit into one message goes in pieces, each of which is
asked for; the writes that follow it are kept meanwhile.
"""

from __future__ import annotations

from abc import abstractmethod

import msgspec

from orchestrator.core.machine import Effect, MachineContext, Mark, Send
from orchestrator.core.state import Snapshot
from orchestrator.protocols._order import (
    UNKNOWN_POSITION,
    UNPINNED,
    Continue,
    Fetch,
    Replicate,
    Transfer,
    Vow,
)
from orchestrator.protocols._pieces import Arrival, Image
from orchestrator.protocols._stream import SEND_MAX, Stream
from orchestrator.protocols._views import ViewParams

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Snapshot).decode


class CatchingUp(Stream):
    """A node that brings others up to date, or is brought so itself."""

    def __init__(
        self,
        context: MachineContext,
        params: ViewParams,
        resend_ns: int,
        keep: int,
        *,
        static: bool,
    ) -> None:
        super().__init__(context, params, resend_ns, keep, static=static)
        # Outside the view: whether it has caught up.
        self._ready = False
        # A state that others fetch, and from where they are to have it; one that arrives here.
        self._image: Image | None = None
        self._offsets: dict[int, int] = {}
        self._arrival = Arrival()

    @abstractmethod
    def _reader(self) -> int:
        """The member that serves strong reads, and from which nodes outside catch up."""

    @abstractmethod
    def _beat(self, now_ns: int, effects: list[Effect]) -> None:
        """Ask the authority for a lease, and tell it what is here."""

    # --- who is up to date ----------------------------------------------------------------

    def _fetch(self, source: int, message: Fetch, effects: list[Effect]) -> None:
        """Give a node outside what is committed."""
        order, epoch, position = self._order, message.epoch, message.position
        if not self._membership.member or self._node != self._reader():
            return
        if position < order.base:
            self._offsets.pop(source, None)
            self._send_state(source, effects)
            return
        ops = order.from_position(position, min(order.committed, position + SEND_MAX))
        effects.append(Send(source, Replicate(epoch, position + 1, order.committed, ops)))

    def _send_state(self, target: int, effects: list[Effect]) -> int:
        """The committed state, or the piece of it that comes next there; returns its position."""
        order, image = self._order, self._image
        if image is None or image.name < order.base:
            image = Image(order.committed, _encode(self._state.snapshot()))
            self._offsets.clear()
            if image.large:
                self._image, order.pinned = image, image.name
        self._send_piece(target, image, self._offsets.get(target, 0), effects)
        return image.name

    def _send_piece(self, target: int, image: Image, offset: int, effects: list[Effect]) -> None:
        data, last = image.piece(offset)
        epoch = self._membership.view.epoch
        effects.append(Send(target, Transfer(epoch, image.name, offset, data, last)))

    def _continue(self, source: int, message: Continue, effects: list[Effect]) -> None:
        """A node has a piece and wants the next."""
        image = self._image
        if image is not None and image.name == message.position:
            self._offsets[source] = message.offset
            if source in self._silent:
                self._silent[source] = 0
                self._at_last_resend.pop(source, None)
            self._send_piece(source, image, message.offset, effects)
        elif source not in self._silent and self._membership.member:
            # It has been forgotten. Members are sent another one when the resend timer rings.
            self._offsets.pop(source, None)
            self._send_state(source, effects)

    def _resend(self, effects: list[Effect]) -> None:
        self._age()
        super()._resend(effects)

    def _age(self) -> None:
        """Let go of a state that nobody fetches any more."""
        if self._image is not None and self._image.idle():
            self._forget_states()

    def _forget_states(self) -> None:
        """Begin anew with whatever is on its way from here or to here."""
        self._image, self._order.pinned = None, UNPINNED
        self._offsets.clear()
        self._arrival.clear()

    # --- who is not -----------------------------------------------------------------------

    def _ask_to_catch_up(self, effects: list[Effect]) -> None:
        order, epoch, reader = self._order, self._membership.view.epoch, self._reader()
        arrival = self._arrival
        if arrival.name is None:
            position = order.last if order.trusted else UNKNOWN_POSITION
            effects.append(Send(reader, Fetch(epoch, position)))
        elif arrival.overdue():
            effects.append(Send(reader, Continue(epoch, arrival.name[1], arrival.size)))

    def _catch_up(
        self, source: int, message: Replicate, now_ns: int, effects: list[Effect]
    ) -> None:
        order = self._order
        if source != self._reader() or not order.trusted or message.first > order.last + 1:
            return
        order.take(message, effects)
        self._learn(message.committed, effects)
        if order.last < message.committed:
            self._ask_to_catch_up(effects)
        elif not self._ready:
            self._ready = True
            self._beat(now_ns, effects)

    def _transfer(self, source: int, message: Transfer, now_ns: int, effects: list[Effect]) -> None:
        membership, order, arrival = self._membership, self._order, self._arrival
        member = membership.member
        if source != (self._upstream if member else self._reader()) or membership.sealed:
            return
        if message.position > order.last or not order.trusted:
            name = (source, message.position)
            whole = arrival.add(name, message.offset, message.data, message.last)
            if whole is None:
                if arrival.asks:
                    wanted = Continue(message.epoch, message.position, arrival.size)
                    effects.append(Send(source, wanted))
                return
            self._install(message.position, _decode(whole), effects)
        else:
            arrival.clear()
        if member:
            self._linked = True
            self._say_position(effects)
        else:
            self._ask_to_catch_up(effects)

    def _install(self, position: int, snapshot: Snapshot, effects: list[Effect]) -> None:
        """Hold that state, and nothing else."""
        self._order.install(position, snapshot, Vow(self._membership.view, False), effects)
        effects.append(Mark("snapshot_installed"))
        self._serve_waiting(effects)
        for target in self._downstream:
            self._through[target] = UNKNOWN_POSITION
            self._send_missing(target, effects)
        self._committed_more(effects)
