"""Experiments from config to result: the loop, its limits, its records, its secrets.

Scripted models answer, and a plain folder stands in for the sandbox.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from blockbuster import blockbuster_ctx
from openai_server import ScriptedServer, fails, says, scripted_server
from plain_workplace import PlainWorkplace

from sandbox_sdk.errors import (
    ConfigError,
    IsolationError,
    ModelAuthError,
    ModelNotFound,
    StateError,
)
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.artifacts import artifact_path
from sandbox_sdk.experiments.records.journal import read_events
from sandbox_sdk.experiments.records.run_folder import find_runs
from sandbox_sdk.experiments.records.run_record import read_run
from sandbox_sdk.experiments.results.result import STATUS, ExperimentResult
from sandbox_sdk.experiments.run import run_experiment
from sandbox_sdk.values import AttemptState, CommandResult

pytestmark = pytest.mark.anyio

KEY = "sk-canary-0123456789abcdef"
PYTHON = {"tools": ["python"]}


class Bench:
    """A workplace, models, and a folder for runs."""

    def __init__(self, folder: Path) -> None:
        self.runs_dir = folder / "runs"
        self.workplace = PlainWorkplace(folder / "work")
        self.models = ModelRegistry(environ={"MY_KEY": KEY})

    async def run(self, **config: Any) -> ExperimentResult:
        """Run without blocking the loop, and make sure that the folder tells the same."""
        with blockbuster_ctx("sandbox_sdk.experiments"):
            result = await run_experiment(
                config, self.workplace, runs_dir=self.runs_dir, models=self.models
            )
        assert read_run(self.runs_dir / result.id).result == result
        json.dumps(result.to_dict(), allow_nan=False)
        assert len(repr(result)) < 500
        return result

    async def play(self, *script: Any, **config: Any) -> ExperimentResult:
        """Run a script."""
        parameters = {"extra_body": {"script": list(script)}, **config.pop("parameters", {})}
        return await self.run(
            **{"model": "mock/script", "prompt": "go", **config, "parameters": parameters}
        )

    def last_events(self) -> list[str]:
        """Return the types of the last run's events."""
        folder = list(find_runs(self.runs_dir))[-1]
        return [event.type for event in read_events(folder / "events.jsonl")]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.models.aclose()


@pytest.fixture
async def server() -> AsyncGenerator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


async def test_a_prompt_gets_an_answer_that_says_it_is_a_mock(bench: Bench) -> None:
    result = await bench.run(model="mock/echo", prompt="hello", name="first")
    assert (result.status, result.state) == ("success", AttemptState.COMPLETED)
    assert (result.output, result.stop_reason) == ("hello", "stop")
    assert result.messages == (
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hello"},
    )
    assert result.provenance.mock
    assert "a mock" in repr(result)
    assert result.cost is None
    assert result.timings.total_time > 0
    assert result.resource_usage is not None


async def test_events_come_in_the_order_that_makes_a_run_exact(bench: Bench) -> None:
    await bench.play(call("bash", {"command": "echo hi"}), "done", tools=["bash"])
    assert bench.last_events() == [
        "attempt.started",
        "sandbox.ready",
        "message.added",
        "model.requested",
        "model.responded",
        "message.added",
        "tool.requested",
        "tool.finished",
        "message.added",
        "model.requested",
        "model.responded",
        "message.added",
        "attempt.finished",
        "run.finished",
    ]


