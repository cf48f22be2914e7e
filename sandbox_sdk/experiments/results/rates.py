"""Rates of a run: of which trials a number is, of how many planned, and who was left out and why.

The rule of who counts is one, is printed with every number, and is the same for all conditions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import attrs

from sandbox_sdk.experiments.results.statistics import Estimate, estimate
from sandbox_sdk.experiments.scorers.base import UNSCORED
from sandbox_sdk.values import COUNTED, AttemptState

NOT_RUN = "not_run"
"""Why a planned trial is left out that never ended."""

RULE = (
    "counted are trials that ended "
    + ", ".join(state.value for state in AttemptState if state in COUNTED)
    + " and that the scorer judged; all others are left out, never taken for wrong"
)
"""Who counts, for people."""


@attrs.frozen(kw_only=True)
class TrialScore:
    """What one scorer said of one planned trial.

    Attributes:
        sample: The sample's id.
        repeat: Which repeat of it, from 1.
        state: How the trial ended; ``None`` if it did not.
        value: The score's value; ``None`` if there is no score, or the scorer came to none.
        label: The score's label.
    """

    sample: str
    repeat: int = 1
    state: AttemptState | None = None
    value: float | None = None
    label: str | None = None

    @property
    def left_out(self) -> str | None:
        """Why it does not count, or ``None`` if it does."""
        if self.state is None:
            return NOT_RUN
        if self.state not in COUNTED:
            return self.state.value
        return UNSCORED if self.value is None else None


@attrs.frozen(kw_only=True)
class Rate:
    """The mean score of some trials, with all that is needed to read it.

    Attributes:
        estimate: The mean, its 95 % interval, and how many values it is of.
        planned: How many trials there are, counted or not.
        left_out: Why trials do not count -> how many.
    """

    estimate: Estimate
    planned: int
    left_out: Mapping[str, int] = attrs.field(factory=dict[str, int])

    def __str__(self) -> str:
        text = f"{self.estimate} of {self.planned} planned"
        if not self.left_out:
            return text
        reasons = ", ".join(f"{count} {why}" for why, count in sorted(self.left_out.items()))
        return f"{text}; left out: {reasons}"


def rate(trials: Iterable[TrialScore]) -> Rate:
    """Return the mean score of the trials that count."""
    listed = list(trials)
    left_out = Counter(trial.left_out for trial in listed if trial.left_out is not None)
    return Rate(
        estimate=estimate(by_sample(listed)),
        planned=len(listed),
        left_out={str(why): count for why, count in left_out.items()},
    )


def by_sample(trials: Iterable[TrialScore]) -> dict[str, list[float]]:
    """Return the values of trials that count, by sample."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        if trial.left_out is None and trial.value is not None:
            found.setdefault(trial.sample, []).append(trial.value)
    return found
