"""The host's ends of a context that was forked ahead: its streams come without a hop.

To those above it is an exchange like any other. What it sends becomes frames, as with the agent
no more than credit was given for, and a result only after the output that was written before it.
"""

from __future__ import annotations

import array
import os
import select
import socket
from collections.abc import Iterator

import anyio

from sandbox_sdk.agent import frames
from sandbox_sdk.errors import ProtocolError

_OUTPUTS = (frames.STDOUT, frames.STDERR)


class Direct:
    """A context's socket and pipes.

    Attributes:
        number: The exchange that it became; 0 before.
    """

    def __init__(self, sock: socket.socket, poll: select.epoll) -> None:
        """Take the socket, and the pipes that PID 1 sent on it before any guest code ran.

        Args:
            sock: The host's end.
            poll: Where everything that can be read is watched.

        Raises:
            ProtocolError: PID 1 sent no pipes.
        """
        self.number = 0
        self._socket = sock
        self._poll = poll
        self._credit = dict.fromkeys((*_OUTPUTS, frames.RESULT), frames.WINDOW)
        self._watched: set[int] = set()
        self._held = b""
        self._open = {frames.RESULT: sock.fileno()}
        self._sending = anyio.Lock()  # a piece's bytes must not mix with another's
        sock.setblocking(False)
        rights = array.array("i")
        _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(4 * len(_OUTPUTS)))
        for _, _, payload in ancillary:
            rights.frombytes(payload)
        for stream, descriptor in zip(_OUTPUTS, rights, strict=False):
            os.set_blocking(descriptor, False)
            self._open[stream] = descriptor
        if len(rights) != len(_OUTPUTS):
            raise ProtocolError("the agent sent no pipes of the context that it forked ahead")

    def adopt(self, number: int) -> None:
        """Become an exchange; from now on the context is listened to."""
        self.number = number
        self._watch()

    async def send(self, data: bytes) -> None:
        """Send bytes to the context; waits while it does not read.

        Raises:
            ConnectionError: It is gone; its end is told apart from this.
        """
        view = memoryview(data)
        async with self._sending:
            while view:
                try:
                    view = view[self._socket.send(view) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._socket)

    def send_eof(self) -> None:
        """Tell that no more comes."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it is gone already

    def give_credit(self, stream: int, count: int) -> None:
        """Take note of how much more of a stream is wanted."""
        self._credit[stream] += count
        self._watch()

    def read(self) -> Iterator[bytes]:
        """Yield what came, as frames, as far as there is credit."""
        if not self._held:
            # Read first and sent last: what was written before it is then in the pipes already.
            self._held = self._take(frames.RESULT)
        for stream in _OUTPUTS:
            while data := self._take(stream):
                yield frames.encode(frames.DATA, self.number, stream, data)
        if self._held and all(self._credit[s] or s not in self._open for s in _OUTPUTS):
            yield frames.encode(frames.DATA, self.number, frames.RESULT, self._held)
            self._held = b""
        self._watch()

    def finish(self) -> Iterator[bytes]:
        """Yield what is left of a context that ended, then close all."""
        yield from self.read()
        self.close()

    def close(self) -> None:
        """Give the descriptors back. Idempotent."""
        for stream in list(self._open):
            self._shut(stream)
        self._socket.close()

    def _take(self, stream: int) -> bytes:
        """Return what a stream has now, ``b""`` for nothing; one that ended is closed."""
        most = min(self._credit[stream], frames.MAX_DATA)
        if not most or stream not in self._open:
            return b""
        try:
            data = os.read(self._open[stream], most)
        except BlockingIOError:
            return b""
        except ConnectionError:  # it ended with something unread
            data = b""
        if not data:
            self._shut(stream)
        self._credit[stream] -= len(data)
        return data

    def _shut(self, stream: int) -> None:
        descriptor = self._open.pop(stream)
        if stream in self._watched:
            self._poll.unregister(descriptor)
            self._watched.discard(stream)
        if stream != frames.RESULT:
            os.close(descriptor)

    def _watch(self) -> None:
        """Watch just what can be taken: a stream without credit is left alone."""
        for stream, descriptor in self._open.items():
            wanted = self._credit[stream] > 0 and not (stream == frames.RESULT and self._held)
            if wanted and stream not in self._watched:
                self._poll.register(descriptor, select.EPOLLIN)
                self._watched.add(stream)
            elif not wanted and stream in self._watched:
                self._poll.unregister(descriptor)
                self._watched.discard(stream)
