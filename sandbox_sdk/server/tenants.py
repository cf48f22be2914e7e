"""Tenants: each has a backend of its own, so that nothing of one's is in reach of another's.

Pools, zygotes, workspaces, records, caches and idempotency keys are the backend's, and so a
tenant's. The tenant ``local`` has the state folder itself, the others folders below ``tenants/``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio
import attrs
from anyio.to_thread import run_sync

from sandbox_sdk.auth.principal import LOCAL_TENANT
from sandbox_sdk.backends.base import Backend, Standing
from sandbox_sdk.config import Settings
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.engine.worker import Worker
from sandbox_sdk.errors import IdempotencyInFlight, NotPermitted, QuotaExceeded
from sandbox_sdk.parts import Parts
from sandbox_sdk.server.hub import Hub, not_running
from sandbox_sdk.server.settings import Quota
from sandbox_sdk.store.base import Once, Store
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.values import SandboxInfo, SandboxSpec

_HEAVY_AT_ONCE = 8
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Opened(Protocol):
    """What holds one tenant's sandboxes."""

    @property
    def backend(self) -> Backend:
        """Where they live."""
        ...

    @property
    def store(self) -> Store:
        """Its records."""
        ...

    @property
    def supervisor(self) -> Supervisor:
        """Runs what goes on between requests."""
        ...

    async def aclose(self) -> None:
        """End them all and give everything back. Idempotent."""


class Tenant:
    """One tenant's sandboxes.

    Attributes:
        name: The tenant.
        backend: Where its sandboxes live.
        store: Its records.
        quota: How much it may have.
        heavy: Limits requests that take much memory or disk while they run.
    """

    def __init__(self, name: str, opened: Opened, quota: Quota, *, recorded: int) -> None:
        self.name = name
        self.backend = opened.backend
        self.store = opened.store
        self.quota = quota
        self.heavy = anyio.CapacityLimiter(_HEAVY_AT_ONCE)
        self._opened = opened
        self._recorded = recorded
        self._creating = 0  # not in the records yet
        self._created = 0  # in all
        self._hubs: dict[str, Hub] = {}
        self._starting: set[str] = set()
        self._in_flight: set[tuple[str, str]] = set()

    async def create(self, spec: SandboxSpec, once: Once | None) -> SandboxInfo:
        """Record a sandbox.

        Raises:
            QuotaExceeded: The tenant has as many as it may.
        """
        # What was made before its answer was lost takes no more room.
        came_again = once is not None and self._is_full and await self.store.has_once(once)
        if not came_again:
            await self._require_room()
        self._creating += 1
        try:
            info = await self.backend.create(await self.backend.pin(spec), once)
        finally:
            self._creating -= 1
        self._recorded += 1
        self._created += 1
        return info

    async def _require_room(self) -> None:
        """Go on if one more may be made; nothing is awaited after that was found."""
        if self._is_full:
            # Requests that came again were counted again.
            before = self._created
            found = len(await self.backend.list(include_internal=True))
            self._recorded = found + self._created - before
        if self._is_full:
            raise QuotaExceeded(
                f"there are {self._recorded + self._creating} sandboxes, as many as this tenant "
                "may have: delete some"
            )

    @property
    def _is_full(self) -> bool:
        return self._recorded + self._creating >= self.quota.sandboxes

    async def start(self, id: str) -> Standing:
        """Set a sandbox up, and open its channel.

        Raises:
            QuotaExceeded: As many run as may.
        """
        started = {*self._hubs, *self._starting, id}
        if len(started) > self.quota.running:
            raise QuotaExceeded(
                f"{self.quota.running} sandboxes run, as many as this tenant may have running: "
                "clean some up",
                sandbox_id=id,
            )
        self._starting.add(id)
        try:
            standing = await self.backend.start(id)
            hub = self._hubs.get(id)
            if hub is None or hub.over:
                supervisor = self._opened.supervisor
                hub = self._hubs[id] = Hub(id, self.backend, supervisor, self._forget)
                await supervisor.start_soon(hub.serve)
            await hub.ready.wait()
            return standing
        finally:
            self._starting.discard(id)

    async def delete(self, id: str) -> None:
        """Delete a sandbox."""
        await self.backend.delete(id)
        self._recorded -= 1

    def hub(self, id: str) -> Hub:
        """Return the channel of a running sandbox.

        Raises:
            SandboxClosed: It does not run.
        """
        hub = self._hubs.get(id)
        if hub is None:
            raise not_running(id)
        return hub

    def runs(self, id: str) -> bool:
        """Return whether a sandbox runs here."""
        return id in self._hubs

    @property
    def busy(self) -> bool:
        """Whether anything runs in any of its sandboxes, or is about to."""
        return bool(self._starting) or any(hub.busy for hub in self._hubs.values())

    @contextmanager
    def alone(self, once: Once | None) -> Generator[None]:
        """Keep a second request of the same key out of the block.

        Raises:
            IdempotencyInFlight: The first is in it.
        """
        if once is None:
            yield
            return
        name = (once.scope, once.key)
        if name in self._in_flight:
            raise IdempotencyInFlight(
                f"the first request with the idempotency key {once.key!r} still runs: try again "
                "in a second",
                retry_after=1.0,
            )
        self._in_flight.add(name)
        try:
            yield
        finally:
            self._in_flight.discard(name)

    async def aclose(self) -> None:
        """End every sandbox. Idempotent."""
        await self._opened.aclose()

    def _forget(self, hub: Hub) -> None:
        if self._hubs.get(hub.id) is hub:
            del self._hubs[hub.id]


