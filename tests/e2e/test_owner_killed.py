"""``kill -9`` of those who hold sandboxes: nothing is left of theirs, and no result is lost."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import attrs
import pytest
from host import below, command_line, inits, running, soon, status

from sandbox_sdk.backends.local import group_prefix
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import SandboxBusy, SandboxEnded
from sandbox_sdk.experiments.records.run_record import read_run
from sandbox_sdk.isolation.walls import cgroups
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import CommandResult, EndKind, SandboxState, new_id

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HERE = Path(__file__).parent
LANES = 2
EARLY_SECONDS, LATE_SECONDS = 0.9, 0.4
KEPT = {
    "agent",
    "auth",
    "keys",
    "models",
    "owners",
    "ready",
    "remote",
    "runs",
    "sandboxes",
    "templates",
    "uids",
}


@attrs.define
class Owner:
    """A process that holds sandboxes, with a parent that adopts what it leaves.

    Attributes:
        pid: Its process.
        nurse: Its parent.
        marker: An argument of what runs in its sandboxes.
        sandboxes: Those it told to have set up.
        finished: The runs it told to have finished.
        child: Its forked child.
    """

    pid: int
    nurse: anyio.abc.Process
    marker: str
    sandboxes: list[str] = attrs.field(factory=list)
    finished: list[str] = attrs.field(factory=list)
    child: int = 0
    _text: bytes = b""

    async def hear(self) -> None:
        """Take what it says until it ends; one task runs this."""
        assert self.nurse.stdout is not None
        async for data in self.nurse.stdout:
            self._text += data
            *lines, self._text = self._text.split(b"\n")
            for line in lines:
                what, _, word = line.decode().partition(" ")
                if what == "started":
                    self.sandboxes.append(word)
                elif what == "finished":
                    self.finished.append(word)
                else:
                    self.child = int(word)

    def kill(self) -> None:
        """Kill it as nothing can be refused."""
        os.kill(self.pid, signal.SIGKILL)

    def left(self) -> list[str]:
        """Return what of it still runs: itself, until all it held is closed, and its orphans."""
        pids = below(self.nurse.pid)
        return [command_line(pid) for pid in pids if status(pid).get("State", "Z")[0] not in "ZX"]


@asynccontextmanager
async def owned(state_dir: Path, *options: str) -> AsyncGenerator[Owner]:
    """Start an owner, and listen to it."""
    marker = new_id("mark")
    words = [sys.executable, str(HERE / "nurse.py"), sys.executable, str(HERE / "owner.py")]
    async with (
        await anyio.open_process([*words, str(state_dir), marker, *options], stderr=None) as nurse,
        anyio.create_task_group() as group,
    ):
        assert nurse.stdout is not None
        assert nurse.stdin is not None
        first = b""
        while not first.endswith(b"\n"):
            first += await nurse.stdout.receive(1)
        owner = Owner(int(first), nurse, marker)
        group.start_soon(owner.hear)
        try:
            yield owner
        finally:
            for pid in below(nurse.pid):  # whatever a failed test left, zombies included
                os.kill(pid, signal.SIGKILL)
            await nurse.stdin.aclose()
            await nurse.wait()
            group.cancel_scope.cancel()


@pytest.mark.timeout(240)
async def test_owner_killed_at_any_moment(tmp_path: Path) -> None:
    """40 kills: at start-up, in use, while results are written."""
    await _kill_owners(tmp_path, rounds=40)


@pytest.mark.timeout(120)
async def test_owner_of_sandboxes_without_namespaces_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 kills at level ``low``, where no PID namespace takes along what runs."""
    monkeypatch.setenv("SANDBOX_SECURITY_LEVEL", "low")
    await _kill_owners(tmp_path, rounds=16)


@pytest.mark.soak
@pytest.mark.timeout(2 * 3600)
async def test_owner_killed_at_any_moment_for_long(tmp_path: Path) -> None:
    """1,000 kills."""
    await _kill_owners(tmp_path, rounds=1000)


