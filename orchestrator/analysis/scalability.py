"""Laws of scalability: throughput X of a system of size n (processors, nodes, clients).

* ``usl``: lambda n / (1 + sigma (n - 1) + kappa n (n - 1)) (Gunther, "Guerrilla Capacity Planning",
  2007, chapter 4)
* ``amdahl``: the same with kappa = 0 (Amdahl, AFIPS 1967)
* ``gustafson``: lambda (n - sigma (n - 1)) (Gustafson, CACM 31(5), 1988)

``lambda`` is the throughput of one, ``sigma`` the part that is serial (0 to 1), ``kappa`` what it
costs any two to agree (0 or more). With kappa above 0 there is a size beyond which more is less.

Parameters are fitted by least squares in the throughput, within those bounds. Their intervals are
profile intervals (Bates and Watts, "Nonlinear Regression Analysis", 1988, section 6.1): all values
that make the sum of squares worse by no more than chance explains. They need not be symmetric, and
end at a bound where the data do not tell a parameter from it.

The throughput of a size that was not measured has a profile interval, too, of the law's own value
there. One more measurement scatters about it as those did that there are, so its prediction
interval is wider by Student's quantile of their standard error (in quadrature, as for independent
errors).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy
from numpy.typing import NDArray

Floats = NDArray[numpy.float64]
Interval = tuple[float, float]

USL: Final = "usl"
AMDAHL: Final = "amdahl"
GUSTAFSON: Final = "gustafson"

_PARAMETERS: Final = {
    USL: ("sigma", "kappa", "lambda"),
    AMDAHL: ("sigma", "lambda"),
    GUSTAFSON: ("sigma", "lambda"),
}
LAWS: Final = tuple(_PARAMETERS)
_UPPER: Final = {"sigma": 1.0, "kappa": math.inf, "lambda": math.inf}
_EXACT: Final = 1e-9
"""Residuals of this part of the largest throughput are those of rounding."""
CONFIDENCE: Final = 0.95
_DOUBLINGS: Final = 60
_ROUGHLY: Final = 1e-3
"""How precise an end of an extrapolation is, of the throughput."""


def throughput(law: str, sizes: Floats, sigma: float, kappa: float, one: float) -> Floats:
    """X of each size; ``one`` is lambda."""
    if law == GUSTAFSON:
        return one * (sizes - sigma * (sizes - 1))
    found: Floats = one * sizes / (1 + sigma * (sizes - 1) + kappa * sizes * (sizes - 1))
    return found


@dataclass(frozen=True)
class Extrapolation:
    """The throughput of a size, and where one more measurement would lie in 95 of 100 cases; None
    without a degree of freedom left.
    """

    size: float
    throughput: float
    interval: Interval | None


@dataclass(frozen=True)
class Fit:
    """A law fitted to measurements. ``kappa`` is None where the law has none; ``intervals``: 95 %
    of each parameter, empty without a degree of freedom left; ``residuals``: measured less fitted,
    in the order of the measurements; ``residual_standard_error`` None without a degree of freedom.
    """

    law: str
    sigma: float
    kappa: float | None
    one: float
    intervals: dict[str, Interval]
    residuals: tuple[float, ...]
    residual_standard_error: float | None
    extrapolated: tuple[Extrapolation, ...] = ()

    def at(self, size: float) -> float:
        """The throughput of a size."""
        sizes = numpy.array([size], dtype=numpy.float64)
        return float(throughput(self.law, sizes, self.sigma, self.kappa or 0.0, self.one)[0])

    @property
    def peak_n(self) -> float | None:
        """The size of the highest throughput, sqrt((1 - sigma) / kappa), at least 1; None where
        throughput never falls.
        """
        if not self.kappa:
            return None
        return max(1.0, math.sqrt((1 - self.sigma) / self.kappa))

    @property
    def peak_throughput(self) -> float | None:
        """The throughput there."""
        return None if self.peak_n is None else self.at(self.peak_n)

    @property
    def limit_throughput(self) -> float | None:
        """What the serial part alone leaves, lambda / sigma, Amdahl's asymptote; None where nothing
        is serial, or (Gustafson) the work grows along.
        """
        if self.law == GUSTAFSON or not self.sigma:
            return None
        return self.one / self.sigma


def fit(
    law: str, sizes: Sequence[float], measured: Sequence[float], at: Sequence[float] = ()
) -> Fit:
    """Fit a law to ``measured[i]`` at ``sizes[i]`` (above 0; a size may come several times).
    ``at``: sizes whose throughput is asked for besides.

    Raises ValueError where there are fewer different sizes than the law has parameters.
    """
    names = _PARAMETERS[law]
    n, x = (numpy.array(values, dtype=numpy.float64) for values in (sizes, measured))
    different = len(numpy.unique(n))
    if different < len(names):
        raise ValueError(f"{law} has {len(names)} parameters and needs as many sizes: {different}")
    scale = float(x.max()) or 1.0
    problem = _Problem(law, n, x / scale)
    best = problem.solve({})
    least = problem.squares(best)
    freedom = len(n) - len(names)
    intervals: dict[str, Interval] = {}
    if freedom > 0:
        intervals = {name: problem.interval(name, best, freedom) for name in names}
        low, high = intervals["lambda"]
        intervals["lambda"] = (low * scale, high * scale)
    fitted = best | {"lambda": best["lambda"] * scale}
    residuals = x - throughput(law, n, fitted["sigma"], fitted.get("kappa", 0.0), fitted["lambda"])
    return Fit(
        law,
        fitted["sigma"],
        fitted.get("kappa"),
        fitted["lambda"],
        intervals,
        tuple(residuals.tolist()),
        scale * math.sqrt(least / freedom) if freedom > 0 else None,
        tuple(problem.extrapolate(size, best, freedom, scale) for size in at),
    )


class _Problem:
    """Least squares of a law, with some of its parameters held."""

    def __init__(self, law: str, sizes: Floats, measured: Floats) -> None:
        self._law, self._n, self._x = law, sizes, measured
        self._start = self._guess()

    def _guess(self) -> dict[str, float]:
        """n / X is linear in 1 / lambda, sigma / lambda and kappa / lambda (of usl and amdahl);
        with Gustafson's law X is, in lambda and sigma lambda.
        """
        from scipy.optimize import nnls

        n, x = self._n, numpy.maximum(self._x, 1e-12)
        if self._law == GUSTAFSON:
            # lambda (1 - sigma) per n, and lambda sigma.
            (slope, level), _ = nnls(numpy.column_stack([n, numpy.ones_like(n)]), x)
            one = slope + level
            return {"sigma": level / one if one else 0.0, "lambda": one or 1.0}
        columns = [numpy.ones_like(n), n - 1]
        if self._law == USL:
            columns.append(n * (n - 1))
        # Weighted as the residuals of X are, so that small throughputs do not decide.
        weights = x / n
        found, _ = nnls(numpy.column_stack(columns) * (weights * x)[:, None], x)
        one = 1 / found[0] if found[0] else float((x / n).max())
        guess = {"sigma": min(1.0, found[1] * one), "lambda": one}
        return guess | ({"kappa": found[2] * one} if self._law == USL else {})

    def residuals(self, values: dict[str, float]) -> Floats:
        """Fitted less measured."""
        sigma, kappa, one = values["sigma"], values.get("kappa", 0.0), values["lambda"]
        return throughput(self._law, self._n, sigma, kappa, one) - self._x

    def squares(self, values: dict[str, float]) -> float:
        """Their sum of squares."""
        found = self.residuals(values)
        return float(found @ found)

    def extrapolate(
        self, size: float, best: dict[str, float], freedom: int, scale: float
    ) -> Extrapolation:
        """The throughput of a size, ``scale`` times what this problem is about."""
        from scipy.special import stdtrit

        centre = self._at(size, best)
        if freedom <= 0:
            return Extrapolation(size, centre * scale, None)
        least = self.squares(best)
        low, high = self._interval_at(size, centre, best, freedom)
        error = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(least / freedom)
        below = max(0.0, centre - math.hypot(centre - low, error))
        above = centre + math.hypot(high - centre, error)
        return Extrapolation(size, centre * scale, (below * scale, above * scale))

    def _at(self, size: float, values: dict[str, float]) -> float:
        sizes = numpy.array([size], dtype=numpy.float64)
        sigma, kappa = values["sigma"], values.get("kappa", 0.0)
        return float(throughput(self._law, sizes, sigma, kappa, values["lambda"])[0])

    def _interval_at(
        self, size: float, centre: float, best: dict[str, float], freedom: int
    ) -> Interval:
        """The profile interval of the law's value at a size."""
        from scipy.optimize import least_squares
        from scipy.special import fdtri

        least = self.squares(best)
        if not centre or math.sqrt(least / len(self._n)) < _EXACT:
            return centre, centre
        allowed = least * (1 + float(fdtri(1, freedom, CONFIDENCE)) / freedom)
        names = [name for name in _PARAMETERS[self._law] if name != "lambda"]
        scales = [1e-1 if name == "sigma" else 1 / float(self._n.max()) ** 2 for name in names]
        upper = [_UPPER[name] for name in names]

        def through(value: float, found: Floats) -> dict[str, float]:
            """These parameters, with the lambda that gives the value there."""
            values = dict(zip(names, found.tolist(), strict=True)) | {"lambda": 1.0}
            ratio = self._at(size, values)
            return values | {"lambda": value / ratio if ratio else 0.0}

        def excess(value: float) -> float:
            def residuals(found: Floats) -> Floats:
                return self.residuals(through(value, found))

            first = [
                min(max(best[name], 1e-9 * scale), bound - 1e-9)
                for name, scale, bound in zip(names, scales, upper, strict=True)
            ]
            bounds = ([0.0] * len(names), upper)
            found = least_squares(residuals, first, bounds=bounds, x_scale=scales)
            return 2 * float(found.cost) - allowed

        step = centre / 16
        low = _end(excess, centre, -step, 0.0, _ROUGHLY)
        return low, _end(excess, centre, step, math.inf, _ROUGHLY)

    def solve(
        self, held: dict[str, float], start: dict[str, float] | None = None
    ) -> dict[str, float]:
        """The best values of all parameters with some held."""
        from scipy.optimize import least_squares

        names = [name for name in _PARAMETERS[self._law] if name not in held]
        if not names:
            return held
        begin = self._start if start is None else start
        scales = {"sigma": 0.1, "kappa": 1 / float(self._n.max()) ** 2, "lambda": begin["lambda"]}
        upper = [_UPPER[name] for name in names]
        # Strictly inside of the bounds, as the method wants it.
        first = [
            min(max(begin[name], 1e-9 * scales[name]), bound - 1e-9)
            for name, bound in zip(names, upper, strict=True)
        ]

        def residuals(values: Floats) -> Floats:
            return self.residuals(held | dict(zip(names, values.tolist(), strict=True)))

        found = least_squares(
            residuals,
            first,
            bounds=([0.0] * len(names), upper),
            x_scale=[max(scales[name], 1e-12) for name in names],
            xtol=1e-14,
            ftol=1e-14,
            gtol=1e-14,
        )
        values = dict(zip(names, found.x.tolist(), strict=True))
        # The method stays strictly inside of its bounds.
        grown = {"sigma": float(self._n.max()), "kappa": float(self._n.max()) ** 2, "lambda": 1.0}
        return held | {name: x if x * grown[name] > _EXACT else 0.0 for name, x in values.items()}

    def interval(self, name: str, best: dict[str, float], freedom: int) -> Interval:
        """The profile interval of one parameter."""
        from scipy.special import fdtri

        least, centre = self.squares(best), best[name]
        if math.sqrt(least / len(self._n)) < _EXACT:
            return centre, centre
        allowed = least * (1 + float(fdtri(1, freedom, CONFIDENCE)) / freedom)

        def excess(value: float) -> float:
            return self.squares(self.solve({name: value}, best)) - allowed

        step = max(centre / 8, 1e-3 / float(self._n.max()) ** (2 if name == "kappa" else 1))
        return (
            _end(excess, centre, -step, 0.0),
            _end(excess, centre, step, _UPPER[name]),
        )


def _end(
    excess: Callable[[float], float], centre: float, step: float, bound: float, rtol: float = 1e-6
) -> float:
    """Where ``excess`` becomes positive on the way from ``centre`` to ``bound``."""
    from scipy.optimize import brentq

    inside, outside = centre, centre
    for _ in range(_DOUBLINGS):
        if (outside - bound) * step >= 0:
            return bound
        inside, outside = outside, outside + step
        if (outside - bound) * step > 0:
            outside = bound
        if excess(outside) > 0:
            return float(brentq(excess, inside, outside, rtol=rtol))
        step *= 2
    return math.inf if step > 0 else bound
