"""``kill -9`` of a server under load: nothing of it is left, and nothing that it told is lost."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import anyio
import attrs
import pytest
from host import running
from served import process

from sandbox_sdk.backends.http import channel
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import SandboxError
from sandbox_sdk.values import EndKind, SandboxState, new_id

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LANES = 3


@attrs.define
class Told:
    """What a client was told before the server died.

    Attributes:
        made: The sandboxes that there are.
        wrote: Sandbox -> how many lines its file surely has.
        ended: How the calls under way ended.
    """

    made: list[str] = attrs.field(factory=list)
    wrote: dict[str, int] = attrs.field(factory=dict)
    ended: list[EndKind] = attrs.field(factory=list)


async def use(client: AsyncSandboxClient, marker: str, told: Told) -> None:
    """Make a sandbox, and write to it until the server is gone."""
    try:
        sandbox = await client.create_sandbox("x")
        told.made.append(sandbox.id)
        await sandbox.setup()
        async with sandbox.start_command(["sh", "-c", "sleep 1000", marker]):
            while True:
                done = await sandbox.run_command("echo line >> lines")
                if not done.ok:
                    told.ended.append(done.ended.kind)
                    return
                told.wrote[sandbox.id] = told.wrote.get(sandbox.id, 0) + 1
    except SandboxError:
        return  # there is no server any more


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(3, marks=pytest.mark.timeout(120)),
        pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
async def test_a_server_killed_under_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    monkeypatch.setattr(channel, "AGAIN_SECONDS", 0.3)
    told = Told()
    for _ in range(rounds):
        marker = new_id("mark")
        async with process(tmp_path / "server") as (server, endpoint):
            async with (
                AsyncSandboxClient(endpoint=endpoint, state_dir=tmp_path / "client") as client,
                anyio.create_task_group() as group,
            ):
                for _ in range(LANES):
                    group.start_soon(use, client, marker, told)
                await anyio.sleep(random.uniform(0.5, 2.0))
                server.send_signal(signal.SIGKILL)
            with anyio.fail_after(10):
                while running(marker):  # noqa: ASYNC110 - the kernel tells nobody
                    await anyio.sleep(0.02)
    assert set(told.ended) <= {EndKind.INFRA}

    async with (
        process(tmp_path / "server") as (_, endpoint),
        AsyncSandboxClient(endpoint=endpoint, state_dir=tmp_path / "client") as client,
    ):
        records = {each.id: each for each in await client.list_sandboxes()}
        assert records.keys() >= set(told.made)
        # A request whose answer was lost may have made one more for each lane, and no more.
        assert len(records) <= rounds * LANES
        assert all(
            each.state in (SandboxState.LOST, SandboxState.CREATED) for each in records.values()
        )
        for made, count in told.wrote.items():
            assert records[made].state is SandboxState.LOST
            sandbox = await client.get_sandbox(made)
            lines = (await sandbox.files.read_text("lines")).split()
            assert count <= len(lines) <= count + 1
            await client.delete_sandbox(made)
    assert not list((tmp_path / "server" / "ready").iterdir())
