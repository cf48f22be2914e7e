"""Batches from config to result: kept, continued, never bought twice, honest about what is not."""

from __future__ import annotations

import csv
import errno
import gc
import io
import json
import os
import tracemalloc
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from blockbuster import blockbuster_ctx
from plain_sandboxes import BatchBench

from sandbox_sdk.errors import AdmissionTimeout, ConfigError, SandboxBusy, SandboxNotFound
from sandbox_sdk.experiments.batches import batch_run
from sandbox_sdk.experiments.batches.batch_run import BatchRun
from sandbox_sdk.experiments.batches.choice import Choice
from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest
from sandbox_sdk.experiments.models.mock import MockProvider
from sandbox_sdk.experiments.records.journal import read_events
from sandbox_sdk.experiments.records.run_record import read_run
from sandbox_sdk.experiments.results.run_result import RunResult
from sandbox_sdk.policies import FixedAdmission, SlotRequest
from sandbox_sdk.values import AttemptState

pytestmark = pytest.mark.anyio

ROWS = [{"id": name, "input": f"say {name}", "target": f"say {name}"} for name in "abcdef"]
ECHO = {"model": "mock/echo", "dataset": ROWS, "scorers": ["exact"]}


def steps(*script: Any, **more: Any) -> dict[str, Any]:
    return {
        "model": "mock/script",
        "prompt": "{input}",
        "dataset": ROWS,
        "tools": ["bash"],
        "parameters": {"extra_body": {"script": list(script)}},
        **more,
    }


def call(command: str) -> dict[str, Any]:
    return {"tool_calls": [{"name": "bash", "arguments": {"command": command}}]}


class Asked(MockProvider):
    """The scripted model, which counts its calls and may do something at one of them."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.at: dict[int, Any] = {}

    async def generate(self, request: ModelRequest) -> ModelOutput:
        """Count the call and answer."""
        text = next(m["content"] for m in request.messages if m["role"] == "user")
        self.calls.append((text, request.call))
        if len(self.calls) in self.at:
            await self.at[len(self.calls)]()
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


def table(result: RunResult) -> list[dict[str, str]]:
    text = (result.folder / "outcomes.csv").read_text()
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def test_a_batch_runs_every_trial_once_and_tells_of_how_many_its_numbers_are(
    bench: BatchBench, asked: Asked
) -> None:
    with blockbuster_ctx("sandbox_sdk.experiments"):
        result = await bench.run({**ECHO, "repeats": 2})
    assert (result.status, result.planned, result.counted) == ("complete", 12, 12)
    assert len(asked.calls) == 12
    assert bench.sandboxes.made == 0, "what only asks a model needs no sandbox"
    (score,) = result.scores
    assert score.estimate.mean == 1
    assert score.told == "12 of 12"
    assert "n=12 of 12" in repr(result)
    assert "a mock" in repr(result)
    assert [(row["sample"], row["repeat"]) for row in table(result)] == [
        (name, repeat) for repeat in "12" for name in "abcdef"
    ]
    assert [trial.key for trial in result.trials] == [row["trial"] for row in table(result)]
    whole = result.trials[result.trials[3].key].result
    assert whole is not None
    assert whole.output == "say d"
    assert len(result.failures()) == 0
    assert len(result.to_pandas()) == 12
    assert (await bench.run(ECHO, run=None)).id != result.id
    assert result.export(bench.folder / "out").name.endswith(result.id[-6:])


async def test_text_of_a_model_is_no_markup_in_a_notebook(bench: BatchBench) -> None:
    result = await bench.run({**ECHO, "name": "<script>", "grid": {"system": ["<b>", "x"]}})
    shown = result._repr_html_()
    assert "<script>" not in shown
    assert "<table>" in shown


async def test_a_finished_run_is_returned_and_a_new_one_only_on_request(
    bench: BatchBench, asked: Asked
) -> None:
    first = await bench.run(ECHO)
    again = await bench.run(ECHO)
    assert again.id == first.id
    assert "is finished" in again.notices[0]
    assert len(asked.calls) == 6
    other = await bench.run(ECHO, run="new")
    assert other.id != first.id
    assert len(asked.calls) == 12
    assert (await bench.run(ECHO, run=first.id)).id == first.id
    with pytest.raises(ConfigError, match="it differs in conditions"):
        await bench.run({**ECHO, "system": "s"}, run=first.id)
    with pytest.raises(SandboxNotFound):
        await bench.run(ECHO, run="run_x")
    assert (bench.batches.get(first.id)).counted == 6
    assert [info.id for info in bench.batches.every()] == [first.id, other.id]


async def test_a_run_that_was_killed_before_its_tables_has_them_at_the_next_call(
    bench: BatchBench, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last attempt is recorded, and the process ends before anything is made of it."""

    def killed(record: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch_run, "write_tables", killed)
        with pytest.raises(KeyboardInterrupt):
            await bench.run(ECHO)
    (run,) = (bench.folder / "runs").glob("run_*")
    assert not (run / "outcomes.csv").exists()
    result = await bench.run(ECHO)
    assert (result.folder, result.status, result.kept) == (run, "complete", 6)
    assert [row["state"] for row in table(result)] == ["completed"] * 6
    assert len(asked.calls) == 6
    assert "is finished" in (await bench.run(ECHO)).notices[0]


