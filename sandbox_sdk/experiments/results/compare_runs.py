"""Compares runs, or conditions of one run, as their folders tell them: what belongs together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.experiments.records.digests import digest
from sandbox_sdk.experiments.records.run_folder import read_samples
from sandbox_sdk.experiments.records.run_record import RunRecord
from sandbox_sdk.experiments.results.compare import Comparison, compare
from sandbox_sdk.experiments.results.rates import TrialScore
from sandbox_sdk.experiments.results.tables import NOT_RUN, outcome_rows, scorer_names
from sandbox_sdk.values import AttemptState


@attrs.frozen(kw_only=True)
class Side:
    """One side of a comparison.

    Attributes:
        record: The run.
        condition: The label of one of its conditions; ``None`` leaves open which.
    """

    record: RunRecord
    condition: str | None = None

    @property
    def labels(self) -> list[str]:
        """The labels of the conditions that may be meant."""
        if self.condition is not None:
            return [self.condition]
        return [condition["label"] for condition in self.record.plan["conditions"]]

    def name(self, label: str) -> str:
        """Return what a condition of it is called beside those of another run."""
        return f"{self.record.id}:{label}"


@attrs.frozen(kw_only=True)
class RunComparison:
    """What was compared, and what a reader should know of it.

    Attributes:
        comparisons: One for each scorer and pair of conditions.
        warnings: What makes the sides less alike than they look.
    """

    comparisons: tuple[Comparison, ...]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = [str(comparison) for comparison in self.comparisons]
        return "\n\n".join([*told, *(f"warning: {text}" for text in self.warnings)])

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        told = [comparison.to_json() for comparison in self.comparisons]
        return {"comparisons": told, "warnings": list(self.warnings)}


def compare_runs(first: Side, second: Side, *, scorer: str | None = None) -> RunComparison:
    """Compare two sides, each scorer of both for itself. Reads the disk.

    Conditions are compared with those of the same label; where both sides have only one, these
    are compared whatever they are called.

    Args:
        first: The side that is compared with.
        second: The side that is compared.
        scorer: The only scorer to look at.

    Raises:
        ConfigError: A condition or scorer is not there, or it is open which is meant.
        StateError: A run's folder is damaged.
    """
    for side in (first, second):
        _check_condition(side)
    pairs = _pairs(first, second)
    names = _scorers(first, second, scorer)
    found: list[Comparison] = []
    for one, other in pairs:
        before, after = _scores(first.record, one, names), _scores(second.record, other, names)
        sides = first.name(one), second.name(other)
        found += [compare(before[name], after[name], scorer=name, names=sides) for name in names]
    return RunComparison(
        comparisons=tuple(found), warnings=tuple(_warnings(first.record, second.record, names))
    )


def _check_condition(side: Side) -> None:
    known = [condition["label"] for condition in side.record.plan["conditions"]]
    if side.condition is not None and side.condition not in known:
        raise ConfigError(
            f"the run {side.record.id} has no condition {side.condition!r}; it has "
            + ", ".join(map(repr, known))
        )


def _pairs(first: Side, second: Side) -> list[tuple[str, str]]:
    left, right = first.labels, second.labels
    same_run = first.record.id == second.record.id
    if len(left) == len(right) == 1 and not (same_run and left == right):
        return [(left[0], right[0])]
    shared = [] if same_run else [(label, label) for label in left if label in right]
    if shared:
        return shared
    raise ConfigError(
        "it is open which conditions to compare: write RUN:CONDITION for both; "
        f"{first.record.id} has {', '.join(map(repr, left))}, "
        f"{second.record.id} has {', '.join(map(repr, right))}"
    )


def _scorers(first: Side, second: Side, asked: str | None) -> list[str]:
    left, right = scorer_names(first.record), scorer_names(second.record)
    shared = [name for name in left if name in right]
    if asked is None and shared:
        return shared
    if asked in shared:
        return [asked]
    wanted = "a scorer" if asked is None else f"the scorer {asked!r}"
    raise ConfigError(
        f"there is no score of {wanted} in both runs: {first.record.id} has "
        f"{', '.join(left) or 'none'}, {second.record.id} has {', '.join(right) or 'none'}"
    )


# Any: a row's cells are text, numbers or nothing.
def _scores(record: RunRecord, label: str, names: list[str]) -> dict[str, list[TrialScore]]:
    found: dict[str, list[TrialScore]] = {name: [] for name in names}
    rows: Iterator[dict[str, Any]] = outcome_rows(record)
    for row in rows:
        if row["condition"] != label:
            continue
        state = None if row["state"] == NOT_RUN else AttemptState(row["state"])
        for name in names:
            found[name].append(
                TrialScore(
                    sample=row["sample"],
                    repeat=row["repeat"],
                    state=state,
                    value=row[f"score.{name}"],
                    label=row[f"label.{name}"],
                )
            )
    return found


def _warnings(first: RunRecord, second: RunRecord, names: list[str]) -> Iterator[str]:
    if first.id == second.id:
        return
    left, right = _digests(first), _digests(second)
    for name in names:
        if left.get(name) != right.get(name):
            yield f"the scorer {name} is not the same in both runs: score one of them anew"
    before, after = (
        {row["id"]: digest(row) for row in read_samples(record.folder, record.payloads)}
        for record in (first, second)
    )
    changed = [sample for sample in before if after.get(sample, before[sample]) != before[sample]]
    if changed:
        named = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        yield f"{len(changed)} samples of the same id are not the same in both runs: {named}"
    for record in (first, second):
        if record.live:
            yield f"the run {record.id} goes on: its numbers are those of this moment"


def _digests(record: RunRecord) -> dict[str, str]:
    scorers: list[dict[str, str]] = record.plan["config"].get("scorers", [])
    return {scorer["name"]: scorer["digest"] for scorer in scorers}
