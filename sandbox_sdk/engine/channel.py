"""A channel over a socket: frames behind their length, to an agent on this machine."""

from __future__ import annotations

import asyncio
import socket
from collections import deque

import anyio

from sandbox_sdk.agent import frames
from sandbox_sdk.engine.activity import Activity
from sandbox_sdk.engine.direct import Direct
from sandbox_sdk.errors import ProtocolError

_LARGEST_READ = 256 * 1024
_MOST_WAITING = 64  # frames


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
        self._came = anyio.Event()
        self._over: ConnectionError | ProtocolError | None = None
        self._listening = False
        self._loop = asyncio.get_running_loop()
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
            if self._over is not None:
                raise self._over
            self._listen()
            self._came = anyio.Event()
            await self._came.wait()
        return self._received.popleft()

    def close(self) -> None:
        """Hang up, which ends the agent. Idempotent."""
        if self.ahead is not None:
            self.ahead.close()
            self.ahead = None
        if self._socket.fileno() >= 0:
            self._end(ConnectionError("the channel was closed"))
            self._socket.close()

    def _read(self) -> None:
        """Take what came, from the event loop itself: a task would cost three turns of it."""
        try:
            data = self._socket.recv(_LARGEST_READ)
            if not data:
                self._end(ConnectionError("the agent hung up"))
            for frame in self._splitter.feed(data):
                self.activity.received(frames.decode(frame))
                self._received.append(frame)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(ConnectionError(f"the agent is gone: {error}"))
        except ValueError as error:
            self._end(ProtocolError(f"the agent broke the protocol: {error}"))
        if len(self._received) >= _MOST_WAITING:
            self._unlisten()  # until they are received
        self._came.set()

    def _end(self, why: ConnectionError | ProtocolError) -> None:
        """Take nothing any more, and say why."""
        self._unlisten()
        self._over = why
        self._came.set()

    def _listen(self) -> None:
        if not self._listening:
            self._loop.add_reader(self._socket.fileno(), self._read)
            self._listening = True

    def _unlisten(self) -> None:
        if self._listening:
            self._loop.remove_reader(self._socket.fileno())
            self._listening = False
