"""What a client does inside a sandbox by itself, over a channel that nobody else uses meanwhile.

What comes from there is hostile: paths are only data, and everything is bounded.
"""

from __future__ import annotations

import errno
import json
import mimetypes
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import attrs

from sandbox_sdk.agent import frames
from sandbox_sdk.backends.base import Channel
from sandbox_sdk.backends.exchanges import Buffer, Exchange, Exchanges
from sandbox_sdk.backends.http import shelving
from sandbox_sdk.engine import extract
from sandbox_sdk.errors import FileError, ProtocolError, SandboxEnded
from sandbox_sdk.values import Artifact, Collected, Ended, EndKind, Shelf

_LONGEST_ANSWER = 64 * 1024
_LONGEST_NAME = 64 * 1024
_MOST_FOUND = 100_000
_MOST_SKIPPED = 1000
_VARIABLES_BYTES = frames.MAX_FRAME // 8  # before JSON, which may write a byte as six
_WORKSPACE = "/workspace"


async def set_variables(channel: Channel, variables: Mapping[str, str]) -> None:
    """Have the agent give all that starts from now on these variables.

    Raises:
        ConnectionError: The agent is gone.
    """
    some: dict[str, str] = {}
    size = 0
    for name, value in variables.items():
        if some and size + len(name) + len(value) > _VARIABLES_BYTES:
            await _send_variables(channel, some)
            some, size = {}, 0
        some[name] = value
        size += len(name) + len(value)
    if some:
        await _send_variables(channel, some)


async def _send_variables(channel: Channel, variables: Mapping[str, str]) -> None:
    await channel.send(frames.encode(frames.VARIABLES, body=json.dumps(variables).encode()))


class Inside:
    """Files of a running sandbox.

    Args:
        id: The sandbox.
        channel: To its agent; quiet again after each call.
    """

    def __init__(self, id: str, channel: Channel) -> None:
        self._id = id
        self._exchanges = Exchanges(channel)

    async def write(self, path: str, content: bytes) -> None:
        """Write a file, its parent folders included.

        Raises:
            FileError: It cannot be written.
            SandboxEnded: The sandbox has ended.
            ProtocolError: What came back is no answer.
        """
        async with self._call("write", path=path) as call:
            await call.send(content)
            await call.finish(path)

    async def read(self, path: str) -> AsyncGenerator[bytes]:
        """Yield a file's content.

        Raises:
            FileError: It cannot be read.
            SandboxEnded: The sandbox has ended.
            ProtocolError: What came back is no answer.
        """
        async with self._call("read", path=path) as call:
            async for data in call.output():
                yield data
            await call.finish(path)

    async def collect(
        self, patterns: Sequence[str], shelf: Shelf, bounds: extract.Bounds | None = None
    ) -> Collected:
        """Copy the regular files that match onto a shelf.

        Raises:
            SandboxEnded: The sandbox has ended.
            ProtocolError: What came back is no answer.
            OSError: The shelf cannot be written.
        """
        limits = bounds or extract.Bounds()
        artifacts: list[Artifact] = []
        skipped: dict[str, str] = {}
        left = limits.bytes
        for path, why in await self._find(extract.expression(patterns), skipped):
            shown = extract.shown(path)
            if not why and len(artifacts) >= limits.files:
                why = f"more than {limits.files} files match"
            if not why:
                kept = await self._keep(path, shelf, left)
                if isinstance(kept, Artifact):
                    artifacts.append(kept)
                    left -= kept.size_bytes
                    continue
                why = kept
            if len(skipped) < _MOST_SKIPPED:
                skipped[shown] = why
            else:
                skipped["..."] = f"more than {_MOST_SKIPPED} files were left out"
        return Collected(artifacts=tuple(artifacts), skipped=skipped)

    async def _find(self, pattern: str, skipped: dict[str, str]) -> list[tuple[str, str]]:
        """Return the paths that match, and why each is no file that leaves, if so."""
        found: list[tuple[str, str]] = []
        rest = b""
        async with self._call("find", path=_WORKSPACE, pattern=pattern) as call:
            async for data in call.output():
                *lines, rest = (rest + data).split(b"\n")
                found += map(_found, lines)
                if len(rest) > _LONGEST_NAME or len(found) > _MOST_FOUND:
                    skipped["..."] = f"more than {_MOST_FOUND} names match"
                    return found[:_MOST_FOUND]
            try:
                await call.finish(_WORKSPACE)
            except FileError as error:  # code inside shut its own workspace
                skipped["./"] = error.message
        return found

    async def _keep(self, path: str, shelf: Shelf, left: int) -> Artifact | str:
        """Copy one file, or return why it does not leave."""
        there = f"{_WORKSPACE}/{path}"
        try:
            digest, size = await shelving.keep(shelf, self._some(there, left))
        except FileError as error:
            return f"cannot be opened: {error.message.removeprefix(f'{there}: ')}"
        except _TooLarge:
            return "larger than what may still be copied"
        return Artifact(
            path=extract.shown(path),
            size_bytes=size,
            sha256=digest,
            media_type=mimetypes.guess_type(path)[0] or "application/octet-stream",
        )

    async def _some(self, path: str, left: int) -> AsyncGenerator[bytes]:
        async with aclosing(self.read(path)) as pieces:
            async for data in pieces:
                left -= len(data)
                if left < 0:
                    raise _TooLarge
                yield data

    @asynccontextmanager
    async def _call(self, op: str, **what: object) -> AsyncGenerator[_Call]:
        buffer = Buffer()
        request = {"kind": "file", "op": op, **what}
        try:
            exchange = await self._exchanges.open(request, buffer)
            try:
                yield _Call(self._id, self._exchanges, exchange, buffer)
            finally:
                if not exchange.over.is_set():
                    with anyio.CancelScope(shield=True):
                        await exchange.kill()
        except ConnectionError as error:
            raise _ended(self._id) from error


