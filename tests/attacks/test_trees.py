"""Attacks by the shape of a workspace on the host that counts, hands over and copies it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from host import ROOT

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.engine.extract import collect
from sandbox_sdk.engine.meters import folder_use
from sandbox_sdk.errors import SandboxEnded
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import EndKind

pytestmark = pytest.mark.anyio

DIG = """
import os
for _ in range(1500):
    os.mkdir("ddd"); os.chdir("ddd")
"""
"""Code that makes paths longer than the kernel takes, and deeper than Python recurses."""


async def test_deep_tree(
    client: AsyncSandboxClient,
    sandbox: AsyncSandbox,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the host cannot count is an end by a limit; the workspace can be used on and deleted.

    One in memory need not be counted: its mount has a size. What lies too deep to be saved is told.
    """
    monkeypatch.setattr("sandbox_sdk.engine.watchdog._WALK_SHARE", 1)  # it is slow to walk
    workspace = next((state / "sandboxes").glob("*/workspace"))
    counted = {limit.name: limit.held_by for limit in sandbox.limits}["disk_files"] == "watchdog"
    then = "while True: pass" if counted else ""
    async with sandbox.start_command(["python", "-c", f"{DIG}\n{then}"]) as digger:
        ended = await digger.wait()
    if counted:
        assert (ended.kind, ended.limit) == (EndKind.DISK, "disk_files")
        assert "cannot be looked into" in ended.detail
        with pytest.raises(SandboxEnded):
            await sandbox.run_command("true")
        if ROOT:  # another uid gets it, and all that is in it changes hands
            os.chown(workspace, 0, 0)
    else:
        assert ended.kind is EndKind.OK
        await sandbox.cleanup()
        over = (await client.get_sandbox(sandbox.id)).info.ended
        assert over is not None
        assert "folders deep" in over.detail

    await sandbox.setup()
    assert (await sandbox.run_command("echo alive")).stdout == "alive\n"
    if ROOT and counted:
        assert (workspace / "ddd/ddd").stat().st_uid == workspace.stat().st_uid != 0

    await sandbox.cleanup()
    await client.delete_sandbox(sandbox.id)
    assert not workspace.exists()


@pytest.fixture
def shut(tmp_path: Path) -> Path:
    """Return a workspace with a folder that cannot be opened: a path too long for the kernel."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    start = os.getcwd()
    os.chdir(workspace)
    try:
        for _ in range(25):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        Path("file.csv").write_text("1")
    finally:
        os.chdir(start)
    return workspace


def test_uncountable_folder(shut: Path) -> None:
    """A tree that cannot be walked whole counts as too much, and is no crash."""
    use = folder_use(shut, most_bytes=1 << 30, most_files=1000)
    assert (use.files, use.complete) == (1001, False)


def test_folder_that_cannot_be_copied(shut: Path, tmp_path: Path) -> None:
    """A folder whose files might have matched is told, whatever was asked for."""
    found = collect(shut, ["**/*.csv"], tmp_path / "kept")
    assert found.artifacts == ()
    ((path, reason),) = found.skipped.items()
    assert path.startswith("d" * 200)
    assert path.endswith("/")
    assert "File name too long" in reason
