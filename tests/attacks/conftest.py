"""What attacks share: a sandbox with the attack programs in it, and the same programs outside.

An attack counts as refused only if the same program works outside of the sandbox.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from attacking import PROGRAMS, Inside, Outside
from host import told

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.sandbox import AsyncSandbox


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncSandboxClient]:
    async with AsyncSandboxClient(state_dir=tmp_path / "state") as client:
        yield client


@pytest.fixture
def programs() -> dict[str, str]:
    """Return the attack programs as initial files of a sandbox."""
    return {f"attacks/{path.name}": path.read_text() for path in PROGRAMS.glob("*.py")}


@pytest.fixture
async def sandbox(
    client: AsyncSandboxClient, programs: dict[str, str]
) -> AsyncIterator[AsyncSandbox]:
    async with await client.create_sandbox("attacked", files=programs) as sandbox:
        yield sandbox


@pytest.fixture
def inside(sandbox: AsyncSandbox) -> Inside:
    """Return a function that runs an attack program in the sandbox."""

    async def run(program: str, *arguments: str | Path) -> dict[str, str]:
        words = ["python", f"attacks/{program}.py", *map(str, arguments)]
        done = await sandbox.run_command(words, timeout=15)
        assert done.ok, f"{done.ended}: {done.stderr}"
        return told(done.stdout)

    return run


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    """Return a function that runs an attack program on the host, where it must work."""

    def run(program: str, *arguments: str | Path) -> dict[str, str]:
        words = [sys.executable, str(PROGRAMS / f"{program}.py"), *map(str, arguments)]
        done = subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, timeout=15, check=False
        )
        assert done.returncode == 0, done.stderr
        return told(done.stdout)

    return run
