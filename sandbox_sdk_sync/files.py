# Generated from sandbox_sdk/files.py. Edit that, then run: nox -s generate -- --write
"""Files inside a sandbox, read and written with the authority of the code inside."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from sandbox_sdk.files import AsyncFiles
from sandbox_sdk.values import FileEvent, FileInfo
from sandbox_sdk_sync._twin import Twin, feed


class Files(Twin[AsyncFiles]):
    """File operations inside a sandbox.

    A path is absolute, or relative to ``/workspace``. What fails inside raises ``FileError`` with
    the kernel's ``errno``; what is read is whatever the code inside left there.
    """

    def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """Return a file's content.

        Args:
            path: The file.
            max_bytes: Most bytes to return; ``None`` is 64 MiB.

        Raises:
            FileError: It is missing, no regular file, not permitted, or larger (``EFBIG``).
        """
        return self._call(self._core.read, path, max_bytes=max_bytes)

    def read_text(self, path: str, *, max_bytes: int | None = None) -> str:
        """Return a file's content as UTF-8 text, undecodable bytes replaced.

        Raises:
            FileError: As ``read``.
        """
        return self._call(self._core.read_text, path, max_bytes=max_bytes)

    def read_stream(self, path: str) -> Iterator[bytes]:
        """Yield a file's content in pieces of at most 64 KiB, whatever its size.

        A file in the workspace of a sandbox that another process holds is read too, but then no
        link is followed.

        Raises:
            FileError: It is missing, no regular file, or not permitted.
        """
        return self._portal.iterate(self._core.read_stream, path)

    def write(self, path: str, data: bytes | str) -> None:
        """Write a file whole, its parent folders included; a reader sees the old or the new.

        Args:
            path: The file.
            data: Its content; text is written as UTF-8.

        Raises:
            FileError: Not permitted, a limit on size was hit, or a folder is in the way.
        """
        self._call(self._core.write, path, data)

    def write_stream(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write a file from pieces as they come; it appears when the last has been written.

        Raises:
            FileError: As ``write``.
        """
        self._call(self._core.write_stream, path, feed(chunks))

    def upload(self, local_path: str | os.PathLike[str], path: str) -> None:
        """Copy a local file into the sandbox.

        Raises:
            FileError: As ``write``.
            OSError: The local file cannot be read.
        """
        self._call(self._core.upload, local_path, path)

    def download(self, path: str, local_path: str | os.PathLike[str]) -> None:
        """Copy a file out of the sandbox to a new or replaced local file.

        The local file appears when the copy is complete.

        Raises:
            FileError: As ``read_stream``.
            OSError: The local file cannot be written.
        """
        self._call(self._core.download, path, local_path)

    def list(self, path: str = ".") -> list[FileInfo]:
        """Return what is in a folder, sorted by name; links are described, not followed.

        Raises:
            FileError: It is missing, no folder, or holds more than 10,000 entries (``EFBIG``).
        """
        return self._call(self._core.list, path)

    def stat(self, path: str) -> FileInfo:
        """Return what a path is; a link is described, not followed.

        Raises:
            FileError: It is missing.
        """
        return self._call(self._core.stat, path)

    def exists(self, path: str) -> bool:
        """Return whether something is there, a link that leads nowhere included."""
        return self._call(self._core.exists, path)

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file or link, or a folder.

        Args:
            path: What to remove.
            recursive: Whether a folder goes with all that is in it; else it must be empty.

        Raises:
            FileError: It is missing, not empty, or not permitted.
        """
        self._call(self._core.remove, path, recursive=recursive)

    def move(self, path: str, target: str) -> None:
        """Rename a file or folder, replacing a file at the target.

        Raises:
            FileError: It is missing, or the target is a folder that is not empty.
        """
        self._call(self._core.move, path, target)

    def make_dir(self, path: str) -> None:
        """Make a folder and its parents; nothing happens if it is there.

        Raises:
            FileError: Something else is in the way, or not permitted.
        """
        self._call(self._core.make_dir, path)

    def watch(self, path: str = ".", *, recursive: bool = True) -> Iterator[FileEvent]:
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
        return self._portal.iterate(self._core.watch, path, recursive=recursive)
