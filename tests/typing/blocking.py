"""What checkers know of the blocking classes; checked by mypy and basedpyright, never run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import assert_type

from sandbox_sdk import (
    CodeResult,
    CommandResult,
    Ended,
    ExperimentResult,
    FileInfo,
    Process,
    ResourceSnapshot,
    RunResult,
    Sandbox,
    SandboxClient,
    SandboxInfo,
    Trial,
    Usage,
)


def client_calls(client: SandboxClient) -> None:
    """Calls of the client."""
    assert_type(client.create_sandbox("a", resources={"memory": "2GB", "cpu": 1}), Sandbox)
    assert_type(client.get_sandbox("sb"), Sandbox)
    assert_type(client.list_sandboxes(), list[SandboxInfo])
    assert_type(client.get_orchestrator().monitor_resources(), ResourceSnapshot)
    with SandboxClient(state_dir="state") as same:
        assert_type(same, SandboxClient)
    client.create_sandbox("a", tiemout=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def sandbox_calls(sandbox: Sandbox) -> None:
    """Calls of a sandbox."""
    with sandbox as same:
        assert_type(same, Sandbox)
    assert_type(sandbox.run_command(["ls"], cwd="/tmp", timeout=1.5), CommandResult)
    assert_type(sandbox.run_code("1 + 1").text, str | None)
    assert_type(sandbox.run_code("1 + 1"), CodeResult)
    assert_type(sandbox.run_experiment({"model": "mock/hello", "prompt": "hi"}), ExperimentResult)
    assert_type(sandbox.start_command("cat"), AbstractContextManager[Process])
    assert_type(sandbox.usage(), Usage)


def process_calls(process: Process) -> None:
    """Calls of a running command."""
    assert_type(process.stdout, Iterator[bytes])
    assert_type(process.wait(), Ended)


def file_calls(sandbox: Sandbox) -> None:
    """Calls on files."""
    assert_type(sandbox.files.read("a"), bytes)
    assert_type(sandbox.files.list(), list[FileInfo])
    assert_type(sandbox.files.read_stream("a"), Iterator[bytes])
    sandbox.files.write_stream("a", [b"one", b"two"])
    sandbox.files.write_stream("a", ["text"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def batches(client: SandboxClient) -> None:
    """A batch's results have types."""
    assert_type(client.run_batch({"model": "mock/echo", "prompt": "hi"}), RunResult)
    with client.start_batch({}) as batch:
        for trial in batch:
            assert_type(trial, Trial)
        assert_type(batch.result(), RunResult)
