"""A ``Backend`` over the sandboxes of a server."""

from __future__ import annotations

import errno
import json
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import aiohttp
import anyio
import attrs

from sandbox_sdk.auth import AuthStatus
from sandbox_sdk.backends.base import Channel, LimitHits, Noted, Observer, Standing
from sandbox_sdk.backends.http import collecting
from sandbox_sdk.backends.http.channel import HttpChannel
from sandbox_sdk.backends.http.connection import Connection
from sandbox_sdk.backends.protocol import (
    KEY_HEADER,
    Asked,
    Caller,
    HowEnded,
    Page,
    Pinned,
    Stopping,
    Usages,
    Wanted,
)
from sandbox_sdk.engine import extract
from sandbox_sdk.errors import (
    FileError,
    IntegrityError,
    NotPermitted,
    ProtocolError,
    SandboxError,
    SandboxNotFound,
    ServerUnavailable,
)
from sandbox_sdk.parse import fault
from sandbox_sdk.policies import STRONG
from sandbox_sdk.store.base import Once
from sandbox_sdk.store.folders import state_error
from sandbox_sdk.values import (
    Collected,
    Ended,
    EndKind,
    SandboxInfo,
    SandboxSpec,
    SandboxState,
    Shelf,
    Usage,
)
from sandbox_sdk.wire import to_json

_ID = re.compile(r"sb_[0-9a-z]{26}")
_WAIT_SECONDS = 50.0  # for a sandbox's end, a question at a time
_MORE_SECONDS = 30.0  # for the answer to come
_AT_ONCE = 1000
_PAGE = "1000"


