"""Many sandboxes at once, started by one client over one launcher."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from sandbox_sdk import AsyncSandboxClient

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60), pytest.mark.slow]

MANY = 40


async def test_many_sandboxes_start_run_and_end_at_the_same_time(tmp_path: Path) -> None:
    """Each gets its own answer, though more start at once than the launcher's socket holds."""
    answers: dict[int, str | None] = {}
    async with AsyncSandboxClient(state_dir=tmp_path / "state") as client:

        async def one(number: int) -> None:
            async with await client.create_sandbox(f"number {number}") as sandbox:
                answers[number] = (await sandbox.run_code(f"{number} * 2")).text

        async with anyio.create_task_group() as group:
            for number in range(MANY):
                group.start_soon(one, number)
    assert answers == {number: str(number * 2) for number in range(MANY)}
