"""Files that come from a server are kept by what came: a server may lie about all of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from served import serving

from sandbox_sdk.backends.http.collecting import receive
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.engine.extract import shelf_of
from sandbox_sdk.errors import FileError, ProtocolError
from sandbox_sdk.values import MIB

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

DATA = b"content"
DIGEST = hashlib.sha256(DATA).hexdigest()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def stream(*data: bytes) -> aiohttp.StreamReader:
    reader = aiohttp.StreamReader(Mock(), 2**16, loop=asyncio.get_running_loop())
    for each in data:
        reader.feed_data(each)
    reader.feed_eof()
    return reader


def told(**change: Any) -> bytes:
    artifact = {"path": "a/b.txt", "size_bytes": len(DATA), "sha256": DIGEST, **change}
    return json.dumps({"artifacts": [artifact], "skipped": {}}).encode() + b"\n"


async def test_what_comes_is_kept_below_its_digest(tmp_path: Path) -> None:
    whole = told() + DATA
    collected = await receive(
        stream(*(whole[at : at + 1] for at in range(len(whole)))), shelf_of(tmp_path)
    )
    assert [each.path for each in collected.artifacts] == ["a/b.txt"]
    assert files(tmp_path) == [tmp_path / "sha256" / DIGEST[:2] / DIGEST[2:]]


LIES = {
    "other bytes": (told(), b"changed"),
    "fewer bytes": (told(), DATA[:-1]),
    "more bytes": (told(), DATA + b"x"),
    "a digest that is a path": (told(sha256="../../../x"), DATA),
    "a digest in capitals": (told(sha256=DIGEST.upper()), DATA),
    "a path above": (told(path="../x"), DATA),
    "a path that is absolute": (told(path="/x"), DATA),
    "a size below nothing": (told(size_bytes=-1), DATA),
    "a size of everything": (told(size_bytes=2**40), DATA),
    "no list": (b"[]\n", DATA),
    "no JSON": (b"{\n", DATA),
    "no line": (b"x" * 100, b""),
    "a line without end": (b" " * (9 * MIB), b""),
}


@pytest.mark.parametrize(("first", "then"), LIES.values(), ids=LIES)
async def test_a_lie_leaves_no_file(tmp_path: Path, first: bytes, then: bytes) -> None:
    with pytest.raises(ProtocolError):
        await receive(stream(first, then), shelf_of(tmp_path / "in" / "side"))
    left = files(tmp_path)
    # What came whole and right before the lie was told may stay.
    assert [path for path in left if path.read_bytes() != DATA] == []
    assert {path.parent.parent for path in left} <= {tmp_path / "in" / "side" / "sha256"}


async def test_files_leave_a_workspace_on_a_server(tmp_path: Path) -> None:
    async with (
        serving(tmp_path / "state") as (_, endpoint),
        AsyncSandboxClient(
            endpoint=endpoint,
            state_dir=tmp_path / "client",
            config={"security": {"seal_channels": False}},
        ) as client,
        await client.create_sandbox("x", files={"a.txt": "1", "d/b.txt": "1", "c": "2"}) as sandbox,
    ):
        await sandbox.run_command("ln -s /etc/passwd link.txt; head -c 3M /dev/zero > big.txt")
        for _ in range(2):  # running, and at rest
            kept = tmp_path / "kept"
            collected = await sandbox.collect(["**/*.txt", "*.txt"], kept)
            assert {each.path: each.size_bytes for each in collected.artifacts} == {
                "a.txt": 1,
                "big.txt": 3 * MIB,
                "d/b.txt": 1,
            }
            assert list(collected.skipped) == ["link.txt"]
            for each in collected.artifacts:
                path = kept / "sha256" / each.sha256[:2] / each.sha256[2:]
                assert hashlib.sha256(path.read_bytes()).hexdigest() == each.sha256
            read = sandbox._parts.backend.read_file
            assert b"".join([data async for data in read(sandbox.id, "big.txt")]) == bytes(3 * MIB)
            for path_inside in ("link.txt", "none", "../state.db", "/etc/passwd"):
                with pytest.raises(FileError):
                    await anext(aiter(read(sandbox.id, path_inside)))
            await sandbox.cleanup()