@attrs.define(eq=False)
class Tenants:
    """All tenants of a server.

    Attributes:
        quota: How much each may have.
        settings: The server's own.
        worker: The public key by which clients know this server's worker; empty if it seals none.
    """

    quota: Quota
    settings: Settings
    worker: str
    _root: Path
    _open: Callable[[Settings], Awaitable[Opened]]
    _tenants: dict[str, Tenant] = attrs.field(factory=dict[str, Tenant])
    _opening: anyio.Lock = attrs.field(factory=anyio.Lock)  # guards _tenants

    @classmethod
    async def open(
        cls,
        settings: Settings,
        quota: Quota,
        open_backend: Callable[[Settings], Awaitable[Opened]] | None = None,
    ) -> Tenants:
        """Open the state folder, and clear up in every tenant's after a server that died.

        Args:
            settings: The server's own; each tenant has a state folder of its own.
            quota: How much each tenant may have.
            open_backend: Opens what holds the sandboxes of one state folder; without it they live
                on this machine, and one worker seals the channels of all.

        Raises:
            StateError: A state folder cannot be used.
            ConfigError: The worker's key is not this user's alone, or is none.
        """
        settings = attrs.evolve(settings, endpoint=None)
        folders = await run_sync(StateFolders.open, settings.state_dir)
        public = ""
        if open_backend is None:
            worker = await run_sync(Worker.of, folders.keys)
            public, open_backend = worker.public, partial(Parts.open, worker=worker)
        tenants = cls(quota, settings, public, folders.root, open_backend)
        try:
            for name in [LOCAL_TENANT, *await run_sync(tenants._recorded)]:
                await tenants.of(name)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await tenants.aclose()
            raise
        return tenants

    async def of(self, name: str) -> Tenant:
        """Return a tenant's part, made at its first use.

        Raises:
            NotPermitted: The name is none that a tenant can have.
            StateError: Its state folder cannot be used.
        """
        if found := self._tenants.get(name):
            return found
        if not _NAME.fullmatch(name):
            raise NotPermitted(
                f"tenant {name[:60]!r} cannot be served: a name is 1 to 63 of a-z, 0-9, - and _"
            )
        async with self._opening:
            if name not in self._tenants:
                folder = self._root if name == LOCAL_TENANT else self._folder / name
                opened = await self._open(attrs.evolve(self.settings, state_dir=folder))
                records = await opened.backend.list(include_internal=True)
                self._tenants[name] = Tenant(name, opened, self.quota, recorded=len(records))
            return self._tenants[name]

    @property
    def shared(self) -> bool:
        """Whether there are several tenants, ``local`` among them: then levels must be strong."""
        return len(self._tenants) > 1

    @property
    def busy(self) -> bool:
        """Whether anything runs in any tenant's sandboxes."""
        return any(tenant.busy for tenant in self._tenants.values())

    async def aclose(self) -> None:
        """End every tenant's sandboxes. Idempotent."""
        async with anyio.create_task_group() as group:
            for tenant in self._tenants.values():
                group.start_soon(tenant.aclose)

    @property
    def _folder(self) -> Path:
        return self._root / "tenants"

    def _recorded(self) -> list[str]:
        """The names of the tenants that there are folders of."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return sorted(each.name for each in self._folder.iterdir() if _NAME.fullmatch(each.name))
