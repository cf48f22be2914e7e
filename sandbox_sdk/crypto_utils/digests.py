"""Digests that tell nothing to whoever has no key or salt."""

from __future__ import annotations

import hashlib
import hmac
import secrets

import attrs

_SALT_BYTES = 32


def keyed_digest(key: bytes, data: bytes, *, purpose: bytes) -> bytes:
    """Return the BLAKE2b-256 of data under a key.

    Equal data has equal digests under one key, and without it nobody can try what the data was.

    Args:
        key: 16 to 64 bytes.
        data: The data.
        purpose: A word of at most 16 bytes; the digests of two purposes are unrelated.
    """
    return hashlib.blake2b(data, digest_size=32, key=key, person=purpose).digest()


@attrs.frozen(kw_only=True)
class Commitment:
    """A promise about data that is not shown: the digest is for others, the salt stays here.

    Attributes:
        digest: Tells nothing about the data to whoever has no salt.
        salt: Shown with the data, proves that the digest is of this data.
    """

    digest: bytes = attrs.field(repr=bytes.hex)
    salt: bytes = attrs.field(repr=False)

    @classmethod
    def to(cls, data: bytes) -> Commitment:
        """Return a new commitment to data."""
        salt = secrets.token_bytes(_SALT_BYTES)
        return cls(digest=keyed_digest(salt, data, purpose=b"sbx.commitment"), salt=salt)

    def opens(self, data: bytes) -> bool:
        """Return whether this is a commitment to that data."""
        again = keyed_digest(self.salt, data, purpose=b"sbx.commitment")
        return hmac.compare_digest(again, self.digest)