async def test_what_is_sent_and_used_is_durable_before(
    bench: Bench, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def on_disk() -> list[str]:
        (folder,) = find_runs(bench.runs_dir)
        return [event.type for event in read_events(folder / "events.jsonl")]

    real_setup, real_command = bench.workplace.setup, bench.workplace.run_command

    async def setup() -> None:
        seen.append(await anyio.to_thread.run_sync(on_disk))
        await real_setup()

    async def run_command(*args: Any, **kwargs: Any) -> CommandResult:
        seen.append(await anyio.to_thread.run_sync(on_disk))
        return await real_command(*args, **kwargs)

    async def answer(request: Any) -> Any:
        seen.append(await anyio.to_thread.run_sync(on_disk))
        return await says(calls=[("bash", '{"command": "true"}')])(request)

    monkeypatch.setattr(bench.workplace, "setup", setup)
    monkeypatch.setattr(bench.workplace, "run_command", run_command)
    server.script(answer)
    await bench.run(model="m", prompt="p", base_url=server.url, tools=["bash"], limits={"turns": 1})
    before_setup, before_send, before_use = seen
    assert before_setup[-1] == "attempt.started"
    assert before_send[-1] == "model.requested"
    assert before_use[-1] == "model.responded"


async def test_tools_run_in_the_workplace_and_their_results_go_back(bench: Bench) -> None:
    result = await bench.play(
        {
            "tool_calls": [
                {"name": "python", "arguments": {"code": "print('a')\n20 + 22"}},
                {"name": "bash", "arguments": {"command": "echo out; echo err >&2; exit 3"}},
            ]
        },
        "done",
        tools=["python", "bash"],
    )
    assert [message["role"] for message in result.messages] == [
        *("user", "assistant", "tool", "tool", "assistant")
    ]
    first, second = result.tool_calls
    assert first.result == "a\n42"
    assert first.error is None
    assert second.result == "out\nerr\n[ended: nonzero (exit code 3)]"
    assert (second.exit_code, second.error and second.error.type) == (3, "nonzero")
    asked = [use["id"] for use in result.messages[1]["tool_calls"]]
    assert [message["tool_call_id"] for message in result.messages[2:4]] == asked
    assert result.status == "success"


@pytest.mark.parametrize(
    ("name", "arguments", "kind"),
    [
        ("python", "{not json", "parsing"),
        ("python", "[" * 100_000, "parsing"),
        ("python", "3", "parsing"),
        ("python", {"cmd": "x"}, "parsing"),
        ("python", {"code": 3}, "parsing"),
        ("python", {"code": "1", "more": 2}, "parsing"),
        ("shell", {"command": "x"}, "unknown_tool"),
    ],
)
async def test_a_bad_call_goes_back_to_the_model_and_runs_nothing(
    bench: Bench, name: str, arguments: Any, kind: str
) -> None:
    result = await bench.play(call(name, arguments), "sorry", **PYTHON)
    (made,) = result.tool_calls
    assert made.error is not None
    assert made.error.type == kind
    assert made.error.message in result.messages[2]["content"]
    assert bench.workplace.commands == []
    assert (result.status, result.output) == ("success", "sorry")


async def test_parallel_calls_with_missing_and_repeated_ids_are_told_apart(
    bench: Bench, server: ScriptedServer
) -> None:
    same = [{"id": "x", "function": {"name": "bash", "arguments": '{"command": "echo 1"}'}}] * 2
    none = [{"function": {"name": "bash", "arguments": {"command": "echo 2"}}}]

    async def answer(request: Any) -> Any:
        from aiohttp import web

        message = {"role": "assistant", "content": None, "tool_calls": [*same, *none]}
        return web.json_response({"choices": [{"message": message}]})

    server.script(answer, says("done"))
    result = await bench.run(model="m", prompt="p", base_url=server.url, tools=["bash"])
    ids = [made.id for made in result.tool_calls]
    assert len(set(ids)) == 3
    sent = server.bodies[1]["messages"]
    assert [message["tool_call_id"] for message in sent if message["role"] == "tool"] == ids
    assert [made.result for made in result.tool_calls] == ["1", "1", "2"]
    assert [tool["function"]["name"] for tool in server.bodies[0]["tools"]] == ["bash"]


async def test_a_code_block_is_run_and_its_output_is_the_next_message(bench: Bench) -> None:
    result = await bench.play(
        "Let me see:\n```text\nno\n```\n```python\nprint('a')\n6 * 7\n```\nand ```bash\nx\n```",
        "It is 42.",
        tool_format="code_block",
        system="Be brief.",
        **PYTHON,
    )
    assert bench.workplace.commands == ["print('a')\n6 * 7\n"]
    assert result.messages[0]["content"].startswith("Be brief.\n\nTo run code")
    assert result.messages[3] == {
        "role": "user",
        "content": "The python block was run. Its output:\na\n42",
    }
    assert (result.output, result.status) == ("It is 42.", "success")


async def test_a_block_that_was_cut_off_is_not_run(bench: Bench) -> None:
    result = await bench.play("```python\nimport os", tool_format="code_block", **PYTHON)
    assert bench.workplace.commands == []
    assert result.warnings == ("the answer ends inside a code block, which was not run",)


@pytest.mark.parametrize(
    ("code", "state", "status"),
    [
        ("print(1)", AttemptState.COMPLETED, "success"),
        ("1 / 0", AttemptState.AGENT_ERROR, "error"),
        ("import time\ntime.sleep(60)", AttemptState.TIMEOUT, "limit"),
    ],
)
async def test_a_single_turn_ends_as_its_code_ended(
    bench: Bench, code: str, state: AttemptState, status: str
) -> None:
    result = await bench.play(
        f"```python\n{code}\n```",
        tool_format="code_block",
        single_turn=True,
        limits={"tool_timeout": 0.5},
        **PYTHON,
    )
    assert (result.state, result.status) == (state, status)
    assert result.usage.requests == 1
    assert len(result.tool_calls) == 1


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        ({"turns": 2}, "turns"),
        ({"tool_calls": 3}, "tool_calls"),
        ({"tokens": 40}, "tokens"),
        ({"tool_time": 0.001}, "tool_time"),
    ],
)
async def test_each_limit_ends_the_attempt_and_says_which(
    bench: Bench, limits: dict[str, Any], kind: str
) -> None:
    endless = [{**call("bash", {"command": "true"}), "usage": {"input_tokens": 10}}] * 20
    result = await bench.play(*endless, tools=["bash"], limits=limits)
    assert (result.status, result.state) == ("limit", AttemptState.LIMIT)
    assert result.limit is not None
    assert result.limit.type == kind
    assert result.limit.limit == limits[kind]
    # Every call has its result, so the conversation could go on.
    asked = [use["id"] for message in result.messages for use in message.get("tool_calls", ())]
    told = [message["tool_call_id"] for message in result.messages if message["role"] == "tool"]
    assert asked == told


