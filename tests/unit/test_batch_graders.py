"""Graders of a batch: their own address and key, checked first, asked once, replayed, listed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from openai_server import says, scripted_server
from plain_sandboxes import BatchBench

from sandbox_sdk.errors import ConfigError, ModelAuthError, ModelNotFound
from sandbox_sdk.experiments.batches.batch_run import BatchRun
from sandbox_sdk.experiments.batches.choice import Choice
from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest
from sandbox_sdk.experiments.models.mock import MockProvider
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.journal import read_events

pytestmark = pytest.mark.anyio

GRADER: dict[str, Any] = {
    "type": "model_graded",
    "model": "mock/script",
    "parameters": {"extra_body": {"script": ["GRADE: C"]}, "max_tokens": 10},
}
ECHO: dict[str, Any] = {
    "model": "mock/echo",
    "dataset": [{"id": "a", "input": "say a"}],
    "scorers": [GRADER],
}


class Asked(MockProvider):
    """The scripted model, under any name, which keeps what it was asked, by the system's words."""

    def __init__(self, name: str = "mock") -> None:
        self.name = name
        self.tested = 0
        self.graded = 0
        self.at_grade: Any = None

    async def generate(self, request: ModelRequest) -> ModelOutput:
        """Count the call and answer."""
        if request.messages[0]["role"] == "system":
            self.graded += 1
            if self.at_grade is not None:
                await self.at_grade()
        else:
            self.tested += 1
        await anyio.lowlevel.checkpoint()
        return await super().generate(request)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[BatchBench]:
    bench = BatchBench(tmp_path)
    yield bench
    await bench.models.aclose()


@pytest.fixture
def asked(bench: BatchBench) -> Asked:
    provider = Asked()
    bench.models._providers["mock"] = provider
    return provider


async def test_a_grader_is_asked_at_its_own_address_with_its_own_key(tmp_path: Path) -> None:
    environ = {"GRADER_KEY": "sk-of-the-grader", "OPENAI_API_KEY": "sk-of-openai"}
    bench = BatchBench(tmp_path, models=ModelRegistry(environ=environ))
    async with scripted_server() as server:
        server.script(says("Right.\nGRADE: C"))
        grader = {
            **{"type": "model_graded", "model": "some/judge:7b", "base_url": server.url},
            **{"api_key_env": "GRADER_KEY", "parameters": {"temperature": 0}},
        }
        result = await bench.run({**ECHO, "scorers": [grader]})
        await bench.models.aclose()
    assert [score.told for score in result.scores] == ["1 of 1"]
    (body,) = server.bodies
    assert (body["model"], body["temperature"]) == ("some/judge:7b", 0)
    assert server.headers[0]["Authorization"] == "Bearer sk-of-the-grader"
    assert b"sk-of-the-grader" not in (result.folder / "events.jsonl").read_bytes()


async def test_a_grader_that_cannot_be_called_is_told_before_anything_is_asked(
    bench: BatchBench, asked: Asked
) -> None:
    for grader, error in (
        ({"model": "openai/gpt-5.6-terra"}, ModelAuthError),
        ({"model": "openai/x", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "NO"}, None),
        ({"model": "nobody/x"}, ModelNotFound),
    ):
        with pytest.raises(error or ModelAuthError):
            await bench.run({**ECHO, "scorers": [{"type": "model_graded", **grader}]})
    elsewhere = {**GRADER, "base_url": "http://127.0.0.1:9/v1"}
    with pytest.raises(ConfigError, match=r"batch\.scorers\[1\]\.base_url: does not go with"):
        await bench.run({**ECHO, "scorers": ["json_schema", elsewhere]})
    budgeted = {
        **{**ECHO, "prices": {"mock/script": {"input": 1, "output": 1}}},
        **{"model": "mock/script", "parameters": GRADER["parameters"]},
        **{"scorers": [GRADER, {"type": "model_graded", "name": "other", "model": "mock/echo"}]},
        **{"budget": {"cost": 1, "hard": True}},
    }
    with pytest.raises(ConfigError) as caught:
        await bench.run(budgeted)
    assert [line.partition(":")[0] for line in caught.value.faults] == [
        "batch.scorers[1].model",
        "batch.scorers[1].parameters.max_tokens",
    ]
    assert (asked.tested, asked.graded) == (0, 0)


