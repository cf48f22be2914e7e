"""Streams: data of any length sealed in chunks of 64 KiB, whose order and end are sealed too.

    SBXS | algorithm 1 | key id 8 | salt 32 | commitment 32 | secretstream header 24 | chunks

A stream has a key of its own, ``BLAKE2b-512(key, salt)``, and a commitment to it, as a record has.
The first chunk is bound to all before it and to the label, each further one to the one before it.
All chunks but the last are full, and only the last has the final mark: a stream that ends without
it was cut short, which libsodium by itself would not tell.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator
from typing import IO

from sandbox_sdk.crypto_utils import sodium
from sandbox_sdk.crypto_utils.records import Label
from sandbox_sdk.crypto_utils.secret import Secret
from sandbox_sdk.errors import IntegrityError

CHUNK = 64 * 1024
"""Bytes of data in each chunk but the last."""

SEALED_CHUNK = CHUNK + sodium.STREAM_CHUNK_BYTES
"""Bytes of each sealed chunk but the last."""

MAGIC = b"SBXS"
_ALGORITHM = b"\x01"
_SALT_AT = len(MAGIC + _ALGORITHM) + 8
_COMMITMENT_AT = _SALT_AT + 32
_STREAM_AT = _COMMITMENT_AT + 32

HEADER_BYTES = _STREAM_AT + sodium.STREAM_HEADER_BYTES
"""Bytes before the first chunk."""


class Sealer:
    """Seals chunks one after the other.

    Args:
        key: A ``DataKey``.
        label: Where the stream belongs.

    Attributes:
        header: What stands before the first chunk.
    """

    def __init__(self, key: Secret, label: Label | None = None) -> None:
        salt = secrets.token_bytes(32)
        own, commitment = _derive(key, salt)
        self._stream = sodium.StreamPush(own)
        self.header = MAGIC + _ALGORITHM + key.id_bytes + salt + commitment + self._stream.header
        self._associated = self.header + (label or Label()).encode()

    def seal(self, chunk: bytes, *, final: bool = False) -> bytes:
        """Return the next chunk sealed; the last one, which may be empty, must be ``final``."""
        associated, self._associated = self._associated, b""
        return self._stream.push(chunk, associated, final=final)


class Unsealer:
    """Opens chunks one after the other.

    Args:
        key: The key of the sealing.
        header: The bytes before the first chunk.
        label: The label of the sealing.

    Attributes:
        finished: Whether the last chunk was opened; until then the stream may be cut short.

    Raises:
        IntegrityError: The header was changed, or is of another key.
    """

    def __init__(self, key: Secret, header: bytes, label: Label | None = None) -> None:
        if len(header) != HEADER_BYTES or not header.startswith(MAGIC + _ALGORITHM):
            raise IntegrityError("these bytes are no sealed stream, or were cut short")
        if (other := header[_SALT_AT - 8 : _SALT_AT].hex()) != key.id:
            raise IntegrityError(
                f"the stream was sealed under the key {other}, and this is {key.id}"
            )
        own, commitment = _derive(key, header[_SALT_AT:_COMMITMENT_AT])
        if not hmac.compare_digest(commitment, header[_COMMITMENT_AT:_STREAM_AT]):
            raise IntegrityError("the stream was changed, or its key is another of the same id")
        self._stream = sodium.StreamPull(header[_STREAM_AT:], own)
        self._associated = header + (label or Label()).encode()
        self.finished = False

    def unseal(self, chunk: bytes) -> bytes:
        """Return the data of the next chunk.

        Raises:
            IntegrityError: It is not the next chunk, or follows the last.
        """
        if self.finished:
            raise IntegrityError("something follows the last chunk of the stream")
        associated, self._associated = self._associated, b""
        data, self.finished = self._stream.pull(chunk, associated)
        return data


def seal_stream(
    key: Secret, source: IO[bytes], target: IO[bytes], label: Label | None = None
) -> None:
    """Seal all that can be read from ``source`` into ``target``."""
    for sealed in seal_pieces(key, iter(lambda: source.read(CHUNK), b""), label):
        target.write(sealed)


def seal_pieces(
    key: Secret, pieces: Iterable[bytes], label: Label | None = None
) -> Iterator[bytes]:
    """Yield what a sealed stream of all pieces, of any length, consists of."""
    sealer = Sealer(key, label)
    yield sealer.header
    waiting = bytearray()  # the last chunk is known when nothing follows
    for piece in pieces:
        waiting += piece
        while len(waiting) > CHUNK:
            yield sealer.seal(bytes(waiting[:CHUNK]))
            del waiting[:CHUNK]
    yield sealer.seal(bytes(waiting), final=True)


def unseal_stream(key: Secret, source: IO[bytes], label: Label | None = None) -> Iterator[bytes]:
    """Yield the data of a sealed stream, chunk by chunk.

    What was yielded is what was sealed, but perhaps not all of it until the iterator has ended:
    keep nothing of a stream that raised.

    Raises:
        IntegrityError: It was changed, cut short, belongs elsewhere, or is of another key.
    """
    unsealer = Unsealer(key, _read(source, HEADER_BYTES), label)
    while sealed := _read(source, SEALED_CHUNK):
        yield unsealer.unseal(sealed)
    if not unsealer.finished:
        raise IntegrityError("the stream was cut short: its last chunk is missing")


def _read(source: IO[bytes], size: int) -> bytes:
    """Read as much as there is, up to a size; one read may give less."""
    data = source.read(size)
    while 0 < len(data) < size and (more := source.read(size - len(data))):
        data += more
    return data


def _derive(key: Secret, salt: bytes) -> tuple[bytes, bytes]:
    derived = hashlib.blake2b(salt, digest_size=64, key=key.reveal(), person=b"sbx.stream")
    own_and_commitment = derived.digest()
    return own_and_commitment[:32], own_and_commitment[32:]