async def test_the_time_limit_ends_a_slow_model_and_a_slow_tool(bench: Bench) -> None:
    for item in ({"content": "x", "delay": 60}, call("bash", {"command": "echo a; sleep 60"})):
        with anyio.fail_after(10):
            result = await bench.play(item, "x", tools=["bash"], limits={"time": 0.5})
        assert (result.state, result.status) == (AttemptState.TIMEOUT, "limit")
        assert result.limit is not None
        assert result.limit.type == "time"
    # What a tool wrote before it was cut off is kept.
    assert result.tool_calls[0].result.startswith("a\n[ended: timeout")


async def test_a_tools_timeout_goes_to_the_model_with_partial_output(bench: Bench) -> None:
    result = await bench.play(
        call("bash", {"command": "echo before; sleep 60"}),
        "ok",
        tools=["bash"],
        limits={"tool_timeout": 0.5},
    )
    assert result.tool_calls[0].result == "before\n[ended: timeout (timeout 0.5)]"
    assert result.status == "success"


async def test_the_tokens_left_cap_the_next_answer(bench: Bench, server: ScriptedServer) -> None:
    again = says(calls=[("bash", '{"command": "true"}')])
    server.script(again, again, says("done", finish_reason="length"))
    result = await bench.run(
        model="m", prompt="p", base_url=server.url, tools=["bash"], limits={"tokens": 45},
        parameters={"max_tokens": 20},
    )  # fmt: skip
    assert [body["max_tokens"] for body in server.bodies] == [20, 20, 15]
    assert result.limit is not None
    assert (result.limit.type, result.limit.used) == ("tokens", 45)


async def test_long_output_is_cut_in_the_middle_and_kept_whole(bench: Bench) -> None:
    result = await bench.play(
        call("bash", {"command": "seq 100000"}),
        "ok",
        tools=["bash"],
        limits={"tool_output": "1KiB"},
    )
    (made,) = result.tool_calls
    whole = "".join(f"{n}\n" for n in range(1, 100001)).encode()
    assert made.raw_bytes == len(whole)
    assert len(made.result.encode()) <= 1024
    assert made.result.startswith("1\n2\n")
    assert made.result.endswith("100000")
    assert f"of {len(whole):,} bytes left out here" in made.result
    (artifact,) = result.artifacts
    assert artifact.sha256 == made.artifact
    assert artifact_path(bench.runs_dir / result.id, artifact.sha256).read_bytes() == whole


