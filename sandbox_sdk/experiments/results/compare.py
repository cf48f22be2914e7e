"""Compares two conditions, or two runs, on the samples of both: flips, difference, paired test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from sandbox_sdk.experiments.results.rates import RULE, Rate, TrialScore, by_sample, rate
from sandbox_sdk.experiments.results.statistics import (
    LEVEL,
    Estimate,
    PairedTest,
    difference,
    paired_test,
)

SIGNIFICANT = 1 - LEVEL
"""The p-value below which a difference is called one."""


@attrs.frozen(kw_only=True)
class Flip:
    """A trial that one side scored otherwise than the other.

    Attributes:
        sample: The sample's id.
        repeat: Which repeat of it.
        before: The first side's value.
        after: The second side's value.
    """

    sample: str
    repeat: int
    before: float
    after: float


@attrs.frozen(kw_only=True)
class Comparison:
    """What a change did to one scorer's values.

    Attributes:
        scorer: The scorer's name.
        first: The name of the first side.
        second: The name of the second side.
        first_rate: The first side's rate, over all its trials.
        second_rate: The second side's rate, over all its trials.
        paired_first: The first side's rate over the pairs alone.
        paired_second: The second side's rate over the pairs alone.
        pairs: Trials of the same sample and repeat that count on both sides.
        unpaired: Why the other trials are in no pair -> how many.
        difference: The mean of second less first over the samples of the pairs.
        test: The exact paired test over those samples.
        fixed: Pairs that the second side scored higher.
        broken: Pairs that it scored lower.
    """

    scorer: str
    first: str
    second: str
    first_rate: Rate
    second_rate: Rate
    paired_first: Rate
    paired_second: Rate
    pairs: int
    unpaired: Mapping[str, int]
    difference: Estimate
    test: PairedTest
    fixed: tuple[Flip, ...] = attrs.field(repr=False)
    broken: tuple[Flip, ...] = attrs.field(repr=False)

    @property
    def verdict(self) -> str:
        """What may be said of the difference, in a sentence."""
        if not self.pairs:
            return "nothing can be said: no trial counts on both sides"
        if self.test.p >= SIGNIFICANT:
            return f"no difference is shown (p = {self.test.p:.3g})"
        better = self.second if self.test.better > self.test.worse else self.first
        return f"{better} is better (p = {self.test.p:.3g})"

    def lines(self, most_flips: int = 20) -> list[str]:
        """Return it as lines for people; every number has its n, interval and rule beside it.

        Args:
            most_flips: Most flips of each kind that are named.
        """
        pairs = f"{self.paired_first.estimate} against {self.paired_second.estimate}"
        counts = f"better {self.test.better}, worse {self.test.worse}, equal {self.test.equal}"
        test = "exact sign test (McNemar's for one pass or fail each), two-sided"
        told = [
            f"{self.scorer}: {self.first} against {self.second}",
            f"  {self.first}: {self.first_rate}",
            f"  {self.second}: {self.second_rate}",
            f"  on the {self.pairs} pairs: {pairs}",
        ]
        if self.unpaired:
            reasons = ", ".join(f"{n} {why}" for why, n in sorted(self.unpaired.items()))
            told.append(f"  in no pair: {reasons}")
        told += [
            f"  difference: {_signed(self.difference)}",
            f"  samples {counts}; {test}: {self.verdict}",
            f"  fixed {len(self.fixed)}{_named(self.fixed, most_flips)}",
            f"  broken {len(self.broken)}{_named(self.broken, most_flips)}",
            f"  rule: {RULE}; intervals are of {LEVEL:.0%}",
        ]
        return told

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, with what may be said of it and the rule of who counts."""
        return {**attrs.asdict(self), "verdict": self.verdict, "rule": RULE}


def compare(
    first: Iterable[TrialScore],
    second: Iterable[TrialScore],
    *,
    scorer: str,
    names: tuple[str, str] = ("A", "B"),
) -> Comparison:
    """Return how the second side differs from the first on what both have.

    Pairs are trials of the same sample and repeat that count on both sides. One that counts on
    one side only is in no pair, and is told: a change that makes hard samples fail for other
    reasons would otherwise look like one for the better.

    Args:
        first: What the scorer said of every planned trial of the first side.
        second: The same of the second side.
        scorer: The scorer's name.
        names: What the sides are called.

    Raises:
        ValueError: A side has two trials of one sample and repeat.
    """
    left, right = _by_place(first, names[0]), _by_place(second, names[1])
    counted = [place for place in left if place in right and _counts(left[place], right[place])]
    before, after = [left[place] for place in counted], [right[place] for place in counted]
    values = by_sample(before), by_sample(after)
    return Comparison(
        scorer=scorer,
        first=names[0],
        second=names[1],
        first_rate=rate(left.values()),
        second_rate=rate(right.values()),
        paired_first=rate(before),
        paired_second=rate(after),
        pairs=len(counted),
        unpaired=_unpaired(left, right, names),
        difference=difference(*values),
        test=paired_test(*values),
        fixed=_flips(before, after, lambda was, now: now > was),
        broken=_flips(before, after, lambda was, now: now < was),
    )


Place = tuple[str, int]


def _by_place(trials: Iterable[TrialScore], name: str) -> dict[Place, TrialScore]:
    found: dict[Place, TrialScore] = {}
    for trial in trials:
        place = trial.sample, trial.repeat
        if place in found:
            raise ValueError(
                f"{name} has sample {trial.sample!r}, repeat {trial.repeat}, twice: compare one "
                "condition with one other"
            )
        found[place] = trial
    return found


def _counts(first: TrialScore, second: TrialScore) -> bool:
    return first.left_out is None and second.left_out is None


def _unpaired(
    left: Mapping[Place, TrialScore], right: Mapping[Place, TrialScore], names: tuple[str, str]
) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for place in (*left, *(place for place in right if place not in left)):
        first, second = left.get(place), right.get(place)
        if first is None or second is None:
            reason = f"only in {names[0] if second is None else names[1]}"
        elif first.left_out is not None and second.left_out is not None:
            reason = "left out on both sides"
        elif (why := first.left_out or second.left_out) is not None:
            reason = f"{why} in {names[0] if first.left_out else names[1]} alone"
        else:
            continue
        reasons[reason] = reasons.get(reason, 0) + 1
    return reasons


def _flips(
    before: list[TrialScore], after: list[TrialScore], changed: Callable[[float, float], bool]
) -> tuple[Flip, ...]:
    return tuple(
        Flip(sample=old.sample, repeat=old.repeat, before=old.value, after=new.value)
        for old, new in zip(before, after, strict=True)
        if old.value is not None and new.value is not None and changed(old.value, new.value)
    )


def _named(flips: tuple[Flip, ...], most: int) -> str:
    if not flips:
        return ""
    repeats = any(flip.repeat > 1 for flip in flips)
    names = [f"{flip.sample}#{flip.repeat}" if repeats else flip.sample for flip in flips[:most]]
    more = f", and {len(flips) - most} more" if len(flips) > most else ""
    return f": {', '.join(names)}{more}"


def _signed(found: Estimate) -> str:
    if found.mean is None:
        return str(found)
    ends = found.interval
    between = f" [{ends.low:+.3f}, {ends.high:+.3f}]" if ends else " [interval unknown]"
    return f"{found.mean:+.3f}{between} (n={found.n} samples, {found.method})"
