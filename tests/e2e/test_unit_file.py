"""The systemd unit: how exposed it leaves the server, and that the server works behind it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.abc
import pytest
import unit_walls

import sandbox_sdk
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.crypto_utils import SigningKey
from sandbox_sdk.crypto_utils.identities import WORKER

UNIT = Path(__file__).parents[2] / "docs" / "sandbox-sdk.service"
MOST_EXPOSED = 3.5
UID = 65_534

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze knows what the groups mean"
)


@needs_systemd
def test_the_unit_leaves_the_server_little_exposed() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr  # what it did not understand
    (found,) = re.findall(r"Overall exposure level .*: ([0-9.]+)", done.stdout)
    assert float(found) <= MOST_EXPOSED


def python() -> str:
    """A Python that a plain user may run."""
    if os.geteuid() != 0:
        return sys.executable
    return f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that a plain user can reach, with one of its own in it."""
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        place.chmod(0o755)
        (place / "own").mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(place / "own", UID, UID)
        yield place


def rights_of(pid: int) -> dict[str, str]:
    return dict(re.findall(r"^(\w+):\t(\S+)", Path(f"/proc/{pid}/status").read_text(), re.M))


def imported() -> str:
    """Where the SDK and what it needs are imported from."""
    ours = Path(sandbox_sdk.__file__).parents[1]
    return os.pathsep.join([str(ours), *(path for path in sys.path if "-packages" in path)])


@needs_systemd
@pytest.mark.skipif(not Path(python()).exists(), reason="root needs a Python for a plain user")
@pytest.mark.anyio
@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_a_server_behind_the_units_walls_starts_a_sandbox_at_high(folder: Path) -> None:
    socket = folder / "own" / "run" / "server.sock"
    wrapped = [sys.executable, unit_walls.__file__, str(UNIT), str(UID), python()]
    serve = ["-m", "sandbox_sdk", "serve", "--state-dir", str(folder / "own" / "state")]
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder / "own"),
        "PYTHONPATH": imported(),
        "SANDBOX_ORCHESTRATOR_POOL_SIZE": "0",
    }
    log = folder / "log"
    with log.open("wb") as stderr:
        command = [*wrapped, *serve, "--socket", str(socket), "--drain-seconds", "0.5"]
        server = await anyio.open_process(command, env=environment, stderr=stderr)
    try:
        async with server:
            await check(server, f"unix://{socket}", folder)
    except BaseException as error:
        error.add_note(log.read_text())
        raise
    finally:
        unit_walls.take_back(server.pid)


async def check(server: anyio.abc.Process, endpoint: str, folder: Path) -> None:
    try:
        assert server.stdout is not None
        assert (await server.stdout.receive()).startswith(b"ready at")
        rights = rights_of(server.pid)
        assert int(rights["Uid"]) == (UID if os.geteuid() == 0 else os.geteuid())
        assert rights["NoNewPrivs"] == "1"
        assert rights["Seccomp"] == "2"
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(rights[name], 16) == 0
        # As root this process may read what is the server's user's alone.
        secret = (folder / "own" / "state" / "keys" / WORKER).read_text()
        worker = SigningKey(bytes.fromhex(secret)).public.to_text()
        pin = {"security": {"worker_key": worker}}
        async with (
            AsyncSandboxClient(
                endpoint=endpoint, state_dir=folder / "client", config=pin
            ) as client,
            await client.create_sandbox("x", security_level="high") as sandbox,
        ):
            assert (await sandbox.run_command("echo works > f && cat f")).stdout == "works\n"
            assert (await sandbox.run_code("print(6 * 7)")).stdout == "42\n"
        server.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
    finally:
        if server.returncode is None:
            server.kill()
