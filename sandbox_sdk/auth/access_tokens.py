"""Access tokens: PASETO v4.public, good for ten minutes, and what they must say to be accepted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from sandbox_sdk.auth.server_keys import ServerKeys
from sandbox_sdk.crypto_utils.paseto import HEADER, SignedToken, sign_token
from sandbox_sdk.errors import AuthenticationError, IntegrityError
from sandbox_sdk.values import new_id

LIFE = 600
"""Seconds for which a token is good."""

LEEWAY = 5
"""Seconds by which a token may come from the future: clocks are set back a little at times."""

AUDIENCE = "sandbox-sdk"
"""Whom the tokens are for."""

# Signed and not sent: a token that this key signed for something else is none of these.
_IMPLICIT = b"sandbox-sdk-access@v1"
_FOOTER = re.compile(rb'\{"kid":"([0-9a-f]{16})"\}')
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", re.ASCII)


@attrs.frozen(kw_only=True)
class Claims:
    """What an access token says.

    Attributes:
        subject: Who it is within the tenant.
        tenant: Whose sandboxes these are.
        scopes: What its holder may do.
        credential: The session or client that it was given to.
        issued_at: When it was made, in whole seconds since the epoch.
        expires_at: When it ends, in whole seconds since the epoch.
        id: Its own id.
    """

    subject: str
    tenant: str
    scopes: frozenset[str]
    credential: str
    issued_at: int
    expires_at: int
    id: str = attrs.field(factory=lambda: new_id("tok"))


def issue(keys: ServerKeys, claims: Claims) -> str:
    """Return the token that says this, signed with the newest key."""
    start, end = _time(claims.issued_at), _time(claims.expires_at)
    payload = {
        "iss": keys.issuer,
        "sub": claims.subject,
        "aud": AUDIENCE,
        "exp": end,
        "nbf": start,
        "iat": start,
        "jti": claims.id,
        "tenant": claims.tenant,
        "scopes": sorted(claims.scopes),
        "sid": claims.credential,
    }
    text = json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
    footer = f'{{"kid":"{keys.signer.id}"}}'.encode()
    return sign_token(keys.signer, text.encode(), footer=footer, implicit=_IMPLICIT)


def is_access_token(text: str) -> bool:
    """Return whether a text is meant as such a token."""
    return text.startswith(HEADER)


def read(keys: ServerKeys, text: str, now: float) -> Claims:
    """Return what a token says; nothing of it is looked at before its signature was found good.

    Raises:
        AuthenticationError: It is none of this server's, or it has expired.
    """
    try:
        token = SignedToken.parse(text)
        claims = _verified(keys, token)
    except (IntegrityError, ValueError, KeyError, TypeError, RecursionError):
        raise AuthenticationError(
            "the access token is none of this server's, or it was changed; get a new one"
        ) from None
    if claims.expires_at <= now:
        raise AuthenticationError("the access token has expired; get a new one", reason="expired")
    if claims.issued_at > now + LEEWAY:
        raise AuthenticationError("the access token is not valid yet; look at the server's clock")
    return claims


def _verified(keys: ServerKeys, token: SignedToken) -> Claims:
    """Return the claims of a token that was signed here.

    Raises:
        ValueError: It was not, or says what no token of ours says.
    """
    footer = _FOOTER.fullmatch(token.footer)
    key = keys.public_key(footer[1].decode()) if footer else None
    if footer is None or key is None or not token.verify(key, implicit=_IMPLICIT):
        raise ValueError
    data: Any = json.loads(token.payload, object_pairs_hook=_once)
    claims = _claims(data, keys.issuer)
    if not keys.signed(footer[1].decode(), claims.issued_at):
        raise ValueError
    return claims


def _claims(data: Mapping[str, Any], issuer: str) -> Claims:
    match data:
        case {
            "iss": str() as said,
            "sub": str() as subject,
            "aud": str() as audience,
            "exp": str() as end,
            "nbf": str() as begin,
            "iat": str() as start,
            "jti": str() as id,
            "tenant": str() as tenant,
            "scopes": [*scopes],
            "sid": str() as credential,
            **others,
        } if not others and said == issuer and audience == AUDIENCE and begin == start:
            issued_at, expires_at = _seconds(start), _seconds(end)
            if not 0 < expires_at - issued_at <= LIFE or not (subject and tenant and id):
                raise ValueError
            return Claims(
                subject=subject,
                tenant=tenant,
                scopes=frozenset(_text(scope) for scope in scopes),
                credential=credential,
                issued_at=issued_at,
                expires_at=expires_at,
                id=id,
            )
        case _:
            raise ValueError


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON in which every name stands once."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _seconds(text: str) -> int:
    if not _TIME.fullmatch(text):
        raise ValueError
    return int(datetime.fromisoformat(text).timestamp())
