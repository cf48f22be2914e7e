"""Leases and records when processes die, fork, share a folder, or find the disk full."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import attrs
import pytest

from sandbox_sdk.errors import SandboxBusy
from sandbox_sdk.store.base import DeadLease
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.owner import Owner, lock, process_start, sweep
from sandbox_sdk.store.state import SQLiteStore
from sandbox_sdk.values import SandboxInfo, SandboxSpec, SandboxState, new_id

pytestmark = pytest.mark.anyio

HOLD = """
import sys, anyio
from pathlib import Path
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.state import SQLiteStore
from sandbox_sdk.values import SandboxState

async def main():
    store = await SQLiteStore.open(StateFolders.open(Path(sys.argv[1])))
    lease = await store.acquire_lease(sys.argv[2])
    await store.update_sandbox(lease, state=SandboxState.RUNNING, started_at=1.0)
    print(lease.fence, flush=True)
    sys.stdin.read()
    await store.aclose()

anyio.run(main)
"""


@pytest.fixture
def folders(tmp_path: Path) -> StateFolders:
    return StateFolders.open(tmp_path / "state")


@pytest.fixture
async def store(folders: StateFolders) -> AsyncIterator[SQLiteStore]:
    opened = await SQLiteStore.open(folders)
    yield opened
    await opened.aclose()


def run_python(code: str, *args: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def holder(folders: StateFolders, id: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Hold a sandbox in another process; yield that process and its fence."""
    with run_python(HOLD, folders.root, id) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        process.kill()


async def new_sandbox(store: SQLiteStore) -> str:
    info = SandboxInfo(id=new_id("sb"), spec=SandboxSpec(name="x"))
    await store.insert_sandbox(info)
    return info.id


async def test_two_processes_exclude_each_other(store: SQLiteStore, folders: StateFolders) -> None:
    sandbox = await new_sandbox(store)
    with holder(folders, sandbox) as (process, fence):
        with pytest.raises(SandboxBusy) as caught:
            await store.acquire_lease(sandbox)
        assert caught.value.owner_pid == process.pid
        info = await store.get_sandbox(sandbox)
        assert (info.state, info.owner_pid) == (SandboxState.RUNNING, process.pid)
        process.communicate()
        assert (await store.acquire_lease(sandbox)).fence == fence + 1


async def test_a_killed_owner_is_noticed_and_its_sandbox_marked_lost(
    store: SQLiteStore, folders: StateFolders
) -> None:
    sandbox = await new_sandbox(store)
    with holder(folders, sandbox) as (process, fence):
        assert await store.dead_leases() == ()
        process.kill()
        process.wait()
        dead = DeadLease(
            sandbox_id=sandbox, owner_pid=process.pid, state=SandboxState.RUNNING, internal=False
        )
        assert await store.dead_leases() == (dead,)
        seen = await store.get_sandbox(sandbox)
        assert (seen.state, seen.owner_pid) == (SandboxState.LOST, None)
        lease = await store.acquire_lease(sandbox)
        assert lease.fence == fence + 1
        await store.mark_lost(lease)
    assert await store.dead_leases() == ()
    info = await store.get_sandbox(sandbox)
    assert (info.state, info.started_at) == (SandboxState.LOST, 1.0)


async def test_a_killed_owner_that_nobody_waited_for_is_dead(
    store: SQLiteStore, folders: StateFolders
) -> None:
    sandbox = await new_sandbox(store)
    with holder(folders, sandbox) as (process, _):
        process.kill()
        flags = os.WEXITED | os.WNOWAIT
        await anyio.to_thread.run_sync(os.waitid, os.P_PID, process.pid, flags)
        assert process_start(process.pid) is None
        await store.acquire_lease(sandbox)


async def test_what_was_stopped_stays_stopped_when_its_owner_is_gone(
    store: SQLiteStore, folders: StateFolders
) -> None:
    sandbox = await new_sandbox(store)
    other = await SQLiteStore.open(folders)
    lease = await other.acquire_lease(sandbox)
    await other.update_sandbox(lease, state=SandboxState.STOPPED, release=True)
    await store.mark_lost(await store.acquire_lease(sandbox))
    assert (await store.get_sandbox(sandbox)).state is SandboxState.STOPPED
    await other.aclose()


async def test_many_processes_at_once_make_one_database_and_one_holder(tmp_path: Path) -> None:
    """The first opening of a folder is a race; so is the first lease."""
    sandbox = new_id("sb")
    race = """
import sys, time, anyio
from pathlib import Path
from sandbox_sdk.errors import ConfigError, SandboxBusy
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.state import SQLiteStore
from sandbox_sdk.values import SandboxInfo, SandboxSpec

async def main():
    sys.stdin.readline()
    store = await SQLiteStore.open(StateFolders.open(Path(sys.argv[1])))
    try:
        await store.insert_sandbox(SandboxInfo(id=sys.argv[2], spec=SandboxSpec(name="x")))
    except ConfigError:
        pass
    try:
        print((await store.acquire_lease(sys.argv[2])).fence, flush=True)
    except SandboxBusy:
        print("busy", flush=True)
    sys.stdin.read()

anyio.run(main)
"""
    processes = [run_python(race, tmp_path / "state", sandbox) for _ in range(6)]
    answers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        answers.append(process.stdout.readline().strip())
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert sorted(answers) == ["1", *["busy"] * 5]


async def test_a_reused_pid_is_not_its_former_owner(folders: StateFolders) -> None:
    ours = Owner.current()
    assert ours.lives(folders.owners)
    assert not attrs.evolve(ours, start_time=ours.start_time - 1).lives(folders.owners)
    assert not attrs.evolve(ours, boot_id="another boot").lives(folders.owners)


