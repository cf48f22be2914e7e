"""The little of libsodium that sealing a channel takes, by ctypes from a file that is named.

Inside a sandbox there is no PyNaCl to import, and its guests are not to find one among their
modules. The shared object that PyNaCl brings holds or loads libsodium itself, whose functions need
no Python: so it serves any version of it.
"""

from __future__ import annotations

import ctypes
import os

KEY_BYTES = 32
"""Length of every key: X25519, Ed25519's public and its seed, and of a stream."""

SIGNATURE_BYTES = 64
"""Length of an Ed25519 signature."""

HEADER_BYTES = 24
"""What stands before a stream."""

CHUNK_BYTES = 17
"""What a stream adds to each chunk."""

_STATE_BYTES = 52
_MESSAGE, _FINAL = 0, 3

_size = ctypes.c_ulonglong


class Refused(ValueError):
    """What came was not made by who holds the key, or not for this place."""


class Sodium:
    """libsodium, loaded.

    Args:
        path: A shared object that holds or loads it.

    Raises:
        OSError: It cannot be loaded, or holds no libsodium of version 1.0.14 or later.
    """

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        try:
            if self._library.sodium_init() < 0:
                raise OSError(f"{path}: libsodium refuses to start")
            stream = self._library.crypto_secretstream_xchacha20poly1305_statebytes
        except AttributeError as error:
            raise OSError(f"{path} holds no libsodium that can seal a stream: {error}") from None
        if stream() != _STATE_BYTES:
            raise OSError(f"{path}: the state of a stream has {stream()} bytes, not {_STATE_BYTES}")

    def keypair(self) -> tuple[bytes, bytes]:
        """Return the secret and the public half of a fresh X25519 key."""
        secret = os.urandom(KEY_BYTES)
        public = ctypes.create_string_buffer(KEY_BYTES)
        self._library.crypto_scalarmult_base(public, secret)
        return secret, public.raw

    def shared(self, secret: bytes, public: bytes) -> bytes:
        """Return what both ends of X25519 find.

        Raises:
            Refused: The other's key is of small order, so that anybody would find the same.
        """
        found = ctypes.create_string_buffer(KEY_BYTES)
        if self._library.crypto_scalarmult(found, secret, _sized(public, KEY_BYTES)) != 0:
            raise Refused("the other end's key is none")
        return found.raw

    def sign(self, seed: bytes, message: bytes) -> bytes:
        """Return the Ed25519 signature of a message.

        Args:
            seed: The signing key's seed.
            message: What is signed.
        """
        public = ctypes.create_string_buffer(KEY_BYTES)
        secret = ctypes.create_string_buffer(2 * KEY_BYTES)
        self._library.crypto_sign_seed_keypair(public, secret, _sized(seed, KEY_BYTES))
        signature = ctypes.create_string_buffer(SIGNATURE_BYTES)
        length = _size(len(message))
        self._library.crypto_sign_detached(signature, None, message, length, secret)
        return signature.raw

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Return whether the signature is this key's of this message."""
        if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
            return False
        length = _size(len(message))
        verify = self._library.crypto_sign_verify_detached
        return bool(verify(signature, message, length, public) == 0)

    def push(self, key: bytes) -> Push:
        """Return the writing end of a fresh stream."""
        return Push(self._library, key)

    def pull(self, key: bytes, header: bytes) -> Pull:
        """Return the reading end of a stream.

        Raises:
            Refused: The header is none.
        """
        return Pull(self._library, key, header)


class Push:
    """The writing end of a stream.

    Attributes:
        header: What the reader needs first.
    """

    def __init__(self, library: ctypes.CDLL, key: bytes) -> None:
        """Begin a stream under a key."""
        self._push = library.crypto_secretstream_xchacha20poly1305_push
        self._state = ctypes.create_string_buffer(_STATE_BYTES)
        header = ctypes.create_string_buffer(HEADER_BYTES)
        begin = library.crypto_secretstream_xchacha20poly1305_init_push
        begin(self._state, header, _sized(key, KEY_BYTES))
        self.header = header.raw

    def seal(self, data: bytes, *, last: bool = False) -> bytes:
        """Return the next chunk.

        Args:
            data: What it holds.
            last: Whether none follows.
        """
        sealed = ctypes.create_string_buffer(len(data) + CHUNK_BYTES)
        tag = ctypes.c_ubyte(_FINAL if last else _MESSAGE)
        self._push(self._state, sealed, None, data, _size(len(data)), None, _size(0), tag)
        return sealed.raw


class Pull:
    """The reading end of a stream.

    Attributes:
        over: Whether the last chunk was read.
    """

    def __init__(self, library: ctypes.CDLL, key: bytes, header: bytes) -> None:
        """Begin to read a stream.

        Raises:
            Refused: The header is none.
        """
        self.over = False
        self._pull = library.crypto_secretstream_xchacha20poly1305_pull
        self._state = ctypes.create_string_buffer(_STATE_BYTES)
        begin = library.crypto_secretstream_xchacha20poly1305_init_pull
        if begin(self._state, _sized(header, HEADER_BYTES), _sized(key, KEY_BYTES)) != 0:
            raise Refused("what should begin a stream does not")

    def open(self, sealed: bytes) -> bytes:
        """Return what the next chunk holds.

        Raises:
            Refused: It was changed, left out, repeated or moved, or follows the last.
        """
        if self.over or len(sealed) < CHUNK_BYTES:
            raise Refused("a chunk of the sealed stream was cut, or follows its end")
        data = ctypes.create_string_buffer(len(sealed) - CHUNK_BYTES)
        tag = ctypes.c_ubyte()
        length = _size(len(sealed))
        state = self._state
        if self._pull(state, data, None, ctypes.byref(tag), sealed, length, None, _size(0)) != 0:
            raise Refused("a chunk of the sealed stream was changed, left out, repeated or moved")
        self.over = tag.value == _FINAL
        return data.raw


def _sized(data: bytes, size: int) -> bytes:
    """Return bytes of the length that libsodium reads, which it does not check."""
    if len(data) != size:
        raise Refused(f"{len(data)} bytes where {size} belong")
    return data
