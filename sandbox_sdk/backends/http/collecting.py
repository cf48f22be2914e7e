"""Files that a server sends, kept by the digest of what came: its word for a path is only data."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path, PurePosixPath

import aiohttp
import anyio
from anyio.to_thread import run_sync

from sandbox_sdk.backends.protocol import Manifest
from sandbox_sdk.errors import ProtocolError
from sandbox_sdk.values import GIB, MIB, Artifact, Collected
from sandbox_sdk.wire import from_json

MOST_FILES = 1000
"""Most files of one collection."""

MOST_BYTES = GIB
"""Most bytes of one collection."""

_LONGEST_MANIFEST = 8 * MIB
_CHUNK = 256 * 1024


async def receive(content: aiohttp.StreamReader, destination: Path) -> Collected:
    """Keep what comes below ``sha256/`` of a folder.

    Raises:
        ProtocolError: It is not what was agreed on, or not what its digests say.
        OSError: The folder cannot be written.
    """
    reader = _Reader(content)
    manifest = _read_manifest(await reader.line(_LONGEST_MANIFEST))
    sizes = {each.sha256: each.size_bytes for each in manifest.artifacts}
    folder = destination / "sha256"
    await run_sync(lambda: folder.mkdir(parents=True, exist_ok=True))
    for digest, size in sizes.items():
        await _keep(reader, digest, size, folder)
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

    async def end(self) -> None:
        if self._rest or await self._content.readany():
            raise ProtocolError("the server sent more than it said")


async def _keep(reader: _Reader, digest: str, size: int, folder: Path) -> None:
    descriptor, name = await run_sync(lambda: tempfile.mkstemp(dir=folder))
    try:
        found = hashlib.sha256()
        async with anyio.wrap_file(os.fdopen(descriptor, "wb")) as file:
            left = size
            while left:
                data = await reader.some(min(left, _CHUNK))
                found.update(data)
                await file.write(data)
                left -= len(data)
        # By what came, not by what was said of it.
        await run_sync(_place, name, folder, found.hexdigest(), digest)
    except BaseException:
        with anyio.CancelScope(shield=True), contextlib.suppress(FileNotFoundError):
            await anyio.Path(name).unlink()
        raise


def _place(name: str, folder: Path, digest: str, said: str) -> None:
    if digest != said:
        raise ProtocolError(f"the server sent {digest}, and said {said}")
    target = folder / digest[:2] / digest[2:]
    target.parent.mkdir(exist_ok=True)
    os.replace(name, target)


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
