"""What a server's operator does: tenants, API keys, clients, and new signing keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypedDict

from anyio.to_thread import run_sync

from sandbox_sdk.auth import access_tokens, credential_rows, session_rows
from sandbox_sdk.auth.book import Book
from sandbox_sdk.auth.private_files import locked
from sandbox_sdk.auth.records import (
    ClientInfo,
    KeyInfo,
    NewClient,
    NewKey,
    SessionInfo,
    TenantInfo,
)
from sandbox_sdk.auth.scopes import check_grants
from sandbox_sdk.auth.secret_texts import Kind, digest, new_secret
from sandbox_sdk.auth.server_keys import LiveKeys
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.parse import Faults
from sandbox_sdk.values import new_id

_TENANT = re.compile(r"[a-z][a-z0-9-]{0,62}")
_LONGEST_SUBJECT = 200
_LOCK_SECONDS = 30.0
_FAR = 2.0**40  # seconds since the epoch, beyond which no calendar goes


class Administration:
    """Makes, lists and revokes.

    Where a tenant can be given, only its own are listed and revoked; ``None`` is all. Who may
    call what is for the caller to check: these are no one's rights but the operator's, and within
    a tenant those of who has ``keys:read`` and ``keys:write``.

    Args:
        book: The database.
        keys: The server's keys.
        folder: Where they are.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, book: Book, keys: LiveKeys, folder: Path, clock: Callable[[], float]
    ) -> None:
        self._book = book
        self._keys = keys
        self._folder = folder
        self._clock = clock

    async def create_tenant(self, id: str) -> TenantInfo:
        """Make a tenant.

        Args:
            id: Its name: small letters, digits and hyphens, at most 63.

        Raises:
            ConfigError: That is no such name, or one that is taken.
            StateError: It could not be written.
        """
        if not _TENANT.fullmatch(id):
            line = (
                "tenant: must be at most 63 small letters, digits and hyphens, a letter first, "
                f"not {id[:70]!r}"
            )
            raise ConfigError(line, faults=(line,))
        info = TenantInfo(id=id, created_at=self._clock())
        await self._book.write(partial(credential_rows.insert_tenant, info=info))
        return info

    async def ensure_tenant(self, id: str) -> None:
        """Make a tenant if there is none of this name."""
        info = TenantInfo(id=id, created_at=self._clock())
        await self._book.write(partial(credential_rows.ensure_tenant, info=info))

    async def tenants(self) -> tuple[TenantInfo, ...]:
        """Return all tenants, oldest first."""
        return await self._book.read(credential_rows.list_tenants)

    async def disable_tenant(self, id: str) -> None:
        """Shut a tenant for good: all its keys, clients and sessions are revoked.

        Raises:
            CredentialNotFound: There is none.
        """
        disable = partial(credential_rows.disable_tenant, id=id, now=self._clock())
        await self._book.write(disable)

    async def create_key(
        self,
        tenant: str,
        subject: str,
        *,
        grants: Iterable[str] = ("user",),
        expires_at: float | None = None,
    ) -> NewKey:
        """Make an API key.

        Args:
            tenant: Whose sandboxes it is for.
            subject: Who will use it; sessions are seen by their subject.
            grants: Roles and scopes.
            expires_at: When it ends, in seconds since the epoch; ``None`` is never.

        Raises:
            ConfigError: Something is wrong; all faults at once.
            CredentialNotFound: There is no such tenant, or it was shut.
        """
        info = KeyInfo(id=new_id("key"), **self._checked(tenant, subject, grants, expires_at))
        secret = new_secret(Kind.API_KEY)
        kept = digest(self._keys.keys.pepper, Kind.API_KEY, secret)
        await self._book.write(partial(credential_rows.insert_key, info=info, digest=kept))
        return NewKey(info=info, secret=secret)

    async def keys(self, tenant: str | None = None) -> tuple[KeyInfo, ...]:
        """Return API keys, oldest first."""
        return await self._book.read(partial(credential_rows.list_keys, tenant=tenant))

    async def create_client(
        self,
        tenant: str,
        subject: str,
        *,
        grants: Iterable[str] = ("user",),
        expires_at: float | None = None,
    ) -> NewClient:
        """Make a client with its first secret; the arguments are those of ``create_key``.

        Raises:
            ConfigError: Something is wrong; all faults at once.
            CredentialNotFound: There is no such tenant, or it was shut.
        """
        info = ClientInfo(id=new_id("cli"), **self._checked(tenant, subject, grants, expires_at))
        secret, kept = self._client_secret()
        await self._book.write(partial(credential_rows.insert_client, info=info, digest=kept))
        return NewClient(info=info, secret=secret)

    async def add_client_secret(self, id: str, tenant: str | None = None) -> NewClient:
        """Give a client a new secret; of those before, only the last one stays good.

        Raises:
            CredentialNotFound: There is no such client, or it was revoked.
        """
        secret, kept = self._client_secret()
        info = await self._book.write(
            partial(
                credential_rows.add_secret, id=id, digest=kept, now=self._clock(), tenant=tenant
            )
        )
        return NewClient(info=info, secret=secret)

    async def clients(self, tenant: str | None = None) -> tuple[ClientInfo, ...]:
        """Return clients, oldest first."""
        return await self._book.read(partial(credential_rows.list_clients, tenant=tenant))

    async def sessions(self, tenant: str | None = None) -> tuple[SessionInfo, ...]:
        """Return sessions, oldest first; ended ones stay for a day."""
        return await self._book.read(partial(session_rows.list_sessions, tenant=tenant))

    async def revoke(
        self, id: str, *, tenant: str | None = None, subject: str | None = None
    ) -> None:
        """Revoke a key with the sessions that it began, a client, or a session, at once.

        Args:
            id: Its id.
            tenant: Only if it is this tenant's.
            subject: Only if it is this subject's.

        Raises:
            CredentialNotFound: There is none.
        """
        revoke = partial(
            credential_rows.revoke, id=id, now=self._clock(), tenant=tenant, subject=subject
        )
        await self._book.write(revoke)

    async def rotate_signing_key(self, *, forget: bool = False) -> str:
        """Make a new key that signs tokens from now on, and return its id.

        Args:
            forget: Refuse at once what the old ones signed, as after a theft; by default it stays
                good until it expires.
        """
        keep = 0 if forget else access_tokens.LIFE + access_tokens.LEEWAY
        async with locked(self._folder / "server.lock", timeout=_LOCK_SECONDS):
            keys = await run_sync(self._keys.refresh)
            await run_sync(keys.rotated(self._clock(), keep=keep).replace, self._folder)
            return (await run_sync(self._keys.refresh)).signer.id

    def _client_secret(self) -> tuple[str, str]:
        secret = new_secret(Kind.CLIENT_SECRET)
        return secret, digest(self._keys.keys.pepper, Kind.CLIENT_SECRET, secret)

    def _checked(
        self, tenant: str, subject: str, grants: Iterable[str], expires_at: float | None
    ) -> _Holder:
        """Return who holds a new key or client.

        Raises:
            ConfigError: Something is wrong; all faults at once.
        """
        faults = Faults()
        now = self._clock()
        if not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            faults.add("subject", f"must be 1 to {_LONGEST_SUBJECT} printable characters")
        if expires_at is not None and not now < expires_at < _FAR:
            faults.add("expires_at", "must lie in the future")
        wanted: tuple[str, ...] = ()
        with faults.collect():
            wanted = check_grants(grants)
        faults.check()
        return _Holder(
            tenant=tenant, subject=subject, grants=wanted, created_at=now, expires_at=expires_at
        )


class _Holder(TypedDict):
    """What a new key and a new client have alike."""

    tenant: str
    subject: str
    grants: tuple[str, ...]
    created_at: float
    expires_at: float | None
