"""A file far larger than any buffer crosses the wall without either side growing by it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox_sdk import AsyncSandboxClient
from sandbox_sdk.values import MIB

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

SIZE = 50 * MIB
ROOM = 24 * MIB


def peak_bytes() -> int:
    """The most memory this process was ever resident with."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel keeps no VmHWM")


async def test_fifty_mib_in_and_out_in_bounded_memory(tmp_path: Path) -> None:
    """Neither this process nor the sandbox, at 64 MiB, holds the file."""
    piece = bytes(range(256)) * 4096

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(SIZE // len(piece)):
            yield piece

    async with (
        AsyncSandboxClient(state_dir=tmp_path / "state") as client,
        await client.create_sandbox("large", resources={"memory": "64MiB"}) as sandbox,
    ):
        await sandbox.files.write("warm", piece)
        before = peak_bytes()
        await sandbox.files.write_stream("large", pieces())
        size = 0
        async for data in sandbox.files.read_stream("large"):
            assert data == piece[size % len(piece) :][: len(data)]
            size += len(data)
        assert size == SIZE
        assert peak_bytes() - before < ROOM
        assert (await sandbox.run_command("true")).ok
