"""Human units in configs, integers inside.

A duration is an ``int`` of nanoseconds (``5ms``), a size an ``int`` of bytes (``64MiB``), a
rate a ``float`` per second (``2000/s``), a bandwidth a ``float`` of bytes per second
(``1GiB/s``). Parsing is exact (no binary fraction comes in before the last rounding), and
``parse(format(x)) == x`` for every value. Parsing raises :class:`ValueError` with the list of
units; whoever knows the config path turns that into a
:class:`~orchestrator.errors.ConfigError`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

LARGEST: Final = 2**63 - 1
"""The largest quantity of any kind: what a signed 64-bit column holds (292 years of ns)."""

_DURATION_NS = {
    "ns": 1,
    "us": NS_PER_US,
    "ms": NS_PER_MS,
    "s": NS_PER_S,
    "min": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
}
_SIZE_BYTES = {
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_RATE_PER_S = {
    "s": Fraction(1),
    "min": Fraction(1, 60),
    "h": Fraction(1, 3600),
    "ms": Fraction(1000),
}
# Both characters that look like a mu: the micro sign and the Greek letter.
_MICRO = re.compile("[\u00b5\u03bc]")
# Three digits of exponent say everything and keep the exact arithmetic small.
_QUANTITY = re.compile(
    r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?)\s*([a-z/]*)\s*", re.ASCII | re.IGNORECASE
)


def _split(text: object, example: str, units: str) -> tuple[Fraction, str]:
    if not isinstance(text, bool) and isinstance(text, (int, float, str)):
        match = _QUANTITY.fullmatch(_MICRO.sub("u", str(text)))
        if match is not None:
            return Fraction(match.group(1)), match.group(2)
    raise ValueError(f"{text!r} is not a quantity; write it like {example!r} (units: {units})")


def _whole(text: object, number: Fraction, scale: int, what: str) -> int:
    if number < 0:
        raise ValueError(f"{text!r} is negative; a {what} is 0 or more")
    if number * scale > LARGEST:
        raise ValueError(f"{text!r} is too large; a {what} is below 2^63")
    return round(number * scale)


def _positive(text: object, value: Fraction, what: str) -> float:
    # Both ends are judged as floats: one may round to 0, the other to 2^63.
    rounded = float(min(value, Fraction(2**63)))
    if rounded <= 0:
        raise ValueError(f"{text!r} must be above 0")
    if rounded >= 2**63:
        raise ValueError(f"{text!r} is too large; a {what} is below 2^63")
    return rounded


def parse_duration_ns(text: object) -> int:
    """``"5ms"`` -> 5_000_000. A bare ``0`` needs no unit. Negative values are refused."""
    units = ", ".join(_DURATION_NS)
    number, unit = _split(text, "5ms", units)
    if unit == "" and number == 0:
        return 0
    if unit not in _DURATION_NS:
        raise ValueError(f"{text!r} has no unit of time; use one of {units}")
    return _whole(text, number, _DURATION_NS[unit], "duration")


def parse_size_bytes(text: object) -> int:
    """``"64MiB"`` -> 67_108_864. A bare ``0`` needs no unit. Negative values are refused."""
    units = ", ".join(_SIZE_BYTES)
    number, unit = _split(text, "64MiB", units)
    if unit == "" and number == 0:
        return 0
    if unit not in _SIZE_BYTES:
        raise ValueError(f"{text!r} has no unit of size; use one of {units}")
    return _whole(text, number, _SIZE_BYTES[unit], "size")


def parse_rate_per_s(text: object) -> float:
    """``"2000/s"`` -> 2000.0; the rate is above 0."""
    units = ", ".join(f"/{unit}" for unit in _RATE_PER_S)
    number, unit = _split(text, "2000/s", units)
    if not unit.startswith("/") or unit[1:] not in _RATE_PER_S:
        raise ValueError(f"{text!r} is not a rate; write it like '2000/s' (units: {units})")
    return _positive(text, number * _RATE_PER_S[unit[1:]], "rate")


def parse_bandwidth_bytes_per_s(text: object) -> float:
    """``"1GiB/s"`` -> 1073741824.0; the bandwidth is above 0."""
    units = ", ".join(f"{unit}/s" for unit in _SIZE_BYTES)
    number, unit = _split(text, "1GiB/s", units)
    if not unit.endswith("/s") or unit[:-2] not in _SIZE_BYTES:
        raise ValueError(f"{text!r} is not a bandwidth; write it like '1GiB/s' (units: {units})")
    return _positive(text, number * _SIZE_BYTES[unit[:-2]], "bandwidth")


def _shortest(value: int, scales: dict[str, int], ladder: tuple[str, ...]) -> str:
    """In the largest unit of ``ladder`` that needs at most three decimals; always exact."""
    for unit in ladder:
        scale = scales[unit]
        if value >= scale and value * 1000 % scale == 0:
            whole, thousandths = divmod(value * 1000 // scale, 1000)
            return f"{whole}.{thousandths:03d}".rstrip("0").rstrip(".") + unit
    return f"{value}{ladder[-1]}"


def format_duration(duration_ns: int) -> str:
    """5_000_000 -> ``"5ms"``; parsing the text gives the same integer back."""
    if duration_ns == 0:
        return "0s"
    return _shortest(duration_ns, _DURATION_NS, ("s", "ms", "us", "ns"))


def format_size(size_bytes: int) -> str:
    """67_108_864 -> ``"64MiB"``; parsing the text gives the same integer back."""
    return _shortest(size_bytes, _SIZE_BYTES, ("TiB", "GiB", "MiB", "KiB", "B"))


def _float_text(value: float) -> str:
    """All digits that tell ``value`` from its neighbours, without a needless ``.0``."""
    return repr(value).removesuffix(".0")


def format_rate(rate_per_s: float) -> str:
    """2000.0 -> ``"2000/s"``; parsing the text gives the same float back."""
    return f"{_float_text(float(rate_per_s))}/s"


def format_bandwidth(bandwidth_bytes_per_s: float) -> str:
    """1073741824.0 -> ``"1GiB/s"``; parsing the text gives the same float back."""
    value = float(bandwidth_bytes_per_s)
    if value.is_integer():
        return f"{format_size(int(value))}/s"
    return f"{_float_text(value)}B/s"