async def test_an_owner_of_another_pid_namespace_lives_while_its_file_is_locked(
    folders: StateFolders,
) -> None:
    theirs = attrs.evolve(Owner.current(), pid_namespace="pid:[1]", pid=2**22 + 1)
    assert not theirs.lives(folders.owners)
    descriptor = lock(theirs, folders.owners)
    sweep(folders.owners)
    assert theirs.lives(folders.owners)
    os.close(descriptor)
    assert not theirs.lives(folders.owners)
    sweep(folders.owners)
    assert list(folders.owners.iterdir()) == []


def test_a_name_cannot_forge_a_start_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stat = b"7 (a) R 1 (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0"
    monkeypatch.setattr(Path, "read_bytes", lambda _: stat)
    assert process_start(7) == 4711


def test_a_forked_child_gets_a_clear_error_and_the_parent_goes_on(tmp_path: Path) -> None:
    code = """
import os, sys, anyio
from pathlib import Path
from sandbox_sdk.errors import StateError
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.state import SQLiteStore

async def main():
    store = await SQLiteStore.open(StateFolders.open(Path(sys.argv[1])))
    if (child := os.fork()) == 0:
        try:
            await store.list_sandboxes()
        except StateError as error:
            await store.aclose()
            os._exit(7 if "before a fork" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert await store.list_sandboxes() == ()
    await store.aclose()

anyio.run(main)
"""
    with run_python(code, tmp_path / "state") as process:
        process.communicate()
    assert process.returncode == 0


def test_a_store_that_is_never_closed_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    code = """
import sys, anyio
from pathlib import Path
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.state import SQLiteStore
store = anyio.run(SQLiteStore.open, StateFolders.open(Path(sys.argv[1])))
"""
    with run_python(code, tmp_path / "state") as process:
        process.communicate(timeout=10)
    assert process.returncode == 0


FILL = """
import errno, sys, anyio
from pathlib import Path
from sandbox_sdk.errors import StateError
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.state import SQLiteStore
from sandbox_sdk.values import SandboxInfo, SandboxSpec, new_id

def info(size):
    spec = SandboxSpec(name="x", files={"a": bytes(size)})
    return SandboxInfo(id=new_id("sb"), spec=spec)

async def main():
    root = Path(sys.argv[1])
    store = await SQLiteStore.open(StateFolders.open(root))
    kept = info(10)
    await store.insert_sandbox(kept)
    try:
        await store.insert_sandbox(info(8 * 2**20))
    except StateError as error:
        print(errno.errorcode[error.errno], flush=True)
    assert [found.id for found in await store.list_sandboxes()] == [kept.id]
    await store.insert_sandbox(info(10))
    assert len(await store.list_sandboxes()) == 2
    await store.aclose()

anyio.run(main)
"""


@contextmanager
def in_own_mounts(mount: Path) -> Iterator[tuple[str, ...]]:
    """Yield a command prefix under which ``mount`` is a tmpfs of 4 MiB."""
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    script = f'mount -t tmpfs -o size=4m,mode=700 none "{mount}" && exec "$@"'
    yield ("unshare", *user, "--mount", "sh", "-c", script, "sh")


def test_a_full_disk_is_a_state_error_and_loses_nothing(tmp_path: Path) -> None:
    with (
        in_own_mounts(tmp_path) as prefix,
        run_python(FILL, tmp_path / "state", prefix=prefix) as process,
    ):
        output, _ = process.communicate()
    assert (output, process.returncode) == (f"{errno.errorcode[errno.ENOSPC]}\n", 0)


def test_a_file_size_limit_is_a_state_error_and_loses_nothing(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**22, 2**22))"
    with run_python(limit + FILL, tmp_path / "state") as process:
        output, _ = process.communicate()
    assert process.returncode == 0
    assert output in {"ENOSPC\n", "EIO\n"}


async def test_a_stopped_owner_still_holds(store: SQLiteStore, folders: StateFolders) -> None:
    """A process that is merely slow, or stopped, keeps what it holds."""
    sandbox = await new_sandbox(store)
    with holder(folders, sandbox) as (process, _):
        process.send_signal(signal.SIGSTOP)
        flags = os.WSTOPPED | os.WNOWAIT
        await anyio.to_thread.run_sync(os.waitid, os.P_PID, process.pid, flags)
        with pytest.raises(SandboxBusy):
            await store.acquire_lease(sandbox)


async def test_a_long_write_of_another_process_is_waited_for(
    store: SQLiteStore, folders: StateFolders
) -> None:
    code = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
"""
    with run_python(code, folders.database) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(new_sandbox, store)
            await anyio.to_thread.run_sync(process.communicate, "\n")
    assert len(await store.list_sandboxes()) == 1


COUNT = """
import sys, anyio
from pathlib import Path
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.state import SQLiteStore

async def main():
    store = await SQLiteStore.open(StateFolders.open(Path(sys.argv[1])))
    print(len(await store.list_sandboxes()))
    await store.aclose()

anyio.run(main)
"""


async def test_a_process_that_closes_takes_no_log_away_from_two_stores_of_another(
    folders: StateFolders, store: SQLiteStore
) -> None:
    """To close any descriptor of the file would drop the locks that keep the log in its place."""
    other = await SQLiteStore.open(folders)
    try:
        for count in (1, 2, 3):
            await new_sandbox(store if count % 2 else other)
            counted = await anyio.run_process([sys.executable, "-c", COUNT, folders.root])
            assert int(counted.stdout) == count
            assert len(await other.list_sandboxes()) == len(await store.list_sandboxes()) == count
    finally:
        await other.aclose()
