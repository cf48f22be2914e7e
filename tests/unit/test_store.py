"""Records and leases: what was written is there, and one live owner at a time holds a sandbox."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import anyio
import attrs
import pytest
from blockbuster import blockbuster_ctx

from sandbox_sdk.errors import (
    ConfigError,
    SandboxBusy,
    SandboxClosed,
    SandboxError,
    SandboxNotFound,
    StateError,
)
from sandbox_sdk.store.base import Lease, Store
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.state import SQLiteStore
from sandbox_sdk.values import (
    Ended,
    EndKind,
    Mount,
    Resources,
    SandboxInfo,
    SandboxSpec,
    SandboxState,
    new_id,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def folders(tmp_path: Path) -> StateFolders:
    return StateFolders.open(tmp_path / "state")


@pytest.fixture
async def store(folders: StateFolders) -> AsyncIterator[SQLiteStore]:
    opened = await SQLiteStore.open(folders)
    yield opened
    await opened.aclose()


@pytest.fixture
async def other(folders: StateFolders) -> AsyncIterator[SQLiteStore]:
    opened = await SQLiteStore.open(folders)
    yield opened
    await opened.aclose()


def new_info(
    name: str = "x", *, internal: bool = False, files: Mapping[str, bytes] | None = None
) -> SandboxInfo:
    spec = SandboxSpec(name=name, internal=internal, files=files or {})
    return SandboxInfo(id=new_id("sb"), spec=spec, created_at=time.time())


async def test_it_keeps_the_protocol(store: SQLiteStore) -> None:
    kept: Store = store
    assert await kept.list_sandboxes() == ()


async def test_a_record_is_read_as_it_was_written_but_for_its_files(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    spec = SandboxSpec(
        name="日本語 --bind",
        resources=Resources(cpu=0.5),
        timeout=None,
        security_level="high",
        env={"A": "b"},
        files={"a": b"\0\xff", "b/c": b""},
        metadata={"k": "\ud800 v"},
        mounts=(Mount(source=Path("/opt/model"), target="/model"),),
    )
    info = SandboxInfo(
        id=new_id("sb"),
        spec=spec,
        created_at=1.5,
        started_at=2.5,
        ended=Ended(kind=EndKind.OOM, limit="memory", limit_value=3.5),
    )
    await store.insert_sandbox(info)
    expected = attrs.evolve(info, spec=attrs.evolve(spec, files={}))
    assert await other.get_sandbox(info.id) == expected


async def test_taking_a_sandbox_is_one_write_that_can_be_put_back(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    """It runs and is held at once, with the files of its first set-up, or is as before."""
    info = new_info(files={"a": b"\0\xff", "b/c": b""})
    await store.insert_sandbox(info)
    taken = await store.take_sandbox(info.id, started_at=3.5)
    assert (taken.before.state, taken.info.state) == (SandboxState.CREATED, SandboxState.RUNNING)
    assert taken.files == info.spec.files
    assert await other.get_sandbox(info.id) == taken.info
    with pytest.raises(SandboxBusy):
        await other.take_sandbox(info.id, started_at=4.5)
    await store.put_back(taken)
    assert await other.get_sandbox(info.id) == taken.before
    again = await other.take_sandbox(info.id, started_at=5.5)
    assert again.files == info.spec.files, "the first set-up is yet to come"
    await other.update_sandbox(again.lease, state=SandboxState.STOPPED, release=True)
    assert (await store.take_sandbox(info.id, started_at=6.5)).files == {}


async def test_no_call_blocks_the_loop(folders: StateFolders) -> None:
    with blockbuster_ctx():
        store = await SQLiteStore.open(folders)
        info = new_info()
        await store.insert_sandbox(info)
        lease = await store.acquire_lease(info.id)
        await store.update_sandbox(lease, state=SandboxState.RUNNING)
        await store.list_sandboxes()
        await store.dead_leases()
        await store.delete_sandbox(lease)
        await store.aclose()


async def test_an_id_is_used_once(store: SQLiteStore) -> None:
    info = new_info()
    await store.insert_sandbox(info)
    with pytest.raises(ConfigError, match="already"):
        await store.insert_sandbox(info)


@pytest.mark.parametrize("id", ["sandbox-id", "", "../..", "'; DROP TABLE sandboxes; --", "\ud800"])
async def test_an_unknown_id_is_not_found_everywhere(store: SQLiteStore, id: str) -> None:
    lease = Lease(sandbox_id=id, fence=1)
    for call in (
        store.get_sandbox(id),
        store.take_sandbox(id, started_at=1.0),
        store.acquire_lease(id),
        store.update_sandbox(lease, state=SandboxState.RUNNING),
        store.delete_sandbox(lease),
        store.mark_lost(lease),
        store.insert_run(new_id("run"), id),
    ):
        with pytest.raises(SandboxNotFound):
            await call
    assert await store.list_runs(id) == ()
    await store.release_lease(lease)


async def test_the_list_is_oldest_first_and_without_internal_ones(store: SQLiteStore) -> None:
    infos = [new_info(str(number), internal=number == 1) for number in range(4)]
    for info in reversed(infos):
        await store.insert_sandbox(info)
    assert [info.name for info in await store.list_sandboxes()] == ["0", "2", "3"]
    assert list(await store.list_sandboxes(include_internal=True)) == infos


async def test_the_life_of_a_sandbox(store: SQLiteStore, other: SQLiteStore) -> None:
    info = new_info()
    await store.insert_sandbox(info)
    lease = await store.acquire_lease(info.id)
    await store.update_sandbox(lease, state=SandboxState.RUNNING, started_at=7.5)
    running = await other.get_sandbox(info.id)
    assert (running.state, running.started_at) == (SandboxState.RUNNING, 7.5)
    assert running.owner_pid == store.owner.pid
    ended = Ended(kind=EndKind.TIMEOUT, limit="timeout", limit_value=3600.0)
    await store.update_sandbox(lease, state=SandboxState.STOPPED, ended=ended, release=True)
    stopped = await other.get_sandbox(info.id)
    assert (stopped.state, stopped.started_at, stopped.ended) == (SandboxState.STOPPED, 7.5, ended)
    assert stopped.owner_pid is None
    lease = await other.acquire_lease(info.id)
    await other.delete_sandbox(lease)
    with pytest.raises(SandboxNotFound):
        await store.get_sandbox(info.id)


async def test_one_live_owner_holds_a_sandbox(store: SQLiteStore, other: SQLiteStore) -> None:
    info = new_info()
    await store.insert_sandbox(info)
    lease = await store.acquire_lease(info.id)
    with pytest.raises(SandboxBusy) as caught:
        await other.acquire_lease(info.id)
    assert (caught.value.owner_pid, caught.value.sandbox_id) == (store.owner.pid, info.id)
    await store.release_lease(lease)
    assert (await other.acquire_lease(info.id)).fence == lease.fence + 1


async def test_writes_under_an_old_lease_are_refused(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    info = new_info()
    await store.insert_sandbox(info)
    old = await store.acquire_lease(info.id)
    await store.release_lease(old)
    with pytest.raises(SandboxBusy, match="was released meanwhile"):
        await store.update_sandbox(old, state=SandboxState.RUNNING)
    held = await other.acquire_lease(info.id)
    for call in (
        store.update_sandbox(old, state=SandboxState.RUNNING),
        store.delete_sandbox(old),
        store.mark_lost(old),
        store.update_sandbox(held, state=SandboxState.RUNNING),
    ):
        with pytest.raises(SandboxBusy, match="is held by process"):
            await call
    await store.release_lease(old)
    await store.release_lease(held)
    assert (await store.get_sandbox(info.id)).state is SandboxState.CREATED
    await other.update_sandbox(held, state=SandboxState.RUNNING)


async def test_an_owner_may_take_its_lease_again_and_the_older_one_ends(store: SQLiteStore) -> None:
    info = new_info()
    await store.insert_sandbox(info)
    old = await store.acquire_lease(info.id)
    new = await store.acquire_lease(info.id)
    assert new.fence > old.fence
    with pytest.raises(SandboxBusy):
        await store.update_sandbox(old, state=SandboxState.RUNNING)
    await store.update_sandbox(new, state=SandboxState.RUNNING)


async def test_closing_releases_what_was_held(store: SQLiteStore, other: SQLiteStore) -> None:
    info = new_info()
    await other.insert_sandbox(info)
    await other.acquire_lease(info.id)
    await other.aclose()
    assert await store.dead_leases() == ()
    await store.acquire_lease(info.id)


async def test_a_cancelled_close_releases_all_the_same(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    info = new_info()
    await store.insert_sandbox(info)
    await other.acquire_lease(info.id)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await other.aclose()
    await store.acquire_lease(info.id)


async def test_a_cancelled_opening_leaves_nothing_that_holds(folders: StateFolders) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await SQLiteStore.open(folders)
    opened = await SQLiteStore.open(folders)
    assert await opened.list_sandboxes() == ()
    await opened.aclose()


async def test_a_closed_store_says_so_and_closes_again(store: SQLiteStore) -> None:
    await store.aclose()
    await store.aclose()
    with pytest.raises(SandboxClosed):
        await store.list_sandboxes()


async def test_the_last_to_close_leaves_one_file(
    store: SQLiteStore, other: SQLiteStore, folders: StateFolders
) -> None:
    await store.insert_sandbox(new_info())
    await store.aclose()
    await other.aclose()
    assert {path.name for path in folders.root.glob("state.*")} == {"state.db", "state.lock"}
    assert list(folders.owners.iterdir()) == []


async def test_the_files_are_for_their_owner_only(
    store: SQLiteStore, folders: StateFolders
) -> None:
    await store.insert_sandbox(new_info())
    modes = {path.name: path.stat().st_mode & 0o777 for path in folders.root.glob("state.*")}
    assert modes == dict.fromkeys(("state.db", "state.db-wal", "state.db-shm", "state.lock"), 0o600)


async def test_runs_belong_to_a_sandbox_and_go_with_it(store: SQLiteStore) -> None:
    info = new_info()
    await store.insert_sandbox(info)
    runs = [new_id("run")[:-1] + str(number) for number in range(3)]
    for run in runs:
        await store.insert_run(run, info.id)
    with pytest.raises(ConfigError, match="already"):
        await store.insert_run(runs[0], info.id)
    assert await store.list_runs(info.id) == tuple(sorted(runs))
    await store.delete_sandbox(await store.acquire_lease(info.id))
    assert await store.list_runs(info.id) == ()


async def test_a_thousand_writes_at_once_are_all_there(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    infos = [new_info(str(number)) for number in range(1000)]
    async with anyio.create_task_group() as tasks:
        for number, info in enumerate(infos):
            tasks.start_soon((store, other)[number % 2].insert_sandbox, info)
    assert {info.id for info in await store.list_sandboxes()} == {info.id for info in infos}


async def test_a_write_that_fails_does_not_touch_those_it_shares_a_commit_with(
    store: SQLiteStore,
) -> None:
    known = new_info()
    await store.insert_sandbox(known)
    infos = [new_info() for _ in range(20)]
    failed: list[SandboxError] = []

    async def fail() -> None:
        try:
            await store.insert_sandbox(known)
        except ConfigError as error:
            failed.append(error)

    async with anyio.create_task_group() as tasks:
        for info in infos:
            tasks.start_soon(store.insert_sandbox, info)
            tasks.start_soon(fail)
    assert len(failed) == 20
    assert len(await store.list_sandboxes()) == 21


async def test_eight_tasks_and_two_stores_never_hold_one_sandbox_twice(
    store: SQLiteStore, other: SQLiteStore
) -> None:
    info = new_info()
    await store.insert_sandbox(info)
    holders: set[int] = set()
    fences: list[int] = []

    async def use(mine: SQLiteStore, lock: anyio.Lock) -> None:
        for _ in range(20):
            # One store is one owner, so its own tasks take turns, as the engine makes them.
            async with lock:
                try:
                    lease = await mine.acquire_lease(info.id)
                except SandboxBusy:
                    continue
                holders.add(lease.fence)
                assert len(holders) == 1
                await anyio.lowlevel.checkpoint()
                holders.remove(lease.fence)
                fences.append(lease.fence)
                await mine.release_lease(lease)

    async with anyio.create_task_group() as tasks:
        for mine in (store, other):
            lock = anyio.Lock()
            for _ in range(4):
                tasks.start_soon(use, mine, lock)
    assert fences == sorted(set(fences))
    assert fences


def test_eight_threads_with_a_loop_and_a_store_each(folders: StateFolders) -> None:
    async def work() -> None:
        store = await SQLiteStore.open(folders)
        for _ in range(20):
            await store.insert_sandbox(new_info())
        await store.aclose()

    threads = [threading.Thread(target=anyio.run, args=(work,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def count() -> int:
        store = await SQLiteStore.open(folders)
        found = await store.list_sandboxes()
        await store.aclose()
        return len(found)

    assert anyio.run(count) == 160


async def test_the_loop_runs_on_while_the_disk_is_waited_for(
    store: SQLiteStore, folders: StateFolders
) -> None:
    blocker = sqlite3.connect(folders.database, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.insert_sandbox, new_info())
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        blocker.execute("COMMIT")
        blocker.close()
    assert len(await store.list_sandboxes()) == 1


async def test_a_cancelled_call_leaves_the_store_usable(
    store: SQLiteStore, folders: StateFolders
) -> None:
    blocker = sqlite3.connect(folders.database, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with anyio.move_on_after(0.01) as scope:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(store.insert_sandbox, new_info())
    assert scope.cancelled_caught
    blocker.execute("COMMIT")
    blocker.close()
    info = new_info("last")
    await store.insert_sandbox(info)
    assert (await store.list_sandboxes())[-1].name == "last"


async def test_a_newer_database_is_refused(store: SQLiteStore, folders: StateFolders) -> None:
    await store.aclose()
    connection = sqlite3.connect(folders.database)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateError, match=r"version 99.*upgrade sandbox-sdk"):
        await SQLiteStore.open(folders)


async def test_a_file_that_is_no_database_is_a_state_error(folders: StateFolders) -> None:
    folders.database.write_bytes(b"not a database" * 1000)
    with pytest.raises(StateError, match="damaged or of another program"):
        await SQLiteStore.open(folders)


async def test_a_link_in_place_of_the_database_is_refused(
    folders: StateFolders, tmp_path: Path
) -> None:
    folders.database.symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(StateError, match="symbolic links"):
        await SQLiteStore.open(folders)


async def test_a_damaged_page_is_a_state_error_and_the_thread_lives(
    store: SQLiteStore, folders: StateFolders
) -> None:
    for _ in range(50):
        await store.insert_sandbox(new_info())
    await store.aclose()
    size = folders.database.stat().st_size
    with folders.database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    damaged = await SQLiteStore.open(folders)
    for _ in range(2):
        with pytest.raises(StateError, match="damaged"):
            await damaged.list_sandboxes()
    with pytest.raises(StateError):
        await damaged.aclose()


@pytest.mark.parametrize("column", ["spec", "state", "owner", "ended"])
async def test_a_damaged_record_is_named(
    store: SQLiteStore, folders: StateFolders, column: str
) -> None:
    info = new_info()
    await store.insert_sandbox(info)
    connection = sqlite3.connect(folders.database)
    connection.execute(f"UPDATE sandboxes SET {column} = '[broken'")
    connection.commit()
    connection.close()
    with pytest.raises(StateError, match=f"the record of sandbox {info.id} is damaged"):
        await store.get_sandbox(info.id)


async def test_what_a_newer_version_added_to_a_record_is_ignored(
    store: SQLiteStore, folders: StateFolders
) -> None:
    info = new_info()
    await store.insert_sandbox(info)
    connection = sqlite3.connect(folders.database)
    connection.execute("UPDATE sandboxes SET spec = json_set(spec, '$.gpu', 1)")
    connection.commit()
    connection.close()
    assert await store.get_sandbox(info.id) == info


async def test_a_store_outlives_the_loop_it_was_opened_on(folders: StateFolders) -> None:
    def on_own_loop() -> SQLiteStore:
        return asyncio.run(SQLiteStore.open(folders))

    opened = await anyio.to_thread.run_sync(on_own_loop)
    assert await opened.list_sandboxes() == ()
    await opened.aclose()
