"""A backend whose lifecycle calls are recorded before they are answered."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import anyio

from sandbox_sdk.audit import Auditor, Watcher
from sandbox_sdk.backends.base import Backend, Channel, LimitHits, Noted, Observer, Standing
from sandbox_sdk.errors import SandboxError, SandboxNotFound
from sandbox_sdk.store.base import Once
from sandbox_sdk.values import (
    Collected,
    Ended,
    SandboxInfo,
    SandboxSpec,
    SecurityLevel,
    Shelf,
    Usage,
)


class Reaping(Backend, Protocol):
    """A backend that also clears up after owners that died."""

    async def reap(self) -> Sequence[str]:
        """Remove what they left behind; return the ids of their sandboxes."""
        ...


class AuditedBackend:
    """A ``Backend`` over another one.

    What must be recorded and cannot be is undone: no sandbox stays or runs of which the log does
    not know.
    """

    def __init__(self, backend: Reaping, auditor: Auditor) -> None:
        self._backend = backend
        self._auditor = auditor
        self._levels: dict[str, SecurityLevel] = {}
        backend.observe(auditor)

    async def pin(self, spec: SandboxSpec) -> SandboxSpec:
        """Replace a template's name by what it means now."""
        return await self._backend.pin(spec)

    async def create(self, spec: SandboxSpec, once: Once | None = None) -> SandboxInfo:
        """Record a new sandbox."""
        level = spec.security_level
        if not self._auditor.wants(level):
            info = await self._backend.create(spec, once)
            self._levels[info.id] = level
            return info
        call = await self._auditor.begin(
            "sandbox.create", "", level, _asked(spec), content=spec.files or None
        )
        asked_at = time.time()
        try:
            info = await self._backend.create(spec, once)
        except BaseException as error:
            await call.failed(error)
            raise
        self._levels[info.id] = level
        call.subject = info.id
        try:
            await call.done()
        except SandboxError:
            # What the first request of this key made may be in use, and is recorded.
            if once is None or info.created_at >= asked_at:
                with anyio.CancelScope(shield=True):
                    await self._backend.delete(info.id)
            raise
        return info

    async def start(self, id: str) -> Standing:
        """Set a sandbox up, or return at once what holds if it runs here."""
        level = await self._level(id)
        if level is None or not self._auditor.wants(level):
            return await self._backend.start(id)
        call = await self._auditor.begin("sandbox.start", id, level)
        try:
            standing = await self._backend.start(id)
        except BaseException as error:
            await call.failed(error)
            raise
        isolation = standing.isolation
        try:
            await call.done(
                {
                    "level": isolation.level,
                    "runtime": isolation.runtime,
                    "waived": list(isolation.waived),
                }
            )
        except SandboxError:
            with anyio.CancelScope(shield=True):
                await self._backend.stop(id)
            raise
        return standing

    async def stop(self, id: str, why: Ended | None = None) -> SandboxInfo:
        """End a sandbox and wait until nothing of it is left but its workspace and results."""
        level = await self._level(id)
        if level is None or not self._auditor.wants(level):
            return await self._backend.stop(id, why)
        call = await self._auditor.begin("sandbox.stop", id, level, new_work=False)
        try:
            info = await self._backend.stop(id, why)
        except BaseException as error:
            await call.failed(error)
            raise
        await call.done()
        return info

    async def delete(self, id: str) -> None:
        """Stop a sandbox and remove its record, workspace and results."""
        level = await self._level(id)
        if level is None or not self._auditor.wants(level):
            await self._backend.delete(id)
        else:
            call = await self._auditor.begin("sandbox.delete", id, level, new_work=False)
            try:
                await self._backend.delete(id)
            except BaseException as error:
                await call.failed(error)
                raise
            await call.done()
        self._levels.pop(id, None)

    def watcher(self, info: SandboxInfo) -> Watcher | None:
        """Return what records the calls inside a sandbox that was started, if they are."""
        return self._auditor.watcher(info)

    async def get(self, id: str) -> SandboxInfo:
        """Return a sandbox's record."""
        return await self._backend.get(id)

    async def list(self, *, include_internal: bool = False) -> tuple[SandboxInfo, ...]:
        """Return all records, oldest first."""
        return await self._backend.list(include_internal=include_internal)

    async def running(self) -> tuple[SandboxInfo, ...]:
        """Return the records of the sandboxes that run here."""
        return await self._backend.running()

    def observe(self, observer: Observer) -> None:
        """Tell an observer of every start and end from now on."""
        self._backend.observe(observer)

    async def usage(self, ids: Sequence[str]) -> tuple[Usage, ...]:
        """Return what each sandbox uses now, or used in all if it ended, in the order asked."""
        return await self._backend.usage(ids)

    async def limit_hits(self, id: str) -> LimitHits:
        """Return what the kernel counted against a running sandbox's limits."""
        return await self._backend.limit_hits(id)

    async def note_hits(self, id: str) -> Noted:
        """Have that counted as it is before whatever is sent next; return what then gives it."""
        return await self._backend.note_hits(id)

    async def ended(self, id: str) -> Ended:
        """Wait until a sandbox that ran here has ended, and return how."""
        return await self._backend.ended(id)

    def connect(self, id: str) -> AbstractAsyncContextManager[Channel]:
        """Open the channel to a running sandbox, which ends with it."""
        return self._backend.connect(id)

    async def collect(
        self, id: str, patterns: Sequence[str], destination: Path | Shelf
    ) -> Collected:
        """Copy files of a workspace into a content-addressed folder, running or not."""
        return await self._backend.collect(id, patterns, destination)

    def read_file(self, id: str, path: str) -> AsyncIterator[bytes]:
        """Yield a file of a workspace, running or not; no link is followed."""
        return self._backend.read_file(id, path)

    async def reap(self) -> tuple[str, ...]:
        """Remove what owners that died left behind; return the ids of their sandboxes."""
        reaped = tuple(await self._backend.reap())
        for id_ in reaped:
            level = await self._level(id_)
            if level is not None and self._auditor.wants(level):
                await self._auditor.record("sandbox.lost", id_)
        return reaped

    async def aclose(self) -> None:
        """End every sandbox that runs here, then what is recorded of them."""
        try:
            await self._backend.aclose()
        finally:
            await self._auditor.log.aclose()

    async def _level(self, id: str) -> SecurityLevel | None:
        """Return a sandbox's level; ``None`` if there is none, which the call itself will say."""
        if id not in self._levels:
            try:
                self._levels[id] = (await self._backend.get(id)).spec.security_level
            except SandboxNotFound:
                return None
        return self._levels[id]


def _asked(spec: SandboxSpec) -> dict[str, object]:
    """Return what is told of how a sandbox is asked for; variables and files are none of it."""
    return {
        "name": spec.name,
        "level": spec.security_level,
        "network": spec.network,
        "template": spec.template,
        "packages": len(spec.packages),
        "waive": list(spec.waive),
        "memory_bytes": spec.resources.memory_bytes,
        "cpu": spec.resources.cpu,
        "timeout": spec.timeout,
        "files": len(spec.files),
        "internal": spec.internal,
    }
