"""The host's side of a channel: many exchanges with one agent, multiplexed, with flow control.

All that arrives is hostile: unknown frames, frames for exchanges that never were, and more bytes
than were given credit for end the channel with ``ProtocolError``.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol, cast

import anyio

from sandbox_sdk.agent import frames
from sandbox_sdk.backends.base import Ahead, Channel, Noted, none_hit
from sandbox_sdk.errors import IntegrityError, ProtocolError

_OUTPUTS: tuple[int, ...] = (frames.STDOUT, frames.STDERR, frames.RESULT)
_LONGEST_REPORT = 4096
_ANY_CONTEXT = {"kind": "python"}


class Sink(Protocol):
    """Where an exchange's output goes."""

    def take(self, stream: int, data: bytes) -> int:
        """Take bytes of a stream; return how many are done with, for which credit goes back."""
        ...

    def end(self, stream: int) -> None:
        """Note that a stream has ended."""


class Exchange:
    """One thing that runs inside, as the host holds it.

    Attributes:
        number: Its number on the channel.
        report: How its program ended, as PID 1 told; ``None`` before that, or if it never did.
        over: Set when the report came, or the agent was lost.
        bytes_seen: Output bytes that arrived.
        busy: Whether a call is waiting for it; a kept context is idle between its calls.
        alone: Whether no other was busy since its call began.
        before: Gives what the kernel had counted when its call began.
    """

    def __init__(self, number: int, channel: Channel, sink: Sink) -> None:
        self.number = number
        self.busy = False
        self.alone = True
        self.before: Noted = none_hit
        self.report: Mapping[str, Any] | None = None
        self.over = anyio.Event()
        self.bytes_seen = 0
        self._channel = channel
        self._sink = sink
        self._send_credit = frames.WINDOW
        self._credit_came = anyio.Event()
        self._allowed = dict.fromkeys(_OUTPUTS, frames.WINDOW)
        self._owed = dict.fromkeys(_OUTPUTS, 0)

    async def send(self, data: bytes) -> None:
        """Send bytes to standard input; waits while the program does not read.

        What the program never reads is dropped when it ends.

        Raises:
            ConnectionError: The agent is gone.
        """
        view = memoryview(data)
        while view and not self.over.is_set():
            if self._send_credit == 0:
                self._credit_came = anyio.Event()
                await self._credit_came.wait()
                continue
            view = view[await self.send_some(view) :]

    async def send_some(self, data: memoryview) -> int:
        """Send what there is credit for now, one frame at most; return how many bytes that was.

        Raises:
            ConnectionError: The agent is gone.
        """
        part = bytes(data[: min(self._send_credit, frames.MAX_DATA)])
        if part:
            self._send_credit -= len(part)
            await self._send(frames.DATA, frames.STDIN, part)
        return len(part)

    async def send_eof(self) -> None:
        """End standard input."""
        if not self.over.is_set():
            await self._send(frames.EOF, frames.STDIN)

    async def signal(self, number: int) -> None:
        """Send a signal to the program, if it still runs."""
        if not self.over.is_set():
            await self._send(frames.SIGNAL, body=frames.encode_number(number))

    async def resize(self, columns: int, rows: int) -> None:
        """Set the size of the program's terminal, if it still runs."""
        if not self.over.is_set():
            await self._send(frames.RESIZE, body=frames.encode_size(columns, rows))

    async def kill(self) -> None:
        """Ask for the end of the program and all its descendants; ``over`` tells when."""
        if not self.over.is_set():
            await self._send(frames.KILL)

    async def give_credit(self, stream: int, count: int) -> None:
        """Give back credit for bytes that are done with, in worthwhile portions."""
        self._owed[stream] += count
        if self._owed[stream] >= frames.WINDOW // 2 and not self.over.is_set():
            owed, self._owed[stream] = self._owed[stream], 0
            self._allowed[stream] += owed
            await self._send(frames.CREDIT, stream, frames.encode_number(owed))

    async def handle(self, frame: frames.Frame) -> None:
        """Take a frame of the agent.

        Raises:
            ValueError: It breaks the protocol.
        """
        if frame.kind == frames.DATA:
            self._allowed[frame.stream] -= len(frame.body)
            if self._allowed[frame.stream] < 0:
                raise ValueError(f"more bytes on stream {frame.stream} than the credit given")
            self.bytes_seen += len(frame.body)
            done = self._sink.take(frame.stream, frame.body)
            await self.give_credit(frame.stream, done)
        elif frame.kind == frames.EOF:
            self._sink.end(frame.stream)
        elif frame.kind == frames.CREDIT:
            self._send_credit += frames.decode_number(frame.body)
            self._credit_came.set()
        elif frame.kind == frames.END:
            self._end(_report(frame.body))
        else:
            raise ValueError(f"frame of kind {frame.kind}")

    def lose(self) -> None:
        """Note that the agent is gone."""
        self._end(None)

    def _end(self, report: Mapping[str, Any] | None) -> None:
        self.report = report
        self.over.set()
        self._credit_came.set()
        for stream in _OUTPUTS:
            self._sink.end(stream)

    async def _send(self, kind: int, stream: int = 0, body: bytes = b"") -> None:
        await self._channel.send(frames.encode(kind, self.number, stream, body))


