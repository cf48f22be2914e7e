"""One file operation that runs inside, and what its answer is worth: the word of code inside."""

from __future__ import annotations

import contextlib
import errno as errors
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from sandbox_sdk.agent import frames
from sandbox_sdk.backends.exchanges import Buffer, Exchange
from sandbox_sdk.errors import FileError, ProtocolError
from sandbox_sdk.link import Link
from sandbox_sdk.values import MIB, EndKind, FileEvent, FileInfo

_LONGEST_MESSAGE = 200
_LONGEST_ANSWER = 8 * MIB
_LONGEST_EVENT = 64 * 1024


class FileCall:
    """One file operation that runs inside."""

    def __init__(self, link: Link, exchange: Exchange, buffer: Buffer) -> None:
        self._link, self._exchange, self._buffer = link, exchange, buffer

    async def send(self, data: bytes) -> None:
        """Send content to write."""
        async with self._link.explaining():
            await self._exchange.send(data)

    async def send_eof(self) -> None:
        """End the content to write."""
        async with self._link.explaining():
            await self._exchange.send_eof()

    async def content(self) -> AsyncIterator[bytes]:
        """Yield content as it is read inside."""
        while data := await self._next(frames.STDOUT):
            yield data

    async def events(self) -> AsyncIterator[FileEvent]:
        """Yield what a watch tells.

        Raises:
            ProtocolError: What came is no event.
        """
        rest = b""
        while data := await self._next(frames.STDOUT):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LONGEST_EVENT:
                raise ProtocolError(f"an event of more than {_LONGEST_EVENT} bytes")
            for line in lines:
                # It waits for what others do: from here on it is no call of its own.
                self._exchange.busy = False
                yield _event(line)

    async def answer(self, path: str) -> Mapping[str, Any]:
        """Wait for the operation's end and return what it said.

        Raises:
            FileError: It failed.
            SandboxEnded: The sandbox ended.
            ProtocolError: What came back is no answer.
        """
        text = bytearray()
        while data := await self._next(frames.RESULT):
            text += data
            if len(text) > _LONGEST_ANSWER:
                await self._link.kill(self._exchange)
                raise ProtocolError(
                    f"the answer to a file operation exceeds {_LONGEST_ANSWER} bytes"
                )
        await self._exchange.over.wait()
        if self._exchange.report is None:
            raise await self._link.why_ended()
        if not text:
            ended = await self._link.judge(self._exchange, None)
            word = "a limit on file size" if ended.signal else "no answer"
            raise FileError(
                f"{path}: the operation ended {ended} ({word})",
                sandbox_id=self._link.id,
                path=path,
                errno=errors.EFBIG if ended.kind is EndKind.SIGNAL else errors.EIO,
            )
        return _checked(bytes(text), path, self._link.id)

    async def abandon(self) -> None:
        """End the operation if it still runs."""
        if not self._exchange.over.is_set():
            await self._link.kill(self._exchange)

    async def _next(self, stream: int) -> bytes:
        data = await self._buffer.next(stream)
        with contextlib.suppress(ConnectionError):  # told by the operation's end
            await self._exchange.give_credit(stream, len(data))
        return data


def _checked(text: bytes, path: str, sandbox_id: str) -> Mapping[str, Any]:
    try:
        answer = json.loads(text)
        failed = answer.get("errno")
        message = str(answer.get("message"))[:_LONGEST_MESSAGE]
    except (ValueError, RecursionError, AttributeError) as error:
        raise ProtocolError(f"the answer to a file operation is no JSON object: {error}") from error
    if failed is not None:
        number = failed if isinstance(failed, int) else errors.EIO
        raise FileError(f"{path}: {message}", sandbox_id=sandbox_id, path=path, errno=number)
    checked: Mapping[str, Any] = answer
    return checked


def file_info(entry: Any) -> FileInfo:
    """Return a description; code inside can forge one, so its shape is checked whole.

    Raises:
        ProtocolError: It has another shape than agreed on.
    """
    match entry:
        case {
            "path": str(path),
            "kind": "file" | "directory" | "symlink" | "other" as kind,
            "size_bytes": int(size),
            "mode": int(mode),
            "modified_at": int(modified) | float(modified),
            "target": str(target) | (None as target),
        }:
            return FileInfo(
                path=path,
                kind=kind,
                size_bytes=size,
                mode=mode,
                modified_at=modified,
                target=target,
            )
        case _:
            raise ProtocolError("a file's description has not the shape agreed on")


def _event(line: bytes) -> FileEvent:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"an event of a watch is no JSON: {error}") from error
    match event:
        case {
            "kind": "started" | "created" | "modified" | "moved" | "removed" | "overflow" as kind,
            "path": str(path),
            "is_folder": bool(is_folder),
        }:
            old = event.get("old_path")
            if old is None or isinstance(old, str):
                return FileEvent(kind=kind, path=path, old_path=old, is_folder=is_folder)
        case _:
            pass
    raise ProtocolError("an event of a watch has not the shape agreed on")
