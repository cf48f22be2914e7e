"""The texts of long-lived secrets: a prefix, 32 random bytes, and a checksum.

    sbx_    an API key
    sbxs_   a client's secret
    sbxr_   a refresh token, good for one use

By prefix and checksum secret scanners find one that leaked, and a cut or mistyped one is refused
before anything is looked up. What a server keeps of one is its digest under the server's pepper:
256 random bits need no slow hash, which would be a way to overload the server.
"""

from __future__ import annotations

import base64
import re
import secrets
import zlib
from enum import StrEnum
from typing import final

from sandbox_sdk.crypto_utils.digests import keyed_digest
from sandbox_sdk.crypto_utils.secret import KEY_BYTES, RandomKey

_LETTERS = re.compile(r"[a-z2-7]{52}_[a-z2-7]{7}")


class Kind(StrEnum):
    """What a secret is for, by its prefix."""

    API_KEY = "sbx_"
    CLIENT_SECRET = "sbxs_"  # noqa: S105 - a prefix
    REFRESH_TOKEN = "sbxr_"  # noqa: S105 - a prefix


_PURPOSE = {
    Kind.API_KEY: b"sbx.apikey",
    Kind.CLIENT_SECRET: b"sbx.client",
    Kind.REFRESH_TOKEN: b"sbx.refresh",
}


@final
class Pepper(RandomKey):
    """The server's key of digests: without it, a copy of the database tells nothing of secrets."""

    __slots__ = ()


def new_secret(kind: Kind) -> str:
    """Return a new secret of a kind; it is shown once and kept by nobody but its holder."""
    return _text(kind, secrets.token_bytes(KEY_BYTES))


def well_formed(kind: Kind, text: str) -> bool:
    """Return whether a text may be a secret of that kind, by its form and checksum alone."""
    body = text.removeprefix(kind)
    # One text per secret: 52 letters have 4 bits to spare.
    return (
        text.startswith(kind)
        and _LETTERS.fullmatch(body) is not None
        and body[51] in "aq"
        and body[53:] == _checksum(kind + body[:52])
    )


def digest(pepper: Pepper, kind: Kind, text: str) -> str:
    """Return what is kept of a secret: 64 hexadecimal digits, equal for equal secrets only.

    A secret is looked up by it. Whoever tries secrets cannot choose a digest, so that the time
    which the look-up takes tells them nothing.
    """
    return keyed_digest(pepper.reveal(), text.encode(), purpose=_PURPOSE[kind]).hex()


def successor(pepper: Pepper, refresh_token: str) -> str:
    """Return the refresh token that follows one: always the same, and nobody else can tell it."""
    following = keyed_digest(pepper.reveal(), refresh_token.encode(), purpose=b"sbx.successor")
    return _text(Kind.REFRESH_TOKEN, following)


def _text(kind: Kind, data: bytes) -> str:
    body = kind + base64.b32encode(data).decode().rstrip("=").lower()
    return f"{body}_{_checksum(body)}"


def _checksum(body: str) -> str:
    crc = zlib.crc32(body.encode()).to_bytes(4, "big")
    return base64.b32encode(crc).decode().rstrip("=").lower()