async def test_trials_with_the_same_answer_at_the_same_time_are_graded_by_one_call(
    bench: BatchBench, asked: Asked
) -> None:
    result = await bench.run({**ECHO, "repeats": 8})
    assert (asked.tested, asked.graded) == (8, 1)
    assert [score.told for score in result.scores] == ["8 of 8"]
    first = {**ECHO, "scorers": [GRADER, {**GRADER, "name": "twin"}]}
    twins = await bench.run(first)
    assert (asked.tested, asked.graded) == (9, 2)
    assert [score.told for score in twins.scores] == ["1 of 1"] * 2
    first["scorers"] = [*first["scorers"], {**GRADER, "name": "third"}]
    again = await bench.run(first, reuse=twins.id)
    assert (asked.tested, asked.graded) == (9, 2)
    assert [score.told for score in again.scores] == ["1 of 1"] * 3


async def test_graders_answers_come_from_the_cassette_too(
    bench: BatchBench, asked: Asked, tmp_path: Path
) -> None:
    taped = {**ECHO, "cassette": str(tmp_path / "tape.jsonl"), "repeats": 3}
    first = await bench.run({**taped, "cache": "use"})
    calls = (asked.tested, asked.graded)
    again = await bench.run({**taped, "cache": "replay"}, run="new")
    assert (asked.tested, asked.graded) == calls == (3, 1)
    assert again._record.ledger.paid_tokens == 0
    assert (first.folder / "outcomes.csv").read_bytes() == (
        again.folder / "outcomes.csv"
    ).read_bytes()
    strict = {**GRADER, "instructions": "Be strict."}
    missed = await bench.run({**taped, "cache": "replay", "scorers": [strict]})
    assert [(score.told, score.unscored) for score in missed.scores] == [("0 of 3, 3 unscored", 3)]
    assert (asked.tested, asked.graded) == calls


async def test_a_grader_that_is_the_model_under_test_does_not_wait_for_its_trials(
    bench: BatchBench, tmp_path: Path
) -> None:
    """A model with one place, which trials hold until they ask: these ask a cassette."""
    local = Asked("local")
    bench.models._providers["local"] = local
    script = {"extra_body": {"script": ["GRADE: C"]}}
    taped = {
        **{"model": "local/script", "dataset": ["a", "b", "c"], "parameters": script},
        **{"cache": "use", "cassette": str(tmp_path / "tape.jsonl")},
    }
    await bench.run(taped)
    with anyio.fail_after(5):
        grader = {**GRADER, "model": "local/script", "parameters": script}
        result = await bench.run({**taped, "scorers": [grader]})
    assert (local.tested, local.graded) == (3, 3)
    assert [score.told for score in result.scores] == ["3 of 3"]


async def test_a_graders_call_without_an_answer_is_listed_and_made_again(
    bench: BatchBench, asked: Asked
) -> None:
    opened = await bench.open(ECHO)
    assert isinstance(opened, BatchRun)

    async def stop() -> None:
        opened.cancel()
        await anyio.lowlevel.checkpoint()

    asked.at_grade = stop
    await opened.drive()
    asked.at_grade = None
    (billed,) = opened.result().possibly_billed
    assert (billed.attempt, billed.call, billed.role) == (1, 1, "grader")
    result = await bench.run(ECHO)
    assert (asked.tested, asked.graded) == (1, 2)
    assert result.possibly_billed == (billed,)
    asks = [e for e in read_events(result.folder / "events.jsonl") if e.type == "model.requested"]
    assert [event.data.get("role") for event in asks] == [None, "grader", "grader"]


async def test_a_preview_counts_graders_calls(bench: BatchBench, asked: Asked) -> None:
    batches = bench.batches
    both = {**ECHO, "scorers": [GRADER, {**GRADER, "name": "strict", "instructions": "Strictly."}]}
    told = await batches.preview(await batches.plan(both, Choice()), Choice())
    assert (told.to_run, told.spend.calls) == (1, 3)
    first = await bench.run(ECHO)
    choice = Choice(reuse=first.id)
    told = await batches.preview(await batches.plan(both, choice), choice)
    assert (told.to_run, told.rescored, told.spend.calls) == (0, 1, 1)
    await bench.run(both, reuse=first.id)
    assert (asked.tested, asked.graded) == (1, 2)
