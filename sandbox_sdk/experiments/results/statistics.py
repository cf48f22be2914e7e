"""Honest numbers: a rate with its 95 % interval, and whether two conditions differ.

Repeats of one sample are alike, so they tell less than as many samples would. Everything here
takes values by sample and counts accordingly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean, stdev

import attrs

from sandbox_sdk.experiments.results.student import student_quantile

LEVEL = 0.95
"""The share of intervals that hold the true value."""

_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)

BySample = Mapping[str, Sequence[float]]
"""Sample's id -> its values, one per repeat."""


@attrs.frozen(kw_only=True)
class Interval:
    """Where the true value lies with 95 % confidence.

    Attributes:
        low: The lower end.
        high: The upper end.
    """

    low: float
    high: float


@attrs.frozen(kw_only=True)
class Estimate:
    """A mean of values, and how sure it is.

    Attributes:
        mean: The mean over all values; ``None`` without any.
        n: How many values it is of.
        samples: Of how many samples they are.
        interval: The 95 % interval; ``None`` where the values cannot tell one.
        method: How the interval was made, in a few words.
    """

    mean: float | None = None
    n: int = 0
    samples: int = 0
    interval: Interval | None = None
    method: str = "none"

    def __str__(self) -> str:
        if self.mean is None:
            return "no value (n=0)"
        ends = self.interval
        between = f" [{ends.low:.3f}, {ends.high:.3f}]" if ends else " [interval unknown]"
        of = f", {self.samples} samples" if self.samples != self.n else ""
        return f"{self.mean:.3f}{between} (n={self.n}{of})"


def wilson(successes: float, trials: float) -> Interval:
    """Return the 95 % interval of a rate.

    It never leaves 0 to 1, and 10 of 10 is not certainty. ``successes`` may be a sum of values
    from 0 to 1, for which the interval is wide enough too: none vary more than 0 and 1 do.
    Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209, without continuity correction.

    Raises:
        ValueError: There are no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials <= 0:
        raise ValueError(f"{successes} successes of {trials} trials is no rate")
    rate, square = successes / trials, _Z * _Z
    middle = (rate + square / (2 * trials)) / (1 + square / trials)
    spread = rate * (1 - rate) / trials + square / (4 * trials * trials)
    half = _Z * math.sqrt(spread) / (1 + square / trials)
    # At the ends the sum is exact but for rounding.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == trials else min(1.0, middle + half)
    return Interval(low=low, high=high)


def estimate(values: BySample) -> Estimate:
    """Return the mean of scores and its 95 % interval.

    Scores from 0 to 1 get Wilson's interval, with as many trials as the values are worth (see
    ``effective_trials``); others Student's over the samples' means.
    """
    groups = [group for group in values.values() if group]
    n = sum(map(len, groups))
    if not n:
        return Estimate()
    every = [value for group in groups for value in group]
    mean = fmean(every)
    if all(0 <= value <= 1 for value in every):
        worth = effective_trials(values)
        method = "Wilson" if worth == n else f"Wilson, {worth:.1f} effective trials"
        interval: Interval | None = wilson(min(mean, 1.0) * worth, worth)
    else:
        interval, method = _student([fmean(group) for group in groups]), "Student, over samples"
    return Estimate(mean=mean, n=n, samples=len(groups), interval=interval, method=method)


def effective_trials(values: BySample) -> float:
    """Return how many independent trials the values are worth: at most ``n``.

    Repeats of one sample are not independent, so ``n`` is divided by the design effect: the
    variance of the mean as the samples show it, over that of as many independent values. Where
    no value differs nothing shows it, and every sample counts once. One sample alone is judged
    by its repeats: the interval is then about that sample.
    Source: Kish, Survey Sampling (1965), chapter 5; Miller, arXiv:2411.00640, on evaluations.
    """
    groups = [group for group in values.values() if group]
    n, count = sum(map(len, groups)), len(groups)
    if count in (0, 1, n):
        return float(n)
    mean = sum(map(sum, groups)) / n
    independent = mean * (1 - mean) / n
    if independent <= 0:
        return float(count)
    residuals = sum((sum(group) - mean * len(group)) ** 2 for group in groups)
    clustered = residuals / n**2 * count / (count - 1)
    return n / max(1.0, clustered / independent)


def difference(first: BySample, second: BySample) -> Estimate:
    """Return the mean of ``second - first`` over the samples of both, and its 95 % interval.

    A sample's repeats become one mean. For scores from 0 to 1 two imagined samples are added to
    the spread, one of them half better and half worse, so that equal results are no certainty.
    Source: Agresti and Min, Statistics in Medicine 24 (2005) 729.
    """
    deltas = sample_differences(first, second)
    n = len(deltas)
    if not n:
        return Estimate()
    every = (*_flat(first), *_flat(second))
    if not all(0 <= value <= 1 for value in every):
        interval, method = _student(deltas), "Student, paired"
    else:
        total, squares = sum(deltas), sum(delta * delta for delta in deltas) + 1
        middle = total / (n + 2)
        half = _Z * math.sqrt(max(0.0, squares / (n + 2) - middle**2) / (n + 2))
        interval = Interval(low=max(-1.0, middle - half), high=min(1.0, middle + half))
        method = "Agresti-Min, paired"
    return Estimate(mean=fmean(deltas), n=n, samples=n, interval=interval, method=method)


def sample_differences(first: BySample, second: BySample) -> list[float]:
    """Return, for each sample that both have, the mean of ``second`` less that of ``first``."""
    shared = [key for key in first if first[key] and second.get(key)]
    return [fmean(second[key]) - fmean(first[key]) for key in shared]


@attrs.frozen(kw_only=True)
class PairedTest:
    """Whether one condition is better than another on the same samples.

    Attributes:
        better: Samples on which the second is better.
        worse: Samples on which it is worse.
        equal: Samples on which they are equal; they tell nothing.
        p: How likely so uneven a split, or one more uneven, is if there is no difference.
    """

    better: int
    worse: int
    equal: int
    p: float


def paired_test(first: BySample, second: BySample) -> PairedTest:
    """Return the exact sign test over samples; for one pass or fail each it is McNemar's."""
    deltas = sample_differences(first, second)
    # Means of the same repeats in another order differ by rounding.
    better = sum(delta > 1e-12 for delta in deltas)
    worse = sum(delta < -1e-12 for delta in deltas)
    equal = len(deltas) - better - worse
    return PairedTest(better=better, worse=worse, equal=equal, p=mcnemar(worse, better))


def mcnemar(broken: int, fixed: int) -> float:
    """Return the two-sided exact p-value of McNemar's test.

    Args:
        broken: Pairs that went from right to wrong.
        fixed: Pairs that went from wrong to right.
    """
    n = broken + fixed
    ways, tail = 1, 0
    for k in range(min(broken, fixed) + 1):
        tail += ways
        ways = ways * (n - k) // (k + 1)
    # Whole numbers, divided once: no sum of small floats.
    return min(1.0, 2 * tail / (1 << n))


def _student(values: Sequence[float]) -> Interval | None:
    """Return Student's interval of a mean; ``None`` where nothing shows a spread."""
    if len(values) < 2 or not (spread := stdev(values)):
        return None
    half = student_quantile((1 + LEVEL) / 2, len(values) - 1) * spread / math.sqrt(len(values))
    mean = fmean(values)
    return Interval(low=mean - half, high=mean + half)


def _flat(values: BySample) -> list[float]:
    return [value for group in values.values() for value in group]
