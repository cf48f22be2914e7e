"""What we use of libsodium, and the only place that does; it is loaded on first use.

Called through ``nacl.bindings``, whose classes copy more and are half as fast on large chunks.
Every failure of libsodium becomes an ``IntegrityError``.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from sandbox_sdk.errors import IntegrityError, StateError

NONCE_BYTES = 24
"""Length of a nonce of XChaCha20-Poly1305, long enough to be drawn at random."""

TAG_BYTES = 16
"""What XChaCha20-Poly1305 adds to a message."""

STREAM_HEADER_BYTES = 24
"""Length of what libsodium puts before a stream."""

STREAM_CHUNK_BYTES = 17
"""What a stream adds to each chunk."""

SIGNATURE_BYTES = 64
"""Length of an Ed25519 signature."""

SALT_BYTES = 16
"""Length of the salt of Argon2id."""

_DERIVED_BYTES = 32

ARGON2_OPERATIONS = 3
"""Passes of Argon2id, libsodium's MODERATE."""

ARGON2_MEMORY_BYTES = 256 * 1024 * 1024
"""Memory of Argon2id, libsodium's MODERATE."""


def library() -> Path:
    """Return the file that PyNaCl loads libsodium by, for those who load it without PyNaCl.

    Raises:
        StateError: There is none.
    """
    found = find_spec("nacl._sodium")
    if found is None or found.origin is None:
        raise StateError("libsodium cannot be found: install the package pynacl again")
    return Path(found.origin)


def aead_encrypt(message: bytes, associated: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return the ciphertext and tag of XChaCha20-Poly1305."""
    from nacl import bindings

    return bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(message, associated, nonce, key)


def aead_decrypt(sealed: bytes, associated: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return the message of XChaCha20-Poly1305.

    Raises:
        IntegrityError: Ciphertext, associated data, nonce or key are not those of the sealing.
    """
    from nacl import bindings, exceptions

    try:
        return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, associated, nonce, key)
    except exceptions.CryptoError:
        raise IntegrityError("the sealed bytes were changed, or belong elsewhere") from None


class StreamPush:
    """The writing side of a secretstream.

    Attributes:
        header: What the reading side needs before the first chunk.
    """

    __slots__ = ("_state", "header")

    def __init__(self, key: bytes) -> None:
        from nacl import bindings

        self._state = bindings.crypto_secretstream_xchacha20poly1305_state()
        self.header = bindings.crypto_secretstream_xchacha20poly1305_init_push(self._state, key)

    def push(self, message: bytes, associated: bytes, *, final: bool) -> bytes:
        """Return the next chunk, sealed."""
        from nacl import bindings

        tag = bindings.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE
        if final:
            tag = bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL
        return bindings.crypto_secretstream_xchacha20poly1305_push(
            self._state, message, associated, tag
        )


class StreamPull:
    """The reading side of a secretstream."""

    __slots__ = ("_state",)

    def __init__(self, header: bytes, key: bytes) -> None:
        from nacl import bindings

        self._state = bindings.crypto_secretstream_xchacha20poly1305_state()
        bindings.crypto_secretstream_xchacha20poly1305_init_pull(self._state, header, key)

    def pull(self, sealed: bytes, associated: bytes) -> tuple[bytes, bool]:
        """Return the next chunk's message, and whether it is the last.

        Raises:
            IntegrityError: It is not the chunk that was written next.
        """
        from nacl import bindings, exceptions

        try:
            message, tag = bindings.crypto_secretstream_xchacha20poly1305_pull(
                self._state, sealed, associated
            )
        except exceptions.CryptoError:
            raise IntegrityError("a chunk of the stream was changed, moved or left out") from None
        if tag == bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL:
            return message, True
        if tag != bindings.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE:
            raise IntegrityError("a chunk of the stream has a mark that nothing here writes")
        return message, False


def sign_public(seed: bytes) -> bytes:
    """Return the Ed25519 public key of a seed."""
    from nacl import bindings

    return bindings.crypto_sign_seed_keypair(seed)[0]


def sign(message: bytes, seed: bytes) -> bytes:
    """Return the Ed25519 signature of a message."""
    from nacl import bindings

    _, secret = bindings.crypto_sign_seed_keypair(seed)
    return bindings.crypto_sign(message, secret)[:SIGNATURE_BYTES]


def verify(message: bytes, signature: bytes, public: bytes) -> bool:
    """Return whether an Ed25519 signature is this public key's of this message."""
    from nacl import bindings, exceptions

    if len(signature) != SIGNATURE_BYTES:
        return False  # the binding would take what is too long for a part of the message
    try:
        bindings.crypto_sign_open(signature + message, public)
    except exceptions.CryptoError:
        return False
    return True


def box_public(private: bytes) -> bytes:
    """Return the X25519 public key of a private one."""
    from nacl import bindings

    return bindings.crypto_scalarmult_base(private)


def box_seal(message: bytes, public: bytes) -> bytes:
    """Return a message sealed to an X25519 public key by nobody in particular.

    Raises:
        IntegrityError: It is no public key.
    """
    from nacl import bindings, exceptions

    try:
        return bindings.crypto_box_seal(message, public)
    except exceptions.CryptoError:
        raise IntegrityError("the public key is none: it has no point of its curve") from None


def box_open(sealed: bytes, public: bytes, private: bytes) -> bytes:
    """Return the message that was sealed to an X25519 public key.

    Raises:
        IntegrityError: It was changed, or sealed to another.
    """
    from nacl import bindings, exceptions

    try:
        return bindings.crypto_box_seal_open(sealed, public, private)
    except (exceptions.CryptoError, TypeError):
        raise IntegrityError("the sealed bytes were changed, or are for another key") from None


def argon2id(text: bytes, salt: bytes, operations: int, memory_bytes: int) -> bytes:
    """Return the key that Argon2id makes of a passphrase; takes time and memory on purpose."""
    from nacl import bindings

    return bindings.crypto_pwhash_alg(
        _DERIVED_BYTES, text, salt, operations, memory_bytes, bindings.crypto_pwhash_ALG_ARGON2ID13
    )
