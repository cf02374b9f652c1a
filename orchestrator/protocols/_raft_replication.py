"""What Raft's leader sends to the others: appends, snapshots, and rounds of confirmation.

Section 5.3 of the paper that :mod:`orchestrator.protocols.raft` names, for the node that leads;
section 7 for who is behind what the leader's log still holds; section 6.4 of Ongaro's
dissertation for reads that wait until a majority has confirmed the leader.
"""

from __future__ import annotations

from orchestrator.core.machine import Effect, MachineContext, Mark, Send
from orchestrator.protocols._pipeline import Pipeline
from orchestrator.protocols._raft_election import NOBODY, Elections
from orchestrator.protocols._raft_log import Append, Image, Progress
from orchestrator.protocols._raft_reads import Confirmation, Reads
from orchestrator.protocols._raft_replica import Replica
from orchestrator.protocols._raft_snapshot import Installing, InstallSnapshot, encode


class Replicator(Replica):
    """A replica that brings its log to the others while it leads."""

    __slots__ = (
        "_batch_max",
        "_chunk_bytes",
        "_image",
        "_last_append",
        "_last_made_for",
        "_own",
        "_pipeline",
        "_rounds",
        "_term_start",
        "_voting",
    )

    def __init__(
        self,
        context: MachineContext,
        elections: Elections,
        snapshot_every: int | None,
        in_flight: int | None,
        chunk_bytes: int,
    ) -> None:
        super().__init__(context, elections, snapshot_every)
        self._batch_max = context.batch_max
        self._pipeline = Pipeline(in_flight, context.batch_max)
        self._chunk_bytes = chunk_bytes
        self._last_append = Append(0, 0, 0, 0, 0, 0, 0, False, [])
        self._last_made_for = (0, 0, 0, 0, 0, 0)
        self._image: Image | None = None
        # The members' copies, the own one among them where it counts.
        self._own = Progress(0, 1)
        self._voting: list[Progress] = []
        self._term_start = 0
        self._rounds = Confirmation(self._pipeline.in_flight, 0)

    def _track(self) -> None:
        """Follow the copies of all members; who is none any more still learns so."""
        members = self.members.current
        for member in members:
            if member != self._node and member not in self._progress:
                self._progress[member] = Progress(0, self.log.last + 1)
        self._voting = [
            self._own if member == self._node else self._progress[member] for member in members
        ]

    def _own_term_committed(self) -> bool:
        return self.commit >= self._term_start

    # --- appends --------------------------------------------------------------------------

    def _replicate(self, effects: list[Effect]) -> None:
        last, depth = self.log.last, self._pipeline.depth
        for peer, progress in self._progress.items():
            while progress.next <= last and progress.room(depth(last - progress.next + 1)):
                self._send_append(peer, progress, effects)

    def _send_append(self, peer: int, progress: Progress, effects: list[Effect]) -> None:
        log, members, number = self.log, self.members, self._rounds.number
        prev_index = progress.next - 1
        if prev_index < log.base:
            self._send_chunk(peer, progress, effects)
            return
        # Followers in step get one message object, which a runtime need encode only once.
        made_for = (prev_index, log.last, self.commit, log.base, self.term, number)
        message = self._last_append
        if made_for != self._last_made_for:
            entries_term, ops = log.run_from(progress.next, self._batch_max)
            message = self._last_append = Append(
                self.term,
                prev_index,
                log.term_at(prev_index),
                self.commit,
                log.base,
                number,
                entries_term,
                members.index > prev_index and members.within(prev_index, prev_index + len(ops)),
                ops,
            )
            self._last_made_for = made_for
        effects.append(Send(peer, message, overlap=True))
        progress.told = number
        if message.ops:
            progress.next += len(message.ops)
            progress.window.append(progress.next - 1)

    def _answered(
        self, progress: Progress, number: int, now_ns: int, effects: list[Effect]
    ) -> None:
        """A node has answered a message of that round; it followed this leader then."""
        if number > progress.confirmed:
            progress.confirmed = number
            if self._rounds.open:
                self._confirm(now_ns, effects)

    # --- reads that wait for a round ------------------------------------------------------

    def _strong_reads(self, reads: Reads, now_ns: int, effects: list[Effect]) -> None:
        if self._own_term_committed() and self._rounds.leased(now_ns):
            self._serve(reads, effects)
        else:
            self._rounds.wait(reads)
            self._begin_round(now_ns, effects)

    def _begin_round(self, now_ns: int, effects: list[Effect]) -> bool:
        begun = self._rounds.begin_for_reads(now_ns)
        if begun:
            effects.append(Mark("read_index_round"))
        return begun

    def _spread_round(self, now_ns: int, effects: list[Effect]) -> None:
        """Send the number of the newest round to whom no append has brought it."""
        if not self._rounds.open:
            return
        number = self._rounds.number
        for member in self.members.current:
            progress = self._progress.get(member)
            if progress is not None and progress.told < number and progress.image is None:
                self._send_append(member, progress, effects)
        self._confirm(now_ns, effects)

    def _confirm(self, now_ns: int, effects: list[Effect]) -> None:
        """See which rounds a majority has answered."""
        self._own.confirmed = self._rounds.number
        answered = sorted([progress.confirmed for progress in self._voting], reverse=True)
        self._rounds.confirm(answered[self.members.majority - 1])
        self._serve_confirmed(now_ns, effects)

    def _serve_confirmed(self, now_ns: int, effects: list[Effect]) -> None:
        """Serve the reads whose round is over, and begin the next for those that came since.

        What earlier terms committed is known once an entry of the own term is committed.
        """
        if self._own_term_committed():
            self._serve(self._rounds.take(), effects)
            if self._begin_round(now_ns, effects):
                self._spread_round(now_ns, effects)

    def _serve(self, reads: Reads, effects: list[Effect]) -> None:
        for handle, op in reads:
            self._state.serve(handle, op, self.applied, effects)

    # --- snapshots for who is behind what the log still holds -----------------------------

    def _send_chunk(self, peer: int, progress: Progress, effects: list[Effect]) -> None:
        """The part of a snapshot that comes next there."""
        if progress.image is None:
            progress.install(self._newest_image())
        image = progress.image
        assert image is not None
        number = self._rounds.number
        start, stop = progress.offset, progress.offset + self._chunk_bytes
        data, last = image.data[start:stop], stop >= len(image.data)
        chunk = InstallSnapshot(self.term, image.index, image.term, number, start, data, last)
        effects.append(Send(peer, chunk, overlap=True))
        progress.told = number

    def _newest_image(self) -> Image:
        """The state as it is now, or as it was when the log still has all that follows."""
        image = self._image
        if image is None or image.index < self.log.base:
            index = self.applied
            image = self._image = Image(index, self.log.term_at(index), encode(self._contents()))
        return image

    def _installing(
        self, source: int, message: Installing, now_ns: int, effects: list[Effect]
    ) -> None:
        if message.term > self.term:
            self._follow(message.term, NOBODY, now_ns, effects)
        progress = self._progress.get(source)
        if progress is None or message.term < self.term:
            return
        progress.silent = 0
        image = progress.image
        if image is not None and image.index == message.index:
            advances = message.offset > progress.offset
            # Back it goes only with the next heartbeat: this may be an old answer.
            progress.offset = message.offset
            if advances:
                self._send_chunk(source, progress, effects)
        self._answered(progress, message.round, now_ns, effects)