class HttpBackend:
    """Sandboxes on a server, which live on when this client ends.

    Args:
        connection: The way to the server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channels: dict[str, HttpChannel] = {}
        self._lost: dict[str, Ended] = {}  # of channels that were lost for good
        self._closed = False

    async def whoami(self) -> AuthStatus:
        """Return who the server says that the caller is."""
        caller = await self._caller()
        return self._connection.told(
            AuthStatus(
                authenticated=True,
                method=caller.method,
                subject=caller.subject,
                scopes=caller.scopes,
                expires_at=caller.expires_at,
                detail=f"tenant {caller.tenant} at {self._connection.endpoint}",
            )
        )

    async def _caller(self) -> Caller:
        return await self._connection.request(Caller, "GET", "/v1/whoami")

    async def pin(self, spec: SandboxSpec) -> SandboxSpec:
        """Return the spec with its template named by what that means on the server now."""
        if spec.template is None:
            return spec
        bare = to_json(attrs.evolve(spec, files={}))
        pinned = await self._connection.request(Pinned, "POST", "/v1/specs/pin", body=bare)
        return attrs.evolve(pinned.spec, files=spec.files)

    async def create(self, spec: SandboxSpec, once: Once | None = None) -> SandboxInfo:
        """Record a new sandbox, once, however often the request is sent.

        Raises:
            ConfigError: Its channel would have to be sealed, and settings say that none is.
        """
        if spec.security_level in STRONG and not spec.owners:
            raise fault(
                "security.seal_channels",
                f'false is refused at security level "{spec.security_level}", whose channels are '
                "always sealed: leave it out",
            )
        key = secrets.token_hex(16) if once is None else once.key
        return await self._connection.request(
            SandboxInfo, "POST", "/v1/sandboxes", body=to_json(spec), headers={KEY_HEADER: key}
        )

    async def start(self, id: str) -> Standing:
        """Set a sandbox up, or return at once what holds if it runs.

        Raises:
            NotPermitted: Its channel is sealed, and this client seals none.
        """
        standing = await self._start(id)
        if standing.info.spec.owners:
            raise NotPermitted(
                f"the channel of sandbox {id} is sealed: leave out security.seal_channels: false, "
                "and use the state folder of the client that made it"
            )
        return standing

    async def _start(self, id: str) -> Standing:
        standing = await self._connection.request(
            Standing, "POST", f"{_path(id)}/start", headers=_key(), seconds=None
        )
        self._lost.pop(id, None)
        return standing

    async def stop(self, id: str, why: Ended | None = None) -> SandboxInfo:
        """End a sandbox and wait until nothing of it is left but its workspace and results."""
        body = to_json(Stopping(why=why))
        return await self._connection.request(
            SandboxInfo, "POST", f"{_path(id)}/stop", body=body, headers=_key(), seconds=None
        )

    async def delete(self, id: str) -> None:
        """Stop a sandbox and remove its record, workspace and results."""
        await self._connection.request(NoneType, "DELETE", _path(id), seconds=None)
        self._lost.pop(id, None)

    async def get(self, id: str) -> SandboxInfo:
        """Return a sandbox's record."""
        return await self._connection.request(SandboxInfo, "GET", _path(id))

    async def list(self, *, include_internal: bool = False) -> tuple[SandboxInfo, ...]:
        """Return all records, oldest first."""
        found: list[SandboxInfo] = []
        query = {"limit": _PAGE, "internal": str(include_internal).lower()}
        while True:
            page = await self._connection.request(Page, "GET", "/v1/sandboxes", query=query)
            found += page.sandboxes
            if page.next is None or not page.sandboxes:
                return tuple(found)
            query["after"] = page.next

    async def running(self) -> tuple[SandboxInfo, ...]:
        """Return the records of the caller's sandboxes that run on the server."""
        return tuple(info for info in await self.list() if info.state == SandboxState.RUNNING)

    def observe(self, observer: Observer) -> None:
        """Tell an observer of nothing: starts and ends are the server's own to observe."""

    async def usage(self, ids: Sequence[str]) -> tuple[Usage, ...]:
        """Return what each sandbox uses now, in the order asked."""
        found: list[Usage] = []
        for at in range(0, len(ids), _AT_ONCE):
            body = to_json(Asked(ids=tuple(ids[at : at + _AT_ONCE])))
            answer = await self._connection.request(Usages, "POST", "/v1/usage", body=body)
            found += answer.usage
        return tuple(found)

    async def limit_hits(self, id: str) -> LimitHits:
        """Return what the kernel counted against a running sandbox's limits.

        Where that cannot be had any more, it is nothing: what the call came to is told by the end
        of the sandbox, or of the way to it.
        """
        return await (await self.note_hits(id))()

    async def note_hits(self, id: str) -> Noted:
        """Ask what was counted before whatever is sent next; return what waits for the answer.

        The answer comes while what is sent next is under way already.
        """
        channel = self._channels.get(id)
        question = None if channel is None else await channel.ask()
        now = await self._count(id) if question is None else LimitHits()

        async def give() -> LimitHits:
            if question is None:
                return now
            await question.answered.wait()
            return await self._count(id) if question.hits is None else question.hits

        return give

    async def _count(self, id: str) -> LimitHits:
        """Ask beside the channel, where that is lost."""
        if id in self._lost or self._closed:
            return LimitHits()
        return await self._connection.request(LimitHits, "GET", f"{_path(id)}/limit_hits")

    async def ended(self, id: str) -> Ended:
        """Wait until a sandbox, or the way to it, has ended, and return how."""
        query = {"wait": f"{_WAIT_SECONDS:g}"}
        while True:
            if self._closed:
                return Ended(kind=EndKind.OK, detail="the client was closed")
            if (lost := self._lost.get(id)) is not None:
                return lost
            try:
                how = await self._connection.request(
                    HowEnded,
                    "GET",
                    f"{_path(id)}/ended",
                    query=query,
                    seconds=_WAIT_SECONDS + _MORE_SECONDS,
                )
            except SandboxNotFound:
                return Ended(kind=EndKind.OK, detail="it was deleted")
            except SandboxError as error:
                return Ended(kind=EndKind.INFRA, detail=str(error))
            if how.ended is not None:
                return how.ended
            if how.state is not SandboxState.RUNNING:
                return Ended(kind=EndKind.INFRA, detail=f"it is {how.state}: its server ended")

    @asynccontextmanager
    async def connect(self, id: str) -> AsyncGenerator[Channel, None]:
        """Open a channel to a running sandbox, which goes on without it."""
        channel = self._new_channel(id)
        await channel.open()
        async with self._carrying(id, channel):
            yield channel

    def _new_channel(self, id: str) -> HttpChannel:
        way = self._connection
        return HttpChannel(partial(way.connect, f"{_path(id)}/channel"), way.authorization)

    @asynccontextmanager
    async def _carrying(self, id: str, channel: HttpChannel) -> AsyncGenerator[None, None]:
        """Keep a channel as the one of a sandbox for the block, and find out what ends it."""
        self._channels[id] = channel
        try:
            yield
        except IntegrityError as error:
            self._lost[id] = Ended(kind=EndKind.INFRA, detail=str(error)[:200])
            raise
        except ProtocolError as error:
            self._lost[id] = Ended(kind=EndKind.SANDBOX_DIED, detail=str(error)[:200])
            with anyio.CancelScope(shield=True):
                await self.stop(id, self._lost[id])
            raise
        finally:
            self._channels.pop(id, None)
            if channel.why is not None:
                self._lost[id] = channel.why
            with anyio.CancelScope(shield=True):
                await channel.aclose()

    async def collect(
        self, id: str, patterns: Sequence[str], destination: Path | Shelf
    ) -> Collected:
        """Copy files of a workspace into a content-addressed folder, running or not."""
        body = await anyio.to_thread.run_sync(_dumps, Wanted(patterns=tuple(patterns)))
        try:
            async with self._connection.stream(
                "POST", f"{_path(id)}/collect", data=body
            ) as response:
                return await collecting.receive(response.content, extract.shelf_of(destination))
        except aiohttp.ClientError as error:
            raise ServerUnavailable(f"the server broke off a collection: {error}") from error
        except OSError as error:
            if isinstance(error, SandboxError):
                raise
            raise state_error(error, "artifacts cannot be kept", id) from error

    async def read_file(self, id: str, path: str) -> AsyncIterator[bytes]:
        """Yield a file of a workspace, running or not; no link is followed."""
        try:
            async with self._connection.stream(
                "GET", f"{_path(id)}/file", query={"path": path}
            ) as response:
                async for data in response.content.iter_any():
                    yield data
        except aiohttp.ClientPayloadError as error:
            raise FileError(
                f"{path}: the server broke off", sandbox_id=id, path=path, errno=errno.EIO
            ) from error

    async def aclose(self) -> None:
        """Take leave of the server: sandboxes go on, calls of this client end. Idempotent."""
        self._closed = True
        for channel in list(self._channels.values()):
            await channel.aclose()
        await self._connection.aclose()


def _path(id: str) -> str:
    """Return the path of a sandbox.

    Raises:
        SandboxNotFound: The id is none that the SDK made.
    """
    if not _ID.fullmatch(id):
        raise SandboxNotFound(f"there is no sandbox {id[:60]!r}: no id that this SDK made looks so")
    return f"/v1/sandboxes/{id}"


def _key() -> dict[str, str]:
    """By which a request that is sent again is known."""
    return {KEY_HEADER: secrets.token_hex(16)}


# Any: one of the protocol's bodies.
def _dumps(value: Any) -> bytes:
    return json.dumps(to_json(value)).encode()