async def test_a_caller_who_gives_up_finds_all_that_was_done_by_then(
    bench: BatchBench, asked: Asked
) -> None:
    config = steps(call("echo one"), "done", max_concurrency=2)
    with anyio.CancelScope() as scope:

        async def stop() -> None:
            scope.cancel()

        asked.at[6] = stop
        await bench.run(config)
    assert scope.cancelled_caught
    assert bench.sandboxes.open == 0
    before = len(asked.calls)
    result = await bench.run(config)
    assert result.status == "complete"
    assert 0 < result.kept < 6
    assert len(asked.calls) - before <= 12 - before + 2, "no more than what was under way"


async def test_answers_are_replayed_after_cancelling(bench: BatchBench, asked: Asked) -> None:
    config = steps(call("echo one"), call("echo two"), "done", max_concurrency=1)
    opened = await bench.open(config)
    assert isinstance(opened, BatchRun)

    async def stop() -> None:
        opened.cancel()
        await anyio.lowlevel.checkpoint()

    asked.at[5] = stop  # the second call of the second trial
    await opened.drive()
    assert opened.result().states == {"completed": 1, "cancelled": 1, "not_run": 4}
    result = await bench.run(config)
    assert result.status == "complete"
    assert result.kept == 1
    assert "1 trials kept, 5 to do" in result.notices[0]
    assert asked.calls.count(("say b", 1)) == 1, "an answer that was recorded is not bought again"
    assert asked.calls.count(("say b", 2)) == 2, "one that never came is"
    assert [call.call for call in result.possibly_billed] == [2]
    assert result.trials[1].attempts == 2
    assert result.trials[1].replayed == 1
    assert len({row["input_tokens"] for row in table(result)}) == 1
    events = read_events(result.folder / "events.jsonl")
    assert [event.attempt for event in events if event.type == "attempt.started"] == [
        *(1, 1, 2, 1, 1, 1, 1)
    ]
    place = result.export(bench.folder / "out")
    told = [json.loads(line) for line in (place / "attempts.jsonl").read_text().splitlines()]
    keys = [trial.key for trial in result.trials]
    assert [(keys.index(each["trial"]), each["attempt"], each["state"]) for each in told] == [
        *((0, 1, "completed"), (1, 1, "cancelled"), (1, 2, "completed")),
        *((index, 1, "completed") for index in range(2, 6)),
    ]
    first, second = told[1:3]
    assert [call["result"] for call in first["tool_calls"]] == ["one"]
    assert [call["result"] for call in second["tool_calls"]] == ["one", "two"]


async def test_infrastructure_that_fails_is_tried_again_and_never_scored(
    bench: BatchBench, asked: Asked
) -> None:
    config = steps(call("true"), "done", scorers=["exact"], max_concurrency=1)
    bench.sandboxes.fails = 2
    result = await bench.run(config)
    assert result.status == "complete"
    assert [trial.attempts for trial in result.trials] == [3, 1, 1, 1, 1, 1]
    bench.sandboxes.fails = 3
    result = await bench.run(config, run="new")
    assert result.trials[0].state is AttemptState.INFRA_ERROR
    assert result.trials[0].attempts == 3
    assert result.trials[0].scores == {}
    assert result.counted == 5
    assert result.scores[0].told == "5 of 6"
    assert "1 do not (infra_error 1)" in result.summary()
    assert (await bench.run(config)).counted == 5, "a finished run stays as it is"
    result = await bench.run(config, retry_failed=True)
    assert result.counted == 6


async def test_a_sandbox_that_dies_costs_no_answer(bench: BatchBench, asked: Asked) -> None:
    """After a death in the middle the next attempt is given the answers of the first."""

    def die_once(workplace: Any) -> None:
        if bench.sandboxes.made == 1:
            real = workplace.run_command

            async def run_command(*args: Any, **kwargs: Any) -> Any:
                workplace.dead = True
                return await real(*args, **kwargs)

            workplace.run_command = run_command

    bench.sandboxes.on_start = die_once
    result = await bench.run(steps(call("echo hi"), "done", max_concurrency=1))
    assert result.counted == 6
    assert result.trials[0].attempts == 2
    assert asked.calls.count(("say a", 1)) == 1


