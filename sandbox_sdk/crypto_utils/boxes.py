"""Messages that anybody can seal to a public key, and only its private half opens.

The key is fresh for each message (libsodium's sealed box: X25519, XSalsa20-Poly1305). Nothing
proves who sealed it: sign the message where that matters.
"""

from __future__ import annotations

import base64
from typing import Self, final

import attrs

from sandbox_sdk.crypto_utils import sodium
from sandbox_sdk.crypto_utils.secret import KEY_BYTES, RandomKey
from sandbox_sdk.errors import ConfigError

_PREFIX = "sbxp1_"


@attrs.frozen
class PublicKey:
    """Where messages can be sealed to.

    Attributes:
        data: Its 32 bytes.
    """

    data: bytes = attrs.field(validator=attrs.validators.instance_of(bytes), repr=bytes.hex)

    def to_text(self) -> str:
        """Return the key as text, which anybody may see."""
        return _PREFIX + base64.b32encode(self.data).decode().rstrip("=").lower()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that ``to_text()`` wrote.

        Raises:
            ConfigError: It is none.
        """
        written = text.strip()
        if written.startswith(_PREFIX):
            body = written.removeprefix(_PREFIX).upper()
            try:
                key = cls(base64.b32decode(body + "=" * (-len(body) % 8)))
            except ValueError:
                key = None
            if key and len(key.data) == KEY_BYTES and key.to_text() == written:
                return key
        line = f'public key: a text that begins with "{_PREFIX}" is needed, and this is none'
        raise ConfigError(line, faults=(line,))


@final
class PrivateKey(RandomKey):
    """Opens what was sealed to its public half; an X25519 key."""

    __slots__ = ()

    @property
    def public(self) -> PublicKey:
        """The half to which others seal."""
        return PublicKey(sodium.box_public(self.reveal()))


def seal_to(recipient: PublicKey, message: bytes) -> bytes:
    """Return a message sealed to a public key.

    Raises:
        IntegrityError: The key is none.
    """
    return sodium.box_seal(message, recipient.data)


def unseal_with(key: PrivateKey, sealed: bytes) -> bytes:
    """Return the message that was sealed to this key's public half.

    Raises:
        IntegrityError: It was changed, or is for another key.
    """
    return sodium.box_open(sealed, key.public.data, key.reveal())
