"""How far a run has come: numbers with their denominators, and when it may end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

import attrs

from sandbox_sdk.experiments.budgets.budget import Budget, BudgetSummary
from sandbox_sdk.experiments.records.run_record import RunRecord

_RECENT_SECONDS = 30.0


@attrs.frozen(kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        planned: Trials there are.
        done: Trials that came to their last state.
        kept: Of them, those that were done before.
        running: Trials under way.
        counted: Trials that count in rates.
        states: State -> how many trials are in it.
        replayed: Model calls whose answer was bought before.
        tokens: Tokens that were paid for.
        budget: What is spent of the budget.
    """

    planned: int
    done: int
    kept: int
    running: int
    counted: int
    states: Mapping[str, int]
    replayed: int
    tokens: int
    budget: BudgetSummary


def progress_of(record: RunRecord, kept: int, running: int, budget: Budget) -> Progress:
    """Return how far a run has come."""
    ledger = record.ledger
    return Progress(
        planned=len(record.keys),
        done=ledger.done,
        kept=kept,
        running=running,
        counted=ledger.counted,
        states={state.value: count for state, count in ledger.states.items() if count},
        replayed=ledger.replayed_calls,
        tokens=ledger.paid_tokens,
        budget=budget.summary(),
    )


class Pace:
    """When a run may end, by what was done in the last half minute and not by its mean."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def seconds_left(self, progress: Progress, now: float | None = None) -> float | None:
        """Return the seconds that the rest may take; ``None`` while nobody can tell.

        Args:
            progress: How far the run has come.
            now: Seconds of a clock that never steps back; by default this machine's.
        """
        now = time.monotonic() if now is None else now
        self._seen.append((now, progress.done))
        while len(self._seen) > 2 and self._seen[0][0] < now - _RECENT_SECONDS:
            self._seen.popleft()
        (then, before), seconds = self._seen[0], now - self._seen[0][0]
        gained = progress.done - before
        if gained <= 0 or seconds <= 0 or then == now:
            return None
        return (progress.planned - progress.done) * seconds / gained
