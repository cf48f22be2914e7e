"""Sandboxes on this machine, in the process that asks for them."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import attrs

from sandbox_sdk.backends.base import Channel, Gate, LimitHits, Noted, Observer, Standing
from sandbox_sdk.engine import extract, payload, plain, reaper, saving
from sandbox_sdk.engine.blank import Blank
from sandbox_sdk.engine.channel import SocketChannel
from sandbox_sdk.engine.local import Engine, Places
from sandbox_sdk.engine.pool import ShelfView
from sandbox_sdk.engine.running import Running
from sandbox_sdk.engine.scale_log import ScaleLog
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.engine.templates import Templates
from sandbox_sdk.engine.watchdog import Watchdog
from sandbox_sdk.engine.worker import SealingChannel, Worker, subject_of
from sandbox_sdk.errors import (
    FileError,
    LaunchError,
    PolicyDenied,
    ProtocolError,
    SandboxBusy,
    SandboxError,
    SandboxNotFound,
    StateError,
)
from sandbox_sdk.isolation.runtimes.base import WORKSPACE
from sandbox_sdk.isolation.walls import cgroups
from sandbox_sdk.policies.host import HostState
from sandbox_sdk.rules import ended_by
from sandbox_sdk.store.base import Once, Store, Taken
from sandbox_sdk.store.folders import StateFolders, state_error
from sandbox_sdk.values import (
    Collected,
    Ended,
    EndKind,
    SandboxInfo,
    SandboxSpec,
    SandboxState,
    Shelf,
    Usage,
    new_id,
)
from sandbox_sdk.vault import Vault

log = logging.getLogger("sandbox_sdk.backends")

_CHUNK = 64 * 1024


@attrs.define(eq=False)
class _Held:
    """A sandbox that runs in this process."""

    info: SandboxInfo
    running: Running
    channel: SocketChannel
    sealing: SealingChannel | None = None


class LocalBackend:
    """A ``Backend`` over the engine of this machine and the records of one state folder."""

    def __init__(
        self,
        store: Store,
        folders: StateFolders,
        supervisor: Supervisor,
        templates: Templates,
        vault: Vault,
        *,
        uid_range: tuple[int, int],
        pool_size: int,
        scaled: bool,
        scale_log: ScaleLog,
        worker: Worker | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._store = store
        self._folders = folders
        self._supervisor = supervisor
        self._templates = templates
        self._vault = vault
        self._worker = worker
        self._gate = gate
        self._ours = group_prefix(folders.root)
        self._engine = Engine(
            supervisor,
            templates,
            Places(
                agent=folders.agent,
                ready=folders.ready,
                prefix=f"{self._ours}-{store.owner_token}",
                library=worker.library if worker else None,
            ),
            vault,
            uid_range=uid_range,
            pool_size=pool_size,
            scaled=scaled,
            scale_log=scale_log,
        )
        self._watchdog = Watchdog(supervisor)
        self._new: dict[str, SandboxSpec] = {}  # made here, and never started since
        self._held: dict[str, _Held] = {}
        self._ended: dict[str, Ended] = {}
        self._used: dict[str, Usage] = {}  # in all, of those that ended
        self._observers: list[Observer] = []
        self._starting: dict[str, anyio.Lock] = {}  # one start or stop of a sandbox at a time

    async def pin(self, spec: SandboxSpec) -> SandboxSpec:
        """Replace a template's name by what it means now, and see that a built one is there."""
        return await self._templates.pin(spec)

    async def create(self, spec: SandboxSpec, once: Once | None = None) -> SandboxInfo:
        """Record a new sandbox."""
        if self._gate is not None:
            await self._gate.refresh()
            self._gate.create(spec)
        info = SandboxInfo(id=new_id("sb"), spec=spec, created_at=time.time())
        recorded = await self._store.insert_sandbox(info, once)
        if recorded.id == info.id:
            self._new[info.id] = spec
        return recorded

    async def start(self, id: str) -> Standing:
        """Set a sandbox up, or return at once what holds if it runs here."""
        async with self._lock(id):
            held = self._held.get(id)
            if held is None or held.running.verdict is not None:
                if held is not None:
                    await held.running.over.wait()
                held = await self._let_start(id)
            return _standing(held)

    async def _let_start(self, id: str) -> _Held:
        """Set a sandbox up, if that is allowed."""
        if self._gate is None:
            return await self._start(id)
        await self._gate.refresh()
        spec = self._new.get(id)
        with self._gate.starting(
            await self._store.get_sandbox(id) if spec is None else SandboxInfo(id=id, spec=spec)
        ):
            held = await self._start(id)
            try:
                self._gate.standing(attrs.evolve(_standing(held), limits=held.running.limits_now()))
            except PolicyDenied as denial:
                with anyio.CancelScope(shield=True):
                    await held.running.end(ended_by(denial))
                raise
            return held

    async def _start(self, id: str) -> _Held:
        began = anyio.current_time()
        spec: SandboxSpec | None = None
        taking = self._store.take_sandbox(id, started_at=time.time())
        try:
            taken, blank, workspace = await self._place(id, taking)

            async def on_end(running: Running, ended: Ended) -> None:
                self._ended[id] = ended
                used = self._used[id] = running.usage()
                if held := self._held.pop(id, None):
                    held.channel.close()
                    for observer in self._observers:
                        observer.ended(held.info, ended, used)
                await self._store.update_sandbox(
                    taken.lease, state=SandboxState.STOPPED, ended=ended, release=True
                )

            running, channel = await self._engine.hand_over(
                blank, id, taken.info.spec, workspace, on_end
            )
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                spec = await self._put_back(taking)
            if spec is not None and isinstance(error, SandboxError):
                for observer in self._observers:
                    observer.failed(spec)
            raise
        self._ended.pop(id, None)
        self._used.pop(id, None)
        held = self._held[id] = _Held(taken.info, running, channel)
        for observer in self._observers:
            seconds = anyio.current_time() - began
            observer.started(taken.info, seconds=seconds, ready=blank.stood_ready)
        await self._supervisor.start_soon(running.guard, self._watchdog)
        if self._worker is not None and taken.info.spec.owners:
            subject = subject_of(id, taken.info.spec, running.isolation, running.limits)
            try:
                held.sealing = await self._worker.seal(channel, subject)
            except ConnectionError as error:
                raise LaunchError(
                    f"sandbox {id} ended while its channel was sealed: {error}", sandbox_id=id
                ) from error
        return held

    async def _place(self, id: str, taking: Awaitable[Taken]) -> tuple[Taken, Blank, Path]:
        """Start what becomes this sandbox; return it over the workspace of this one."""
        nobodys: Blank | None = None
        try:
            if (spec := self._new.pop(id, None)) is not None:
                # It starts while the lease is written, and is nobody's meanwhile.
                nobodys = await self._engine.take(spec)
            taken = await taking
            if nobodys is None and taken.before.started_at is None:
                nobodys = await self._engine.take(taken.info.spec)
            if nobodys is not None:
                placed = await anyio.to_thread.run_sync(self._give, id, nobodys, taken.files)
                return taken, nobodys, placed
        except BaseException:
            if nobodys is not None:
                await self._engine.end(nobodys)
            raise
        workspace = await anyio.to_thread.run_sync(self._folders.make_workspace, id)
        return taken, await self._engine.start(taken.info.spec, workspace), workspace

    async def _put_back(self, taking: Awaitable[Taken]) -> SandboxSpec | None:
        """Undo a lease, if it came to be ours; return how the sandbox was asked for then."""
        try:
            taken = await taking
        except SandboxError as error:
            log.debug("sandbox.not_taken", extra={"reason": str(error)})
            return None
        await self._store.put_back(taken)
        return taken.info.spec

    def _give(self, id: str, blank: Blank, files: Mapping[str, bytes]) -> Path:
        """Make the workspace of a sandbox that was nobody's this one's."""
        reaper.remove_tree(self._folders.sandbox(id))  # of an attempt that failed
        workspace = self._folders.take_over(blank.workspace.parent, id)
        _fill(workspace, files, None if blank.in_memory else blank.launched.uid or None)
        return workspace

    async def standing(self, id: str) -> Standing | None:
        """Return what is in force in a sandbox that runs here, its limits read back."""
        held = self._held.get(id)
        if held is None:
            return None
        limits = await anyio.to_thread.run_sync(held.running.limits_now)
        return attrs.evolve(_standing(held), limits=limits)

    async def stop(self, id: str, why: Ended | None = None) -> SandboxInfo:
        """End a sandbox and wait until nothing of it is left but its workspace and results."""
        async with self._lock(id):
            if held := self._held.get(id):
                await held.running.end(why or Ended(kind=EndKind.OK, detail="cleaned up"))
                return attrs.evolve(
                    held.info, state=SandboxState.STOPPED, ended=self._ended[id], owner_pid=None
                )
            # Held by nobody, or by a live process, which the lease tells.
            await self._store.release_lease(await self._store.acquire_lease(id))
            return await self._store.get_sandbox(id)

    async def delete(self, id: str) -> None:
        """Stop a sandbox and remove its record, workspace and results."""
        await self.stop(id)
        async with self._lock(id):
            lease = await self._store.acquire_lease(id)
            runs = await self._store.list_runs(id)
            # First, as nothing would come back to a key whose record is gone.
            for name in (id, *runs):
                await anyio.to_thread.run_sync(self._vault.erase, name)
            await self._store.delete_sandbox(lease)
            folders = [self._folders.sandbox(id), *map(self._folders.run, runs)]
            await anyio.to_thread.run_sync(_remove, folders)
        if self._gate is not None:
            await self._gate.forget(id)
        self._new.pop(id, None)
        self._starting.pop(id, None)
        self._ended.pop(id, None)
        self._used.pop(id, None)

    async def get(self, id: str) -> SandboxInfo:
        """Return a sandbox's record."""
        return await self._store.get_sandbox(id)

    async def list(self, *, include_internal: bool = False) -> tuple[SandboxInfo, ...]:
        """Return all records, oldest first."""
        return await self._store.list_sandboxes(include_internal=include_internal)

    async def usage(self, ids: Sequence[str]) -> tuple[Usage, ...]:
        """Return what each sandbox uses now, or used in all if it ended, in the order asked."""
        running = [self._held[id_].running if id_ in self._held else None for id_ in ids]
        # A sandbox without a control group is read process by process: not on the loop.
        found = await anyio.to_thread.run_sync(_usage, running)
        return tuple(each or self._not_here(id_) for id_, each in zip(ids, found, strict=True))

    def _not_here(self, id: str) -> Usage:
        known = self._used.get(id)
        return known or Usage(sandbox_id=id, reason="it does not run in this process")

    async def running(self) -> tuple[SandboxInfo, ...]:
        """Return the records of the sandboxes that run here."""
        return tuple(held.info for held in self._held.values())

    async def read_host(self) -> HostState:
        """Return what this machine has left for sandboxes now."""
        return await self._engine.read_host()

    @property
    def shelves(self) -> tuple[ShelfView, ...]:
        """How the sandboxes stand that are ready before anyone asks for them."""
        return self._engine.pool.shelves

    def observe(self, observer: Observer) -> None:
        """Tell an observer of every start and end from now on."""
        self._observers.append(observer)

    async def limit_hits(self, id: str) -> LimitHits:
        """Return what the kernel counted against a running sandbox's limits."""
        if id not in self._held:
            return LimitHits()
        running = self._held[id].running
        counted = running.counters()
        return LimitHits(
            oom_kills=counted.oom_kills,
            pids_refused=counted.pids_refused,
            used_up=running.used_up(),
        )

    async def note_hits(self, id: str) -> Noted:
        """Count now; return what gives it."""
        hits = await self.limit_hits(id)

        async def give() -> LimitHits:
            return hits

        return give

    async def ended(self, id: str) -> Ended:
        """Wait until a sandbox that ran here has ended, and return how."""
        if held := self._held.get(id):
            await held.running.over.wait()
        return self._ended[id]

    @asynccontextmanager
    async def connect(self, id: str) -> AsyncGenerator[Channel, None]:
        """Open the channel to a running sandbox, which ends with it."""
        held = self._held[id]
        verdict = None
        try:
            yield held.sealing or held.channel
        except ProtocolError as error:
            verdict = Ended(kind=EndKind.SANDBOX_DIED, detail=str(error))
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await held.running.end(verdict)

    async def collect(
        self, id: str, patterns: Sequence[str], destination: Path | Shelf
    ) -> Collected:
        """Copy files of a workspace into a content-addressed folder, running or not."""
        workspace = self._workspace(id)
        if not workspace.exists():
            return Collected()
        if self._is_sealed(id):
            raise StateError(
                f"the files of sandbox {id} are sealed while it does not run: call setup() first",
                sandbox_id=id,
            )
        try:
            return await anyio.to_thread.run_sync(extract.collect, workspace, patterns, destination)
        except OSError as error:
            raise state_error(error, f"artifacts cannot be kept in {destination}", id) from error

    async def read_file(self, id: str, path: str) -> AsyncIterator[bytes]:
        """Yield a file of a workspace, running or not; no link is followed."""
        workspace = self._workspace(id)
        inside = path.removeprefix(f"{WORKSPACE}/")
        try:
            if self._is_sealed(id):
                descriptor = await anyio.to_thread.run_sync(self._open_sealed, id, inside)
            else:
                descriptor = await anyio.to_thread.run_sync(extract.open_file, workspace, inside)
        except OSError as error:
            raise FileError(
                f"{path}: {error.strerror}", sandbox_id=id, path=path, errno=error.errno
            ) from error
        async with anyio.wrap_file(os.fdopen(descriptor, "rb")) as file:
            while data := await file.read(_CHUNK):
                yield data

    async def reap(self) -> tuple[str, ...]:
        """Remove what owners that died left behind; return the ids of their sandboxes."""
        reaped: list[str] = []
        await anyio.to_thread.run_sync(payload.sweep, self._folders.agent)
        await anyio.to_thread.run_sync(self._templates.store.sweep)
        hierarchy, _ = await anyio.to_thread.run_sync(cgroups.find)
        if hierarchy is not None:
            await anyio.to_thread.run_sync(hierarchy.sweep)
        await anyio.to_thread.run_sync(
            reaper.remove_ownerless, f"{self._ours}-", hierarchy, self._folders
        )
        await self._remove_recordless()
        for dead in await self._store.dead_leases():
            try:
                lease = await self._store.acquire_lease(dead.sandbox_id)
            except (SandboxBusy, SandboxNotFound):
                continue  # another process was first
            workspace = self._folders.workspace(dead.sandbox_id)
            await anyio.to_thread.run_sync(reaper.remove_tree, plain.tmp(workspace))
            await self._store.mark_lost(lease)
            if dead.internal:
                await self.delete(dead.sandbox_id)
            log.info("sandbox.lost", extra={"sandbox_id": dead.sandbox_id})
            reaped.append(dead.sandbox_id)
        return tuple(reaped)

    async def _remove_recordless(self) -> None:
        """Remove the folders of sandboxes whose deletion was cut off: a record is deleted first."""
        folders = await anyio.to_thread.run_sync(self._folders.sandbox_folders)
        if not folders:
            return
        records = await self._store.list_sandboxes(include_internal=True)
        known = {record.id for record in records}
        left = [folder for folder in folders if folder.name not in known]
        await anyio.to_thread.run_sync(_remove, left)

    async def aclose(self) -> None:
        """End every sandbox that runs here, then the launcher. Idempotent."""
        stopped = Ended(kind=EndKind.OK, detail="the client was closed")
        async with anyio.create_task_group() as group:
            for held in list(self._held.values()):
                group.start_soon(held.running.end, stopped)
        await self._engine.aclose()

    def _workspace(self, id: str) -> Path:
        """A sandbox's files as this process reaches them now."""
        held = self._held.get(id)
        return held.running.workspace if held else self._folders.workspace(id)

    def _is_sealed(self, id: str) -> bool:
        """Whether a sandbox's files can be had with its key only; they are not while it runs."""
        return id not in self._held and saving.sealed_path(self._folders.workspace(id)).exists()

    def _open_sealed(self, id: str, path: str) -> int:
        key = self._vault.workspace_key(id)
        return saving.open_saved(self._folders.workspace(id), path, key, id)

    def _lock(self, id: str) -> anyio.Lock:
        return self._starting.setdefault(id, anyio.Lock(fast_acquire=True))


