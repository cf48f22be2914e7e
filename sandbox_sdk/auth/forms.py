"""Forms sent to the token endpoint, and how it says no.

Source: RFC 6749, sections 2.3.1 and 5.2.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from urllib.parse import unquote_plus

import attrs

LONGEST = 4096
"""Characters of the longest value, and of the longest header, that are looked at."""


@attrs.frozen(kw_only=True)
class Form:
    """What was asked for; a value that was not given is empty.

    Attributes:
        grant_type: How tokens are asked for.
        scope: Which scopes, separated by spaces; ``None`` is all that there are.
        client_id: Who asks, for ``client_credentials``.
        client_secret: The client's secret.
        api_key: The key that begins a session.
        refresh_token: The token that continues one.
    """

    grant_type: str
    scope: str | None = None
    client_id: str = ""
    client_secret: str = attrs.field(default="", repr=False)
    api_key: str = attrs.field(default="", repr=False)
    refresh_token: str = attrs.field(default="", repr=False)


class Refused(Exception):
    """The token endpoint's no; it ends as an answer, and never leaves ``auth``.

    Args:
        error: A word of RFC 6749.
        description: What happened, and what to do.
        status: The HTTP status.
        guessed: Whether a secret was wrong, which may be a guess.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        error: str,
        description: str,
        *,
        status: int = 400,
        guessed: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.guessed = guessed
        self.headers = headers or {}
        self.body: dict[str, object] = {"error": error, "error_description": description}


def invalid_client(why: str = "the credentials are not good", *, guessed: bool = False) -> Refused:
    """Return the refusal of a client or API key; the caller raises it."""
    return Refused(
        "invalid_client",
        why,
        status=401,
        guessed=guessed,
        headers={"WWW-Authenticate": 'Basic realm="sandbox-sdk"'},
    )


def too_many(wait: float) -> Refused:
    """Return the refusal of who failed too often."""
    seconds = math.ceil(wait)
    return Refused(
        "slow_down",
        f"too many wrong credentials came from there; try again in {seconds} s",
        status=429,
        headers={"Retry-After": str(seconds)},
    )


def read(pairs: Iterable[tuple[str, str]], authorization: str | None) -> Form:
    """Return what a form asks for, credentials from the header included.

    Raises:
        Refused: A name stands there twice, a value is missing or too long, or credentials were
            sent in two ways.
    """
    known = {field.name for field in attrs.fields(Form)}
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known or not value:  # RFC 6749, 3.2: as if they were not there
            continue
        if name in found:
            raise Refused("invalid_request", f"{name} stands in the form twice")
        if len(value) > LONGEST:
            raise Refused("invalid_request", f"{name} is longer than {LONGEST} characters")
        found[name] = value
    given = _from_header(authorization) if authorization else {}
    if given and found.keys() & {"client_id", "client_secret", "api_key"}:
        raise Refused(
            "invalid_request", "credentials stand in the form and in the header: send one"
        )
    found |= given
    if "grant_type" not in found:
        raise Refused("invalid_request", "grant_type is missing")
    return Form(**found)


def _from_header(authorization: str) -> dict[str, str]:
    """Return the credentials of a header: a client's as Basic, an API key as Bearer."""
    scheme, _, value = authorization.partition(" ")
    if len(authorization) > LONGEST:
        raise Refused("invalid_request", f"Authorization is longer than {LONGEST} characters")
    if scheme.lower() == "bearer":
        return {"api_key": value.strip()}
    client, colon, secret = _decoded(value if scheme.lower() == "basic" else "").partition(":")
    if not colon:
        raise invalid_client("Authorization holds no credentials: send Basic or Bearer")
    return {"client_id": unquote_plus(client), "client_secret": unquote_plus(secret)}


def _decoded(value: str) -> str:
    """Return what base64 holds; nothing if it is none."""
    try:
        return base64.b64decode(value.strip(), validate=True).decode()
    except ValueError:
        return ""
