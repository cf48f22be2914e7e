"""The kinds of keys: a master, what it wraps, signing and receiving pairs, and their texts.

    MasterKey ── subkey("wrap") ──► wraps DataKey, SigningKey, PrivateKey (random, one per purpose)

A key that is stored is random and wrapped by a subkey of the master, so that another master needs
new wrappings and no new data.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from itertools import pairwise
from typing import Self, final

import attrs

from sandbox_sdk.crypto_utils import sodium
from sandbox_sdk.crypto_utils.secret import KEY_BYTES, RandomKey, Secret
from sandbox_sdk.errors import ConfigError

PREFIX = "sbxk1_"
"""What the text of a master key begins with, for people and secret scanners."""

_SSH_TYPE = b"ssh-ed25519"
_PERSON_BYTES = 8


@final
class SubKey(Secret):
    """What a master key yields for one purpose."""

    __slots__ = ()


@final
class DataKey(RandomKey):
    """Seals records, streams and files, of one sandbox or one purpose."""

    __slots__ = ()


@final
class MasterKey(RandomKey):
    """The key from which, or under which, all others are had."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that ``to_text()`` wrote; case does not matter.

        Raises:
            ConfigError: It is none, or has a typing mistake, which its checksum finds.
        """
        written = text.strip().lower()
        body, _, checksum = written.removeprefix(PREFIX).partition("_")
        if written.startswith(PREFIX) and checksum == _checksum(body):
            try:
                data = base64.b32decode(body.upper() + "====")
            except ValueError:
                data = b""
            # The last letter has bits to spare, so that several texts would be one key.
            if len(data) == KEY_BYTES and _base32(data) == body:
                return cls(data)
        line = (
            f'encryption_key: begins with "{PREFIX}" but its checksum is wrong: it was changed or '
            "cut when it was copied; take it again from where it is kept"
        )
        raise ConfigError(line, faults=(line,))

    def to_text(self) -> str:
        """Return the key as text, to be kept somewhere safe: it shows the key."""
        body = _base32(self.reveal())
        return f"{PREFIX}{body}_{_checksum(body)}"

    def subkey(self, purpose: str, number: int = 0) -> SubKey:
        """Return the key for one purpose, as libsodium's ``crypto_kdf_blake2b`` does.

        Args:
            purpose: A word of at most eight bytes.
            number: Which of that purpose's keys.
        """
        person = purpose.encode()
        if len(person) > _PERSON_BYTES:
            raise ValueError(f"a purpose has at most {_PERSON_BYTES} bytes, {purpose!r} has more")
        derived = hashlib.blake2b(
            b"",
            digest_size=KEY_BYTES,
            key=self.reveal(),
            salt=number.to_bytes(8, "little"),
            person=person,
        )
        return SubKey(derived.digest())


@attrs.frozen
class VerifyKey:
    """The public half of a ``SigningKey``.

    Attributes:
        data: Its 32 bytes.
    """

    data: bytes = attrs.field(validator=attrs.validators.instance_of(bytes), repr=bytes.hex)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Return whether the signature is this key's of this message."""
        return len(self.data) == KEY_BYTES and sodium.verify(message, signature, self.data)

    @property
    def ssh_blob(self) -> bytes:
        """The key in the binary form of SSH. Source: RFC 8709, section 4."""
        return ssh_string(_SSH_TYPE) + ssh_string(self.data)

    @property
    def fingerprint(self) -> str:
        """The key's SHA-256 as ``ssh-keygen -l`` shows it."""
        return "SHA256:" + _base64(hashlib.sha256(self.ssh_blob).digest()).rstrip("=")

    def to_text(self) -> str:
        """Return the key as a line of an SSH public key file."""
        return f"{_SSH_TYPE.decode()} {_base64(self.ssh_blob)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the Ed25519 key of a line of ``authorized_keys``, ``allowed_signers`` or ``.pub``.

        Raises:
            ConfigError: The line holds none.
        """
        words = text.split()
        for kind, blob in pairwise(words):
            if kind == _SSH_TYPE.decode():
                try:
                    data = base64.b64decode(blob, validate=True)[-KEY_BYTES:]
                except ValueError:
                    break
                key = cls(data)
                if blob == _base64(key.ssh_blob):
                    return key
        line = 'public key: a line such as "ssh-ed25519 AAAA..." is needed, and this is none'
        raise ConfigError(line, faults=(line,))


@final
class SigningKey(RandomKey):
    """Signs; an Ed25519 seed."""

    __slots__ = ()

    @property
    def public(self) -> VerifyKey:
        """The half by which others verify."""
        return VerifyKey(sodium.sign_public(self.reveal()))

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message, 64 bytes, the same each time."""
        return sodium.sign(message, self.reveal())


def ssh_string(data: bytes) -> bytes:
    """Return bytes with their length before them. Source: RFC 4251, section 5."""
    return len(data).to_bytes(4, "big") + data


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _checksum(body: str) -> str:
    return _base32(zlib.crc32((PREFIX + body).encode()).to_bytes(4, "big"))
