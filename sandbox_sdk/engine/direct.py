"""The host's ends of a context that was forked ahead: its streams come without a hop.

What it sends goes to its reader from the event loop itself, in no task of its own: a statement in
a kept context costs one wake-up. No more is read than credit was given for, and a result is handed
on only after the output that was written before it.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Callable

import anyio

from sandbox_sdk.agent import frames
from sandbox_sdk.engine.activity import Activity
from sandbox_sdk.errors import ProtocolError

_OUTPUTS = (frames.STDOUT, frames.STDERR)


class Direct:
    """A context's socket and pipes."""

    def __init__(self, sock: socket.socket, activity: Activity) -> None:
        """Take the socket, and the pipes that PID 1 sent on it before any guest code ran.

        Args:
            sock: The host's end.
            activity: Kept current.

        Raises:
            ProtocolError: PID 1 sent no pipes.
        """
        self._socket = sock
        self._activity = activity
        self._number = 0
        self._take: Callable[[int, bytes], int] = lambda stream, data: 0
        self._end: Callable[[int], None] = lambda stream: None
        self._credit: dict[int, int] = dict.fromkeys((*_OUTPUTS, frames.RESULT), frames.WINDOW)
        self._listened: set[int] = set()
        self._held = b""
        self._open: dict[int, int] = {frames.RESULT: sock.fileno()}
        # A piece's bytes must not mix with another's.
        self._sending = anyio.Lock(fast_acquire=True)
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
        self._loop = asyncio.get_running_loop()

    def adopt(
        self, number: int, take: Callable[[int, bytes], int], end: Callable[[int], None]
    ) -> None:
        """Become an exchange; from now on the context is listened to.

        Args:
            number: The exchange.
            take: Gets bytes of a stream, and returns how many are done with.
            end: Is told the end of an output stream; the result's is that of the context itself,
                of which PID 1 tells.
        """
        self._number, self._take, self._end = number, take, end
        self._listen()

    async def send(self, data: bytes) -> None:
        """Send bytes to the context; waits while it does not read. What has ended takes nothing."""
        self._activity.begin(self._number)
        async with self._sending:
            view = memoryview(data)
            while view:
                try:
                    view = view[self._socket.send(view) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._socket)
                except OSError:
                    return  # its end comes from the agent

    def send_eof(self) -> None:
        """Tell that no more comes."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it is gone already

    def give_credit(self, stream: int, count: int) -> None:
        """Take note of how much more of a stream is wanted."""
        self._credit[stream] += count
        self._listen()

    def read(self) -> None:
        """Hand on what came, as far as there is credit."""
        if not self._held:
            # Read first and handed on last: what was written before it is in the pipes by then.
            self._held = self._read(frames.RESULT)
        for stream in _OUTPUTS:
            while data := self._read(stream):
                self._hand_on(stream, data)
        if self._held and all(self._credit[s] or s not in self._open for s in _OUTPUTS):
            data, self._held = self._held, b""
            self._activity.end(self._number)
            self._hand_on(frames.RESULT, data)
        self._listen()

    def close(self) -> None:
        """Give the descriptors back. Idempotent."""
        for stream in list(self._open):
            self._shut(stream)
        self._socket.close()

    def _hand_on(self, stream: int, data: bytes) -> None:
        self._credit[stream] += self._take(stream, data)

    def _read(self, stream: int) -> bytes:
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
            if stream != frames.RESULT:
                self._end(stream)
        self._credit[stream] -= len(data)
        return data

    def _shut(self, stream: int) -> None:
        descriptor = self._open.pop(stream)
        if stream in self._listened:
            self._loop.remove_reader(descriptor)
            self._listened.discard(stream)
        if stream != frames.RESULT:
            os.close(descriptor)

    def _listen(self) -> None:
        """Listen to just what can be taken: a stream without credit is left alone."""
        for stream, descriptor in self._open.items():
            wanted = self._credit[stream] > 0 and not (stream == frames.RESULT and self._held)
            if wanted and stream not in self._listened:
                self._loop.add_reader(descriptor, self.read)
                self._listened.add(stream)
            elif not wanted and stream in self._listened:
                self._loop.remove_reader(descriptor)
                self._listened.discard(stream)
