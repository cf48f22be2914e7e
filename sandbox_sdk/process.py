"""A command that runs inside while the caller goes on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import attrs

from sandbox_sdk import requests
from sandbox_sdk.agent import frames
from sandbox_sdk.backends.exchanges import Buffer, Exchange
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.link import Link
from sandbox_sdk.values import Ended, EndKind


class AsyncProcess:
    """A running command: read its output as it comes, write to it, signal it, wait for it.

    Output that nobody reads makes the command wait, as a full pipe does. On a terminal all output
    is ``stdout``, and what is written is typed: byte 3 is Ctrl-C, byte 4 Ctrl-D.
    """

    def __init__(
        self, link: Link, exchange: Exchange, buffer: Buffer, *, on_terminal: bool
    ) -> None:
        self._link = link
        self._on_terminal = on_terminal
        self._exchange = exchange
        self._buffer = buffer
        self._killed: Ended | None = None

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        """Standard output as it comes, in pieces of any length; ends when the command ends."""
        return self._stream(frames.STDOUT)

    @property
    def stderr(self) -> AsyncIterator[bytes]:
        """Standard error as it comes, in pieces of any length; ends when the command ends."""
        return self._stream(frames.STDERR)

    async def write(self, data: bytes | str) -> None:
        """Write to standard input, text as UTF-8; waits while the command does not read.

        What a command that has ended did not read is dropped.

        Raises:
            ConfigError: It is neither bytes nor text.
            SandboxEnded: The sandbox has ended.
        """
        content = requests.content(data, "data")
        async with self._link.explaining():
            await self._exchange.send(content)

    async def close_stdin(self) -> None:
        """End standard input; the command reads end of file after what was written.

        On a terminal that is Ctrl-D, which a command in raw mode reads as a key like others.
        """
        async with self._link.explaining():
            await self._exchange.send_eof()

    async def resize(self, columns: int, rows: int) -> None:
        """Set the size of the command's terminal; its programs get ``SIGWINCH``.

        Nothing happens once the command has ended.

        Raises:
            ConfigError: It was started without a terminal, or there is no such size.
            SandboxEnded: The sandbox has ended.
        """
        if not self._on_terminal:
            raise ConfigError("resize: the command has no terminal; start it with tty=True")
        size = requests.terminal(columns, rows)
        async with self._link.explaining():
            await self._exchange.resize(**size)

    async def signal(self, number: int) -> None:
        """Send a signal to the command itself; nothing happens once it has ended.

        Args:
            number: For example ``signal.SIGINT``.

        Raises:
            ConfigError: There is no such signal.
        """
        known = requests.signal_number(number)
        async with self._link.explaining():
            await self._exchange.signal(known)

    async def kill(self) -> None:
        """End the command and all its descendants, and wait until they are gone."""
        if not self._exchange.over.is_set():
            self._killed = Ended(kind=EndKind.CANCELLED, detail="killed by the caller")
        await self._link.kill(self._exchange)

    async def wait(self) -> Ended:
        """Wait for the end and return how the command ended.

        Output that has not been read by now is dropped, and counted in ``bytes_seen``.
        """
        for stream, count in self._buffer.drop().items():
            await self._give_back(stream, count)
        await self._exchange.over.wait()
        ended = await self._link.judge(self._exchange, self._killed)
        seen = self._exchange.bytes_seen
        return attrs.evolve(
            ended,
            truncated=self._buffer.dropped > 0,
            bytes_seen=seen,
            bytes_kept=seen - self._buffer.dropped,
        )

    async def _stream(self, stream: int) -> AsyncIterator[bytes]:
        while data := await self._buffer.next(stream):
            await self._give_back(stream, len(data))
            yield data

    async def _give_back(self, stream: int, count: int) -> None:
        # With the agent gone, what arrived can still be read.
        with contextlib.suppress(ConnectionError):
            await self._exchange.give_credit(stream, count)


async def start(link: Link, request: dict[str, object]) -> AsyncProcess:
    """Start a command.

    Raises:
        SandboxEnded: The sandbox has ended.
    """
    buffer = Buffer()
    exchange = await link.start({"kind": "command", **request}, buffer)
    return AsyncProcess(link, exchange, buffer, on_terminal="terminal" in request)
