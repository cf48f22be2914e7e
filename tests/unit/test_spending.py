"""What experiments spend: costs in results, limits of cost, shared budgets, and their journal."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from openai_server import ScriptedServer, fails, says, scripted_server
from plain_workplace import PlainWorkplace

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.experiments.allowance import Allowance
from sandbox_sdk.experiments.attempt import Attempt, Surroundings
from sandbox_sdk.experiments.budgets.budget import Budget
from sandbox_sdk.experiments.budgets.budget_facts import budget_facts
from sandbox_sdk.experiments.budgets.budget_limits import read_budget
from sandbox_sdk.experiments.budgets.prices import USER_TABLE, Prices
from sandbox_sdk.experiments.budgets.spending import BudgetGate, Spending
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.model_call import ModelCaller
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.derive import TrialFacts, derive_result
from sandbox_sdk.experiments.records.events import Event
from sandbox_sdk.experiments.records.journal import Journal, read_events
from sandbox_sdk.experiments.records.lock import Lock
from sandbox_sdk.experiments.records.recorder import Recorder
from sandbox_sdk.experiments.results.outcome import Outcome
from sandbox_sdk.experiments.results.result import ExperimentResult
from sandbox_sdk.experiments.run import run_experiment
from sandbox_sdk.values import AttemptState

pytestmark = pytest.mark.anyio

MOCK = {"mock/script": {"input": 1, "output": 1}}


class Bench:
    """A workplace, models, and a folder for runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workplace = PlainWorkplace(folder / "work")
        self.models = ModelRegistry(environ={})

    async def run(self, **config: Any) -> ExperimentResult:
        return await run_experiment(
            config, self.workplace, runs_dir=self.folder / "runs", models=self.models
        )

    async def attempt(
        self, gate: BudgetGate, name: str, **config: Any
    ) -> tuple[Outcome, list[Event]]:
        """Run one attempt of a trial within a budget."""
        experiment = ExperimentConfig.read(config)
        folder = self.folder / name
        await anyio.Path(folder).mkdir()
        journal = await Journal.open(folder / "events.jsonl", "run", self.models.redactor)
        recorder = Recorder(journal, name, 1)
        around = Surroundings(
            folder=folder, models=self.models, lock=Lock(folder, {}), condition="a", gate=gate
        )
        attempt = Attempt(experiment, self.workplace, recorder, around)
        try:
            outcome = await attempt.run()
        finally:
            await journal.aclose()
        return outcome, read_events(folder / "events.jsonl")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.models.aclose()


@pytest.fixture
async def server() -> AsyncGenerator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


def script(*items: Any, **config: Any) -> dict[str, Any]:
    parameters = {"extra_body": {"script": list(items)}, **config.pop("parameters", {})}
    return {"model": "mock/script", "prompt": "go", "parameters": parameters, **config}


def used(sent: int, answered: int, **item: Any) -> dict[str, Any]:
    return {**item, "usage": {"input_tokens": sent, "output_tokens": answered}}


BASH = {"tool_calls": [{"name": "bash", "arguments": {"command": "true"}}]}


def gate(**limits: Any) -> BudgetGate:
    return BudgetGate(Budget(read_budget(limits, "budget"), Prices({}, public=False)))


def spent(of: BudgetGate) -> tuple[Any, Any, Any]:
    (line,) = [
        at for at in of.budget.summary().lines if (at.kind, at.condition) == ("tokens", None)
    ]
    return line.spent, line.estimated, line.reserved


async def test_a_result_tells_the_exact_cost_and_whose_prices_it_has(bench: Bench) -> None:
    prices = {"mock/script": {"input": 0.3, "output": 1.2}}
    config = script(used(1_000_000, 1, **BASH), used(7, 3), tools=["bash"], prices=prices)
    result = await bench.run(**config)
    assert result.cost is not None
    assert (result.cost.total, result.cost.source) == (Decimal("0.3000069"), USER_TABLE)
    assert json.loads(json.dumps(result.to_dict()))["cost"] == {
        "total": 0.3000069,
        "source": USER_TABLE,
        "currency": "USD",
    }


