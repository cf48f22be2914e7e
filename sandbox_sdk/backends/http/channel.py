"""The client's end of a channel through a server, which survives lost connections."""

from __future__ import annotations

import itertools
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import attrs
from aiohttp import WSMsgType

from sandbox_sdk.backends.base import LimitHits
from sandbox_sdk.backends.http.connection import WebSocket
from sandbox_sdk.backends.protocol import (
    ACK_BYTES,
    ACK_FRAMES,
    CLOSE_ENDED,
    CLOSE_EXPIRED,
    CLOSE_LOST,
    CLOSE_REPLACED,
)
from sandbox_sdk.errors import (
    ConfigError,
    ProtocolError,
    SandboxClosed,
    SandboxError,
    SandboxNotFound,
    ServerUnavailable,
)
from sandbox_sdk.values import Ended, EndKind
from sandbox_sdk.wire import from_json

log = logging.getLogger("sandbox_sdk.http")

AGAIN_SECONDS = 20.0
"""How long a lost connection is tried again; the server waits a little longer."""

_CLOSE_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_WHY_LOST = {
    CLOSE_LOST: "the server lost the session",
    CLOSE_EXPIRED: "the credentials are no longer good",
    CLOSE_REPLACED: "another connection took the session over",
}

Connect = Callable[[dict[str, str]], Awaitable[WebSocket]]
"""Opens a WebSocket with a query."""

Prove = Callable[[], Awaitable[str | None]]
"""Returns what is sent now as ``Authorization``."""


@attrs.define(eq=False)
class Question:
    """A question to the server, which it answers in its turn.

    Attributes:
        answered: Set by the answer, or once none will come.
        hits: The answer; ``None`` if the connection was lost meanwhile.
    """

    answered: anyio.Event = attrs.field(factory=anyio.Event)
    hits: LimitHits | None = None