class AheadExchange(Exchange):
    """A context that was forked ahead: only its end comes over the channel."""

    def __init__(self, number: int, channel: Channel, sink: Sink, ahead: Ahead) -> None:
        super().__init__(number, channel, sink)
        self._ahead = ahead
        ahead.adopt(number, self._take, sink.end)

    async def send(self, data: bytes) -> None:
        """Send bytes to standard input; waits while the program does not read."""
        if not self.over.is_set():
            await self._ahead.send(data)

    async def send_eof(self) -> None:
        """End standard input."""
        self._ahead.send_eof()

    async def give_credit(self, stream: int, count: int) -> None:
        """Give back credit for bytes that are done with."""
        self._ahead.give_credit(stream, count)

    def lose(self) -> None:
        """Note that the agent is gone."""
        self._ahead.close()
        super().lose()

    def _take(self, stream: int, data: bytes) -> int:
        self.bytes_seen += len(data)
        return self._sink.take(stream, data)

    def _end(self, report: Mapping[str, Any] | None) -> None:
        if report is not None:
            self._ahead.read()  # what it left in its pipes
            self._ahead.close()
        super()._end(report)


class Exchanges:
    """All exchanges of one channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._live: dict[int, Exchange] = {}
        self.lost = False

    async def open(self, request: Mapping[str, Any], sink: Sink) -> Exchange:
        """Start something inside.

        Raises:
            ConnectionError: The agent is gone.
        """
        if self.lost:
            raise ConnectionError("the agent is gone")
        body = json.dumps(request).encode()
        if len(body) > frames.MAX_FRAME - 64:
            raise ValueError(f"request of {len(body)} bytes; write what is large to a file first")
        number = next(self._numbers)
        ahead = self._channel.take_ahead() if request == _ANY_CONTEXT else None
        if ahead is None:
            exchange = Exchange(number, self._channel, sink)
            first = frames.encode(frames.OPEN, number, body=body)
        else:
            exchange = AheadExchange(number, self._channel, sink, ahead)
            first = frames.encode(frames.ADOPT, number)
        self._live[number] = exchange
        self.begin(exchange)
        try:
            await self._channel.send(first)
        except BaseException:  # cancelled before the agent heard of it
            del self._live[exchange.number]
            if ahead is not None:
                ahead.close()
            raise
        return exchange

    def begin(self, exchange: Exchange) -> None:
        """Note that a call begins to wait for an exchange, and which others it runs beside."""
        others = [each for each in self._live.values() if each.busy and each is not exchange]
        exchange.busy, exchange.alone = True, not others
        for each in others:
            each.alone = False

    async def serve(self) -> None:
        """Hand every frame to its exchange until the agent is gone; one task runs this.

        Raises:
            ProtocolError: The agent broke the protocol.
            IntegrityError: What a sealed channel carried was changed on the way.
        """
        try:
            while True:
                await self.step()
        except ConnectionError:
            return
        finally:
            self.lost = True
            for exchange in self._live.values():
                exchange.lose()

    async def step(self) -> None:
        """Hand the next frame to its exchange; for who runs no ``serve``.

        Raises:
            ConnectionError: The agent is gone.
            ProtocolError: It broke the protocol.
            IntegrityError: What a sealed channel carried was changed on the way.
        """
        try:
            frame = frames.decode(await self._channel.receive())
            exchange = self._live[frame.exchange]
            await exchange.handle(frame)
            if exchange.over.is_set():
                del self._live[exchange.number]
        except IntegrityError:
            raise  # not the agent's doing, but of whoever carries the channel
        except KeyError as error:
            raise ProtocolError(f"the agent used exchange or stream {error}, not open") from error
        except ValueError as error:
            raise ProtocolError(f"the agent broke the protocol: {error}") from error


class Buffer:
    """A sink that keeps each stream's bytes until someone reads them."""

    def __init__(self) -> None:
        self._chunks: dict[int, deque[bytes]] = {stream: deque() for stream in _OUTPUTS}
        self._ended: set[int] = set()
        self._changed = anyio.Event()
        self._dropping = False
        self.dropped = 0

    def take(self, stream: int, data: bytes) -> int:
        """Keep bytes for a reader, who gives the credit back."""
        if self._dropping:
            self.dropped += len(data)
            return len(data)
        self._chunks[stream].append(data)
        self._wake()
        return 0

    def end(self, stream: int) -> None:
        """Note that a stream has ended."""
        self._ended.add(stream)
        self._wake()

    def has(self, stream: int) -> bool:
        """Whether ``next`` would return at once."""
        return bool(self._chunks[stream]) or stream in self._ended

    async def next(self, stream: int) -> bytes:
        """Return the next bytes of a stream, or ``b""`` at its end."""
        while not self._chunks[stream]:
            if stream in self._ended:
                return b""
            await self._changed.wait()
        return self._chunks[stream].popleft()

    def drop(self) -> dict[int, int]:
        """Drop what is kept and all that comes; return the bytes dropped now, per stream."""
        self._dropping = True
        gone = {stream: sum(map(len, chunks)) for stream, chunks in self._chunks.items()}
        for chunks in self._chunks.values():
            chunks.clear()
        self.dropped += sum(gone.values())
        return gone

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _report(body: bytes) -> Mapping[str, Any]:
    if len(body) > _LONGEST_REPORT:
        raise ValueError(f"report of {len(body)} bytes")
    report = json.loads(body)
    if not isinstance(report, dict):
        raise ValueError("report that is no object")  # noqa: TRY004 - a protocol fault, as others
    return cast("Mapping[str, Any]", report)
