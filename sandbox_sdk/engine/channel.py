"""A channel over a socket: frames behind their length, to an agent on this machine."""

from __future__ import annotations

import socket
from collections import deque

import anyio

from sandbox_sdk.agent import frames
from sandbox_sdk.engine.activity import Activity
from sandbox_sdk.engine.direct import Direct
from sandbox_sdk.errors import ProtocolError

_LARGEST_READ = 256 * 1024


class SocketChannel:
    """Frames over one end of a stream socket pair. ``receive`` has one user at a time.

    Attributes:
        activity: What idleness is judged by.
        ahead: The context that was forked ahead, until an exchange adopts it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.activity = Activity()
        self.ahead: Direct | None = None
        sock.setblocking(False)
        self._socket = sock
        self._splitter = frames.Splitter()
        self._received: deque[bytes] = deque()
        # A frame's bytes must not mix with another's.
        self._sending = anyio.Lock(fast_acquire=True)

    async def have_context(self, sock: socket.socket, settings: bytes) -> None:
        """Offer a context that was forked ahead.

        Args:
            sock: The host's end of its socket.
            settings: The sandbox's settings, as one line.

        Raises:
            ProtocolError: The agent did not hand over its pipes.
        """
        self.ahead = Direct(sock, self.activity)
        await self.ahead.send(settings)
        self.activity.end(0)

    def take_ahead(self) -> Direct | None:
        """Return the context that was forked ahead, once."""
        ahead, self.ahead = self.ahead, None
        return ahead

    async def send(self, frame: bytes) -> None:
        """Send a frame; waits while the agent does not read.

        Raises:
            ConnectionError: The agent is gone, or the channel was closed.
        """
        self.activity.sent(frames.decode(frame))
        data = memoryview(frames.delimit(frame))
        begun = False
        async with self._sending:
            while data:
                try:
                    data = data[self._socket.send(data) :]
                    begun = True
                except BlockingIOError:
                    # A frame that has begun is finished, or all that follow would be misread;
                    # the agent never stops reading, so this ends.
                    with anyio.CancelScope(shield=begun):
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
                try:
                    await anyio.wait_readable(self._socket)
                except anyio.ClosedResourceError as error:
                    raise ConnectionError("the channel was closed") from error
                continue
            except OSError as error:
                raise ConnectionError(f"the agent is gone: {error}") from error
            if not data:
                raise ConnectionError("the agent hung up")
            try:
                for frame in self._splitter.feed(data):
                    self.activity.received(frames.decode(frame))
                    self._received.append(frame)
            except ValueError as error:
                raise ProtocolError(f"the agent broke the protocol: {error}") from error
        return self._received.popleft()

    def close(self) -> None:
        """Hang up, which ends the agent. Idempotent."""
        if self.ahead is not None:
            self.ahead.close()
            self.ahead = None
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()
