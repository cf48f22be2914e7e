"""A backup of a server that serves meanwhile, and a server that goes on from it."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from served import program

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.values import SandboxState

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(120)]


async def told(state: Path, *words: str) -> Any:
    command = [sys.executable, "-m", "sandbox_sdk", "--state-dir", str(state), "--json", *words]
    done = await anyio.run_process(command, check=False)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in folder.rglob("*")}


def revoke_all(state: Path) -> None:
    with sqlite3.connect(state / "auth" / "auth.db") as connection:
        connection.execute("UPDATE api_keys SET revoked_at = 1")


async def test_a_server_goes_on_from_a_backup_that_was_made_while_it_served(
    tmp_path: Path,
) -> None:
    state, kept = tmp_path / "server", tmp_path / "kept"
    await told(state, "server", "init")
    await told(state, "admin", "tenants", "create", "team")
    key = (await told(state, "admin", "keys", "create", "--tenant", "team", "ann"))["secret"]
    worker = await told(state, "server", "fingerprint")
    stop = anyio.Event()
    options = ("--host", "127.0.0.1", "--port", "0")

    def client(endpoint: str, folder: str) -> AsyncSandboxClient:
        here = tmp_path / folder
        pin = {"security": {"worker_key": worker["worker_key"]}}
        return AsyncSandboxClient({"api_key": key}, endpoint=endpoint, state_dir=here, config=pin)

    async with (
        program(state, *options) as (_, endpoints),
        client(endpoints[0], "a") as ann,
        await ann.create_sandbox("runs", security_level="high") as running,
    ):

        async def write() -> None:
            while not stop.is_set():
                made = await ann.create_sandbox("more", security_level="high")
                await ann.delete_sandbox(made.id)

        async with anyio.create_task_group() as group:
            group.start_soon(write)
            done = await told(state, "server", "backup", str(kept))
            stop.set()
        assert done["files"] > 5
        assert modes(kept) == {0}
        assert (await told(state, "server", "backup", str(kept)))["error"]["code"] == "state"
        # The copy is nobody's: what runs goes on, whoever opens it.
        async with program(kept, *options) as (_, others), client(others[0], "b") as again:
            assert (await again.validate_auth()).subject == "ann"
            assert (await again.get_sandbox(running.id)).info.state is SandboxState.LOST
            async with await again.create_sandbox("new", security_level="high") as sandbox:
                assert (await sandbox.run_command("echo on")).stdout == "on\n"
            assert (await running.run_command("echo still")).stdout == "still\n"
    assert await told(kept, "server", "fingerprint") == worker
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".kept")]
    revoke_all(kept)  # which is a database of its own
    listed = (await told(state, "admin", "keys", "list"))["keys"]
    assert not any(each["revoked_at"] for each in listed)
    team = kept / "tenants" / "team"
    verified = await told(team, "audit", "verify")
    assert verified["status"] in ("ok", "verified", "unpinned"), verified