def group_prefix(state_dir: Path) -> str:
    """Return what begins the name of every control group of a state folder."""
    return f"st{hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:8]}"


def _standing(held: _Held) -> Standing:
    running = held.running
    return Standing(isolation=running.isolation, limits=running.limits, info=held.info)


def _usage(running: Sequence[Running | None]) -> tuple[Usage | None, ...]:
    return tuple(None if each is None else each.usage() for each in running)


def _fill(workspace: Path, files: Mapping[str, bytes], owner: int | None) -> None:
    """Write the initial files; no code has run in the workspace yet.

    Args:
        workspace: The workspace.
        files: Path in it -> content.
        owner: The uid and gid that they get; ``None`` is this process's own.

    Raises:
        StateError: They cannot be written.
    """
    made: set[Path] = set()
    try:
        for name, content in files.items():
            path = workspace / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            made.update(
                (path, *itertools.takewhile(lambda above: above != workspace, path.parents))
            )
        if owner is not None:
            for path in made:
                os.chown(path, owner, owner)
    except OSError as error:
        raise state_error(error, f"the initial files cannot be written to {workspace}") from error


def _remove(folders: Sequence[Path]) -> None:
    """Remove folders for good.

    Raises:
        StateError: The host refused.
    """
    for folder in folders:
        try:
            reaper.remove_tree(folder)
        except OSError as error:
            raise state_error(error, f"{folder} cannot be removed") from error
