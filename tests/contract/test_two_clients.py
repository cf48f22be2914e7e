"""Where two clients want one sandbox, this machine and a server differ, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest
from served import process

from sandbox_sdk import AsyncSandboxClient
from sandbox_sdk.errors import SandboxBusy
from sandbox_sdk.values import EndKind, SandboxState

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


async def test_on_this_machine_a_sandbox_is_its_holders(tmp_path: Path) -> None:
    async with (
        AsyncSandboxClient(state_dir=tmp_path) as one,
        AsyncSandboxClient(state_dir=tmp_path) as two,
        await one.create_sandbox("x") as sandbox,
    ):
        same = await two.get_sandbox(sandbox.id)
        with pytest.raises(SandboxBusy):
            await same.run_command("true")
        with pytest.raises(SandboxBusy):
            await same.cleanup()


async def test_on_a_server_it_is_everybodys_of_the_tenant(tmp_path: Path) -> None:
    async with (
        process(tmp_path / "server") as (_, endpoint),
        AsyncSandboxClient(endpoint=endpoint, state_dir=tmp_path / "client") as one,
        AsyncSandboxClient(endpoint=endpoint, state_dir=tmp_path / "client") as two,
        await one.create_sandbox("x") as sandbox,
    ):
        same = await two.get_sandbox(sandbox.id)
        async with sandbox.start_command("echo begun; sleep 1000") as program:
            assert await anext(aiter(program.stdout)) == b"begun\n"
            assert (await same.run_command("echo too")).stdout == "too\n"
            await same.cleanup()
            ended = await program.wait()
        assert ended.kind is EndKind.CANCELLED
        assert (await one.list_sandboxes())[0].state is SandboxState.STOPPED
