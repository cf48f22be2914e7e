"""A sandbox out of processes refuses calls as often as asked, and then goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_sdk import AsyncSandboxClient
from sandbox_sdk.engine import plan
from sandbox_sdk.values import EndKind

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

HOG = """
import os, time
try:
    while True:
        if os.fork() == 0: time.sleep(1000)
except BlockingIOError: pass
print("full", flush=True)
time.sleep(1000)
"""
FEW, MANY = 64, 300


async def test_refused_calls_cost_the_agent_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent with few descriptors would soon have none if a refused call kept one."""
    monkeypatch.setattr(plan, "_AGENT_FILES", FEW)
    async with (
        AsyncSandboxClient(state_dir=tmp_path / "state") as client,
        await client.create_sandbox("hog", resources={"pids": 4, "open_files": FEW}) as sandbox,
    ):
        async with sandbox.start_command(["python", "-c", HOG]) as hog:
            async for said in hog.stdout:
                assert said == b"full\n"
                break
            ends = [(await sandbox.run_command("true")).ended.kind for _ in range(MANY)]
            held = {limit.name: limit.held_by for limit in sandbox.limits}
        # Without a control group the agent has processes to spare that guests have not.
        assert (EndKind.PIDS in ends) == held["pids"].startswith("cgroup")
        assert EndKind.INFRA not in ends
        assert (await sandbox.run_command("echo alive")).stdout == "alive\n"