async def test_code_alone_runs_without_a_model(bench: Bench) -> None:
    result = await bench.run(
        code="open('out.txt', 'w').write(open('in.txt').read())\nprint('said')",
        files={"in.txt": "data", "sub/raw.bin": b"\0\xff"},
        setup="test -f sub/raw.bin && echo ready",
        artifacts=["*.txt"],
    )
    assert (result.status, result.output) == ("success", "said")
    assert [artifact.path for artifact in result.artifacts] == ["in.txt", "out.txt"]
    assert result.usage.requests == 0
    assert result.provenance.requested_model is None


@pytest.mark.parametrize(
    ("code", "state"),
    [("1/0", AttemptState.AGENT_ERROR), ("while True: pass", AttemptState.TIMEOUT)],
)
async def test_code_that_fails_is_told_by_its_end_and_its_files_are_kept(
    bench: Bench, code: str, state: AttemptState
) -> None:
    result = await bench.run(
        code=f"open('kept.txt', 'w').close()\n{code}", artifacts="kept.*", limits={"time": 0.7}
    )
    assert (result.state, result.status) == (state, STATUS[state])
    if result.error is not None:
        assert result.error.message.endswith("ZeroDivisionError: division by zero")
    assert [artifact.path for artifact in result.artifacts] == ["kept.txt"]


async def test_a_failed_setup_command_runs_nothing_and_is_not_scored(bench: Bench) -> None:
    result = await bench.run(model="mock/echo", prompt="p", setup="echo why; false")
    assert result.state is AttemptState.INFRA_ERROR
    assert result.error is not None
    assert "why" in result.error.message
    assert result.usage.requests == 0


async def test_a_dead_sandbox_is_never_the_models_failure(bench: Bench) -> None:
    async def dying(*args: Any, **kwargs: Any) -> CommandResult:
        bench.workplace.dead = True
        return await PlainWorkplace.run_command(bench.workplace, *args, **kwargs)

    bench.workplace.run_command = dying  # type: ignore[method-assign]
    result = await bench.play(
        call("bash", {"command": "true"}), "x", tools=["bash"], artifacts=["*"]
    )
    assert (result.state, result.status) == (AttemptState.INFRA_ERROR, "error")
    assert result.error is not None
    assert result.error.type == "sandbox_ended"
    assert result.warnings == ("artifacts were not collected: the sandbox died",)


async def test_a_sandbox_that_cannot_be_set_up_is_raised_and_recorded(bench: Bench) -> None:
    async def refuse() -> None:
        raise IsolationError("no user namespaces here")

    bench.workplace.setup = refuse  # type: ignore[method-assign]
    with pytest.raises(IsolationError):
        await bench.run(model="mock/echo", prompt="p")
    (folder,) = find_runs(bench.runs_dir)
    result = read_run(folder).result
    assert result is not None
    assert result.state is AttemptState.INFRA_ERROR


async def test_a_failed_model_call_is_in_the_result(bench: Bench) -> None:
    result = await bench.play({"error": {"code": "model", "message": "overloaded for good"}})
    assert (result.state, result.status) == (AttemptState.MODEL_ERROR, "error")
    assert result.error is not None
    assert result.error.message == "overloaded for good"


async def test_a_call_that_failed_once_is_sent_again_and_its_wait_is_not_work(
    bench: Bench,
) -> None:
    error = {"error": {"code": "model_unavailable", "retryable": True}, "content": "ok"}
    result = await bench.play(error)
    assert (result.output, result.usage.requests) == ("ok", 2)
    assert 0.3 < result.timings.retries_wait <= 0.5
    assert result.timings.model_time < result.timings.retries_wait
    assert "model.retried" in bench.last_events()


async def test_a_full_context_is_a_limit(bench: Bench, server: ScriptedServer) -> None:
    server.script(fails(400, "maximum context length is 5", code="context_length_exceeded"))
    result = await bench.run(model="m", prompt="p", base_url=server.url)
    assert result.limit is not None
    assert (result.status, result.limit.type) == ("limit", "context")


