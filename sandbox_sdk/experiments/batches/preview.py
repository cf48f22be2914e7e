"""What a batch would do, told before anything is done or spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import attrs

from sandbox_sdk.experiments.batches.opening import opening
from sandbox_sdk.experiments.batches.plan import Plan, PlannedTrial
from sandbox_sdk.experiments.batches.reuse import Source
from sandbox_sdk.experiments.budgets.estimates import (
    CallSize,
    PlannedTrials,
    SpendEstimate,
    call_size,
    estimate_spend,
)
from sandbox_sdk.experiments.budgets.prices import Prices
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.ledger import OPEN_STATES
from sandbox_sdk.experiments.records.run_record import RunRecord
from sandbox_sdk.experiments.scorers import Scorer
from sandbox_sdk.experiments.scorers.graded import graders_of
from sandbox_sdk.experiments.tools.tool_kinds import tool_schemas
from sandbox_sdk.values import AttemptState

_RETRIED = frozenset({AttemptState.MODEL_ERROR, AttemptState.INFRA_ERROR})


@attrs.frozen(kw_only=True)
class BatchPreview:
    """What a batch would do.

    Attributes:
        planned: Trials there are.
        run: The run that would go on; ``None`` if one would be begun.
        kept: Trials that are done in it.
        reused: Trials that would be taken from another run.
        rescored: Of them, those that a scorer would judge anew.
        to_run: Trials that would be run.
        by_condition: Label of a condition -> how many of its trials would be run.
        spend: What is expected to be spent on models, if each trial that is run makes one call;
            graders' calls are in it, of answers that are not known yet and so count no tokens.
    """

    planned: int
    run: str | None
    kept: int
    reused: int
    rescored: int
    to_run: int
    by_condition: dict[str, int]
    spend: SpendEstimate


def preview(
    plan: Plan,
    found: RunRecord | None,
    source: Source | None,
    models: ModelRegistry,
    prices: Prices,
    *,
    retry_failed: bool,
) -> BatchPreview:
    """Return what a plan would do.

    Args:
        plan: The plan.
        found: The run that would go on.
        source: The run that trials would be taken from.
        models: The client's models.
        prices: What tokens cost.
        retry_failed: Whether trials that a provider or infrastructure failed are taken up.
    """
    kept = reused = rescored = 0
    by_condition: Counter[str] = Counter()
    calls: Counter[tuple[CallSize, int]] = Counter()
    for trial in plan:
        state = found.ledger.row(trial.index).state if found else None
        if state is not None and state not in OPEN_STATES:
            if not (retry_failed and state in _RETRIED):
                kept += 1
                continue
        elif source is not None and trial.key in source:
            reused += 1
            judging = source.unscored_by(trial, plan.batch.scorers)
            rescored += bool(judging)
            calls.update(_gradings(trial, judging, models))
            continue
        by_condition[trial.condition.label] += 1
        if trial.config.model is not None:
            calls[_first_call(trial, models)] += 1
        calls.update(_gradings(trial, plan.batch.scorers, models))
    planned = [
        PlannedTrials(trials=count, call=call, turns=turns)
        for (call, turns), count in calls.items()
    ]
    return BatchPreview(
        planned=len(plan),
        run=found.id if found else None,
        kept=kept,
        reused=reused,
        rescored=rescored,
        to_run=by_condition.total(),
        by_condition=dict(by_condition),
        spend=estimate_spend(planned, prices),
    )


def _gradings(
    trial: PlannedTrial, scorers: Iterable[Scorer], models: ModelRegistry
) -> Iterator[tuple[CallSize, int]]:
    """Yield the calls that scorers make to judge a trial."""
    for _, grader in graders_of(scorers):
        config = grader.asking
        messages = tuple(grader.first_messages(trial.sample))
        request = attrs.evolve(models.request(config)[1], messages=messages)
        yield call_size(models.priced(config), request), 1


def _first_call(trial: PlannedTrial, models: ModelRegistry) -> tuple[CallSize, int]:
    config = trial.config
    _, request = models.request(config)
    blocks = trial.blocks
    request = attrs.evolve(
        request,
        messages=tuple(opening(config, blocks=blocks)),
        tools=() if blocks else tool_schemas(config.tools),
    )
    turns = config.limits.turns if config.tools and not config.single_turn else 1
    return call_size(models.priced(config), request), turns
