"""Signed tokens in the format PASETO v4.public: a payload that all can read and one key can sign.

There is one algorithm, Ed25519, and no field that chooses another. Source: the PASETO
specification, version 4.
"""

from __future__ import annotations

import base64
import re
from typing import Self

import attrs

from sandbox_sdk.crypto_utils import sodium
from sandbox_sdk.crypto_utils.keys import SigningKey, VerifyKey
from sandbox_sdk.errors import IntegrityError

HEADER = "v4.public."
"""What every such token begins with."""

LARGEST = 4096
"""Characters of the longest token that is looked at; one of ours has some 600."""

_BASE64 = re.compile(r"[A-Za-z0-9_-]*")


@attrs.frozen(kw_only=True)
class SignedToken:
    """What a token says, before anything of it is believed.

    Attributes:
        payload: What was signed.
        footer: What was signed too, for the verifier to find the key by.
        signature: The Ed25519 signature.
    """

    payload: bytes = attrs.field(repr=False)
    footer: bytes
    signature: bytes = attrs.field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a token's text holds; every token has one text only.

        Raises:
            IntegrityError: It is no v4.public token.
        """
        try:
            return cls._parse(text)
        except ValueError:
            raise IntegrityError("this is no v4.public token, or it was changed") from None

    @classmethod
    def _parse(cls, text: str) -> Self:
        if len(text) > LARGEST or not text.startswith(HEADER):
            raise ValueError
        body, dot, footer = text.removeprefix(HEADER).partition(".")
        data = _decoded(body)
        if len(data) <= sodium.SIGNATURE_BYTES or (dot and not footer):
            raise ValueError
        return cls(
            payload=data[: -sodium.SIGNATURE_BYTES],
            footer=_decoded(footer),
            signature=data[-sodium.SIGNATURE_BYTES :],
        )

    def verify(self, key: VerifyKey, *, implicit: bytes = b"") -> bool:
        """Return whether the key signed this payload and footer.

        Args:
            key: The public key.
            implicit: What was signed beside them and is not in the token.
        """
        return key.verify(_encoded_parts(self.payload, self.footer, implicit), self.signature)


def sign_token(
    key: SigningKey, payload: bytes, *, footer: bytes = b"", implicit: bytes = b""
) -> str:
    """Return a token that holds a payload and, in clear as well, a footer.

    Args:
        key: The key.
        payload: JSON, by the specification.
        footer: Which key it is, for example.
        implicit: What the verifier must know by itself; it is signed and not in the token.
    """
    signature = key.sign(_encoded_parts(payload, footer, implicit))
    text = HEADER + _base64(payload + signature)
    return f"{text}.{_base64(footer)}" if footer else text


def _encoded_parts(payload: bytes, footer: bytes, implicit: bytes) -> bytes:
    """Return the parts with their lengths, so that no two lists of parts are the same bytes."""
    parts = (HEADER.encode(), payload, footer, implicit)
    return _length(len(parts)) + b"".join(_length(len(part)) + part for part in parts)


def _length(number: int) -> bytes:
    # The specification keeps the highest bit free, which no length here comes near.
    return number.to_bytes(8, "little")


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    # urlsafe_b64decode passes over what is no letter of its alphabet.
    if not _BASE64.fullmatch(text):
        raise ValueError
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    # The last letter has bits to spare, so that several texts would be one token.
    if _base64(data) != text:
        raise ValueError
    return data
