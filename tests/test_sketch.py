"""The sketch of recent accesses: never too low, rarely too high, halved in time."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.sketch import MOST, FrequencySketch

NEVER = 10**9


def counted(sketch: FrequencySketch, keys: list[bytes]) -> dict[bytes, int]:
    """What the sketch says of each key after accesses to all."""
    for key in keys:
        sketch.add(sketch.places(key))
    return {key: sketch.count(sketch.places(key)) for key in keys}


@given(st.lists(st.integers(0, 40).map(lambda key: b"%d" % key), max_size=200), st.integers(1, 50))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_a_count_is_never_too_low(keys: list[bytes], width: int) -> None:
    said = counted(FrequencySketch(width, NEVER), keys)
    for key, times in Counter(keys).items():
        assert said[key] >= min(times, MOST)


def test_counts_are_true_where_few_keys_share_many_cells() -> None:
    keys = [b"key%d" % (at % 100) for at in range(700)]
    assert counted(FrequencySketch(10_000, NEVER), keys) == dict.fromkeys(keys, 7)


def test_counts_end_at_fifteen() -> None:
    assert counted(FrequencySketch(8, NEVER), [b"a"] * 1000) == {b"a": 15}


def test_all_counts_are_halved_after_each_sample() -> None:
    sketch = FrequencySketch(1000, sample=12)
    assert counted(sketch, [b"a"] * 8 + [b"b"] * 3) == {b"a": 8, b"b": 3}
    assert counted(sketch, [b"c"]) == {b"c": 0}
    said = [sketch.count(sketch.places(key)) for key in (b"a", b"b")]
    assert said == [4, 1]
    counted(sketch, [b"a"] * 12)
    assert sketch.count(sketch.places(b"a")) == 7  # 15 at most, halved


def test_a_key_once_accessed_is_seldom_taken_for_another() -> None:
    """A key unknown to the sketch shares each of its cells with a known one by chance alone: with
    one known key for each cell of a row about (1 - 1/e)^4 = .16 of them, as if rows were
    independent.
    """
    sketch = FrequencySketch(5000, NEVER)
    counted(sketch, [b"known%d" % key for key in range(5000)])
    taken = sum(sketch.count(sketch.places(b"other%d" % key)) > 0 for key in range(5000))
    assert 0.13 < taken / 5000 < 0.19


def test_places_are_the_same_for_ever() -> None:
    """The CRC-32 of these digits is CBF43926; its products with the multipliers, by hand."""
    assert FrequencySketch(1000, NEVER).places(b"123456789") == (1164, 273, 3994, 1095)
