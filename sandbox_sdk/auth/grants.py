"""Answers of the token endpoint: what is asked for in a form, and what RFC 6749 says to answer.

    client_credentials                  client id and secret -> access token, no refresh token
    refresh_token                       refresh token -> access token and the next refresh token
    urn:sandbox-sdk:grant-type:session  API key -> the first two of a new session

Source: RFC 6749, sections 2.3.1, 4.4, 4.5, 5 and 6.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

import attrs

from sandbox_sdk.auth import access_tokens, credential_rows, forms, session_rows
from sandbox_sdk.auth.access_tokens import LIFE, Claims
from sandbox_sdk.auth.book import Book
from sandbox_sdk.auth.exchange import SESSION_GRANT
from sandbox_sdk.auth.forms import Form, Refused
from sandbox_sdk.auth.limiter import FailureLimiter
from sandbox_sdk.auth.records import ClientInfo, KeyInfo, SessionInfo, ended
from sandbox_sdk.auth.scopes import narrowed, scopes_of
from sandbox_sdk.auth.secret_texts import Kind, digest, new_secret, well_formed
from sandbox_sdk.auth.server_keys import LiveKeys
from sandbox_sdk.auth.uses import Uses
from sandbox_sdk.values import new_id

_log = logging.getLogger("sandbox_sdk.auth")

T = TypeVar("T", KeyInfo, ClientInfo)

_WHY = {
    "good": "",
    "unknown": "no session has this refresh token",
    "expired": "the session has expired; begin a new one",
    "revoked": "the session was revoked; begin a new one",
    "reused": "the refresh token was used before, and so the session was revoked: somebody may "
    "have a copy of it; begin a new one",
}


@attrs.frozen(kw_only=True)
class TokenAnswer:
    """What the token endpoint answers, for whatever speaks HTTP to send as it is.

    Attributes:
        status: The HTTP status.
        body: The JSON object.
        headers: Headers that must go with it.
    """

    status: int
    body: Mapping[str, object] = attrs.field(repr=False)
    headers: Mapping[str, str]


class Grants:
    """Gives out tokens.

    Args:
        book: The database.
        keys: The server's keys.
        limiter: Slows down who fails.
        uses: Notes who was given a token.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        book: Book,
        keys: LiveKeys,
        limiter: FailureLimiter,
        uses: Uses,
        clock: Callable[[], float],
    ) -> None:
        self._book = book
        self._keys = keys
        self._limiter = limiter
        self._uses = uses
        self._clock = clock

    async def answer(
        self, pairs: Iterable[tuple[str, str]], authorization: str | None, peer: str
    ) -> TokenAnswer:
        """Return the answer to a form.

        Args:
            pairs: Names and values as the form has them, repeated ones as well.
            authorization: The request's header of this name.
            peer: Where the request came from.
        """
        headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
        try:
            form = forms.read(pairs, authorization)
            body = await self._granted(form)
        except Refused as refused:
            wait = self._limiter.failed(peer) if refused.guessed else None
            if wait is not None:
                refused = forms.too_many(wait)
            return TokenAnswer(
                status=refused.status, body=refused.body, headers=headers | refused.headers
            )
        return TokenAnswer(status=200, body=body, headers=headers)

    async def _granted(self, form: Form) -> dict[str, object]:
        match form.grant_type:
            case "client_credentials":
                return await self._to_client(form)
            case "refresh_token":
                return await self._to_session(form)
            case grant if grant == SESSION_GRANT:
                return await self._begin(form)
            case _:
                raise Refused(
                    "unsupported_grant_type",
                    f"grant_type must be client_credentials, refresh_token or {SESSION_GRANT}",
                )

    async def _to_client(self, form: Form) -> dict[str, object]:
        kept = digest(self._keys.keys.pepper, Kind.CLIENT_SECRET, form.client_secret)
        find = partial(credential_rows.find_client, id=form.client_id, digest=kept)
        client = self._require_good(await self._book.read(find))
        await self._uses.note(client)
        return self._token(client, form, client.expires_at)

    async def _begin(self, form: Form) -> dict[str, object]:
        kept = digest(self._keys.keys.pepper, Kind.API_KEY, form.api_key)
        find = partial(credential_rows.find_key, digest=kept)
        key = self._require_good(await self._book.read(find))
        await self._uses.note(key)
        now = self._clock()
        ends = now + session_rows.LONGEST
        session = SessionInfo(
            id=new_id("ses"),
            tenant=key.tenant,
            subject=key.subject,
            grants=tuple(sorted(self._scopes(key.grants, form))),
            key=key.id,
            created_at=now,
            expires_at=ends if key.expires_at is None else min(ends, key.expires_at),
        )
        first = new_secret(Kind.REFRESH_TOKEN)
        kept = digest(self._keys.keys.pepper, Kind.REFRESH_TOKEN, first)
        # The key may have been revoked since it was looked up: the rows are the last word.
        if not await self._book.write(
            partial(session_rows.insert_session, info=session, refresh_digest=kept)
        ):
            raise forms.invalid_client()
        return self._token(session, form, session.expires_at, first)

    async def _to_session(self, form: Form) -> dict[str, object]:
        if not well_formed(Kind.REFRESH_TOKEN, form.refresh_token):
            raise Refused("invalid_grant", "this is no refresh token", guessed=True)
        took = await self._book.write(
            partial(
                session_rows.refresh,
                pepper=self._keys.keys.pepper,
                refresh_token=form.refresh_token,
                now=self._clock(),
            )
        )
        if took.outcome == "reused" and took.session is not None:
            _log.warning("auth.refresh_token_reused", extra={"session": took.session.id})
        if took.outcome != "good" or took.session is None:
            raise Refused("invalid_grant", _WHY[took.outcome], guessed=took.outcome == "unknown")
        return self._token(took.session, form, took.session.expires_at, took.refresh_token)

    def _token(
        self,
        to: KeyInfo | ClientInfo | SessionInfo,
        form: Form,
        ends: float | None,
        refresh_token: str | None = None,
    ) -> dict[str, object]:
        """Return the body of a success: an access token for a client or session."""
        now = int(self._clock())
        claims = Claims(
            subject=to.subject,
            tenant=to.tenant,
            scopes=self._scopes(to.grants, form),
            credential=to.id,
            issued_at=now,
            expires_at=now + LIFE if ends is None else min(now + LIFE, int(ends)),
        )
        if claims.expires_at <= now:
            raise Refused("invalid_grant", _WHY["expired"])
        body: dict[str, object] = {
            "access_token": access_tokens.issue(self._keys.keys, claims),
            "token_type": "Bearer",
            "expires_in": claims.expires_at - now,
            "scope": " ".join(sorted(claims.scopes)),
        }
        if refresh_token is not None:
            body |= {"refresh_token": refresh_token, "session_id": to.id}
        return body

    def _scopes(self, grants: Iterable[str], form: Form) -> frozenset[str]:
        held = scopes_of(grants)
        if form.scope is None:
            return held
        found = narrowed(held, form.scope.split())
        if not found:
            raise Refused("invalid_scope", f"at most these may be asked for: {' '.join(held)}")
        return found

    def _require_good(self, found: T | None) -> T:
        """Return a key or client that may be given tokens; a whole second must be left to it."""
        if found is None:
            raise forms.invalid_client(guessed=True)
        why = ended(found, self._clock() + 1)
        if why is not None:
            raise forms.invalid_client(f"the credentials were good once, and {why} since")
        return found
