"""The caller's side of authentication: what is sent with every call, kept good by itself."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import anyio
import attrs
from anyio.to_thread import run_sync

from sandbox_sdk.auth.answers import Tokens, read_tokens, skew_of
from sandbox_sdk.auth.credentials import Credentials, Method
from sandbox_sdk.auth.endpoint import check_endpoint
from sandbox_sdk.auth.exchange import SESSION_GRANT, TOKEN_PATH, Post
from sandbox_sdk.auth.private_files import locked
from sandbox_sdk.auth.session_file import StoredSession, lock_of, read_session, write_session
from sandbox_sdk.auth.status import AuthStatus
from sandbox_sdk.config import Settings
from sandbox_sdk.errors import AuthenticationError, ConfigError, ProtocolError, SandboxError

RENEWED_AT = 0.8
"""The part of an access token's life after which another one is asked for."""

_LOCK_SECONDS = 60.0  # for a session's file, which a process holds while it asks the server
_PAUSE = 1.0  # seconds between two tries to renew a token that is still good


@attrs.frozen
class _Held:
    """An access token, and its life by a clock that is never set."""

    header: str = attrs.field(repr=False)
    renew_at: float
    ends_at: float


class Auth:
    """Proves to a server who calls: by an access token, an API key, a client or a session.

    Of several that are given the first is used, in this order: ``token``, ``api_key``,
    ``client_id`` with ``client_secret``, ``session``. A client's and a session's access tokens
    are renewed before they end, by one request however many calls wait for it. For use on one
    event loop. No secret is in its ``repr``, in errors or in logs.

    Args:
        auth_config: ``token``, ``api_key``, ``client_id``, ``client_secret``, and ``session``,
            the path of a session's file.
        monotonic: Seconds of a clock that is never set.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: Something is unknown, wrong or a placeholder; all faults at once.
    """

    def __init__(
        self,
        auth_config: Mapping[str, object] | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._credentials = Credentials.parse(auth_config or {})
        self._monotonic = monotonic
        self._clock = clock
        self._post: Post | None = None
        self._endpoint = ""
        self._skew = 0.0
        self._held: _Held | None = None
        self._renewing = anyio.Lock(fast_acquire=True)  # guards _held, _ended and _failure
        self._ended = 0  # requests for a token that have ended, well or not
        self._failure: Exception | None = None
        self._try_again_at = 0.0

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return what settings say.

        Raises:
            ConfigError: A value is wrong or a placeholder; all faults at once.
        """
        auth = cls()
        auth._credentials = Credentials.of(settings)
        return auth

    def __repr__(self) -> str:
        return f"<Auth {self.method or 'without credentials'}>"

    def __reduce__(self) -> str:
        raise TypeError("an Auth cannot be pickled: give the other process its own credentials")

    @property
    def method(self) -> Method | None:
        """What is used: ``token``, ``api_key``, ``client`` or ``session``; ``None`` is nothing."""
        return self._credentials.method

    @property
    def skew(self) -> float:
        """By how many seconds the server's clock is ahead of this machine's, as far as known."""
        return self._skew

    def bind(self, post: Post, endpoint: str) -> None:
        """Say how the server is reached; done by what speaks HTTP to it.

        Args:
            post: Sends a form to a path of the server.
            endpoint: The server's address.

        Raises:
            ConfigError: Credentials must not be sent to such an address.
        """
        self._endpoint = check_endpoint(endpoint).url
        self._post = post

    def learn_date(self, date: str | None) -> None:
        """Learn from an answer's header ``Date`` how far the clocks are apart."""
        skew = skew_of(date, self._clock())
        if skew is not None:
            self._skew = skew

    async def header(self) -> str | None:
        """Return what to send as ``Authorization``, ``None`` for nothing.

        Raises:
            AuthenticationError: The server gives no token for the credentials.
            SandboxError: It cannot be reached, or answers something else.
        """
        fixed = self._credentials.token or self._credentials.api_key
        if fixed is not None:
            return f"Bearer {fixed}"
        if self.method is None:
            return None
        held, now = self._held, self._monotonic()
        if held is not None and now < held.renew_at:
            return held.header
        alive = held is not None and now < held.ends_at
        if held is not None and alive and now < self._try_again_at:
            return held.header
        try:
            return await self._renewed(held)
        except (SandboxError, OSError):
            # What is still good is used to its end: the server may be back by then.
            if held is None or not alive:
                raise
            self._try_again_at = self._monotonic() + _PAUSE
            return held.header

    async def refused(self, header: str) -> str | None:
        """Return what to send instead of a header that was answered with 401, once.

        Args:
            header: What was sent.

        Returns:
            Another header; ``None`` if there is none, and the 401 is the caller's answer.

        Raises:
            AuthenticationError: The server gives no token for the credentials any more.
            SandboxError: It cannot be reached, or answers something else.
        """
        if self.method not in ("client", "session"):
            return None
        held = self._held
        if held is not None and held.header != header:
            return held.header  # renewed meanwhile, for another call
        return await self._renewed(held)

    async def begin_session(self, path: Path) -> str:
        """Begin a session with the API key, and return its id; ``session`` names it from then on.

        Args:
            path: The file to write it to, for this user alone.

        Raises:
            ConfigError: There is no API key.
            AuthenticationError: The server refuses it.
            StateError: The file cannot be written.
        """
        if self._credentials.api_key is None:
            line = "api_key: a session is begun with an API key; set it"
            raise ConfigError(line, faults=(line,))
        form = {"grant_type": SESSION_GRANT, "api_key": self._credentials.api_key}
        async with locked(lock_of(path), timeout=_LOCK_SECONDS):
            return (await self._store(path, await self._ask(form))).session_id

    def told(self, status: AuthStatus) -> AuthStatus:
        """Return who the server says one is, and by which of the credentials.

        Args:
            status: What the server answered.
        """
        names = {
            "token": "the access token",
            "api_key": "the API key",
            "client": "client_id and client_secret",
            "session": "the stored session",
            None: "the operating system's word",
        }
        used, *others = self._credentials.given or (None,)
        detail = ", ".join(filter(None, (status.detail, f"authenticated by {names[used]}")))
        if others:
            detail += f"; not used: {', '.join(names[other] for other in others)}"
        if abs(self._skew) > 60:
            detail += f"; this machine's clock is {self._skew:+.0f} s off the server's"
        return attrs.evolve(status, method=used or status.method, detail=detail)

    async def _renewed(self, stale: _Held | None) -> str:
        """Return the header of a token that is newer than a stale one, asking for it once."""
        seen = self._ended
        async with self._renewing:
            if self._held is not None and self._held is not stale:
                return self._held.header
            if self._ended != seen and self._failure is not None:
                # Whoever waited while it failed is answered with it too.
                raise copy.copy(self._failure)
            self._failure = None
            try:
                self._held = await self._fetch(stale)
            except (SandboxError, OSError) as error:
                self._failure = error
                raise
            finally:
                self._ended += 1
            return self._held.header

    async def _fetch(self, stale: _Held | None) -> _Held:
        if self._credentials.session is not None and self.method == "session":
            return await self._from_session(self._credentials.session, stale)
        began = self._monotonic()
        given = await self._ask(
            {
                "grant_type": "client_credentials",
                "client_id": self._credentials.client_id or "",
                "client_secret": self._credentials.client_secret or "",
            }
        )
        return _held(given.access_token, began, given.life, given.life)

    async def _from_session(self, path: Path, stale: _Held | None) -> _Held:
        """Take over what another process renewed, or renew it for all."""
        async with locked(lock_of(path), timeout=_LOCK_SECONDS):
            stored = await run_sync(read_session, path)
            if stored.endpoint != self._endpoint:
                raise AuthenticationError(
                    f"the session at {path} is of {stored.endpoint}, not of {self._endpoint}; "
                    "begin one there"
                )
            began = self._monotonic()
            left = stored.expires_at - (self._clock() + self._skew)
            taken = _held(stored.access_token, began, left, stored.life)
            # More than its whole life: a clock was set.
            if left <= stored.life and began < taken.renew_at and not _same(taken, stale):
                return taken
            form = {"grant_type": "refresh_token", "refresh_token": stored.refresh_token}
            given = await self._ask(form, stored.refresh_token)
            new = await self._store(path, given)
            return _held(new.access_token, began, given.life, given.life)

    async def _store(self, path: Path, given: Tokens) -> StoredSession:
        if given.refresh_token is None or given.session_id is None:
            raise ProtocolError("the server's answer holds no session; it may be of another kind")
        session = StoredSession(
            endpoint=self._endpoint,
            session_id=given.session_id,
            refresh_token=given.refresh_token,
            access_token=given.access_token,
            expires_at=self._clock() + self._skew + given.life,
            life=given.life,
        )
        # The token before is used up: to be cancelled now would lose the session.
        with anyio.CancelScope(shield=True):
            await run_sync(write_session, path, session)
        return session

    async def _ask(self, form: Mapping[str, str], *secrets: str) -> Tokens:
        if self._post is None:
            raise AuthenticationError(
                "no server is known to ask for a token; set endpoint", reason="unavailable"
            )
        status, body, date = await self._post(TOKEN_PATH, form)
        self.learn_date(date)
        return read_tokens(status, body, (*self._credentials.secrets, *secrets))


def _held(access_token: str, began: float, left: float, life: float) -> _Held:
    return _Held(
        header=f"Bearer {access_token}",
        renew_at=began + left - life * (1 - RENEWED_AT),
        ends_at=began + left,
    )


def _same(taken: _Held, stale: _Held | None) -> bool:
    return stale is not None and taken.header == stale.header
