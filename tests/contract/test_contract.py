"""The contract over every face of the SDK that this machine can run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import faces
import pytest
from host import GROUPS, ROOT
from served import far

from sandbox_sdk import SandboxClient
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.testing import CHECKS, commands, lifecycle, limits, terminals
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


PART = frozenset({*lifecycle.CHECKS, *commands.CHECKS, *limits.CHECKS})
"""The checks that look at how things end, which is told apart on each way."""


def promised(check: Check, way: Way) -> bool:
    """Whether a check is one of what a way offers here, and is to be run on it."""
    if way.face != "async" and check in ASYNC_ONLY:
        return False
    if way.part and check not in PART:
        return False
    return ROOT or way.level != "low" or check not in ON_TERMINALS


@attrs.frozen
class Way:
    """One way to use sandboxes.

    Attributes:
        face: ``async`` or ``blocking``.
        open: Opens a client of it.
        runtime: What makes the sandboxes.
        level: Their security level.
        ready: How many are kept ready.
        where: ``here``, or on a server: over a Unix socket or ``tls``, and ``plain`` if its
            channels are not sealed.
        part: Whether it runs the checks of lifecycle, commands and limits only.
    """

    face: str
    open: Open
    runtime: str
    level: str
    ready: int
    where: str = "here"
    part: bool = False

    def __str__(self) -> str:
        return f"{self.where}-{self.face}-{self.runtime}-{self.level}"

    @property
    def settings(self) -> dict[str, object]:
        """The settings of its clients."""
        return {
            "runtime": self.runtime,
            "security": {"level": self.level},
            "orchestrator": {"pool_size": self.ready},
        }


# The blocking face is the same over any runtime and level.
WAYS = (
    Way("async", faces.open_async, "zygote", "medium", 0),
    Way("async", faces.open_async, "zygote", "high", 2),
    Way("async", faces.open_async, "zygote", "low", 0),
    Way("async", faces.open_async, "bubblewrap", "medium", 0),
    Way("blocking", faces.open_blocking, "zygote", "medium", 2),
    # Sealed is what users have; the rest is of another channel or another way to the same.
    Way("async", far(faces.open_async), "zygote", "medium", 0, "unix"),
    Way("async", far(faces.open_async), "zygote", "high", 2, "unix"),
    Way("blocking", far(faces.open_blocking, tls=True), "zygote", "medium", 2, "tls"),
    Way("async", far(faces.open_async, seals=False), "zygote", "medium", 0, "unix-plain"),
    Way("async", far(faces.open_async, tls=True), "zygote", "medium", 2, "tls", part=True),
    Way("blocking", far(faces.open_blocking), "zygote", "medium", 0, "unix", part=True),
    Way(
        "blocking",
        far(faces.open_blocking, tls=True, seals=False),
        "zygote",
        "medium",
        0,
        "tls-plain",
        part=True,
    ),
)

CASES = [
    pytest.param(way, check, id=f"{way}-{check.__name__}")
    for way in WAYS
    if way.level != "high" or GROUPS
    for check in CHECKS
    if promised(check, way)
]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run these tests on one loop, for they share clients."""
    return "asyncio"


@pytest.fixture(scope="module")
async def clients(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Callable[[Way], Awaitable[Any]]]:
    """Return a function that gives the one client of a way."""
    opened: dict[Way, Any] = {}
    async with AsyncExitStack() as stack:

        async def find(way: Way) -> Any:
            if way not in opened:
                folder = tmp_path_factory.mktemp(str(way)) / "state"
                opened[way] = await stack.enter_async_context(way.open(folder, way.settings))
            return opened[way]

        yield find


@pytest.mark.anyio
@pytest.mark.parametrize(("way", "check"), CASES)
async def test_contract(way: Way, check: Check, clients: Callable[[Way], Awaitable[Any]]) -> None:
    client = await clients(way)
    await check(client)
    for record in await client.list_sandboxes():
        await client.delete_sandbox(record.id)


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
