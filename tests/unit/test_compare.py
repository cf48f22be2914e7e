"""Rates and comparisons tell of whom they are, and never more than the pairs show."""

from __future__ import annotations

import pytest

from sandbox_sdk.experiments.results.compare import Comparison, compare
from sandbox_sdk.experiments.results.rates import RULE, TrialScore, rate
from sandbox_sdk.experiments.results.statistics import wilson
from sandbox_sdk.values import COUNTED, AttemptState


def trial(
    sample: object,
    value: float | None,
    *,
    repeat: int = 1,
    state: AttemptState | None = AttemptState.COMPLETED,
) -> TrialScore:
    return TrialScore(sample=str(sample), repeat=repeat, state=state, value=value)


def side(values: str, **changed: TrialScore) -> list[TrialScore]:
    """Return one trial per letter: 1, 0, or ``-`` for a scorer that came to no verdict."""
    return [
        changed.get(f"s{index}") or trial(index, None if mark == "-" else float(mark))
        for index, mark in enumerate(values)
    ]


def test_a_rate_tells_n_of_planned_and_whom_it_leaves_out() -> None:
    trials = [
        *side("111100-"),
        trial("a", 0.0, state=AttemptState.TIMEOUT),
        trial("b", None, state=AttemptState.INFRA_ERROR),
        trial("c", 1.0, state=AttemptState.LOST),
        trial("d", None, state=None),
    ]
    found = rate(trials)
    assert found.estimate.mean == pytest.approx(4 / 7)
    assert found.estimate.interval == wilson(4, 7)
    assert (found.planned, found.estimate.n) == (11, 7)
    assert found.left_out == {"unscored": 1, "infra_error": 1, "lost": 1, "not_run": 1}
    assert str(found).endswith(
        "(n=7) of 11 planned; left out: 1 infra_error, 1 lost, 1 not_run, 1 unscored"
    )


def test_the_rule_names_every_state_that_counts() -> None:
    for state in AttemptState:
        assert (f" {state.value}" in RULE.replace(",", " ")) == (state in COUNTED)


def test_nothing_counted_is_no_rate_of_zero() -> None:
    found = rate(side("--"))
    assert found.estimate.mean is None
    assert str(found) == "no value (n=0) of 2 planned; left out: 2 unscored"


def test_a_comparison_gives_flips_difference_and_the_exact_test() -> None:
    found = compare(side("1111100000"), side("1111111110"), scorer="exact", names=("old", "new"))
    assert [flip.sample for flip in found.fixed] == ["5", "6", "7", "8"]
    assert found.broken == ()
    assert (found.test.better, found.test.worse, found.test.p) == (4, 0, 0.125)
    assert found.difference.mean == pytest.approx(0.4)
    assert found.verdict == "no difference is shown (p = 0.125)"
    more = compare(side("0" * 12), side("1" * 11 + "0"), scorer="exact", names=("old", "new"))
    assert more.verdict.startswith("new is better (p = 0.000977")
    less = compare(side("1" * 12), side("0" * 12), scorer="exact", names=("old", "new"))
    assert less.verdict.startswith("old is better")


def test_trials_that_count_on_one_side_only_are_told_and_in_no_pair() -> None:
    """A change that breaks the sandbox of hard samples must not look like a better model."""
    broken = {f"s{n}": trial(n, None, state=AttemptState.INFRA_ERROR) for n in (2, 3)}
    first, second = side("1100"), side("1100", **broken)
    found = compare([*first, trial("x", 1.0)], second, scorer="exact")
    assert found.second_rate.estimate.mean == 1.0
    assert found.pairs == 2
    assert (found.paired_first.estimate.mean, found.paired_second.estimate.mean) == (1.0, 1.0)
    assert found.unpaired == {"infra_error in B alone": 2, "only in A": 1}
    assert found.difference.mean == 0
    both = compare(side("-"), side("-"), scorer="exact")
    assert both.unpaired == {"left out on both sides": 1}
    assert both.verdict == "nothing can be said: no trial counts on both sides"


def test_repeats_pair_with_their_own_and_the_test_counts_samples() -> None:
    first = [trial("a", 0.0, repeat=n) for n in range(1, 101)]
    second = [trial("a", float(n > 1), repeat=n) for n in range(1, 101)]
    found = compare(first, second, scorer="exact")
    assert len(found.fixed) == 99
    assert (found.test.better, found.test.p) == (1, 1.0)
    assert "a#2, a#3" in str(found)
    assert "and 79 more" in str(found)


def test_every_number_stands_with_its_interval_and_the_rule() -> None:
    lines = str(compare(side("1100-"), side("1110-"), scorer="exact", names=("old", "new")))
    test = "exact sign test (McNemar's for one pass or fail each), two-sided"
    assert lines.splitlines() == [
        "exact: old against new",
        "  old: 0.500 [0.150, 0.850] (n=4) of 5 planned; left out: 1 unscored",
        "  new: 0.750 [0.301, 0.954] (n=4) of 5 planned; left out: 1 unscored",
        "  on the 4 pairs: 0.500 [0.150, 0.850] (n=4) against 0.750 [0.301, 0.954] (n=4)",
        "  in no pair: 1 left out on both sides",
        "  difference: +0.250 [-0.276, +0.609] (n=4 samples, Agresti-Min, paired)",
        f"  samples better 1, worse 0, equal 3; {test}: no difference is shown (p = 1)",
        "  fixed 1: 2",
        "  broken 0",
        f"  rule: {RULE}; intervals are of 95%",
    ]
    empty: Comparison = compare([], [], scorer="exact")
    assert "no value (n=0)" in str(empty)


def test_conditions_are_compared_one_with_one() -> None:
    with pytest.raises(ValueError, match="B has sample '0', repeat 1, twice"):
        compare(side("1"), side("1") + side("0"), scorer="exact")
