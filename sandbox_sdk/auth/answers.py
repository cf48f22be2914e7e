"""Answers of the token endpoint, read on the caller's side; all of them are a stranger's bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from sandbox_sdk.errors import AuthenticationError, ProtocolError

_LONGEST_TOKEN = 4096
_LONGEST_LIFE = 86400.0
_LONGEST_SAID = 200
_REASONS = {"invalid_client": "invalid", "invalid_grant": "revoked", "slow_down": "rate_limited"}


@attrs.frozen(kw_only=True)
class Tokens:
    """What the endpoint gave.

    Attributes:
        access_token: What is sent with calls.
        life: For how many seconds it is good.
        refresh_token: What gives the next ones, if it is a session.
        session_id: The session, if it is one.
    """

    access_token: str = attrs.field(repr=False)
    life: float
    refresh_token: str | None = attrs.field(default=None, repr=False)
    session_id: str | None = None


def read_tokens(status: int, body: object, secrets: Iterable[str]) -> Tokens:
    """Return the tokens of an answer.

    Args:
        status: The HTTP status.
        body: The JSON.
        secrets: What must not stand in an error's message, whatever the server says.

    Raises:
        AuthenticationError: It gave none; ``reason`` says why.
        ProtocolError: The answer is none of this protocol.
    """
    if status == 200:
        return _tokens(body)
    if 300 <= status < 400:
        raise AuthenticationError(
            "the server sends elsewhere who asks it for a token: credentials are sent to no other "
            "address; set endpoint to the server's own",
            reason="unavailable",
        )
    answer: Any = body  # JSON of any shape, looked at piece by piece
    match answer:
        case {"error": str() as error, **rest} if 400 <= status < 500:
            said = _said(rest.get("error_description"), secrets)
            raise AuthenticationError(
                f"the server gave no token ({_said(error, secrets)}): {said}",
                reason=_REASONS.get(error, "invalid"),
            )
        case _:
            raise AuthenticationError(
                f"the server gave no token: it answered with status {status}; look whether the "
                "endpoint is a Sandbox SDK server's, or try again later",
                reason="unavailable",
            )


def skew_of(date: str | None, now: float) -> float | None:
    """Return by how many seconds the server's clock is ahead of ours, ``None`` if it says nothing.

    Args:
        date: A header ``Date``, whose precision is a second.
        now: Seconds since the epoch by our clock.
    """
    # Imported on use: it costs more than all the rest here.
    from email.utils import parsedate_to_datetime

    try:
        skew = parsedate_to_datetime(date or "").timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None
    return 0.0 if abs(skew) < 2 else skew


# Any: as above.
def _tokens(body: Any) -> Tokens:
    match body:
        case {
            "access_token": str() as access,
            "token_type": str() as kind,
            "expires_in": int() | float() as life,
            **rest,
        } if kind.lower() == "bearer" and _is_token(access) and 0 < life <= _LONGEST_LIFE:
            others: list[Any] = [rest.get("refresh_token"), rest.get("session_id")]
            if all(other is None or _is_token(other) for other in others):
                refresh, session = others
                return Tokens(
                    access_token=access,
                    life=float(life),
                    refresh_token=refresh,
                    session_id=session,
                )
        case _:
            pass
    raise ProtocolError(
        "the server's answer holds no tokens as RFC 6749 has them; look whether the endpoint is a "
        "Sandbox SDK server's"
    )


def _is_token(value: object) -> bool:
    """Return whether a value can be sent in a header as it is."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= _LONGEST_TOKEN
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )


def _said(value: object, secrets: Iterable[str]) -> str:
    """Return a server's words as they can be shown: short, printable, and without secrets."""
    text = value if isinstance(value, str) else "no reason was given"
    for secret in secrets:
        text = text.replace(secret, "...")
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return shown[:_LONGEST_SAID]
