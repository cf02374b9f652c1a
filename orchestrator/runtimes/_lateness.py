"""How precisely this host ends short waits, as emulated delays need them."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from orchestrator.core.units import NS_PER_MS, NS_PER_S, NS_PER_US
from orchestrator.runtimes._clock import RealClock

WAIT_NS: Final = 200 * NS_PER_US
WAITS: Final = 500
WAIT_EVERY_NS: Final = NS_PER_MS


def timer_lateness_ns() -> list[int]:
    """How late emulated waits of 200 us end, at 1,000/s for half a second, ascending."""

    async def measure() -> list[int]:
        loop = asyncio.get_running_loop()
        clock = RealClock(loop, time.monotonic_ns())
        late_ns: list[int] = []
        over = loop.create_future()

        def rang(due_ns: int) -> None:
            late_ns.append(clock.now_ns() - due_ns)
            if len(late_ns) == WAITS:
                over.set_result(None)

        def begin(_: Any) -> None:
            due_ns = clock.now_ns() + WAIT_NS
            clock.at(due_ns, rang, due_ns)

        for number in range(1, WAITS + 1):
            clock.at(number * WAIT_EVERY_NS, begin, None)
        try:
            async with asyncio.timeout(10 * WAITS * WAIT_EVERY_NS / NS_PER_S):
                await over
        finally:
            clock.close()
        return sorted(late_ns)

    return asyncio.run(measure())
