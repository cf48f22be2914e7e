"""One file on its way into a content-addressed folder."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import tempfile
from pathlib import Path

from anyio.to_thread import run_sync

from sandbox_sdk.engine import extract
from sandbox_sdk.values import MIB, Artifact


class Arriving:
    """A file that comes in pieces, kept under a name of its own until its digest is known.

    Attributes:
        size: Bytes that came so far.
    """

    def __init__(self, folder: Path, descriptor: int, name: str) -> None:
        self.size = 0
        self._folder = folder
        self._descriptor = descriptor
        self._name: str | None = name
        self._digest = hashlib.sha256()
        self._waiting = bytearray()

    @classmethod
    def open(cls, folder: Path) -> Arriving:
        """Begin a file among those of a content-addressed folder; blocks on the disk.

        Raises:
            OSError: The folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, *tempfile.mkstemp(dir=folder))

    async def add(self, data: bytes) -> None:
        """Take the next piece."""
        self.size += len(data)
        self._waiting += data
        if len(self._waiting) >= MIB:
            await run_sync(self._write)

    async def place(self, path: str) -> Artifact:
        """Put the file below ``sha256/``, and return what it is.

        Args:
            path: What it was called where it comes from.
        """
        await run_sync(self._place)
        return Artifact(
            path=extract.shown(path),
            size_bytes=self.size,
            sha256=self._digest.hexdigest(),
            media_type=mimetypes.guess_type(path)[0] or "application/octet-stream",
        )

    def close(self) -> None:
        """Remove it, unless it was placed; blocks on the disk."""
        os.close(self._descriptor)
        if self._name is not None:
            os.unlink(self._name)

    def _write(self) -> None:
        self._digest.update(self._waiting)
        view = memoryview(bytes(self._waiting))
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._waiting.clear()

    def _place(self) -> None:
        self._write()
        os.fsync(self._descriptor)
        digest = self._digest.hexdigest()
        target = self._folder / "sha256" / digest[:2] / digest[2:]
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._name or "", target)
        self._name = None
