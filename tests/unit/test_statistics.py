"""Intervals and tests of experiments give the values of the literature, and keep their level."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest

from sandbox_sdk.experiments.results.statistics import (
    Interval,
    difference,
    effective_trials,
    estimate,
    mcnemar,
    paired_test,
    wilson,
)
from sandbox_sdk.experiments.results.student import student_cdf, student_quantile


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_published_intervals(
    successes: int, trials: int, low: float, high: float
) -> None:
    found = wilson(successes, trials)
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


def test_ten_of_ten_is_no_certainty() -> None:
    found = wilson(10, 10)
    assert found.high == 1.0
    assert 0.72 < found.low < 0.73


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (3, 2), (-1, 2), (0, 0)])
def test_what_is_no_rate_has_no_interval(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="no rate"):
        wilson(successes, trials)


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706205), (2, 4.302653), (9, 2.262157), (30, 2.042272)]
)
def test_student_gives_published_quantiles(degrees: int, quantile: float) -> None:
    assert student_quantile(0.975, degrees) == pytest.approx(quantile, abs=1e-6)
    assert student_cdf(quantile, degrees) == pytest.approx(0.975, abs=1e-7)


def test_student_with_one_degree_is_cauchy() -> None:
    for value in (0.1, 1.0, 7.5, 300.0):
        assert student_cdf(value, 1) == pytest.approx(0.5 + math.atan(value) / math.pi, abs=1e-12)


@pytest.mark.parametrize(("probability", "degrees"), [(0.4, 3), (1.0, 3), (0.9, 0)])
def test_student_refuses_what_is_no_quantile(probability: float, degrees: int) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        student_quantile(probability, degrees)


@pytest.mark.parametrize(
    ("broken", "fixed", "p"), [(1, 8, 0.0390625), (0, 0, 1.0), (5, 5, 1.0), (0, 6, 0.03125)]
)
def test_mcnemar_is_the_exact_binomial_tail(broken: int, fixed: int, p: float) -> None:
    assert mcnemar(broken, fixed) == p == mcnemar(fixed, broken)


def test_mcnemar_of_thousands_of_pairs_neither_overflows_nor_loses_digits() -> None:
    exact = Fraction(2 * sum(math.comb(3000, k) for k in range(1401)), 2**3000)
    assert mcnemar(1400, 1600) == pytest.approx(float(exact), rel=1e-12)
    assert mcnemar(0, 5000) == 0.0


def test_single_values_get_wilsons_interval() -> None:
    found = estimate({str(index): [float(index < 8)] for index in range(10)})
    assert (found.mean, found.n, found.samples) == (0.8, 10, 10)
    assert found.interval == wilson(8, 10)
    assert str(found) == "0.800 [0.490, 0.943] (n=10)"


def test_repeats_that_always_agree_count_as_one() -> None:
    values = {str(index): [float(index < 8)] * 20 for index in range(10)}
    worth = effective_trials(values)
    assert 8.9 < worth < 10  # the estimate of a variance over ten samples
    found = estimate(values)
    assert found.interval == wilson(0.8 * worth, worth)
    assert (found.n, found.samples) == (200, 10)
    assert "10 samples" in str(found)


def test_repeats_that_never_differ_count_as_their_samples() -> None:
    assert effective_trials({str(index): [1.0] * 50 for index in range(4)}) == 4


def test_repeats_that_are_independent_count_each() -> None:
    values = {str(index): [1.0, 0.0] for index in range(50)}
    assert effective_trials(values) == 100


def test_one_sample_is_judged_by_its_repeats() -> None:
    assert effective_trials({"only": [1.0, 0.0, 1.0]}) == 3


def test_no_values_have_no_mean() -> None:
    found = estimate({"a": [], "b": []})
    assert (found.mean, found.n, found.interval) == (None, 0, None)
    assert str(found) == "no value (n=0)"


def test_values_beyond_one_get_students_interval() -> None:
    found = estimate({"a": [10.0], "b": [12.0], "c": [14.0]})
    assert found.interval is not None
    half = 4.302653 * 2 / math.sqrt(3)
    assert found.interval.low == pytest.approx(12 - half, abs=1e-5)
    assert estimate({"a": [10.0]}).interval is None
    assert "interval unknown" in str(estimate({"a": [10.0]}))


def test_a_paired_difference_gives_the_published_interval() -> None:
    """Agresti and Min 2005: with n12=150, n21=86 of 1600 it is d'=(b-c)/(n+2)."""
    first = {str(index): [float(index < 150)] for index in range(1600)}
    second = {str(index): [float(150 <= index < 236)] for index in range(1600)}
    found = difference(first, second)
    assert found.mean == pytest.approx(-64 / 1600)
    assert found.interval is not None
    middle = -64 / 1602
    half = 1.959964 * math.sqrt(237 - 64**2 / 1602) / 1602
    assert found.interval.low == pytest.approx(middle - half, abs=1e-9)
    assert found.interval.high == pytest.approx(middle + half, abs=1e-9)


def test_equal_results_are_no_certainty_of_no_difference() -> None:
    same = {str(index): [1.0] for index in range(20)}
    found = difference(same, same)
    assert found.mean == 0
    assert found.interval is not None
    assert found.interval.low < -0.05 < 0.05 < found.interval.high


def test_only_samples_of_both_are_paired() -> None:
    first = {"a": [1.0], "b": [0.0], "c": []}
    second = {"a": [0.0], "c": [1.0], "d": [1.0]}
    tested = paired_test(first, second)
    assert (tested.better, tested.worse, tested.equal) == (0, 1, 0)
    assert difference({}, second).interval is None


def test_the_paired_test_counts_a_sample_once_however_often_it_was_repeated() -> None:
    first = {"a": [0.0] * 100, "b": [1.0, 0.0, 0.1], "c": [0.2] * 3}
    second = {"a": [1.0] * 100, "b": [0.1, 1.0, 0.0], "c": [0.2] * 3}
    tested = paired_test(first, second)
    assert (tested.better, tested.worse, tested.equal, tested.p) == (1, 0, 2, 1.0)


@pytest.mark.parametrize("truth", [0.5, 0.9])
def test_intervals_hold_the_truth_as_often_as_they_say_with_repeats_that_are_alike(
    truth: float,
) -> None:
    """The mistake to avoid, repeats taken for samples, holds it in about half of the runs."""
    rng = random.Random(7)
    held = naive = 0
    for _ in range(400):
        values: dict[str, list[float]] = {}
        for sample in range(40):
            chance = float(rng.random() < truth)  # some samples are easy, the others are hard
            chance = 0.9 * chance + 0.1 * truth
            values[str(sample)] = [float(rng.random() < chance) for _ in range(10)]
        found = estimate(values)
        assert found.interval is not None
        assert found.mean is not None
        held += _within(found.interval, truth)
        naive += _within(wilson(found.mean * 400, 400), truth)
    assert held >= 0.92 * 400
    assert naive < 0.75 * 400


def _within(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high
