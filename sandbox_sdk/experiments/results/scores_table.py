"""The mean score of each condition, with its interval and with how many trials it is of."""

from __future__ import annotations

import attrs

from sandbox_sdk.experiments.records.run_record import RunRecord
from sandbox_sdk.experiments.results.statistics import Estimate, estimate
from sandbox_sdk.values import COUNTED

RULE = (
    "Counted are trials that ended "
    + ", ".join(sorted(state.value for state in COUNTED))
    + "; not those that a model's provider or the infrastructure failed, that were cancelled, "
    "that the budget had no room for or that were not run, and none without a verdict."
)
"""Which trials count, as it is printed with every rate."""


@attrs.frozen(kw_only=True)
class ConditionScore:
    """What a scorer says of a condition.

    Attributes:
        condition: The label of the condition.
        scorer: The scorer's name.
        estimate: The mean, its 95 % interval, and the number of trials.
        planned: Trials that the condition has.
        unscored: Counted trials that the scorer came to no verdict on.
    """

    condition: str
    scorer: str
    estimate: Estimate
    planned: int
    unscored: int = 0

    @property
    def shown(self) -> str:
        """The mean and its interval."""
        found = self.estimate
        if found.mean is None:
            return "no value"
        ends = found.interval
        between = f" [{ends.low:.3f}, {ends.high:.3f}]" if ends else " [interval unknown]"
        return f"{found.mean:.3f}{between}"

    @property
    def told(self) -> str:
        """Of how many trials it is."""
        unscored = f", {self.unscored} unscored" if self.unscored else ""
        return f"{self.estimate.n} of {self.planned}{unscored}"

    def __str__(self) -> str:
        return f"{self.condition} {self.scorer} {self.shown} (n={self.told})"


def condition_scores(record: RunRecord) -> tuple[ConditionScore, ...]:
    """Return what each scorer says of each condition, in plan order."""
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    unscored: dict[tuple[str, str], int] = {}
    names: dict[str, None] = {}
    for index, row in enumerate(record.ledger.rows):
        if row is None or row.state not in COUNTED:
            continue
        place = record.place(index)
        for name, verdict in (row.scores or {}).items():
            names[name] = None
            cell = (place.condition, name)
            if verdict.value is None:
                unscored[cell] = unscored.get(cell, 0) + 1
            else:
                values.setdefault(cell, {}).setdefault(place.sample, []).append(verdict.value)
    labels = [condition["label"] for condition in record.plan["conditions"]]
    return tuple(
        ConditionScore(
            condition=label,
            scorer=name,
            estimate=estimate(values.get((label, name), {})),
            planned=len(record.keys) // len(labels),
            unscored=unscored.get((label, name), 0),
        )
        for label in labels
        for name in names
    )
