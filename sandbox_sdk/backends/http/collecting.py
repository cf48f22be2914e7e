"""Files that a server sends, kept by what came: its word for a path is only data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator
from pathlib import PurePosixPath

import aiohttp

from sandbox_sdk.backends.http import shelving
from sandbox_sdk.backends.protocol import Manifest
from sandbox_sdk.errors import ProtocolError
from sandbox_sdk.values import GIB, MIB, Artifact, Collected, Shelf
from sandbox_sdk.wire import from_json

MOST_FILES = 1000
"""Most files of one collection."""

MOST_BYTES = GIB
"""Most bytes of one collection."""

_LONGEST_MANIFEST = 8 * MIB
_CHUNK = 256 * 1024


async def receive(content: aiohttp.StreamReader, shelf: Shelf) -> Collected:
    """Keep what comes on a shelf.

    Raises:
        ProtocolError: It is not what was agreed on, or not what its digests say.
        OSError: The shelf cannot be written.
    """
    reader = _Reader(content)
    manifest = _read_manifest(await reader.line(_LONGEST_MANIFEST))
    for digest, size in {each.sha256: each.size_bytes for each in manifest.artifacts}.items():
        await shelving.keep(shelf, reader.file(digest, size))
    await reader.end()
    return Collected(artifacts=manifest.artifacts, skipped=manifest.skipped)


class _Reader:
    """Bytes of a response, a line or a number of them at a time."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._rest = b""

    async def line(self, most: int) -> bytes:
        found = bytearray()
        while b"\n" not in found:
            data = await self._content.readany()
            found += data
            if not data or len(found) > most + _CHUNK:
                raise ProtocolError("the server's list of files has no end")
        line, _, self._rest = bytes(found).partition(b"\n")
        return line

    async def some(self, most: int) -> bytes:
        if not self._rest:
            self._rest = await self._content.readany()
            if not self._rest:
                raise ProtocolError("the server sent less than it said")
        data, self._rest = self._rest[:most], self._rest[most:]
        return data

    async def file(self, said: str, size: int) -> AsyncGenerator[bytes]:
        """Yield so many bytes, which must be what was said of them."""
        found = hashlib.sha256()
        while size:
            data = await self.some(min(size, _CHUNK))
            size -= len(data)
            found.update(data)
            yield data
        if found.hexdigest() != said:
            raise ProtocolError(f"the server sent {found.hexdigest()}, and said {said}")

    async def end(self) -> None:
        if self._rest or await self._content.readany():
            raise ProtocolError("the server sent more than it said")


def _read_manifest(line: bytes) -> Manifest:
    try:
        manifest = from_json(Manifest, json.loads(line), lenient=True)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the server's list of files is not as agreed on: {error}") from error
    total = sum(each.size_bytes for each in manifest.artifacts)
    if len(manifest.artifacts) > MOST_FILES or total > MOST_BYTES:
        raise ProtocolError("the server sends more files than a collection may have")
    for artifact in manifest.artifacts:
        if not _is_sane(artifact):
            raise ProtocolError(f"the server names a file {str(artifact)[:200]!r}")
    return manifest


def _is_sane(artifact: Artifact) -> bool:
    path, digest = artifact.path, artifact.sha256
    plain = path and "\0" not in path and not path.startswith("/")
    inside = ".." not in PurePosixPath(path).parts
    hexadecimal = len(digest) == 64 and set(digest) <= set("0123456789abcdef")
    return bool(plain and inside and hexadecimal and artifact.size_bytes >= 0)