class HttpChannel:
    """Frames over a WebSocket. ``receive`` has one user at a time, who keeps receiving.

    What was sent is kept until the server has it: no more than the agent gave credit for.

    Attributes:
        why: What ended it, where that was not the sandbox's end.
    """

    def __init__(self, connect: Connect, prove: Prove) -> None:
        self.why: Ended | None = None
        self._connect = connect
        self._prove = prove
        self._token = secrets.token_hex(16)
        self._socket: WebSocket | None = None
        self._over = False
        self._received = 0
        self._since_ack = [0, 0]  # frames, bytes
        self._kept: list[bytes] = []
        self._first = 0
        self._sending = anyio.Lock(fast_acquire=True)  # guards _kept, and the order of frames
        self._numbers = itertools.count(1)
        self._questions: dict[int, Question] = {}

    async def open(self) -> None:
        """Connect.

        Raises:
            SandboxError: The server refused, or did not answer.
        """
        socket = await self._connect({"session": self._token})
        await _greeting(socket)
        self._socket = socket

    def take_ahead(self) -> None:
        """Return nothing: contexts are asked for over the channel."""

    async def send(self, frame: bytes) -> None:
        """Send a frame; waits while the server does not read.

        Raises:
            ConnectionError: The agent, or the way to it, is gone.
        """
        async with self._sending:
            if self._over:
                raise ConnectionError("the channel is over")
            self._kept.append(frame)
            if self._socket is not None:
                # What has been kept will come to the agent, so nobody may take it for unsent.
                with anyio.CancelScope(shield=True):
                    await self._write(self._socket, frame)

    async def receive(self) -> bytes:
        """Return the next frame; a lost connection is made anew meanwhile.

        Raises:
            ConnectionError: The agent, or the way to it, is gone, or the server says nonsense.
        """
        while True:
            socket = self._socket
            if socket is None:
                await self._resume()
                continue
            message = await socket.receive()
            if message.type is WSMsgType.BINARY:
                frame: bytes = message.data
                await self._count(frame)
                return frame
            if message.type is WSMsgType.TEXT:
                try:
                    await self._hear(message.data)
                except ProtocolError as error:  # the server's doing, and nothing of the sandbox's
                    raise self._give_up(error.message) from error
            else:
                self._lose(socket.close_code)

    async def ask(self) -> Question | None:
        """Ask what the kernel counted before what is sent next; ``None`` if nobody is connected."""
        socket = self._socket
        if socket is None or self._over:
            return None
        number, question = next(self._numbers), Question()
        self._questions[number] = question
        try:
            await socket.send_str(json.dumps({"ask": number}))
        except BaseException as error:
            del self._questions[number]
            if isinstance(error, ConnectionError):
                return None
            raise
        return question

    async def aclose(self) -> None:
        """Take leave of the server, which ends all that runs in this session. Idempotent."""
        self._end()
        socket, self._socket = self._socket, None
        if socket is not None:
            with anyio.move_on_after(_CLOSE_SECONDS):  # a dead server does not answer
                await socket.close()

    async def _write(self, socket: WebSocket, frame: bytes) -> None:
        try:
            await socket.send_bytes(frame)
        except ConnectionError:
            return  # whoever receives notices, and sends it again

    async def _count(self, frame: bytes) -> None:
        self._received += 1
        self._since_ack[0] += 1
        self._since_ack[1] += len(frame)
        if self._since_ack[0] >= ACK_FRAMES or self._since_ack[1] >= ACK_BYTES:
            self._since_ack = [0, 0]
            if self._socket is not None:
                try:
                    await self._socket.send_str(json.dumps({"ack": self._received}))
                except ConnectionError:
                    return  # the next connection begins with the count

    async def _hear(self, text: str) -> None:
        match _loads(text):
            case {"ack": int() as count}:
                async with self._sending:
                    self._forget(count)
            case {"answer": int() as number, "limit_hits": hits}:
                counted = _hits(hits)
                if (question := self._questions.pop(number, None)) is not None:
                    question.hits = counted
                    question.answered.set()
            case {"renew": True}:
                await self._renew()
            case said:
                raise ProtocolError(f"the server said {str(said)[:100]!r}")

    async def _renew(self) -> None:
        """Send newer credentials; where there are none, the server hangs up when these end."""
        try:
            header = await self._prove()
            if header is not None and self._socket is not None:
                await self._socket.send_str(json.dumps({"renew": header}))
        except (SandboxError, ConnectionError) as error:
            log.warning("channel.not_renewed", extra={"reason": str(error)})

    def _forget(self, count: int) -> None:
        gone = count - self._first
        if not 0 <= gone <= len(self._kept):
            raise ProtocolError(f"the server has {count} frames of those sent, which cannot be")
        del self._kept[:gone]
        self._first = count

    def _lose(self, code: int | None) -> None:
        """Take note of a closed connection.

        Raises:
            ConnectionError: It was closed for good.
        """
        self._socket = None
        self._drop_questions()
        if code == CLOSE_ENDED or self._over:
            self._end()
            raise ConnectionError("the sandbox has ended, or the channel was closed")
        if code in _WHY_LOST:
            raise self._give_up(_WHY_LOST[code])

    async def _resume(self) -> None:
        """Connect again, and send what never came.

        Raises:
            ConnectionError: That was in vain.
        """
        pause, last = _FIRST_PAUSE, "nothing answered"
        with anyio.move_on_after(AGAIN_SECONDS):
            while not self._over:
                query = {"session": self._token, "received": str(self._received)}
                try:
                    socket = await self._connect(query)
                    received, resumed = await _greeting(socket)
                except (SandboxClosed, SandboxNotFound) as error:
                    self._end()
                    raise ConnectionError("the sandbox has ended") from error
                except ServerUnavailable as error:
                    last = str(error)
                    await anyio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                    continue
                except ProtocolError as error:
                    raise self._give_up(error.message) from error
                if not resumed:
                    await socket.close()
                    raise self._give_up("the server lost the session")
                async with self._sending:
                    try:
                        self._forget(received)
                    except ProtocolError as error:
                        await socket.close()
                        raise self._give_up(error.message) from error
                    self._since_ack = [0, 0]
                    for frame in self._kept:
                        await self._write(socket, frame)
                    self._socket = socket
                return
        raise self._give_up(f"the connection was lost, and {last}")

    def _give_up(self, why: str) -> ConnectionError:
        if not self._over:
            self.why = Ended(kind=EndKind.INFRA, detail=why)
        self._end()
        return ConnectionError(why)

    def _end(self) -> None:
        self._over = True
        self._drop_questions()

    def _drop_questions(self) -> None:
        """Tell whoever asked that no answer will come."""
        for question in self._questions.values():
            question.answered.set()
        self._questions.clear()


async def _greeting(socket: WebSocket) -> tuple[int, bool]:
    """Return how many frames the server has of this session, and whether it knew it.

    Raises:
        ServerUnavailable: The connection was lost at once.
        ProtocolError: It says something else.
    """
    message = await socket.receive()
    if message.type is WSMsgType.TEXT:
        match _loads(message.data):
            case {"received": int() as received, "resumed": bool() as resumed}:
                return received, resumed
            case said:
                raise ProtocolError(f"the server began with {str(said)[:100]!r}")
    if socket.close_code == CLOSE_LOST:
        return 0, False
    raise ServerUnavailable("the server hung up at once")


def _hits(said: object) -> LimitHits:
    try:
        return from_json(LimitHits, said, lenient=True)
    except ConfigError as error:
        raise ProtocolError(f"the server counted what is no count: {error}") from error


# Any: what JSON gave, for the patterns to look at.
def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the server said what is no JSON: {error}") from error