async def test_what_goes_another_way_is_bought_and_told(bench: BatchBench, asked: Asked) -> None:
    """A tool that answers otherwise makes another conversation: its answers are not mixed."""
    config = steps(call("cat /proc/sys/kernel/random/uuid"), "one", max_concurrency=1)
    opened = await bench.open({**config, "dataset": ROWS[:1]})
    assert isinstance(opened, BatchRun)
    real = opened.run.journal.append

    def die_at_the_end(type: str, **data: Any) -> Any:
        if type == "attempt.finished":
            data["state"] = "cancelled"  # as if its driver had been stopped just then
        return real(type, **data)

    opened.run.journal.append = die_at_the_end  # type: ignore[method-assign]
    await opened.drive()
    result = await bench.run({**config, "dataset": ROWS[:1]})
    assert result.counted == 1
    assert result.trials[0].replayed == 1
    assert asked.calls == [("say a", 1), ("say a", 2), ("say a", 2)]
    assert any("another way" in notice for notice in result.notices)


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EIO])
async def test_what_cannot_be_recorded_makes_the_run_degraded_and_nothing_is_sent(
    bench: BatchBench, asked: Asked, monkeypatch: pytest.MonkeyPatch, failure: int
) -> None:
    real = os.fdatasync
    syncs = 0

    def fail(descriptor: int) -> None:
        nonlocal syncs
        syncs += "events.jsonl" in os.readlink(f"/proc/self/fd/{descriptor}")
        if syncs > 5:
            raise OSError(failure, os.strerror(failure))
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fail)
    result = await bench.run({**ECHO, "max_concurrency": 2})
    assert result.status == "degraded"
    assert result.unrecorded
    assert set(result.unrecorded) <= {trial.key for trial in result.trials}
    recorded = {trial.key for trial in result.trials if trial.state is AttemptState.COMPLETED}
    assert not recorded & set(result.unrecorded)
    assert any(os.strerror(failure) in notice for notice in result.notices)
    sent = len(asked.calls)
    assert sent <= 4
    monkeypatch.undo()
    result = await bench.run(ECHO)
    assert (result.status, result.counted) == ("complete", 6)


async def test_two_cannot_drive_one_run(bench: BatchBench, asked: Asked) -> None:
    opened = await bench.open(ECHO)
    assert isinstance(opened, BatchRun)
    with pytest.raises(SandboxBusy, match="being driven"):
        await bench.run(ECHO)
    assert bench.batches.every()[0].live
    await opened.drive()
    assert (await bench.run(ECHO)).id == opened.run.id


async def lose_lease(run: Path) -> None:
    lease = anyio.Path(run / "lease.json")
    told = json.loads(await lease.read_bytes())
    await lease.unlink()
    await lease.write_text(json.dumps({"owner": None, "fence": told["fence"]}))


async def test_a_driver_that_was_taken_for_dead_writes_nothing_more(
    bench: BatchBench, asked: Asked
) -> None:
    opened = await bench.open({**ECHO, "max_concurrency": 1})
    assert isinstance(opened, BatchRun)

    async def lose() -> None:
        await lose_lease(opened.run.folder)

    asked.at[3] = lose
    await opened.drive()
    first = opened.result()
    assert first.status == "degraded"
    assert "taken over" in first.notices[0]
    assert len(asked.calls) == 3
    result = await bench.run(ECHO)
    assert result.counted == 6
    assert result.kept == 2


async def test_a_driver_that_was_taken_for_dead_writes_no_tables(
    bench: BatchBench, asked: Asked
) -> None:
    opened = await bench.open({**ECHO, "max_concurrency": 1})
    assert isinstance(opened, BatchRun)

    opened.cancel_rest()  # so that nothing is recorded between the loss and the end
    await lose_lease(opened.run.folder)
    await opened.drive()
    assert opened.result().status == "degraded"
    assert not (opened.run.folder / "outcomes.csv").exists()
    assert (await bench.run(ECHO)).counted == 6


