"""How much a leader has under way to a follower."""

from __future__ import annotations

from orchestrator.protocols._pipeline import IN_FLIGHT, IN_FLIGHT_FULL, Pipeline


def test_a_full_message_waits_for_nothing() -> None:
    pipeline = Pipeline(None, batch_max=16)
    assert pipeline.depth(waiting=15) == pipeline.in_flight == IN_FLIGHT
    assert pipeline.depth(waiting=16) == IN_FLIGHT_FULL


def test_without_a_bound_no_message_is_full() -> None:
    assert Pipeline(None, batch_max=0).depth(waiting=10**6) == IN_FLIGHT


def test_a_number_that_is_given_holds_for_all_messages() -> None:
    pipeline = Pipeline(2, batch_max=1)
    assert pipeline.depth(waiting=1) == pipeline.depth(waiting=100) == pipeline.in_flight == 2