async def test_an_unknown_cost_is_none_and_one_unknown_part_makes_the_whole_unknown(
    bench: Bench, server: ScriptedServer
) -> None:
    assert (await bench.run(**script("x"))).cost is None
    priced = {"m": {"input": 1, "output": 1}}
    untold = says("done")

    async def without_usage(request: Any) -> Any:
        response: Any = await untold(request)
        body = json.loads(response.body)
        del body["usage"]
        response.body = json.dumps(body).encode()
        return response

    server.script(says(calls=[("bash", '{"command": "true"}')]), without_usage)
    config: dict[str, Any] = {"model": "m", "prompt": "p", "base_url": server.url}
    result = await bench.run(**config, tools=["bash"], prices=priced)
    assert result.cost is None
    assert (result.usage.total_tokens, result.usage.unmetered_requests) == (15, 1)


async def test_what_may_have_been_billed_without_an_answer_is_told(
    bench: Bench, server: ScriptedServer
) -> None:
    busy = fails(429, "slow down", headers={"Retry-After": "0"})
    server.script(busy, fails(500, "oops"), says("ok"))
    result = await bench.run(model="m", prompt="p", base_url=server.url)
    assert result.output == "ok"
    (warning,) = result.warnings
    assert warning.startswith("1 model calls were sent and got no answer")


async def test_a_limit_of_cost_ends_the_attempt_before_the_next_call(bench: Bench) -> None:
    calls = [used(400_000, 200_000, **BASH)] * 5
    result = await bench.run(
        **script(*calls, tools=["bash"], prices=MOCK, limits={"cost": 1.5, "tokens": None})
    )
    assert result.limit is not None
    assert (result.state, result.limit.type) == (AttemptState.LIMIT, "cost")
    assert (result.limit.limit, result.limit.used) == (1.5, 1.8)
    assert result.usage.requests == 3


async def test_a_limit_of_cost_on_a_model_without_a_price_is_an_error_at_the_start(
    bench: Bench,
) -> None:
    with pytest.raises(ConfigError, match=r"experiment\.limits\.cost: mock/script has no price"):
        await bench.run(**script("x", limits={"cost": 1}))
    assert not (bench.folder / "runs").exists()


async def test_a_limit_of_messages_ends_the_attempt(bench: Bench) -> None:
    result = await bench.run(**script(*[BASH] * 9, tools=["bash"], limits={"messages": 5}))
    assert result.limit is not None
    assert (result.limit.type, result.limit.used) == ("messages", 5)
    assert len(result.messages) == 5


async def test_waits_for_a_provider_are_no_work(bench: Bench) -> None:
    error = {"error": {"code": "model_unavailable", "retryable": True}, "content": "ok"}
    result = await bench.run(**script(error, limits={"working_time": 0.3}))
    assert result.output == "ok"
    assert result.timings.retries_wait > 0.3
    slow = await bench.run(**script({"content": "x", "delay": 60}, limits={"working_time": 0.3}))
    assert slow.limit is not None
    assert (slow.state, slow.limit.type) == (AttemptState.LIMIT, "working_time")


async def test_what_does_not_fit_is_never_sent_and_ends_the_attempt_as_budget(
    bench: Bench,
) -> None:
    small = gate(tokens=100)
    config = script("x", parameters={"max_tokens": 1000})
    outcome, events = await bench.attempt(small, "t", **config)
    assert outcome.state is AttemptState.BUDGET
    assert outcome.limit is not None
    assert (outcome.limit.type, outcome.limit.limit) == ("budget.tokens", 100)
    assert outcome.error is not None
    assert "budget.tokens of 100" in outcome.error.message
    assert "model.requested" not in [event.type for event in events]
    assert spent(small) == (0, 0, 0)


