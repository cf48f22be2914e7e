"""Sandboxes on a server that carries, and never sees, what goes in and comes out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import anyio
import attrs
from anyio.to_thread import run_sync

from sandbox_sdk.backends.base import Channel, Standing
from sandbox_sdk.backends.http.backend import HttpBackend
from sandbox_sdk.backends.http.channel import HttpChannel
from sandbox_sdk.backends.http.connection import Connection
from sandbox_sdk.backends.http.inside import Inside, set_variables
from sandbox_sdk.backends.http.kept import KeptSpecs
from sandbox_sdk.backends.http.sealing import Sealing, require_same
from sandbox_sdk.backends.sealed import SealedChannel, Trust
from sandbox_sdk.crypto_utils.keys import VerifyKey
from sandbox_sdk.engine import extract
from sandbox_sdk.errors import IntegrityError, SandboxClosed, ServerUnavailable, StateError
from sandbox_sdk.store.base import Once
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.values import Collected, Ended, SandboxInfo, SandboxSpec, SandboxState, Shelf
from sandbox_sdk.vault import Vault

HANDSHAKE_SECONDS = 60.0
"""Longest time until a session of a sealed channel has begun."""


class SealedHttpBackend(HttpBackend):
    """A ``Backend`` over a server, each of whose channels only this client and the agent can read.

    Args:
        connection: The way to the server.
        folders: The client's state folder: its key, and what servers are not told.
        vault: The keys with which that is sealed.
        pinned: The workers to trust; without one, the first that the server names.
    """

    def __init__(
        self,
        connection: Connection,
        folders: StateFolders,
        vault: Vault,
        pinned: Iterable[VerifyKey] = (),
    ) -> None:
        super().__init__(connection)
        self._sealing = Sealing(connection.endpoint, folders, pinned)
        self._kept = KeptSpecs(folders, vault)
        self._trust: dict[str, Trust] = {}
        self._ready: dict[str, tuple[HttpChannel, SealedChannel]] = {}  # nobody's yet

    async def pin(self, spec: SandboxSpec) -> SandboxSpec:
        """Return the spec with its template named by what that means on the server now."""
        pinned = await super().pin(await self._told(spec))
        return attrs.evolve(spec, template=pinned.template)

    async def create(self, spec: SandboxSpec, once: Once | None = None) -> SandboxInfo:
        """Record a new sandbox; its variables, first files and metadata stay here.

        Raises:
            ConfigError: No worker's key is pinned, and the level wants one.
            IntegrityError: What was recorded is not what was asked for.
        """
        self._sealing.require_pin(spec.security_level)
        asked = await self._told(spec)
        info = await super().create(asked, once)
        if once is None and await run_sync(self._kept.spec, info.id) is not None:
            # Its code would run beside that one's: nothing of it is deleted here either.
            raise IntegrityError(
                f"the server gave {info.id} as a new sandbox, which this client has already"
            )
        try:
            require_same(asked, info.spec)
            made = attrs.evolve(info.spec, env=spec.env, files=spec.files, metadata=spec.metadata)
            await run_sync(self._kept.keep, info.id, made)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await super().delete(info.id)
            raise
        return attrs.evolve(info, spec=attrs.evolve(made, files={}))

    async def _told(self, spec: SandboxSpec) -> SandboxSpec:
        """Return what of a spec the server is told, and who may open the channel."""
        owner = await self._sealing.owner()
        return attrs.evolve(spec, env={}, files={}, metadata={}, owners=(owner,))

    async def start(self, id: str) -> Standing:
        """Set a sandbox up, begin a session with its agent, and hand over what is for it alone.

        Raises:
            ConfigError: No worker's key is pinned, and the level wants one.
            NotPermitted: It is another client's, or its channel is not sealed.
            IntegrityError: It is not the sandbox that was asked for, no trusted worker vouches for
                it, or its agent refuses this client.
            FileError: A first file cannot be written.
        """
        kept = await run_sync(self._kept.spec, id)
        spec = (await super().get(id)).spec if kept is None else kept
        self._sealing.require_pin(spec.security_level)
        await self._sealing.require_owner(id, spec)
        standing = await self._start(id)
        self._trust[id] = await self._sealing.trust(id, spec, standing, self._ask_worker)
        await self._forget_ready(id)
        raw, channel = await self._open(id)
        try:
            await self._hand_over(id, spec, channel)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await raw.aclose()
            raise
        self._ready[id] = raw, channel
        return attrs.evolve(standing, info=await run_sync(self._kept.complete, standing.info))

    async def _ask_worker(self) -> str:
        return (await self._caller()).worker

    async def _hand_over(self, id: str, spec: SandboxSpec, channel: SealedChannel) -> None:
        await set_variables(channel, spec.env)
        files = await run_sync(self._kept.files, id)
        if files:
            inside = Inside(id, channel)
            for path, content in files.items():
                await inside.write(path, content)
            await run_sync(self._kept.wrote_files, id)

    async def stop(self, id: str, why: Ended | None = None) -> SandboxInfo:
        """End a sandbox and wait until nothing of it is left but its workspace and results."""
        await self._forget_ready(id)
        return await run_sync(self._kept.complete, await super().stop(id, why))

    async def delete(self, id: str) -> None:
        """Stop a sandbox and remove its record, workspace and results."""
        await self._forget_ready(id)
        await super().delete(id)
        self._trust.pop(id, None)
        await run_sync(self._kept.forget, id)

    async def get(self, id: str) -> SandboxInfo:
        """Return a sandbox's record, with what is kept of it here."""
        return await run_sync(self._kept.complete, await super().get(id))

    async def list(self, *, include_internal: bool = False) -> tuple[SandboxInfo, ...]:
        """Return all records, oldest first, with what is kept of each here."""
        found = await super().list(include_internal=include_internal)
        return await run_sync(lambda: tuple(map(self._kept.complete, found)))

    @asynccontextmanager
    async def connect(self, id: str) -> AsyncGenerator[Channel, None]:
        """Open a sealed channel to a running sandbox, which goes on without it."""
        raw, channel = await self._take(id)
        async with self._carrying(id, raw):
            yield channel

    async def collect(
        self, id: str, patterns: Sequence[str], destination: Path | Shelf
    ) -> Collected:
        """Copy files of a workspace into a content-addressed folder while it runs.

        Raises:
            StateError: It does not run.
        """
        async with self._inside(id) as inside:
            if inside is None:
                return Collected()
            return await inside.collect(patterns, extract.shelf_of(destination))

    async def read_file(self, id: str, path: str) -> AsyncIterator[bytes]:
        """Yield a file of a workspace while it runs."""
        async with self._inside(id) as inside:
            if inside is None:
                return
            async with aclosing(inside.read(path)) as pieces:
                async for data in pieces:
                    yield data

    async def aclose(self) -> None:
        """Take leave of the server: sandboxes go on, calls of this client end. Idempotent."""
        for id_ in list(self._ready):
            await self._forget_ready(id_)
        await super().aclose()

    @asynccontextmanager
    async def _inside(self, id: str) -> AsyncGenerator[Inside | None]:
        """Look into a running sandbox over a channel of its own; ``None`` if it never ran.

        Raises:
            StateError: It does not run.
        """
        info = await super().get(id)
        if info.state is SandboxState.CREATED:
            yield None
            return
        if info.state is not SandboxState.RUNNING:
            raise StateError(
                f"the files of sandbox {id} leave over its sealed channel, and so only while it "
                "runs: call setup() first",
                sandbox_id=id,
            )
        if id not in self._channels:
            await self.start(id)
        raw, channel = await self._take(id)
        try:
            yield Inside(id, channel)
        finally:
            with anyio.CancelScope(shield=True):
                await raw.aclose()

    async def _take(self, id: str) -> tuple[HttpChannel, SealedChannel]:
        return self._ready.pop(id, None) or await self._open(id)

    async def _open(self, id: str) -> tuple[HttpChannel, SealedChannel]:
        """Connect, and begin a session.

        Raises:
            IntegrityError: The other end is not who it should be, or refuses this caller.
            ServerUnavailable: It took too long, or the sandbox ended meanwhile.
            SandboxClosed: This client did not start it.
        """
        if id not in self._trust:
            raise SandboxClosed(f"sandbox {id} was not started: call start() first", sandbox_id=id)
        raw = self._new_channel(id)
        try:
            with anyio.fail_after(HANDSHAKE_SECONDS):
                await raw.open()
                return raw, await SealedChannel.open(raw, self._trust[id])
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await raw.aclose()
            if isinstance(error, TimeoutError | ConnectionError):
                raise ServerUnavailable(
                    f"the sealed channel to sandbox {id} could not be opened: {error}"
                ) from error
            raise

    async def _forget_ready(self, id: str) -> None:
        if (found := self._ready.pop(id, None)) is not None:
            await found[0].aclose()
