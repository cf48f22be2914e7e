"""Records: bytes sealed under a key to a place, so that they open there and nowhere else.

    SBX1 | algorithm 1 | key id 8 | nonce 24 | commitment 32 | ciphertext | tag 16

Each record has a key of its own: ``BLAKE2b-512(key, nonce)`` is its XChaCha20-Poly1305 key and a
commitment to it. Without the commitment one ciphertext could be made that opens under two keys.
Associated data is all before the nonce and the label, each part with its length before it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

import attrs

from sandbox_sdk.crypto_utils import sodium
from sandbox_sdk.crypto_utils.secret import Secret
from sandbox_sdk.errors import IntegrityError

MAGIC = b"SBX1"
_ALGORITHM = b"\x01"
_START = len(MAGIC + _ALGORITHM)
_NONCE_AT = _START + 8
_COMMITMENT_AT = _NONCE_AT + sodium.NONCE_BYTES
_SEALED_AT = _COMMITMENT_AT + 32

OVERHEAD = _SEALED_AT + sodium.TAG_BYTES
"""How many bytes longer than its content a record is."""


@attrs.frozen(kw_only=True)
class Label:
    """Where sealed bytes belong. They open only with the label they were sealed with.

    Attributes:
        tenant: Whose they are; on one's own machine ``local``.
        sandbox: The sandbox's id, where they are of one.
        type: What they are, for example ``event``.
        id: Which one of that type.
        version: Which state of it, so that an older one is not taken for a newer.
    """

    type: str = "data"
    id: str = ""
    version: int = 1
    sandbox: str = ""
    tenant: str = "local"

    def encode(self) -> bytes:
        """Return the label as bytes that no other label has."""
        texts = (self.tenant, self.sandbox, self.type, self.id)
        # Names of files need not be Unicode; Python keeps their odd bytes as surrogates.
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]
        parts.append(self.version.to_bytes(8, "big"))
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def seal(key: Secret, data: bytes, label: Label | None = None) -> bytes:
    """Return data sealed under a key to a label.

    Args:
        key: A ``DataKey``.
        data: The data, of any length; 64 KiB take about 0.05 ms, more is better a stream.
        label: Where it belongs; by default nowhere in particular.
    """
    start = MAGIC + _ALGORITHM + key.id_bytes
    nonce = secrets.token_bytes(sodium.NONCE_BYTES)
    own, commitment = _derive(key, nonce)
    associated = start + (label or Label()).encode()
    return start + nonce + commitment + sodium.aead_encrypt(data, associated, nonce, own)


def unseal(key: Secret, sealed: bytes, label: Label | None = None) -> bytes:
    """Return the data that was sealed under this key to this label.

    Raises:
        IntegrityError: It was changed, belongs elsewhere, or was sealed under another key.
    """
    if len(sealed) < OVERHEAD or not sealed.startswith(MAGIC + _ALGORITHM):
        raise IntegrityError("these bytes are no sealed record, or were cut short")
    if (other := record_key_id(sealed)) != key.id:
        raise IntegrityError(f"the record was sealed under the key {other}, and this is {key.id}")
    nonce = sealed[_NONCE_AT:_COMMITMENT_AT]
    own, commitment = _derive(key, nonce)
    if not hmac.compare_digest(commitment, sealed[_COMMITMENT_AT:_SEALED_AT]):
        raise IntegrityError("the record was changed, or its key is another of the same id")
    associated = sealed[:_NONCE_AT] + (label or Label()).encode()
    return sodium.aead_decrypt(sealed[_SEALED_AT:], associated, nonce, own)


def is_sealed(data: bytes) -> bool:
    """Return whether data looks like a record; what opens it is for ``unseal`` to find."""
    return len(data) >= OVERHEAD and data.startswith(MAGIC + _ALGORITHM)


def record_key_id(sealed: bytes) -> str:
    """Return the id of the key that a record names."""
    return sealed[_START:_NONCE_AT].hex()


def _derive(key: Secret, nonce: bytes) -> tuple[bytes, bytes]:
    derived = hashlib.blake2b(nonce, digest_size=64, key=key.reveal(), person=b"sbx.record")
    own_and_commitment = derived.digest()
    return own_and_commitment[:32], own_and_commitment[32:]
