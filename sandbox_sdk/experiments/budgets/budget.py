"""The budget of a run: what a call may use is reserved before it is sent, and settled after.

A budget never changes a request. What does not fit is refused, with the reason. What was reserved
and never settled stays spent, marked estimated. All is synchronous and reads no clock but the one
passed in, so that equal histories give equal decisions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial

import attrs

from sandbox_sdk.experiments.budgets.accounts import Account, Amount, BudgetLine
from sandbox_sdk.experiments.budgets.budget_facts import BudgetFacts
from sandbox_sdk.experiments.budgets.budget_limits import BudgetLimits
from sandbox_sdk.experiments.budgets.budget_refusals import Refusal, no_room, reached
from sandbox_sdk.experiments.budgets.cost import Cost
from sandbox_sdk.experiments.budgets.estimates import FIRST_OUTPUT_TOKENS, CallSize
from sandbox_sdk.experiments.budgets.prices import PricedModel, Prices
from sandbox_sdk.experiments.budgets.reservations import Reservation, Settled
from sandbox_sdk.values import COUNTED, AttemptState

_NO_ERROR = COUNTED | {AttemptState.CANCELLED, AttemptState.BUDGET}


@attrs.frozen(kw_only=True)
class BudgetSummary:
    """What is spent of a budget.

    Attributes:
        lines: How each bound stands; the tokens and cost of the run and of each condition in any
            case.
        hard: Whether nothing can be overspent.
        refused: Calls refused for good, by the kind of bound.
    """

    lines: tuple[BudgetLine, ...]
    hard: bool
    refused: Mapping[str, int]


class Budget:
    """Keeps a run, and each of its conditions, within its bounds.

    Args:
        limits: The bounds.
        prices: What tokens cost.
        clock: Seconds that never step back.
    """

    def __init__(
        self, limits: BudgetLimits, prices: Prices, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self.prices = prices
        self._clock = clock
        self._started = clock()
        self._earlier_seconds = 0.0
        self._run = Account(bounds=limits)
        self._conditions: dict[str, Account] = {}
        self._largest: dict[PricedModel, int] = {}
        self._refused: dict[str, int] = {}

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline; infinite without one, below 0 when it has passed."""
        return math.inf if self.limits.time is None else self.limits.time - self._seconds

    def reserve(self, call: CallSize, condition: str) -> Reservation | Refusal:
        """Reserve what a call may use, in the run and in its condition.

        A refusal that is not final may become a reservation once other calls have settled.

        Args:
            call: What is known of the call.
            condition: The condition it is made for.
        """
        reservation = Reservation(
            self.prices, call.model, self._tokens(call), partial(self._settle, condition)
        )
        refusal = self.may_start(condition) or self._unbounded(call, reservation.cost)
        scopes = self._scopes(condition)
        for account in scopes:
            refusal = refusal or _no_room(account, reservation.amount)
        if refusal is not None:
            if refusal.final:
                self._refused[refusal.kind] = self._refused.get(refusal.kind, 0) + 1
            return refusal
        for account in scopes:
            account.reserve(reservation.amount)
        return reservation

    def may_start(self, condition: str) -> Refusal | None:
        """Return why nothing more may be started for a condition, or ``None`` if it may."""
        if self.limits.time is not None and self.seconds_left <= 0:
            return reached("time", None, self.limits.time, self._seconds, "it is over")
        for account in self._scopes(condition):
            bounds, whose = account.bounds, account.condition
            if bounds.tokens is not None and account.tokens >= bounds.tokens:
                return reached("tokens", whose, bounds.tokens, account.tokens, "all are spent")
            if bounds.cost is not None and account.cost >= bounds.cost:
                used = float(account.cost)
                return reached("cost", whose, float(bounds.cost), used, "all of it is spent")
            if bounds.cpu_time is not None and account.cpu_seconds >= bounds.cpu_time:
                used = account.cpu_seconds
                return reached("cpu_time", whose, bounds.cpu_time, used, "all of it is spent")
            if bounds.error_rate is not None and account.error_rate > bounds.error_rate:
                said = f"{account.errors} of {account.ended} ended attempts failed"
                used = account.error_rate
                return reached("error_rate", whose, bounds.error_rate, used, said)
        return None

    def attempt_ended(
        self, condition: str, state: AttemptState, cpu_seconds: float | None = None
    ) -> None:
        """Count an attempt that ended.

        Args:
            condition: Its condition.
            state: How it ended. A failed model or infrastructure is an error; what the model's
                program did wrong is not.
            cpu_seconds: What its sandboxes used, if that is known.
        """
        for account in self._scopes(condition):
            account.ended += 1
            account.errors += state not in _NO_ERROR
            account.cpu_seconds += cpu_seconds or 0.0

    def restore(self, facts: BudgetFacts) -> None:
        """Count what earlier processes spent on the same run, as its journal tells.

        A call that has no answer in the journal may have been billed: what was reserved for it
        stays spent.
        """
        self._earlier_seconds += facts.seconds
        for call in facts.calls:
            past = call.settled(self.prices)
            if past.usage is not None:
                self._learn(call.model, past.usage.output_tokens)
            for account in self._scopes(call.condition):
                account.take(past.counted, past.estimated)
        for attempt in facts.attempts:
            self.attempt_ended(attempt.condition, attempt.state, attempt.cpu_seconds)

    def summary(self) -> BudgetSummary:
        """Return what is spent, estimated and reserved of every bound."""
        lines = [
            line for account in (self._run, *self._conditions.values()) for line in account.lines()
        ]
        if self.limits.time is not None:
            lines.append(BudgetLine(kind="time", limit=self.limits.time, spent=self._seconds))
        return BudgetSummary(lines=tuple(lines), hard=self.limits.hard, refused={**self._refused})

    @property
    def _seconds(self) -> float:
        return self._earlier_seconds + self._clock() - self._started

    def _settle(self, condition: str, reservation: Reservation, settled: Settled) -> None:
        if settled.usage is not None:
            self._learn(reservation.model, settled.usage.output_tokens)
        for account in self._scopes(condition):
            account.settle(reservation.amount, settled.counted, settled.estimated)

    def _learn(self, model: PricedModel, output_tokens: int) -> None:
        """Remember the longest answer of a model: the next may be as long."""
        self._largest[model] = max(self._largest.get(model, 0), output_tokens)

    def _scopes(self, condition: str) -> tuple[Account, Account]:
        account = self._conditions.get(condition)
        if account is None:
            account = Account(condition=condition, bounds=self.limits.per_condition)
            self._conditions[condition] = account
        return self._run, account

    def _tokens(self, call: CallSize) -> tuple[int, int]:
        sent = call.most_input_tokens() if self.limits.hard else call.input_tokens()
        answered = call.most_output
        if answered is None:
            answered = self._largest.get(call.model, FIRST_OUTPUT_TOKENS)
        return sent, answered

    def _unbounded(self, call: CallSize, cost: Cost | None) -> Refusal | None:
        """Return why no bound could be kept if the call were made."""
        if cost is None and self.limits.cost_bounded:
            return Refusal(kind="cost", message=unpriced(call.model))
        lacks = call.lacks_bound() if self.limits.hard else ""
        return Refusal(kind="tokens", message=f"the budget is hard, and {lacks}") if lacks else None


def unpriced(model: PricedModel) -> str:
    """Return what is said of a model without a price where cost is bounded."""
    return (
        f"{model.name} has no price, so its cost cannot be kept within the budget; give its price "
        'in "prices"'
    )


def _no_room(account: Account, amount: Amount) -> Refusal | None:
    """Return why an amount does not fit beside what is spent and in flight."""
    bounds, whose, reserved = account.bounds, account.condition, account.reserved
    refusal = None
    if bounds.tokens is not None:
        spent = account.tokens
        refusal = no_room("tokens", whose, bounds.tokens, spent, reserved.tokens, amount.tokens)
    if refusal is None and bounds.cost is not None and amount.cost is not None:
        in_flight = reserved.cost or Decimal(0)
        refusal = no_room("cost", whose, bounds.cost, account.cost, in_flight, amount.cost)
    return refusal
