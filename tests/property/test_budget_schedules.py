"""Budgets under schedules that nobody would write: what is overspent, and what a kill keeps."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_sdk.experiments.budgets.budget import Budget
from sandbox_sdk.experiments.budgets.budget_facts import BudgetFacts, CallFact
from sandbox_sdk.experiments.budgets.budget_limits import Bounds, BudgetLimits
from sandbox_sdk.experiments.budgets.cost import Price
from sandbox_sdk.experiments.budgets.estimates import CallSize
from sandbox_sdk.experiments.budgets.prices import PricedModel, Prices
from sandbox_sdk.experiments.budgets.reservations import Reservation
from sandbox_sdk.experiments.usage import TokenUsage

MODEL = PricedModel(provider="openai", model="m")
PRICE = Price(input=Decimal(2), output=Decimal(8), cache_write=Decimal("2.5"))
PRICES = Prices({"m": PRICE}, public=False)
CONDITIONS = ("a", "b")


@attrs.frozen(kw_only=True)
class Ask:
    """A call, and what it will really use, as shares of what a hard budget reserves."""

    condition: Literal["a", "b"]
    input_bytes: int
    known: float
    most_output: int
    sent: float
    cached: float
    answered: float


@attrs.frozen(kw_only=True)
class End:
    """The end of the call that was sent at some place among those in flight."""

    which: int
    how: Literal["settled", "lost", "refused", "killed"]


SHARE = st.floats(0, 1)
ASK = st.builds(
    Ask,
    condition=st.sampled_from(CONDITIONS),
    input_bytes=st.integers(10, 5_000),
    known=SHARE,
    most_output=st.integers(1, 2_000),
    sent=SHARE,
    cached=SHARE,
    answered=SHARE,
)
ENDS = ("settled",) * 6 + ("lost", "lost", "refused", "killed")
END = st.builds(End, which=st.integers(0, 100), how=st.sampled_from(ENDS))
SCHEDULE = st.lists(st.one_of(ASK, ASK, END), max_size=60)
BOUNDS = st.builds(
    Bounds,
    tokens=st.none() | st.integers(1, 60_000),
    cost=st.none() | st.integers(1, 200_000).map(lambda n: Decimal(n) / 1_000_000),
)


@attrs.define(kw_only=True)
class Flight:
    """A call in flight, with what the provider will have billed for it."""

    ask: Ask
    reservation: Reservation
    usage: TokenUsage


@attrs.define
class World:
    """A run over several processes, and what was really billed in it."""

    limits: BudgetLimits
    budget: Budget = attrs.field(init=False)
    flying: list[Flight] = attrs.field(factory=list)
    ended: list[tuple[Flight, TokenUsage | None]] = attrs.field(factory=list)
    billed: list[tuple[str, TokenUsage]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.budget = self.new_budget()

    def new_budget(self) -> Budget:
        return Budget(self.limits, PRICES, clock=lambda: 0.0)

    def ask(self, ask: Ask) -> bool:
        """Make a call if the budget lets; return whether it did."""
        known = int(ask.input_bytes * ask.known)
        call = CallSize(
            model=MODEL,
            input_bytes=ask.input_bytes,
            known_bytes=known,
            known_tokens=known // 4,
            most_output=ask.most_output,
        )
        given = self.budget.reserve(call, ask.condition)
        if not isinstance(given, Reservation):
            return False
        sent = int(ask.sent * ask.input_bytes)
        usage = TokenUsage(
            input_tokens=sent,
            output_tokens=int(ask.answered * ask.most_output),
            cache_write_tokens=int(ask.cached * sent),
        )
        self.flying.append(Flight(ask=ask, reservation=given, usage=usage))
        return True

    def end(self, end: End) -> None:
        if end.how == "killed":
            self.kill()
        elif self.flying:
            flight = self.flying.pop(end.which % len(self.flying))
            if end.how == "refused":
                flight.reservation.release()
                return
            usage = flight.usage if end.how == "settled" else None
            flight.reservation.settle(usage)
            self.bill(flight, usage)

    def kill(self) -> None:
        """Lose the process, with all that was in flight, and start over from what was recorded."""
        for flight in self.flying:
            self.bill(flight, None)
        self.flying.clear()
        facts = tuple(
            CallFact(
                condition=flight.ask.condition,
                model=MODEL,
                reserved_tokens=flight.reservation.amount.tokens,
                reserved_cost=flight.reservation.amount.cost,
                lost_sends=int(usage is None),
                usage=usage,
            )
            for flight, usage in self.ended
        )
        self.budget = self.new_budget()
        self.budget.restore(BudgetFacts(calls=facts))

    def bill(self, flight: Flight, usage: TokenUsage | None) -> None:
        self.ended.append((flight, usage))
        self.billed.append((flight.ask.condition, flight.usage))

    def spent(self, condition: str | None) -> tuple[int, Decimal]:
        """What was really billed, in a condition or in all."""
        usages = [usage for whose, usage in self.billed if condition in (None, whose)]
        return sum(usage.total_tokens for usage in usages), sum(
            (PRICE.of(usage) for usage in usages), Decimal(0)
        )

    def bounds(self) -> list[tuple[str | None, Bounds]]:
        each = [(condition, self.limits.per_condition) for condition in CONDITIONS]
        return [(None, self.limits), *each]


@settings(max_examples=100)
@given(SCHEDULE, BOUNDS, BOUNDS)
def test_a_hard_budget_is_never_overspent_whatever_comes_in_which_order(
    schedule: list[Ask | End], run: Bounds, each: Bounds
) -> None:
    world = World(BudgetLimits(tokens=run.tokens, cost=run.cost, per_condition=each, hard=True))
    for step in schedule:
        if isinstance(step, Ask):
            world.ask(step)
        else:
            world.end(step)
        for condition, bounds in world.bounds():
            tokens, cost = world.spent(condition)
            assert bounds.tokens is None or tokens <= bounds.tokens
            assert bounds.cost is None or cost <= bounds.cost
    for flight in world.flying:
        world.bill(flight, flight.usage)
    tokens, cost = world.spent(None)
    assert run.tokens is None or tokens <= run.tokens
    assert run.cost is None or cost <= run.cost


@settings(max_examples=100)
@given(SCHEDULE, BOUNDS)
def test_a_soft_budget_is_overspent_by_no_more_than_was_in_flight(
    schedule: list[Ask | End], run: Bounds
) -> None:
    world = World(BudgetLimits(tokens=run.tokens, cost=run.cost))
    in_flight = TokenUsage()
    for step in schedule:
        if isinstance(step, Ask):
            if world.ask(step):
                in_flight = sum((flight.usage for flight in world.flying), TokenUsage())
        elif step.how == "settled":  # of what is lost, nobody knows what it cost
            world.end(step)
        tokens, cost = world.spent(None)
        assert run.tokens is None or tokens <= run.tokens + in_flight.total_tokens
        assert run.cost is None or cost <= run.cost + PRICE.of(in_flight)


@settings(max_examples=100)
@given(SCHEDULE, BOUNDS)
def test_a_kill_at_any_point_keeps_what_was_spent_and_takes_what_was_in_flight_for_spent(
    schedule: list[Ask | End], run: Bounds
) -> None:
    world = World(BudgetLimits(tokens=run.tokens, cost=run.cost))
    for step in schedule:
        if isinstance(step, Ask):
            world.ask(step)
        else:
            world.end(step)
    before = {(line.kind, line.condition): line for line in world.budget.summary().lines}
    world.kill()
    after = {(line.kind, line.condition): line for line in world.budget.summary().lines}
    for key, line in after.items():
        was = before[key]
        assert (line.spent, line.reserved) == (was.spent, 0)
        assert line.estimated == sum_of(was.estimated, was.reserved)


def sum_of(*dollars: float) -> float:
    return float(sum(Decimal(str(amount)) for amount in dollars))