@attrs.frozen
class _Call:
    """One file operation that runs inside; whoever waits for it serves the channel meanwhile."""

    id: str
    exchanges: Exchanges
    exchange: Exchange
    buffer: Buffer

    async def send(self, content: bytes) -> None:
        """Send all that it reads."""
        view = memoryview(content)
        while view and not self.exchange.over.is_set():
            sent = await self.exchange.send_some(view)
            if not sent:
                await self.exchanges.step()
            view = view[sent:]
        await self.exchange.send_eof()

    async def output(self) -> AsyncIterator[bytes]:
        while data := await self._next(frames.STDOUT):
            yield data
            await self.exchange.give_credit(frames.STDOUT, len(data))

    async def finish(self, path: str) -> None:
        """Wait for its end; raises what its answer says."""
        text = bytearray()
        while data := await self._next(frames.RESULT):
            text += data
            if len(text) > _LONGEST_ANSWER:
                raise ProtocolError(f"an answer of more than {_LONGEST_ANSWER} bytes")
            await self.exchange.give_credit(frames.RESULT, len(data))
        while not self.exchange.over.is_set():
            await self.exchanges.step()
        match _loads(bytes(text) or b"[]"):
            case {"errno": int() as number, "message": str() as message}:
                what = message[:200]
            case {}:
                return
            case _:
                number, what = errno.EIO, "the operation gave no answer"
        raise FileError(f"{path}: {what}", sandbox_id=self.id, path=path, errno=number)

    async def _next(self, stream: int) -> bytes:
        while not self.buffer.has(stream):
            await self.exchanges.step()
        return await self.buffer.next(stream)


class _TooLarge(Exception):
    """A file has more bytes than may still be copied."""


def _found(line: bytes) -> tuple[str, str]:
    match _loads(line):
        case {"path": str(path), "why": str(why)} if _is_inside(path):
            return path, why[:200]
        case _:
            raise ProtocolError("a name of a workspace has not the shape agreed on")


def _is_inside(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False  # the name of no file
    return bool(path) and "\0" not in path and path[0] != "/" and ".." not in path.split("/")


# Any: what JSON gave, for the patterns to look at.
def _loads(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"what came from inside is no JSON: {error}") from error


def _ended(id: str) -> SandboxEnded:
    ended = Ended(kind=EndKind.SANDBOX_DIED, detail="its channel was lost")
    return SandboxEnded(f"sandbox {id} has ended meanwhile", sandbox_id=id, ended=ended)
