"""The frames of a channel: one header, one body, and flow control by credit.

A frame is ``kind (1 byte) | exchange (4) | stream (1) | body``. On a byte stream each frame is
preceded by its length (4 bytes). An exchange is one thing that runs inside: a command, a Python
context, a file operation. Host and agent may send ``DATA`` on a stream only as far as the other
side gave credit; every stream begins with ``WINDOW`` bytes of it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HELLO = 1  # agent -> host, once: JSON, what the agent proved about its own walls
GO = 2  # host -> agent, once: JSON, the settings of the sandbox; before it nothing runs
OPEN = 3  # host -> agent: JSON, what to run as this exchange
DATA = 4  # both: bytes of a stream
EOF = 5  # both: the stream has ended
CREDIT = 6  # both: 4 bytes, how many more bytes of the stream the other side may send
SIGNAL = 7  # host -> agent: 4 bytes, a signal for the exchange's program
KILL = 8  # host -> agent: end the exchange and all its descendants
END = 9  # agent -> host: JSON, how the exchange's program ended; nothing follows it
ADOPT = 11  # host -> agent: the exchange is the context that was forked ahead
RESIZE = 10  # host -> agent: 2 bytes columns, 2 bytes rows, the new size of its terminal

# A server's frames for its clients' sessions, whose number stands in place of the exchange:
RELAY = 12  # both: a frame of the session
DETACH = 13  # host -> agent: the session is over, and with it all that runs in it
HOLD = 14  # host -> agent: send no output of the session, whatever its credit
FLOW = 15  # host -> agent: send it again
BUSY = 16  # agent -> host: 4 bytes, 1 when something runs in the session, 0 when nothing does

# Of a sealed channel, between a client and the process beside the agent that seals:
SEAL = 17  # host -> agent, once: JSON, whom to seal the channel for; nothing else passes then
OPENING = 18  # client -> agent: begins a session, which ends the one before
ANSWER = 19  # agent -> client: what it answers, to be vouched for on the way
PROOF = 20  # client -> agent: that it holds the owner's key
SEALED = 21  # both: sealed bytes, which hold whole frames behind their lengths
REFUSED = 22  # agent -> client: text, why an opening, a proof or sealed bytes were not taken
VARIABLES = 23  # client -> agent: JSON, environment variables of all that is opened from now on

STDIN, STDOUT, STDERR, RESULT = 0, 1, 2, 3

WINDOW = 256 * 1024
MAX_DATA = 64 * 1024
MAX_FRAME = 1024 * 1024
"""Longest frame: only ``OPEN`` and ``GO`` are longer than ``MAX_DATA``."""
MAX_FRAME_IN = 8 * MAX_FRAME
"""Longest frame that the agent takes of the host: ``GO`` holds 1 MiB that JSON may write as 6."""

_HEADER = struct.Struct("!BIB")
_NUMBER = struct.Struct("!I")
_SIZE = struct.Struct("!HH")


class Frame(NamedTuple):
    """One decoded frame."""

    kind: int
    exchange: int
    stream: int
    body: bytes


def encode(kind: int, exchange: int = 0, stream: int = 0, body: bytes = b"") -> bytes:
    """Return the frame as bytes."""
    return _HEADER.pack(kind, exchange, stream) + body


def decode(frame: bytes) -> Frame:
    """Return the parts of a frame.

    Raises:
        ValueError: It is shorter than a header.
    """
    if len(frame) < _HEADER.size:
        raise ValueError(f"frame of {len(frame)} bytes is shorter than its header")
    kind, exchange, stream = _HEADER.unpack_from(frame)
    return Frame(kind, exchange, stream, frame[_HEADER.size :])


def encode_number(number: int) -> bytes:
    """Return the body of ``CREDIT`` and ``SIGNAL``."""
    return _NUMBER.pack(number)


def decode_number(body: bytes) -> int:
    """Return the number in a body of ``CREDIT`` or ``SIGNAL``.

    Raises:
        ValueError: The body is not 4 bytes.
    """
    if len(body) != _NUMBER.size:
        raise ValueError(f"number of {len(body)} bytes")
    number: int = _NUMBER.unpack(body)[0]
    return number


def encode_size(columns: int, rows: int) -> bytes:
    """Return the body of ``RESIZE``."""
    return _SIZE.pack(columns, rows)


def decode_size(body: bytes) -> tuple[int, int]:
    """Return columns and rows of a body of ``RESIZE``.

    Raises:
        ValueError: The body is not 4 bytes.
    """
    if len(body) != _SIZE.size:
        raise ValueError(f"size of {len(body)} bytes")
    columns, rows = _SIZE.unpack(body)
    return columns, rows


def delimit(frame: bytes) -> bytes:
    """Return the frame as it stands on a byte stream, behind its length."""
    return _NUMBER.pack(len(frame)) + frame


class Splitter:
    """Cuts a byte stream back into frames.

    Args:
        longest: The longest frame that is taken.
    """

    def __init__(self, longest: int = MAX_FRAME) -> None:
        self._longest = longest
        self._buffer = bytearray()

    @property
    def rest(self) -> bytes:
        """What came of the frame that is not complete."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they come and return the frames that are now complete.

        Raises:
            ValueError: A frame is longer than the longest.
        """
        self._buffer += data
        found: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= _NUMBER.size:
            (length,) = _NUMBER.unpack_from(self._buffer, start)
            if length > self._longest:
                raise ValueError(f"frame of {length} bytes; the longest allowed is {self._longest}")
            end = start + _NUMBER.size + length
            if len(self._buffer) < end:
                break
            found.append(bytes(self._buffer[start + _NUMBER.size : end]))
            start = end
        del self._buffer[:start]
        return found
