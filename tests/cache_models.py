"""Cache policies again, as plain lists and as slow as they are short: what the real ones must do.

:class:`Model` has the rules of size, its subclasses the rules of one policy each.
"""

from __future__ import annotations

from collections.abc import Sequence

from cache_rig import FORGET


class Model:
    """Entries in the order in which they came, oldest first, each with its size."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.sizes: dict[int, int] = {}
        self.order: list[int] = []
        self.evictions = 0

    def feed(self, steps: Sequence[tuple[int, int]]) -> list[bool]:
        """Which steps hit; no step that forgets does."""
        return [self.step(key, size) for key, size in steps]

    def step(self, key: int, size: int) -> bool:
        """One access, or one key forgotten."""
        held = key in self.sizes
        if size == FORGET or size > self.amount:
            if held:
                self.leave(key)
                self.evictions += size != FORGET
            return False
        if held:
            self.hit(key)
            self.sizes[key] = size
            self.make_room(0)
        else:
            self.entering(key)
            self.make_room(size)
            self.sizes[key] = size
            self.entered(key)
        return held

    def make_room(self, size: int) -> None:
        """Victims leave until so much more fits."""
        while sum(self.sizes.values()) + size > self.amount:
            self.evict(self.victim())
            self.evictions += 1

    def evict(self, key: int) -> None:
        """It leaves for want of room."""
        self.leave(key)

    def leave(self, key: int) -> None:
        """It is forgotten or evicted."""
        del self.sizes[key]
        self.order.remove(key)

    def used(self, keys: Sequence[int]) -> int:
        """Room that some entries take."""
        return sum(self.sizes[key] for key in keys)

    def hit(self, key: int) -> None:
        """It was there."""

    def entering(self, key: int) -> None:
        """It is missing; nothing has left for it yet."""

    def entered(self, key: int) -> None:
        """It has its room."""
        self.order.append(key)

    def victim(self) -> int:
        """The entry that leaves next."""
        return self.order[0]


class Fifo(Model):
    """The oldest leaves."""


class Lru(Model):
    """A hit makes an entry the newest."""

    def hit(self, key: int) -> None:
        self.order.remove(key)
        self.order.append(key)


class Clock(Model):
    """One that was hit becomes the newest instead of leaving."""

    def __init__(self, amount: int, most: int = 1) -> None:
        super().__init__(amount)
        self.most = most
        self.counts: dict[int, int] = {}

    def hit(self, key: int) -> None:
        self.counts[key] = min(self.counts[key] + 1, self.most)

    def entered(self, key: int) -> None:
        super().entered(key)
        self.counts[key] = 0

    def victim(self) -> int:
        while self.counts[self.order[0]]:
            self.counts[self.order[0]] -= 1
            self.order.append(self.order.pop(0))
        return self.order[0]


class Sieve(Model):
    """A hand that walks over a list in which nothing moves."""

    def __init__(self, amount: int) -> None:
        super().__init__(amount)
        self.marked: set[int] = set()
        self.hand: int | None = None

    def hit(self, key: int) -> None:
        self.marked.add(key)

    def after(self, key: int) -> int | None:
        """The next newer entry."""
        at = self.order.index(key) + 1
        return self.order[at] if at < len(self.order) else None

    def leave(self, key: int) -> None:
        if key == self.hand:
            self.hand = self.after(key)
        self.marked.discard(key)
        super().leave(key)

    def victim(self) -> int:
        at = self.order[0] if self.hand is None else self.hand
        while at in self.marked:
            self.marked.remove(at)
            newer = self.after(at)
            at = self.order[0] if newer is None else newer
        self.hand = at
        return at


class Lfu(Lru):
    """The fewest accesses leave first, of equals the one accessed longest ago."""

    def __init__(self, amount: int) -> None:
        super().__init__(amount)
        self.counts: dict[int, int] = {}

    def hit(self, key: int) -> None:
        super().hit(key)
        self.counts[key] += 1

    def entered(self, key: int) -> None:
        super().entered(key)
        self.counts[key] = 1

    def victim(self) -> int:
        return min(self.order, key=lambda key: (self.counts[key], self.order.index(key)))


class Ghosts:
    """Keys that left, oldest first, within a room of their own."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.keys: list[tuple[int, int]] = []

    def __contains__(self, key: int) -> bool:
        return key in [ghost for ghost, _ in self.keys]

    def add(self, key: int, size: int) -> list[int]:
        """The ghosts that go for it."""
        self.keys.append((key, size))
        gone = []
        while sum(weight for _, weight in self.keys) > self.room:
            gone.append(self.keys.pop(0)[0])
        return gone

    def drop(self, key: int) -> bool:
        """Whether it was one."""
        known = key in self
        self.keys = [ghost for ghost in self.keys if ghost[0] != key]
        return known


