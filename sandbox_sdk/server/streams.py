"""Files out of a workspace, streamed: one by its path, or many by patterns."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import anyio
from aiohttp import web
from anyio.to_thread import run_sync

from sandbox_sdk.backends.protocol import Manifest, Wanted
from sandbox_sdk.errors import ConfigError, NotPermitted
from sandbox_sdk.server.calls import Call
from sandbox_sdk.wire import to_json

_CHUNK = 256 * 1024
_MOST_PATTERNS = 1000


async def read_file(call: Call) -> web.StreamResponse:
    """Stream a file of a workspace, running or not."""
    await _require_open(call)
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    async with aclosing(_pieces(call)) as pieces:
        first = await anext(pieces, b"")  # what cannot be read is told before anything is sent
        await response.prepare(call.request)
        await response.write(first)
        async for data in pieces:
            await response.write(data)
    await response.write_eof()
    return response


async def _pieces(call: Call) -> AsyncGenerator[bytes]:
    async for data in call.tenant.backend.read_file(call.id, call.query("path")):
        yield data


async def collect(call: Call) -> web.StreamResponse:
    """Stream the files of a workspace that match: a line of JSON, then each digest's bytes."""
    wanted = await call.value(Wanted)
    if len(wanted.patterns) > _MOST_PATTERNS:
        raise ConfigError(f"patterns: are {len(wanted.patterns)}, more than {_MOST_PATTERNS}")
    await _require_open(call)
    async with call.tenant.heavy:
        return await _collect(call, wanted)


async def _require_open(call: Call) -> None:
    """Go on if the server may read a sandbox's files.

    Raises:
        SandboxNotFound: There is none.
        NotPermitted: They are for its owners, who read them over its sealed channel.
    """
    if (await call.tenant.backend.get(call.id)).spec.owners:
        raise NotPermitted(
            f"the channel of sandbox {call.id} is sealed, and its files leave by no other way: "
            "read them while it runs"
        )


async def _collect(call: Call, wanted: Wanted) -> web.StreamResponse:
    holding = await run_sync(tempfile.TemporaryDirectory)
    try:
        folder = Path(holding.name)
        collected = await call.tenant.backend.collect(call.id, wanted.patterns, folder)
        manifest = Manifest(artifacts=collected.artifacts, skipped=collected.skipped)
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        await response.prepare(call.request)
        await response.write(json.dumps(to_json(manifest)).encode() + b"\n")
        for digest in dict.fromkeys(each.sha256 for each in manifest.artifacts):
            kept = folder / "sha256" / digest[:2] / digest[2:]
            async with await anyio.open_file(kept, "rb") as file:
                while data := await file.read(_CHUNK):
                    await response.write(data)
        await response.write_eof()
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(holding.cleanup)
    return response
