"""Files inside a sandbox, read and written with the authority of the code inside."""

from __future__ import annotations

import errno as errors
import hashlib
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from typing import Any, cast

import anyio

from sandbox_sdk import requests
from sandbox_sdk.backends.exchanges import Buffer
from sandbox_sdk.errors import FileError, ProtocolError, SandboxBusy
from sandbox_sdk.file_calls import FileCall, file_info
from sandbox_sdk.link import Link
from sandbox_sdk.values import MIB, FileEvent, FileInfo

LARGEST_READ = 64 * MIB
"""Most bytes that ``read`` returns unless told otherwise; ``read_stream`` has no bound."""

_LONGEST_PATH = 4095  # the kernel's PATH_MAX without its NUL


class AsyncFiles:
    """File operations inside a sandbox.

    A path is absolute, or relative to ``/workspace``. What fails inside raises ``FileError`` with
    the kernel's ``errno``; what is read is whatever the code inside left there.
    """

    def __init__(
        self,
        link: Callable[[], Awaitable[Link]],
        sandbox_id: str,
        read_at_rest: Callable[[str, str], AsyncIterator[bytes]],
    ) -> None:
        self._link = link
        self._id = sandbox_id
        self._read_at_rest = read_at_rest

    async def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """Return a file's content.

        Args:
            path: The file.
            max_bytes: Most bytes to return; ``None`` is 64 MiB.

        Raises:
            FileError: It is missing, no regular file, not permitted, or larger (``EFBIG``).
        """
        asked = requests.count(max_bytes, "max_bytes")
        most = LARGEST_READ if asked is None else asked
        content = bytearray()
        async with aclosing(self._pieces(path)) as pieces:
            async for data in pieces:
                content += data
                if len(content) > most:
                    raise FileError(
                        f"{path} is larger than {most} bytes: pass a larger max_bytes=, or use "
                        "read_stream() or download()",
                        sandbox_id=self._id,
                        path=path,
                        errno=errors.EFBIG,
                    )
        return bytes(content)

    async def read_text(self, path: str, *, max_bytes: int | None = None) -> str:
        """Return a file's content as UTF-8 text, undecodable bytes replaced.

        Raises:
            FileError: As ``read``.
        """
        return (await self.read(path, max_bytes=max_bytes)).decode("utf-8", "replace")

    async def read_stream(self, path: str) -> AsyncIterator[bytes]:
        """Yield a file's content in pieces of at most 64 KiB, whatever its size.

        A file in the workspace of a sandbox that another process holds is read too, but then no
        link is followed.

        Raises:
            FileError: It is missing, no regular file, or not permitted.
        """
        async with aclosing(self._pieces(path)) as pieces:
            async for data in pieces:
                yield data

    async def write(self, path: str, data: bytes | str) -> None:
        """Write a file whole, its parent folders included; a reader sees the old or the new.

        Args:
            path: The file.
            data: Its content; text is written as UTF-8.

        Raises:
            FileError: Not permitted, a limit on size was hit, or a folder is in the way.
        """
        content = requests.content(data, "data")

        async def pieces() -> AsyncIterator[bytes]:
            yield content

        await self.write_stream(path, pieces())

    async def write_stream(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        """Write a file from pieces as they come; it appears when the last has been written.

        Raises:
            FileError: As ``write``.
        """
        self._check_path(path, "path")
        link = await self._link()
        with link.watching("file.write", path=path) as watched:
            sha256, size = hashlib.sha256(), 0
            call = await self._start({"op": "write", "path": path})
            try:
                async for data in chunks:
                    if link.watched:
                        sha256.update(data)
                        size += len(data)
                    await call.send(data)
                await call.send_eof()
                await call.answer(path)
            finally:
                await call.abandon()
            if link.watched:
                watched.wrote(sha256=sha256.hexdigest(), bytes=size)

    async def upload(self, local_path: str | os.PathLike[str], path: str) -> None:
        """Copy a local file into the sandbox.

        Raises:
            FileError: As ``write``.
            OSError: The local file cannot be read.
        """
        async with await anyio.open_file(local_path, "rb") as file:

            async def pieces() -> AsyncIterator[bytes]:
                while data := await file.read(MIB):
                    yield data

            await self.write_stream(path, pieces())

    async def download(self, path: str, local_path: str | os.PathLike[str]) -> None:
        """Copy a file out of the sandbox to a new or replaced local file.

        The local file appears when the copy is complete.

        Raises:
            FileError: As ``read_stream``.
            OSError: The local file cannot be written.
        """
        target = anyio.Path(local_path)
        beside = target.with_name(f"{target.name}.part")
        try:
            async with (
                await anyio.open_file(beside, "wb") as file,
                aclosing(self._pieces(path)) as pieces,
            ):
                async for data in pieces:
                    await file.write(data)
            await beside.rename(target)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await beside.unlink(missing_ok=True)
            raise

    async def list(self, path: str = ".") -> list[FileInfo]:
        """Return what is in a folder, sorted by name; links are described, not followed.

        Raises:
            FileError: It is missing, no folder, or holds more than 10,000 entries (``EFBIG``).
        """
        answer = await self._ask({"op": "list", "path": path})
        if not answer.get("complete"):
            raise FileError(
                f"{path} holds more than 10000 entries: list them with a command",
                sandbox_id=self._id,
                path=path,
                errno=errors.EFBIG,
            )
        entries: Any = answer.get("entries")
        if not isinstance(entries, Sequence):
            raise ProtocolError("a folder's description has not the shape agreed on")
        return [file_info(entry) for entry in cast("Sequence[object]", entries)]

    async def stat(self, path: str) -> FileInfo:
        """Return what a path is; a link is described, not followed.

        Raises:
            FileError: It is missing.
        """
        return file_info(await self._ask({"op": "stat", "path": path}))

    async def exists(self, path: str) -> bool:
        """Return whether something is there, a link that leads nowhere included."""
        try:
            await self.stat(path)
        except FileError as error:
            if error.errno in (errors.ENOENT, errors.ENOTDIR):
                return False
            raise
        return True

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file or link, or a folder.

        Args:
            path: What to remove.
            recursive: Whether a folder goes with all that is in it; else it must be empty.

        Raises:
            FileError: It is missing, not empty, or not permitted.
        """
        await self._change({"op": "remove", "path": path, "recursive": recursive})

    async def move(self, path: str, target: str) -> None:
        """Rename a file or folder, replacing a file at the target.

        Raises:
            FileError: It is missing, or the target is a folder that is not empty.
        """
        await self._change({"op": "move", "path": path, "target": target})

    async def make_dir(self, path: str) -> None:
        """Make a folder and its parents; nothing happens if it is there.

        Raises:
            FileError: Something else is in the way, or not permitted.
        """
        await self._change({"op": "make_dir", "path": path})

    async def watch(self, path: str = ".", *, recursive: bool = True) -> AsyncIterator[FileEvent]:
        """Yield what changes in a folder, as it happens; close the iterator to end the watch.

        The first event is ``started``: what happens after it is told. Writes to a file in quick
        succession may be one event. Who reads too slowly is told of the loss by ``overflow``.

        Args:
            path: A folder, or a file. If it is itself removed or moved away, the iterator ends.
            recursive: Whether folders below are watched too, those made later included.

        Raises:
            FileError: It is missing or not permitted; or there are too many folders (``ENOSPC``),
                at most 8192 in one watch.
            SandboxEnded: The sandbox has ended.
        """
        call = await self._start({"op": "watch", "path": path, "recursive": bool(recursive)})
        try:
            async for event in call.events():
                yield event
            await call.answer(path)
        finally:
            await call.abandon()

    async def _pieces(self, path: str) -> AsyncGenerator[bytes, None]:
        try:
            call = await self._start({"op": "read", "path": path})
        except SandboxBusy:
            async for data in self._read_at_rest(self._id, path):
                yield data
            return
        try:
            async for data in call.content():
                yield data
            await call.answer(path)
        finally:
            await call.abandon()

    async def _change(self, request: Mapping[str, Any]) -> None:
        """Have something changed, of which whoever watches takes note."""
        about = {name: request[name] for name in ("path", "target", "recursive") if name in request}
        self._check_path(request["path"], "path")
        with (await self._link()).watching(f"file.{request['op']}", **about):
            await self._ask(request)

    async def _ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        call = await self._start(request)
        return await call.answer(request["path"])

    def _check_path(self, path: str, name: str) -> None:
        if isinstance(path, str) and "\0" in path:
            what, number = "holds a NUL character, which no path can", errors.EINVAL
        elif len(requests.text(path, name)) > _LONGEST_PATH:
            path = f"{path[:60]}..."
            what, number = "is longer than the kernel takes", errors.ENAMETOOLONG
        else:
            return
        raise FileError(f"{name} {path!r} {what}", sandbox_id=self._id, path=path, errno=number)

    async def _start(self, request: Mapping[str, Any]) -> FileCall:
        for name in ("path", "target"):
            if name in request:
                self._check_path(request[name], name)
        link = await self._link()
        buffer = Buffer()
        exchange = await link.start({"kind": "file", **request}, buffer)
        return FileCall(link, exchange, buffer)