async def _kill_owners(folder: Path, *, rounds: int) -> None:
    seed = random.SystemRandom().randrange(10**9)
    sys.stdout.write(f"seed {seed}\n")  # shown by pytest when the test fails
    chance = random.Random(seed)
    lanes = [
        [(chance.random() < 0.4, chance.random()) for _ in range(rounds // LANES)]
        for _ in range(LANES)
    ]
    finished: list[int] = []
    async with anyio.create_task_group() as group:
        for number, lane in enumerate(lanes):
            # Owners of one lane share a state folder: each start reaps after the one before.
            group.start_soon(_kill_in_turn, folder / f"state-{number}", lane, finished)
    assert sum(finished) > rounds / 8, "too few kills came after a result: nothing was shown"


async def _kill_in_turn(
    state_dir: Path, moments: list[tuple[bool, float]], finished: list[int]
) -> None:
    results: list[str] = []
    sandboxes: list[str] = []
    for number, (early, fraction) in enumerate(moments):
        if number % 50 == 0:  # shown by nox -s soak, and when a test fails
            sys.stdout.write(f"{state_dir.name}: {number} kills\n")
        async with owned(state_dir) as owner:
            if early:
                await anyio.sleep(fraction * EARLY_SECONDS)
            else:
                assert await soon(lambda: owner.finished, seconds=30)
                await anyio.sleep(fraction * LATE_SECONDS)
            owner.kill()
            killed = time.monotonic()
            await soon(lambda: not owner.left(), seconds=30)
            assert owner.left() == [], f"{time.monotonic() - killed:.2f} s after the kill"
        results += owner.finished
        sandboxes += owner.sandboxes
        await _assert_clean(state_dir, sandboxes)
    for run in results:
        record = read_run(state_dir / "runs" / run)
        assert record.result is not None
        assert not record.live
        assert (record.result.id, record.result.status) == (run, "success")
    finished.append(len(results))


async def _assert_clean(state_dir: Path, sandboxes: list[str]) -> None:
    """After the next start's reaping nothing stands but records, workspaces and results."""
    async with AsyncSandboxClient(state_dir=state_dir) as client:
        infos = await client.list_sandboxes()
    assert {info.id for info in infos} >= set(sandboxes)
    assert not [info.id for info in infos if info.state is SandboxState.RUNNING]
    assert not [info.id for info in infos if info.owner_pid is not None]
    _assert_host_clean(state_dir)


def _assert_host_clean(state_dir: Path) -> None:
    hierarchy, _ = cgroups.find()
    if hierarchy is not None:
        ours = f"{group_prefix(state_dir)}-"
        assert [name for name in hierarchy.leftovers() if name.startswith(ours)] == []
    assert str(state_dir) not in Path("/proc/self/mountinfo").read_text()
    names = {path.name for path in state_dir.iterdir()}
    assert {name for name in names if not name.startswith("state.")} <= KEPT
    assert not [path for path in state_dir.rglob("*") if path.is_socket()]
    assert list((state_dir / "owners").iterdir()) == []
    assert list((state_dir / "ready").iterdir()) == []
    assert not [path.name for path in (state_dir / "agent").glob("unfinished-*")]
    for folder in (state_dir / "sandboxes").iterdir():
        assert [path.name for path in folder.iterdir()] == ["workspace"]


async def test_owner_killed_while_its_fork_lives(tmp_path: Path) -> None:
    """A forked child keeps the owner's sockets open; the sandboxes end with the owner anyway."""
    async with owned(tmp_path / "state", "fork") as owner:
        assert await soon(lambda: owner.sandboxes, seconds=30)
        assert await soon(lambda: _running_inside(owner))
        owner.kill()
        assert await soon(lambda: not _running_inside(owner), seconds=1)
        assert status(owner.child)["State"][0] == "S", "the child was to live on"
        os.kill(owner.child, signal.SIGKILL)
    await _assert_clean(tmp_path / "state", owner.sandboxes)


def _running_inside(owner: Owner) -> list[int]:
    """Return what runs below an owner's nurse, but for the owner's own program."""
    return [pid for pid in running(owner.marker) if "owner.py" not in command_line(pid)]


async def test_second_process_while_and_after(tmp_path: Path) -> None:
    """Another process reads what an owner holds, and may take it over once the owner is dead."""
    state_dir = tmp_path / "state"
    async with owned(state_dir) as owner, AsyncSandboxClient(state_dir=state_dir) as client:
        assert await soon(lambda: owner.finished and owner.sandboxes, seconds=30)
        run = read_run(state_dir / "runs" / owner.finished[0])
        sandbox = await client.get_sandbox(run.sandbox_id)
        assert sandbox.info.state is SandboxState.RUNNING
        assert sandbox.info.owner_pid == owner.pid
        assert run.result is not None
        assert run.result.status == "success"
        for act in (sandbox.setup, sandbox.cleanup):
            with pytest.raises(SandboxBusy) as busy:
                await act()
            assert busy.value.owner_pid == owner.pid
        with pytest.raises(SandboxBusy, match=str(owner.pid)):
            await sandbox.run_command("true")
        owner.kill()
        assert await soon(lambda: not owner.left())
        await sandbox.setup()
        assert await sandbox.files.read_text("kept") == sandbox.id
        exported = await sandbox.export_results(tmp_path / "out")
    assert {path.name[-6:] for path in exported} >= {owner.finished[0][-6:]}


@pytest.fixture
async def sandbox(tmp_path: Path, runtime: str) -> AsyncIterator[AsyncSandbox]:
    async with AsyncSandboxClient(state_dir=tmp_path / "state") as client:
        sandbox = await client.create_sandbox("killed", runtime=runtime)
        await sandbox.setup()
        yield sandbox


def _launcher() -> int:
    """The process of ours that starts sandboxes: in a zygote's words, its agent's folder."""
    (found,) = [
        pid for pid in below(os.getpid()) if " launcher " in command_line(pid) or _is_zygote(pid)
    ]
    return found


def _is_zygote(pid: int) -> bool:
    return " zygote " in command_line(pid) and status(pid)["NSpid"] == str(pid)


def _bwrap() -> int:
    return next(pid for pid in below(_launcher()) if "--args" in command_line(pid))


def _agent() -> int:
    (found,) = inits(os.getpid())
    return found


@pytest.mark.parametrize(
    ("runtime", "find"),
    [
        ("zygote", _launcher),
        ("zygote", _agent),
        ("bubblewrap", _launcher),
        ("bubblewrap", _bwrap),
        ("bubblewrap", _agent),
    ],
)
async def test_kill_of_what_holds_a_sandbox(sandbox: AsyncSandbox, find: Callable[[], int]) -> None:
    """The call in flight tells that the sandbox died; then it can be set up again."""
    done: list[CommandResult] = []

    async def call() -> None:
        done.append(await sandbox.run_command("echo begun; sleep 1000", timeout=15))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        assert await soon(lambda: any("sleep 1000" in command_line(p) for p in below(_agent())))
        os.kill(find(), signal.SIGKILL)
    assert done[0].ended.kind is EndKind.SANDBOX_DIED
    assert done[0].stdout == "begun\n"
    with pytest.raises(SandboxEnded):
        await sandbox.run_command("true")
    await sandbox.setup()
    assert (await sandbox.run_command("echo alive")).stdout == "alive\n"
    assert len(inits(os.getpid())) == 1