async def test_attempts_share_a_budget_and_wait_for_room_that_others_leave(bench: Bench) -> None:
    shared = gate(tokens=1_050)
    outcomes: dict[str, Outcome] = {}

    async def run(name: str) -> None:
        config = script({**used(10, 10), "delay": 0.05}, parameters={"max_tokens": 1000})
        outcomes[name], _ = await bench.attempt(shared, name, **config)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for name in "abcd":
                group.start_soon(run, name)
    ended = sorted(outcome.state.value for outcome in outcomes.values())
    # Only one call of 1,000 fits at a time; after one has used 20, another has room, and so on.
    assert ended == ["budget", "budget", "completed", "completed"]
    assert spent(shared) == (40, 0, 0)


async def test_waiting_for_room_ends_with_the_attempts_time(bench: Bench) -> None:
    shared = gate(tokens=1_100)
    parameters = {"max_tokens": 1000}
    slow = script({"delay": 60}, parameters=parameters)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: bench.attempt(shared, "slow", **slow))
            while not spent(shared)[2]:
                await anyio.lowlevel.checkpoint()
            config = script("x", parameters=parameters, limits={"time": 0.3, "working_time": 0.2})
            outcome, _ = await bench.attempt(shared, "waits", **config)
            group.cancel_scope.cancel()
    assert outcome.limit is not None
    assert outcome.limit.type == "time"  # and not working_time: it did no work
    # The slow call was given up in the middle, so nobody knows what it used.
    assert spent(shared) == (0, pytest.approx(1000, abs=50), 0)


async def test_the_journal_of_an_attempt_restores_what_it_spent(
    bench: Bench, server: ScriptedServer
) -> None:
    busy = fails(429, "slow down", headers={"Retry-After": "0"})
    again = says(calls=[("bash", '{"command": "true"}')])
    server.script(busy, again, fails(500, "oops"))
    counted = gate(tokens=10_000)
    outcome, events = await bench.attempt(
        counted,
        "t",
        model="m",
        prompt="p",
        base_url=server.url,
        tools=["bash"],
        parameters={"max_tokens": 100},
        retries={"max_retries": 1},
    )
    assert outcome.state is AttemptState.MODEL_ERROR
    tokens, estimated, reserved = spent(counted)
    assert (tokens, reserved) == (15, 0)
    assert estimated > 200  # both sends of the second call
    restored = gate(tokens=10_000)
    restored.budget.restore(budget_facts(events, {"t": "a"}))
    assert spent(restored) == spent(counted)


async def test_a_graders_calls_are_paid_by_the_same_budget_and_in_no_count_of_the_attempt(
    bench: Bench, tmp_path: Path
) -> None:
    shared = gate(tokens=1_000)
    config = ExperimentConfig.read(script(used(20, 4), parameters={"max_tokens": 10}))
    provider, request = bench.models.request(config)
    journal = await Journal.open(tmp_path / "events.jsonl", "run", bench.models.redactor)
    recorder = Recorder(journal, "t", 1)
    caller = ModelCaller(
        provider,
        config.retries,
        recorder,
        Allowance(config.limits),
        Spending(shared, bench.models.priced(config), "a"),
        role="grader",
    )
    message = {"role": "user", "content": "grade"}
    try:
        await recorder.durable("attempt.started", provider="mock", seed=None, sandbox=None)
        output = await caller.ask(attrs.evolve(request, messages=(message,)))
        await recorder.durable("attempt.finished", state="completed")
    finally:
        await journal.aclose()
    assert output.usage.total_tokens == 24
    assert spent(shared) == (24, 0, 0)
    events = read_events(journal.path)
    asked = [event for event in events if event.type.startswith("model.")]
    assert [event.data["role"] for event in asked] == ["grader", "grader"]
    facts = TrialFacts(name=None, config_digest="d", model="m", sdk="1", sandbox=None)
    result = derive_result(facts, events)
    assert result is not None
    assert (result.usage.total_tokens, result.output, result.warnings) == (0, "", ())
    restored = gate(tokens=1_000)
    restored.budget.restore(budget_facts(events, {"t": "a"}))
    assert spent(restored) == (24, 0, 0)
