"""What blocks runs beside the loop, in turn, and says how it ended."""

from __future__ import annotations

import asyncio
import functools
import threading
import time

from orchestrator.runtimes._blocking_calls import BlockingCalls


def test_calls_are_made_in_turn_by_another_thread_and_heard_of_in_the_loop() -> None:
    ran: list[tuple[int, bool]] = []
    heard: list[tuple[int, Exception | None]] = []

    async def main() -> None:
        calls, done = BlockingCalls(asyncio.get_running_loop()), asyncio.Event()
        loops_thread = threading.get_ident()

        def run(number: int) -> None:
            time.sleep(0.02 / (number + 1))
            ran.append((number, threading.get_ident() == loops_thread))

        def then(number: int, error: Exception | None) -> None:
            assert threading.get_ident() == loops_thread
            heard.append((number, error))
            if number == 2:
                done.set()

        for number in range(3):
            calls.call(functools.partial(run, number), functools.partial(then, number))
        assert heard == []
        await asyncio.wait_for(done.wait(), 10)
        assert calls.calls == 3
        calls.close()

    asyncio.run(main())
    assert ran == [(0, False), (1, False), (2, False)]
    assert heard == [(0, None), (1, None), (2, None)]


def test_what_fails_is_told_and_the_next_call_is_made_all_the_same() -> None:
    async def main() -> list[str]:
        calls, said = BlockingCalls(asyncio.get_running_loop()), asyncio.Queue[str]()

        def fail() -> None:
            raise OSError(5, "Input/output error")

        calls.call(fail, lambda error: said.put_nowait(str(error)))
        calls.call(lambda: None, lambda error: said.put_nowait(str(error)))
        heard = [await asyncio.wait_for(said.get(), 10) for _ in range(2)]
        calls.close()
        return heard

    assert asyncio.run(main()) == ["[Errno 5] Input/output error", "None"]


def test_closing_waits_for_what_is_under_way_and_leaves_no_thread() -> None:
    ended: list[bool] = []

    def slow() -> None:
        time.sleep(0.1)
        ended.append(True)

    async def main() -> None:
        calls = BlockingCalls(asyncio.get_running_loop())
        calls.close()
        calls.call(slow, lambda error: None)
        calls.close()
        assert ended == [True]
        assert not [each for each in threading.enumerate() if each.name == "disk"]

    asyncio.run(main())
