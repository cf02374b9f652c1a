"""Each cache policy's own rules: against naive models, and one by one where they are special."""

from __future__ import annotations

import cache_models
import pytest
from cache_rig import feed, make, steps_of
from hypothesis import given, settings
from hypothesis import strategies as st

MODELS: dict[str, type[cache_models.Model]] = {
    "clock": cache_models.Clock,
    "fifo": cache_models.Fifo,
    "lfu": cache_models.Lfu,
    "lirs": cache_models.Lirs,
    "lru": cache_models.Lru,
    "s3fifo": cache_models.S3Fifo,
    "sieve": cache_models.Sieve,
    "ttl": cache_models.Lru,  # as long as nothing expires
    "two_q": cache_models.TwoQ,
}
compared = settings(max_examples=300, derandomize=True, deadline=None)


@pytest.mark.parametrize("name", sorted(MODELS))
@given(steps=steps_of(15), amount=st.integers(1, 40))
@compared
def test_changing_sizes_agree_with_a_naive_model(
    name: str, steps: list[tuple[int, int]], amount: int
) -> None:
    cache, model = make(name, f"{amount}B"), MODELS[name](amount)
    assert (feed(cache, steps), cache.evictions) == (model.feed(steps), model.evictions)


@pytest.mark.parametrize("name", sorted(MODELS))
@given(steps=st.lists(st.tuples(st.integers(0, 30), st.just(1)), max_size=300))
@compared
def test_many_entries_agree_with_a_naive_model(name: str, steps: list[tuple[int, int]]) -> None:
    cache, model = make(name, 12), MODELS[name](12)
    assert (feed(cache, steps), cache.evictions) == (model.feed(steps), model.evictions)