class TwoQ(Model):
    """The order is that of the new entries, then that of the main ones."""

    def __init__(self, amount: int) -> None:
        super().__init__(amount)
        self.new: list[int] = []
        self.main: list[int] = []
        self.new_room = max(1, min(amount // 4, amount - 1))
        self.ghosts = Ghosts(amount // 2)
        self.known = False

    def hit(self, key: int) -> None:
        if key in self.main:
            self.main.remove(key)
            self.main.append(key)

    def entering(self, key: int) -> None:
        self.known = self.ghosts.drop(key)

    def entered(self, key: int) -> None:
        super().entered(key)
        (self.main if self.known else self.new).append(key)

    def victim(self) -> int:
        from_new = self.used(self.new) > self.new_room or not self.main
        return (self.new if from_new else self.main)[0]

    def leave(self, key: int) -> None:
        super().leave(key)
        (self.new if key in self.new else self.main).remove(key)

    def evict(self, key: int) -> None:
        if key in self.new:
            self.ghosts.add(key, self.sizes[key])
        super().evict(key)


class S3Fifo(Model):
    """Algorithm 1 of the paper, with counts that end at 3."""

    def __init__(self, amount: int) -> None:
        super().__init__(amount)
        self.small: list[int] = []
        self.main: list[int] = []
        self.small_room = max(1, min(amount // 10, amount - 1))
        self.ghosts = Ghosts(int(amount * 0.9))
        self.hits: dict[int, int] = {}
        self.known = False

    def hit(self, key: int) -> None:
        self.hits[key] = min(self.hits[key] + 1, 3)

    def entering(self, key: int) -> None:
        self.known = self.ghosts.drop(key)

    def entered(self, key: int) -> None:
        super().entered(key)
        self.hits[key] = 0
        early = not self.evictions and self.used(self.small) >= self.small_room
        (self.main if self.known or early else self.small).append(key)

    def victim(self) -> int:
        if self.used(self.main) <= self.amount - self.small_room:
            while self.small:
                if self.hits[self.small[0]] < 2:
                    return self.small[0]
                self.main.append(self.small.pop(0))
                self.hits[self.main[-1]] = 0
        while self.hits[self.main[0]]:
            self.hits[self.main[0]] -= 1
            self.main.append(self.main.pop(0))
        return self.main[0]

    def leave(self, key: int) -> None:
        super().leave(key)
        (self.small if key in self.small else self.main).remove(key)

    def evict(self, key: int) -> None:
        if key in self.small:
            self.ghosts.add(key, self.sizes[key])
        super().evict(key)


class Lirs(Model):
    """The stack and the queue of the paper, with as much room for ghosts as for entries."""

    def __init__(self, amount: int) -> None:
        super().__init__(amount)
        self.low: list[int] = []
        self.high: list[int] = []
        self.stack: list[int] = []
        self.low_room = amount - max(1, min(amount // 100, amount - 1))
        self.ghosts = Ghosts(amount)
        self.known = False

    def hit(self, key: int) -> None:
        on_stack = key in self.stack
        self.touch(key)
        if key in self.high:
            self.high.remove(key)
            (self.low if on_stack else self.high).append(key)
        self.settle()

    def make_room(self, size: int) -> None:
        self.settle()
        super().make_room(size)

    def touch(self, key: int) -> None:
        """Its key is the newest of the stack."""
        if key in self.stack:
            self.stack.remove(key)
        self.stack.append(key)

    def settle(self) -> None:
        """The oldest LIR entries become HIR while they are too many; the stack ends at one."""
        self.prune()
        while self.used(self.low) > self.low_room:
            self.lower()

    def lower(self) -> None:
        """The oldest LIR entry becomes HIR."""
        self.low.remove(self.stack[0])
        self.high.append(self.stack.pop(0))
        self.prune()

    def prune(self) -> None:
        """Whatever is below the oldest LIR entry goes."""
        while self.stack and self.stack[0] not in self.low:
            self.ghosts.drop(self.stack.pop(0))

    def entering(self, key: int) -> None:
        self.known = self.ghosts.drop(key)

    def entered(self, key: int) -> None:
        super().entered(key)
        low = self.known or self.used(self.low) + self.sizes[key] <= self.low_room
        (self.low if low else self.high).append(key)
        self.touch(key)
        self.settle()

    def victim(self) -> int:
        if not self.high:
            self.lower()
        return self.high[0]

    def evict(self, key: int) -> None:
        stack, ghosts = list(self.stack), self.ghosts
        gone = ghosts.add(key, self.sizes[key]) if key in stack else []
        self.order.remove(key)
        self.high.remove(key)
        del self.sizes[key]
        self.stack = [each for each in stack if each not in gone]

    def leave(self, key: int) -> None:
        super().leave(key)
        (self.low if key in self.low else self.high).remove(key)
        self.stack = [each for each in self.stack if each != key]
        self.prune()