async def test_only_the_scorer_changed_asks_no_model(bench: BatchBench, asked: Asked) -> None:
    config = steps(call("echo hi > made"), "say a", artifacts=["made"], scorers=["exact"])
    first = await bench.run(config)
    calls, made = len(asked.calls), bench.sandboxes.made
    other = {**config, "scorers": ["exact", {"type": "includes", "name": "holds"}]}
    batches = bench.batches
    choice = Choice(reuse=first.id)
    told = await batches.preview(await batches.plan(other, choice), choice)
    assert (told.reused, told.rescored, told.to_run, told.spend.calls) == (6, 6, 0, 0)
    second = await bench.run(other, reuse=first.id)
    assert (len(asked.calls), bench.sandboxes.made) == (calls, made)
    assert {trial.reused for trial in second.trials} == {first.id}
    assert [score.scorer for score in second.scores] == ["exact", "holds"]
    one, two = first.trials[0].result, second.trials[0].result
    assert one is not None
    assert two is not None
    assert (one.messages, one.tool_calls, one.artifacts) == (
        two.messages,
        two.tool_calls,
        two.artifacts,
    )
    changed = {**other, "grid": {"system": ["x"]}}
    told = await batches.preview(await batches.plan(changed, choice), choice)
    assert told.to_run == 6


async def test_a_scorer_that_was_renamed_judges_nothing_again_and_one_that_failed_does(
    bench: BatchBench, asked: Asked
) -> None:
    failing = {"type": "command", "command": "exit 127", "name": "old"}
    config = {**ECHO, "dataset": ROWS[:2], "scorers": [{"type": "exact", "name": "one"}, failing]}
    first = await bench.run(config)
    made = bench.sandboxes.made
    assert [score.told for score in first.scores] == ["2 of 2", "0 of 2, 2 unscored"]
    renamed = [{"type": "exact", "name": name} for name in ("two", "three")]
    batches, choice = bench.batches, Choice(reuse=first.id)
    told = await batches.preview(await batches.plan({**config, "scorers": renamed}, choice), choice)
    assert (told.reused, told.rescored) == (2, 0)
    second = await bench.run({**config, "scorers": renamed}, reuse=first.id)
    assert [(score.scorer, score.told) for score in second.scores] == [
        ("two", "2 of 2"),
        ("three", "2 of 2"),
    ]
    assert bench.sandboxes.made == made
    await bench.run({**config, "scorers": [{**failing, "name": "new"}]}, reuse=first.id)
    assert bench.sandboxes.made == made + 2, "a scorer that failed came to no verdict to be kept"
    assert len(asked.calls) == 2


