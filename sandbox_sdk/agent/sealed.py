"""The framing of a sealed channel: one secretstream each way, in chunks behind their length.

header (24 bytes) | length (4) chunk | length (4) chunk | ...
"""

from __future__ import annotations

import struct

from sandbox_sdk.agent.sodium import CHUNK_BYTES, HEADER_BYTES, Pull, Refused, Sodium

LONGEST_CHUNK = 64 * 1024
"""Longest piece that is sealed at once."""

_LENGTH = struct.Struct("!I")


class Session:
    """What one end writes and reads, over any stream of bytes."""

    def __init__(self, sodium: Sodium, *, writes: bytes, reads: bytes) -> None:
        """Begin.

        Args:
            sodium: libsodium.
            writes: The key of what this end writes.
            reads: The key of what the other end writes.
        """
        self._sodium = sodium
        self._push = sodium.push(writes)
        self._header = self._push.header
        self._reads = reads
        self._pull: Pull | None = None
        self._buffer = bytearray()

    @property
    def over(self) -> bool:
        """Whether the other end has said that nothing follows: without that, what came was cut."""
        return self._pull is not None and self._pull.over

    def seal(self, data: bytes, *, last: bool = False) -> bytes:
        """Return bytes as they are sent.

        Args:
            data: Any number of bytes.
            last: Whether none follow.
        """
        sent = [self._header]
        self._header = b""
        for start in range(0, len(data), LONGEST_CHUNK):
            sent += self._chunk(data[start : start + LONGEST_CHUNK], last=False)
        if last:
            sent += self._chunk(b"", last=True)
        return b"".join(sent)

    def _chunk(self, data: bytes, *, last: bool) -> tuple[bytes, bytes]:
        sealed = self._push.seal(data, last=last)
        return _LENGTH.pack(len(sealed)), sealed

    def open(self, data: bytes) -> bytes:
        """Take bytes as they come, and return what they hold, as far as it is whole.

        Raises:
            Refused: They were changed, left out, repeated or moved.
        """
        self._buffer += data
        if self._pull is None:
            if len(self._buffer) < HEADER_BYTES:
                return b""
            self._pull = self._sodium.pull(self._reads, bytes(self._buffer[:HEADER_BYTES]))
            del self._buffer[:HEADER_BYTES]
        found: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > LONGEST_CHUNK + CHUNK_BYTES:
                raise Refused(f"a chunk of {length} bytes, longer than any")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            found.append(self._pull.open(bytes(self._buffer[start + _LENGTH.size : end])))
            start = end
        del self._buffer[:start]
        return b"".join(found)
