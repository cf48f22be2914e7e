"""Whom a client trusts to seal channels with, and how it knows a sandbox that it asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import anyio
from anyio.to_thread import run_sync

from sandbox_sdk.agent.seal import Subject
from sandbox_sdk.agent.sodium import Sodium
from sandbox_sdk.backends.base import Standing
from sandbox_sdk.backends.http.known_workers import KnownWorkers
from sandbox_sdk.backends.sealed import Trust
from sandbox_sdk.crypto_utils import sodium
from sandbox_sdk.crypto_utils.identities import CLIENT, identity
from sandbox_sdk.crypto_utils.keys import SigningKey, VerifyKey
from sandbox_sdk.engine.worker import subject_of
from sandbox_sdk.errors import ConfigError, IntegrityError, NotPermitted
from sandbox_sdk.parse import fault
from sandbox_sdk.policies import STRONG
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.values import SandboxSpec, SecurityLevel

_PRINTED_BY = "`sandbox-sdk server fingerprint` prints it on the server"

# Of a template only if one was named; the rest a server may have filled in.
_KEPT_AS_ASKED = (
    "security_level",
    "waive",
    "network",
    "runtime",
    "resources",
    "packages",
    "preload",
    "seed",
    "owners",
)

Ask = Callable[[], Awaitable[str]]
"""Asks a server for the public key of its worker."""


class Sealing:
    """The client's key, and the workers that it trusts at one server.

    Args:
        endpoint: The server.
        folders: The client's state folder.
        pinned: The workers to trust; without one, the first that the server names.
    """

    def __init__(
        self, endpoint: str, folders: StateFolders, pinned: Iterable[VerifyKey] = ()
    ) -> None:
        self._endpoint = endpoint
        self._keys = folders.keys
        self._pinned = tuple(pinned)
        self._known = KnownWorkers(folders.known_workers)
        self._own: tuple[Sodium, SigningKey] | None = None
        self._opening = anyio.Lock(fast_acquire=True)  # guards _own

    async def owner(self) -> str:
        """Return the public key of this client, as a spec has it."""
        return (await self._identity())[1].public.data.hex()

    def require_pin(self, level: SecurityLevel) -> None:
        """Go on if a level takes whatever worker is known.

        Raises:
            ConfigError: It takes only one whose key is pinned, and none is.
        """
        if level in STRONG and not self._pinned:
            raise fault(
                "security.worker_key",
                f'is needed at security level "{level}": the public key of the worker that '
                f"vouches for sandboxes of {self._endpoint}; {_PRINTED_BY}",
            )

    async def require_owner(self, id: str, spec: SandboxSpec) -> None:
        """Go on if this client may open a sandbox.

        Raises:
            NotPermitted: It is another client's, or its channel is not sealed.
            IntegrityError: Others may open it too: the server added them.
        """
        if not spec.owners:
            raise NotPermitted(
                f"the channel of sandbox {id} is not sealed, and this client seals every one: set "
                "security.seal_channels: false to use it"
            )
        own = await self.owner()
        if own not in spec.owners:
            raise NotPermitted(
                f"sandbox {id} opens for the client that made it: use its state folder, or a copy "
                f"of its keys/{CLIENT}"
            )
        if spec.owners != (own,):
            raise IntegrityError(
                f"sandbox {id} opens for {len(spec.owners) - 1} other keys too, which no client of "
                "this SDK asks for: make another one"
            )

    async def trust(self, id: str, spec: SandboxSpec, standing: Standing, ask: Ask) -> Trust:
        """Return what to open a sandbox's channel with.

        Args:
            id: The sandbox.
            spec: How it was asked for.
            standing: What the server says of it.
            ask: Asks the server for its worker, if it was never met.

        Raises:
            IntegrityError: The server names no worker.
        """
        library, key = await self._identity()
        workers = await self._workers(ask)
        return Trust(
            sodium=library,
            owner_seed=key.reveal(),
            owner=key.public.data,
            workers=tuple(worker.data for worker in workers),
            accepts=partial(_differs, subject_of(id, spec, standing.isolation, standing.limits)),
        )

    async def _identity(self) -> tuple[Sodium, SigningKey]:
        """Return libsodium and this client's key, made at its first use."""
        async with self._opening:
            if self._own is None:
                key = await run_sync(identity, self._keys, CLIENT)
                self._own = await run_sync(lambda: Sodium(str(sodium.library()))), key
            return self._own

    async def _workers(self, ask: Ask) -> tuple[VerifyKey, ...]:
        """Return the workers to trust; a server's first word for it is stored."""
        if self._pinned:
            return self._pinned
        if known := await run_sync(self._known.find, self._endpoint):
            return known
        try:
            told = VerifyKey.parse(await ask())
        except ConfigError:
            raise IntegrityError(
                f"{self._endpoint} names no worker that vouches for its sandboxes, so that no "
                "channel can be sealed: have the server upgraded, or set "
                "security.seal_channels: false"
            ) from None
        return await run_sync(self._known.learn, self._endpoint, told)


def require_same(asked: SandboxSpec, made: SandboxSpec) -> None:
    """Go on if a server recorded what was asked for.

    Raises:
        IntegrityError: It did not; the message names what differs.
    """
    names = [*_KEPT_AS_ASKED, *(["template"] if asked.template else [])]
    other = [name for name in names if getattr(asked, name) != getattr(made, name)]
    if other:
        raise IntegrityError(
            f"the server did not record the sandbox that was asked for: {', '.join(other)} differ"
        )


def _differs(expected: Subject, vouched: Subject) -> str:
    """Return how what a worker vouches for is not what is expected; nothing if it is."""
    pairs = zip(Subject._fields, expected, vouched, strict=True)
    names = [name for name, ours, its in pairs if ours != its]
    return f"its worker vouches for another {', '.join(names)}" if names else ""
