"""What is left of a sandbox object once its client is closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_sdk import AsyncSandboxClient, ConfigError, SandboxClosed
from sandbox_sdk.values import EndKind, SandboxState

pytestmark = pytest.mark.anyio


async def test_closing_a_client_ends_its_sandboxes_and_leaving_them_is_nothing(
    tmp_path: Path,
) -> None:
    """The record says so, cleaning up again is nothing, and calls are refused."""
    client = AsyncSandboxClient(state_dir=tmp_path / "state")
    async with await client.create_sandbox("left open") as sandbox:
        await sandbox.setup()
        await client.aclose()
        with pytest.raises(SandboxClosed):
            await sandbox.run_command("true")
    await sandbox.cleanup()
    async with AsyncSandboxClient(state_dir=tmp_path / "state") as another:
        info = (await another.get_sandbox(sandbox.id)).info
    assert info.state is SandboxState.STOPPED
    assert info.ended is not None
    assert info.ended.kind is EndKind.OK


@pytest.mark.parametrize("path", ["", "\0", 5])
async def test_no_path_to_export_to_is_a_config_error(path: str, tmp_path: Path) -> None:
    """What no folder can be called is refused before anything is written."""
    async with AsyncSandboxClient(state_dir=tmp_path / "state") as client:
        sandbox = await client.create_sandbox("nowhere")
        with pytest.raises(ConfigError, match="path"):
            await sandbox.export_results(path)


@pytest.mark.parametrize("most", [-1, 1.5, True, "1"])
async def test_no_number_of_bytes_is_a_config_error(most: int, tmp_path: Path) -> None:
    """A bound that is none is refused before anything is read."""
    async with AsyncSandboxClient(state_dir=tmp_path / "state") as client:
        sandbox = await client.create_sandbox("bounds")
        with pytest.raises(ConfigError, match="max_bytes"):
            await sandbox.files.read("f", max_bytes=most)
