"""The contract over every face of the SDK that this machine can run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import faces
import pytest
from host import GROUPS, ROOT

from sandbox_sdk import SandboxClient
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.testing import CHECKS, terminals
from sandbox_sdk.testing.inside import PROGRAMS
from sandbox_sdk.testing.lifecycle import cancelled_call_leaves_nothing
from sandbox_sdk.values import EndKind

pytestmark = pytest.mark.timeout(60)

Check = Callable[[AsyncSandboxClient], Awaitable[None]]
Open = Callable[[Path, dict[str, object]], AbstractAsyncContextManager[Any]]

# A blocking call is given up by Ctrl-C, which has a test of its own below.
ASYNC_ONLY = frozenset({cancelled_call_leaves_nothing})

# There a plain user's sandboxes have none, for they would see those of the user (test below).
ON_TERMINALS = frozenset(terminals.CHECKS)


def promised(check: Check, face: str, level: str) -> bool:
    """Whether a check is one of what a level offers by a face here."""
    if face != "async" and check in ASYNC_ONLY:
        return False
    return ROOT or level != "low" or check not in ON_TERMINALS


# The blocking face is the same over any runtime and level.
WAYS: tuple[tuple[str, Open, str, str, int], ...] = (
    ("async", faces.open_async, "zygote", "medium", 0),
    ("async", faces.open_async, "zygote", "high", 2),
    ("async", faces.open_async, "zygote", "low", 0),
    ("async", faces.open_async, "bubblewrap", "medium", 0),
    ("blocking", faces.open_blocking, "zygote", "medium", 2),
)
"""Face, its opener, runtime, level, and how many sandboxes are kept ready."""

CASES = [
    pytest.param(
        check, opened, runtime, level, ready, id=f"{face}-{runtime}-{level}-{check.__name__}"
    )
    for face, opened, runtime, level, ready in WAYS
    if level != "high" or GROUPS
    for check in CHECKS
    if promised(check, face, level)
]


@pytest.mark.anyio
@pytest.mark.parametrize(("check", "opened", "runtime", "level", "ready"), CASES)
async def test_contract(
    check: Check, opened: Open, runtime: str, level: str, ready: int, tmp_path: Path
) -> None:
    settings: dict[str, object] = {
        "runtime": runtime,
        "security": {"level": level},
        "orchestrator": {"pool_size": ready},
    }
    async with opened(tmp_path / "state", settings) as client:
        await check(client)


@pytest.mark.anyio
@pytest.mark.skipif(ROOT, reason="root's sandboxes have uids, and so terminals, of their own")
async def test_a_plain_user_has_no_terminal_at_low(tmp_path: Path) -> None:
    """It is refused in words that say what to do; the sandbox goes on."""
    settings = {"security": {"level": "low"}}
    async with (
        AsyncSandboxClient(state_dir=tmp_path, config=settings) as client,
        await client.create_sandbox("contract") as sandbox,
    ):
        refused = await sandbox.run_command("tty", tty=True)
        after = await sandbox.run_command("echo on")
    assert refused.ended.kind is EndKind.POLICY_DENIED
    assert 'ask for "medium"' in refused.ended.detail
    assert after.stdout == "on\n"


def test_interrupted_blocking_call_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C ends a blocking call inside too, and the sandbox goes on."""
    with (
        SandboxClient(state_dir=tmp_path / "state") as client,
        client.create_sandbox("contract") as sandbox,
    ):

        def interrupt_once_it_runs() -> None:
            sandbox.run_command("until test -e started; do sleep 0.01; done", timeout=30)
            os.kill(os.getpid(), signal.SIGINT)

        watching = threading.Thread(target=interrupt_once_it_runs)
        watching.start()
        with pytest.raises(KeyboardInterrupt):
            sandbox.run_command("setsid sleep 1000 & touch started; sleep 1000")
        watching.join()
        left = sandbox.run_command(PROGRAMS)
    assert "sleep" not in left.stdout


def test_the_checks_need_no_pytest() -> None:
    """Others can run the contract under any test runner."""
    code = "import sys; sys.modules['pytest'] = None; from sandbox_sdk.testing import CHECKS"
    subprocess.run([sys.executable, "-c", code], check=True)
