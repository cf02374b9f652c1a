"""Units: exact both ways, and clear where a text is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import units
from orchestrator.core.parameters import FORMATTERS, PARSERS, Capacity

WHOLE = st.integers(0, units.LARGEST)
POSITIVE = st.floats(min_value=5e-324, max_value=2.0**62)


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("5ms", 5_000_000),
        ("1.5s", 1_500_000_000),
        (".5us", 500),
        ("250 us", 250_000),
        (" 3s ", 3_000_000_000),
        ("2min", 120_000_000_000),
        ("1h", 3_600_000_000_000),
        ("1e3ns", 1000),
        ("7\u00b5s", 7000),
        ("7\u03bcs", 7000),
        ("0", 0),
        (0, 0),
        ("-0s", 0),
        ("0.1s", 100_000_000),
        ("2.675ms", 2_675_000),
        # Above 2^53, where a float would drop the last digit.
        ("9007199254740993ns", 9_007_199_254_740_993),
        ("9223372036854775807ns", 2**63 - 1),
    ],
)
def test_durations(text: object, duration_ns: int) -> None:
    assert units.parse_duration_ns(text) == duration_ns


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("64MiB", 64 << 20),
        ("1.5KiB", 1536),
        ("1kB", 1000),
        ("1KB", 1000),
        ("2GB", 2 * 10**9),
        ("3TiB", 3 << 40),
        ("100B", 100),
        ("0", 0),
    ],
)
def test_sizes(text: object, size_bytes: int) -> None:
    assert units.parse_size_bytes(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "rate_per_s"),
    [("2000/s", 2000.0), ("2/ms", 2000.0), ("30/min", 0.5), ("36000/h", 10.0), ("1e4/s", 1e4)],
)
def test_rates(text: object, rate_per_s: float) -> None:
    assert units.parse_rate_per_s(text) == rate_per_s


@pytest.mark.parametrize(
    ("text", "bandwidth"), [("1GiB/s", 2.0**30), ("10MB/s", 1e7), ("0.5B/s", 0.5)]
)
def test_bandwidths(text: object, bandwidth: float) -> None:
    assert units.parse_bandwidth_bytes_per_s(text) == bandwidth


@pytest.mark.parametrize(
    ("text", "capacity"),
    [
        (10_000, Capacity(10_000, in_bytes=False)),
        (1e4, Capacity(10_000, in_bytes=False)),
        ("10000", Capacity(10_000, in_bytes=False)),
        ("64MiB", Capacity(64 << 20, in_bytes=True)),
        (Capacity(7, in_bytes=True), Capacity(7, in_bytes=True)),
    ],
)
def test_capacities_are_entries_or_bytes(text: object, capacity: Capacity) -> None:
    assert PARSERS["capacity"](text) == capacity


WRONG: list[tuple[str, object, str]] = [
    ("duration", "5", "has no unit of time; use one of ns, us, ms, s, min, h"),
    ("duration", 5, "has no unit of time"),
    ("duration", "5MB", "has no unit of time"),
    ("duration", "5MS", "has no unit of time"),
    ("duration", "-1ms", "is negative"),
    ("duration", "soon", "is not a quantity; write it like '5ms'"),
    ("duration", "", "is not a quantity"),
    ("duration", "1,5s", "is not a quantity"),
    ("duration", "nan", "is not a quantity"),
    ("duration", float("inf"), "is not a quantity"),
    ("duration", True, "is not a quantity"),
    ("duration", None, "is not a quantity"),
    ("duration", ["5ms"], "is not a quantity"),
    ("duration", "9223372036854775808ns", "is too large"),
    ("duration", "1e999s", "is too large"),
    ("duration", "1e999999999s", "is not a quantity"),
    ("size", "64", "has no unit of size"),
    ("size", "64MIB", "has no unit of size"),
    ("size", "64ms", "has no unit of size"),
    ("size", "-1B", "is negative"),
    ("rate", "2000", "is not a rate; write it like '2000/s'"),
    ("rate", "2000/day", "is not a rate"),
    ("rate", "5ms", "is not a rate"),
    ("rate", "0/s", "must be above 0"),
    ("rate", "-5/s", "must be above 0"),
    ("rate", "1e-999/s", "must be above 0"),
    ("rate", "9223372036854775807/s", "is too large"),
    ("bandwidth", "1GiB", "is not a bandwidth; write it like '1GiB/s'"),
    ("bandwidth", "5/s", "is not a bandwidth"),
    ("bandwidth", "0B/s", "must be above 0"),
    ("capacity", 0, "must be above 0"),
    ("capacity", -3, "must be above 0"),
    ("capacity", 1.5, "has no unit of size"),
    ("capacity", "0B", "must be above 0"),
    ("capacity", 2**63, "is too large"),
    ("capacity", True, "is not a quantity"),
]


@pytest.mark.parametrize(("kind", "text", "message"), WRONG)
def test_what_is_no_quantity_is_refused_in_words(kind: str, text: object, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        PARSERS[kind](text)
    assert message in str(raised.value)
    assert repr(text) in str(raised.value)


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (units.format_duration, 0, "0s"),
        (units.format_duration, 5_000_000, "5ms"),
        (units.format_duration, 1_500_000_000, "1.5s"),
        (units.format_duration, 1_234_567_000, "1234.567ms"),
        (units.format_duration, 1_234_567_891, "1234567.891us"),
        (units.format_duration, 999, "999ns"),
        (units.format_duration, 3_600_000_000_000, "3600s"),
        (units.format_size, 0, "0B"),
        (units.format_size, 64 << 20, "64MiB"),
        (units.format_size, 1536, "1.5KiB"),
        (units.format_size, 1000, "1000B"),
        (units.format_rate, 2000.0, "2000/s"),
        (units.format_rate, 0.1, "0.1/s"),
        (units.format_bandwidth, 2.0**30, "1GiB/s"),
        (units.format_bandwidth, 0.5, "0.5B/s"),
        (FORMATTERS["capacity"], Capacity(10_000, in_bytes=False), 10_000),
        (FORMATTERS["capacity"], Capacity(64 << 20, in_bytes=True), "64MiB"),
    ],
)
def test_values_show_in_their_shortest_exact_form(
    form: Callable[[Any], Any], value: Any, text: object
) -> None:
    assert form(value) == text


@given(WHOLE)
def test_a_duration_comes_back(duration_ns: int) -> None:
    assert units.parse_duration_ns(units.format_duration(duration_ns)) == duration_ns


@given(WHOLE)
def test_a_size_comes_back(size_bytes: int) -> None:
    assert units.parse_size_bytes(units.format_size(size_bytes)) == size_bytes


@given(POSITIVE)
def test_a_rate_comes_back(rate_per_s: float) -> None:
    assert units.parse_rate_per_s(units.format_rate(rate_per_s)) == rate_per_s


@given(POSITIVE)
def test_a_bandwidth_comes_back(bandwidth: float) -> None:
    text = units.format_bandwidth(bandwidth)
    assert units.parse_bandwidth_bytes_per_s(text) == bandwidth


@given(st.builds(Capacity, st.integers(1, units.LARGEST), st.booleans()))
def test_a_capacity_comes_back(capacity: Capacity) -> None:
    assert PARSERS["capacity"](FORMATTERS["capacity"](capacity)) == capacity


@given(st.sampled_from(sorted(PARSERS)), st.text() | st.integers() | st.floats() | st.none())
def test_a_parser_gives_a_value_or_a_value_error(kind: str, text: object) -> None:
    try:
        parsed = PARSERS[kind](text)
    except ValueError as error:
        assert repr(text) in str(error)
    else:
        assert PARSERS[kind](FORMATTERS[kind](parsed)) == parsed
