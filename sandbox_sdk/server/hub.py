"""One running sandbox as a server holds it: its one channel, shared by the clients' lines."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

import anyio

from sandbox_sdk.agent import frames
from sandbox_sdk.backends.base import Backend, Channel
from sandbox_sdk.backends.protocol import MOST_UNACKNOWLEDGED
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.errors import ProtocolError, QuotaExceeded, SandboxClosed
from sandbox_sdk.server.line import Line

log = logging.getLogger("sandbox_sdk.server")

GRACE_SECONDS = 30.0
"""How long a line whose connection was lost waits for its client."""

_IDLE = frames.encode_number(0)

# What an agent that was told to hold may still have under way, many times over.
_MOST_KEPT = 16 * MOST_UNACKNOWLEDGED


class Hub:
    """The channel of one running sandbox. ``serve`` runs for as long as the sandbox does.

    Frames pass in envelopes that name the line; what is in them is between client and agent.

    Attributes:
        id: The sandbox.
        ready: Set when the channel is open, or never will be.
        over: Whether the sandbox has ended.
    """

    def __init__(
        self, id: str, backend: Backend, supervisor: Supervisor, forget: Callable[[Hub], None]
    ) -> None:
        self.id = id
        self.ready = anyio.Event()
        self.over = False
        self._backend = backend
        self._supervisor = supervisor
        self._forget = forget
        self._channel: Channel | None = None
        self._lines: dict[str, Line] = {}
        self._by_number: dict[int, Line] = {}
        self._numbers = itertools.count(1)

    @property
    def busy(self) -> bool:
        """Whether anything runs in it that a client asked for."""
        return any(line.busy for line in self._lines.values())

    async def serve(self) -> None:
        """Hand the agent's frames to their lines until it is gone; one task runs this."""
        try:
            async with self._backend.connect(self.id) as channel:
                self._channel = channel
                self.ready.set()
                while True:
                    await self._take(await channel.receive())
        except (ConnectionError, KeyError):  # it has ended, perhaps before it was connected to
            log.debug("server.channel_over", extra={"sandbox_id": self.id})
        except ProtocolError as error:
            log.warning(
                "server.protocol_broken", extra={"sandbox_id": self.id, "reason": str(error)}
            )
        finally:
            self._end()

    def check(self, token: str, owner: str, *, most: int) -> None:
        """Go on if ``attach`` may be called.

        Args:
            token: What the client calls its line.
            owner: Who the client is; a line is nobody else's.
            most: How many there may be.

        Raises:
            SandboxClosed: The sandbox does not run.
            QuotaExceeded: There are as many as there may be.
        """
        if self.over:
            raise not_running(self.id)
        line = self._lines.get(token)
        may = len(self._lines) < most if line is None else line.owner == owner
        if not may:
            raise QuotaExceeded(
                f"sandbox {self.id} has {len(self._lines)} connections, as many as it may: close "
                "a client that uses it",
                sandbox_id=self.id,
            )

    def attach(self, token: str, owner: str) -> Line:
        """Return the line of this token: the one that waits for its client, or a new one."""
        if token not in self._lines:
            line = self._lines[token] = Line(next(self._numbers), token, owner)
            self._by_number[line.number] = line
        return self._lines[token]

    async def forward(self, line: Line, frame: bytes) -> None:
        """Send a client's frame to the agent; waits while it does not read.

        Raises:
            ConnectionError: The agent is gone.
        """
        await self._send(frames.RELAY, line, frame)

    async def acknowledge(self, line: Line, count: int) -> None:
        """Note how many frames the client has, and let more come if it was behind.

        Raises:
            ValueError: It cannot have so many.
            ConnectionError: The agent is gone.
        """
        line.forget(count)
        if line.held and line.kept < MOST_UNACKNOWLEDGED // 2:
            line.held = False
            await self._send(frames.FLOW, line)

    async def detach(self, line: Line) -> None:
        """End a line, and all that runs in it."""
        if self._lines.get(line.token) is line:
            del self._lines[line.token], self._by_number[line.number]
            line.drop()
            try:
                await self._send(frames.DETACH, line)
            except ConnectionError:
                return  # the sandbox ended, and with it all that ran

    async def left(self, line: Line) -> None:
        """Let a line whose connection was lost wait for its client for a while."""
        if not self.over:
            await self._supervisor.start_soon(self._expire, line, line.turn)

    async def _expire(self, line: Line, turn: int) -> None:
        await anyio.sleep(GRACE_SECONDS)
        if line.turn == turn:
            await self.detach(line)

    async def _take(self, data: bytes) -> None:
        """Take a frame of the agent.

        Raises:
            ProtocolError: It is none that an agent sends to a server.
        """
        frame = frames.decode(data)  # of a channel that refuses what is none
        line = self._by_number.get(frame.exchange)
        if line is None:
            return  # it was ended meanwhile
        if frame.kind == frames.BUSY:
            line.busy = frame.body != _IDLE
        elif frame.kind == frames.RELAY:
            await self._keep(line, frame.body)
        else:
            raise self._broken(f"a frame of kind {frame.kind}")

    def _broken(self, what: str) -> ProtocolError:
        return ProtocolError(f"the agent broke the protocol: {what}", sandbox_id=self.id)

    async def _keep(self, line: Line, frame: bytes) -> None:
        line.keep(frame)
        if line.kept > _MOST_KEPT:
            raise self._broken("it sends on what it was told to hold")
        if line.kept > MOST_UNACKNOWLEDGED and not line.held:
            line.held = True
            await self._send(frames.HOLD, line)

    async def _send(self, kind: int, line: Line, body: bytes = b"") -> None:
        if self._channel is None or self.over:
            raise ConnectionError("the agent is gone")
        await self._channel.send(frames.encode(kind, line.number, body=body))

    def _end(self) -> None:
        self.over = True
        self.ready.set()
        for line in self._lines.values():
            line.drop()
        self._forget(self)


def not_running(id: str) -> SandboxClosed:
    """Return the error for a sandbox that was not started; the caller raises it."""
    return SandboxClosed(f"sandbox {id} does not run: start it first", sandbox_id=id)
