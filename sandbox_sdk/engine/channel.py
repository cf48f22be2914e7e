"""A channel over a socket: frames behind their length, to an agent on this machine."""

from __future__ import annotations

import json
import select
import socket
from collections import deque
from collections.abc import Iterable

import anyio
import attrs

from sandbox_sdk.agent import frames
from sandbox_sdk.engine.direct import Direct
from sandbox_sdk.errors import ProtocolError

_LARGEST_READ = 256 * 1024
_ANY_CONTEXT = {"kind": "python"}


@attrs.define(eq=False)
class Activity:
    """When a sandbox was last used, and which calls are in flight.

    Attributes:
        calls: Exchanges that run something: a kept context does from its input to its result.
        last: When the last frame passed, on ``anyio.current_time``'s clock.
    """

    calls: set[int] = attrs.field(factory=set)
    last: float = attrs.field(factory=anyio.current_time)

    def sent(self, frame: frames.Frame) -> None:
        """Take a frame to the agent into account."""
        self.last = anyio.current_time()
        if frame.kind in (frames.OPEN, frames.DATA):
            self.calls.add(frame.exchange)

    def received(self, frame: frames.Frame) -> None:
        """Take a frame from the agent into account."""
        self.last = anyio.current_time()
        if frame.kind == frames.END or (
            frame.kind == frames.DATA and frame.stream == frames.RESULT
        ):
            self.calls.discard(frame.exchange)


class SocketChannel:
    """Frames over one end of a stream socket pair. ``receive`` has one user at a time.

    Attributes:
        activity: What idleness is judged by.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.activity = Activity()
        sock.setblocking(False)
        self._socket = sock
        self._poll = select.epoll()
        self._poll.register(sock, select.EPOLLIN)
        self._ahead: Direct | None = None
        self._splitter = frames.Splitter()
        self._received: deque[bytes] = deque()
        self._sending = anyio.Lock()  # a frame's bytes must not mix with another's

    async def have_context(self, sock: socket.socket, settings: bytes) -> None:
        """Use a context that was forked ahead for the first one that is asked for.

        Args:
            sock: The host's end of its socket.
            settings: The sandbox's settings, as one line.

        Raises:
            ProtocolError: The agent did not hand over its pipes.
        """
        self._ahead = Direct(sock, self._poll)
        await self._ahead.send(settings)

    async def send(self, frame: bytes) -> None:
        """Send a frame; waits while the agent does not read.

        Raises:
            ConnectionError: The agent is gone, or the channel was closed.
        """
        parts = frames.decode(frame)
        self.activity.sent(parts)
        if self._ahead is not None and await self._sent_ahead(self._ahead, parts):
            return
        await self._send(frame)

    async def _sent_ahead(self, context: Direct, frame: frames.Frame) -> bool:
        """Give a frame to the context that was forked ahead, if it is for it."""
        if not context.number and frame.kind == frames.OPEN:
            if json.loads(frame.body) != _ANY_CONTEXT:
                return False
            context.adopt(frame.exchange)
            await self._send(frames.encode(frames.ADOPT, frame.exchange))
            return True
        if frame.exchange != context.number or frame.kind in (frames.SIGNAL, frames.KILL):
            return False
        if frame.kind == frames.DATA:
            try:
                await context.send(frame.body)
            except OSError:
                return True  # it has ended, as the agent will tell
        elif frame.kind == frames.EOF:
            context.send_eof()
        elif frame.kind == frames.CREDIT:
            context.give_credit(frame.stream, frames.decode_number(frame.body))
        return True

    async def _send(self, frame: bytes) -> None:
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
            if self._poll.closed:
                raise ConnectionError("the channel was closed")
            ready = self._poll.poll(0)
            if not ready:
                try:
                    await anyio.wait_readable(self._poll)
                except anyio.ClosedResourceError as error:
                    raise ConnectionError("the channel was closed") from error
                continue
            agent = self._socket.fileno()
            if self._ahead is not None and any(descriptor != agent for descriptor, _ in ready):
                self._keep(self._ahead.read())
            if any(descriptor == agent for descriptor, _ in ready):
                self._receive()
        return self._received.popleft()

    def _receive(self) -> None:
        """Take what the agent sent."""
        try:
            data = self._socket.recv(_LARGEST_READ)
        except BlockingIOError:
            return
        except OSError as error:
            raise ConnectionError(f"the agent is gone: {error}") from error
        if not data:
            raise ConnectionError("the agent hung up")
        try:
            for frame in self._splitter.feed(data):
                parts = frames.decode(frame)
                context = self._ahead
                if context is not None and parts[:2] == (frames.END, context.number):
                    self._keep(context.finish())
                    self._ahead = None
                self._keep([frame])
        except ValueError as error:
            raise ProtocolError(f"the agent broke the protocol: {error}") from error

    def _keep(self, found: Iterable[bytes]) -> None:
        for frame in found:
            self.activity.received(frames.decode(frame))
            self._received.append(frame)

    def close(self) -> None:
        """Hang up, which ends the agent. Idempotent."""
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._poll)
            self._poll.close()
            anyio.notify_closing(self._socket)
            self._socket.close()
            if self._ahead is not None:
                self._ahead.close()
