"""Standard input and output without blocking the loop, whatever they are."""

from __future__ import annotations

import os

import anyio

STDIN, STDOUT, STDERR = 0, 1, 2

_CHUNK = 64 * 1024
_PIPE_BUF = 4096  # a pipe that is writable takes this much without blocking


async def read(descriptor: int) -> bytes:
    """Return what can be read now, at least one byte; nothing at the end, or if it is closed."""
    try:
        await anyio.wait_readable(descriptor)
    except PermissionError:
        pass  # files and /dev/null cannot be waited for: they never block
    except OSError:
        return b""
    return os.read(descriptor, _CHUNK)


async def read_all(descriptor: int) -> bytes:
    """Return all that can be read to the end."""
    parts: list[bytes] = []
    while data := await read(descriptor):
        parts.append(data)
    return b"".join(parts)


async def write(descriptor: int, data: bytes) -> None:
    """Write all of it.

    Raises:
        BrokenPipeError: Nobody reads any more.
    """
    left = memoryview(data)
    while left:
        size = _PIPE_BUF
        try:
            await anyio.wait_writable(descriptor)
        except PermissionError:
            size = len(left)
        left = left[os.write(descriptor, left[:size]) :]
