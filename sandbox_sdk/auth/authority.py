"""The server's side of authentication: who calls, tokens, sessions, and who may ask for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Self

import anyio
from anyio.to_thread import run_sync

from sandbox_sdk.auth import access_tokens, credential_rows, rows, session_rows
from sandbox_sdk.auth.administration import Administration
from sandbox_sdk.auth.book import FILE as DATABASE
from sandbox_sdk.auth.book import Book
from sandbox_sdk.auth.forms import LONGEST
from sandbox_sdk.auth.grants import Grants, TokenAnswer
from sandbox_sdk.auth.limiter import FailureLimiter
from sandbox_sdk.auth.principal import LOCAL_TENANT, Principal
from sandbox_sdk.auth.records import NewKey, SessionInfo, ended
from sandbox_sdk.auth.scopes import scopes_of
from sandbox_sdk.auth.secret_texts import Kind, digest, well_formed
from sandbox_sdk.auth.server_keys import FILE as KEY_FILE
from sandbox_sdk.auth.server_keys import LiveKeys
from sandbox_sdk.auth.server_keys import create as create_keys
from sandbox_sdk.auth.uses import Uses
from sandbox_sdk.errors import AuthenticationError, CredentialNotFound
from sandbox_sdk.store.folders import StateFolders

_LOOK_SECONDS = 1.0  # how often tokens, and those of unknown keys, make the key file be looked at


class Authority:
    """Says who calls a server, and gives out what they prove it with.

    All state is in ``auth/`` of the state folder. Several processes may have it open: what one
    revokes, the others refuse at their next look. Made by ``open``; for use on one event loop.

    Attributes:
        admin: Makes, lists and revokes tenants, keys and clients: for the server's operator.
    """

    def __init__(
        self, book: Book, keys: LiveKeys, folder: Path, clock: Callable[[], float]
    ) -> None:
        self._book = book
        self._keys = keys
        self._clock = clock
        self._looked_at = 0.0
        self._refreshed_at = 0.0
        self._limiter = FailureLimiter()
        self._uses = Uses(book, clock)
        self._grants = Grants(book, keys, self._limiter, self._uses, clock)
        self.admin = Administration(book, keys, folder, clock)

    @classmethod
    async def init(cls, state_dir: Path | None = None) -> NewKey:
        """Make a state folder a server's: pepper, signing key and one API key of its operator.

        Args:
            state_dir: The state folder; ``None`` is the user's.

        Returns:
            The key, whose secret is kept nowhere: show it once.

        Raises:
            StateError: It is a server's already, or cannot be written.
        """
        folders = await run_sync(StateFolders.open, state_dir)
        await run_sync(create_keys, folders.auth, time.time())
        authority = await cls.open(state_dir)
        try:
            return await authority.admin.create_key(LOCAL_TENANT, "operator", grants=("admin",))
        finally:
            with anyio.CancelScope(shield=True):
                await authority.aclose()

    @classmethod
    async def open(
        cls, state_dir: Path | None = None, *, clock: Callable[[], float] = time.time
    ) -> Self:
        """Open what ``init`` made.

        Args:
            state_dir: The state folder; ``None`` is the user's.
            clock: Returns the time in seconds since the epoch.

        Raises:
            StateError: It is no server's, is damaged, or others may read its secrets.
        """
        folders = await run_sync(StateFolders.open, state_dir)
        keys = await run_sync(LiveKeys, folders.auth)
        book = await Book.open(folders.auth)
        authority = cls(book, keys, folders.auth, clock)
        await authority.admin.ensure_tenant(LOCAL_TENANT)
        return authority

    @classmethod
    async def find(cls, state_dir: Path | None = None) -> Self | None:
        """Open what ``init`` made; ``None`` where it never did.

        Raises:
            StateError: It is damaged, half of it is lost, or others may read its secrets.
        """
        folders = await run_sync(StateFolders.open, state_dir)
        if not await run_sync(lambda: any(map(Path.exists, _made_of(folders.auth)))):
            return None
        return await cls.open(state_dir)

    async def authenticate(self, authorization: str | None, *, peer: str = "") -> Principal:
        """Return who calls.

        Args:
            authorization: The request's header of this name: ``Bearer``, and an API key or an
                access token.
            peer: Where the request came from, for slowing down who guesses.

        Raises:
            AuthenticationError: That is not proven; ``reason`` says why.
            StateError: The records cannot be read.
        """
        try:
            secret = _bearer(authorization)
            if access_tokens.is_access_token(secret):
                return await self._by_token(secret)
            return await self._by_key(secret)
        except AuthenticationError as error:
            # Only now: whoever has a good secret is let in, whatever came from the same address.
            wait = self._limiter.failed(peer) if error.reason == "invalid" else None
            if wait is None:
                raise
            raise AuthenticationError(
                f"too many wrong credentials came from there; try again in {wait:.0f} s",
                reason="rate_limited",
                retry_after=wait,
            ) from None

    async def token(
        self,
        form: Iterable[tuple[str, str]],
        *,
        authorization: str | None = None,
        peer: str = "",
    ) -> TokenAnswer:
        """Return the token endpoint's answer to a form; see ``grants`` for what may be asked.

        Args:
            form: Names and values, as ``urllib.parse.parse_qsl`` gives them.
            authorization: The request's header of this name.
            peer: Where the request came from, for slowing down who guesses.

        Raises:
            StateError: The records cannot be read or written.
        """
        await run_sync(self._keys.refresh)
        return await self._grants.answer(form, authorization, peer)

    async def sessions(self, principal: Principal) -> tuple[SessionInfo, ...]:
        """Return the caller's sessions, or the whole tenant's for who may see them."""
        subject = None if principal.may("sessions:read") else principal.subject
        return await self._book.read(
            partial(session_rows.list_sessions, tenant=principal.tenant, subject=subject)
        )

    async def revoke_session(self, principal: Principal, id: str) -> None:
        """Revoke a session of the caller's, or of anybody in the tenant for who may.

        Raises:
            CredentialNotFound: There is none that the caller may revoke.
        """
        if not id.startswith("ses_"):
            raise rows.not_found(id)
        subject = None if principal.may("sessions:write") else principal.subject
        await self.admin.revoke(id, tenant=principal.tenant, subject=subject)

    async def has_tenants(self) -> bool:
        """Return whether there is a tenant besides the operator's that was not shut."""
        found = await self.admin.tenants()
        return any(each.disabled_at is None for each in found if each.id != LOCAL_TENANT)

    async def wait_revoked(self, principal: Principal) -> None:
        """Return once what the caller proved themselves with is revoked, by whichever process.

        It takes at most half a second longer. For whom the operating system vouched it never
        returns; the end of a credential's own life is ``principal.expires_at``.
        """
        if principal.credential is None:
            await anyio.sleep_forever()
        seen = await self._book.revocations()
        while not await self._is_revoked(principal):
            seen = await self._book.revoked_since(seen)

    async def aclose(self) -> None:
        """Close the records; again is nothing."""
        await self._book.aclose()

    async def _by_key(self, secret: str) -> Principal:
        if not well_formed(Kind.API_KEY, secret):
            raise AuthenticationError(
                "this is no API key and no access token of this server, or was cut when it was "
                "copied; take it again from where it is kept"
            )
        kept = digest(self._keys.keys.pepper, Kind.API_KEY, secret)
        key = await self._book.read(partial(credential_rows.find_key, digest=kept))
        if key is None:
            raise AuthenticationError("this server has no such API key; ask its operator for one")
        if why := ended(key, self._clock()):
            raise AuthenticationError(
                f"the API key {key.id} was {why}; ask the server's operator for a new one"
                if why == "revoked"
                else f"the API key {key.id} has expired; ask the server's operator for a new one",
                reason=why,
            )
        await self._uses.note(key)
        return Principal(
            tenant=key.tenant,
            subject=key.subject,
            method="api_key",
            scopes=scopes_of(key.grants),
            expires_at=key.expires_at,
            credential=key.id,
        )

    async def _by_token(self, text: str) -> Principal:
        now = time.monotonic()
        if now - self._refreshed_at >= _LOOK_SECONDS:
            # Another process may have had a stolen key forgotten: what it signed still reads well.
            self._refreshed_at = now
            await run_sync(self._keys.refresh)
        try:
            claims = access_tokens.read(self._keys.keys, text, self._clock())
        except AuthenticationError:
            if not await self._rotated():
                raise
            claims = access_tokens.read(self._keys.keys, text, self._clock())
        principal = Principal(
            tenant=claims.tenant,
            subject=claims.subject,
            method="token",
            scopes=claims.scopes,
            expires_at=claims.expires_at,
            credential=claims.credential,
        )
        if await self._is_revoked(principal):
            raise AuthenticationError(
                f"what the access token was given to, {claims.credential}, was revoked; begin a "
                "new session",
                reason="revoked",
            )
        return principal

    async def _is_revoked(self, principal: Principal) -> bool:
        try:
            found = await self._book.read(
                partial(
                    rows.require_credential,
                    id=principal.credential or "",
                    tenant=principal.tenant,
                )
            )
        except CredentialNotFound:
            return True
        return found.revoked_at is not None

    async def _rotated(self) -> bool:
        """Look whether another process gave the server new keys, not too often."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_SECONDS:
            return False
        self._looked_at = now
        before = self._keys.keys
        return await run_sync(self._keys.refresh) is not before


def _made_of(folder: Path) -> tuple[Path, ...]:
    """The files by which a folder is a server's."""
    return folder / KEY_FILE, folder / DATABASE


def _bearer(authorization: str | None) -> str:
    """Return the secret of a header.

    Raises:
        AuthenticationError: It holds none.
    """
    if not authorization:
        raise AuthenticationError(
            "no credentials were sent: set api_key, or log in", reason="missing"
        )
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() != "bearer" or len(authorization) > LONGEST or not secret.isascii():
        raise AuthenticationError(
            "the header Authorization must be Bearer and an API key or access token"
        )
    return secret.strip()
