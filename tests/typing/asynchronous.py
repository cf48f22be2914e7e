"""What checkers know of the async classes; checked by mypy and basedpyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

from sandbox_sdk import (
    AsyncProcess,
    AsyncSandbox,
    AsyncSandboxClient,
    CodeResult,
    ExperimentResult,
    ResourceSnapshot,
    RunResult,
    Trial,
)


async def client_calls() -> None:
    """Calls of the client."""
    async with AsyncSandboxClient() as client:
        assert_type(client, AsyncSandboxClient)
        async with await client.create_sandbox("a") as sandbox:
            assert_type(sandbox, AsyncSandbox)
        orchestrator = await client.get_orchestrator()
        assert_type(await orchestrator.monitor_resources(), ResourceSnapshot)


async def sandbox_calls(sandbox: AsyncSandbox) -> None:
    """Calls of a sandbox."""
    assert_type(await sandbox.run_code("1 + 1"), CodeResult)
    assert_type(await sandbox.run_experiment({"code": "1 + 1"}), ExperimentResult)
    async with sandbox.start_command("cat") as process:
        assert_type(process, AsyncProcess)
    assert_type(sandbox.files.read_stream("a"), AsyncIterator[bytes])


async def batches(client: AsyncSandboxClient) -> None:
    """A batch's results have types."""
    result = await client.run_batch({"model": "mock/echo", "prompt": "hi"})
    assert_type(result, RunResult)
    assert_type(result.trials[0], Trial)
    async with client.start_batch({}) as batch:
        async for trial in batch:
            assert_type(trial, Trial)
        assert_type(await batch.result(), RunResult)
