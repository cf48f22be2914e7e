"""``sandbox-sdk serve`` as its users have it: commands, experiments and its end."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import anyio
import pytest
from served import process

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import ConfigError, ExportError, SandboxNotFound
from sandbox_sdk.values import AttemptState, EndKind

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(90)]

SCRIPT = {
    "model": "mock/script",
    "prompt": "How many primes are there below 100?",
    "tools": ["python"],
    "tool_format": "code_block",
    "parameters": {
        "extra_body": {"script": ["```python\nprint(6 * 7)\n```", "There are 42."]},
    },
}


async def test_commands_of_the_command_line_use_the_server_that_is_set(tmp_path: Path) -> None:
    async with process(tmp_path / "server", "--allow", "host-template") as (server, endpoint):
        folder = str(tmp_path / "client")
        words = [sys.executable, "-m", "sandbox_sdk", "--state-dir", folder]
        done = await anyio.run_process([*words, "--endpoint", endpoint, "exec", "--", "id", "-u"])
        assert done.stdout.strip().isdigit()
        environment = {**os.environ, "SANDBOX_ENDPOINT": endpoint}
        listed = await anyio.run_process([*words, "--json", "list"], env=environment)
        assert "sandboxes" in json.loads(listed.stdout)
        server.send_signal(signal.SIGHUP)  # nothing to read anew
        server.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
    assert not await anyio.Path(endpoint.removeprefix("unix://")).exists()


async def test_experiments_and_batches_run_there_and_are_recorded_here(tmp_path: Path) -> None:
    async with (
        process(tmp_path / "server") as (_, endpoint),
        AsyncSandboxClient(endpoint=endpoint, state_dir=tmp_path / "client") as client,
    ):
        async with await client.create_sandbox("x") as sandbox:
            with pytest.raises(ExportError, match="no results"):
                await sandbox.export_results(tmp_path / "none")
            result = await sandbox.run_experiment(SCRIPT)
            assert result.status == "success"
            assert result.tool_calls[0].result.strip() == "42"
            (run,) = await sandbox.export_results(tmp_path / "out")
            assert await anyio.Path(run / "SHA256SUMS").exists()
        assert await anyio.Path(tmp_path / "client" / "runs" / result.id).exists()
        assert not [*(tmp_path / "server" / "runs").iterdir()]
        batch = await client.run_batch(
            {
                **SCRIPT,
                "prompt": "{input}",
                "dataset": [{"id": "a", "input": "x"}, {"id": "b", "input": "y"}],
            }
        )
        assert [trial.state for trial in batch.trials] == [AttemptState.COMPLETED] * 2
        assert [each.id for each in await client.list_sandboxes()] == [sandbox.id]
        await client.delete_sandbox(sandbox.id)
        with pytest.raises(SandboxNotFound):
            await client.get_sandbox(sandbox.id)
        assert not await anyio.Path(tmp_path / "client" / "runs" / result.id).exists()


async def test_a_server_that_ends_takes_its_sandboxes_along(tmp_path: Path) -> None:
    async with process(tmp_path / "server") as (server, endpoint):
        client = AsyncSandboxClient(endpoint=endpoint, state_dir=tmp_path / "client")
        sandbox = await client.create_sandbox("x")
        async with sandbox.start_command("echo begun; sleep 1000") as program:
            assert await anext(aiter(program.stdout)) == b"begun\n"
            server.send_signal(signal.SIGTERM)
            ended = await program.wait()
            assert await server.wait() == 0
        # Told by the server if there was time for it, else found out.
        assert ended.kind in (EndKind.CANCELLED, EndKind.INFRA)
        await client.aclose()


async def test_two_servers_do_not_share_a_socket_and_nonsense_is_told(tmp_path: Path) -> None:
    async with process(tmp_path / "server") as (_, endpoint):
        words = [sys.executable, "-m", "sandbox_sdk", "serve", "--state-dir", str(tmp_path / "b")]
        for options, said in (
            (["--socket", endpoint.removeprefix("unix://")], b"listens at"),
            (["--host", "0.0.0.0"], b"--tls-cert"),
            (["--host", "127.0.0.1", "--port", "0"], b"who calls"),
            (["--tls-cert", __file__], b"go together"),
            (["--tls-cert", __file__, "--tls-key", __file__], b"are about --host"),
            (["--behind-proxy"], b"are about --host"),
        ):
            done = await anyio.run_process([*words, *options], check=False)
            assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    with pytest.raises(ConfigError, match="endpoint"):
        AsyncSandboxClient(endpoint="here")
