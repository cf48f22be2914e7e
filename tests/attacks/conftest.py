"""What attacks share: sandboxes of every kind, the attack programs in them, the same outside.

An attack counts as refused only if the same program works outside of the sandbox. Every attack
that asks for a client is tried at each runtime and level; all share a client of each kind, and
each has sandboxes of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from attacking import GAPS, KINDS, PROGRAMS, Gap, Inside, Kind, OpenClient, Outside
from host import inits, inner_pid, told

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import SandboxEnded
from sandbox_sdk.sandbox import AsyncSandbox

HERE = Path(__file__).parent
FAILURES = (AssertionError, SandboxEnded)
"""How a test fails that shows a gap."""


class KindClient(AsyncSandboxClient):
    """A client whose sandboxes may go without what their kind lets them.

    Attributes:
        folder: Its state folder.
    """

    def __init__(self, kind: Kind, folder: Path) -> None:
        super().__init__(state_dir=folder, config=kind.settings)
        self.folder = folder
        self._waive = kind.waive

    async def create_sandbox(self, name: str, **options: Any) -> AsyncSandbox:
        """Record a sandbox, with the kind's waivers unless others are given."""
        return await super().create_sandbox(name, **{"waive": self._waive, **options})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give an attack a minute where it says nothing else, and have it fail where a gap is told.

    Many attacks load the whole machine.
    """
    for item in items:
        if item.path.parent != HERE:
            continue
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(60))
        for gap in _gaps(item):
            item.add_marker(
                pytest.mark.xfail(reason=gap.says, raises=FAILURES, strict=True, run=gap.tried)
            )


def _gaps(item: pytest.Item) -> Iterator[Gap]:
    """Yield what is told of a test at its level."""
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return
    kind = item.callspec.params.get("kind")
    names = {item.originalname, item.name.replace(f"{kind}-", "")}
    for gap in GAPS:
        if gap.here and isinstance(kind, Kind) and kind.level == gap.level and names & {*gap.tests}:
            yield gap


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for the end of a call than users are made to: what counts is that it comes."""
    monkeypatch.setattr("sandbox_sdk.link.KILL_SECONDS", 15.0)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run all async tests on one loop, for they share clients."""
    return "asyncio"


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Return the kind of sandbox that is attacked."""
    kind: Kind = request.param
    return kind


@pytest.fixture(scope="module")
async def clients(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Callable[[Kind], Awaitable[KindClient]]]:
    """Return a function that gives the only client for a kind of sandbox."""
    opened: dict[Kind, KindClient] = {}
    async with AsyncExitStack() as stack:

        async def find(kind: Kind) -> KindClient:
            if kind not in opened:
                folder = tmp_path_factory.mktemp(str(kind)) / "state"
                opened[kind] = await stack.enter_async_context(KindClient(kind, folder))
            return opened[kind]

        yield find


@pytest.fixture
async def client(
    kind: Kind, clients: Callable[[Kind], Awaitable[KindClient]]
) -> AsyncIterator[KindClient]:
    """Return a client that has no sandbox yet."""
    client = await clients(kind)
    yield client
    for record in await client.list_sandboxes():
        await client.delete_sandbox(record.id)


@pytest.fixture
async def own_client(kind: Kind, tmp_path: Path) -> AsyncIterator[OpenClient]:
    """Return a function that opens another client now, with a launcher of its own."""
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(KindClient(kind, tmp_path / "own-state"))


@pytest.fixture
def state(client: KindClient) -> Path:
    """Return the state folder of the client."""
    return client.folder


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
def agent(sandbox: AsyncSandbox) -> int:
    """Return the process id by which code in the sandbox knows its agent."""
    (found,) = inits(os.getpid())
    return inner_pid(found)


@pytest.fixture
def inside(sandbox: AsyncSandbox) -> Inside:
    """Return a function that runs an attack program in the sandbox."""

    async def run(program: str, *arguments: object) -> dict[str, str]:
        words = ["python", f"attacks/{program}.py", *map(str, arguments)]
        done = await sandbox.run_command(words, timeout=15)
        assert done.ok, f"{done.ended}: {done.stderr}"
        return told(done.stdout)

    return run


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    """Return a function that runs an attack program on the host, where it must work."""

    def run(program: str, *arguments: object) -> dict[str, str]:
        words = [sys.executable, str(PROGRAMS / f"{program}.py"), *map(str, arguments)]
        done = subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, timeout=15, check=False
        )
        assert done.returncode == 0, done.stderr
        return told(done.stdout)

    return run
