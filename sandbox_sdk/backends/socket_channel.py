"""A channel over a socket: frames behind their length, to an agent on this machine."""

from __future__ import annotations

import socket
from collections import deque

import anyio

from sandbox_sdk.agent import frames
from sandbox_sdk.errors import ProtocolError

_LARGEST_READ = 256 * 1024


class SocketChannel:
    """Frames over one end of a stream socket pair. ``receive`` has one user at a time."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._splitter = frames.Splitter()
        self._received: deque[bytes] = deque()
        self._sending = anyio.Lock()  # a frame's bytes must not mix with another's

    async def send(self, frame: bytes) -> None:
        """Send a frame; waits while the agent does not read.

        Raises:
            ConnectionError: The agent is gone, or the channel was closed.
        """
        data = memoryview(frames.delimit(frame))
        async with self._sending:
            while data:
                try:
                    data = data[self._socket.send(data) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._socket)
                except OSError as error:
                    raise ConnectionError(f"the agent is gone: {error}") from error

    async def receive(self) -> bytes:
        """Return the next frame.

        Raises:
            ConnectionError: The agent is gone, or the channel was closed.
            ProtocolError: What came is no frame.
        """
        while not self._received:
            try:
                data = self._socket.recv(_LARGEST_READ)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
                continue
            except OSError as error:
                raise ConnectionError(f"the agent is gone: {error}") from error
            if not data:
                raise ConnectionError("the agent hung up")
            try:
                self._received.extend(self._splitter.feed(data))
            except ValueError as error:
                raise ProtocolError(f"the agent broke the protocol: {error}") from error
        return self._received.popleft()

    def close(self) -> None:
        """Hang up, which ends the agent. Idempotent."""
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()