async def test_an_artifact_too_large_for_scorers_is_told_and_crowds_out_no_other(
    bench: BatchBench, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox_sdk.experiments.batches.scoring._LARGEST_ARTIFACTS", 1 << 20)
    config = steps(call("head -c 2M /dev/zero > a; echo right > b"), "done", artifacts=["*"])
    scorer = {"type": "command", "command": "test -e a || grep right b"}
    result = await bench.run({**config, "dataset": ROWS[:1], "scorers": [scorer]})
    (score,) = result.scores
    assert score.estimate.mean == 1
    whole = result.trials[0].result
    assert whole is not None
    assert "artifacts of more than 1 MiB together: scorers did not get 'a'" in whole.warnings


async def test_a_corrected_target_is_judged_anew_and_asks_no_model(
    bench: BatchBench, asked: Asked
) -> None:
    first = await bench.run(ECHO)
    rows = [{**ROWS[0], "target": "say z"}, {**ROWS[1], "metadata": {"more": 1}}, *ROWS[2:]]
    corrected, choice = {**ECHO, "dataset": rows}, Choice(reuse=first.id)
    batches = bench.batches
    told = await batches.preview(await batches.plan(corrected, choice), choice)
    assert (told.reused, told.rescored, told.to_run) == (6, 2, 0)
    second = await bench.run(corrected, reuse=first.id)
    assert [row["score.exact"] for row in table(second)] == ["0.0", *["1.0"] * 5]
    assert len(asked.calls) == 6


async def test_one_changed_prompt_runs_only_its_cells(bench: BatchBench, asked: Asked) -> None:
    base = {"model": "mock/echo", "dataset": ROWS}
    first = await bench.run({**base, "grid": {"prompt": ["A {input}", "B {input}"]}})
    assert len(asked.calls) == 12
    changed, choice = (
        {**base, "grid": {"prompt": ["A {input}", "C {input}"]}},
        Choice(reuse=first.id),
    )
    told = await bench.batches.preview(await bench.batches.plan(changed, choice), choice)
    assert (told.reused, told.to_run, told.by_condition) == (6, 6, {"prompt=#2": 6})
    second = await bench.run(changed, reuse=first.id)
    assert len(asked.calls) == 18
    assert all(text.startswith("C ") for text, _ in asked.calls[12:])
    assert second.counted == 12


async def test_a_budget_is_kept_over_calls_and_what_does_not_fit_is_listed(
    bench: BatchBench, asked: Asked
) -> None:
    config = {
        **ECHO,
        "parameters": {"max_tokens": 10},
        "budget": {"tokens": 60, "hard": True},
        "max_concurrency": 1,
    }
    result = await bench.run(config)
    spent = sum(trial.input_tokens + trial.output_tokens for trial in result.trials)
    assert spent <= 60
    assert 0 < result.counted < 6
    assert result.states["budget"] == 6 - result.counted
    assert f"{result.counted} of 6 trials count" in repr(result)
    calls = len(asked.calls)
    again = await bench.run(config)
    assert again.id == result.id
    assert len(asked.calls) - calls <= 1
    more = await bench.run({**config, "budget": {"tokens": 10_000}})
    assert (more.id, more.counted) == (result.id, 6)
    with pytest.raises(ConfigError, match="max_tokens"):
        await bench.run({**ECHO, "budget": {"tokens": 1, "hard": True}})


async def test_a_run_that_is_broken_is_stopped(bench: BatchBench, asked: Asked) -> None:
    error = {"error": {"code": "model", "message": "no"}, "times": 99}
    rows = [f"task {number}" for number in range(60)]
    config = {**steps(error), "dataset": rows, "max_concurrency": 1}
    result = await bench.run(config)
    assert result.status == "partial"
    assert result.states == {"model_error": 20, "not_run": 40}
    assert result.counted == 0
    assert any("fail_on_error" in notice for notice in result.notices)
    result = await bench.run({**config, "fail_on_error": None})
    assert result.states == {"model_error": 60}


async def test_a_batch_is_paused_and_its_rest_cancelled(bench: BatchBench, asked: Asked) -> None:
    opened = await bench.open({**ECHO, "max_concurrency": 1})
    assert isinstance(opened, BatchRun)
    order: list[int] = []

    async def watch() -> None:
        async for trial in opened.endings():
            order.append(trial.index)
            if len(order) == 2:
                opened.pause()
                opened.resume()
            if len(order) == 3:
                opened.cancel_rest()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await opened.drive()
    result = opened.result()
    assert result.status == "partial"
    assert order[:3] == [0, 1, 2]
    assert len(order) == result.counted < 6
    assert opened.progress().done == result.counted


async def test_trials_hold_no_more_places_than_there_are(bench: BatchBench, asked: Asked) -> None:
    bench.admission = FixedAdmission(2)
    config = steps(call("true"), "done", admission_timeout=0.01)
    result = await bench.run({**config, "repeats": 3})
    assert result.counted == 18
    assert bench.sandboxes.most_open == 2


async def test_a_wait_for_places_that_others_hold_ends_and_names_them(
    bench: BatchBench, asked: Asked
) -> None:
    bench.admission = admission = FixedAdmission(1)
    config = steps("done", admission_timeout=0.05)
    async with admission.slot(SlotRequest(owner="other", holder="the other run")):
        with pytest.raises(AdmissionTimeout, match="the other run"):
            await bench.run(config)
    result = await bench.run(config)
    assert result.counted == 6


async def test_what_is_shared_is_stored_once(bench: BatchBench, asked: Asked) -> None:
    system = "Be brief. " * 100
    result = await bench.run({**ECHO, "system": system, "repeats": 3})
    assert (result.folder / "events.jsonl").read_text().count("Be brief. Be brief.") <= 50
    whole = result.trials[-1].result
    assert whole is not None
    assert whole.messages[0]["content"] == system
    assert read_run(result.folder).ledger.rows == [
        result._record.ledger.row(index) for index in range(18)
    ]


@pytest.mark.slow
async def test_a_trial_that_is_over_leaves_at_most_3_kb_in_memory(bench: BatchBench) -> None:
    """So ten thousand fit: what is kept of each is its key, its sample and a small row."""
    await bench.run({"model": "mock/echo", "dataset": ["warm up"]})

    def rows(count: int) -> list[dict[str, Any]]:
        return [{"input": f"question {number}", "target": "x"} for number in range(count)]

    kept: list[int] = []
    results: list[RunResult] = []
    tracemalloc.start()
    try:
        for count in (100, 900):
            before = tracemalloc.get_traced_memory()[0]
            results.append(await bench.run({**ECHO, "dataset": rows(count)}))
            gc.collect()
            kept.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    assert [result.counted for result in results] == [100, 900]
    assert (kept[1] - kept[0]) / 800 <= 3 * 1024
