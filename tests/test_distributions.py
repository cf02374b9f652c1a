"""Distributions: conformance of every registered one, each law against its closed form, bad
parameters, and the sampler that hands out draws one by one.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

from orchestrator.core.distributions import (
    LONGEST_NS,
    Distribution,
    EmpiricalParams,
    LognormalParams,
    MixtureParams,
    MixturePart,
    ParetoParams,
    Sampler,
    UniformParams,
    build,
)
from orchestrator.core.parameters import DURATION, ParameterError
from orchestrator.core.randomness import block_stream
from orchestrator.core.registry import Family, Slot, plugin, plugins

MS = 1_000_000
LAWS = list(plugins(Family.DISTRIBUTION))


def slot(name: str, **params: Any) -> Slot:
    return Slot(Family.DISTRIBUTION, name, plugin(Family.DISTRIBUTION, name).params(**params))


def law(name: str, **params: Any) -> Distribution:
    return build(slot(name, **params))


def mixture(*parts: tuple[float, Slot]) -> Distribution:
    return law("mixture", parts=tuple((MixturePart(weight), part) for weight, part in parts))


def draws_ms(chosen: Distribution, count: int, seed: int = 1) -> NDArray[numpy.float64]:
    return chosen.block(block_stream(seed, "law"), count) / MS


# --- every registered law ---------------------------------------------------------------


def example(name: str) -> Distribution:
    """A law of rising durations (1 ms, 2 ms, ...), so that low < high and mean < p99."""
    params: dict[str, Any] = {}
    rising = itertools.count(MS, MS)
    for field in dataclasses.fields(plugin(Family.DISTRIBUTION, name).params):
        about = field.metadata
        if about.get("collection") == "list":
            parts = [slot("constant", value=next(rising)) for _ in range(2)]
            params[field.name] = tuple((about["extra"](weight=1.0), part) for part in parts)
        elif not about.get("required"):
            continue
        elif about.get("quantity") == DURATION:
            many = about["many"]
            params[field.name] = tuple(next(rising) for _ in range(3)) if many else next(rising)
        else:
            params[field.name] = max(about.get("low") or 0.0, 3.0)
    return law(name, **params)


@pytest.mark.parametrize("name", LAWS)
def test_blocks_are_finite_draws_of_0_or_more_about_the_mean(name: str) -> None:
    chosen = example(name)
    draws = chosen.block(block_stream(1, "law"), 100_000)
    assert draws.shape == (100_000,)
    assert draws.dtype == numpy.float64
    assert numpy.isfinite(draws).all()
    assert (draws >= 0).all()
    assert draws.mean() == pytest.approx(chosen.mean_ns, rel=0.01)
    assert chosen.block(block_stream(1, "law"), 0).shape == (0,)


@pytest.mark.parametrize("name", LAWS)
def test_draws_keep_to_the_bounds_that_a_law_says(name: str) -> None:
    least_ns, most_ns = example(name).bounds_ns
    drawn = example(name).block(block_stream(1, "bounds"), 20_000)
    assert least_ns <= drawn.min() and drawn.max() <= most_ns
    # Tight, too: something is drawn close to them.
    if math.isfinite(most_ns):
        assert drawn.min() - least_ns <= 0.01 * most_ns and most_ns - drawn.max() <= 0.01 * most_ns


def test_a_mixture_keeps_to_the_bounds_of_what_it_draws() -> None:
    never = (0.0, slot("exponential", mean=MS))
    parts = [(1.0, slot("uniform", low=2 * MS, high=3 * MS)), (2.0, slot("constant", value=7 * MS))]
    assert mixture(never, *parts).bounds_ns == (2 * MS, 7 * MS)
    assert law("pareto", scale=3 * MS, shape=1.5).bounds_ns == (3 * MS, math.inf)


@pytest.mark.parametrize("name", LAWS)
def test_same_stream_same_draws(name: str) -> None:
    one, other = (example(name).block(block_stream(7, "law"), 1000) for _ in range(2))
    assert (one == other).all()


@pytest.mark.parametrize("name", LAWS)
def test_samplers_of_one_stream_agree_and_draw_integers(name: str) -> None:
    one, other = (Sampler(example(name), block_stream(7, "law")) for _ in range(2))
    # Past the growth of blocks and one full block.
    drawn = [one.draw_ns() for _ in range(3 * Sampler.BLOCK)]
    assert drawn == [other.draw_ns() for _ in range(3 * Sampler.BLOCK)]
    assert all(type(value) is int and 0 <= value <= LONGEST_NS for value in drawn)
    assert sum(drawn) / len(drawn) == pytest.approx(example(name).mean_ns, rel=0.05)


# --- closed forms -----------------------------------------------------------------------


def lognormal_by(mean: float, p99: float) -> Any:
    """The law found by search instead of by the root of a quadratic."""

    def frozen(sigma: float) -> Any:
        return stats.lognorm(sigma, scale=mean * math.exp(-(sigma**2) / 2))

    sigma = brentq(lambda sigma: frozen(sigma).ppf(0.99) - p99, 1e-6, stats.norm.ppf(0.99))
    return frozen(sigma)


CLOSED_FORMS = [
    (law("uniform", low=2 * MS, high=5 * MS), stats.uniform(2, 3)),
    (law("uniform", low=0, high=MS), stats.uniform(0, 1)),
    (law("exponential", mean=3 * MS), stats.expon(scale=3)),
    (law("lognormal", mean=2 * MS, p99=8 * MS), lognormal_by(2, 8)),
    (law("lognormal", mean=10 * MS, p99=11 * MS), lognormal_by(10, 11)),
    (law("lognormal", mean=1 * MS, p99=14 * MS), lognormal_by(1, 14)),
    (law("pareto", scale=235_000, shape=10.0), stats.pareto(10, scale=0.235)),
    (law("pareto", scale=MS, shape=1.5), stats.pareto(1.5)),
    (law("pareto", scale=MS, shape=0.5), stats.pareto(0.5)),
]


@pytest.mark.parametrize(("chosen", "closed_form"), CLOSED_FORMS)
def test_a_law_follows_its_closed_form(chosen: Distribution, closed_form: Any) -> None:
    assert chosen.mean_ns / MS == pytest.approx(closed_form.mean(), rel=1e-9)
    draws = draws_ms(chosen, 200_000)
    assert stats.kstest(draws, closed_form.cdf).pvalue > 0.001
    if math.isfinite(closed_form.var()):
        error = closed_form.std() / math.sqrt(len(draws))
        assert abs(draws.mean() - closed_form.mean()) < 4 * error
    for share in (0.01, 0.5, 0.9, 0.99, 0.999):
        below = (draws <= closed_form.ppf(share)).mean()
        assert below == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / len(draws)))


@pytest.mark.parametrize("ratio", [1.01, 2.0, 5.0, 14.0, 14.96])
def test_a_lognormal_law_has_the_mean_and_the_p99_that_were_asked(ratio: float) -> None:
    p99 = round(ratio * MS)
    chosen = law("lognormal", mean=MS, p99=p99)
    assert chosen.mean_ns == MS
    draws = chosen.block(block_stream(1, "law"), 400_000)
    assert (draws <= p99).mean() == pytest.approx(0.99, abs=0.0007)
    # The mean of so skewed a law hangs on few draws; ln of it has mean ln(mean) - s^2 / 2.
    logs = numpy.log(draws)
    assert logs.mean() + logs.var() / 2 == pytest.approx(math.log(MS), abs=0.02)


def test_a_constant_law_is_always_its_value() -> None:
    chosen = law("constant", value=5 * MS)
    assert chosen.mean_ns == 5 * MS
    assert set(draws_ms(chosen, 1000).tolist()) == {5.0}


def test_an_empirical_law_draws_its_values_as_often_as_they_stand() -> None:
    chosen = law("empirical", values=(MS, 2 * MS, 2 * MS, 7 * MS))
    assert chosen.mean_ns == 3 * MS
    values, counts = numpy.unique(draws_ms(chosen, 40_000), return_counts=True)
    assert values.tolist() == [1.0, 2.0, 7.0]
    assert stats.chisquare(counts, [10_000, 20_000, 10_000]).pvalue > 0.001


@pytest.mark.parametrize("scale", [1, 0.25, 100])
def test_a_mixture_draws_its_parts_by_weight(scale: float) -> None:
    one, two, never = (slot("constant", value=value * MS) for value in (1, 2, 3))
    chosen = mixture((3 * scale, one), (1 * scale, two), (0, never))
    assert chosen.mean_ns == pytest.approx(1.25 * MS)
    values, counts = numpy.unique(draws_ms(chosen, 40_000), return_counts=True)
    assert values.tolist() == [1.0, 2.0]
    assert stats.chisquare(counts, [30_000, 10_000]).pvalue > 0.001


def test_a_mixture_of_laws_follows_the_weighted_sum_of_their_laws() -> None:
    # One-way delays of LNKD-SSD (Bailis et al., "Probabilistically Bounded Staleness", VLDB'12).
    body = slot("pareto", scale=235_000, shape=10.0)
    tail = slot("exponential", mean=round(MS / 1.66))
    chosen = mixture((91.22, body), (8.78, tail))

    def cdf(value: Any) -> Any:
        slow = stats.expon(scale=1 / 1.66).cdf(value)
        return 0.9122 * stats.pareto(10, scale=0.235).cdf(value) + 0.0878 * slow

    assert chosen.mean_ns / MS == pytest.approx(0.9122 * 0.235 / 0.9 + 0.0878 / 1.66, rel=1e-5)
    assert stats.kstest(draws_ms(chosen, 200_000), cdf).pvalue > 0.001


def test_mixtures_nest() -> None:
    half = slot("constant", value=4 * MS)
    inner = [(MixturePart(1), slot("constant", value=value * MS)) for value in (1, 3)]
    chosen = mixture((1, half), (1, slot("mixture", parts=tuple(inner))))
    assert chosen.mean_ns == 3 * MS
    values, counts = numpy.unique(draws_ms(chosen, 40_000), return_counts=True)
    assert values.tolist() == [1.0, 3.0, 4.0]
    assert stats.chisquare(counts, [10_000, 10_000, 20_000]).pvalue > 0.001


def test_an_infinite_mean_is_said_and_a_weight_of_0_hides_it() -> None:
    endless = slot("pareto", scale=MS, shape=1.0)
    brief = slot("constant", value=MS)
    assert build(endless).mean_ns == math.inf
    assert mixture((1, brief), (0.1, endless)).mean_ns == math.inf
    assert mixture((1, brief), (0, endless)).mean_ns == MS


@pytest.mark.parametrize("k", [2, 5])
def test_the_first_of_k_exponential_draws_is_exponential_with_a_kth_of_the_mean(k: int) -> None:
    first = draws_ms(law("exponential", mean=6 * MS), 100_000 * k).reshape(-1, k).min(axis=1)
    assert stats.kstest(first, stats.expon(scale=6 / k).cdf).pvalue > 0.001
    assert numpy.quantile(first, 0.99) == pytest.approx(math.log(100) * 6 / k, rel=0.02)


def test_the_slowest_of_100_draws_beats_the_p99_in_63_percent() -> None:
    # Dean and Barroso, "The Tail at Scale" (CACM 56(2), 2013): 1 - .99^100 = .6340.
    chosen = law("lognormal", mean=2 * MS, p99=8 * MS)
    slowest = draws_ms(chosen, 2_000_000).reshape(-1, 100).max(axis=1)
    assert (slowest > 8).mean() == pytest.approx(0.6340, abs=0.014)


# --- bad parameters ---------------------------------------------------------------------


def test_contradicting_parameters_are_refused_with_what_was_given() -> None:
    with pytest.raises(ParameterError, match=r"high \(1ms\) must not be below low \(2ms\)"):
        UniformParams(low=2 * MS, high=MS)
    with pytest.raises(ParameterError, match="mean 0s, p99 1ms"):
        LognormalParams(mean=0, p99=MS)
    with pytest.raises(ParameterError, match="p99 above mean, not mean 1ms, p99 1ms"):
        LognormalParams(mean=MS, p99=MS)
    with pytest.raises(ParameterError, match=r"at most 14\.97 times the mean"):
        LognormalParams(mean=MS, p99=15 * MS)
    with pytest.raises(ParameterError, match="scale must be above 0"):
        ParetoParams(scale=0, shape=2.0)
    with pytest.raises(ParameterError, match="at least one duration"):
        EmpiricalParams(values=())


@pytest.mark.parametrize("weights", [(), (0.0, 0.0), (-1.0, 3.0), (math.nan, 1.0), (math.inf, 1.0)])
def test_a_mixture_needs_usable_weights(weights: tuple[float, ...]) -> None:
    part = slot("constant", value=MS)
    with pytest.raises(ParameterError, match="weight above 0"):
        MixtureParams(parts=tuple((MixturePart(weight), part) for weight in weights))


def test_the_edges_are_allowed() -> None:
    assert set(draws_ms(law("uniform", low=MS, high=MS), 10).tolist()) == {1.0}
    assert set(draws_ms(law("exponential", mean=0), 10).tolist()) == {0.0}
    assert LognormalParams(mean=MS, p99=14 * MS).p99 == 14 * MS


# --- the sampler ------------------------------------------------------------------------


def test_a_sampler_hands_out_the_law_s_draws_in_order_rounded() -> None:
    chosen = law("exponential", mean=700)
    sampler = Sampler(chosen, block_stream(3, "delays"))
    expected = numpy.rint(chosen.block(block_stream(3, "delays"), 20_000)).tolist()
    assert [sampler.draw_ns() for _ in range(20_000)] == expected


def test_streams_of_other_seeds_and_names_differ() -> None:
    def first(seed: int, name: str) -> tuple[int, ...]:
        sampler = Sampler(law("exponential", mean=MS), block_stream(seed, name))
        return tuple(sampler.draw_ns() for _ in range(5))

    assert len({first(1, "a"), first(2, "a"), first(1, "b")}) == 3


def test_a_constant_law_leaves_the_stream_alone() -> None:
    chance = block_stream(1, "law")
    sampler = Sampler(law("constant", value=5 * MS), chance)
    assert [sampler.draw_ns() for _ in range(3)] == [5 * MS] * 3
    assert chance.integers(2**60) == block_stream(1, "law").integers(2**60)


def test_a_sampler_knows_when_every_draw_is_0() -> None:
    def always_zero(chosen: Distribution) -> bool:
        return Sampler(chosen, block_stream(1, "law")).always_zero

    nothing, something = slot("constant", value=0), slot("constant", value=1)
    assert always_zero(build(nothing))
    assert always_zero(law("uniform", low=0, high=0))
    assert always_zero(law("exponential", mean=0))
    assert always_zero(law("empirical", values=(0, 0)))
    assert always_zero(mixture((1, nothing), (0, something)))
    assert not always_zero(build(something))
    assert not always_zero(mixture((1, nothing), (0.001, something)))
    assert not always_zero(law("exponential", mean=1))
    assert not always_zero(law("pareto", scale=1, shape=0.5))


def test_a_draw_beyond_64_bits_is_cut() -> None:
    # P(X > 2^62 ns) is about .8 with this tail; some draws overflow a float to infinity.
    sampler = Sampler(law("pareto", scale=MS, shape=0.01), block_stream(1, "law"))
    drawn = [sampler.draw_ns() for _ in range(1000)]
    assert max(drawn) == LONGEST_NS
    assert min(drawn) >= MS
