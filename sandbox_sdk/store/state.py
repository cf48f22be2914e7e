"""Sandboxes, leases and runs in SQLite, shared safely by several processes of one machine."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import cache, partial

import anyio
import attrs

from sandbox_sdk.store import far_runs, leases, notes, outcomes, records, tables
from sandbox_sdk.store.base import DeadLease, Lease, Once, Taken
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.once import is_noted
from sandbox_sdk.store.owner import Owner, lock, sweep, unlock
from sandbox_sdk.store.sealing import SpecSeals
from sandbox_sdk.store.writer import Writer
from sandbox_sdk.values import Ended, SandboxInfo, SandboxState
from sandbox_sdk.vault import Vault


class SQLiteStore:
    """The ``Store`` of one state folder; made by ``open``.

    Each store is an owner of leases of its own: two stores of one process exclude each other.
    """

    def __init__(self, folders: StateFolders, owner: Owner, vault: Vault | None = None) -> None:
        self._folders = folders
        self._owner = owner
        self._seals = SpecSeals(vault)
        self._writer = Writer(folders.database)
        self._descriptor: int | None = None

    @classmethod
    async def open(cls, folders: StateFolders, vault: Vault | None = None) -> SQLiteStore:
        """Open the records of a state folder, and make them if there are none.

        Args:
            folders: The state folder.
            vault: The keys that what sandboxes are given is sealed with; ``None`` seals nothing.

        Raises:
            StateError: They are damaged, of a newer version, or cannot be read or written.
        """
        store = cls(folders, await anyio.to_thread.run_sync(Owner.current), vault)
        await store._writer.start(store._prepare)
        return store

    @property
    def owner(self) -> Owner:
        """What this store writes into the leases that it takes."""
        return self._owner

    @property
    def owner_token(self) -> str:
        """The owner's token; see ``Store.owner_token``."""
        return self._owner.token

    async def insert_sandbox(self, info: SandboxInfo, once: Once | None = None) -> SandboxInfo:
        """Record a new sandbox; see ``Store.insert_sandbox``."""
        seal = self._seals.seal
        # A key may have to be read or made, which takes time.
        pays = self._seals.keeps(info.spec)
        kept = await anyio.to_thread.run_sync(seal, info) if pays else seal(info)
        insert = partial(records.insert, info=info, kept=kept, noted=once)
        return await self._writer.run(insert, writes=True)

    async def get_sandbox(self, id: str) -> SandboxInfo:
        """Return a sandbox's record; see ``Store.get_sandbox``."""
        call = partial(records.get, id=id, lives=self._lives, seals=self._seals)
        return await self._writer.run(call, writes=False)

    def take_sandbox(self, id: str, *, started_at: float) -> Awaitable[Taken]:
        """Take the right to run a sandbox; see ``Store.take_sandbox``."""

        def take(connection: sqlite3.Connection) -> Taken:
            before = records.get(connection, id, self._lives, self._seals, needed=True)
            lease = leases.acquire(connection, id=id, owner=self._owner, lives=self._lives)
            files: Mapping[str, bytes] = {}
            if before.started_at is None:
                files = records.initial_files(connection, id, self._seals)
            leases.update(
                connection,
                lease,
                self._owner,
                state=SandboxState.RUNNING,
                started_at=started_at,
                ended=None,
                release=False,
            )
            now = attrs.evolve(
                before,
                state=SandboxState.RUNNING,
                started_at=started_at,
                owner_pid=self._owner.pid,
            )
            return Taken(lease=lease, before=before, info=now, files=files)

        return self._writer.submit(take, writes=True)

    async def put_back(self, taken: Taken) -> None:
        """Undo ``take_sandbox``; see ``Store.put_back``."""
        call = partial(leases.put_back, taken=taken, owner=self._owner)
        await self._writer.run(call, writes=True)

    async def list_sandboxes(self, *, include_internal: bool = False) -> tuple[SandboxInfo, ...]:
        """Return all records, oldest first; see ``Store.list_sandboxes``."""
        # Many records have one owner: ask the kernel once for each.
        lives = cache(self._lives)
        call = partial(
            records.select, lives=lives, seals=self._seals, include_internal=include_internal
        )
        return await self._writer.run(call, writes=False)

    async def update_sandbox(
        self,
        lease: Lease,
        *,
        state: SandboxState | None = None,
        started_at: float | None = None,
        ended: Ended | None = None,
        release: bool = False,
    ) -> None:
        """Change a record under a lease; see ``Store.update_sandbox``."""
        call = partial(
            leases.update,
            lease=lease,
            owner=self._owner,
            state=state,
            started_at=started_at,
            ended=ended,
            release=release,
        )
        await self._writer.run(call, writes=True)

    async def delete_sandbox(self, lease: Lease) -> None:
        """Delete a record under a lease; see ``Store.delete_sandbox``."""
        call = partial(leases.delete, lease=lease, owner=self._owner)
        await self._writer.run(call, writes=True)

    async def acquire_lease(self, id: str) -> Lease:
        """Take the right to run a sandbox; see ``Store.acquire_lease``."""
        call = partial(leases.acquire, id=id, owner=self._owner, lives=self._lives)
        return await self._writer.run(call, writes=True)

    async def release_lease(self, lease: Lease) -> None:
        """Give a lease back; see ``Store.release_lease``."""
        call = partial(leases.release, lease=lease, owner=self._owner)
        await self._writer.run(call, writes=True)

    async def dead_leases(self) -> tuple[DeadLease, ...]:
        """Return the leases whose owner died; see ``Store.dead_leases``."""
        call = partial(leases.dead_leases, lives=cache(self._lives))
        return await self._writer.run(call, writes=False)

    async def mark_lost(self, lease: Lease) -> None:
        """Record that the former owner died; see ``Store.mark_lost``."""
        call = partial(leases.mark_lost, lease=lease, owner=self._owner)
        await self._writer.run(call, writes=True)

    async def insert_run(self, run_id: str, sandbox_id: str) -> None:
        """Record that a run belongs to a sandbox; see ``Store.insert_run``."""
        call = partial(records.insert_run, run_id=run_id, sandbox_id=sandbox_id)
        await self._writer.run(call, writes=True)

    async def insert_far_run(self, run_id: str, sandbox_id: str) -> None:
        """Record a run of a sandbox elsewhere; see ``Store.insert_far_run``."""
        call = partial(far_runs.insert, run_id=run_id, sandbox_id=sandbox_id)
        await self._writer.run(call, writes=True)

    async def forget_far_runs(self, sandbox_id: str) -> None:
        """Forget the runs of a sandbox elsewhere; see ``Store.forget_far_runs``."""
        call = partial(far_runs.delete, sandbox_id=sandbox_id)
        await self._writer.run(call, writes=True)

    async def list_runs(self, sandbox_id: str) -> tuple[str, ...]:
        """Return the ids of a sandbox's runs; see ``Store.list_runs``."""
        call = partial(records.select_runs, sandbox_id=sandbox_id)
        return await self._writer.run(call, writes=False)

    async def has_once(self, once: Once) -> bool:
        """Return whether a sandbox was made for this key; see ``Store.has_once``."""
        return await self._writer.run(partial(is_noted, once=once), writes=False)

    async def begin_once(self, once: Once) -> str | None:
        """Note a request before its effect; see ``Store.begin_once``."""
        call = partial(outcomes.begin, once=once, now=time.time())
        return await self._writer.run(call, writes=True)

    async def end_once(self, once: Once, answer: str) -> None:
        """Note what a request was answered; see ``Store.end_once``."""
        await self._writer.run(partial(outcomes.end, once=once, answer=answer), writes=True)

    async def notes(self, kind: str) -> Mapping[str, str]:
        """Return name -> text of what was remembered of one kind."""
        return await self._writer.run(partial(notes.select, kind=kind), writes=False)

    async def change_note(
        self, kind: str, name: str, new: Callable[[str | None], str | None]
    ) -> None:
        """Replace one text by what ``new`` makes of it, in one step; ``None`` is no text."""
        call = partial(notes.change, kind=kind, name=name, new=new)
        await self._writer.run(call, writes=True)

    async def aclose(self) -> None:
        """Release every lease of this store and close it; again is nothing."""
        await self._writer.stop(self._leave)

    def _lives(self, owner: Owner) -> bool:
        # This very store lives, whatever /proc says.
        return owner == self._owner or owner.lives(self._folders.owners)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        tables.migrate(connection)
        sweep(self._folders.owners)
        self._descriptor = lock(self._owner, self._folders.owners)

    def _leave(self, connection: sqlite3.Connection) -> None:
        leases.release_all(connection, self._owner)
        if self._descriptor is not None:
            unlock(self._owner, self._folders.owners, self._descriptor)
            self._descriptor = None
