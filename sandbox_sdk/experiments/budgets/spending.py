"""An attempt's part in the budget: room is reserved before each send, waited for if need be."""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import anyio
import attrs

from sandbox_sdk.errors import ModelError
from sandbox_sdk.experiments.budgets.accounts import Amount
from sandbox_sdk.experiments.budgets.budget import Budget
from sandbox_sdk.experiments.budgets.budget_limits import BudgetLimits
from sandbox_sdk.experiments.budgets.budget_refusals import Refusal
from sandbox_sdk.experiments.budgets.cost import Cost
from sandbox_sdk.experiments.budgets.estimates import CallSize, call_size
from sandbox_sdk.experiments.budgets.prices import PricedModel, Prices
from sandbox_sdk.experiments.budgets.reservations import Reservation, settled
from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest
from sandbox_sdk.experiments.results.outcome import Outcome
from sandbox_sdk.experiments.results.result import Failure, LimitHit
from sandbox_sdk.policies import Purse
from sandbox_sdk.values import AttemptState


class OutOfBudget(Exception):
    """A call does not fit into the budget, now or later."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal

    @property
    def outcome(self) -> Outcome:
        """How an attempt ends that cannot go on without the call."""
        refusal = self.refusal
        limit = LimitHit(type=f"budget.{refusal.kind}", limit=refusal.limit, used=refusal.used)
        failure = Failure(type="budget", message=refusal.message)
        return Outcome(state=AttemptState.BUDGET, limit=limit, error=failure)


class BudgetGate:
    """Lets attempts into a budget that they share, and wakes those that wait for room.

    Args:
        budget: The budget.
        purse: Says besides whether anything may be spent.
        metadata: Condition -> what the purse knows its sandboxes by.
    """

    def __init__(
        self,
        budget: Budget,
        purse: Purse | None = None,
        metadata: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.budget = budget
        self._purse = purse
        self._metadata = metadata or {}
        self._settled = anyio.Event()

    @classmethod
    def unbounded(
        cls,
        prices: Prices,
        purse: Purse | None = None,
        metadata: Mapping[str, Mapping[str, str]] | None = None,
    ) -> BudgetGate:
        """Return a gate that lets in all that the purse pays for, and counts it."""
        return cls(Budget(BudgetLimits(), prices), purse, metadata)

    async def enter(self, call: CallSize, condition: str) -> Reservation:
        """Return once there is room for a call.

        Raises:
            OutOfBudget: There is none, and what is in flight can leave none.
            PolicyDenied: A rule of the operator's allows no more spending.
        """
        while True:
            if self._purse is not None:  # also after a wait, in which others spent
                self._purse.paying(self._metadata.get(condition, {}))
            event = self._settled
            found = self.budget.reserve(call, condition)
            if isinstance(found, Reservation):
                return found
            if found.final:
                raise OutOfBudget(found)
            await event.wait()

    def left(self, condition: str = "", cost: Decimal | None = None) -> None:
        """Wake those that wait: a reservation was settled or released.

        Args:
            condition: Whose it was.
            cost: What is spent of it, in US dollars, as far as that is known.
        """
        if self._purse is not None and cost:
            self._purse.paid(self._metadata.get(condition, {}), cost)
        event, self._settled = self._settled, anyio.Event()
        event.set()


@attrs.frozen(kw_only=True)
class Charge:
    """What a call came to.

    Attributes:
        amount: Tokens and dollars that are spent, or taken for spent where nobody told them.
        cost: What the provider's counts cost, where that is known.
    """

    amount: Amount
    cost: Cost | None = None


class Spending:
    """Reserves and settles the calls of one conversation, one after the other.

    Args:
        gate: The budget.
        model: Whose price the calls have.
        condition: The condition they are made for.
    """

    def __init__(self, gate: BudgetGate, model: PricedModel, condition: str = "") -> None:
        self.waited = 0.0
        self._gate = gate
        self._model = model
        self._condition = condition
        self._known_bytes = self._known_tokens = 0
        self._call: CallSize | None = None
        self._reservation: Reservation | None = None

    # Any: what the journal keeps, which is JSON.
    async def reserve(self, request: ModelRequest) -> dict[str, Any]:
        """Wait until there is room for one send of a call, and return what was reserved.

        Raises:
            OutOfBudget: There will be none.
        """
        started = time.monotonic()
        self._call = call_size(
            self._model,
            request,
            known_bytes=self._known_bytes,
            known_tokens=self._known_tokens,
        )
        try:
            self._reservation = await self._gate.enter(self._call, self._condition)
        finally:
            self.waited += time.monotonic() - started
        return self._reservation.to_json()

    def answered(self, output: ModelOutput) -> Charge:
        """Settle the call by its answer."""
        usage, reservation = output.usage, self._reservation
        if reservation is None or self._call is None:
            raise AssertionError("unreachable: what was answered was reserved")
        cost = reservation.settle(usage)
        how = settled(usage, cost, reservation.amount)
        charge = Charge(amount=how.counted + how.estimated, cost=cost)
        self._gate.left(self._condition, charge.amount.cost)
        self._reservation = None
        if not usage.unmetered_requests:
            self._known_bytes, self._known_tokens = self._call.input_bytes, usage.input_tokens
        return charge

    def replayed(self, output: ModelOutput, *, at: float | None) -> Charge:
        """Return what an answer cost when it was bought; nothing is spent on it now.

        Args:
            output: The answer.
            at: When it was bought, in seconds since the epoch.
        """
        cost = self._gate.budget.prices.cost(self._model, output.usage, at=at)
        dollars = None if cost is None else cost.total
        return Charge(amount=Amount(tokens=output.usage.total_tokens, cost=dollars), cost=cost)

    def failed(self, error: ModelError) -> bool | None:
        """Settle a send that failed; return ``False`` if it was not billed, else ``None``."""
        if not error.unbilled:
            self.lost()
            return None
        if self._reservation is not None:
            self._reservation.release()
            self._close(None)
        return False

    def lost(self) -> None:
        """Leave spent what is reserved, if anything is: nobody knows what was billed."""
        if self._reservation is not None:
            self._reservation.settle(None)
            self._close(self._reservation.amount.cost)

    def _close(self, spent: Decimal | None) -> None:
        self._reservation = None
        self._gate.left(self._condition, spent)
