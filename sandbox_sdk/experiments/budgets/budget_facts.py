"""What a run's journal tells of what was spent, so that a budget survives the process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import attrs

from sandbox_sdk.experiments.budgets.accounts import Amount
from sandbox_sdk.experiments.budgets.cost import Cost
from sandbox_sdk.experiments.budgets.prices import PricedModel, Prices
from sandbox_sdk.experiments.budgets.reservations import Settled, settled
from sandbox_sdk.experiments.records.events import Event
from sandbox_sdk.experiments.usage import TokenUsage
from sandbox_sdk.values import AttemptState


@attrs.frozen(kw_only=True)
class CallFact:
    """One model call of the past.

    Attributes:
        condition: The condition it was made for.
        model: Whose price it had.
        reserved_tokens: Tokens that were reserved for each send of it.
        reserved_cost: US dollars, likewise; ``None`` if the model had no price.
        lost_sends: Sends of which nothing came back, so that they may have been billed.
        usage: What the provider counted, where it answered.
        cost: What that cost, where it was known.
        time: When it was sent, in seconds since the epoch.
    """

    condition: str
    model: PricedModel
    reserved_tokens: int
    reserved_cost: Decimal | None = None
    lost_sends: int = 0
    usage: TokenUsage | None = None
    cost: Cost | None = None
    time: float = 0.0

    def settled(self, prices: Prices) -> Settled:
        """Return what it came to, by the prices of its time where the journal has none."""
        usage, cost = self.usage, self.cost
        reserved = Amount(tokens=self.reserved_tokens, cost=self.reserved_cost)
        if usage is not None and cost is None:
            cost = prices.cost(self.model, usage, at=self.time)
        answer = Settled() if usage is None else settled(usage, cost, reserved)
        for _ in range(self.lost_sends):
            answer = attrs.evolve(answer, estimated=answer.estimated + reserved)
        return answer


@attrs.frozen(kw_only=True)
class AttemptFact:
    """One attempt that ended.

    Attributes:
        condition: Its condition.
        state: How it ended.
        cpu_seconds: What its sandboxes used, if that is known.
    """

    condition: str
    state: AttemptState
    cpu_seconds: float | None = None


@attrs.frozen(kw_only=True)
class BudgetFacts:
    """What was spent in the past.

    Attributes:
        calls: The model calls that a budget was asked for; replayed ones cost nothing and are none.
        attempts: The attempts that ended.
        seconds: How long processes worked on the run.
    """

    calls: tuple[CallFact, ...] = ()
    attempts: tuple[AttemptFact, ...] = ()
    seconds: float = 0.0


_NEW_PROCESS = frozenset({"run.started", "run.resumed"})
# A process that goes on with a run has a clock of its own.


def budget_facts(events: Iterable[Event], conditions: Mapping[str, str]) -> BudgetFacts:
    """Return what a journal tells of what was spent.

    Args:
        events: The journal.
        conditions: Trial key -> its condition.
    """
    calls: dict[tuple[Any, ...], CallFact] = {}
    attempts: list[AttemptFact] = []
    seconds = 0.0
    first: float | None = None
    last = 0.0
    for event in events:
        if first is None or event.type in _NEW_PROCESS:
            seconds += 0.0 if first is None else last - first
            first = event.monotonic
        last = event.monotonic
        if event.trial is None or event.trial not in conditions:
            continue
        condition, data = conditions[event.trial], event.data
        key = (event.trial, event.attempt, data.get("role"), data.get("call"))
        match event.type:
            case "model.requested" if data.get("reserved"):
                calls[key] = _requested(condition, event)
            case "model.retried" | "model.failed" if key in calls:
                # A send that was refused cost nothing; one that a retry announces may be lost.
                change = (event.type == "model.retried") - (data["billed"] is False)
                calls[key] = attrs.evolve(calls[key], lost_sends=calls[key].lost_sends + change)
            case "model.responded" if key in calls:
                calls[key] = _responded(calls[key], data)
            case "attempt.finished":
                use: Mapping[str, Any] = data.get("resource_usage") or {}
                state = AttemptState(data["state"])
                fact = AttemptFact(
                    condition=condition, state=state, cpu_seconds=use.get("cpu_seconds")
                )
                attempts.append(fact)
            case _:
                pass  # nothing is spent by it
    seconds += 0.0 if first is None else max(0.0, last - first)
    return BudgetFacts(calls=tuple(calls.values()), attempts=tuple(attempts), seconds=seconds)


def _requested(condition: str, event: Event) -> CallFact:
    reserved: Mapping[str, Any] = event.data["reserved"]
    cost = reserved["cost"]
    return CallFact(
        condition=condition,
        model=PricedModel(**reserved["model"]),
        reserved_tokens=reserved["input_tokens"] + reserved["output_tokens"],
        reserved_cost=None if cost is None else Decimal(cost),
        lost_sends=1,
        time=event.time,
    )


def _responded(call: CallFact, data: Mapping[str, Any]) -> CallFact:
    usage = TokenUsage(**data["usage"])
    cost = data.get("cost")
    return attrs.evolve(
        call,
        usage=usage,
        cost=Cost.from_json(cost) if cost else None,
        lost_sends=call.lost_sends - 1,  # the last of them was answered
    )