async def test_several_answers_are_all_in_the_result(bench: Bench, server: ScriptedServer) -> None:
    async def answer(request: Any) -> Any:
        from aiohttp import web

        choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in "ab"]
        return web.json_response({"choices": choices})

    server.script(answer)
    result = await bench.run(model="m", prompt="p", base_url=server.url, parameters={"n": 2})
    assert (result.output, result.outputs) == ("a", ("a", "b"))


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"model": "mock/echo"}, ConfigError),
        ({"model": "mock/script", "prompt": "p"}, ConfigError),
        ({"model": "mock/ecco", "prompt": "p"}, ModelNotFound),
        ({"model": "gpt-3.5-turbo", "prompt": "p"}, ModelAuthError),
        ({"model": "local/none", "prompt": "p"}, ModelNotFound),
        ({"model": "mock/echo", "prompt": "p", "base_url": "http://a/v1"}, ConfigError),
    ],
)
async def test_what_cannot_run_is_an_error_before_anything_is_made(
    bench: Bench, config: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await bench.run(**config)
    assert not bench.runs_dir.exists()
    assert not bench.workplace.folder.exists()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (fails(401, f"bad key {KEY}"), ModelAuthError),
        (fails(404, "the model `m` was deprecated", code="model_not_found"), ModelNotFound),
    ],
)
async def test_a_refused_key_or_retired_model_is_raised_and_recorded(
    bench: Bench, server: ScriptedServer, fault: Any, error: type[Exception]
) -> None:
    server.script(fault)
    with pytest.raises(error):
        await bench.run(model="m", prompt="p", base_url=server.url, api_key_env="MY_KEY")
    (folder,) = find_runs(bench.runs_dir)
    result = read_run(folder).result
    assert result is not None
    assert result.state is AttemptState.MODEL_ERROR


async def test_a_cancelled_experiment_is_recorded_as_that(bench: Bench) -> None:
    with anyio.move_on_after(0.5) as scope:
        await bench.play(call("bash", {"command": "echo a; sleep 60"}), tools=["bash"])
    assert scope.cancelled_caught
    (folder,) = find_runs(bench.runs_dir)
    record = read_run(folder)
    assert not record.live
    assert record.result is not None
    assert (record.result.status, record.result.state) == ("cancelled", AttemptState.CANCELLED)
    (made,) = record.result.tool_calls
    assert made.error is not None
    assert made.error.type == "cancelled"


async def test_nothing_is_sent_once_the_journal_cannot_be_written(
    bench: Bench, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fdatasync

    def fail_on_request(descriptor: int) -> None:
        if b'"model.requested"' in Path(f"/proc/self/fd/{descriptor}").read_bytes():
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fail_on_request)
    server.script(says("never"))
    with pytest.raises(StateError):
        await bench.run(model="m", prompt="p", base_url=server.url)
    assert server.bodies == []


async def test_a_live_run_is_told_from_a_lost_one(bench: Bench) -> None:
    def journals() -> list[Path]:
        folders = find_runs(bench.runs_dir, bench.workplace.id)
        return [folder for folder in folders if (folder / "events.jsonl").exists()]

    async with anyio.create_task_group() as group:
        group.start_soon(bench.play, {"content": "x", "delay": 60})
        with anyio.fail_after(5):
            while not (found := await anyio.to_thread.run_sync(journals)):
                pass
        record = await anyio.to_thread.run_sync(read_run, found[0])
        assert record.live
        assert record.result is None
        group.cancel_scope.cancel()
    assert list(find_runs(bench.runs_dir, "sb_other")) == []


async def test_no_secret_reaches_sandbox_journal_result_or_plan(
    bench: Bench, server: ScriptedServer
) -> None:
    leaks = says(f"key {KEY}", calls=[("bash", json.dumps({"command": f"echo {KEY} | tee f"}))])
    server.script(fails(500, f"internal {KEY}"), leaks, fails(400, f"bad {KEY} hdr-canary-123"))
    result = await bench.run(
        model="m",
        prompt=f"remember {KEY}",
        base_url=server.url,
        api_key_env="MY_KEY",
        tools=["bash"],
        parameters={"extra_headers": {"X-Gateway-Token": "hdr-canary-123"}},
        artifacts=["f"],
    )
    assert server.headers[0]["X-Gateway-Token"] == "hdr-canary-123"
    assert result.error is not None
    texts = [repr(result), json.dumps(result.to_dict()), *bench.workplace.commands]
    assert not [text for text in texts if "canary" in text]
    for path in [*bench.runs_dir.rglob("*"), *bench.workplace.folder.rglob("*")]:
        assert not path.is_file() or b"canary" not in path.read_bytes(), path


async def test_a_prompt_of_10_mb_is_answered(bench: Bench) -> None:
    with anyio.fail_after(15):
        result = await bench.run(model="mock/echo", prompt="x" * 10_000_000)
    assert len(result.output) == 10_000_000
