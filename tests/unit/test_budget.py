"""A budget: what it reserves, what it refuses and why, and what its journal brings back."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import anyio
import attrs
import pytest

from sandbox_sdk.errors import ConfigError, PolicyDenied
from sandbox_sdk.experiments.budgets.budget import Budget
from sandbox_sdk.experiments.budgets.budget_check import BudgetedModel, check_budget
from sandbox_sdk.experiments.budgets.budget_facts import AttemptFact, BudgetFacts, budget_facts
from sandbox_sdk.experiments.budgets.budget_limits import budget_json, read_budget
from sandbox_sdk.experiments.budgets.budget_refusals import Refusal
from sandbox_sdk.experiments.budgets.cost import Price
from sandbox_sdk.experiments.budgets.estimates import (
    FIRST_OUTPUT_TOKENS,
    CallSize,
    PlannedTrials,
    call_size,
    estimate_spend,
)
from sandbox_sdk.experiments.budgets.prices import PricedModel, Prices
from sandbox_sdk.experiments.budgets.reservations import Reservation
from sandbox_sdk.experiments.budgets.spending import BudgetGate
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.models.base import ModelRequest
from sandbox_sdk.experiments.records.events import Event
from sandbox_sdk.experiments.usage import TokenUsage
from sandbox_sdk.values import AttemptState

MODEL = PricedModel(provider="openai", model="m")
PRICES = Prices({"m": Price(input=Decimal(1), output=Decimal(2))}, public=False)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def budget(prices: Prices = PRICES, clock: Clock | None = None, **limits: Any) -> Budget:
    return Budget(read_budget(limits, "budget"), prices, clock=clock or Clock())


def size(input_bytes: int = 30, most: int | None = 10, **more: Any) -> CallSize:
    return CallSize(model=MODEL, input_bytes=input_bytes, most_output=most, **more)


def granted(found: Reservation | Refusal) -> Reservation:
    assert isinstance(found, Reservation), found
    return found


def refused(found: Reservation | Refusal | None) -> Refusal:
    assert isinstance(found, Refusal)
    return found


def line(of: Budget, kind: str, condition: str | None = None) -> tuple[Any, Any, Any]:
    lines = of.summary().lines
    (found,) = [at for at in lines if (at.kind, at.condition) == (kind, condition)]
    return found.spent, found.estimated, found.reserved


def test_input_is_the_last_known_usage_and_a_third_of_the_new_bytes() -> None:
    first = granted(budget().reserve(size(3_001), "a"))
    assert first.input_tokens == 1_001
    later = size(3_001, known_bytes=3_000, known_tokens=700)
    assert granted(budget().reserve(later, "a")).input_tokens == 701
    assert granted(budget(hard=True).reserve(later, "a")).input_tokens == 3_001


def test_output_is_n_times_max_tokens_else_the_longest_answer_seen() -> None:
    request = ModelRequest(model="m", parameters={"max_tokens": 20, "n": 3})
    assert call_size(MODEL, request).most_output == 60
    run = budget()
    assert granted(run.reserve(size(most=60), "a")).output_tokens == 60
    unknown = granted(run.reserve(size(most=None), "a"))
    assert unknown.output_tokens == FIRST_OUTPUT_TOKENS == 4096
    unknown.settle(TokenUsage(input_tokens=1, output_tokens=50))
    granted(run.reserve(size(most=None), "a")).settle(TokenUsage(output_tokens=30))
    assert granted(run.reserve(size(most=None), "a")).output_tokens == 50


def test_a_call_is_measured_by_its_messages_tools_and_the_schema_of_its_answer() -> None:
    message = {"role": "user", "content": "x" * 90}
    bare = call_size(MODEL, ModelRequest(model="m", messages=(message,)))
    assert 90 < bare.input_bytes < 150
    tool = {"type": "function", "function": {"name": "f" * 100}}
    schema = {"response_format": {"type": "json_schema", "json_schema": {"name": "a" * 100}}}
    request = ModelRequest(model="m", messages=(message,), tools=(tool,), parameters=schema)
    full = call_size(MODEL, request)
    assert full.input_bytes > bare.input_bytes + 200
    assert (bare.tools, full.tools) == (False, True)
    assert full.most_input_tokens() > full.input_bytes >= bare.most_input_tokens()


def test_usage_settles_what_was_reserved_and_its_cost_is_told() -> None:
    run = budget(tokens=1000, cost=1)
    reservation = granted(run.reserve(size(300, 100), "a"))
    assert line(run, "tokens") == line(run, "tokens", "a") == (0, 0, 200)
    assert line(run, "cost") == (0, 0, 0.0003)
    cost = reservation.settle(TokenUsage(input_tokens=90, output_tokens=5))
    assert cost is not None
    assert cost.total == Decimal("0.0001")
    assert line(run, "tokens") == line(run, "tokens", "a") == (95, 0, 0)
    assert line(run, "cost") == (0.0001, 0, 0)
    reservation.settle(TokenUsage(input_tokens=90, output_tokens=5))
    reservation.release()
    assert line(run, "tokens") == (95, 0, 0)


@pytest.mark.parametrize("usage", [None, TokenUsage(requests=1, unmetered_requests=1)])
def test_without_usage_what_was_reserved_stays_spent_marked_estimated(
    usage: TokenUsage | None,
) -> None:
    run = budget(tokens=300)
    reservation = granted(run.reserve(size(300, 100), "a"))
    assert reservation.settle(usage) is None
    assert line(run, "tokens") == (0, 200, 0)
    assert refused(run.reserve(size(300, 100), "a")).final


def test_a_call_that_was_refused_unbilled_gives_all_back() -> None:
    run = budget(tokens=200)
    granted(run.reserve(size(300, 100), "a")).release()
    granted(run.reserve(size(300, 100), "a"))


def test_what_does_not_fit_is_refused_and_waiting_helps_only_while_others_fly() -> None:
    run = budget(tokens=300)
    flying = granted(run.reserve(size(300, 100), "a"))
    refusal = refused(run.reserve(size(300, 100), "a"))
    assert (refusal.kind, refusal.condition, refusal.limit) == ("tokens", None, 300)
    assert (refusal.used, refusal.needed, refusal.final) == (200, 200, False)
    assert "budget.tokens of 300" in refusal.message
    assert run.summary().refused == {}
    flying.settle(TokenUsage(input_tokens=150, output_tokens=1))
    assert refused(run.reserve(size(300, 100), "a")).final
    assert run.summary().refused == {"tokens": 1}
    granted(run.reserve(size(30, 10), "a"))


class Purse:
    """Pays for one call."""

    def __init__(self) -> None:
        self.paid_for = 0

    def paying(self, metadata: Mapping[str, str]) -> None:
        if self.paid_for:
            raise PolicyDenied("spent", rule="purse")

    def paid(self, metadata: Mapping[str, str], cost: Decimal) -> None:
        self.paid_for += 1


@pytest.mark.anyio
async def test_a_call_that_waited_for_room_is_not_paid_from_a_purse_emptied_meanwhile() -> None:
    gate = BudgetGate(budget(tokens=30), Purse())
    first = await gate.enter(size(), "a")
    refusals: list[PolicyDenied] = []

    async def enter() -> None:
        try:
            await gate.enter(size(), "a")
        except PolicyDenied as denial:
            refusals.append(denial)

    async with anyio.create_task_group() as group:
        group.start_soon(enter)
        await anyio.wait_all_tasks_blocked()
        assert not refusals  # it waits for room
        first.settle(TokenUsage(input_tokens=1, output_tokens=1, requests=1))
        gate.left("a", Decimal(1))
    assert [denial.rule for denial in refusals] == ["purse"]


def test_a_condition_has_bounds_of_its_own() -> None:
    run = budget(tokens=1000, per_condition={"tokens": 200})
    granted(run.reserve(size(300, 100), "a"))
    refusal = refused(run.reserve(size(3, 1), "a"))
    assert refusal.condition == "a"
    assert "budget.per_condition.tokens" in refusal.message
    granted(run.reserve(size(300, 100), "b"))


def test_a_cost_budget_refuses_by_the_dearest_that_a_call_may_be() -> None:
    prices = Prices(
        {"m": Price(input=Decimal(1), output=Decimal(2), cache_write=Decimal(10))}, public=False
    )
    run = budget(prices, cost=0.00102)
    assert granted(run.reserve(size(300, 10), "a")).cost == prices.most(MODEL, 100, 10)
    assert refused(run.reserve(size(300, 10), "a")).kind == "cost"


def test_a_cost_budget_refuses_a_model_without_a_price() -> None:
    run = budget(Prices(public=False), cost=5)
    refusal = refused(run.reserve(size(), "a"))
    assert "openai/m has no price" in refusal.message
    assert refusal.final


def test_the_cost_of_what_has_no_price_is_unknown_and_not_nothing() -> None:
    run = budget(Prices(public=False))
    granted(run.reserve(size(), "a")).settle(TokenUsage(input_tokens=3, output_tokens=4))
    assert line(run, "cost") == (None, 0, 0)
    assert line(run, "tokens") == (7, 0, 0)


def test_a_hard_budget_refuses_what_nothing_bounds() -> None:
    run = budget(hard=True)
    assert "max_tokens" in refused(run.reserve(size(most=None), "a")).message
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    request = ModelRequest(model="m", messages=(picture,), parameters={"max_tokens": 5})
    assert "image" in refused(run.reserve(call_size(MODEL, request), "a")).message
    words = {"role": "user", "content": [{"type": "text", "text": "x"}]}
    granted(run.reserve(call_size(MODEL, attrs.evolve(request, messages=(words,))), "a"))


def test_time_is_a_deadline_that_earlier_processes_used_of() -> None:
    clock = Clock()
    run = budget(clock=clock, time=60)
    run.restore(BudgetFacts(seconds=20))
    assert run.may_start("a") is None
    clock.now += 39
    assert run.seconds_left == 1
    clock.now += 1
    assert refused(run.may_start("a")).kind == "time"
    assert refused(run.reserve(size(), "a")).kind == "time"


def test_cpu_is_counted_when_an_attempt_ended() -> None:
    run = budget(cpu_time=10, per_condition={"cpu_time": 6})
    run.attempt_ended("a", AttemptState.COMPLETED, 5.0)
    run.attempt_ended("a", AttemptState.COMPLETED, None)
    assert run.may_start("a") is None
    run.attempt_ended("a", AttemptState.COMPLETED, 1.0)
    assert refused(run.may_start("a")).condition == "a"
    assert run.may_start("b") is None
    run.attempt_ended("b", AttemptState.COMPLETED, 4.5)
    assert refused(run.may_start("b")).condition is None


def test_the_share_of_errors_acts_from_20_ended_attempts_and_counts_no_model_mistakes() -> None:
    run = budget(error_rate=0.5)
    for state in [AttemptState.INFRA_ERROR] * 10 + [AttemptState.MODEL_ERROR] * 9:
        run.attempt_ended("a", state)
    assert run.may_start("a") is None
    run.attempt_ended("a", AttemptState.AGENT_ERROR)
    refusal = refused(run.may_start("a"))
    assert (refusal.kind, refusal.used) == ("error_rate", 0.95)
    assert "19 of 20" in refusal.message
    for state in [AttemptState.CANCELLED, AttemptState.BUDGET, AttemptState.OOM] * 6:
        run.attempt_ended("a", state)
    assert run.may_start("a") is None


def journal(*events: tuple[str, Mapping[str, Any]]) -> list[Event]:
    return [
        Event(seq=n, time=n, monotonic=n * 2.0, type=kind, run="r", trial="t", attempt=1, data=data)
        for n, (kind, data) in enumerate(events, start=1)
    ]


def test_the_journal_brings_back_answers_lost_sends_and_ended_attempts() -> None:
    run = budget(tokens=10_000)
    reserved = granted(run.reserve(size(300, 100), "a")).to_json()
    usage = attrs.asdict(TokenUsage(input_tokens=50, output_tokens=7, requests=1))
    cost = {"total": "0.25", "currency": "USD", "source": "then"}
    events = journal(
        ("run.started", {}),
        ("model.requested", {"call": 1, "reserved": reserved}),
        ("model.retried", {"call": 1, "billed": False}),  # a 429
        ("model.retried", {"call": 1, "billed": None}),  # a timeout
        ("model.responded", {"call": 1, "usage": usage, "cost": cost}),
        ("model.requested", {"call": 2, "reserved": reserved}),
        ("model.failed", {"call": 2, "billed": False}),
        ("attempt.finished", {"state": "model_error", "resource_usage": {"cpu_seconds": 3.0}}),
        ("run.resumed", {}),
        ("model.requested", {"call": 3, "reserved": reserved}),
        ("model.responded", {"call": 9, "usage": usage}),  # a replayed answer was not asked for
        ("model.requested", {"call": 4}),  # no budget was asked
    )
    facts = budget_facts(events, {"t": "a"})
    assert [call.lost_sends for call in facts.calls] == [1, 0, 1]
    state = AttemptState.MODEL_ERROR
    assert facts.attempts == (AttemptFact(condition="a", state=state, cpu_seconds=3.0),)
    assert facts.seconds == 14 + 6
    later = budget(tokens=10_000, cpu_time=3)
    later.restore(facts)
    assert line(later, "tokens") == line(later, "tokens", "a") == (57, 400, 0)
    assert line(later, "cost") == (0.25, 0.0006, 0)
    assert refused(later.may_start("a")).kind == "cpu_time"
    assert granted(budget().reserve(size(most=None), "a")).output_tokens == 4096
    assert budget_facts(events, {}).calls == ()


def test_a_spend_estimate_stands_before_the_first_call() -> None:
    plans = [
        PlannedTrials(trials=10, call=size(300, 100)),
        PlannedTrials(trials=2, call=size(3, None), turns=5),
    ]
    estimate = estimate_spend(plans, PRICES)
    assert (estimate.calls, estimate.most_calls) == (12, 20)
    assert (estimate.input_tokens, estimate.output_tokens) == (1_002, 1_000 + 2 * 4096)
    assert estimate.cost is not None
    assert estimate.cost.total == Decimal(1_002 + 2 * 9_192) / 1_000_000
    assert estimate_spend(plans, Prices(public=False)).cost is None


def test_a_budget_is_read_strictly_and_written_back() -> None:
    written = {
        "tokens": 5,
        "cost": 0.1,
        "cpu_time": 3.5,
        "error_rate": 0.2,
        "time": 60,
        "hard": True,
        "per_condition": {"tokens": 2, "cost": 0.05},
    }
    limits = read_budget(written, "budget")
    assert limits.cost == Decimal("0.1")
    assert budget_json(limits) == written
    with pytest.raises(ConfigError) as caught:
        read_budget(
            {
                "tokens": 0,
                "cost": "5",
                "usd": 5,
                "error_rate": 2,
                "per_condition": {"time": 3, "hard": True, "tokns": 1},
            },
            "budget",
        )
    assert [fault.partition(":")[0] for fault in caught.value.faults] == [
        "budget.tokens",
        "budget.cost",
        "budget.usd",
        "budget.error_rate",
        "budget.per_condition.time",
        "budget.per_condition.hard",
        "budget.per_condition.tokns",
    ]


def test_a_budget_that_cannot_be_kept_is_an_error_at_the_start() -> None:
    def entry(path: str, **config: Any) -> BudgetedModel:
        whole = {"model": "m", "prompt": "p", **config}
        return BudgetedModel(path=path, config=ExperimentConfig.read(whole), model=MODEL)

    plain = entry("batch")
    bounded = entry("batch.grid[1]", parameters={"max_tokens": 5}, drop_unsupported=True)
    capped = entry("batch.grid[2]", limits={"tokens": 5})
    body = {"max_tokens": 5, "extra_body": {"max_completion_tokens": 9}}
    hidden = entry("batch.grid[3]", parameters=body)
    each = read_budget({"per_condition": {"cost": 1}}, "budget")
    check_budget(each, [plain], PRICES)
    with pytest.raises(ConfigError, match=r"batch\.model: openai/m has no price"):
        check_budget(each, [plain], Prices(public=False))
    entries = [plain, bounded, capped, hidden]
    with pytest.raises(ConfigError) as caught:
        check_budget(read_budget({"hard": True}, "budget"), entries, PRICES)
    assert [fault.partition(":")[0] for fault in caught.value.faults] == [
        "batch.parameters.max_tokens",
        "batch.grid[1].drop_unsupported",
        "batch.grid[3].parameters.extra_body.max_completion_tokens",
    ]
    check_budget(read_budget({"tokens": 5}, "budget"), [plain], Prices(public=False))
